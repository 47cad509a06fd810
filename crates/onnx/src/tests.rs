//! Models built message by message: legacy forms, refusals, hostile bytes.

mod hostile;

use ndarray::ArrayD;
use privet_graph::{FloatModel, Graph};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use prost::Message;

use crate::proto::*;
use crate::{OnnxError, parse};

fn attribute(name: &str, r#type: i32) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type, ..AttributeProto::default() }
}

fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { f: Some(f), ..attribute(name, 1) }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { i: Some(i), ..attribute(name, 2) }
}

fn string(name: &str, s: &str) -> AttributeProto {
    AttributeProto { s: Some(s.as_bytes().to_vec()), ..attribute(name, 3) }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { ints: ints.to_vec(), ..attribute(name, 7) }
}

fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|&s| s.to_owned()).collect(),
        output: vec![output.to_owned()],
        name: format!("the {op}"),
        op_type: op.to_owned(),
        attribute,
        domain: String::new(),
    }
}

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&d: &i64| DimensionProto { dim_value: Some(d), dim_param: None };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let r#type = Some(TypeProto { tensor_type: Some(TensorTypeProto { elem_type: 1, shape }) });
    ValueInfoProto { name: name.to_owned(), r#type }
}

fn weight(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let (dims, float_data) = (dims.to_vec(), values.to_vec());
    TensorProto { name: name.to_owned(), dims, data_type: 1, float_data, ..TensorProto::default() }
}

/// A model from `x` of shape `dims` to `y`.
fn model(opset: i64, dims: &[i64], node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
    let graph = GraphProto {
        node,
        name: String::new(),
        initializer,
        input: vec![value("x", dims)],
        output: vec![value("y", &[])],
        sparse_initializer: Vec::new(),
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: opset }];
    ModelProto { ir_version: None, graph: Some(graph), opset_import }
}

fn read(model: &ModelProto) -> Result<Graph, OnnxError> {
    parse(&model.encode_to_vec(), "test")
}

fn run(model: &ModelProto, x: &[f32]) -> Vec<f32> {
    let float = FloatModel::new(&read(model).unwrap(), &[]).unwrap();
    let dims = model.graph.as_ref().unwrap().input[0]
        .r#type
        .clone()
        .unwrap()
        .tensor_type
        .unwrap()
        .shape
        .unwrap()
        .dim;
    let shape: Vec<usize> = dims.iter().map(|d| d.dim_value.unwrap() as usize).collect();
    let y = float.run(&[ArrayD::from_shape_vec(shape, x.to_vec()).unwrap()]).unwrap().remove(0);
    y.into_iter().collect()
}

fn refusal(model: &ModelProto) -> String {
    read(model).expect_err("this must be refused").to_string()
}

#[test]
fn what_later_opsets_take_as_inputs_older_ones_take_as_attributes() {
    let clip = node("Clip", &["x"], "y", vec![float("max", 2.0)]);
    assert_eq!(run(&model(10, &[3], vec![clip.clone()], vec![]), &[-1.0, 1.0, 5.0]), [-1.0, 1.0, 2.0]);
    assert!(refusal(&model(11, &[3], vec![clip], vec![])).contains("attribute max"));
    let slice = node("Slice", &["x"], "y", vec![ints("starts", &[-2]), ints("ends", &[9])]);
    assert_eq!(run(&model(9, &[3], vec![slice.clone()], vec![]), &[1.0, 2.0, 3.0]), [2.0, 3.0]);
    assert!(read(&model(10, &[3], vec![slice], vec![])).is_err());
    let pad = node("Pad", &["x"], "y", vec![ints("pads", &[1, 0]), float("value", 7.0)]);
    assert_eq!(run(&model(7, &[2], vec![pad], vec![]), &[1.0, 2.0]), [7.0, 1.0, 2.0]);
    let unsqueeze = node("Unsqueeze", &["x"], "y", vec![ints("axes", &[0])]);
    assert_eq!(run(&model(12, &[2], vec![unsqueeze.clone()], vec![]), &[1.0, 2.0]), [1.0, 2.0]);
    assert!(read(&model(13, &[2], vec![unsqueeze], vec![])).is_err());
}

#[test]
fn nonlinear_operators_follow_their_opsets() {
    let x = [-2.0, 0.5, 3.0, -1.0];
    let of = |opset, op, attributes| {
        run(&model(opset, &[2, 2], vec![node(op, &["x"], "y", attributes)], vec![]), &x)
    };
    assert_eq!(of(7, "ReduceMax", vec![ints("axes", &[1]), int("keepdims", 0)]), [0.5, 3.0]);
    assert_eq!(of(18, "ReduceMin", vec![]), [-2.0]);
    assert_eq!(of(18, "ReduceL1", vec![int("noop_with_empty_axes", 1)]), [2.0, 0.5, 3.0, 1.0]);
    assert_eq!(of(13, "ReduceSumSquare", vec![ints("axes", &[0])]), [13.0, 1.25]);
    assert_eq!(of(12, "ArgMax", vec![int("axis", 1), int("select_last_index", 1)]), [1.0, 0.0]);
    assert_eq!(of(7, "ArgMin", vec![]), [0.0, 1.0]);
    assert_eq!(of(16, "LeakyRelu", vec![float("alpha", 0.5)]), [-1.0, 0.5, 3.0, -0.5]);
    assert_eq!(of(10, "ThresholdedRelu", vec![]), [0.0, 0.0, 3.0, 0.0]);
    assert_eq!(of(7, "HardSigmoid", vec![float("alpha", 1.0), float("beta", 0.0)]), [0.0, 0.5, 1.0, 0.0]);
    assert!(
        of(9, "Erf", vec![])
            .iter()
            .zip([-0.995_322, 0.520_5, 0.999_978, -0.842_701])
            .all(|(a, b)| (a - b).abs() < 1e-5)
    );
    assert!(of(7, "Tanh", vec![]).iter().zip(x).all(|(a, x)| *a == f64::from(x).tanh() as f32));
    let [exact, close] = [of(20, "Gelu", vec![]), of(20, "Gelu", vec![string("approximate", "tanh")])];
    assert!(exact != close && exact.iter().zip(close).all(|(a, b)| (a - b).abs() < 1e-3));
    assert_eq!(of(13, "LRN", vec![int("size", 1), float("alpha", 1.0), float("beta", 0.0)]), x);
    let refused = |opset, op, attributes| {
        refusal(&model(opset, &[2, 2], vec![node(op, &["x"], "y", attributes)], vec![]))
    };
    assert!(refused(18, "ReduceMax", vec![ints("axes", &[1])]).contains("attribute axes"));
    assert!(refused(17, "ReduceMax", vec![int("noop_with_empty_axes", 1)]).contains("noop_with_empty_axes"));
    assert!(refused(11, "ArgMax", vec![int("select_last_index", 1)]).contains("select_last_index"));
    assert!(refused(13, "LRN", vec![]).contains("size"));
    assert!(refused(13, "HardSwish", vec![]).contains("HardSwish"));
    // Functions that need an exponential have no private form.
    assert!(refused(19, "Gelu", vec![]).contains("Gelu"));
    assert!(refused(20, "Gelu", vec![string("approximate", "fast")]).contains("approximate"));
    for op in ["Elu", "Selu", "Celu", "Softplus", "Exp", "Log"] {
        assert!(refused(13, op, vec![]).contains(&format!("operator {op} (opset 13) is not supported")));
    }
}

#[test]
fn initializers_may_be_listed_as_inputs() {
    let add = node("Add", &["x", "w"], "y", vec![]);
    let mut model = model(7, &[2], vec![add], vec![weight("w", &[2], &[1.0, 2.0])]);
    model.graph.as_mut().unwrap().input.push(value("w", &[2]));
    assert_eq!(run(&model, &[1.0, 1.0]), [2.0, 3.0]);
    assert_eq!(read(&model).unwrap().inputs.len(), 1);
}

#[test]
fn unknown_operators_and_domains_are_refused_by_name() {
    let message = refusal(&model(13, &[2], vec![node("Hardmax", &["x"], "y", vec![])], vec![]));
    assert!(message.contains("the Hardmax") && message.contains("supported: Abs, Add, "), "{message}");
    let mut foreign = node("Relu", &["x"], "y", vec![]);
    foreign.domain = "com.example".to_owned();
    assert!(refusal(&model(13, &[2], vec![foreign], vec![])).contains("com.example::Relu"));
    // Range exists, but not yet in opset 7.
    assert!(refusal(&model(7, &[2], vec![node("Range", &["x"], "y", vec![])], vec![])).contains("opset 7"));
}

#[test]
fn attributes_are_honoured_or_refused_by_name() {
    let relu = |attributes| model(13, &[2], vec![node("Relu", &["x"], "y", attributes)], vec![]);
    assert!(refusal(&relu(vec![int("fancy", 1)])).contains("attribute fancy is not supported"));
    let pool = |attributes| model(13, &[1, 1, 4], vec![node("MaxPool", &["x"], "y", attributes)], vec![]);
    let kernel = || ints("kernel_shape", &[2]);
    assert!(refusal(&pool(vec![])).contains("kernel_shape is missing"));
    assert!(refusal(&pool(vec![kernel(), int("storage_order", 1)])).contains("storage_order is 1"));
    assert!(refusal(&pool(vec![kernel(), string("auto_pad", "SOME")])).contains("\"SOME\""));
    assert!(refusal(&pool(vec![kernel(), kernel()])).contains("twice"));
    assert!(refusal(&pool(vec![float("kernel_shape", 2.0)])).contains("has type FLOAT"));
    let reference = AttributeProto { ref_attr_name: "outer".to_owned(), ..kernel() };
    assert!(refusal(&pool(vec![reference])).contains("refers to a function"));
    let pad = node("Pad", &["x", "p"], "y", vec![string("mode", "mirror")]);
    assert!(refusal(&model(13, &[2], vec![pad], vec![weight("p", &[2], &[1.0, 1.0])])).contains("mirror"));
    let subgraph = node("Constant", &[], "y", vec![attribute("value_string", 3)]);
    assert!(refusal(&model(13, &[2], vec![subgraph], vec![])).contains("value_string"));
    let sparse = node("Constant", &[], "y", vec![attribute("sparse_value", 11)]);
    assert!(refusal(&model(13, &[2], vec![sparse], vec![])).contains("sparse_value"));
    let resize = |attributes| {
        model(
            13,
            &[2],
            vec![node("Resize", &["x", "", "s"], "y", attributes)],
            vec![weight("s", &[1], &[2.0])],
        )
    };
    assert_eq!(run(&resize(vec![]), &[1.0, 2.0]), [1.0, 1.0, 2.0, 2.0]);
    assert!(refusal(&resize(vec![int("antialias", 1)])).contains("antialias is not supported"));
    let symmetric = string("coordinate_transformation_mode", "half_pixel_symmetric");
    assert!(refusal(&resize(vec![symmetric])).contains("half_pixel_symmetric"));
    let upsample = node("Upsample", &["x", "s"], "y", vec![]);
    let upsample = |opset| model(opset, &[2], vec![upsample.clone()], vec![weight("s", &[1], &[2.0])]);
    assert_eq!(run(&upsample(9), &[1.0, 2.0]), [1.0, 1.0, 2.0, 2.0]);
    assert!(refusal(&upsample(10)).contains("Resize from opset 10 on"));
}

#[test]
fn second_results_are_refused_when_something_reads_them() {
    let mut pool = node("MaxPool", &["x"], "a", vec![ints("kernel_shape", &[2])]);
    pool.output.push("indices".to_owned());
    let good = model(13, &[1, 1, 4], vec![pool.clone(), node("Relu", &["a"], "y", vec![])], vec![]);
    assert!(read(&good).is_ok());
    let bad = model(13, &[1, 1, 4], vec![pool, node("Relu", &["indices"], "y", vec![])], vec![]);
    assert!(refusal(&bad).contains("indices"));
}

#[test]
fn all_results_of_a_split_are_there_but_for_unnamed_ones() {
    let mut split = node("Split", &["x"], "a", vec![int("axis", 0), ints("split", &[1, 2, 1])]);
    split.output = vec!["a".to_owned(), String::new(), "c".to_owned()];
    let concat = node("Concat", &["c", "a"], "y", vec![int("axis", 0)]);
    let both = model(11, &[4], vec![split.clone(), concat.clone()], vec![]);
    assert_eq!(run(&both, &[1.0, 2.0, 3.0, 4.0]), [4.0, 1.0]);
    // The middle one is gone, the last one was never named.
    let stray = node("Relu", &["d"], "y", vec![]);
    assert!(refusal(&model(11, &[4], vec![split.clone(), stray], vec![])).contains("\"d\""));
    split.output = vec![String::new(), "b".to_owned(), "c".to_owned()];
    let relu = node("Relu", &["b"], "y", vec![]);
    assert_eq!(run(&model(11, &[4], vec![split, relu], vec![]), &[1.0, 2.0, 3.0, 4.0]), [2.0, 3.0]);
    let mut even = node("Split", &["x"], "a", vec![int("num_outputs", 2)]);
    even.output.push("b".to_owned());
    let concat = node("Concat", &["b", "a"], "y", vec![int("axis", 0)]);
    let halves = model(18, &[3], vec![even.clone(), concat], vec![]);
    assert_eq!(run(&halves, &[1.0, 2.0, 3.0]), [3.0, 1.0, 2.0]);
    even.attribute.clear();
    assert!(refusal(&model(18, &[3], vec![even], vec![])).contains("num_outputs is missing"));
}

#[test]
fn the_mask_of_a_dropout_keeps_everything() {
    let mut dropout = node("Dropout", &["x"], "a", vec![]);
    dropout.output.push("mask".to_owned());
    let cast = node("Cast", &["mask"], "kept", vec![int("to", 1)]);
    let add = node("Add", &["a", "kept"], "y", vec![]);
    assert_eq!(run(&model(13, &[2], vec![dropout, cast, add], vec![]), &[1.0, 2.0]), [2.0, 3.0]);
}

fn graph(name: &str, nodes: Vec<NodeProto>, output: &str, initializer: Vec<TensorProto>) -> AttributeProto {
    let output = vec![value(output, &[])];
    let g = GraphProto { node: nodes, initializer, output, ..GraphProto::default() };
    AttributeProto { g: Some(Box::new(g)), ..attribute(name, 5) }
}

#[test]
fn a_condition_on_shapes_chooses_a_branch() {
    let scalar = |name: &str, data_type, v: i64| TensorProto {
        name: name.to_owned(),
        data_type,
        int64_data: if data_type == 7 { vec![v] } else { Vec::new() },
        int32_data: if data_type == 9 { vec![v as i32] } else { Vec::new() },
        ..TensorProto::default()
    };
    // If x has another number of elements than `size`: x + w; else, if false: something unknown, else: -x.
    let choosing = |size: i64| {
        let add = node("Add", &["x", "w"], "t", vec![]);
        let then = graph("then_branch", vec![add], "t", vec![weight("w", &[1], &[5.0])]);
        let inner = vec![
            graph("then_branch", vec![node("Fancy", &["x"], "i", vec![])], "i", vec![]),
            graph("else_branch", vec![node("Neg", &["x"], "i", vec![])], "i", vec![]),
        ];
        let otherwise =
            graph("else_branch", vec![node("If", &["no"], "e", inner)], "e", vec![scalar("no", 9, 0)]);
        let nodes = vec![
            node("Size", &["x"], "s", vec![]),
            node("Sub", &["s", "size"], "d", vec![]),
            node("Cast", &["d"], "c", vec![int("to", 9)]),
            node("If", &["c"], "y", vec![then, otherwise]),
        ];
        model(13, &[2], nodes, vec![scalar("size", 7, size)])
    };
    assert_eq!(run(&choosing(3), &[1.0, 2.0]), [6.0, 7.0]);
    assert_eq!(run(&choosing(2), &[1.0, 2.0]), [-1.0, -2.0]);
}

#[test]
fn branches_that_cannot_be_are_refused() {
    let yes =
        || TensorProto { name: "yes".into(), data_type: 9, int32_data: vec![1], ..TensorProto::default() };
    let branch = |name, op| graph(name, vec![node(op, &["x"], "b", vec![])], "b", vec![]);
    let of = |condition, then| {
        let branches = vec![then, branch("else_branch", "Relu")];
        model(13, &[2], vec![node("If", &[condition], "y", branches)], vec![yes()])
    };
    let failure = |model: &ModelProto| FloatModel::new(&read(model).unwrap(), &[]).unwrap_err().to_string();
    assert_eq!(run(&of("yes", branch("then_branch", "Neg")), &[1.0, 2.0]), [-1.0, -2.0]);
    assert!(failure(&of("yes", branch("then_branch", "Fancy"))).contains("operator Fancy"));
    assert!(
        failure(&of("x", branch("then_branch", "Neg")))
            .contains("condition that depends on the model's input")
    );
    let lost = graph("then_branch", vec![node("Neg", &["q"], "b", vec![])], "b", vec![]);
    assert!(failure(&of("yes", lost)).contains("\"q\""));
    let mut inputs = branch("then_branch", "Neg");
    inputs.g.as_mut().unwrap().input.push(value("z", &[2]));
    assert!(failure(&of("yes", inputs)).contains("has inputs"));
    let lone =
        model(13, &[2], vec![node("If", &["yes"], "y", vec![branch("then_branch", "Neg")])], vec![yes()]);
    assert!(refusal(&lone).contains("else_branch is missing"));
}

#[test]
fn opsets_outside_the_known_ones_are_refused() {
    let relu = || vec![node("Relu", &["x"], "y", vec![])];
    for opset in [i64::MIN, 0, 6, 29] {
        assert!(refusal(&model(opset, &[2], relu(), vec![])).contains("supported: ai.onnx 7 to 28"));
    }
    let mut none = model(13, &[2], relu(), vec![]);
    none.opset_import.clear();
    assert!(read(&none).is_err());
}

#[test]
fn contradictions_are_refused() {
    let relu = |from, to| node("Relu", &[from], to, vec![]);
    assert!(refusal(&model(13, &[2], vec![relu("q", "y")], vec![])).contains("\"q\""));
    assert!(refusal(&model(13, &[2], vec![relu("y", "y")], vec![])).contains("nothing before it"));
    assert!(refusal(&model(13, &[2], vec![relu("x", "y"), relu("x", "y")], vec![])).contains("twice"));
    assert!(refusal(&model(13, &[2], vec![], vec![])).contains("\"y\""));
    assert!(read(&ModelProto::default()).is_err());
    let mut doubles = model(13, &[2], vec![relu("x", "y")], vec![]);
    doubles.graph.as_mut().unwrap().input[0]
        .r#type
        .as_mut()
        .unwrap()
        .tensor_type
        .as_mut()
        .unwrap()
        .elem_type = 11;
    assert!(refusal(&doubles).contains("DOUBLE"));
}

#[test]
fn small_files_cannot_ask_for_much() {
    let shape = |name: &str, dims: &[i64]| TensorProto {
        name: name.to_owned(),
        dims: vec![dims.len() as i64],
        data_type: 7,
        int64_data: dims.to_vec(),
        ..TensorProto::default()
    };
    for dims in [&[1 << 40][..], &[1 << 20, 1 << 20], &[1 << 29], &[i64::MAX, i64::MAX, 0]] {
        let fill = node("ConstantOfShape", &["s"], "y", vec![]);
        let graph = read(&model(13, &[2], vec![fill], vec![shape("s", dims)])).unwrap();
        assert!(FloatModel::new(&graph, &[]).is_err(), "{dims:?}");
        let expand = node("Expand", &["c", "s"], "y", vec![]);
        let graph =
            read(&model(13, &[2], vec![expand], vec![shape("s", dims), weight("c", &[1], &[1.0])])).unwrap();
        assert!(FloatModel::new(&graph, &[]).is_err(), "{dims:?}");
    }
    // A kernel and padding of 2^23 must not be walked element by element.
    let huge = 1 << 23;
    let attributes = vec![ints("kernel_shape", &[huge]), ints("pads", &[huge - 1, huge - 1])];
    let graph =
        read(&model(13, &[1, 1, 8], vec![node("AveragePool", &["x"], "y", attributes)], vec![])).unwrap();
    assert!(FloatModel::new(&graph, &[]).is_ok());
}

/// A model with something of everything, to be damaged.
fn sample() -> ModelProto {
    let conv =
        node("Conv", &["x", "w"], "a", vec![ints("pads", &[1, 1]), ints("strides", &[2]), int("group", 1)]);
    let shape = node("Shape", &["a"], "s", vec![]);
    let reshape = node("Reshape", &["a", "s"], "b", vec![]);
    let pool =
        node("MaxPool", &["b"], "c", vec![ints("kernel_shape", &[2]), string("auto_pad", "SAME_UPPER")]);
    let flatten = node("Flatten", &["c"], "f", vec![int("axis", 1)]);
    let branch = |name, op| graph(name, vec![node(op, &["f"], "d", vec![])], "d", vec![]);
    let cast = node("Cast", &["s"], "t", vec![int("to", 9)]);
    let mut split = node("Split", &["t"], "one", vec![int("axis", 0)]);
    split.output.extend(["two".to_owned(), "three".to_owned()]);
    let branches = vec![branch("then_branch", "Relu"), branch("else_branch", "Neg")];
    let choice = node("If", &["one"], "d", branches);
    let softmax = node("Softmax", &["d"], "y", vec![int("axis", 1)]);
    let w = weight("w", &[2, 1, 3], &[1.0, -1.0, 0.5, 2.0, 0.0, 1.0]);
    model(13, &[1, 1, 6], vec![conv, shape, reshape, pool, flatten, cast, split, choice, softmax], vec![w])
}

#[test]
fn the_sample_is_sound() {
    let y = run(&sample(), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert!((y.iter().sum::<f32>() - 1.0).abs() < 1e-6);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, rng_seed: RngSeed::Fixed(2), ..ProptestConfig::default() })]

    /// Damaged files are refused or read, never a panic.
    #[test]
    fn damaged_files_never_panic(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
                                 cut in any::<prop::sample::Index>(), whole in any::<bool>()) {
        let mut bytes = sample().encode_to_vec();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(graph) = parse(&bytes, "damaged")
            && let Ok(float) = FloatModel::new(&graph, &[])
        {
            let shape: Vec<usize> = vec![1, 1, 6];
            let _ = float.run(&[ArrayD::zeros(shape)]);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = parse(&bytes, "random");
        let _ = crate::parse_tensor(&bytes);
    }
}

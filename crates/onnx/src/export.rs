//! Writes a [`privet_graph::Graph`] as an ONNX file, for other runtimes: operators of layers, weights as float32.
//!
//! Operator set 17. What this module cannot write is refused by name. Weights are named as in PyTorch's `state_dict` where
//! nodes are named by paths of layers, as [`privet_graph::nn`] names them.

use std::collections::{BTreeMap, BTreeSet};

use privet_graph::{Args, Dim, Fact, Graph, Node, Tensor, ValueId, WindowSpec, ops};
use prost::Message;

use crate::OnnxError;
use crate::proto::*;

/// The operator set that is written.
const OPSET: i64 = 17;
/// The version of the file format, as old as the operator set.
const IR_VERSION: i64 = 8;
/// What is written, for messages.
const SUPPORTED: &str = "Add, AveragePool, BatchNormalization, Clip, Concat, Conv, Flatten, Gemm, GlobalAveragePool, \
                         HardSigmoid, HardSwish, LeakyRelu, MatMul, MaxPool, Mul, Relu, Sigmoid, Softmax, Sub";

/// Element types and attribute types, as `onnx.proto` numbers them.
const FLOAT: i32 = 1;
const INT64: i32 = 7;
const BOOL: i32 = 9;
const ATTRIBUTE_FLOAT: i32 = 1;
const ATTRIBUTE_INT: i32 = 2;
const ATTRIBUTE_INTS: i32 = 7;

/// The bytes of an ONNX file with the nodes, constants, inputs and outputs of `graph`.
///
/// # Errors
/// An operator that this does not write, and an input whose number of axes is unknown.
pub fn export(graph: &Graph) -> Result<Vec<u8>, OnnxError> {
    let names = names(graph);
    let name = |value: &ValueId| names[value].clone();
    let used: BTreeSet<ValueId> =
        graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten().copied()).collect();
    let constants = graph.constants.iter().filter(|(value, _)| used.contains(value));
    let initializer = constants.map(|(value, tensor)| write(name(value), tensor)).collect();
    let mut node = Vec::with_capacity(graph.nodes.len());
    // Some runtimes refuse two nodes of one name.
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for (i, own) in graph.nodes.iter().enumerate() {
        let (op_type, attribute) = operator(own)?;
        let candidates = [own.name.clone(), format!("{}/{op_type}", own.name), format!("{}/{i}", own.name)];
        let name_of_node = candidates.into_iter().find(|name| taken.insert(name.clone()));
        node.push(NodeProto {
            input: own.inputs.iter().map(|v| v.as_ref().map_or_else(String::new, name)).collect(),
            output: own.outputs.iter().map(name).collect(),
            name: name_of_node.unwrap_or_default(),
            op_type: op_type.to_owned(),
            attribute,
            domain: String::new(),
        });
    }
    let mut input = Vec::with_capacity(graph.inputs.len());
    for spec in &graph.inputs {
        let dims = spec.dims.as_ref().ok_or_else(|| {
            OnnxError::Malformed(format!("input {:?}: expected a number of axes, found none", spec.name))
        })?;
        input.push(declaration(&spec.name, Some(dims)));
    }
    let shapes = shapes(graph);
    let output = graph.outputs.iter().map(|o| declaration(&o.name, shapes.get(&o.value))).collect();
    let whole =
        GraphProto { node, initializer, input, output, name: graph.name.clone(), ..GraphProto::default() };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: OPSET }];
    Ok(ModelProto { ir_version: Some(IR_VERSION), graph: Some(whole), opset_import }.encode_to_vec())
}

/// A name for every value: those of inputs and outputs, then of parameters by their layers, else numbers.
fn names(graph: &Graph) -> BTreeMap<ValueId, String> {
    let mut names: BTreeMap<ValueId, String> = BTreeMap::new();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut give = |value: ValueId, wanted: String| {
        let name = if taken.contains(&wanted) { format!("{wanted}/{}", value.index()) } else { wanted };
        if let std::collections::btree_map::Entry::Vacant(free) = names.entry(value) {
            taken.insert(name.clone());
            free.insert(name);
        }
    };
    graph.inputs.iter().for_each(|i| give(i.value, i.name.clone()));
    graph.outputs.iter().for_each(|o| give(o.value, o.name.clone()));
    for node in &graph.nodes {
        let roles: &[&str] = match node.op.name() {
            "BatchNormalization" => &["weight", "bias", "running_mean", "running_var"],
            "Conv" | "Gemm" => &["weight", "bias"],
            _ => &[],
        };
        for (value, role) in node.inputs.iter().skip(1).flatten().zip(roles) {
            if graph.constants.contains_key(value) {
                give(
                    *value,
                    if node.name.is_empty() { (*role).to_owned() } else { format!("{}.{role}", node.name) },
                );
            }
        }
    }
    let values = graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten().chain(&n.outputs));
    values.for_each(|value| give(*value, format!("value/{}", value.index())));
    names
}

/// The shapes of values, as far as they follow from inputs of fixed shapes.
fn shapes(graph: &Graph) -> BTreeMap<ValueId, Vec<Dim>> {
    let mut facts: BTreeMap<ValueId, Fact> =
        graph.constants.iter().map(|(value, tensor)| (*value, Fact::constant(tensor.clone()))).collect();
    for input in &graph.inputs {
        let fixed = |dim: &Dim| match dim {
            Dim::Fixed(size) => Some(*size),
            Dim::Symbolic(_) => None,
        };
        let shape: Option<Vec<usize>> = input.dims.iter().flatten().map(fixed).collect();
        facts.extend(shape.map(|shape| (input.value, Fact::new(input.dtype, shape))));
    }
    for node in &graph.nodes {
        let operands: Vec<Option<&Fact>> =
            node.inputs.iter().map(|v| v.and_then(|v| facts.get(&v))).collect();
        let known = operands.iter().zip(&node.inputs).all(|(fact, input)| fact.is_some() == input.is_some());
        let results = if known { node.op.facts(Args(&operands)).unwrap_or_default() } else { Vec::new() };
        facts.extend(node.outputs.iter().copied().zip(results));
    }
    let dims = |fact: Fact| fact.shape.into_iter().map(Dim::Fixed).collect();
    facts.into_iter().map(|(value, fact)| (value, dims(fact))).collect()
}

/// A node's operator and attributes.
fn operator(node: &Node) -> Result<(&'static str, Vec<AttributeProto>), OnnxError> {
    let attributes = if let Some(conv) = node.is::<ops::Conv>() {
        [window(node, &conv.window, true)?, vec![int("group", conv.groups)]].concat()
    } else if let Some(gemm) = node.is::<ops::Gemm>() {
        vec![
            float("alpha", gemm.alpha),
            float("beta", gemm.beta),
            int("transA", i64::from(gemm.trans_a)),
            int("transB", i64::from(gemm.trans_b)),
        ]
    } else if let Some(pool) = node.is::<ops::MaxPool>() {
        let ceil_mode = int("ceil_mode", i64::from(pool.window.ceil_mode));
        [window(node, &pool.window, true)?, vec![ceil_mode]].concat()
    } else if let Some(pool) = node.is::<ops::AveragePool>() {
        let flags = [("ceil_mode", pool.window.ceil_mode), ("count_include_pad", pool.count_include_pad)];
        let flags = flags.map(|(name, is)| int(name, i64::from(is))).to_vec();
        [window(node, &pool.window, false)?, flags].concat()
    } else if let Some(norm) = node.is::<ops::BatchNormalization>() {
        vec![float("epsilon", norm.epsilon)]
    } else if let Some(flatten) = node.is::<ops::Flatten>() {
        vec![int("axis", flatten.axis)]
    } else if let Some(concat) = node.is::<ops::Concat>() {
        vec![int("axis", concat.axis)]
    } else if let Some(leaky) = node.is::<ops::LeakyRelu>() {
        vec![float("alpha", leaky.alpha)]
    } else if let Some(hard) = node.is::<ops::HardSigmoid>() {
        vec![float("alpha", hard.alpha), float("beta", hard.beta)]
    } else if let Some(softmax) = node.is::<ops::Softmax>().filter(|s| !s.coerce && !s.log) {
        vec![int("axis", softmax.axis)]
    } else if is_plain(node) {
        Vec::new()
    } else {
        return Err(OnnxError::Export {
            node: node.name.clone(),
            operator: node.op.name().to_owned(),
            supported: SUPPORTED.to_owned(),
        });
    };
    Ok((node.op.name(), attributes))
}

/// Whether the operator has no attributes.
fn is_plain(node: &Node) -> bool {
    node.is::<ops::Add>().is_some()
        || node.is::<ops::Clip>().is_some()
        || node.is::<ops::GlobalAveragePool>().is_some()
        || node.is::<ops::HardSwish>().is_some()
        || node.is::<ops::MatMul>().is_some()
        || node.is::<ops::Mul>().is_some()
        || node.is::<ops::Relu>().is_some()
        || node.is::<ops::Sigmoid>().is_some()
        || node.is::<ops::Sub>().is_some()
}

/// A window's attributes; average pooling has no dilations in this operator set.
fn window(node: &Node, spec: &WindowSpec, has_dilations: bool) -> Result<Vec<AttributeProto>, OnnxError> {
    let dilated = spec.dilations.as_ref().is_some_and(|d| d.iter().any(|&d| d != 1));
    if spec.auto_pad != privet_graph::AutoPad::NotSet || dilated && !has_dilations {
        let supported = "declared padding; dilations of 1 in AveragePool".to_owned();
        let operator = format!("{} with {spec:?}", node.op.name());
        return Err(OnnxError::Export { node: node.name.clone(), operator, supported });
    }
    let lists = [
        ("kernel_shape", &spec.kernel),
        ("strides", &spec.strides),
        ("pads", &spec.pads),
        ("dilations", if has_dilations { &spec.dilations } else { &None }),
    ];
    let list = |(name, values): (&str, &Option<Vec<i64>>)| {
        let ints = values.clone()?;
        Some(AttributeProto { ints, ..attribute(name, ATTRIBUTE_INTS) })
    };
    Ok(lists.into_iter().filter_map(list).collect())
}

fn attribute(name: &str, r#type: i32) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type, ..AttributeProto::default() }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, ATTRIBUTE_INT) }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, ATTRIBUTE_FLOAT) }
}

pub(crate) fn write(name: String, tensor: &Tensor) -> TensorProto {
    let (data_type, raw) = match tensor {
        Tensor::F32(values) => (FLOAT, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        Tensor::I64(values) => (INT64, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        Tensor::Bool(values) => (BOOL, values.iter().map(|&v| u8::from(v)).collect()),
    };
    let dims = tensor.shape().iter().map(|&d| d as i64).collect();
    TensorProto { name, dims, data_type, raw_data: Some(raw), ..TensorProto::default() }
}

/// An input or output, whose shape may be left out.
fn declaration(name: &str, dims: Option<&Vec<Dim>>) -> ValueInfoProto {
    let dimension = |dim: &Dim| match dim {
        Dim::Fixed(size) => DimensionProto { dim_value: Some(*size as i64), dim_param: None },
        Dim::Symbolic(name) => DimensionProto { dim_value: None, dim_param: Some(name.clone()) },
    };
    let shape = dims.map(|dims| TensorShapeProto { dim: dims.iter().map(dimension).collect() });
    let tensor_type = Some(TensorTypeProto { elem_type: FLOAT, shape });
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type }) }
}

#[cfg(test)]
mod tests {
    use privet_graph::FloatModel;
    use privet_graph::nn::{self, Module, Parameters, zoo};

    use super::*;

    /// What is written and read back gives the same values, and layers keep their names.
    fn returns(model: &Module, input: &[usize]) -> Graph {
        let built = model.build("model", input, Parameters::random(3)).unwrap();
        let bytes = export(&built.graph).unwrap();
        let again = crate::parse(&bytes, "model").unwrap();
        let x = nn::random_input(5, 0, input);
        let run = |graph: &Graph| FloatModel::new(graph, &[]).unwrap().run(std::slice::from_ref(&x)).unwrap();
        assert_eq!(run(&built.graph), run(&again));
        let decoded = ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
        let written: BTreeMap<&str, usize> = decoded
            .initializer
            .iter()
            .map(|t| (t.name.as_str(), t.dims.iter().product::<i64>() as usize))
            .collect();
        let nodes: BTreeSet<&str> = decoded.node.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(nodes.len(), decoded.node.len(), "{nodes:?}");
        let shape = decoded.output[0].r#type.clone().unwrap().tensor_type.unwrap().shape.unwrap();
        let dims: Vec<_> = shape.dim.iter().map(|d| d.dim_value.unwrap() as usize).collect();
        assert_eq!(dims, run(&built.graph)[0].shape());
        for (name, parameter) in &built.parameters {
            assert_eq!(written.get(name.as_str()), Some(&parameter.len()), "{name} of {written:?}");
        }
        again
    }

    #[test]
    fn architectures_read_back_as_they_were() {
        let narrow = nn::seq()
            .add(nn::conv2d(2, 6, (3, 5)).stride([1, 2]).padding(2).groups(2))
            .add(nn::relu6())
            .add(nn::max_pool2d(3).stride(2).padding(1).ceil_mode(true))
            .add(nn::residual(
                nn::seq().add(nn::conv2d(6, 6, 3).padding(1).bias(false)).add(nn::batch_norm2d(6)),
            ))
            .inline(nn::branches([nn::conv2d(6, 3, 1), nn::conv2d(6, 4, 1).bias(false)].map(|conv| {
                let name = format!("{conv:?}").len().to_string();
                nn::seq().named(name, conv)
            })))
            .add(nn::avg_pool2d(2).padding(1).count_include_pad(true))
            .add(nn::leaky_relu(0.25))
            .add(nn::hardswish())
            .add(nn::gated(nn::seq().inline(nn::global_avg_pool()).inline(nn::hardsigmoid())))
            .add(nn::global_avg_pool())
            .add(nn::flatten())
            .add(nn::linear(7, 5))
            .add(nn::softmax());
        returns(&narrow.into(), &[2, 2, 12, 14]);
        let blocks = || nn::residual(nn::seq().add(nn::linear(3, 3)).add(nn::relu()));
        returns(
            &nn::seq().named("a", nn::seq().inline(blocks()).inline(nn::relu()).inline(nn::relu())).into(),
            &[2, 3],
        );
        let lenet = returns(&zoo::lenet(10), &[1, 1, 28, 28]);
        assert_eq!((lenet.inputs[0].name.as_str(), lenet.outputs[0].name.as_str()), ("input", "output"));
    }

    #[test]
    fn what_is_not_written_is_refused_by_name() {
        let built =
            nn::seq().named("up", nn::upsample_nearest(2)).build("m", &[1, 1, 2, 2], Parameters::random(1));
        let error = export(&built.unwrap().graph).unwrap_err().to_string();
        assert!(
            error.contains("\"up\"") && error.contains("Resize") && error.contains("AveragePool"),
            "{error}"
        );
    }
}

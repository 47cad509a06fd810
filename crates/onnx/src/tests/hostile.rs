//! Attributes and lists that nobody sane writes: refused or carried out, never a panic, never much memory.

use ndarray::ArrayD;
use privet_graph::{CompileOptions, FloatModel, compile};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

/// Numbers at the edges of what anything holds, and small ones.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        9 => -2i64..7,
        1 => prop::sample::select(vec![i64::MIN, i64::MAX, -1 << 31, 1 << 31, -1 << 24, 1 << 28, 1 << 40]),
    ]
}

/// Mostly `len` numbers.
fn list(len: usize) -> impl Strategy<Value = Vec<i64>> {
    prop_oneof![4 => proptest::collection::vec(number(), len), 1 => proptest::collection::vec(number(), 0..5)]
}

/// Mostly `len` numbers that a size or a stride may be.
fn sizes(len: usize) -> impl Strategy<Value = Vec<i64>> {
    prop_oneof![4 => proptest::collection::vec(1i64..6, len), 1 => list(len)]
}

fn fraction() -> impl Strategy<Value = f32> {
    prop_oneof![
        9 => -0.5f32..4.0,
        1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::MIN, 1e-30, 1e8, -0.0, 0.0]),
    ]
}

fn shape_tensor(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: vec![values.len() as i64],
        data_type: 7,
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

/// Reads, runs and compiles a model of one node.
fn survive(opset: i64, dims: &[i64], node: NodeProto, initializer: Vec<TensorProto>) {
    let _ = survive_all(opset, dims, vec![node], initializer);
}

/// Reads, runs and compiles a model: comes back, and what compiles is of the size that it has in float. The answer is
/// whether it compiles, or why not.
fn survive_all(
    opset: i64,
    dims: &[i64],
    nodes: Vec<NodeProto>,
    initializer: Vec<TensorProto>,
) -> Result<(), String> {
    let graph = read(&model(opset, dims, nodes, initializer)).map_err(|e| e.to_string())?;
    let float = FloatModel::new(&graph, &[]).map_err(|e| e.to_string())?;
    let shape: Vec<usize> = dims.iter().map(|&d| d as usize).collect();
    let found = float.run(&[ArrayD::ones(shape)]);
    let options = CompileOptions {
        ring: privet_ring::Ring::new(40).unwrap(),
        frac_bits: 8,
        input_shapes: Vec::new(),
        preprocess: privet_plan::Preprocess::default(),
        labels: Vec::new(),
    };
    let plan = compile(&graph, &options).map_err(|e| e.to_string())?.plan;
    let found = found.expect("what compiles runs in float");
    for (output, found) in plan.outputs.iter().zip(&found) {
        assert_eq!(plan.shape(output.wire), found.shape());
    }
    let scales = plan.steps.iter().map(|step| u32::from(step.frac_bits));
    assert!(scales.max().unwrap_or(0) <= plan.ring.bits() - 3, "values keep bits of their own");
    Ok(())
}

/// `count` nodes, each of which reads the one before as often as `reads` says.
fn chain(op: &str, count: usize, reads: usize) -> Vec<NodeProto> {
    let name = |i: usize| if i == 0 { "x".to_owned() } else { format!("v{i}") };
    let one = |i: usize| {
        let output = if i + 1 == count { "y".to_owned() } else { name(i + 1) };
        node(op, &vec![name(i).as_str(); reads], &output, vec![])
    };
    (0..count).map(one).collect()
}

#[test]
fn scales_do_not_grow_along_chains() {
    survive_all(13, &[2, 3], chain("Mean", 300, 2), vec![]).expect("means of any depth");
    survive_all(13, &[2, 3], chain("Mean", 40, 64), vec![]).expect("means of many operands");
    survive_all(13, &[2, 4], chain("ReduceMean", 60, 1), vec![]).expect("means along axes");
    survive_all(13, &[2, 3], chain("Sum", 300, 2), vec![]).expect("sums of any depth");
    survive_all(13, &[2, 3], chain("HardSwish", 20, 1), vec![]).expect_err("HardSwish is from opset 14");
    let mixed = [chain("Mean", 9, 4), vec![node("Clip", &["y", "low", "high"], "z", vec![])]].concat();
    let bounds = || vec![weight("low", &[], &[-1.5]), weight("high", &[], &[2.5])];
    let renamed = |mut nodes: Vec<NodeProto>| {
        for name in nodes.iter_mut().flat_map(|n| n.input.iter_mut().chain(&mut n.output)) {
            *name = match name.as_str() {
                "y" => "mean".to_owned(),
                "z" => "y".to_owned(),
                other => other.to_owned(),
            };
        }
        nodes
    };
    survive_all(13, &[2, 3], renamed(mixed), bounds()).expect("means, then bounds");
}

#[test]
fn huge_results_are_refused_before_they_are_made() {
    let huge = 1i64 << 26;
    let n = |values: &[i64]| vec![shape_tensor("n", values)];
    let refusal = |op: &str, dims: &[i64], values: &[i64]| {
        survive_all(13, dims, vec![node(op, &["x", "n"], "y", vec![])], n(values)).expect_err(op)
    };
    assert!(refusal("Expand", &[1], &[huge]).contains("2^21"));
    assert!(refusal("Tile", &[2], &[huge / 2]).contains("2^21"));
    assert!(refusal("Expand", &[1], &[1 << 40]).contains("elements"));
    assert!(refusal("Tile", &[2], &[i64::MAX]).contains("elements"));
    let sizes = vec![shape_tensor("n", &[huge / 16])];
    let resize = node("Resize", &["x", "", "", "n"], "y", vec![string("mode", "linear")]);
    assert!(survive_all(13, &[2], vec![resize], sizes).expect_err("Resize").contains("2^21"));
    let indices = vec![shape_tensor("shape", &[1 << 22])];
    let nodes = vec![
        node("ConstantOfShape", &["shape"], "zeros", vec![zeros()]),
        node("Gather", &["x", "zeros"], "y", vec![]),
    ];
    assert!(survive_all(13, &[2], nodes, indices).expect_err("Gather").contains("2^21"));
}

/// A file of a few hundred bytes takes no gigabyte, whether it asks for it at once or bit by bit.
#[test]
fn what_small_files_compute_is_bounded_in_all() {
    let many = |count: usize, op: &str, dims: &[i64], n: &[i64], back: &[i64]| {
        let mut nodes = Vec::new();
        for i in 0..count {
            let (from, wide) = (if i == 0 { "x".to_owned() } else { format!("v{i}") }, format!("w{i}"));
            let to = if i + 1 == count { "y".to_owned() } else { format!("v{}", i + 1) };
            nodes.push(node(op, &[&from, "n"], &wide, vec![]));
            nodes.push(node("Slice", &[&wide, "zero", "back"], &to, vec![]));
        }
        let constants = vec![
            shape_tensor("n", n),
            shape_tensor("zero", &vec![0; back.len()]),
            shape_tensor("back", back),
        ];
        survive_all(13, dims, nodes, constants)
    };
    assert_eq!(many(20, "Tile", &[2], &[1 << 12], &[2]), Ok(()));
    let refusal = many(20, "Tile", &[2], &[1 << 17], &[2]).expect_err("20 * 2^18 rows");
    assert!(refusal.contains("2^21 rows and terms in all"), "{refusal}");
    let filled = |size: i64, readers: usize| {
        let mut nodes = vec![node("ConstantOfShape", &["shape"], "c", vec![])];
        nodes.extend(chain("Add", readers, 1).into_iter().map(|mut add| {
            add.input.push("c".to_owned());
            add
        }));
        survive_all(13, &[1, size], nodes, vec![shape_tensor("shape", &[size, 1])])
    };
    assert_eq!(filled(1 << 11, 2), Ok(()));
    let refusal = filled(1 << 23, 1).expect_err("2^23 elements");
    assert!(refusal.contains("shape [8388608, 1]") && refusal.contains("initializer"), "{refusal}");
}

/// An attribute `value` that holds one integer 0.
fn zeros() -> AttributeProto {
    AttributeProto { t: Some(Box::new(shape_tensor("", &[0]))), ..attribute("value", 4) }
}

#[test]
fn folding_counts_operations() {
    let shapes = vec![shape_tensor("shape", &[1024, 1024])];
    let nodes = vec![
        node("ConstantOfShape", &["shape"], "a", vec![]),
        node("MatMul", &["a", "a"], "b", vec![]),
        node("Add", &["x", "b"], "y", vec![]),
    ];
    let refusal = survive_all(13, &[1, 1024], nodes, shapes).expect_err("2^30 products");
    assert!(refusal.contains("2^28 operations"), "{refusal}");
}

#[test]
fn attributes_that_are_no_sane_numbers() {
    let normalise = |epsilon: f32| {
        let weights = vec![weight("s", &[3], &[1.0; 3]), weight("b", &[3], &[0.0; 3])];
        let op = node("InstanceNormalization", &["x", "s", "b"], "y", vec![float("epsilon", epsilon)]);
        survive_all(13, &[1, 3, 4], vec![op], weights)
    };
    assert_eq!(normalise(1e-3), Ok(()));
    for epsilon in [1e6, 1e30, f32::INFINITY, f32::NAN, -1.0] {
        let refusal = normalise(epsilon).expect_err("epsilon");
        assert!(refusal.contains("epsilon"), "{epsilon}: {refusal}");
    }
    let cubic = |a: f32| {
        let attributes = vec![string("mode", "cubic"), float("cubic_coeff_a", a)];
        let resize = node("Resize", &["x", "", "", "n"], "y", attributes);
        survive_all(13, &[2, 3], vec![resize], vec![shape_tensor("n", &[2, 5])])
    };
    for a in [-0.75, 0.0, -0.0, 1.0] {
        assert_eq!(cubic(a), Ok(()), "{a}");
    }
    for a in [1e30, f32::MAX, f32::INFINITY, f32::NAN] {
        let refusal = cubic(a).expect_err("cubic_coeff_a");
        assert!(refusal.contains("cubic_coeff_a"), "{a}: {refusal}");
    }
    let lrn = |bias: f32| {
        let op = node("LRN", &["x"], "y", vec![float("bias", bias), int("size", 3)]);
        survive_all(13, &[1, 3, 4], vec![op], vec![])
    };
    for bias in [f32::INFINITY, f32::NAN, 0.0, -0.0, 1e30] {
        let refusal = lrn(bias).expect_err("bias");
        assert!(refusal.contains("bias"), "{bias}: {refusal}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, rng_seed: RngSeed::Fixed(3), ..ProptestConfig::default() })]

    #[test]
    fn windows(strides in sizes(1), dilations in sizes(1), pads in list(2), extra in list(1), shape in sizes(1),
               group in prop_oneof![9 => Just(1), 1 => number()], which in 0u8..32, kernel in 0usize..4) {
        let mut attributes = vec![int("group", group)];
        let lists = [("strides", strides), ("dilations", dilations), ("pads", pads), ("output_padding", extra),
                     ("output_shape", shape)];
        attributes.extend(lists.iter().enumerate().filter(|(i, _)| which >> i & 1 == 0).map(|(_, (n, l))| ints(n, l)));
        let w = weight("w", &[1, 1, kernel as i64], &vec![1.0; kernel]);
        survive(13, &[1, 1, 3], node("ConvTranspose", &["x", "w"], "y", attributes), vec![w]);
    }

    #[test]
    fn resizing(scales in proptest::collection::vec(fraction(), 1..4), sizes in list(2), roi in proptest::collection::vec(fraction(), 3..5),
                axes in list(2), mode in 0usize..3, coordinates in 0usize..6, flags in 0u8..16) {
        let mode = ["nearest", "linear", "cubic"][mode];
        let coordinates = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
                           "half_pixel_symmetric"][coordinates];
        let mut attributes = vec![string("mode", mode), string("coordinate_transformation_mode", coordinates),
                                  int("antialias", i64::from(flags & 1)), int("exclude_outside", i64::from(flags >> 1 & 1))];
        if flags & 4 == 4 {
            attributes.push(ints("axes", &axes));
        }
        let by_sizes = flags & 8 == 8;
        let constants = vec![weight("s", &[scales.len() as i64], &scales), shape_tensor("n", &sizes),
                             weight("r", &[roi.len() as i64], &roi)];
        let inputs = if by_sizes { ["x", "r", "", "n"] } else { ["x", "r", "s", ""] };
        survive(19, &[2, 3], node("Resize", &inputs, "y", attributes), constants);
    }

    #[test]
    fn lists_of_lengths(values in prop_oneof![list(2), list(4)], axis in number(), mode in 0usize..4, flag in any::<bool>()) {
        let n = || vec![shape_tensor("n", &values)];
        let pad = string("mode", ["constant", "reflect", "edge", "wrap"][mode]);
        survive(19, &[2, 3], node("Pad", &["x", "n"], "y", vec![pad]), n());
        survive(13, &[2, 3], node("Tile", &["x", "n"], "y", vec![]), n());
        survive(13, &[2, 3], node("Split", &["x", "n"], "y", vec![int("axis", axis)]), n());
        survive(18, &[2, 3], node("Split", &["x"], "y", vec![int("num_outputs", axis), int("axis", 0)]), vec![]);
        let flags = vec![int("keepdims", i64::from(flag)), int("noop_with_empty_axes", i64::from(flag))];
        survive(18, &[2, 3], node("ReduceMean", &["x", "n"], "y", flags.clone()), n());
        survive(18, &[2, 3], node("ReduceSum", &["x", "n"], "y", flags), n());
        survive(14, &[2, 3], node("CumSum", &["x", "n"], "y", vec![int("reverse", i64::from(flag))]), n());
        survive(13, &[1, 4, 2, 6], node("SpaceToDepth", &["x"], "y", vec![int("blocksize", axis)]), vec![]);
        survive(13, &[2, 3], node("Pow", &["x", "n"], "y", vec![]), n());
    }

    #[test]
    fn float_attributes(a in fraction(), b in fraction(), c in fraction(), size in number()) {
        let lrn = vec![float("alpha", a), float("beta", b), float("bias", c), int("size", size)];
        survive(13, &[1, 3, 4], node("LRN", &["x"], "y", lrn), vec![]);
        let weights = || vec![weight("s", &[3], &[a, b, c]), weight("b", &[3], &[c, b, a])];
        let op = node("InstanceNormalization", &["x", "s", "b"], "y", vec![float("epsilon", a)]);
        survive(13, &[1, 3, 4], op, weights());
        survive(13, &[2, 3], node("LeakyRelu", &["x"], "y", vec![float("alpha", a)]), vec![]);
        survive(13, &[2, 3], node("ThresholdedRelu", &["x"], "y", vec![float("alpha", b)]), vec![]);
        let sigmoid = vec![float("alpha", a), float("beta", b)];
        survive(13, &[2, 3], node("HardSigmoid", &["x"], "y", sigmoid), vec![]);
        survive(7, &[2, 3], node("Clip", &["x"], "y", vec![float("min", a), float("max", b)]), vec![]);
        let gemm = vec![float("alpha", a), float("beta", b)];
        survive(13, &[3, 3], node("Gemm", &["x", "x", "x"], "y", gemm), vec![]);
    }

    #[test]
    fn equations(text in "[ab.,> -]{0,12}", known in "[abc]{0,3},[abc]{0,3}(->[abc]{0,3})?") {
        let w = || vec![weight("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0])];
        for text in [text, known] {
            let equation = || vec![string("equation", &text)];
            survive(13, &[2, 2], node("Einsum", &["x", "w"], "y", equation()), w());
            survive(13, &[2, 2], node("Einsum", &["x", "x"], "y", equation()), vec![]);
            survive(13, &[2, 2], node("Einsum", &["x"], "y", equation()), vec![]);
        }
    }
}

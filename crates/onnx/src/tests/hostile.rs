//! Attributes and lists that nobody sane writes: refused or carried out, never a panic, never much memory.

use ndarray::ArrayD;
use privet_graph::{CompileOptions, FloatModel, compile};
use proptest::prelude::*;

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

/// Reads, runs and compiles a model of one node; the only demand is to come back.
fn survive(opset: i64, dims: &[i64], node: NodeProto, initializer: Vec<TensorProto>) {
    let Ok(graph) = read(&model(opset, dims, vec![node], initializer)) else { return };
    let Ok(float) = FloatModel::new(&graph, &[]) else { return };
    let shape: Vec<usize> = dims.iter().map(|&d| d as usize).collect();
    let _ = float.run(&[ArrayD::ones(shape)]);
    let options = CompileOptions {
        ring: privet_ring::Ring::new(32).unwrap(),
        frac_bits: 8,
        input_shapes: Vec::new(),
        preprocess: privet_plan::Preprocess::default(),
        labels: Vec::new(),
    };
    if let Ok(compiled) = compile(&graph, &options) {
        assert!(compiled.plan.validate().is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

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

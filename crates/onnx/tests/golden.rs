//! Real models against ONNX Runtime's stored outputs: in float, and as integer programs.

mod common;

use std::fs::File;
use std::path::Path;

use common::integers;
use ndarray::{ArrayD, Axis, IxDyn};
use ndarray_npy::NpzReader;
use privet_graph::{CompileOptions, Compiled, FloatModel, compile};
use privet_plan::{Op, Post, Preprocess};
use privet_ring::Ring;

fn options(ring: u32, frac_bits: u8) -> CompileOptions {
    CompileOptions {
        ring: Ring::new(ring).unwrap(),
        frac_bits,
        input_shapes: Vec::new(),
        preprocess: Preprocess::default(),
        labels: Vec::new(),
    }
}

fn compiled(path: &Path) -> Compiled {
    compile(&privet_onnx::load(path).unwrap(), &options(64, 16)).unwrap()
}

fn npz(path: &Path, name: &str) -> ArrayD<f32> {
    NpzReader::new(File::open(path).unwrap()).unwrap().by_name(name).unwrap()
}

/// Image `i` of a batch as a batch of one.
fn image(batch: &ArrayD<f32>, i: usize) -> ArrayD<f32> {
    batch.index_axis(Axis(0), i).insert_axis(Axis(0)).as_standard_layout().into_owned()
}

fn max_error(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f32 {
    assert_eq!(a.shape(), b.shape());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The first images of a stored batch, in float; the first also as integers.
fn check(compiled: &Compiled, inputs: &ArrayD<f32>, expected: &ArrayD<f32>, count: usize, tolerance: f32) {
    for i in 0..count {
        let y = compiled.float.run(&[image(inputs, i)]).unwrap();
        let error = max_error(&y[0], &image(expected, i));
        assert!(error <= tolerance, "image {i}: off by {error}");
    }
    let x = image(inputs, 0);
    let integers = integers::run(compiled, &[x.iter().copied().collect()]).remove(0);
    let integers = ArrayD::from_shape_vec(IxDyn(&[integers.len()]), integers).unwrap();
    let revealed = match compiled.plan.outputs[0].post {
        Post::None | Post::Sigmoid => integers,
        Post::Softmax { .. } => softmax(&integers),
        Post::LogSoftmax { .. } => softmax(&integers).mapv(f64::ln),
    };
    let float = compiled.float.run(&[x]).unwrap().remove(0);
    let error = revealed.iter().zip(&float).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
    let scale = float.iter().fold(1.0f32, |m, v| m.max(v.abs()));
    assert!(error <= 0.01 * f64::from(scale), "integer program is off by {error} of {scale}");
}

fn softmax(x: &ArrayD<f64>) -> ArrayD<f64> {
    let max = x.iter().copied().fold(f64::MIN, f64::max);
    let e = x.mapv(|v| (v - max).exp());
    &e / e.sum()
}

#[test]
fn mnist_cntk() {
    let Some(data) = common::data("mnist_cntk") else { return };
    let model = compiled(&data.join("models/mnist/mnist_cntk.onnx"));
    let golden = data.join("models/mnist/mnist_cntk.golden.npz");
    check(&model, &npz(&golden, "Input3"), &npz(&golden, "Plus214_Output_0"), 100, 2e-2);
    // Bias folds into the layers, max pools come before ReLUs.
    let names: Vec<&str> = model.plan.steps.iter().map(|s| kind(&s.op)).collect();
    assert_eq!(
        names,
        ["input", "conv", "pool", "relu", "conv", "pool", "relu", "reshape", "matmul", "trunc"]
    );
}

#[test]
fn mnist_burn() {
    let Some(data) = common::data("mnist_burn") else { return };
    let model = compiled(&data.join("models/mnist/mnist_burn.onnx"));
    let golden = data.join("models/mnist/mnist_burn.golden.npz");
    check(&model, &npz(&golden, "input.1"), &npz(&golden, "33"), 20, 1e-3);
    assert_eq!(model.plan.outputs[0].post, Post::LogSoftmax { axis: 1 });
}

#[test]
fn squeezenet() {
    let Some(data) = common::data("squeezenet") else { return };
    let directory = data.join("models/squeezenet1.1");
    let model = compiled(&directory.join("squeezenet1.1_fp32.onnx"));
    for set in 0..3 {
        let golden = directory.join(format!("test_data_set_{set}.npz"));
        let y = model.float.run(&[npz(&golden, "data")]).unwrap();
        assert!(max_error(&y[0], &npz(&golden, "logits")) <= 1e-3);
    }
    let golden = directory.join("test_data_set_0.npz");
    check(&model, &npz(&golden, "data"), &npz(&golden, "logits"), 1, 1e-3);
    let count = |name| model.plan.steps.iter().filter(|s| kind(&s.op) == name).count();
    // One ReLU per squeeze and per fire module, and one each for the first and the last convolution.
    assert_eq!((count("conv"), count("relu"), count("pool")), (26, 18, 3));
    // Global average pooling reads truncated values already; only its result needs a truncation.
    assert_eq!(count("trunc"), 1);
}

#[test]
fn residual_networks_of_cifar() {
    let Some(data) = common::data("residual networks") else { return };
    let reference = data.join("train/cifar10_from_jpeg/test1000.npz");
    let images: ArrayD<u8> =
        NpzReader::new(File::open(&reference).unwrap()).unwrap().by_name("images_u8_nhwc").unwrap();
    let raw = images.mapv(f32::from).permuted_axes(vec![0, 3, 1, 2]).as_standard_layout().into_owned();
    let channel = |v: [f32; 3]| ArrayD::from_shape_vec(IxDyn(&[1, 3, 1, 1]), v.to_vec()).unwrap();
    let normalised = (&raw / 255.0 - channel([0.485, 0.456, 0.406])) / channel([0.229, 0.224, 0.225]);
    let directory = data.join("models/resnet_cifar10");
    let model = compiled(&directory.join("mlperf_tiny_resnet8.onnx"));
    check(&model, &raw, &npz(&reference, "ref_resnet8"), 8, 1e-3);
    for name in ["resnet20", "resnet20_withbn", "resnet20_folded"] {
        let model = compiled(&directory.join(format!("{name}.onnx")));
        check(&model, &normalised, &npz(&reference, "ref_resnet20"), 8, 1e-3);
        // A residual addition and its ReLU cost one fused step; what is left are the average and the logits.
        let count = |name| model.plan.steps.iter().filter(|s| kind(&s.op) == name).count();
        assert_eq!((count("conv"), count("relu"), count("trunc")), (19, 19, 2), "{name}");
        assert_eq!(count("scale"), 0, "batch norm folds");
    }
}

#[test]
fn mobile_networks() {
    let Some(data) = common::data("mobile networks") else { return };
    for (name, side, convolutions, clips) in
        [("mobilenet_v1_0.25_128_deq_fp32", 128, 28, 27), ("mobilenet_v2_1.0_224_deq_fp32", 224, 53, 35)]
    {
        let model = compiled(&data.join(format!("models/mobilenet/{name}.onnx")));
        let count = |name| model.plan.steps.iter().filter(|s| kind(&s.op) == name).count();
        // Both bounds of a Clip are compared in one step.
        assert_eq!((count("conv"), count("relu")), (convolutions, clips), "{name}");
        // No stored outputs: the integer oracle convolves by other code than the float model does.
        let pixel = |i: usize| ((i * 7919 + 13) % 256) as f32 / 127.5 - 1.0;
        let x = ArrayD::from_shape_vec(vec![1, 3, side, side], (0..3 * side * side).map(pixel).collect())
            .unwrap();
        let y = model.float.run(std::slice::from_ref(&x)).unwrap().remove(0);
        check(&model, &x, &y, 1, 0.0);
    }
}

#[test]
fn super_resolution() {
    let Some(data) = common::data("super resolution") else { return };
    let model = data.join("models/superres/pytorch_super_resolution.onnx");
    let golden = data.join("models/superres/pytorch_super_resolution.golden.npz");
    let float = FloatModel::new(&privet_onnx::load(&model).unwrap(), &[]).unwrap();
    let y = float.run(&[npz(&golden, "in_input")]).unwrap();
    assert!(max_error(&y[0], &npz(&golden, "out_output")) <= 1e-3);
    assert!(compiled(&model).plan.validate().is_ok());
}

#[test]
fn a_batch_is_a_shape_option() {
    let Some(data) = common::data("batch") else { return };
    let graph = privet_onnx::load(&data.join("models/resnet_cifar10/resnet20.onnx")).unwrap();
    let mut options = options(64, 16);
    options.input_shapes = vec![(None, vec![3, 3, 32, 32])];
    let model = compile(&graph, &options).unwrap();
    assert_eq!(model.plan.shape(model.plan.outputs[0].wire), [3, 10]);
    let y = model.float.run(&[ArrayD::zeros(IxDyn(&[3, 3, 32, 32]))]).unwrap();
    assert_eq!(y[0].shape(), [3, 10]);
}

#[test]
fn a_transformer_is_refused_by_name() {
    let Some(data) = common::data("transformer") else { return };
    let path = data.join("models/minilm/minilm_l6_encoder_fp32.onnx");
    let graph = privet_onnx::load(&path).unwrap();
    let mut options = options(64, 16);
    let shape = |name: &str, shape: &[usize]| (Some(name.to_owned()), shape.to_vec());
    options.input_shapes = vec![shape("word_embeddings", &[1, 9, 384]), shape("attention_mask", &[1, 9])];
    let error = compile(&graph, &options).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("attention_mask") && error.contains("float32"), "{error}");
}

fn kind(op: &Op) -> &'static str {
    match op {
        Op::Scale { .. } | Op::AddParam { .. } => "scale",
        Op::AveragePool { .. } => "average",
        Op::MaxPool { .. } => "pool",
        Op::Reshape | Op::Transpose { .. } => "reshape",
        Op::Slice { .. } | Op::Pad { .. } | Op::Concat { .. } => "layout",
        op => op.name(),
    }
}

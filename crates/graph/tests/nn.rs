//! Models built layer by layer: counts of published architectures, names, scaling, refusals.

mod common;

use std::collections::BTreeMap;

use common::integers;
use ndarray::{ArrayD, IxDyn};
use privet_graph::nn::{self, Module, NnError, Parameters, zoo};
use privet_graph::{CompileOptions, FloatModel, compile};
use privet_plan::Preprocess;
use privet_ring::Ring;

/// torchvision's counts; LeNet and MiniONN by hand from the papers' figures.
#[test]
fn the_zoo_has_the_published_numbers_of_parameters() {
    let published = [
        ("alexnet", 61_100_840),
        // By hand: (inputs x kernel + 1) x outputs of each layer.
        ("alexnet-cifar", 34_944 + 614_656 + 885_120 + 1_327_488 + 884_992 + 2 * 65_792 + 2570),
        // The same convolutions, then (1024 or 9216 + 1) x hidden and so on.
        ("alexnet-imagenet", 3_747_200 + 9217 * 4096 + 4097 * 4096 + 4097 * 1000),
        ("alexnet-tiny", 3_747_200 + 2 * 1025 * 1024 + 1025 * 200),
        ("lenet", 431_080),
        ("lenet5", 44_426),
        ("minionn-cifar", 164_954),
        ("mobilenet-v2", 3_504_872),
        ("mobilenet-v3-large", 5_483_032),
        ("mobilenet-v3-small", 2_542_856),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("squeezenet", 1_235_496),
        ("squeezenet1.0", 1_248_424),
        ("vgg16", 138_357_544),
        ("vgg16-cifar", 14_714_688 + 512 * 256 + 256 + 256 * 256 + 256 + 2570),
        ("vgg16-imagenet", 14_714_688 + 4609 * 4096 + 4097 * 4096 + 4097 * 1000),
        ("vgg16-tiny", 14_714_688 + 2 * 513 * 512 + 513 * 200),
        ("vgg19", 143_667_240),
    ];
    assert_eq!(
        published.map(|(name, _)| name).to_vec(),
        zoo::ARCHITECTURES.iter().map(|a| a.name).collect::<Vec<_>>()
    );
    for (name, count) in published {
        let architecture = zoo::find(name).unwrap();
        let [channels, height, width] = architecture.input;
        let model = (architecture.make)(architecture.classes);
        let shapes = model.parameters(&[1, channels, height, width]).unwrap();
        let trained = shapes.iter().filter(|(name, _)| !name.contains("running_"));
        assert_eq!(trained.map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>(), count, "{name}");
    }
}

/// Averages have no parameters and keep all shapes; nothing else changes.
#[test]
fn averages_take_the_place_of_all_maxima() {
    for name in ["lenet", "resnet18", "squeezenet", "alexnet-tiny"] {
        let architecture = zoo::find(name).unwrap();
        let [channels, height, width] = architecture.input;
        let input = [1, channels, height, width];
        let model = (architecture.make)(architecture.classes);
        let averaged = zoo::average_pooling(model.clone());
        assert_eq!(averaged.parameters(&input).unwrap(), model.parameters(&input).unwrap(), "{name}");
        let layers = format!("{averaged:?}");
        assert!(format!("{model:?}").contains("MaxPool2d") && !layers.contains("MaxPool2d"), "{name}");
        assert!(layers.contains("AvgPool2d"), "{name}");
    }
    let pool = zoo::average_pooling(nn::max_pool2d(2).stride(1).padding(1).into());
    let built = pool.build("p", &[1, 1, 2, 2], Parameters::random(1)).unwrap();
    let x = ArrayD::from_shape_vec(IxDyn(&[1, 1, 2, 2]), vec![4.0, 8.0, 12.0, 16.0]).unwrap();
    let y = FloatModel::new(&built.graph, &[]).unwrap().run(&[x]).unwrap().remove(0);
    assert_eq!(y.into_raw_vec_and_offset().0, [1.0, 3.0, 2.0, 4.0, 10.0, 6.0, 3.0, 7.0, 4.0]);
}

#[test]
fn parameters_are_named_as_in_torchvision() {
    let names = |model: Module| -> Vec<String> {
        model.parameters(&[1, 3, 64, 64]).unwrap().into_iter().map(|(name, _)| name).collect()
    };
    let resnet = names(zoo::resnet50(10));
    for name in
        ["conv1.weight", "bn1.running_var", "layer1.0.downsample.0.weight", "layer3.5.bn3.bias", "fc.bias"]
    {
        assert!(resnet.iter().any(|n| n == name), "{name}");
    }
    assert!(!resnet.iter().any(|n| n.starts_with("layer1.1.downsample") || n == "conv1.bias"));
    let mobile = names(zoo::mobilenet_v2(10));
    for name in
        ["features.0.0.weight", "features.1.conv.0.1.weight", "features.18.1.bias", "classifier.1.weight"]
    {
        assert!(mobile.iter().any(|n| n == name), "{name}");
    }
    let excited = names(zoo::mobilenet_v3_small(10));
    for name in [
        "features.0.1.running_mean",
        "features.1.block.1.fc1.weight",
        "features.4.block.2.fc2.bias",
        "features.11.block.3.0.weight",
        "features.12.1.bias",
        "classifier.3.weight",
    ] {
        assert!(excited.iter().any(|n| n == name), "{name} of {excited:?}");
    }
    let squeeze = names(zoo::squeezenet(10));
    assert!(
        squeeze.iter().any(|n| n == "features.12.expand3x3.bias")
            && squeeze.contains(&"classifier.1.weight".into())
    );
}

type Tensors = BTreeMap<String, ArrayD<f32>>;

fn small() -> Module {
    let block = nn::seq().add(nn::conv2d(6, 6, 3).padding(1).bias(false)).add(nn::batch_norm2d(6));
    let features = nn::seq()
        .add(nn::conv2d(2, 6, (3, 5)).stride([1, 2]).padding(2))
        .add(nn::relu6())
        .add(nn::max_pool2d(3).stride(2).padding(1))
        .add(nn::residual(block))
        .add(nn::relu())
        .inline(nn::branches([
            nn::seq().named("left", nn::conv2d(6, 3, 1)),
            nn::seq().named("right", nn::conv2d(6, 4, 1).groups(2)),
        ]))
        .add(nn::avg_pool2d(2).count_include_pad(false).ceil_mode(true));
    nn::seq()
        .named("features", features)
        .add(nn::adaptive_avg_pool2d(1))
        .add(nn::flatten())
        .add(nn::dropout(0.1))
        .named("fc", nn::linear(7, 5))
        .into()
}

fn standard_deviation(values: &ArrayD<f32>) -> f32 {
    let mean = values.mean().unwrap();
    values.mapv(|v| (v - mean).powi(2)).mean().unwrap().sqrt()
}

#[test]
fn random_parameters_give_outputs_of_unit_variance_and_depend_on_the_seed_alone() {
    let drawn = |seed| small().build("s", &[1, 2, 12, 14], Parameters::random(seed)).unwrap().parameters;
    assert_eq!(drawn(3), drawn(3));
    assert_ne!(drawn(3), drawn(4));
    let built = zoo::vgg16_cifar(10).build("vgg", &[4, 3, 32, 32], Parameters::random(3)).unwrap();
    let model = FloatModel::new(&built.graph, &[]).unwrap();
    // Another input of the same distribution.
    let noise =
        nn::seq().add(nn::linear(3 * 32 * 32, 4)).build("n", &[1, 3072], Parameters::random(9)).unwrap();
    let mut x = noise.parameters["0.weight"].clone().into_shape_with_order(IxDyn(&[4, 3, 32, 32])).unwrap();
    x /= standard_deviation(&x);
    let deviation = standard_deviation(&model.run(&[x]).unwrap()[0]);
    assert!((0.3..3.0).contains(&deviation), "sixteen layers deep: {deviation}");
}

#[test]
fn outputs_have_unit_variance_at_any_depth() {
    for depth in [1, 2, 5, 12] {
        let mut model = nn::seq().add(nn::conv2d(3, 8, 3).padding(1));
        for _ in 1..depth {
            let block = nn::seq().add(nn::conv2d(8, 8, 3).padding(1)).add(nn::batch_norm2d(8));
            model = model.add(nn::relu()).add(nn::residual(block)).add(nn::relu()).add(nn::conv2d(8, 8, 1));
        }
        let built = model.build("deep", &[2, 3, 12, 12], Parameters::random(depth)).unwrap();
        let noise = nn::seq().add(nn::linear(864, 1)).build("n", &[1, 864], Parameters::random(77)).unwrap();
        let mut x =
            noise.parameters["0.weight"].clone().into_shape_with_order(IxDyn(&[2, 3, 12, 12])).unwrap();
        x /= standard_deviation(&x);
        let y = FloatModel::new(&built.graph, &[]).unwrap().run(&[x]).unwrap();
        let deviation = standard_deviation(&y[0]);
        assert!((0.7..1.4).contains(&deviation), "{depth} layers deep: {deviation}");
    }
}

/// The layers that [`small`] lacks.
fn other() -> Module {
    nn::seq()
        .named("up", nn::conv_transpose2d(2, 4, 3).stride(2).padding(1).output_padding(1).groups(2))
        .add(nn::leaky_relu(0.01))
        .named("norm", nn::instance_norm2d(4).affine(true))
        .named("slopes", nn::prelu(4))
        .add(nn::upsample_nearest((1, 2)))
        .named("one_slope", nn::prelu(1))
        .add(nn::hardswish())
        .add(nn::upsample_bilinear(2))
        .add(nn::instance_norm2d(4))
        .add(nn::hardsigmoid())
        .add(nn::adaptive_avg_pool2d(2))
        .add(nn::flatten())
        .named("fc", nn::linear(16, 6).bias(false))
        .named("bn", nn::batch_norm1d(6))
        .add(nn::log_softmax())
        .into()
}

#[test]
fn other_layers_have_pytorchs_parameters_and_compile() {
    let input = [1, 2, 4, 3];
    let shapes: BTreeMap<_, _> = other().parameters(&input).unwrap().into_iter().collect();
    let expected = [
        ("bn.bias", vec![6]),
        ("bn.running_mean", vec![6]),
        ("bn.running_var", vec![6]),
        ("bn.weight", vec![6]),
        ("fc.weight", vec![6, 16]),
        ("norm.bias", vec![4]),
        ("norm.weight", vec![4]),
        ("one_slope.weight", vec![1]),
        ("slopes.weight", vec![4]),
        ("up.bias", vec![4]),
        ("up.weight", vec![2, 2, 3, 3]),
    ];
    assert_eq!(shapes, expected.map(|(name, shape)| (name.to_owned(), shape)).into_iter().collect());
    close_to_float(&other(), &input, 0.02);
    for last in [nn::sigmoid(), nn::softmax()] {
        close_to_float(&nn::seq().add(nn::linear(3, 4)).add(last).into(), &[2, 3], 1e-3);
    }
}

#[test]
fn models_compile_and_stay_close_to_float() {
    close_to_float(&small(), &[2, 2, 12, 14], 2e-3);
}

fn close_to_float(model: &Module, input: &[usize], tolerance: f64) {
    let built = model.build("small", input, Parameters::random(1)).unwrap();
    let options = CompileOptions {
        ring: Ring::new(64).unwrap(),
        frac_bits: 16,
        input_shapes: Vec::new(),
        preprocess: Preprocess::default(),
        labels: Vec::new(),
    };
    let compiled = compile(&built.graph, &options).unwrap();
    let x = ArrayD::from_shape_fn(IxDyn(input), |i| {
        let sum: usize = [7, 3, 1].iter().zip((0..input.len()).rev()).map(|(k, axis)| k * i[axis]).sum();
        (sum % 11) as f32 / 5.0 - 1.0
    });
    let expected = compiled.float.run_revealed(&compiled.plan, std::slice::from_ref(&x)).unwrap();
    let found = integers::run(&compiled, &[x.iter().copied().collect()]);
    assert!(standard_deviation(&expected[0]) > 0.0);
    for (found, &expected) in found[0].iter().zip(&expected[0]) {
        assert!((found - f64::from(expected)).abs() < tolerance, "{found} {expected}");
    }
}

#[test]
fn named_parameters_are_taken_as_they_are_and_checked() {
    let input = [1, 2, 12, 14];
    let drawn = small().build("a", &input, Parameters::random(5)).unwrap().parameters;
    let named = |change: &dyn Fn(&mut Tensors)| {
        let mut parameters = drawn.clone();
        change(&mut parameters);
        small().build("b", &input, Parameters::named(parameters))
    };
    let counter =
        |p: &mut Tensors| drop(p.insert("bn.num_batches_tracked".to_owned(), ArrayD::zeros(IxDyn(&[]))));
    assert_eq!(named(&counter).unwrap().parameters, drawn);
    let error = named(&|p| drop(p.remove("fc.bias"))).unwrap_err().to_string();
    assert!(error.contains("\"fc.bias\" of shape [5] is missing"), "{error}");
    let error = named(&|p| drop(p.insert("more".to_owned(), ArrayD::zeros(IxDyn(&[1]))))).unwrap_err();
    assert_eq!(error, NnError::Unknown(vec!["more".to_owned()]));
    let error =
        named(&|p| drop(p.insert("fc.bias".to_owned(), ArrayD::zeros(IxDyn(&[4]))))).unwrap_err().to_string();
    assert!(error.contains("expected shape [5], found [4]"), "{error}");
}

#[test]
fn layers_that_do_not_fit_are_named_by_their_path() {
    let build = |model: Module, input: &[usize]| {
        model.build("m", input, Parameters::random(1)).unwrap_err().to_string()
    };
    let inner = nn::seq().named("features", nn::seq().add(nn::relu()).add(nn::conv2d(64, 8, 3)));
    let error = build(inner.into(), &[1, 32, 8, 8]);
    assert!(
        error.contains("features.1") && error.contains("64") && error.contains("[1, 32, 8, 8]"),
        "{error}"
    );
    let shrinking = nn::seq().named("block", nn::residual(nn::conv2d(3, 3, 3)));
    let error = build(shrinking.into(), &[1, 3, 8, 8]);
    assert!(error.contains("block") && error.contains("[1, 3, 6, 6]"), "{error}");
    let twice = nn::seq().inline(nn::linear(4, 4)).inline(nn::linear(4, 4));
    assert!(build(twice.into(), &[1, 4]).contains("two layers have a parameter \"weight\""));
    let error = build(zoo::alexnet(10), &[1, 3, 16, 16]);
    assert!(error.contains("features"), "{error}");
    for wrong in [
        nn::conv2d(3, 4, 3).groups(0),
        nn::conv2d(3, 4, 3).groups(2),
        nn::conv2d(3, 4, 0),
        nn::conv2d(3, 4, 3).stride(0),
    ] {
        build(wrong.into(), &[1, 3, 8, 8]);
    }
}

#[test]
fn parameters_that_cannot_be_are_named() {
    let build = |variance: f32, weight: f32| {
        let filled = |value| ArrayD::from_elem(vec![2], value);
        let tensors = [("weight", weight), ("bias", 0.0), ("running_mean", 0.0), ("running_var", variance)];
        let named = tensors.map(|(name, value)| (format!("norm.{name}"), filled(value)));
        let model = nn::seq().named("norm", nn::batch_norm2d(2));
        model.build("m", &[1, 2, 4, 4], Parameters::named(named)).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(build(1.0, 1.0), Ok(()));
    let error = build(-1.0, 1.0).unwrap_err();
    assert!(error.contains("\"norm.running_var\"") && error.contains("a negative number"), "{error}");
    let error = build(1.0, f32::NAN).unwrap_err();
    assert!(error.contains("\"norm.weight\"") && error.contains("NaN"), "{error}");
}

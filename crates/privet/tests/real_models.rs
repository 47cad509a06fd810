//! Real models on real inputs: integer reference and private engine bit-equal, labels and accuracy right.
//!
//! The repository's own digit model always runs. The others are read from `../shared/data` next to the checkout: where
//! that is absent they are skipped loudly, where it is present at least [`MINIMUM`] cases have to run. All cases are one
//! test, so that they can be counted; the test runner shows its output.

#[path = "../../protocols/tests/common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};

use ndarray::{ArrayD, Axis, IxDyn};
use privet::input::load_npz;
use privet::model::{CompileOptions, Model, compile, fixed_inputs};
use privet::postprocess::{decode, top};
use privet::{Preprocess, RevealTo, input};
use privet_plan::Post;

/// Fewer cases than this mean that data or models have gone missing.
const MINIMUM: usize = 15;
/// Cases that need nothing but the repository.
const OWN: usize = 1;

fn data() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    path.is_dir().then_some(path)
}

fn model(path: &Path, ring: Option<u32>, frac_bits: Option<u32>) -> Model {
    compile(path, &CompileOptions { ring, frac_bits, ..CompileOptions::default() }).unwrap()
}

fn reference(model: &Model, x: &ArrayD<f32>) -> Vec<Vec<i64>> {
    let inputs = fixed_inputs(&model.plan, std::slice::from_ref(x)).unwrap();
    common::reference(&model.plan, &model.weights, &inputs)
}

fn floats(model: &Model, outputs: &[Vec<i64>]) -> ArrayD<f64> {
    decode(&model.plan, outputs).unwrap().remove(0).values.to_floats()
}

/// Runs the private engine; panics unless it is bit-equal to the reference, which is returned as floats.
fn private(model: &Model, x: &ArrayD<f32>) -> ArrayD<f64> {
    let inputs = fixed_inputs(&model.plan, std::slice::from_ref(x)).unwrap();
    let expected = common::reference(&model.plan, &model.weights, &inputs);
    let outcome = common::two_party(&model.plan, &model.weights, &inputs, RevealTo::Client);
    assert!(
        outcome.client.as_ref() == Some(&expected),
        "{}: private and clear results differ",
        model.plan.model
    );
    assert!(outcome.server.is_none(), "the server learns nothing");
    floats(model, &expected)
}

fn argmax(values: &ArrayD<f64>) -> usize {
    values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0
}

/// Sample `i` of a batch, with a batch axis of one.
fn sample(batch: &ArrayD<f32>, i: usize) -> ArrayD<f32> {
    batch.index_axis(Axis(0), i).to_owned().insert_axis(Axis(0))
}

struct Suite {
    data: PathBuf,
    cases: usize,
}

impl Suite {
    fn ran(&mut self, case: &str) {
        self.cases += 1;
        eprintln!("real-model case {}: {case}", self.cases);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data.join("models").join(name)
    }

    /// The repository's own model and pictures: every digit is recognised, privately.
    fn digits(&mut self) {
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/digits");
        let model = model(&assets.join("digits.onnx"), None, None);
        let preprocess = assets.join("preprocess.toml");
        let preprocess = input::preprocess_from_str_or_file(preprocess.to_str().unwrap()).unwrap();
        for digit in 0..10 {
            let picture = assets.join(format!("{digit}.png"));
            let x = input::load(&picture, &preprocess, &model.plan.inputs[0].shape).unwrap();
            assert_eq!(argmax(&private(&model, &x)), digit);
        }
        self.ran("digits.onnx, ten pictures");
    }

    /// dog.jpg is a Samoyed (ImageNet class 258) with the given probability.
    fn dog(&mut self, name: &str, preprocess: &Preprocess, class: usize, probability: Option<f64>) {
        let model = model(&self.path(name), None, None);
        let shape = &model.plan.inputs[0].shape;
        let x = input::load(&self.data.join("images/dog.jpg"), preprocess, shape).unwrap();
        let best = top(&private(&model, &x), &[], 1, Post::None).remove(0);
        assert_eq!(best.index, class, "{name}");
        if let Some(p) = probability {
            assert!((best.probability - p).abs() < 0.01, "{name}: {} instead of {p}", best.probability);
        }
        self.ran(&format!("{name} on dog.jpg: class {class}, {:.4}", best.probability));
    }

    /// Stored inputs and float outputs: same class everywhere, `private_count` of them on the private engine.
    fn golden(
        &mut self,
        name: &str,
        file: &str,
        ring: Option<(u32, u32)>,
        tolerance: f64,
        private_count: usize,
    ) {
        let model = model(&self.path(name), ring.map(|r| r.0), ring.map(|r| r.1));
        let golden = load_npz(&self.path(file)).unwrap();
        let (xs, ys) = (&golden[&model.plan.inputs[0].name], &golden[&model.plan.outputs[0].name]);
        let mut worst: f64 = 0.0;
        for i in 0..xs.shape()[0] {
            let (x, y) = (sample(xs, i), sample(ys, i).mapv(f64::from));
            let z =
                if i < private_count { private(&model, &x) } else { floats(&model, &reference(&model, &x)) };
            let error = z.iter().zip(&y).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            worst = worst.max(error);
            assert!(error < tolerance, "{name}, sample {i}: off by {error}");
            assert_eq!(argmax(&z), argmax(&y), "{name}, sample {i}");
        }
        self.ran(&format!("{name} on {file}, {} samples, {ring:?}: at most {worst:.5} off", xs.shape()[0]));
    }

    /// A picture of 672 x 672 from one of 224 x 224, privately.
    fn superres(&mut self) {
        let model = model(&self.path("superres/pytorch_super_resolution.onnx"), None, None);
        let golden = load_npz(&self.path("superres/pytorch_super_resolution.golden.npz")).unwrap();
        let z = private(&model, &golden["in_input"]);
        let expected = &golden["out_output"];
        assert_eq!(z.shape(), expected.shape());
        let error = z.iter().zip(expected).map(|(a, &b)| (a - f64::from(b)).abs()).fold(0.0, f64::max);
        // Half a step of eight bits is 0.002.
        assert!(error < 0.001, "super-resolution is off by {error}");
        self.ran(&format!("super-resolution of dog.jpg's luma, private: at most {error:.6} off"));
    }

    /// CIFAR-10 accuracy within half a point of the float reference: the first images on the private engine, the others on
    /// the clear one.
    fn cifar(&mut self, name: &str, reference_key: &str, images_count: usize, private_count: usize) {
        let set = load_npz(&self.data.join("train/cifar10_from_jpeg/test1000.npz")).unwrap();
        let (images, labels, float) = (&set["images_u8_nhwc"], &set["labels"], &set[reference_key]);
        let model = model(&self.path(&format!("resnet_cifar10/{name}.onnx")), None, None);
        let (mut right, mut float_right) = (0usize, 0usize);
        for i in 0..images_count {
            let mut x = sample(images, i).permuted_axes(IxDyn(&[0, 3, 1, 2])).as_standard_layout().to_owned();
            if reference_key == "ref_resnet20" {
                let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
                for (c, mut plane) in x.axis_iter_mut(Axis(1)).enumerate() {
                    plane.mapv_inplace(|v| (v / 255.0 - mean[c]) / std[c]);
                }
            }
            let z =
                if i < private_count { private(&model, &x) } else { floats(&model, &reference(&model, &x)) };
            let label = labels.as_slice().unwrap()[i] as usize;
            right += usize::from(argmax(&z) == label);
            float_right += usize::from(argmax(&sample(float, i).mapv(f64::from)) == label);
        }
        let total = images_count as f64;
        let points = 100.0 * (right as f64 - float_right as f64) / total;
        assert!(points.abs() <= 0.5, "{name}: {points} points from the float reference");
        let accuracy = 100.0 * right as f64 / total;
        self.ran(&format!(
            "{name} on {total} images: {accuracy} %, {points:+} points, {private_count} private"
        ));
    }
}

#[test]
fn real_models_are_bit_equal_and_right() {
    let found = data();
    let mut suite = Suite { data: found.clone().unwrap_or_default(), cases: 0 };
    suite.digits();
    if found.is_none() {
        eprintln!(
            "SKIPPED: {} of {MINIMUM} real-model cases ran, because ../shared/data is absent",
            suite.cases
        );
        assert_eq!(suite.cases, OWN);
        return;
    }
    let centred = |short, side| Preprocess {
        resize_short: Some(short),
        crop: Some([side, side]),
        scale: 1.0 / 127.5,
        mean: vec![1.0],
        ..Preprocess::default()
    };
    suite.dog("squeezenet1.1/squeezenet1.1_fp32.onnx", &Preprocess::imagenet(), 258, Some(0.666));
    suite.dog("mobilenet/mobilenet_v2_1.0_224_deq_fp32.onnx", &centred(256, 224), 259, Some(0.731));
    suite.dog("mobilenet/mobilenet_v1_0.25_128_deq_fp32.onnx", &centred(146, 128), 259, None);
    for k in 0..3 {
        let file = format!("squeezenet1.1/test_data_set_{k}.npz");
        suite.golden("squeezenet1.1/squeezenet1.1_fp32.onnx", &file, None, 0.5, 1);
    }
    suite.golden("mnist/mnist_cntk.onnx", "mnist/mnist_cntk.golden.npz", None, 2.0, 10);
    suite.golden("mnist/mnist_burn.onnx", "mnist/mnist_burn.golden.npz", None, 0.01, 10);
    // LLAMA's defaults.
    suite.golden("mnist/mnist_burn.onnx", "mnist/mnist_burn.golden.npz", Some((40, 15)), 0.02, 10);
    suite.superres();
    suite.cifar("resnet20", "ref_resnet20", 1000, 50);
    suite.cifar("resnet20_withbn", "ref_resnet20", 200, 5);
    suite.cifar("resnet20_folded", "ref_resnet20", 200, 5);
    suite.cifar("mlperf_tiny_resnet8", "ref_resnet8", 1000, 10);
    eprintln!("{} real-model cases ran, at least {MINIMUM} have to", suite.cases);
    assert!(suite.cases >= MINIMUM, "only {} real-model cases ran", suite.cases);
}

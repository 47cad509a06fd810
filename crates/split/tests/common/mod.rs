//! Models and inputs for tests.
#![allow(dead_code, reason = "not every test needs all")]

use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use privet_graph::nn::{self, Module, Parameters};
use privet_graph::{DType, FloatModel};
use privet_onnx::ModelFile;
use privet_seal::{ContentKey, KeyVersion, ModelId, OwnerKeys, SigningKey};
use privet_split::Analysis;

/// Real models of the shared test data, if they are there.
pub(crate) fn real_models() -> Option<Vec<PathBuf>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/models");
    if !data.is_dir() {
        eprintln!("SKIPPED: no {}", data.display());
        return None;
    }
    let mut found = Vec::new();
    models(&data, &mut found);
    Some(found)
}

pub(crate) type Named = Vec<(String, ArrayD<f32>)>;

/// Shapes of the inputs that a model leaves open.
pub(crate) fn shapes(model: &Path) -> Vec<(Option<String>, Vec<usize>)> {
    if model.file_stem().is_none_or(|name| name != "minilm_l6_encoder_fp32") {
        return Vec::new();
    }
    vec![
        (Some("word_embeddings".to_owned()), vec![2, 9, 384]),
        (Some("attention_mask".to_owned()), vec![2, 9]),
    ]
}

/// Inputs of a model, by a seed.
pub(crate) fn inputs(model: &Path) -> Named {
    let analysis = Analysis::new(&ModelFile::open(model).unwrap(), &shapes(model)).unwrap();
    let draw = |(i, d): (usize, &privet_onnx::Declared)| {
        let values = nn::random_input(7, i as u64, &d.shape);
        // The only integers are masks.
        let values = if d.dtype == DType::F32 { values } else { values.mapv(|v| f32::from(v > -0.7)) };
        (d.name.clone(), values)
    };
    analysis.inputs.iter().enumerate().map(draw).collect()
}

/// The graph's own evaluation, of its nodes as they are: [`FloatModel::new`] folds normalisation into convolutions, which moves
/// ResNet-50 by 2e-5.
pub(crate) fn reference(model: &Path, inputs: &Named) -> Vec<ArrayD<f32>> {
    let graph = privet_onnx::load(model).unwrap();
    let given: Vec<ArrayD<f32>> = inputs.iter().map(|(_, x)| x.clone()).collect();
    FloatModel::settle(&graph, &shapes(model)).unwrap().run(&given).unwrap()
}

pub(crate) fn difference(found: &[ArrayD<f32>], expected: &[ArrayD<f32>]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let one = |(found, expected): (&ArrayD<f32>, &ArrayD<f32>)| {
        assert_eq!(found.shape(), expected.shape());
        let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs())).max(f32::MIN_POSITIVE);
        let pairs = found.iter().zip(expected);
        pairs
            .fold(0.0f32, |m, (a, b)| if a.is_nan() { f32::INFINITY } else { m.max((a - b).abs() / largest) })
    };
    found.iter().zip(expected).map(one).fold(0.0, f32::max)
}

pub(crate) fn written(home: &Path, module: &Module, shape: &[usize]) -> PathBuf {
    let built = module.build("model", shape, Parameters::random(3)).unwrap();
    let path = home.join("model.onnx");
    std::fs::write(&path, privet_onnx::export(&built.graph).unwrap()).unwrap();
    path
}

pub(crate) fn network() -> Module {
    let block = || nn::seq().add(nn::conv2d(16, 16, 3).padding(1).bias(false)).add(nn::batch_norm2d(16));
    nn::seq()
        .add(nn::conv2d(3, 16, (3, 5)).stride([1, 2]).padding(2))
        .add(nn::batch_norm2d(16))
        .add(nn::relu6())
        .add(nn::residual(block()))
        .add(nn::max_pool2d(3).stride(2).padding(1).ceil_mode(true))
        .add(nn::conv2d(16, 16, 3).padding(1).groups(16))
        .add(nn::conv2d(16, 16, 3).stride([2, 2]).padding(1).groups(4))
        .add(nn::leaky_relu(0.25))
        .add(nn::residual(block().add(nn::relu())))
        .inline(nn::branches([nn::conv2d(16, 8, 1), nn::conv2d(16, 40, 1).bias(false)].map(|conv| {
            let name = format!("{conv:?}").len().to_string();
            nn::seq().named(name, conv)
        })))
        .add(nn::flatten())
        .add(nn::linear(48 * 6 * 3, 300))
        .add(nn::relu())
        .add(nn::linear(300, 10))
        .add(nn::softmax())
        .into()
}

/// ONNX files under a directory.
fn models(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            models(&path, found);
        } else if path.extension().is_some_and(|e| e == "onnx") {
            found.push(path);
        }
    }
    found.sort();
}

/// Keys that are the same in every run.
pub(crate) fn keys() -> OwnerKeys {
    let content = ContentKey::from_slice(&[1; 32]).unwrap();
    let signing = SigningKey::from_slice(&[2; 32]).unwrap();
    let (model_id, key_id) = (ModelId::from_bytes([7; 16]), "test".parse().unwrap());
    OwnerKeys::new(content, signing, model_id, key_id, KeyVersion::FIRST).unwrap()
}

use std::os::unix::fs::PermissionsExt;

use super::*;
use ndarray::ArrayD;
use std::fs;
use std::path::PathBuf;

fn digits(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/digits").join(name)
}

fn options() -> CompileOptions {
    CompileOptions {
        preprocess: Some(digits("preprocess.toml").to_str().unwrap().to_owned()),
        labels: Some(digits("labels.txt")),
        ..CompileOptions::default()
    }
}

fn label_of(model: &Model, picture: &str) -> String {
    let arrays = load_inputs(&model.plan, &[digits(picture)]).unwrap();
    let inputs = fixed_inputs(&model.plan, &arrays).unwrap();
    let revealed =
        privet_protocols::cleartext::run(&model.plan, &model.weights, &inputs, &mut privet_protocols::Silent);
    let outputs = crate::postprocess::decode(&model.plan, &revealed.unwrap()).unwrap();
    let best = outputs[0].top(&model.plan.labels, 1);
    best[0].label.clone().unwrap()
}

#[test]
fn digits_are_recognised_with_and_without_calibration() {
    let wide = compile(&digits("digits.onnx"), &options()).unwrap();
    assert_eq!(wide.plan.ring.bits(), 64);
    assert_eq!(label_of(&wide, "7.png"), "seven");
    let calibrate = (0..10).map(|i| digits(&format!("{i}.png"))).collect();
    let narrow = compile(&digits("digits.onnx"), &CompileOptions { calibrate, ..options() }).unwrap();
    assert!((35..=50).contains(&narrow.plan.ring.bits()), "{}", narrow.plan.ring.bits());
    assert_eq!(narrow.plan.frac_bits, 16);
    assert_eq!(label_of(&narrow, "3.png"), "three");
}

#[test]
fn an_explicit_ring_is_kept_or_refused_by_layer() {
    let calibrate = vec![digits("4.png")];
    let at = |ring, frac_bits| {
        let options =
            CompileOptions { ring: Some(ring), frac_bits, calibrate: calibrate.clone(), ..options() };
        compile(&digits("digits.onnx"), &options)
    };
    let model = at(40, Some(15)).unwrap();
    assert_eq!((model.plan.ring.bits(), model.plan.frac_bits), (40, 15));
    let error = at(24, Some(10)).err().unwrap().to_string();
    assert!(error.contains("plan step") && error.contains("--ring"), "{error}");
    let error = at(24, Some(16)).err().unwrap().to_string();
    assert!(error.contains("takes 1 to 10 fractional bits"), "{error}");
    assert!(at(15, None).err().unwrap().to_string().contains("from 16 to 64"));
}

#[test]
fn a_directory_keeps_plan_and_weights_apart_and_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let model = compile(&digits("digits.onnx"), &options()).unwrap();
    model.save(dir.path()).unwrap();
    let loaded = LoadedModel::load(dir.path()).unwrap();
    assert!(loaded.plan == model.plan && loaded.weights == model.weights);
    let weights_path = dir.path().join(WEIGHTS_FILE);
    assert_eq!(fs::metadata(&weights_path).unwrap().permissions().mode() & 0o777, 0o600);
    let plan_bytes = fs::read(dir.path().join(PLAN_FILE)).unwrap();
    assert!(plan_bytes.len() < 10_000, "no weights in the plan: {} bytes", plan_bytes.len());

    let refusal = || LoadedModel::load(dir.path()).err().unwrap().to_string();
    let weights = fs::read(&weights_path).unwrap();
    fs::write(&weights_path, &weights[..weights.len() - 1]).unwrap();
    assert!(refusal().contains("weights.safetensors"), "{}", refusal());
    fs::write(&weights_path, [&weights[..], &vec![0; 1 << 20]].concat()).unwrap();
    assert!(refusal().contains("is it another model's?"), "{}", refusal());
    fs::remove_file(&weights_path).unwrap();
    assert!(refusal().contains("weights.safetensors: no such file; make it with privet compile"));

    let options = CompileOptions { ring: Some(60), ..options() };
    compile(&digits("digits.onnx"), &options).unwrap().save(dir.path()).unwrap();
    fs::write(dir.path().join(PLAN_FILE), &plan_bytes).unwrap();
    assert!(refusal().contains("plan: expected"), "{}", refusal());
    fs::write(dir.path().join(PLAN_FILE), &plan_bytes[..100]).unwrap();
    assert!(refusal().contains("plan.privet") && refusal().contains("cut short"), "{}", refusal());
    fs::remove_file(dir.path().join(PLAN_FILE)).unwrap();
    assert!(refusal().contains("plan.privet: no such file"));
}

#[test]
fn inputs_are_named_in_refusals() {
    let model = compile(&digits("digits.onnx"), &options()).unwrap();
    let plan = &model.plan;
    let by_name = PathBuf::from(format!("image={}", digits("1.png").display()));
    assert_eq!(load_inputs(plan, std::slice::from_ref(&by_name)).unwrap()[0].shape(), [1, 1, 8, 8]);
    let cases = [
        (vec![], "input \"image\" is missing"),
        (vec![by_name.clone(), by_name], "given twice"),
        (vec![digits("1.png"), digits("2.png")], "expected NAME=FILE"),
        (vec![digits("none.png")], "none.png"),
    ];
    for (given, message) in cases {
        let error = load_inputs(plan, &given).unwrap_err().to_string();
        assert!(error.contains(message), "{given:?}: {error}");
    }
    let huge = ArrayD::from_elem(vec![1, 1, 8, 8], 1e30f32);
    let error = fixed_inputs(plan, &[huge]).unwrap_err().to_string();
    assert!(error.contains("input \"image\"") && error.contains("index 0"), "{error}");
    assert!(fixed_inputs(plan, &[]).unwrap_err().to_string().contains("expected 1 inputs"));
}

#[test]
fn a_model_file_that_is_missing_or_damaged_is_named() {
    let error = compile(Path::new("none.onnx"), &options()).err().unwrap().to_string();
    assert!(error.contains("none.onnx"), "{error}");
    let error = compile(&digits("labels.txt"), &options()).err().unwrap().to_string();
    assert!(error.contains("labels.txt") && error.contains("ONNX"), "{error}");
    let shaped = CompileOptions { input_shapes: vec!["1,1,9,8".to_owned()], ..options() };
    let error = compile(&digits("digits.onnx"), &shaped).err().unwrap().to_string();
    assert!(error.contains("--input-shape") && error.contains("image"), "{error}");
}

#[test]
fn a_preprocessing_that_cannot_fit_is_refused() {
    let options = CompileOptions { preprocess: Some("imagenet".to_owned()), ..options() };
    let error = compile(&digits("digits.onnx"), &options).err().unwrap().to_string();
    assert!(error.contains("[1, 3, 224, 224]") && error.contains("[1, 1, 8, 8]"), "{error}");
}

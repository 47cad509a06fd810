use std::os::unix::fs::PermissionsExt;

use super::*;
use ndarray::ArrayD;
use privet_plan::{Range, RangeSource};
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
    assert!((30..=40).contains(&narrow.plan.ring.bits()), "{}", narrow.plan.ring.bits());
    assert_eq!(label_of(&narrow, "3.png"), "three");
}

/// Ten pictures, and what else is asked for.
fn calibrated(more: CompileOptions) -> Result<Model, ModelError> {
    let calibrate = (0..10).map(|i| digits(&format!("{i}.png"))).collect();
    let CompileOptions { preprocess, labels, .. } = options();
    compile(&digits("digits.onnx"), &CompileOptions { calibrate, preprocess, labels, ..more })
}

#[test]
fn ranges_narrow_and_say_where_they_come_from() {
    let wide = compile(&digits("digits.onnx"), &options()).unwrap();
    assert!(wide.plan.steps.iter().all(|s| s.range.source == RangeSource::FullWidth));
    assert!(wide.accuracy.is_none());
    let at = |margin| calibrated(CompileOptions { margin, frac_bits: Some(12), ..CompileOptions::default() });
    let (tight, usual, roomy) = (at(Some(1)).unwrap(), at(None).unwrap(), at(Some(64)).unwrap());
    for (i, step) in usual.plan.steps.iter().enumerate() {
        let RangeSource::Calibrated { seen } = step.range.source else {
            panic!("step {i}: {:?}", step.range)
        };
        let bits = |model: &Model| model.plan.steps[i].range.bits;
        assert_eq!((bits(&tight), bits(&usual), bits(&roomy)), (seen, seen + 2, seen + 6), "step {i}");
        assert!(step.range.bits < wide.plan.steps[i].range.bits);
    }
    let rings = [&tight, &usual, &roomy].map(|m| m.plan.ring.bits());
    assert_eq!([rings[1] - rings[0], rings[2] - rings[1]], [2, 4]);
    // Pixels lie between 0 and 1. What that proves of the first layers is as narrow as a margin of 4, and certain.
    let input_ranges = vec!["image=0,1".to_owned()];
    let declared = calibrated(CompileOptions {
        input_ranges: input_ranges.clone(),
        frac_bits: Some(12),
        ..CompileOptions::default()
    });
    let declared = declared.unwrap().plan;
    assert_eq!(declared.steps[0].range, Range { bits: 14, source: RangeSource::Proved });
    let proved = declared.steps.iter().filter(|s| s.range.source == RangeSource::Proved).count();
    assert!((2..declared.steps.len()).contains(&proved), "{proved} proved");
    for (a, b) in declared.steps.iter().zip(&usual.plan.steps) {
        assert!(a.range.bits <= b.range.bits, "{}: {:?} {:?}", a.name, a.range, b.range);
    }
    // Without calibration it narrows what can be proved, not the ring.
    let proved = compile(&digits("digits.onnx"), &CompileOptions { input_ranges, ..options() }).unwrap().plan;
    assert_eq!(proved.ring.bits(), 64);
    assert!(proved.steps.iter().all(|s| s.range.source == RangeSource::Proved && s.range.bits < 63));
    let outside = ArrayD::from_elem(vec![1, 1, 8, 8], 2.5f32);
    let error = fixed_inputs(&proved, &[outside]).unwrap_err().to_string();
    assert!(
        !error.contains("2.5") && error.contains("needs 19 bits") && error.contains("safe for 18"),
        "{error}"
    );
}

#[test]
fn fractional_bits_follow_from_the_tolerance() {
    let at = |tolerance| calibrated(CompileOptions { tolerance, ..CompileOptions::default() }).unwrap();
    let (loose, usual, strict) = (at(Some(0.03)), at(None), at(Some(1e-5)));
    let bits = [&loose, &usual, &strict].map(|m| m.plan.frac_bits);
    assert!(bits[0] < bits[1] && bits[1] < bits[2], "{bits:?}");
    let rings = [&loose, &usual, &strict].map(|m| m.plan.ring.bits());
    assert!(rings[0] < rings[1] && rings[1] < rings[2], "{rings:?}");
    for (model, tolerance) in [(&loose, 0.03), (&usual, DEFAULT_TOLERANCE), (&strict, 1e-5)] {
        let accuracy = model.accuracy.as_ref().unwrap();
        assert_eq!((accuracy.tolerance, accuracy.inputs, accuracy.differing), (Some(tolerance), 10, 0));
        assert!(accuracy.is_met() && accuracy.relative_error > 0.0, "{accuracy:?}");
        assert!(accuracy.max_abs_error > accuracy.relative_error, "logits are larger than 1: {accuracy:?}");
        // One bit less is not enough.
        let fewer = Some(u32::from(model.plan.frac_bits) - 1);
        let coarser = calibrated(CompileOptions { frac_bits: fewer, ..CompileOptions::default() }).unwrap();
        assert!(coarser.accuracy.unwrap().relative_error > tolerance);
    }
    // What no number of bits can reach is done as well as it goes, and said.
    let best = at(Some(1e-12));
    assert!(!best.accuracy.as_ref().unwrap().is_met());
    assert_eq!(u32::from(best.plan.frac_bits), *FRAC_BITS.end());
    // A given ring bounds it as well.
    let narrow = |ring| {
        calibrated(CompileOptions { ring: Some(ring), tolerance: Some(1e-5), ..CompileOptions::default() })
    };
    let squeezed = narrow(26).unwrap();
    assert_eq!(squeezed.plan.ring.bits(), 26);
    assert!(!squeezed.accuracy.unwrap().is_met() && squeezed.plan.frac_bits < usual.plan.frac_bits);
    let error = narrow(16).err().unwrap().to_string();
    assert!(error.contains("calibration: plan step") && error.contains("use --ring"), "{error}");
}

#[test]
fn calibration_inputs_that_do_not_fit_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |value: f32| {
        let path = dir.path().join(format!("{value}.csv"));
        fs::write(&path, vec![format!("{value}"); 64].join(",")).unwrap();
        path
    };
    let refusal = |value, frac_bits, input_ranges: &[&str]| {
        let calibrate = vec![file(value)];
        let input_ranges = input_ranges.iter().map(|r| (*r).to_owned()).collect();
        let more = CompileOptions { calibrate, frac_bits, input_ranges, ..CompileOptions::default() };
        compile(&digits("digits.onnx"), &more).err().unwrap().to_string()
    };
    // The input itself, an inner layer, and only the margin.
    let error = refusal(1e15, Some(16), &[]);
    assert!(error.contains("1000000000000000.csv") && error.contains("needs 67 bits"), "{error}");
    let error = refusal(1e13, Some(16), &[]);
    assert!(
        error.contains("overflow in step 1 (conv1)") && error.contains("the wire is safe for 63"),
        "{error}"
    );
    let error = refusal(2e7, Some(16), &[]);
    assert!(
        error.contains("plan step") && error.contains("margin 4") && error.contains("a 64-bit ring holds 63"),
        "{error}"
    );
    assert!(error.contains("use fewer --frac-bits") && !error.contains("--ring 65"), "{error}");
    // Fewer bits are tried before anything is refused.
    let wide = CompileOptions { calibrate: vec![file(2e7)], ..CompileOptions::default() };
    assert!(compile(&digits("digits.onnx"), &wide).unwrap().plan.frac_bits < 16);
    assert!(refusal(1e25, None, &[]).contains("needs 89 bits with 4 fractional bits"));
    let error = refusal(3.0, Some(12), &["0,1"]);
    assert!(
        error.contains("3.csv") && error.contains("needs 15 bits") && error.contains("safe for 14"),
        "{error}"
    );
    assert!(error.contains("input \"image\""), "{error}");
    // Not calibration's fault: no margin and no other inputs would help.
    let input_ranges = vec!["-1e4,1e4".to_owned()];
    let wide =
        CompileOptions { ring: Some(24), frac_bits: Some(10), input_ranges, ..CompileOptions::default() };
    let error = calibrated(wide).err().unwrap().to_string();
    assert!(error.contains("--input-range: plan step 0") && error.contains("needs 25 bits"), "{error}");
}

#[test]
fn options_of_calibration_are_checked() {
    let refusal = |more: CompileOptions| compile(&digits("digits.onnx"), &more).err().unwrap().to_string();
    let none = CompileOptions::default;
    assert!(refusal(CompileOptions { margin: Some(2), ..none() }).contains("--margin is about calibration"));
    assert!(refusal(CompileOptions { tolerance: Some(0.1), ..none() }).contains("--tolerance is about"));
    let given = |more: CompileOptions| calibrated(more).err().unwrap().to_string();
    assert!(given(CompileOptions { margin: Some(0), ..none() }).contains("--margin 0"));
    for tolerance in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(given(CompileOptions { tolerance: Some(tolerance), ..none() }).contains("--tolerance"));
    }
    let both = CompileOptions { tolerance: Some(0.1), frac_bits: Some(9), ..none() };
    assert!(given(both).contains("leave it or --frac-bits out"));
    let unknown = CompileOptions { input_ranges: vec!["picture=0,1".to_owned()], ..none() };
    assert!(refusal(unknown).contains("no input \"picture\"; its inputs are \"image\""));
    let huge = CompileOptions { input_ranges: vec!["0,1e30".to_owned()], ..none() };
    assert!(refusal(huge).contains("does not fit 63 bits"));
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
fn a_plan_that_nobody_would_read_is_refused_while_compiling() {
    let dir = tempfile::tempdir().unwrap();
    let labels = dir.path().join("labels.txt");
    let at = |bytes: usize| {
        fs::write(&labels, "x".repeat(bytes)).unwrap();
        compile(&digits("digits.onnx"), &CompileOptions { labels: Some(labels.clone()), ..options() })
    };
    let mut model = at(MAX_PLAN_BYTES - 10_000).unwrap();
    model.save(dir.path()).unwrap();
    assert!(LoadedModel::load(dir.path()).is_ok());
    let error = at(MAX_PLAN_BYTES).err().unwrap().to_string();
    assert!(error.contains("at most 16777216 are accepted") && error.contains("--labels"), "{error}");
    model.plan.labels.push("x".repeat(10_000));
    assert!(matches!(model.save(dir.path()), Err(ModelError::PlanSize { bytes }) if bytes > MAX_PLAN_BYTES));
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
    let unknown = CompileOptions { input_shapes: vec!["picture=1,1,8,8".to_owned()], ..options() };
    let error = compile(&digits("digits.onnx"), &unknown).err().unwrap();
    assert!(matches!(&error, ModelError::Options(text) if text.contains("picture")), "{error}");
}

#[test]
fn a_preprocessing_that_cannot_fit_is_refused() {
    let options = CompileOptions { preprocess: Some("imagenet".to_owned()), ..options() };
    let error = compile(&digits("digits.onnx"), &options).err().unwrap().to_string();
    assert!(error.contains("[1, 3, 224, 224]") && error.contains("[1, 1, 8, 8]"), "{error}");
}

#[test]
fn labels_that_name_the_wrong_classes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let labels = |count: usize| {
        let path = dir.path().join(format!("{count}.txt"));
        fs::write(&path, (0..count).map(|i| format!("{i}\n")).collect::<String>()).unwrap();
        compile(&digits("digits.onnx"), &CompileOptions { labels: Some(path), ..options() })
    };
    // Nine of ten: the first class is the background.
    assert!(labels(10).is_ok() && labels(9).is_ok());
    for count in [7, 8, 11] {
        let error = labels(count).err().unwrap().to_string();
        assert!(error.contains(&format!("{count} labels")) && error.contains("[1, 10]"), "{error}");
    }
}

#[test]
fn a_model_from_layers_compiles_as_a_file_does() {
    use crate::nn;
    let layers = nn::seq().add(nn::linear(4, 8)).add(nn::relu()).add(nn::linear(8, 3));
    let built = layers.build("three classes", &[2, 4], nn::Parameters::random(2)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let csv = dir.path().join("x.csv");
    fs::write(&csv, "0.5,-1,2,0.25\n1,0,-0.5,-2\n").unwrap();
    let options = CompileOptions { calibrate: vec![csv.clone()], ..CompileOptions::default() };
    let model = Model::from_graph(&built.graph, &options).unwrap();
    let x = load_inputs(&model.plan, &[csv]).unwrap();
    let expected = model.float.run(&x).unwrap();
    let fixed = fixed_inputs(&model.plan, &x).unwrap();
    let (found, _) = crate::reference::cleartext(&model, &fixed, &|_: &crate::Event| {}).unwrap();
    let unit = (-f64::from(model.plan.steps[model.plan.outputs[0].wire.index()].frac_bits)).exp2();
    for (&found, &expected) in found[0].iter().zip(&expected[0]) {
        assert!((found as f64 * unit - f64::from(expected)).abs() < 1e-2, "{found} {expected}");
    }
    let narrow = CompileOptions { input_shapes: vec!["1,5".to_owned()], ..CompileOptions::default() };
    let error = Model::from_graph(&built.graph, &narrow).err().unwrap().to_string();
    assert!(error.contains("three classes"), "{error}");
}

#[test]
fn inputs_of_several_inferences_are_told_apart() {
    use privet_plan::InputSpec;
    let spec = |name: &str| InputSpec {
        name: name.to_owned(),
        shape: vec![1],
        preprocess: privet_plan::Preprocess::default(),
    };
    let groups = |names: &[&str], given: &[&str]| -> Vec<Vec<String>> {
        let specs: Vec<InputSpec> = names.iter().map(|name| spec(name)).collect();
        let given: Vec<PathBuf> = given.iter().map(PathBuf::from).collect();
        let shown = |path: PathBuf| path.to_str().unwrap().to_owned();
        let groups = group_inputs(&specs, &given).into_iter();
        groups.map(|group| group.into_iter().map(shown).collect()).collect()
    };
    assert_eq!(groups(&["x"], &["a", "b"]), [["a"], ["b"]]);
    assert_eq!(groups(&["x"], &["x=a", "x=b", "c"]), [["x=a"], ["x=b"], ["c"]]);
    assert_eq!(groups(&["x", "y"], &["x=a", "y=b", "y=c", "x=d"]), [["x=a", "y=b"], ["y=c", "x=d"]]);
    assert_eq!(
        groups(&["x", "y"], &["a.npz", "x=b", "y=c", "d.npz"]),
        [vec!["a.npz"], vec!["x=b", "y=c"], vec!["d.npz"]]
    );
}

//! Attribute combinations that the backend tests leave out, against ONNX Runtime's results (`scripts/golden_operators.py`):
//! in float, and as integer programs with every input secret.

mod common;

use common::integers;
use ndarray::{ArrayD, IxDyn};
use privet_graph::{CompileOptions, compile};
use privet_plan::Preprocess;
use privet_ring::Ring;
use serde_json::Value;

/// Largest error of the float model, relative to 1 and the value.
const FLOAT: f64 = 2e-5;
/// The same of the integer program, at 18 fractional bits.
const INTEGERS: f64 = 2e-3;

fn tensor(value: &Value) -> ArrayD<f32> {
    let shape: Vec<usize> =
        value["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
    let data = value["data"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
    ArrayD::from_shape_vec(IxDyn(&shape), data).unwrap()
}

fn tensors(value: &Value) -> Vec<ArrayD<f32>> {
    value.as_array().unwrap().iter().map(tensor).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn compare(found: impl Iterator<Item = f64>, expected: &ArrayD<f32>, tolerance: f64) -> Result<(), String> {
    for (found, &expected) in found.zip(expected) {
        let expected = f64::from(expected);
        if (found - expected).abs() > tolerance * (1.0 + expected.abs()) {
            return Err(format!("{found}, expected {expected}"));
        }
    }
    Ok(())
}

fn check(case: &Value) -> Result<(), String> {
    let (inputs, outputs) = (tensors(&case["inputs"]), tensors(&case["outputs"]));
    let graph = privet_onnx::parse(&bytes(case["model"].as_str().unwrap()), "golden");
    let options = CompileOptions {
        ring: Ring::new(64).unwrap(),
        frac_bits: 18,
        input_shapes: Vec::new(),
        preprocess: Preprocess::default(),
        labels: Vec::new(),
    };
    let compiled = compile(&graph.map_err(|e| e.to_string())?, &options).map_err(|e| e.to_string())?;
    let float = compiled.float.run(&inputs).map_err(|e| e.to_string())?;
    let flat: Vec<Vec<f32>> = inputs.iter().map(|x| x.iter().copied().collect()).collect();
    let integers = integers::run(&compiled, &flat);
    for (i, expected) in outputs.iter().enumerate() {
        if float[i].shape() != expected.shape() {
            return Err(format!("shape {:?}, expected {:?}", float[i].shape(), expected.shape()));
        }
        compare(float[i].iter().map(|&v| f64::from(v)), expected, FLOAT)?;
        assert_eq!(integers[i].len(), expected.len());
        compare(integers[i].iter().copied(), expected, INTEGERS).map_err(|e| format!("as integers: {e}"))?;
    }
    Ok(())
}

#[test]
fn results_match_the_runtime() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("golden/operators.json")).unwrap();
    assert!(cases.len() > 200);
    let failed: Vec<String> = cases
        .iter()
        .filter_map(|case| check(case).err().map(|problem| format!("{}: {problem}", case["name"])))
        .collect();
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

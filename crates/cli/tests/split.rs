//! `privet split` and `privet stages`: VGG16 in 64 MiB, held by the system.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const MEBIBYTE: u64 = 1 << 20;

fn privet(home: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_privet")).current_dir(home).args(words).output().unwrap()
}

fn json(home: &Path, words: &[&str]) -> Value {
    let output = privet(home, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A picture of 3 x 224 x 224 as CSV.
fn picture(home: &Path) {
    let values: Vec<String> =
        (0..3 * 224 * 224).map(|i| format!("{}", (i * 31 % 255) as f32 / 255.0)).collect();
    std::fs::write(home.join("x.csv"), values.join(",")).unwrap();
}

#[test]
fn vgg16_runs_within_64_mib() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    picture(home);
    assert!(privet(home, &["export", "vgg16", "-o", "vgg16.onnx"]).status.success());
    let split = ["split", "--model", "vgg16.onnx", "--onnx", "--json"];
    let index = json(home, &[&split[..], &["--memory", "64MiB", "--out", "little"]].concat());
    assert!(index["stages"].as_array().unwrap().iter().any(|s| !s["blocks"].as_object().unwrap().is_empty()));
    json(home, &[&split[..], &["--parts", "1", "--out", "whole"]].concat());
    std::fs::remove_file(home.join("vgg16.onnx")).unwrap();

    let run = |stages| json(home, &["stages", stages, "--input", "x.csv", "--json"]);
    let (little, whole) = (run("little"), run("whole"));
    // Blocks of rows are summed in another order.
    let values = |v: &Value| -> Vec<f64> {
        v["outputs"][0]["values"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let (by_blocks, at_once) = (values(&little), values(&whole));
    let largest = at_once.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let apart = by_blocks.iter().zip(&at_once).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert_eq!((by_blocks.len(), at_once.len()), (1000, 1000));
    assert!(apart <= 1e-5 * largest, "{apart} apart, outputs up to {largest}");
    assert_eq!(little["limit_bytes"], 88 * MEBIBYTE);
    let bytes = |v: &Value, name: &str| v[name].as_u64().unwrap() as f64;
    for ran in [&little, &whole] {
        let (predicted, measured) = (bytes(ran, "predicted_peak_bytes"), bytes(ran, "measured_peak_bytes"));
        assert!((measured / predicted - 1.0).abs() <= 0.15, "{predicted} predicted, {measured} measured");
    }
    assert!(bytes(&little, "measured_peak_bytes") <= (64 * MEBIBYTE) as f64);
}

#[test]
fn what_cannot_be_is_refused_with_what_can() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    assert!(privet(home, &["export", "lenet", "-o", "m.onnx"]).status.success());
    let fails = |words: &[&str], code: i32, expected: &str| {
        let output = privet(home, &[&["split", "--model", "m.onnx", "--out", "out"], words].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(expected), "{text}");
    };
    fails(&["--onnx", "--memory", "1KiB"], 2, "expected a budget of at least");
    fails(&["--onnx", "--parts", "500"], 2, "into at most");
    fails(&["--onnx"], 2, "--parts");
    fails(&["--parts", "2"], 2, "--onnx");
    fails(&["--onnx", "--memory", "64MB"], 2, "64MiB");
    assert!(!home.join("out").exists());
}

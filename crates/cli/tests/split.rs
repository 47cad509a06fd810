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
    assert!(privet(home, &["key", "new", "--id", "vgg16", "--out", "owner"]).status.success());
    let split = ["split", "--model", "vgg16.onnx", "--memory", "64MiB", "--key", "owner", "--json", "--out"];
    interrupted(home, &[&split[..], &["ended"]].concat());
    let index = json(home, &[&split[..], &["sealed"]].concat());
    assert!(
        index["stages"].as_array().unwrap().iter().all(|s| s["file"].as_str().unwrap().ends_with(".sealed"))
    );
    std::fs::remove_file(home.join("vgg16.onnx")).unwrap();

    let run = |stages| json(home, &["stages", stages, "--input", "x.csv", "--json"]);
    let (little, whole) = (run("little"), run("whole"));
    let sealed = json(home, &["stages", "sealed", "--key", "owner", "--input", "x.csv", "--json"]);
    // Blocks of rows are summed in another order.
    let values = |v: &Value| -> Vec<f64> {
        v["outputs"][0]["values"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let at_once = values(&whole);
    let largest = at_once.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    for ran in [&little, &sealed] {
        let by_blocks = values(ran);
        let apart = by_blocks.iter().zip(&at_once).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert_eq!((by_blocks.len(), at_once.len()), (1000, 1000));
        assert!(apart <= 1e-5 * largest, "{apart} apart, outputs up to {largest}");
        assert_eq!(ran["limit_bytes"], 88 * MEBIBYTE);
    }
    let bytes = |v: &Value, name: &str| v[name].as_u64().unwrap() as f64;
    for ran in [&little, &whole, &sealed] {
        let (predicted, measured) = (bytes(ran, "predicted_peak_bytes"), bytes(ran, "measured_peak_bytes"));
        assert!((measured / predicted - 1.0).abs() <= 0.15, "{predicted} predicted, {measured} measured");
    }
    for ran in [&little, &sealed] {
        assert!(bytes(ran, "measured_peak_bytes") <= (64 * MEBIBYTE) as f64, "{ran}");
    }
    assert!(sealed["stages"][0]["ahead_bytes"].as_u64().unwrap() > 0, "the next stage was opened ahead");
}

/// Ctrl-C while a stage is written leaves nothing.
fn interrupted(home: &Path, words: &[&str]) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_privet")).current_dir(home).args(words).spawn().unwrap();
    let out = home.join(words.last().unwrap());
    while std::fs::read_dir(&out).map_or(0, Iterator::count) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was interrupted");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGINT)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!out.exists(), "{}", out.display());
}

#[test]
fn sealed_stages_are_refused_without_and_with_another_key() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    assert!(privet(home, &["export", "lenet", "-o", "m.onnx"]).status.success());
    for owner in ["owner", "other"] {
        assert!(privet(home, &["key", "new", "--id", "m", "--out", owner]).status.success());
    }
    let split =
        ["split", "--model", "m.onnx", "--parts", "3", "--key", "owner", "--version", "4", "--out", "out"];
    assert!(privet(home, &split).status.success());
    std::fs::write(home.join("x.csv"), vec!["0.5"; 28 * 28].join(",")).unwrap();
    let fails = |words: &[&str], code: i32, expected: &str| {
        let output = privet(home, &[&["stages"], words, &["--input", "x.csv"]].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(expected) && text.matches("error").count() == 1, "{text}");
    };
    fails(&["out"], 2, "--key DIR");
    fails(&["out", "--key", "other"], 3, "the signature of the owner");
    fails(&["out", "--key", "owner", "--min-version", "5"], 3, "at least version 5");
    fails(&["nothere"], 3, "no such directory");
    fails(&["nothere", "--key", "owner"], 3, "no such directory");
    json(home, &["stages", "out", "--key", "owner", "--input", "x.csv", "--json"]);
    // What only the process that computes finds is said once.
    let stage = home.join("out/stage-02.sealed");
    let mut bytes = std::fs::read(&stage).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&stage, bytes).unwrap();
    fails(&["out", "--key", "owner"], 3, "not what the owner sealed");
    std::fs::write(home.join("empty.onnx"), b"").unwrap();
    let empty = privet(home, &["split", "--model", "empty.onnx", "--parts", "1", "--onnx", "--out", "no"]);
    let text = String::from_utf8_lossy(&empty.stderr).into_owned();
    assert!(text.contains("empty.onnx") && empty.status.code() == Some(3), "{text}");
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
    fails(&["--parts", "2", "--onnx", "--key", "owner"], 2, "cannot be used with");
    fails(&["--onnx", "--memory", "64MB"], 2, "64MiB");
    assert!(!home.join("out").exists());
}

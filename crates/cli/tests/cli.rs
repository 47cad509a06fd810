//! The command line: help, refusals, exit codes, and the single line of JSON.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{digits, finish, lowering, output, privet, run_digits, signal};
use nix::sys::signal::Signal;
use serde_json::Value;

fn json(stdout: &str) -> Value {
    assert_eq!(stdout.matches('\n').count(), 1, "exactly one line: {stdout}");
    serde_json::from_str(stdout).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_command_has_help_with_an_example() {
    let home = tempfile::tempdir().unwrap();
    for command in ["run", "setup", "compile", "dealer", "server", "client"] {
        let (code, stdout, _) = output(privet(home.path()).args([command, "--help"]));
        assert_eq!(code, Some(0));
        assert!(stdout.contains("Example") && stdout.contains(&format!("privet {command}")), "{stdout}");
        assert!(!stdout.contains("--exit-with-parent") && !stdout.contains("--raw"), "{stdout}");
    }
    let (_, stdout, _) = output(privet(home.path()).arg("--help"));
    assert!(stdout.contains("Exit codes:") && stdout.contains("130"), "{stdout}");
}

#[test]
fn wrong_usage_is_2_with_a_suggestion() {
    let home = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 7] = [
        (&["run", "--modell", "m.onnx"], "similar argument exists: '--model'"),
        (&["ruun"], "similar subcommand exists: 'run'"),
        (&["run", "--model", "m.onnx"], "--input"),
        (&["run", "--model", "m", "--input", "x", "--ring", "65"], "65 is not in 16..=64"),
        (&["run", "--model", "m", "--input", "x", "--engine", "3pc"], "possible values: 2pc, cleartext"),
        (
            &["client", "online", "--input", "x", "--reveal-to", "all"],
            "possible values: client, server, both",
        ),
        (&["server", "offline", "--count", "0"], "0 is not in 1.."),
    ];
    for (args, message) in cases {
        let (code, stdout, stderr) = output(privet(home.path()).args(args));
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(stderr.contains(message), "{args:?}: {stderr}");
    }
}

#[test]
fn wrong_files_are_3_and_named() {
    let home = tempfile::tempdir().unwrap();
    let model = digits("digits.onnx");
    let model = model.to_str().unwrap();
    let picture = digits("7.png");
    let picture = picture.to_str().unwrap();
    let labels = digits("labels.txt");
    let labels = labels.to_str().unwrap();
    let cases: [(&[&str], &str); 10] = [
        (&["run", "--model", "none.onnx", "--input", picture], "none.onnx"),
        (&["run", "--model", labels, "--input", picture], "not an ONNX file"),
        (&["run", "--model", model, "--input", "none.png"], "none.png"),
        (&["run", "--model", model, "--input", "image=none.png"], "cannot read none.png"),
        (&["run", "--model", model, "--input", picture], "the model expects the shape [1, 1, 8, 8]"),
        (&["run", "--model", model, "--input", picture, "--preprocess", "imagnet"], "\"imagnet\""),
        (&["run", "--model", model, "--input", picture, "--labels", "none.txt"], "none.txt"),
        (&["compile", "none.onnx", "-o", "out"], "none.onnx"),
        (&["dealer", "--config", "none"], "none: no such file; make one with privet setup"),
        (&["setup", "--out", "parties", "--server", "nowhere"], "expected HOST:PORT"),
    ];
    for (args, message) in cases {
        let (code, stdout, stderr) = output(privet(home.path()).args(args).current_dir(home.path()));
        assert_eq!((code, stdout.as_str()), (Some(3), ""), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(message), "{args:?}: {stderr}");
        assert!(!stderr.contains("backtrace"), "{stderr}");
    }
    assert!(names(home.path()).is_empty(), "nothing is left: {:?}", names(home.path()));
}

/// `models/integers.onnx`: ArgMax along axis 1 of x `[1, 4]`, and x cast to int64.
#[test]
fn whole_numbers_are_shown_and_written_as_such() {
    let home = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/integers.onnx");
    let (input, file) = (home.path().join("x.csv"), home.path().join("y.npz"));
    fs::write(&input, "1.5,-2.75,3.25,3.25\n").unwrap();
    let run = || {
        let mut command = privet(home.path());
        command.arg("run").arg("--model").arg(&model).arg("--input").arg(&input);
        command
    };
    let (code, stdout, stderr) = output(run().arg("--json").arg("--output").arg(&file));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains(r#""best":{"shape":[1],"data":[2]}"#), "{stdout}");
    assert!(stdout.contains(r#""whole":{"shape":[1,4],"data":[1,-2,3,3]}"#), "{stdout}");
    assert!(json(&stdout)["top"].as_array().unwrap().is_empty(), "integers are no logits");
    let written = privet::input::load_npz(&file).unwrap();
    assert_eq!(written["whole"].iter().copied().collect::<Vec<f32>>(), [1.0, -2.0, 3.0, 3.0]);
    let (code, stdout, _) = output(&mut run());
    assert_eq!(code, Some(0));
    assert!(stdout.contains("best: shape [1], from 2 to 2") && stdout.contains("[1, -2, 3, 3]"), "{stdout}");
}

#[test]
fn a_run_prints_one_line_of_json_with_everything() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("y.npz");
    let (code, stdout, stderr) =
        output(run_digits(home.path(), "7.png").args(["--json", "--topk", "3", "--output"]).arg(&file));
    assert_eq!(code, Some(0), "{stderr}");
    let result = json(&stdout);
    assert_eq!(result["engine"], "2pc");
    assert_eq!(result["model"], "digits");
    assert_eq!((&result["ring"], &result["frac_bits"]), (&Value::from(64), &Value::from(16)));
    assert_eq!(result["matches_cleartext"], true);
    assert!(result["max_abs_error_vs_float"].as_f64().unwrap() < 0.01);
    let top = result["top"].as_array().unwrap();
    assert_eq!(top.len(), 3);
    assert_eq!((&top[0]["index"], &top[0]["label"]), (&Value::from(7), &Value::from("seven")));
    assert!(top[0]["probability"].as_f64().unwrap() > 0.99);
    assert_eq!(result["outputs"]["logits"]["shape"], serde_json::json!([1, 10]));
    assert_eq!(result["outputs"]["logits"]["data"].as_array().unwrap().len(), 10);
    let number = |value: &Value| value.as_f64().unwrap();
    for key in ["seconds", "cpu_seconds", "bytes_sent", "bytes_stored"] {
        assert!(number(&result["offline"][key]) > 0.0, "{key}");
    }
    for key in ["seconds", "cpu_seconds", "bytes_sent", "rounds"] {
        assert!(number(&result["online"][key]) > 0.0, "{key}");
    }
    let parties = result["parties"].as_array().unwrap();
    let roles: Vec<_> = parties.iter().map(|p| p["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["dealer", "server", "client"]);
    assert!(parties[0]["online"].is_null());
    assert!(parties.iter().all(|p| number(&p["peak_memory_bytes"]) > 1e6));
    let sent: f64 = parties[1..].iter().map(|p| number(&p["online"]["bytes_sent"])).sum();
    assert_eq!(sent, number(&result["online"]["bytes_sent"]));
    assert_eq!(names(home.path()), ["y.npz"], "identities and shares are gone");
}

#[test]
fn narrow_rings_and_calibration_give_the_same_label() {
    let home = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) =
        output(run_digits(home.path(), "2.png").args(["--json", "--ring", "40", "--frac-bits", "15"]));
    assert_eq!(code, Some(0), "{stderr}");
    let result = json(&stdout);
    assert_eq!((&result["ring"], &result["top"][0]["label"]), (&Value::from(40), &Value::from("two")));
    assert_eq!(result["matches_cleartext"], true);
    let mut calibrated = run_digits(home.path(), "2.png");
    calibrated.args(["--json", "--calibrate"]).args((0..10).map(|i| digits(&format!("{i}.png"))));
    let (code, stdout, stderr) = output(&mut calibrated);
    assert_eq!(code, Some(0), "{stderr}");
    let result = json(&stdout);
    assert!(result["ring"].as_u64().unwrap() < 50, "{}", result["ring"]);
    assert_eq!((&result["top"][0]["label"], &result["matches_cleartext"]), (&"two".into(), &true.into()));
}

#[test]
fn the_cleartext_engine_runs_without_parties() {
    let home = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) =
        output(run_digits(home.path(), "5.png").args(["--json", "--engine", "cleartext"]));
    assert_eq!(code, Some(0), "{stderr}");
    let result = json(&stdout);
    assert_eq!((&result["engine"], &result["top"][0]["label"]), (&"cleartext".into(), &"five".into()));
    assert_eq!(result["parties"].as_array().unwrap().len(), 1);
    assert_eq!(result["parties"][0]["role"], "cleartext");
    assert_eq!(result["online"]["bytes_sent"], 0);
}

#[test]
fn people_get_labels_and_a_table() {
    let home = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = output(&mut run_digits(home.path(), "9.png"));
    assert_eq!(code, Some(0), "{stderr}");
    for text in ["nine", "probability", "dealer", "server", "client", "rounds", "KiB", "bit for bit"] {
        assert!(stdout.contains(text), "{text}: {stdout}");
    }
    assert_eq!(stderr, "", "no progress bars without a terminal");
}

#[test]
fn an_overflow_is_3_and_names_the_layer() {
    let home = tempfile::tempdir().unwrap();
    let (code, _, stderr) =
        output(run_digits(home.path(), "7.png").args(["--ring", "16", "--frac-bits", "6"]));
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("overflow in step") && stderr.contains("--ring"), "{stderr}");
}

#[test]
fn the_deadline_is_5() {
    let home = tempfile::tempdir().unwrap();
    let pipe = home.path().join("never.npy");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = privet(home.path());
    command.arg("run").arg("--model").arg(digits("digits.onnx")).arg("--input").arg(&pipe);
    let (code, stdout, stderr) = finish(command.args(["--deadline", "1"]).spawn().unwrap());
    assert_eq!((code, stdout.as_str()), (Some(5), ""), "{stderr}");
    assert!(stderr.contains("not done within 1 s"), "{stderr}");
}

#[test]
fn an_interrupted_run_is_130() {
    let home = tempfile::tempdir().unwrap();
    let pipe = home.path().join("never.npy");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = privet(home.path());
    command.arg("run").arg("--model").arg(digits("digits.onnx")).arg("--input").arg(&pipe);
    lowering(&mut command);
    let child = command.spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    signal(&child, Signal::SIGINT);
    let (code, _, stderr) = finish(child);
    assert_eq!(code, Some(130), "{stderr}");
    assert!(stderr.contains("interrupted"), "{stderr}");
}

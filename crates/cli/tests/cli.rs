//! The command line: help, refusals, exit codes, and the single line of JSON.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{digits, finish, lowering, output, privet, run_digits, signal, until_it_handles};
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
    for command in
        ["run", "setup", "compile", "plan", "bench", "dealer", "server", "client", "key", "seal", "unseal"]
    {
        let (code, stdout, _) = output(privet(home.path()).args([command, "--help"]));
        assert_eq!(code, Some(0));
        assert!(stdout.contains("Example") && stdout.contains(&format!("privet {command}")), "{stdout}");
        assert!(!stdout.contains("--exit-with-parent") && !stdout.contains("--raw"), "{stdout}");
    }
    let (_, stdout, _) = output(privet(home.path()).arg("--help"));
    assert!(stdout.contains("Exit codes:") && stdout.contains("130"), "{stdout}");
}

#[test]
fn auto_says_what_it_chose() {
    let home = tempfile::tempdir().unwrap();
    let model = digits("digits.onnx");
    let model = model.to_str().unwrap();
    let wide = ["--ring", "40", "--frac-bits", "12", "--engine", "auto"];
    let (_, stdout, _) = output(privet(home.path()).args(["plan", model, "--network", "wan"]).args(wide));
    assert!(stdout.contains("digits, engine auto, 40-bit ring"), "{stdout}");
    assert!(stdout.contains("of 6 steps that compare") && stdout.contains("products  chosen"), "{stdout}");
    let (_, stdout, _) =
        output(privet(home.path()).current_dir(home.path()).args(["compile", model, "-o", "out"]).args(wide));
    assert!(stdout.contains("chosen for lan: keys for "), "{stdout}");
    assert!(stdout.contains("s online predicted (2pc "), "{stdout}");
}

#[test]
fn wrong_usage_is_2_with_a_suggestion() {
    let home = tempfile::tempdir().unwrap();
    let model = digits("digits.onnx");
    let model = model.to_str().unwrap();
    let cases: [(&[&str], &str); 19] = [
        (&["run", "--modell", "m.onnx"], "similar argument exists: '--model'"),
        (&["ruun"], "similar subcommand exists: 'run'"),
        (&["run", "--model", "m.onnx"], "--input"),
        (&["run", "--model", "m", "--input", "x", "--ring", "65"], "65 is not in 16..=64"),
        (
            &["run", "--model", "m", "--input", "x", "--engine", "4pc"],
            "possible values: 2pc, fss, auto, 3pc, cleartext",
        ),
        (
            &["client", "online", "--input", "x", "--reveal-to", "all"],
            "possible values: client, server, both",
        ),
        (&["server", "offline", "--count", "10001"], "10001 is not in "),
        (&["setup", "--out", "parties", "--server", "nowhere"], "expected HOST:PORT"),
        (&["compile", model, "-o", "out", "--input-shape", "1,x"], "expected positive numbers"),
        (
            &["compile", model, "-o", "out", "--ring", "20", "--frac-bits", "16"],
            "takes 1 to 8 fractional bits",
        ),
        (&["compile", model, "-o", "out", "--preprocess", "imagenet"], "makes pictures of shape"),
        (&["plan", model, "--input-range", "1,0"], "the smallest and the largest value"),
        (&["plan", model, "--margin", "0"], "0 is not in 1.."),
        (&["plan", model, "--network", "dsl"], "expected RATE:RTT or RATE:RTT:JITTER"),
        (&["plan", model, "--network", "lan", "--engine", "cleartext"], "the engine cleartext sends nothing"),
        (
            &["plan", model, "--network", "loopback", "--engine", "cleartext"],
            "--network loopback: the engine",
        ),
        (&["dealer", "--network", "1gbit:20s"], "as a time (at most 10s)"),
        (&["plan", model, "--tolerance", "0.1"], "--tolerance is about calibration"),
        (&["plan", model, "--tolerance", "0.1", "--frac-bits", "9"], "cannot be used with"),
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
    let cases: [(&[&str], &str); 11] = [
        (&["run", "--model", "none.onnx", "--input", picture], "none.onnx"),
        (&["run", "--model", labels, "--input", picture], "not an ONNX file"),
        (&["run", "--model", model, "--input", "none.png"], "none.png"),
        (&["run", "--model", model, "--input", "image=none.png"], "cannot read none.png"),
        (&["run", "--model", model, "--input", picture], "the model expects the shape [1, 1, 8, 8]"),
        (&["run", "--model", model, "--input", picture, "--preprocess", "imagnet"], "\"imagnet\""),
        (&["run", "--model", model, "--input", picture, "--labels", "none.txt"], "none.txt"),
        (&["compile", "none.onnx", "-o", "out"], "none.onnx"),
        (&["dealer", "--config", "none"], "none: no such file; make one with privet setup"),
        (&["plan", "none.privet"], "none.privet: no such file; make it with privet compile"),
        (&["plan", labels], "not an ONNX file"),
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
        assert!(number(&result["agreement"][key]) > 0.0, "{key}");
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
    assert!(result["ring"].as_u64().unwrap() < 40, "{}", result["ring"]);
    assert_eq!((&result["top"][0]["label"], &result["matches_cleartext"]), (&"two".into(), &true.into()));
    let calibration = &result["calibration"];
    assert_eq!((&calibration["inputs"], &calibration["tolerance"]), (&10.into(), &1e-3.into()));
    assert!((1e-6..1e-3).contains(&calibration["relative_error"].as_f64().unwrap()), "{calibration}");
}

/// What `privet plan` says of a model, compiled or not, is what a run sends.
#[test]
fn a_plan_is_explained_and_runs_at_that_cost() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("model");
    let compile = |json: &[&str]| {
        let mut command = privet(home.path());
        command
            .arg("compile")
            .arg(digits("digits.onnx"))
            .arg("-o")
            .arg(&dir)
            .arg("--calibrate")
            .arg(digits("7.png"));
        lowering(&mut command);
        output(command.args(json))
    };
    let (code, stdout, stderr) = compile(&[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stdout.contains("error on the calibration input: ") && stdout.contains("asked for 1e-3"),
        "{stdout}"
    );
    let (_, stdout, _) = compile(&["--json"]);
    let compiled = json(&stdout);
    assert!(compiled["calibration"]["max_abs_error"].as_f64().unwrap() > 0.0);
    let (code, stdout, stderr) = output(privet(home.path()).arg("plan").arg(&dir).arg("--json"));
    assert_eq!(code, Some(0), "{stderr}");
    let plan = json(&stdout);
    assert_eq!((&plan["digest"], &plan["ring"]), (&compiled["digest"], &compiled["ring"]));
    let rows = plan["rows"].as_array().unwrap();
    for key in ["rounds", "server_sends", "client_sends", "dealt", "server_stores", "client_stores"] {
        let sum: u64 = rows.iter().map(|r| r[key].as_u64().unwrap()).sum();
        assert!(sum > 0 && plan["totals"][key] == sum, "{key}: {sum} {}", plan["totals"]);
    }
    let relu = rows.iter().find(|r| r["op"] == "relu").unwrap();
    assert_eq!(relu["opened"], serde_json::json!({"what": "masked", "to": "both"}));
    assert!(relu["width"].as_u64().unwrap() < plan["ring"].as_u64().unwrap());
    assert_eq!((&relu["range_source"], &relu["head_room"]), (&"calibrated".into(), &2.into()));
    let last = rows.last().unwrap();
    assert_eq!((&last["op"], &last["opened"]["to"]), (&"reveal".into(), &"client".into()));

    // The same by hand: payload of what a run sends, but for headers of frames and greetings.
    let mut run = run_digits(home.path(), "7.png");
    let (code, stdout, stderr) = output(run.args(["--json", "--calibrate"]).arg(digits("7.png")));
    assert_eq!(code, Some(0), "{stderr}");
    let run = json(&stdout);
    let parties = run["parties"].as_array().unwrap();
    let number = |value: &Value| value.as_u64().unwrap();
    for (party, sends) in [(&parties[1], "server_sends"), (&parties[2], "client_sends")] {
        let (sent, declared) = (number(&party["online"]["bytes_sent"]), number(&plan["totals"][sends]));
        assert!((declared..declared + 4096).contains(&sent), "{sends}: {sent} for {declared}");
        assert_eq!(party["online"]["rounds"], plan["totals"]["rounds"]);
        assert_eq!(party["online"]["agreement"]["rounds"], plan["agreement_rounds"]);
    }
    for (party, stores) in [(&parties[1], "server_stores"), (&parties[2], "client_stores")] {
        let (stored, declared) = (number(&party["offline"]["bytes_stored"]), number(&plan["totals"][stores]));
        let masked = number(&plan["masked_weights"]);
        assert!(
            (declared..declared + masked + 4096).contains(&stored),
            "{stores}: {stored} for {declared} and {masked}"
        );
    }
}

#[test]
fn people_get_a_plan_as_a_table() {
    let home = tempfile::tempdir().unwrap();
    let show = |more: &[&str]| {
        let (code, stdout, stderr) =
            output(privet(home.path()).arg("plan").arg(digits("digits.onnx")).args(more));
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(stdout.lines().all(|line| line.chars().count() <= 120), "{stdout}");
        stdout
    };
    let usual = show(&[]);
    for text in [
        "relu1",
        "63 full",
        "masked, both",
        "masked, server",
        "value, client",
        "total",
        "15 338 private values",
    ] {
        assert!(usual.contains(text), "{text}: {usual}");
    }
    assert!(usual.contains("Not shown: 1 ") && !usual.contains("reshape"), "{usual}");
    assert!(show(&["--all"]).contains("reshape"));
    assert!(show(&["--reveal-to", "both"]).contains("value, both"));
    let clear = show(&["--engine", "cleartext", "--input-range=-1,1"]);
    assert!(clear.contains("proved") && clear.contains("reshape") && !clear.contains("opened"), "{clear}");
    let compiled = home.path().join("plan.privet");
    fs::write(&compiled, b"PRIVPLAN").unwrap();
    let (code, _, stderr) = output(privet(home.path()).arg("plan").arg(&compiled));
    assert!(code == Some(3) && stderr.contains("plan.privet"), "{stderr}");
    let (code, _, stderr) = output(privet(home.path()).arg("plan").arg(&compiled).args(["--ring", "40"]));
    assert!(code == Some(2) && stderr.contains("compiled already"), "{stderr}");
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
    until_it_handles(&child, Signal::SIGINT);
    signal(&child, Signal::SIGINT);
    let (code, _, stderr) = finish(child);
    assert_eq!(code, Some(130), "{stderr}");
    assert!(stderr.contains("interrupted"), "{stderr}");
}

/// How long it takes depends on the machine; what is added up does not.
#[test]
fn a_plan_predicts_times_over_a_network() {
    let home = tempfile::tempdir().unwrap();
    let plan = |network: &[&str]| {
        let (code, stdout, stderr) =
            output(privet(home.path()).arg("plan").arg(digits("digits.onnx")).args(network));
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        stdout
    };
    let predicted = json(&plan(&["--network", "10mbit:100ms", "--json"]));
    let prediction = &predicted["prediction"];
    assert_eq!(prediction["network"], "10mbit:100ms");
    let number = |value: &Value| value.as_f64().unwrap();
    for phase in ["online", "offline", "offline_once"] {
        let time = &prediction[phase];
        let parts: f64 = ["compute", "bytes", "rounds"].map(|part| number(&time[part])).iter().sum();
        assert!((parts - number(&time["seconds"])).abs() < 1e-9 && parts > 0.0, "{time}");
    }
    let rounds = number(&predicted["totals"]["rounds"]);
    assert!(number(&prediction["online"]["rounds"]) >= 0.05 * rounds, "{prediction}");
    let dealt = number(&predicted["totals"]["dealt"]);
    assert!(number(&prediction["offline"]["seconds"]) >= dealt * 8.0 / 10e6, "{prediction}");
    assert!(number(&prediction["machine"]["multiplications_per_s"]) > 0.0);
    assert_eq!(json(&plan(&["--json"]))["prediction"], Value::Null);
    let table = plan(&["--network", "lan"]);
    assert!(table.contains("Predicted wall times over lan") && table.contains("Longest online"), "{table}");
}

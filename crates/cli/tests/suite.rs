//! `privet bench --exp inference_all`, `inference_plaintext` and `micro`, `privet compare`, `privet export`, and pictures.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{digits, output};
use serde_json::Value;

/// The program, at work in `home`.
fn privet(home: &Path) -> Command {
    let mut command = common::privet(home);
    command.current_dir(home);
    command
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("a number, not {value}"))
}

/// The lines that a command prints, as JSON; it has to succeed and to be silent otherwise.
fn rows(home: &Path, args: &[&str]) -> Vec<Value> {
    let (code, stdout, stderr) = output(privet(home).args(args).arg("--json"));
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}");
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_suite_measures_private_engines_next_to_plain_runs() {
    let home = tempfile::tempdir().unwrap();
    let args =
        ["bench", "--exp", "inference_all", "--models", "lenet", "--iterations", "3", "--plot", "s.svg"];
    let rows = rows(home.path(), &args);
    let engines: Vec<_> = rows.iter().map(|r| r["engine"].as_str().unwrap()).collect();
    assert_eq!(engines[..2], ["float", "cleartext"]);
    assert!(["2pc", "3pc"].iter().all(|private| engines.contains(private)), "{engines:?}");
    for row in rows.iter().filter(|row| row["phase"] == "online") {
        assert_eq!(
            (&row["exp"], &row["iterations"], &row["dropped"]),
            (&"inference_all".into(), &3.into(), &1.into())
        );
        let [least, wall, most] = ["wall_min_s", "wall_s", "wall_max_s"].map(|key| number(&row[key]));
        assert!(0.0 < least && least <= wall && wall <= most, "{row}");
        assert!(number(&row["cpu_s"]) > 0.0 && number(&row["peak_rss_bytes"]) > 1e6, "{row}");
        if row["engine"] == "float" {
            assert!(
                row["ring"].is_null() && row["matches_cleartext"].is_null() && row["layer_s"].is_null(),
                "{row}"
            );
            // Outputs are about one in size: another program than ours, and the same model.
            assert!((1e-12..1e-4).contains(&number(&row["max_abs_err"])), "{row}");
            continue;
        }
        assert_eq!(row["matches_cleartext"], true, "{row}");
        let kinds = ["conv", "linear", "relu", "pooling", "other"].map(|kind| number(&row["layer_s"][kind]));
        // Of two inferences the median is the mean.
        assert!((kinds.iter().sum::<f64>() - wall).abs() < 1e-4, "{row}");
        assert!(kinds[..4].iter().all(|&seconds| seconds > 0.0), "{row}");
    }
    let memory =
        |engine: &str| number(&rows.iter().find(|r| r["engine"] == engine).unwrap()["peak_rss_bytes"]);
    assert!(memory("cleartext") < 60e6, "calibration is not in it");
    let picture = fs::read_to_string(home.path().join("s.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    for text in ["lenet", "cleartext", "2pc online", "2pc offline", "pooling", "(MB)", "(float)"] {
        assert!(picture.contains(text), "{text}");
    }
}

#[test]
fn plain_runs_come_as_values_separated_by_commas_and_as_a_bitmap() {
    let home = tempfile::tempdir().unwrap();
    let args =
        ["bench", "--exp", "inference_plaintext", "--models", "lenet", "--iterations", "2", "--avgpool"];
    let (code, stdout, stderr) = output(privet(home.path()).args(args).args(["--csv", "--plot", "p.png"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let lines: Vec<Vec<&str>> = stdout.lines().map(|line| line.split(',').collect()).collect();
    let column = |name: &str| lines[0].iter().position(|c| *c == name).unwrap_or_else(|| panic!("{name}"));
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{stdout}");
    let values = |name: &str| lines[1..].iter().map(|line| line[column(name)]).collect::<Vec<_>>();
    assert_eq!(values("engine"), ["float", "cleartext"]);
    assert_eq!(values("average_pooling"), ["true", "true"]);
    assert_eq!((values("matches_cleartext"), values("bytes")), (vec!["", "true"], vec!["0", "0"]));
    assert!(values("conv_s")[0].is_empty() && values("conv_s")[1].parse::<f64>().unwrap() > 0.0, "{stdout}");
    assert!(values("max_abs_err")[0].parse::<f64>().unwrap() < 1e-4, "{stdout}");
    let picture = image::open(home.path().join("p.png")).unwrap();
    assert_eq!(picture.width(), 1920);
    assert!(picture.height() > 200);
}

#[test]
fn people_get_tables_of_the_suite() {
    let home = tempfile::tempdir().unwrap();
    let args = ["bench", "--exp", "inference_all", "--models", "lenet", "--iterations", "1"];
    let (code, stdout, stderr) = output(privet(home.path()).args(args));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.lines().all(|line| line.chars().count() <= 120), "{stdout}");
    for text in ["float", "cleartext", "2pc", "3pc", "conv", "pooling", "/ float", "CryptGPU 3PC", "offline"]
    {
        assert!(stdout.contains(text), "{text}: {stdout}");
    }
    let args = ["bench", "--exp", "micro", "--elements", "100", "--iterations", "1"];
    let (code, stdout, stderr) = output(privet(home.path()).args(args));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.lines().all(|line| line.chars().count() <= 120), "{stdout}");
    assert!(stdout.contains("relu-trunc") && stdout.contains("B/elem."), "{stdout}");
}

/// Bytes for an element do not depend on how many there are, but for padding to whole bytes.
#[test]
fn single_operations_cost_what_their_plans_declare() {
    let home = tempfile::tempdir().unwrap();
    let args = [
        "bench",
        "--exp",
        "micro",
        "--elements",
        "6400",
        "--iterations",
        "2",
        "--ring",
        "64",
        "--plot",
        "m.png",
    ];
    let rows = rows(home.path(), &args);
    let mut operations: Vec<&str> = rows.iter().map(|r| r["operation"].as_str().unwrap()).collect();
    operations.dedup();
    assert_eq!(operations, ["relu-trunc", "multiply", "compare", "max-pool 2x2", "matmul", "matmul wires"]);
    for row in &rows {
        assert_eq!((&row["matches_cleartext"], &row["ring"]), (&true.into(), &64.into()), "{row}");
        assert!(number(&row["wall_s"]) > 0.0 && number(&row["cpu_s"]) > 0.0, "{row}");
        let elements = number(&row["elements"]);
        assert!((elements / 6400.0 - 1.0).abs() < 0.1, "{row}");
        let bytes = number(&row["bytes"]);
        assert!((bytes / elements - number(&row["bytes_per_element"])).abs() < 1e-5, "{row}");
        if row["engine"] == "cleartext" {
            assert_eq!((bytes, &row["rounds"]), (0.0, &0.into()), "{row}");
            continue;
        }
        let rounds = number(&row["rounds"]);
        // What is dealt beforehand to two is sent to one meanwhile by the third of three.
        let dealt = if row["engine"] == "3pc" { 8.0 } else { 0.0 };
        match row["operation"].as_str().unwrap() {
            // Each operand is opened, eight bytes each way, and the product needs nothing more; where two own the weights, only
            // the server needs it.
            "matmul" => {
                let opened = if row["engine"] == "3pc" { 16.0 } else { 8.0 };
                assert!(bytes / elements == opened + dealt && rounds <= 1.0, "{row}");
            }
            "multiply" | "matmul wires" => {
                assert_eq!((bytes / elements, rounds), (32.0 + dealt, 1.0), "{row}")
            }
            // The aims of the project.
            "relu-trunc" => {
                let limit = if row["engine"] == "3pc" { 112.0 } else { 26.0 };
                assert!(bytes / elements <= limit && rounds <= 4.0, "{row}");
            }
            // Keys that carry products open the operands and nothing else.
            _ => assert!(bytes > 0.0 && rounds >= if row["engine"] == "fss" { 1.0 } else { 2.0 }, "{row}"),
        }
    }
    assert!(image::open(home.path().join("m.png")).is_ok());
}

#[test]
fn engines_are_compared_on_one_input() {
    let home = tempfile::tempdir().unwrap();
    let (model, input, preprocess) = (digits("digits.onnx"), digits("7.png"), digits("preprocess.toml"));
    let files = [model, input, preprocess].map(|path| path.to_str().unwrap().to_owned());
    let files = ["compare", "--model", &files[0], "--input", &files[1], "--preprocess", &files[2]];
    let rows =
        rows(home.path(), &[&files[..], &["--engines", "2pc,cleartext,3pc", "--plot", "c.svg"]].concat());
    assert_eq!(
        rows.iter().map(|r| r["engine"].as_str().unwrap()).collect::<Vec<_>>(),
        ["2pc", "cleartext", "3pc"]
    );
    assert!(rows.iter().all(|row| row["matches_cleartext"] == true));
    assert_eq!(rows[0]["max_abs_error_vs_float"], rows[1]["max_abs_error_vs_float"]);
    let (private, clear) = (&rows[0], &rows[1]);
    assert!(number(&private["online"]["rounds"]) > 10.0 && number(&private["offline"]["bytes_sent"]) > 1e5);
    assert_eq!((number(&clear["online"]["bytes_sent"]), number(&clear["stored_bytes"])), (0.0, 0.0));
    for row in &rows {
        assert!(
            number(&row["online"]["seconds"]) > 0.0 && number(&row["online"]["cpu_seconds"]) > 0.0,
            "{row}"
        );
    }
    assert!(fs::read_to_string(home.path().join("c.svg")).unwrap().contains("offline"));
    let (code, stdout, stderr) = output(privet(home.path()).args(files));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("cleartext") && stdout.contains("2pc") && stdout.contains("yes"), "{stdout}");
    assert!(stdout.lines().all(|line| line.chars().count() <= 120), "{stdout}");
}

#[test]
fn an_exported_architecture_is_a_model_like_any_other() {
    let home = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) =
        output(privet(home.path()).args(["export", "lenet", "-o", "l.onnx", "--seed", "5"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("[1, 1, 28, 28]"), "{stdout}");
    let plan = rows(home.path(), &["plan", "l.onnx"]);
    assert_eq!(plan[0]["parameters"], 431_080);
    // The file's rows are those of the architecture.
    let error = |model: &str| {
        let args =
            ["bench", "--exp", "inference_plaintext", "--models", model, "--iterations", "1", "--seed", "5"];
        let rows = rows(home.path(), &args);
        rows.iter()
            .map(|r| (r["engine"].clone(), r["max_abs_err"].clone(), r["ring"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(error("l.onnx"), error("lenet"));
}

/// And before anything is measured.
#[test]
fn wrong_usage_says_what_exists() {
    let home = tempfile::tempdir().unwrap();
    let suite = ["bench", "--exp", "inference_all", "--models", "lenet"];
    let cases: [(&[&str], i32, &str); 12] = [
        (&["bench", "--exp", "inference_some"], 2, "inference_all, inference_plaintext, micro"),
        (&["bench", "--exp", "inference_all", "--models", "lenet6"], 2, "alexnet-tiny"),
        (
            &["bench", "--exp", "inference_all", "--engine", "4pc"],
            2,
            "possible values: 2pc, fss, auto, 3pc, cleartext",
        ),
        (&["bench", "--exp", "inference_plaintext", "--engine", "2pc"], 2, "take --exp inference_all"),
        (&["bench", "--exp", "inference_plaintext", "--network", "lan"], 2, "cleartext sends nothing"),
        (&["bench", "--exp", "micro", "--models", "lenet"], 2, "leave out --models"),
        (&["bench", "--models", "lenet", "--elements", "9"], 2, "--elements belongs to --exp micro"),
        (
            &["compare", "--model", "m", "--input", "x", "--engines", "4pc"],
            2,
            "possible values: 2pc, fss, auto, 3pc, cleartext",
        ),
        (&["export", "lenet6", "-o", "x.onnx"], 2, "expected one of alexnet,"),
        (&["bench", "--exp", "kernels", "--plot", "x.svg"], 2, "leave out --plot"),
        (&[&suite[..], &["--plot", "x.pdf"]].concat(), 2, ".svg or .png"),
        (&[&suite[..], &["--plot", "nowhere/x.svg"]].concat(), 3, "nowhere/x.svg: cannot write there"),
    ];
    for (args, expected, message) in cases {
        let (code, stdout, stderr) = output(privet(home.path()).args(args));
        assert_eq!((code, stdout.as_str()), (Some(expected), ""), "{args:?}: {stderr}");
        assert!(stderr.contains(message), "{args:?}: {stderr}");
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

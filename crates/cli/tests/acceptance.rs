//! SqueezeNet on dog.jpg, as users run it: one command, and five started by hand.
//!
//! Reads `../shared/data` next to the checkout; skipped loudly where that is absent.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{finish, listening, output, privet, signal};
use nix::sys::signal::Signal;
use serde_json::Value;

fn data(test: &str) -> Option<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if data.is_dir() {
        return data.canonicalize().ok();
    }
    eprintln!("SKIPPED {test}: ../shared/data is absent");
    None
}

fn lowering(command: &mut Command, data: &Path) {
    command.arg("--labels").arg(data.join("images/synset_words.txt")).args(["--preprocess", "imagenet"]);
}

#[track_caller]
fn is_the_samoyed(stdout: &str) -> Value {
    assert_eq!(stdout.matches('\n').count(), 1, "one line on stdout");
    let result: Value = serde_json::from_str(stdout).unwrap();
    let best = &result["top"][0];
    assert_eq!(best["index"], 258);
    assert!(best["label"].as_str().unwrap().contains("Samoyed"), "{best}");
    let probability = best["probability"].as_f64().unwrap();
    assert!((probability - 0.666).abs() < 0.01, "{probability}");
    result
}

#[test]
fn one_command() {
    one_command_with("2pc", &["offline", "online"]);
}

#[test]
fn one_command_among_three_parties() {
    one_command_with("3pc", &["online"]);
}

fn one_command_with(engine: &str, phases: &[&str]) {
    let Some(data) = data("one_command") else { return };
    let home = tempfile::tempdir().unwrap();
    let mut run = privet(home.path());
    run.arg("run").arg("--model").arg(data.join("models/squeezenet1.1/squeezenet1.1_fp32.onnx"));
    run.arg("--input").arg(data.join("images/dog.jpg")).args(["--json", "--engine", engine]);
    lowering(&mut run, &data);
    let (code, stdout, stderr) = output(&mut run);
    assert_eq!(code, Some(0), "{stderr}");
    let result = is_the_samoyed(&stdout);
    assert_eq!(result["matches_cleartext"], true);
    assert!(result["max_abs_error_vs_float"].as_f64().unwrap() < 0.5);
    assert_eq!(result["outputs"]["logits"]["shape"], serde_json::json!([1, 1000]));
    for phase in phases {
        assert!(result[phase]["bytes_sent"].as_u64().unwrap() > 10 << 20, "{phase}");
    }
}

#[test]
fn five_commands() {
    let Some(data) = data("five_commands") else { return };
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let done = |command: &mut Command| {
        let (code, stdout, stderr) = output(command.current_dir(home));
        assert_eq!(code, Some(0), "{stderr}");
        stdout
    };
    let addresses = ["--server", "127.0.0.1:0", "--dealer", "127.0.0.1:0"];
    done(privet(home).args(["setup", "--out", "parties"]).args(addresses));
    let mut compile = privet(home);
    compile
        .arg("compile")
        .arg(data.join("models/squeezenet1.1/squeezenet1.1_fp32.onnx"))
        .args(["-o", "model"]);
    lowering(&mut compile, &data);
    done(&mut compile);
    let (dealer, dealer_at) = listening(home, &["dealer", "--config", "parties/dealer"]);
    let server = ["server", "--config", "parties/server", "--model", "model"];
    let offline = ["--dealer", &dealer_at, "offline", "--count", "1"];
    let (offline_server, server_at) = listening(home, &[&server[..], &offline].concat());
    let client = ["client", "--config", "parties/client", "--server"];
    done(privet(home).args(client).args([&server_at, "--dealer", &dealer_at, "offline", "--count", "1"]));
    assert_eq!(finish(offline_server).0, Some(0));
    signal(&dealer, Signal::SIGTERM);
    assert_eq!(finish(dealer).0, Some(0), "the dealer is gone before the online phase");
    let (server, server_at) = listening(home, &[&server[..], &["online", "--sessions", "1"]].concat());
    let dog = data.join("images/dog.jpg");
    let online = [&server_at, "online", "--json", "--input", dog.to_str().unwrap()];
    is_the_samoyed(&done(privet(home).args(client).args(online)));
    assert_eq!(finish(server).0, Some(0));
}

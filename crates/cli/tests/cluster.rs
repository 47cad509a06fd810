//! Three parties that compute on shares: one command, and every step by hand in a place of its own.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use common::{digits, finish, listening, lowering, output, privet, run_digits, signal, until};
use nix::sys::signal::Signal;
use serde_json::Value;

const PARTIES: [&str; 3] = ["party0", "party1", "party2"];

fn done(command: &mut Command) -> String {
    let (code, stdout, stderr) = output(command);
    assert_eq!(code, Some(0), "{stderr}");
    stdout
}

/// A cluster, a compiled model and shares of both digits, each party's in `PARTY/`, with the model's plan for everyone.
fn prepared(home: &Path) {
    let hosts = ["--host", "127.0.0.1:0"].repeat(3);
    let setup =
        done(privet(home).current_dir(home).args(["setup", "--parties", "3", "--out", "."]).args(hosts));
    assert_eq!(setup.matches("sha256:").count(), 3);
    let mut compile = privet(home);
    compile.current_dir(home).arg("compile").arg(digits("digits.onnx")).args(["-o", "model"]);
    lowering(&mut compile);
    done(compile.args(["--ring", "40", "--frac-bits", "15"]));
    let share = |args: &[&str]| {
        let common = ["--to", "cluster.toml", "--out", "shares"];
        done(privet(home).current_dir(home).arg("share").args(args).args(common))
    };
    let told = share(&["--model", "model"]);
    assert!(told.contains("shares/party1/weights.share: for party1 at 127.0.0.1:0 only"), "{told}");
    // The owner of an input has the public plan.
    for n in [3, 8] {
        share(&["--model", "model/plan.privet", digits(&format!("{n}.png")).to_str().unwrap()]);
    }
    for party in PARTIES {
        fs::rename(home.join("shares").join(party), home.join(party).join("shares")).unwrap();
    }
}

/// Starts the parties in turn, each in its directory.
fn started(home: &Path, inputs: &[&str]) -> [Child; 3] {
    let mut known: Vec<String> = Vec::new();
    PARTIES.map(|party| {
        let dir = home.join(party);
        let mut args = vec!["party", "--model", "shares"];
        args.extend(inputs.iter().flat_map(|input| ["--input", input]));
        args.extend(known.iter().flat_map(|peer| ["--peer", peer.as_str()]));
        if party == PARTIES[2] {
            return privet(home).current_dir(&dir).args(args).spawn().unwrap();
        }
        let (child, address) = listening(&dir, &args);
        known.push(format!("{party}={address}"));
        child
    })
}

#[test]
fn every_step_by_hand() {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path();
    prepared(home);
    for party in started(home, &["shares/3.share", "shares/8.share"]) {
        let (code, _, stderr) = finish(party);
        assert_eq!(code, Some(0), "{stderr}");
    }
    let reveal = |parties: &[&str], n: u32, args: &[&str]| {
        let shares = parties.iter().map(|party| format!("{party}/results/{n}.result.share"));
        output(privet(home).current_dir(home).args(["reveal", "--model", "model"]).args(shares).args(args))
    };
    let (code, stdout, stderr) = reveal(&PARTIES, 3, &["--json", "--output", "y.npy"]);
    assert_eq!(code, Some(0), "{stderr}");
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&answer["top"][0]["label"], &answer["ring"]), (&"three".into(), &40.into()));
    assert!(home.join("y.npy").exists());
    let (code, stdout, _) = reveal(&PARTIES[1..], 8, &[]);
    assert!(code == Some(0) && stdout.contains("eight"), "{stdout}");
    let (code, _, stderr) = reveal(&PARTIES[..1], 8, &[]);
    assert_eq!(code, Some(2), "one share says nothing: {stderr}");
    // Their weights and inputs never met in one place but their owners'.
    for party in PARTIES {
        let names = fs::read_dir(home.join(party).join("shares")).unwrap().map(|e| e.unwrap().file_name());
        let mut names: Vec<_> = names.map(|n| n.into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["3.share", "8.share", "plan.privet", "weights.share"]);
    }
}

#[test]
fn one_command() {
    let temp = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = output(run_digits(temp.path(), "5.png").args(["--engine", "3pc", "--json"]));
    assert_eq!(code, Some(0), "{stderr}");
    let result: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&result["engine"], &result["top"][0]["label"]), (&"3pc".into(), &"five".into()));
    assert_eq!(result["matches_cleartext"], true);
    let roles: Vec<&str> =
        result["parties"].as_array().unwrap().iter().map(|p| p["role"].as_str().unwrap()).collect();
    assert_eq!(roles, PARTIES);
    assert!(fs::read_dir(temp.path()).unwrap().next().is_none(), "nothing is left behind");
}

#[test]
fn a_killed_party_ends_the_others_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path();
    prepared(home);
    // Whoever waited for its deadline would do so for longer than a test may take.
    for party in PARTIES {
        let config = home.join(party).join("privet.toml");
        let text = fs::read_to_string(&config).unwrap();
        assert!(text.contains("wait_seconds = 120.0"), "{text}");
        fs::write(&config, text.replace("wait_seconds = 120.0", "wait_seconds = 3600.0")).unwrap();
    }
    // Many inferences, so that it dies in one.
    let inputs: Vec<String> = (0..200).map(|n| format!("shares/copy-{n}.share")).collect();
    for party in PARTIES.map(|party| home.join(party)) {
        for copy in &inputs {
            fs::copy(party.join("shares/3.share"), party.join(copy)).unwrap();
        }
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    for victim in 0..3 {
        let mut parties = started(home, &inputs);
        let first = home.join(PARTIES[victim]).join("results/copy-0.result.share");
        until("a first result", || first.exists());
        parties[victim].kill().unwrap();
        for (i, party) in parties.into_iter().enumerate() {
            let (code, _, stderr) = finish(party);
            if i != victim {
                assert_eq!(code, Some(4), "party {i}: {stderr}");
                assert!(stderr.contains("party"), "says who is gone: {stderr}");
            }
        }
        PARTIES.iter().for_each(|party| fs::remove_dir_all(home.join(party).join("results")).unwrap());
    }
}

#[test]
fn a_waiting_party_ends_with_ctrl_c() {
    let temp = tempfile::tempdir().unwrap();
    prepared(temp.path());
    let args = ["party", "--model", "shares", "--input", "shares/3.share"];
    let config = temp.path().join("party0/privet.toml");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("connect_seconds = 30.0"), "{text}");
    fs::write(&config, text.replace("connect_seconds = 30.0", "connect_seconds = 3600.0")).unwrap();
    let (child, _) = listening(&temp.path().join("party0"), &args);
    signal(&child, Signal::SIGINT);
    assert_ne!(finish(child).0, Some(0));
}

#[test]
fn mistakes_are_named() {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path();
    prepared(home);
    let refused = |dir: &str, args: &[&str], code: i32, expected: &str| {
        let (found, _, stderr) = output(privet(home).current_dir(home.join(dir)).args(args));
        assert_eq!(found, Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    };
    let one_host = ["setup", "--parties", "3", "--out", "x", "--host", "a:1"];
    refused(".", &one_host, 2, "--host: expected three times, found 1");
    let same = ["setup", "--parties", "3", "--out", "x", "--host", "a:1", "--host", "b:1", "--host", "a:1"];
    refused(".", &same, 2, "address a:1 is given twice");
    refused(".", &["setup", "--parties", "4", "--out", "x"], 2, "4 is not in 3..=3");
    refused(".", &["setup", "--out", "x", "--host", "a:1"], 2, "--parties");
    refused(".", &["setup", "--parties", "3", "--out", "x", "--client", "c"], 2, "cannot be used with");
    refused(".", &["setup", "--parties", "3", "--out", "."], 3, "already exists");
    let foreign = ["party", "--model", "shares", "--input", "../party1/shares/3.share"];
    refused("party0", &foreign, 3, "party 1's share, this is party 0");
    let unknown = ["party", "--model", "shares", "--input", "shares/3.share", "--peer", "party7=h:1"];
    refused("party0", &unknown, 2, "--peer party7: the configuration names");
    refused("party0", &["party", "--input", "shares/3.share"], 3, "plan.privet");
    refused(".", &["party", "--config", "model", "--input", "x.share"], 3, "make one with privet setup");
    let nowhere = ["share", "--model", "model", "--to", "none.toml", "--out", "x"];
    refused(".", &nowhere, 3, "none.toml");
    let outputs = ["reveal", "--model", "model", "party0/shares/3.share", "party1/shares/3.share"];
    refused(".", &outputs, 3, "a share of inputs, expected one of outputs");
    let twice = ["party", "--model", "shares", "--input", "shares/3.share", "--input", "./shares/3.share"];
    refused("party0", &twice, 3, "would be overwritten");
    let slash = ["share", "--model", "model", "--to", ".", "--out", "x", "--name", "a/b"];
    let picture = digits("3.png");
    refused(".", &[&slash[..], &[picture.to_str().unwrap()]].concat(), 2, "without a directory");
}

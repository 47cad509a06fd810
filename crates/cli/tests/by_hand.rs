//! Setup, compile, dealer, server and client, each started by hand in a place of its own.

mod common;

use std::fs;

use common::{digits, finish, listening, lowering, output, privet, signal};
use nix::sys::signal::Signal;
use serde_json::Value;

#[test]
fn three_parties_and_nothing_shared() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let setup = ["--server", "127.0.0.1:0", "--dealer", "127.0.0.1:0", "--client", "clinic"];
    let (code, stdout, stderr) =
        output(privet(home.path()).args(["setup", "--out", &at("parties")]).args(setup));
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout.matches("sha256:").count(), 3);
    let (code, _, stderr) = output(privet(home.path()).args(["setup", "--out", &at("parties")]).args(setup));
    assert_eq!(code, Some(3));
    assert!(stderr.contains("identities are never overwritten"), "{stderr}");
    // Every party moves to a host of its own.
    for (party, host) in [("dealer", "d"), ("server", "s"), ("clinic", "c")] {
        fs::create_dir(home.path().join(host)).unwrap();
        fs::rename(home.path().join("parties").join(party), home.path().join(host).join("party")).unwrap();
    }
    let mut compile = privet(home.path());
    compile.arg("compile").arg(digits("digits.onnx")).args(["-o", &at("s/model")]);
    lowering(&mut compile);
    let (code, stdout, stderr) = output(compile.args(["--ring", "40", "--frac-bits", "15"]));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("40-bit ring") && stdout.contains("private:"), "{stdout}");

    let (dealer, dealer_at) = listening(&home.path().join("d"), &["dealer", "--config", "party"]);
    let server_args = ["server", "--config", "party", "--model", "model", "--dealer", &dealer_at, "offline"];
    let (server, server_at) =
        listening(&home.path().join("s"), &[&server_args[..], &["--count", "2"]].concat());
    let client_home = home.path().join("c");
    let client = |args: &[&str]| output(privet(&client_home).current_dir(&client_home).args(args));
    let offline = ["client", "--config", "party", "--server", &server_at, "--dealer", &dealer_at];
    let (code, _, stderr) = client(&[&offline[..], &["offline", "--count", "2"]].concat());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("plan ") && stderr.contains("preprocessing"), "shows the plan: {stderr}");
    assert_eq!(finish(server).0, Some(0));
    signal(&dealer, Signal::SIGTERM);
    assert_eq!(finish(dealer).0, Some(0), "drains");

    let (code, stdout, stderr) = client(&["status", "--config", "party", "--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let status: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&status["role"], &status["unused"][0]["peer"]), (&"client".into(), &"server".into()));
    assert_eq!(status["unused"][0]["bundles"].as_array().unwrap().len(), 2);
    let (code, stdout, _) = client(&["status", "--config", "../s/party"]);
    assert!(code == Some(0) && stdout.contains("clinic") && stdout.contains(" 2"), "{stdout}");
    let (code, _, stderr) = client(&["status", "--config", "../d/party"]);
    assert_eq!(code, Some(3), "{stderr}");

    let (server, server_at) = listening(
        &home.path().join("s"),
        &["server", "--config", "party", "--model", "model", "online", "--sessions", "2"],
    );
    let online = ["client", "--config", "party", "--server", &server_at, "online", "--input"];
    let picture = |i: u32| digits(&format!("{i}.png")).to_str().unwrap().to_owned();
    let (code, stdout, stderr) =
        client(&[&online[..], &[&picture(3), "--json", "--output", "y.npy"]].concat());
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout.matches('\n').count(), 1);
    let result: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&result["top"][0]["label"], &result["ring"]), (&"three".into(), &40.into()));
    assert!(result["online"]["rounds"].as_u64().unwrap() > 0);
    assert!(client_home.join("y.npy").exists());
    let (code, stdout, stderr) = client(&[&online[..], &[&picture(8)]].concat());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("eight"), "{stdout}");
    assert_eq!(finish(server).0, Some(0), "two sessions are done");

    let (code, _, stderr) = client(&[&online[..], &[&picture(8)]].concat());
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("no one-time material is left"), "{stderr}");
    let (code, _, stderr) = client(&[&online[..], &[&picture(8), "--reveal-to", "both"]].concat());
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("does not allow"), "{stderr}");
    let (code, _, stderr) = client(&["client", "--config", "../s/party", "offline"]);
    assert_eq!(code, Some(3));
    assert!(stderr.contains("is the server's configuration, expected the client's"), "{stderr}");
}

#[test]
fn an_unreachable_peer_is_4() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("parties");
    let args = ["--server", "127.0.0.1:1", "--dealer", "127.0.0.1:1"];
    assert_eq!(output(privet(home.path()).args(["setup", "--out"]).arg(&out).args(args)).0, Some(0));
    let config = out.join("client/privet.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("connect_seconds = 30.0", "connect_seconds = 0.2")).unwrap();
    let (code, _, stderr) = output(privet(home.path()).args(["client", "offline", "--config"]).arg(&config));
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("127.0.0.1:1"), "{stderr}");
}

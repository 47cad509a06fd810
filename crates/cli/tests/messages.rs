//! What a user of workers and key services sees who has mistyped, mixed up or forgotten something: nothing listens, and the error
//! names the argument, what was expected and what to do.

mod common;
#[path = "common/home.rs"]
mod home;

use std::fs;
use std::net::TcpListener;

use common::digits;
use home::{Home, SAMPLE, own_measurement, policy};
use nix::sys::signal::Signal;

/// An owner, a sealed model of his and sealed stages, a key server's directory, and policies.
fn site() -> Home {
    let home = Home::new();
    home.ok("key new --id resnet --out owner");
    let model = digits("digits.onnx");
    home.ok(&format!("seal --model {} --key owner --out m.sealed", model.display()));
    home.ok(&format!("split --model {} --parts 3 --key owner --out stages", model.display()));
    home.ok("keyserver init --dir keys --listen 127.0.0.1:0 --name 127.0.0.1");
    home.ok("keyserver key add --dir keys --key owner");
    let own = own_measurement();
    fs::write(home.at("key.toml"), policy(&home.at("owner/release.toml"), &own, &own)).unwrap();
    home.ok("keyserver policy set --dir keys key.toml");
    let accepts = format!("version = 1\n[sample]\nallow_sample_insecure = true\nmeasurement = [\"{own}\"]\n");
    fs::write(home.at("worker.toml"), accepts).unwrap();
    fs::copy(model, home.at("m.onnx")).unwrap();
    home
}

/// A worker whose key server is not there: whatever is wrong with its arguments is found before that.
fn worker(more: &str) -> String {
    let from = "--keyserver 127.0.0.1:1 --server-certificate keys/tls.crt";
    format!("enclave --listen 127.0.0.1:0 --allow-swap --release owner/release.toml {from} {more} {SAMPLE}")
}

/// Fails with this code and these words, without having listened.
#[track_caller]
fn refused(home: &Home, code: i32, line: &str, words: &[&str]) {
    let (found, text) = home.run(line);
    assert_eq!(found, Some(code), "privet {line}: {text}");
    for word in words {
        assert!(text.contains(word), "privet {line}: expected {word:?} in {text}");
    }
    assert!(!text.contains("listening on"), "privet {line}: {text}");
}

#[test]
fn a_worker_listens_only_with_what_it_can_open() {
    let home = site();
    home.ok("key new --id resnet --out other");
    // The server is asked last: it is not there.
    let (code, text) = home.run(&worker("--sealed m.sealed"));
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("listening on") && text.contains("cannot connect to a key server"), "{text}");

    refused(
        &home,
        2,
        "enclave",
        &["(--sealed FILE | --stages DIR)", "(--keycache ADDRESS | --keyserver HOST:PORT)"],
    );
    let fails = |code, more: &str, words: &[&str]| refused(&home, code, &worker(more), words);
    fails(3, "--sealed nowhere", &["--sealed nowhere: there is no such file", "privet seal"]);
    fails(3, "--sealed stages", &["--sealed stages: this is a directory"]);
    fails(3, "--sealed m.onnx", &["--sealed m.onnx: not a sealed model, which privet seal makes"]);
    fails(3, "--sealed m.sealed --min-version 2", &["--sealed", "at least version 2"]);
    fails(3, "--stages nowhere", &["--stages nowhere: there is no such directory", "privet split --key"]);
    fails(3, "--stages m.sealed", &["--stages m.sealed: this is a file"]);
    fails(3, "--stages owner", &["--stages owner: expected a directory that privet split wrote"]);
    let other = worker("--sealed m.sealed").replace("owner/release.toml", "other/release.toml");
    refused(&home, 3, &other, &["--sealed m.sealed: not signed by the owner"]);
    let mixed = worker("--sealed m.sealed").replace("owner/release.toml", "worker.toml");
    refused(&home, 3, &mixed, &["--release worker.toml: not a release file of privet key new"]);
    // Without a release file the signature is what counts, and the name of the key.
    let text = fs::read_to_string(home.at("owner/release.toml")).unwrap();
    let key = text.lines().find(|line| line.starts_with("verifying_key")).unwrap().split('"').nth(1).unwrap();
    let by_key = |id: &str| {
        let parts = format!("--verifying-key {key} --key-id {id}");
        worker("--sealed m.sealed").replace("--release owner/release.toml", &parts)
    };
    refused(&home, 3, &by_key("vgg"), &["expected key vgg version 1, found key resnet version 1"]);
    let (code, text) = home.run(&by_key("resnet"));
    assert!(code == Some(4) && text.contains("listening on"), "{text}");

    // Workers of stages.
    fails(2, "--stages stages --stage 4", &["expected some of 1 to 3", "found stage 4"]);
    fails(2, "--stages stages --stage 2-5", &["found stages 2 to 5"]);
    fails(2, "--stages stages --stage 2", &["stage 2 of 3", "--clients policy.toml"]);
    fails(2, "--stages stages --stage 1", &["stage 1 of 3", "--next HOST:PORT", "--next-policy"]);
    let next = "--next 127.0.0.1:1 --next-policy worker.toml";
    fails(
        2,
        &format!("--stages stages --stage 3 --clients worker.toml {next}"),
        &["is the end of the model"],
    );
    let clients = |file: &str| format!("--stages stages --stage 3 --clients {file}");
    fails(3, &clients("nowhere"), &["--clients nowhere: there is no such file", "attestation policy"]);
    fails(
        3,
        &clients("key.toml"),
        &["--clients key.toml", "this is a key policy", "expected an attestation policy"],
    );
    fs::remove_file(home.at("stages/stage-03.sealed")).unwrap();
    fails(3, &clients("worker.toml"), &["--stages", "stage-03.sealed"]);

    // How the key's source is known.
    let from = "--server-certificate keys/tls.crt";
    let certificate = |with: &str| worker("--sealed m.sealed").replace(from, with);
    refused(
        &home,
        2,
        &certificate(""),
        &["--keyserver 127.0.0.1:1", "expected --server-certificate FILE", "--server-policy"],
    );
    let cache = certificate("").replace("--keyserver", "--keycache");
    refused(&home, 2, &cache, &["--keycache 127.0.0.1:1", "expected --server-certificate FILE"]);
    refused(
        &home,
        3,
        &certificate("--server-certificate nowhere"),
        &["--server-certificate nowhere: there is no such file"],
    );
    refused(&home, 3, &certificate("--server-certificate m.onnx"), &["--server-certificate m.onnx"]);
    refused(
        &home,
        3,
        &certificate("--server-policy key.toml"),
        &["--server-policy key.toml", "this is a key policy"],
    );

    // What attests, and the port.
    let honest = worker("--sealed m.sealed").replace(SAMPLE, "");
    let (code, text) = home.run(&honest);
    assert_eq!((code, text.matches("cannot attest").count()), (Some(1), 1), "{text}");
    assert!(text.contains("--allow-sample-insecure") && !text.contains("listening on"), "{text}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let busy = worker("--sealed m.sealed").replace("127.0.0.1:0", &address);
    refused(&home, 1, &busy, &["cannot listen on", &address]);
}

#[test]
fn whoever_asks_the_wrong_one_is_told_who_it_is() {
    let home = site();
    let (_server, keys) = home.start(&format!("keyserver serve --dir keys {SAMPLE}"));
    let from = format!("--keyserver {keys} --server-certificate keys/tls.crt");
    let rest = format!("--release owner/release.toml {from} --listen 127.0.0.1:0 --allow-swap {SAMPLE}");
    let (worker, address) = home.start(&format!("enclave --sealed m.sealed {rest}"));
    let (_last, last) =
        home.start(&format!("enclave --stages stages --stage 3 --clients worker.toml {rest}"));
    let ask = |address: &str| {
        let [picture, how] = ["7.png", "preprocess.toml"].map(|name| digits(name).display().to_string());
        format!("enclave ask {address} --policy worker.toml --input {picture} --preprocess {how} {SAMPLE}")
    };
    home.ok(&ask(&address));
    home.fails(4, &ask(&keys), "this is not a worker");
    home.fails(4, &ask(&last), "ask the worker that has the first stage");
    let fetch = format!("keyserver fetch {address} --key resnet --server-certificate keys/tls.crt {SAMPLE}");
    home.fails(4, &fetch, "this is not a key server or key cache");
    // Who does not speak TLS at all, and who says nothing.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = plain.local_addr().unwrap().to_string();
    let answering = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b""] {
            let (mut stream, _) = plain.accept().unwrap();
            let mut said = [0; 4096];
            assert!(stream.read(&mut said).unwrap() > 0);
            stream.write_all(answer).unwrap();
        }
    });
    home.fails(4, &ask(&other), "what it says is not TLS; is this the address and port of a worker?");
    home.fails(4, &ask(&other), "is this the address of a worker");
    answering.join().unwrap();
    home.fails(4, &ask(&other), "cannot connect to a worker");
    // What is missing is found before anyone is asked.
    home.fails(3, &ask("127.0.0.1:1").replace("7.png", "77.png"), "77.png: there is no such file");
    home.fails(3, &ask("127.0.0.1:1").replace("worker.toml", "key.toml"), "--policy key.toml");
    // Times are for people; programs get numbers as well.
    assert_eq!(worker.end(Signal::SIGTERM), Some(0));
    let said = String::from_utf8(home.said.lock().unwrap().clone()).unwrap();
    let line = said.lines().find(|line| line.contains("got the key")).unwrap();
    let at = line.split("until ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(privet::attest::parse_time(at).is_some() && at.ends_with('Z'), "{line}");
    assert!(!said.contains("s after 1970"), "{said}");
    let log = home.ok("keyserver audit list --dir keys");
    let entry: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert!(entry["time"].is_u64() && entry["time_utc"].as_str().unwrap().ends_with('Z'), "{entry}");
}

#[test]
fn kinds_of_policies_are_told_apart() {
    let home = site();
    for command in ["keyserver policy check", "keyserver policy set --dir keys"] {
        home.fails(3, &format!("{command} worker.toml"), "this is an attestation policy");
        home.fails(3, &format!("{command} owner/release.toml"), "expected a key policy");
        home.fails(3, &format!("{command} nowhere"), "there is no such file");
    }
    home.fails(3, "attest verify m.onnx --policy key.toml", "this is a key policy");
    home.fails(3, "manifest lint key.toml", "this is a key policy");
    home.fails(3, "manifest lint m.sealed", "this is not a text; expected a manifest");
    home.fails(3, "keyserver policy check m.sealed", "this is not a text; expected a policy in TOML");
    fs::write(home.at("typo.toml"), "version = 1\n[sgx]\nmrenclav = []\n").unwrap();
    home.fails(
        3,
        "attest verify m.onnx --policy typo.toml",
        "docs/attestation.md#policies describes the form",
    );
}

/// What is missing or damaged in the directories of a key server and a cache.
#[test]
fn directories_of_key_services_say_what_they_lack() {
    let home = site();
    let (list, serve) = ("keyserver key list --dir keys", format!("keyserver serve --dir keys {SAMPLE}"));
    let without = |name: &str, line: &str, words: &[&str]| {
        fs::rename(home.at(name), home.at("aside")).unwrap();
        refused(&home, 3, line, words);
        fs::rename(home.at("aside"), home.at(name)).unwrap();
    };
    without("keys/master.key", list, &["keys/master.key: not found", "put your copy there"]);
    without("keys/keys.redb", list, &["keys/keys.redb: not found; privet keyserver init makes it"]);
    without("keys/tls.key", &serve, &["keys/tls.key: not found; privet keyserver init makes it"]);
    without("keys/keyserver.toml", list, &["--dir names a directory that privet keyserver init has made"]);
    let store = fs::read(home.at("keys/keys.redb")).unwrap();
    for damaged in [&b""[..], b"garbage", &store[..1000]] {
        fs::write(home.at("keys/keys.redb"), damaged).unwrap();
        refused(
            &home,
            3,
            list,
            &["keys/keys.redb: this is not a store of privet keyserver, or it is damaged"],
        );
    }
    fs::write(home.at("keys/keys.redb"), store).unwrap();
    home.ok(list);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = format!("{serve} --listen {}", taken.local_addr().unwrap());
    refused(&home, 1, &busy, &["another process listens there: stop it, or give another --listen"]);

    let init = "keycache init --dir cache --server 127.0.0.1:1 --server-certificate";
    refused(&home, 3, &format!("{init} nowhere"), &["--server-certificate nowhere: there is no such file"]);
    refused(&home, 3, &format!("{init} m.sealed"), &["--server-certificate m.sealed"]);
    refused(&home, 2, &format!("{init} keys/tls.crt --listen 0.0.0.0:0"), &["--listen", "loopback address"]);
    let text = home.ok(&format!("{init} keys/tls.crt --listen 127.0.0.1:0"));
    assert!(text.contains("openssl req -x509") && text.contains("-out cache/tls.crt"), "{text}");
    let cache = format!("keycache serve --dir cache {SAMPLE} --sealing-key-file-insecure seal.key");
    refused(&home, 3, &cache, &["cache/policies: expected a policy, NAME.toml"]);
    fs::copy(home.at("key.toml"), home.at("cache/policies/key.toml")).unwrap();
    refused(&home, 3, &cache, &["cache/tls.key: not found", "openssl req -x509"]);
    let config = fs::read_to_string(home.at("cache/keycache.toml")).unwrap();
    for (from, to, word) in [
        ("127.0.0.1:0", "nonsense", "listen = \"nonsense\": expected HOST:PORT or unix:PATH"),
        ("127.0.0.1:1", "unix:x", "expected HOST:PORT of a key server"),
        ("policies =", "policy =", "docs/keys.md#files describes it"),
    ] {
        fs::write(home.at("cache/keycache.toml"), config.replace(from, to)).unwrap();
        refused(&home, 3, &cache, &["cache/keycache.toml: ", word]);
    }
    fs::write(home.at("cache/keycache.toml"), config).unwrap();
    let worker = format!(
        "enclave --sealed m.sealed --release owner/release.toml --keycache unix:cache/cache.sock {SAMPLE}"
    );
    refused(
        &home,
        4,
        &worker,
        &["--keycache unix:cache/cache.sock: there is no such socket", "privet keycache serve"],
    );
}

#[test]
fn a_server_warns_of_policies_that_nobody_satisfies() {
    let home = site();
    let warned = |options: &str| {
        let before = home.said.lock().unwrap().len();
        let (server, _) = home.start(&format!("keyserver serve --dir keys {options}"));
        assert_eq!(server.end(Signal::SIGTERM), Some(0));
        let said = home.said.lock().unwrap()[before..].to_vec();
        String::from_utf8(said).unwrap()
    };
    let text = warned("");
    assert!(
        text.contains("WARNING: no worker gets key resnet")
            && text.contains("WARNING: no cache is leased key resnet"),
        "{text}"
    );
    assert!(text.contains("--allow-sample-insecure"), "{text}");
    let text = warned(SAMPLE);
    assert!(!text.contains("WARNING"), "{text}");
}

//! `privet manifest`: this very program's manifests, and what lint says of them and of others.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use privet::keys::make_certificate;
use serde_json::Value;

fn privet(home: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_privet")).current_dir(home).args(words).output().unwrap()
}

fn stdout(home: &Path, words: &[&str]) -> String {
    let output = privet(home, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(home: &Path, words: &[&str], code: i32, with: &str) {
    let output = privet(home, words);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {error}");
    assert!(error.contains(with), "{words:?}: expected {with:?} in {error}");
}

const WORKER: [&str; 11] = [
    "manifest",
    "--role",
    "worker",
    "--sealed",
    "m.sealed",
    "--release",
    "owner/release.toml",
    "--keycache",
    "127.0.0.1:7400",
    "--server-certificate",
    "tls.crt",
];

/// What a worker reads.
fn files(home: &Path) {
    stdout(home, &["export", "lenet", "-o", "m.onnx"]);
    stdout(home, &["key", "new", "--id", "a", "--out", "owner"]);
    stdout(home, &["seal", "--model", "m.onnx", "--key", "owner", "--out", "m.sealed"]);
    make_certificate(home, &["localhost".to_owned()]).unwrap();
}

/// The arguments of a manifest are ones that this program knows: it misses files or an enclave, and nothing else.
fn knows_its_arguments(home: &Path, manifest: &toml::Table) {
    let argv = manifest["loader"]["argv"].as_array().unwrap();
    let argv: Vec<&str> = argv.iter().skip(1).filter_map(|word| word.as_str()).collect();
    let output = privet(home, &argv);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 3)), "{argv:?}: {error}");
}

/// Lints without findings but notes, and gives the manifest.
fn clean(home: &Path, file: &str) -> toml::Table {
    let said: Value = serde_json::from_str(&stdout(home, &["manifest", "lint", file, "--json"])).unwrap();
    assert_eq!((said["insecure"].as_u64(), said["weak"].as_u64()), (Some(0), Some(0)), "{said}");
    fs::read_to_string(home.join(file)).unwrap().parse().unwrap()
}

#[test]
fn a_worker_trusts_what_it_loads_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    files(home);
    let write = |out: &str, more: &[&str]| stdout(home, &[&WORKER[..], &["--out", out], more].concat());
    let said = write("one", &[]);
    assert!(said.contains("gramine-sgx-sign --manifest one/worker.manifest"), "{said}");
    write("two", &[]);
    let read = |file: &str| fs::read(home.join(file)).unwrap();
    assert_eq!(read("one/worker.manifest"), read("two/worker.manifest"), "the same bytes");

    let manifest = clean(home, "one/worker.manifest");
    let argv: Vec<&str> =
        manifest["loader"]["argv"].as_array().unwrap().iter().filter_map(|a| a.as_str()).collect();
    assert_eq!(argv[..4], ["privet", "enclave", "--sealed", "/model/m.sealed"]);
    knows_its_arguments(home, &manifest);
    assert!(!manifest["sgx"].as_table().unwrap().contains_key("allowed_files"));
    let trusted = manifest["sgx"]["trusted_files"].as_array().unwrap();
    let mounts = manifest["fs"]["mounts"].as_array().unwrap();
    assert_eq!(mounts.len(), trusted.len() + 1, "every file is mounted by itself, beside /tmp");
    let hash_of = |name: &str| {
        let entry = trusted.iter().find(|t| t["uri"].as_str().unwrap().ends_with(name));
        entry.unwrap_or_else(|| panic!("{name} in {trusted:?}"))["sha256"].as_str().unwrap().to_owned()
    };
    // Against an implementation that shares nothing with this one.
    for file in [home.join("m.sealed"), env!("CARGO_BIN_EXE_privet").into()] {
        let sum = Command::new("sha256sum").arg(&file).output().unwrap();
        let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
        assert_eq!(
            sum.split_whitespace().next(),
            Some(hash_of(file.file_name().unwrap().to_str().unwrap()).as_str())
        );
    }
    // More memory and threads are a larger enclave; other arguments go where they are asked for.
    let said = write("large", &["--memory", "3GiB", "--threads", "8", "--json", "--", "enclave", "--help"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["enclave_size_bytes"], 4u64 << 30);
    let large = clean(home, "large/worker.manifest");
    assert_eq!(large["loader"]["argv"].as_array().unwrap().len(), 3);
    assert!(large["sgx"]["max_threads"].as_integer() > manifest["sgx"]["max_threads"].as_integer());
}

#[test]
fn stages_say_how_much_memory_they_take() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    files(home);
    stdout(home, &["split", "--model", "m.onnx", "--parts", "2", "--key", "owner", "--out", "stages"]);
    let worker: Vec<&str> =
        WORKER.iter().map(|word| if *word == "--sealed" { "--stages" } else { *word }).collect();
    let worker: Vec<&str> =
        worker.into_iter().map(|word| if word == "m.sealed" { "stages" } else { word }).collect();
    stdout(home, &[&worker[..], &["--out", "w"]].concat());
    let manifest = clean(home, "w/worker.manifest");
    knows_its_arguments(home, &manifest);
    let text = manifest.to_string();
    assert!(text.contains("/stages/stage-01.sealed") && text.contains("/stages/stage-02.sealed"), "{text}");
    // Another owner's, none, and one that lacks a stage, which only a worker of other stages may.
    stdout(home, &["key", "new", "--id", "a", "--out", "other"]);
    let of = |from: &str, to: &'static str| -> Vec<&str> {
        worker.iter().map(|word| if *word == from { to } else { *word }).chain(["--out", "x"]).collect()
    };
    refused(home, &of("owner/release.toml", "other/release.toml"), 3, "the signature of the owner");
    refused(home, &of("stages", "owner"), 3, "no stages.signed in it");
    refused(home, &of("stages", "nowhere"), 3, "--stages nowhere: there is no such directory");
    fs::remove_file(home.join("stages/stage-02.sealed")).unwrap();
    refused(home, &of("stages", "stages"), 3, "stage-02.sealed");
    stdout(
        home,
        &[&of("stages", "stages")[..], &["--", "enclave", "--stages", "/stages", "--stage", "1"]].concat(),
    );
}

#[test]
fn servers_of_keys_have_encrypted_state() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::create_dir(home.join("state")).unwrap();
    let server = ["manifest", "--role", "keyserver", "--state", "state", "--out"];
    stdout(home, &[&server[..], &["server"]].concat());
    stdout(home, &[&server[..], &["init", "--", "keyserver", "init", "--dir", "/keys"]].concat());
    let (server, init) = (clean(home, "server/keyserver.manifest"), clean(home, "init/keyserver.manifest"));
    knows_its_arguments(home, &server);
    let mounts = |m: &toml::Table| m["fs"]["mounts"].clone();
    assert_eq!(mounts(&server), mounts(&init), "only the arguments differ");
    let mounts = mounts(&server);
    let state = mounts.as_array().unwrap().iter().find(|m| m["path"].as_str() == Some("/keys")).unwrap();
    assert_eq!(
        (state["type"].as_str(), state["key_name"].as_str()),
        (Some("encrypted"), Some("_sgx_mrsigner"))
    );

    stdout(
        home,
        &["keyserver", "init", "--dir", "keys", "--listen", "127.0.0.1:7300", "--name", "localhost"],
    );
    let cache =
        ["keycache", "init", "--server", "127.0.0.1:7300", "--server-certificate", "keys/tls.crt", "--dir"];
    stdout(home, &[&cache[..], &["unix"]].concat());
    stdout(home, &[&cache[..], &["cache", "--listen", "127.0.0.1:7400"]].concat());
    let of = |dir| ["manifest", "--role", "keycache", "--dir", dir, "--state", "state", "--out", "k"];
    for dir in ["unix", "cache"] {
        fs::write(home.join(dir).join("policies/a.toml"), "version = 1\nkey_id = \"a\"\nmodel_id = \"67e55044-10b1-426f-9247-bb680e5fe0c8\"\n[get]\nversion = 1\n[get.sgx]\nmrenclave = [\"aa\"]\n".replace("aa", &"aa".repeat(32))).unwrap();
    }
    refused(home, &of("unix"), 3, "not seen outside of the enclave");
    refused(home, &of("cache"), 3, "cache/tls.key: not found; a cache on a loopback address takes");
    make_certificate(&home.join("cache"), &["localhost".to_owned()]).unwrap();
    let policy = home.join("cache/policies/a.toml");
    fs::rename(&policy, home.join("a.toml")).unwrap();
    refused(home, &of("cache"), 3, "expected a policy, NAME.toml");
    fs::rename(home.join("a.toml"), &policy).unwrap();
    let nowhere = ["manifest", "--role", "keycache", "--dir", "cache", "--state", "nowhere", "--out", "k"];
    refused(
        home,
        &nowhere,
        3,
        "--state nowhere: there is no such directory; expected a directory of the host",
    );
    stdout(home, &of("cache"));
    let cache = clean(home, "k/keycache.manifest");
    knows_its_arguments(home, &cache);
    let text = cache.to_string();
    assert!(text.contains("/cache/policies/a.toml") && !text.contains("leases.sealed"), "{text}");
}

#[test]
fn unsafe_manifests_fail_with_lines_and_reasons() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let sample = include_str!("../../manifest/tests/unsafe.manifest.template");
    fs::write(home.join("bad.manifest.template"), sample).unwrap();
    let output = privet(home, &["manifest", "lint", "bad.manifest.template"]);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stdout);
    let line = sample.lines().position(|l| l.starts_with("sgx.debug")).unwrap() + 1;
    assert!(said.contains(&format!("bad.manifest.template:{line}: INSECURE: sgx.debug: ")), "{said}");
    let output = privet(home, &["manifest", "lint", "bad.manifest.template", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(said["insecure"].as_u64().unwrap() > 15 && said["weak"].as_u64().unwrap() > 15, "{said}");
    fs::write(home.join("no.toml"), "a = ").unwrap();
    refused(home, &["manifest", "lint", "no.toml"], 3, "line 1");
    refused(home, &["manifest", "lint", "nowhere"], 3, "nowhere");
}

#[test]
fn what_is_missing_or_misplaced_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    files(home);
    refused(home, &["manifest"], 2, "--role");
    refused(home, &["manifest", "--role", "worker", "--out", "o"], 2, "--keycache or --keyserver");
    let known = ["manifest", "--role", "worker", "--out", "o", "--keyserver", "a:1"];
    refused(home, &known, 2, "--release");
    let released = [&known[..], &["--release", "owner/release.toml"]].concat();
    refused(home, &released, 2, "--server-policy");
    refused(
        home,
        &[&released[..], &["--server-policy", "p"]].concat(),
        3,
        "--server-policy p: there is no such file",
    );
    let policed = [&released[..], &["--server-policy", "p.toml"]].concat();
    fs::write(
        home.join("p.toml"),
        "version = 1\n[sgx]\nmrenclave = [\"aa\"]\n".replace("aa", &"aa".repeat(32)),
    )
    .unwrap();
    refused(home, &policed, 2, "--sealed or --stages");
    // What a worker of this manifest would not open.
    let with = |from: &str, to: &'static str| -> Vec<&str> {
        WORKER.iter().map(|word| if *word == from { to } else { *word }).chain(["--out", "o"]).collect()
    };
    stdout(home, &["key", "new", "--id", "a", "--out", "other"]);
    refused(home, &with("m.sealed", "m.onnx"), 3, "not a sealed model, which privet seal makes");
    refused(home, &with("m.sealed", "nowhere"), 3, "--sealed nowhere: there is no such file");
    refused(home, &with("owner/release.toml", "other/release.toml"), 3, "not signed by the owner");
    refused(home, &with("owner/release.toml", "p.toml"), 3, "not a release file of privet key new");
    refused(home, &with("tls.crt", "p.toml"), 3, "expected a certificate in PEM, found none");
    refused(home, &[&WORKER[..], &["--dir", "d", "--out", "o"]].concat(), 2, "belongs to --role keycache");
    refused(home, &[&WORKER[..], &["--trust", "x", "--out", "o"]].concat(), 2, "FILE=PATH");
    refused(home, &[&WORKER[..], &["--binary", "m.sealed", "--out", "o"]].concat(), 3, "x86-64");
    refused(home, &["manifest", "--role", "keycache", "--out", "o"], 2, "--dir");
    refused(home, &["manifest", "--role", "keyserver", "--out", "o"], 2, "--state");
    stdout(home, &[&WORKER[..], &["--out", "o"]].concat());
    refused(home, &[&WORKER[..], &["--out", "o"]].concat(), 3, "cannot write o/worker.manifest");
}

#[test]
fn gramine_direct_runs_it() {
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|dir| dir.join("gramine-direct")).find(|f| f.is_file())
    });
    if found.is_none() {
        return eprintln!("SKIPPED: there is no gramine-direct on PATH, so the manifest was not run");
    }
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    files(home);
    stdout(home, &[&WORKER[..], &["--out", ".", "--", "--version"]].concat());
    // What the signing tool would fill in.
    let render = Command::new("gramine-manifest")
        .current_dir(home)
        .args(["worker.manifest", "worker.manifest"])
        .status();
    assert!(render.unwrap().success());
    let output = Command::new("gramine-direct").current_dir(home).arg("worker").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("privet "), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

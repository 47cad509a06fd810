//! Keys, sealing and unsealing as commands: files, refusals, and no byte of a key where it does not belong.

mod common;
#[cfg(target_os = "linux")]
#[path = "common/dumps.rs"]
mod dumps;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{digits, output, privet, signal};
use nix::sys::signal::Signal;
use privet::seal::{CONTENT_KEY_FILE, SIGNING_KEY_FILE};
use serde_json::Value;

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        fs::copy(digits("digits.onnx"), home.path().join("m.onnx")).unwrap();
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).unwrap()
    }

    /// Code, and all that was said.
    fn run(&self, args: &str) -> (Option<i32>, String) {
        let mut command = privet(self.path());
        command.current_dir(self.path()).args(args.split(' '));
        command.envs([("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full"), ("RUST_LIB_BACKTRACE", "full")]);
        let (code, stdout, stderr) = output(&mut command);
        (code, stdout + &stderr)
    }

    fn done(&self, args: &str) -> String {
        let (code, said) = self.run(args);
        assert_eq!(code, Some(0), "{args}: {said}");
        said
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// What a secret looks like: as it is, in hexadecimal of both cases, in Base64.
fn looks(secret: &[u8]) -> Vec<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
    let base64 = secret.chunks_exact(3).flat_map(|c| {
        let bits = u32::from_be_bytes([0, c[0], c[1], c[2]]);
        [18, 12, 6, 0].map(|shift| DIGITS[(bits >> shift) as usize & 63])
    });
    vec![secret.to_vec(), hex.clone().into_bytes(), hex.to_uppercase().into_bytes(), base64.collect()]
}

#[test]
fn a_model_is_sealed_and_comes_back() {
    let home = Home::new();
    let said =
        home.done("key new --id digits.v1 --out owner --model-id 67e55044-10b1-426f-9247-bb680e5fe0c8");
    assert!(said.contains("key digits.v1 version 1 of model 67e55044-10b1-426f-9247-bb680e5fe0c8"), "{said}");
    let said = home.done("seal --model m.onnx --key owner --out m.sealed --version 3 --json");
    let sealed: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(sealed["bytes"], home.read("m.onnx").len());
    assert_eq!(sealed["sealed_bytes"], home.read("m.sealed").len());
    assert_eq!(sealed["model_version"], 3);
    assert!(
        sealed["tensors"].as_u64().unwrap() >= 4 && sealed["peak_memory_bytes"].as_u64().unwrap() < 64 << 20
    );
    let said = home.done("unseal --in m.sealed --key owner --out back.onnx --min-version 3 --json");
    let unsealed: Value = serde_json::from_str(&said).unwrap();
    for same in ["digest", "bytes", "sealed_bytes", "tensors", "graph_bytes", "key_id", "model_id"] {
        assert_eq!(sealed[same], unsealed[same], "{same}");
    }
    assert!(home.read("back.onnx") == home.read("m.onnx"), "byte for byte");
    let mode = |name: &str| fs::metadata(home.path().join(name)).unwrap().permissions().mode() & 0o777;
    let modes =
        ["back.onnx", "m.sealed", "owner", "owner/content.key", "owner/signing.key", "owner/release.toml"];
    assert_eq!(modes.map(mode), [0o600, 0o644, 0o700, 0o600, 0o600, 0o644]);
    assert!(
        home.done("unseal --in m.sealed --key owner --out back.onnx").contains("unsealed: model 67e55044")
    );
    assert_eq!(home.names(), ["back.onnx", "m.onnx", "m.sealed", "owner"], "nothing else is left");
}

/// Replaces the model by one of one tensor of `size` bytes, almost all of it a hole in the file. Gives what is before the hole.
fn hollow_model(home: &Home, size: u32) -> u64 {
    let varint =
        |n: u32| [0, 7, 14, 21, 28].map(|s| (n >> s) as u8 & 127 | if s < 28 { 128 } else { 0 }).to_vec();
    let data = [&b"\x08"[..], &varint(size), b"\x10\x02\x42\x01w\x4a", &varint(size)].concat();
    let tensor = [&b"\x2a"[..], &varint(size + data.len() as u32), &data].concat();
    let head = [&b"\x3a"[..], &varint(size + tensor.len() as u32), &tensor].concat();
    fs::write(home.path().join("m.onnx"), &head).unwrap();
    let file = fs::OpenOptions::new().write(true).open(home.path().join("m.onnx")).unwrap();
    file.set_len(head.len() as u64 + u64::from(size)).unwrap();
    head.len() as u64
}

/// Ctrl-C, or the end of the session, while a model is sealed: what was written is removed.
#[test]
fn nothing_is_left_of_an_interrupted_seal() {
    let home = Home::new();
    hollow_model(&home, 400 << 20);
    home.done("key new --id k --out owner");
    let before = home.names();
    for how in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut command = privet(home.path());
        command.current_dir(home.path()).args(["seal", "--model", "m.onnx", "--key", "owner", "--out", "x"]);
        let mut child = command.spawn().unwrap();
        while home.names() == before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        signal(&child, how);
        let (code, _, said) = common::finish(child);
        // Where the machine was too slow to interrupt it, it was done.
        if code == Some(0) {
            eprintln!("SKIPPED: it was sealed before {how} came");
            fs::remove_file(home.path().join("x")).unwrap();
        } else {
            assert_eq!(code, Some(130), "{said}");
        }
        assert_eq!(home.names(), before, "{how}");
    }
}

/// A model of 200 MB.
#[test]
fn memory_does_not_grow_with_the_model() {
    let home = Home::new();
    let size: u32 = 200 << 20;
    let head = hollow_model(&home, size);
    home.done("key new --id k --out owner");
    for command in [
        "seal --model m.onnx --key owner --out m.sealed --json",
        "unseal --in m.sealed --key owner --out back --json",
    ] {
        let said: Value = serde_json::from_str(&home.done(command)).unwrap();
        assert_eq!((&said["tensors"], &said["graph_bytes"]), (&Value::from(1), &Value::from(head)));
        assert!(said["peak_memory_bytes"].as_u64().unwrap() <= 64 << 20, "{command}: {said}");
    }
    let end = fs::metadata(home.path().join("back")).unwrap().len();
    assert_eq!(end, head + u64::from(size));
}

#[test]
fn a_wrapped_key_opens_the_model_elsewhere() {
    let home = Home::new();
    home.done("key new --id digits --out owner");
    home.done("seal --model m.onnx --key owner --out m.sealed --chunk 64");
    home.done("key kek --out kek");
    home.done("key wrap --key owner --kek kek --out wrapped");
    home.done("key unwrap --in wrapped --kek kek --release owner/release.toml --out worker");
    home.done("unseal --in m.sealed --key worker --out back.onnx");
    assert!(home.read("back.onnx") == home.read("m.onnx"));
    // The worker can open, not sign.
    let (code, said) = home.run("seal --model m.onnx --key worker --out m2.sealed");
    assert!(code == Some(3) && said.contains("signing.key"), "{said}");
    home.done("key kek --out kek2");
    let (code, said) = home.run("key unwrap --in wrapped --kek kek2 --release owner/release.toml --out w2");
    assert!(code == Some(3) && said.contains("another key-encryption key than kek2"), "{said}");
}

#[test]
fn what_is_wrong_is_refused_and_leaves_nothing() {
    let home = Home::new();
    home.done("key new --id one --out one");
    home.done("key new --id two --out two");
    home.done("seal --model m.onnx --key one --out m.sealed --version 2");
    fs::write(home.path().join("text.onnx"), "not a model").unwrap();
    let mut cut = home.read("m.sealed");
    cut.truncate(cut.len() - 1);
    fs::write(home.path().join("cut"), cut).unwrap();
    let mut flipped = home.read("m.sealed");
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    fs::write(home.path().join("flipped"), flipped).unwrap();
    let before = home.names();
    let cases = [
        ("key new --id one --out one", 3, "one/content.key already exists: keys are never overwritten"),
        ("key new --id a/b --out three", 2, "expected 1 to 64 letters, digits"),
        ("key new --id a --out three --model-id 7", 2, "expected a UUID"),
        (
            "seal --model m.onnx --key none --out x.sealed",
            3,
            "--key none: there is no such directory; expected a directory that privet key new",
        ),
        ("seal --model none.onnx --key one --out x.sealed", 3, "--model none.onnx: there is no such file"),
        ("seal --model text.onnx --key one --out x.sealed", 3, "not an ONNX file"),
        ("seal --model m.onnx --key one --out m.onnx", 3, "choose another name"),
        ("seal --model m.onnx --key one --out x.sealed --version 0", 2, "--version"),
        ("seal --model m.onnx --key one --out x.sealed --chunk 100", 2, "expected 64, 128, 256, 512 or 1024"),
        ("unseal --in m.sealed --key two --out x.onnx", 3, "not signed by the owner"),
        ("unseal --in m.sealed --key one --out x.onnx --min-version 3", 3, "at least version 3 is required"),
        ("unseal --in cut --key one --out x.onnx", 3, "cut off"),
        ("unseal --in flipped --key one --out x.onnx", 3, "not what the owner sealed"),
        ("unseal --in m.onnx --key one --out x.onnx", 3, "not a sealed model"),
        ("plan m.sealed", 3, "m.sealed: a sealed model; open it first: privet unseal"),
        (
            "seal --model m.onnx --key one --out none/x",
            3,
            "none/x: there is no directory none; make it first",
        ),
        ("unseal --in m.sealed --key one --out none/x.onnx", 3, "none/x.onnx: there is no directory none"),
        ("unseal --in m.sealed --key /tmp --out x.onnx", 3, "expected a directory that privet key new"),
        ("key new --id=-a --out three", 2, "not starting with '.' or '-'"),
        ("key wrap --key one --kek m.onnx --out w", 3, "chmod 600 m.onnx"),
        ("key wrap --key one --kek none --out w", 3, "--kek none: there is no such file"),
        (
            "key unwrap --in text.onnx --kek m.onnx --release one/release.toml --out three",
            3,
            "text.onnx: not a wrapped key of privet key wrap",
        ),
    ];
    for (args, code, message) in cases {
        let (found, said) = home.run(args);
        assert!(found == Some(code) && said.contains(message), "{args}: {found:?} {said}");
    }
    assert_eq!(home.names(), before);
}

#[test]
fn no_key_is_said_listed_or_written_elsewhere() {
    let home = Home::new();
    let mut said = vec![home.done("key new --id digits --out owner")];
    said.push(home.done("seal --model m.onnx --key owner --out m.sealed"));
    said.push(home.done("seal --model m.onnx --key owner --out m2.sealed --json"));
    said.push(home.done("key kek --out kek"));
    said.push(home.done("key wrap --key owner --kek kek --out wrapped"));
    said.push(home.done("key unwrap --in wrapped --kek kek --release owner/release.toml --out worker"));
    said.push(home.done("unseal --in m.sealed --key worker --out back.onnx --json"));
    let key_of = |file: &str| home.read(&format!("owner/{file}"))[10..42].to_vec();
    let secrets = [key_of(CONTENT_KEY_FILE), key_of(SIGNING_KEY_FILE), home.read("kek")];
    // Failures: damaged, foreign, cut, readable and misplaced keys.
    let content = home.path().join("worker/content.key");
    let good = fs::read(&content).unwrap();
    for damaged in [
        &good[..41],
        &[&good[..49], &[0]].concat(),
        &[&good[1..], &[0]].concat(),
        &[&good[..], b"x"].concat(),
    ] {
        fs::write(&content, damaged).unwrap();
        let (code, text) = home.run("unseal --in m.sealed --key worker --out x.onnx");
        assert_eq!(code, Some(3), "{text}");
        said.push(text);
    }
    fs::write(&content, &good).unwrap();
    fs::set_permissions(&content, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(home.path().join("worker/release.toml"), [b"key = ".to_vec(), good.clone()].concat()).unwrap();
    fs::copy(&content, home.path().join("content-as-kek")).unwrap();
    let failing = [
        "unseal --in m.sealed --key worker --out x.onnx",
        "unseal --in owner/content.key --key owner --out x.onnx",
        "seal --model owner/content.key --key owner --out x.sealed",
        "key wrap --key owner --kek owner/content.key --out x.wrapped",
        "key wrap --key owner --kek content-as-kek --out x.wrapped",
        "key unwrap --in owner/content.key --kek kek --release owner/release.toml --out x",
        "key unwrap --in wrapped --kek kek --release owner/content.key --out x",
        "key unwrap --in wrapped --kek owner/content.key --release owner/release.toml --out x",
    ];
    for args in failing {
        let (code, text) = home.run(args);
        assert_eq!(code, Some(3), "{args}: {text}");
        said.push(text);
    }
    said.push(home.names().join("\n"));
    let holders = [
        "owner/content.key",
        "owner/signing.key",
        "kek",
        "worker/content.key",
        "worker/release.toml",
        "content-as-kek",
    ];
    let mut files = Vec::new();
    for dir in [".", "owner", "worker"] {
        for entry in fs::read_dir(home.path().join(dir)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(home.path().join(".")).unwrap_or(&path).to_owned();
            let is_holder = holders.iter().any(|h| path.ends_with(h));
            if path.is_file() && !is_holder {
                files.push((name, fs::read(path).unwrap()));
            }
        }
    }
    assert!(files.len() >= 5, "{:?}", files.iter().map(|f| &f.0).collect::<Vec<_>>());
    let mut found = 0;
    for secret in &secrets {
        for look in looks(secret) {
            let has = |text: &[u8]| text.windows(look.len()).any(|w| w == look);
            for text in &said {
                assert!(!has(text.as_bytes()), "a key is said: {text}");
            }
            for (name, bytes) in &files {
                assert!(!has(bytes), "a key is in {}", name.display());
            }
            found += holders.iter().filter(|h| has(&home.read(h))).count();
        }
    }
    assert!(found >= 3, "the keys are where they belong");
}

/// A process that holds keys is not dumped: neither by the limit nor by the kernel's pipe.
#[cfg(target_os = "linux")]
#[test]
fn commands_that_hold_keys_leave_no_core_dump() {
    let home = dumps::Ordinary::new();
    home.ok("key new --id digits --out owner");
    // A model that never ends keeps the command busy: it waits for the writer of this pipe.
    assert!(std::process::Command::new("mkfifo").arg(home.path().join("pipe")).status().unwrap().success());
    home.give("pipe");
    home.assert_not_dumped("seal --model pipe --key owner --out x");
}

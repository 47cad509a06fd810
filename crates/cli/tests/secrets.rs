//! Nothing secret in what the processes say, whether they work or fail, or in another party's directory.
//!
//! Real processes with recognisable inputs, the digits model's weights, the seeds and keys of their state. All that they
//! write to stdout and stderr, with `--events` and with everything asked for in the environment that makes Rust programs talk,
//! is searched for these values as numbers, as bytes, and as hexadecimal, base64 or printed bytes.
//!
//! What is looked for is not found by chance, in keys, masks and fingerprints that differ with every run: numbers have eight digits
//! and stand by themselves, integers come in pairs as they lie in memory, and what was measured is not looked at. A megabyte of
//! random bytes holds one of 200 things of 8 bytes with a probability of 2^(20 + 8 - 64).

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::{PATIENCE, digits, finish, lowering, privet, signal};
use nix::sys::signal::Signal;

const FRAC_BITS: u32 = 24;

/// Values to be found nowhere but at their owner's.
#[derive(Default)]
struct Secrets {
    /// What it is, and how it may look.
    looks: Vec<(String, Vec<u8>)>,
}

/// Whether digits found at `at` are a number of their own, and no part of a longer one: the six hexadecimal digits of an
/// input are found in some fingerprint every hundredth run. A prefix `0x` and leading zeros belong to the number.
fn whole_number(text: &[u8], at: usize, len: usize) -> bool {
    let before = text[..at].iter().rposition(|&b| b != b'0').map_or(&text[..0], |last| &text[..=last]);
    let prefixed = before.ends_with(b"0x");
    let starts = prefixed || !before.last().is_some_and(u8::is_ascii_alphanumeric);
    starts && !text.get(at + len).is_some_and(u8::is_ascii_alphanumeric)
}

impl Secrets {
    /// A float and its fixed-point integer, in digits.
    fn number(&mut self, what: &str, float: Option<f32>, fixed: i64) {
        let text = [Some(fixed.to_string()), float.map(|float| float.to_string())];
        self.looks.extend(text.into_iter().flatten().map(|t| (format!("{what}: {t}"), t.into_bytes())));
        let hexadecimal = format!("{fixed:x}");
        // Without a letter it is another number's decimal.
        if hexadecimal.bytes().any(|digit| digit.is_ascii_alphabetic()) {
            self.looks.push((format!("{what}, hexadecimal"), hexadecimal.into_bytes()));
        }
    }

    /// Neighbours as bytes. One alone is three bytes and five zeros, which is how many a field ends.
    fn neighbours<const N: usize>(&mut self, what: &str, values: [[u8; N]; 2]) {
        self.looks.push((what.to_owned(), values.concat()));
    }

    /// Bytes as they are, in hexadecimal, and as Rust prints them.
    fn bytes(&mut self, what: &str, bytes: &[u8]) {
        let hexadecimal: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
        for look in [bytes.to_vec(), hexadecimal.into_bytes(), list.join(", ").into_bytes()] {
            self.looks.push((what.to_owned(), look));
        }
    }

    fn assert_absent(&self, place: &str, text: &[u8]) {
        for (what, look) in &self.looks {
            assert!(look.len() >= 6, "{what} is too short to be recognised");
            let digits = look.iter().all(u8::is_ascii_hexdigit) && look.len() < 32;
            let found = text.windows(look.len()).enumerate().filter(|(_, w)| w == look);
            let mut found = found.filter(|(at, _)| !digits || whole_number(text, *at, look.len()));
            if let Some((at, _)) = found.next() {
                let around = String::from_utf8_lossy(&text[at.saturating_sub(80)..(at + 80).min(text.len())]);
                panic!("{place}: {what} in {around:?}");
            }
        }
    }
}

/// A directory in which all processes' words are kept.
struct Home {
    dir: tempfile::TempDir,
    said: usize,
}

impl Home {
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&mut self, args: &[&str]) -> (Command, PathBuf) {
        let mut command = privet(self.dir.path());
        command.current_dir(self.dir.path()).args(args);
        command.envs([("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full"), ("RUST_LIB_BACKTRACE", "full")]);
        self.said += 1;
        let words = self.at(&format!("said-{}", self.said));
        let open = |suffix| File::create(words.with_extension(suffix)).unwrap();
        command.stdout(open("out")).stderr(open("err"));
        (command, words)
    }

    /// Runs to the end; the code and what it said.
    fn run(&mut self, args: &[&str]) -> (Option<i32>, String) {
        let (mut command, words) = self.command(args);
        let (code, ..) = finish(command.spawn().unwrap());
        let read = |suffix| String::from_utf8(fs::read(words.with_extension(suffix)).unwrap()).unwrap();
        (code, read("out") + &read("err"))
    }

    /// Starts a party that listens; its address.
    fn listening(&mut self, args: &[&str]) -> (Child, String) {
        let (mut command, words) = self.command(args);
        let mut child = command.arg("--events").spawn().unwrap();
        let start = Instant::now();
        loop {
            let events = fs::read_to_string(words.with_extension("out")).unwrap();
            let complete = events.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let address = |line: &str| {
                let event: serde_json::Value = serde_json::from_str(line).ok()?;
                Some(event["address"].as_str()?.to_owned())
            };
            if let Some(address) = complete.into_iter().find_map(address) {
                return (child, address);
            }
            assert!(child.try_wait().unwrap().is_none() && start.elapsed() < PATIENCE, "{events}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Files below a directory.
    fn files(&self, name: &str) -> Vec<PathBuf> {
        let (mut files, mut open) = (Vec::new(), vec![self.at(name)]);
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { open.push(path) } else { files.push(path) }
            }
        }
        files
    }

    fn bundles(&self, party: &str) -> Vec<PathBuf> {
        let mut files = self.files(&format!("parties/{party}/state"));
        files.retain(|f| f.extension().is_some_and(|e| e == "bundle"));
        files
    }
}

/// The inputs: 64 numbers between 0.6 and 1, whose integers have eight digits.
fn inputs() -> Vec<f32> {
    let integer = |i: u32| 10_100_000 + (i.wrapping_mul(2_654_435_761) >> 8) / 8 * 3;
    (1..=64).map(|i| integer(i) as f32 / (1u32 << FRAC_BITS) as f32).collect()
}

/// What a process said, but for what it measured: times have as many digits as what is looked for.
fn without_measures(said: &[u8]) -> Vec<u8> {
    const MEASURED: [&str; 5] =
        ["seconds", "cpu_seconds", "microseconds", "peak_memory_bytes", "wire_bytes_sent"];
    fn strip(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                fields.retain(|name, value| !MEASURED.contains(&name.as_str()) || value.is_string());
                fields.values_mut().for_each(strip);
            }
            serde_json::Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let line = |line: &[u8]| match serde_json::from_slice::<serde_json::Value>(line) {
        Ok(mut event) if event.is_object() => {
            strip(&mut event);
            event.to_string().into_bytes()
        }
        _ => line.to_vec(),
    };
    said.split(|&b| b == b'\n').map(line).collect::<Vec<_>>().join(&b'\n')
}

fn npy(values: &[f32], shape: &str) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    bytes.extend((padded as u16).to_le_bytes());
    bytes.extend(format!("{header:width$}\n", width = padded - 1).into_bytes());
    values.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
    bytes
}

/// Seed and epoch of a bundle: its header ends in `epoch 16 bytes, ring u8, seed 16 bytes`.
fn header(bundle: &Path) -> ([u8; 16], [u8; 16]) {
    let bytes = fs::read(bundle).unwrap();
    let end = 14 + u32::from_le_bytes(bytes[10..14].try_into().unwrap()) as usize;
    (bytes[end - 16..end].try_into().unwrap(), bytes[end - 33..end - 17].try_into().unwrap())
}

/// What follows a name in a database, wherever it does, if it looks like a seed: one of 2^40 has fewer than eight different bytes.
fn after(file: &Path, name: &[u8; 16]) -> Vec<[u8; 16]> {
    let bytes = fs::read(file).unwrap();
    let places = bytes.windows(16).enumerate().filter(|(_, w)| w == name).map(|(at, _)| at + 16);
    let seeds = places.filter_map(|at| <[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok());
    seeds.filter(|seed| BTreeSet::from(*seed).len() >= 8).collect()
}

/// The integers of a weights file.
fn weights(file: &Path) -> Vec<i64> {
    let bytes = fs::read(file).unwrap();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[start..].chunks_exact(8).map(|lane| i64::from_le_bytes(lane.try_into().unwrap())).collect()
}

#[test]
fn numbers_are_found_by_themselves_only() {
    let mut secrets = Secrets::default();
    secrets.number("n", None, 0x9c_b534);
    let found = |text: &str| {
        let all = |(_, look): &(String, Vec<u8>)| {
            let at = text.as_bytes().windows(look.len()).position(|w| w == look);
            at.is_some_and(|at| whole_number(text.as_bytes(), at, look.len()))
        };
        secrets.looks.iter().any(all)
    };
    for text in ["9cb534", "[1, 0x9cb534]", "x: 10270004", "0000000a 009cb534.", "[9, 10270004, 3]"] {
        assert!(found(text), "{text}");
    }
    let said = br#"{"event":"report","bytes":10270004,"work":[{"seconds":0.010270004}]}"#;
    assert!(found(&String::from_utf8(without_measures(said)).unwrap()), "bytes are counted");
    let said = br#"{"event":"report","seconds":1.010270004,"work":[{"seconds":0.010270004}]}"#;
    assert!(!found(&String::from_utf8(without_measures(said)).unwrap()), "time is measured");
    for text in ["sha256:a9cb534e", "cafe009cb534 ", "1760010270004", "10270004s"] {
        assert!(!found(text), "{text}");
    }
}

#[test]
fn no_process_says_or_keeps_what_is_another_s() {
    let mut home = Home { dir: tempfile::tempdir().unwrap(), said: 0 };
    fs::create_dir(home.at("patients")).unwrap();
    let write = |home: &Home, name: &str, bytes: &[u8]| {
        let path = home.at("patients").join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let x = inputs();
    let good = write(&home, "jane-doe.npy", &npy(&x, "1, 1, 8, 8"));
    let misshapen = write(&home, "john-doe.npy", &npy(&x, "1, 64"));
    let huge: Vec<f32> = x.iter().map(|v| v * 1e24).collect();
    let huge = write(&home, "max-doe.npy", &npy(&huge, "1, 1, 8, 8"));
    let words = x.iter().map(|v| format!("{v}mmHg")).collect::<Vec<_>>().join(",");
    let words = write(&home, "erika-doe.csv", words.as_bytes());
    let truncated = write(&home, "hans-doe.npy", &npy(&x[..60], "1, 1, 8, 8"));
    let loopback = ["--server", "127.0.0.1:0", "--dealer", "127.0.0.1:0"];
    assert_eq!(home.run(&[&["setup", "--out", "parties"][..], &loopback].concat()).0, Some(0));
    let (mut compile, _) = home.command(&["compile", "-o", "model", "--ring", "64", "--frac-bits", "24"]);
    lowering(compile.arg(digits("digits.onnx")));
    assert_eq!(finish(compile.spawn().unwrap()).0, Some(0));

    // One inference, and another bundle in stock.
    let (dealer, dealer_at) = home.listening(&["dealer", "--config", "parties/dealer"]);
    let server = ["server", "--config", "parties/server", "--model", "model"];
    let offline = [&server[..], &["--dealer", &dealer_at, "offline", "--count", "3"]].concat();
    let (offline_server, server_at) = home.listening(&offline);
    let client = ["client", "--config", "parties/client", "--server", &server_at];
    let fetch = [&client[..], &["--dealer", &dealer_at, "offline", "--count", "3", "--events"]].concat();
    let (code, said) = home.run(&fetch);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(finish(offline_server).0, Some(0));
    signal(&dealer, Signal::SIGTERM);
    assert_eq!(finish(dealer).0, Some(0));
    let mut seeds: Vec<(&str, [u8; 16])> = Vec::new();
    for party in ["client", "server"] {
        let bundles = home.bundles(party);
        assert_eq!(bundles.len(), 3, "{party}");
        seeds.extend(bundles.iter().map(|b| (party, header(b).0)));
    }
    let (_, epoch) = header(&home.bundles("server")[0]);
    let masks = after(&home.at("parties/server/state/state.redb"), &epoch);
    assert!(!masks.is_empty(), "the server keeps the seed of its weights' mask");

    let (online_server, server_at) = home.listening(&[&server[..], &["online"]].concat());
    let client = ["client", "--config", "parties/client", "--server", &server_at, "online", "--input"];
    let (code, said) = home.run(&[&client[..], &[&good, "--events"]].concat());
    assert_eq!(code, Some(0), "{said}");
    // Failures at the client: inputs of the wrong shape, size and kind, a damaged bundle.
    for (input, expected) in
        [(&misshapen, "shape"), (&huge, "needs"), (&words, "not a number"), (&truncated, "npy")]
    {
        let (code, said) = home.run(&[&client[..], &[input, "--events"]].concat());
        assert!(code != Some(0) && said.contains(expected), "{said}");
    }
    for bundle in home.bundles("client") {
        let mut bytes = fs::read(&bundle).unwrap();
        let middle = bytes.len() * 2 / 3;
        bytes[middle] ^= 1;
        fs::write(&bundle, bytes).unwrap();
    }
    for _ in 0..2 {
        let (code, said) = home.run(&[&client[..], &[&good, "--events"]].concat());
        assert!(code != Some(0), "a damaged bundle: {said}");
    }
    signal(&online_server, Signal::SIGTERM);
    let _ = finish(online_server);
    // Failures at the server: damaged weights, a damaged key.
    let mut secrets = Secrets::default();
    let weights = weights(&home.at("model/weights.safetensors"));
    for (i, value) in weights.iter().enumerate().filter(|(_, v)| v.abs() >= 10_000_000) {
        secrets.number(&format!("weight {i}"), None, *value);
    }
    let pairs = weights.windows(2).enumerate().filter(|(_, pair)| pair.iter().all(|v| v.abs() >= 1_000_000));
    for (i, pair) in pairs.step_by(40) {
        secrets.neighbours(&format!("weights {i} and next"), [pair[0], pair[1]].map(i64::to_le_bytes));
    }
    assert!(secrets.looks.len() > 100, "too few weights: {}", secrets.looks.len());
    let key = fs::read_to_string(home.at("parties/server/identity.key")).unwrap();
    let file = home.at("model/weights.safetensors");
    let bytes = fs::read(&file).unwrap();
    let damaged =
        [bytes[..bytes.len() - 5].to_vec(), [&bytes[..20], &bytes[21..]].concat(), bytes[16..].to_vec()];
    for damaged in damaged {
        fs::write(&file, &damaged).unwrap();
        let (code, said) = home.run(&[&server[..], &["online"]].concat());
        assert!(code != Some(0), "{said}");
    }
    fs::write(home.at("parties/server/identity.key"), key.replacen("MC", "M?", 1)).unwrap();
    let (code, said) = home.run(&[&server[..], &["online"]].concat());
    assert!(code != Some(0), "{said}");

    // What nobody may say.
    let fixed = |v: f32| (f64::from(v) * f64::from(1u32 << FRAC_BITS)) as i64;
    x.iter().enumerate().for_each(|(i, &v)| secrets.number(&format!("input {i}"), Some(v), fixed(v)));
    for (i, pair) in x.windows(2).enumerate() {
        let [a, b] = [pair[0], pair[1]];
        secrets.neighbours(&format!("inputs {i} and next, floats"), [a, b].map(f32::to_le_bytes));
        secrets.neighbours(&format!("inputs {i} and next"), [fixed(a), fixed(b)].map(i64::to_le_bytes));
    }
    for (party, seed) in &seeds {
        secrets.bytes(&format!("a seed of the {party}"), seed);
    }
    masks.iter().for_each(|seed| secrets.bytes("the seed of the weights' mask", seed));
    for party in ["dealer", "server", "client"] {
        let pem = if party == "server" {
            key.clone()
        } else {
            fs::read_to_string(home.at(&format!("parties/{party}/identity.key"))).unwrap()
        };
        let line = pem.lines().nth(1).unwrap();
        assert!(line.len() >= 32, "{pem}");
        // What is left of it has to be hidden even where a part was damaged.
        secrets.looks.push((format!("the key of the {party}"), line.as_bytes()[16..].to_vec()));
    }
    let mut searched = 0;
    for n in 1..=home.said {
        for suffix in ["out", "err"] {
            let text = fs::read(home.at(&format!("said-{n}")).with_extension(suffix)).unwrap();
            searched += text.len();
            let text = without_measures(&text);
            secrets.assert_absent(&format!("said-{n}.{suffix}"), &text);
            let name = b"jane-doe";
            assert!(!text.windows(name.len()).any(|w| w == name), "said-{n}.{suffix} names the input");
        }
    }
    // Some 7,600: progress is told now and then, not for every instruction.
    assert!(searched > 6_000, "the processes said {searched} bytes only");

    // What is kept where it does not belong.
    let of = |what: &[&str]| {
        let chosen = secrets.looks.iter().filter(|(name, _)| what.iter().any(|w| name.contains(w)));
        // Only raw bytes and text are written to files; short numbers are found anywhere.
        Secrets { looks: chosen.filter(|(_, look)| look.len() >= 8).cloned().collect() }
    };
    let foreign = [
        ("dealer", of(&["input", "weight", "the key of the server", "the key of the client"])),
        ("server", of(&["input", "a seed of the client", "the key of the dealer", "the key of the client"])),
        ("client", of(&["weight", "a seed of the server", "the key of the dealer", "the key of the server"])),
    ];
    for (party, mut foreign) in foreign {
        // The dealer draws λ_W's seed, and keeps it.
        foreign.looks.retain(|(name, _)| party != "dealer" || !name.contains("mask"));
        assert!(foreign.looks.len() > 100, "{party}");
        for file in home.files(&format!("parties/{party}")) {
            foreign.assert_absent(&file.display().to_string(), &fs::read(&file).unwrap());
        }
    }
}

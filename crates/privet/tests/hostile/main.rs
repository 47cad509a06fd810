//! Hostile bytes: every parser comes back from every file of the committed corpora and from mutations of them, without a
//! panic, soon, and with memory in proportion to the file. `fuzz/` drives the same functions by coverage.
//!
//! `PRIVET_WRITE_CORPUS=1` writes what this version's writers make into `fuzz/corpus`.

mod mutate;
mod seeds;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mutate::Mutator;
use peak_alloc::PeakAlloc;
use privet::fuzzing::{self, Target};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory is counted for the whole process: one target at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Far more than a case takes anywhere: it tells a hang.
const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn arrays() {
    check("npy", 60_000);
    check("npz", 8_000);
    check("csv", 50_000);
}

#[test]
fn pictures() {
    check("picture", 3_000);
}

#[test]
fn configuration() {
    check("toml", 30_000);
}

#[test]
fn attestation() {
    check("evidence", 20_000);
    check("policy", 30_000);
    check("ratls", 20_000);
}

#[test]
fn manifests_and_programs() {
    check("manifest", 20_000);
}

#[test]
fn onnx_models() {
    check("onnx", 150_000);
    check("scan", 20_000);
}

#[test]
fn plans() {
    check("plan", 100_000);
}

#[test]
fn weights() {
    check("weights", 50_000);
}

#[test]
fn shares() {
    check("share", 10_000);
}

#[test]
fn sealed_models() {
    check("sealed", 30_000);
    check("sealing", 2_000);
    check("stages", 20_000);
}

#[test]
fn bundles() {
    check("bundle", 6_000);
}

#[test]
fn streams_of_frames() {
    check("frames", 50_000);
}

#[test]
fn control_messages() {
    check("messages", 100_000);
}

#[test]
fn messages_and_policies_of_key_servers() {
    check("kbs", 2_000);
    check("keypolicy", 30_000);
}

#[test]
fn messages_of_enclave_workers_and_their_clients() {
    check("enclave", 50_000);
}

#[test]
fn strangers_at_a_listener() {
    check("handshake", 300);
}

#[test]
fn every_target_has_a_fuzz_target_and_a_corpus() {
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for Target { name, .. } in fuzzing::TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml lacks {name}");
        let target = fuzz().join(format!("fuzz_targets/{name}.rs"));
        let code = std::fs::read_to_string(target).unwrap();
        assert!(code.contains(&format!("privet_fuzz::check(\"{name}\", bytes)")), "{name}");
        assert!(!corpus(name).is_empty(), "fuzz/corpus/{name} is empty");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), fuzzing::TARGETS.len());
}

/// Runs the target on the corpus, on what the writers make, and on `cases` mutations.
fn check(name: &str, cases: usize) {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let target = fuzzing::find(name).expect("a target of this name");
    let made: Vec<Vec<u8>> = seeds::of(name).into_iter().chain(fuzzing::seeds(name)).collect();
    if std::env::var_os("PRIVET_WRITE_CORPUS").is_some() {
        write_corpus(name, &made);
    }
    for (i, bytes) in made.iter().enumerate() {
        assert!(run(&format!("seed {i} of {name}"), target, bytes), "seed {i} of {name} is refused");
    }
    let corpus = corpus(name);
    let mut accepted = 0;
    for (file, bytes) in &corpus {
        accepted += usize::from(run(&format!("corpus/{name}/{file}"), target, bytes));
    }
    // Nobody gets past a TLS listener by luck.
    assert!(accepted > 0 || name == "handshake", "no file of corpus/{name} is accepted: is it outdated?");
    let pool: Vec<&[u8]> =
        corpus.iter().map(|(_, bytes)| &bytes[..]).chain(made.iter().map(|b| &b[..])).collect();
    let seed = 20_261_120;
    println!("{name}: {cases} mutations of {} files, seed {seed}", pool.len());
    let mut mutator = Mutator::new(seed);
    for case in 0..cases {
        let bytes = mutator.mutate(&pool);
        run(&format!("case {case} of {name}"), target, &bytes);
    }
}

/// Runs one case; a panic, too much memory and too much time are reported with the bytes.
fn run(case: &str, target: &Target, bytes: &[u8]) -> bool {
    let report = Report { case, bytes };
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let start = Instant::now();
    let accepted = (target.run)(bytes);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    assert!(
        taken <= target.memory(bytes.len()),
        "{} bytes of file take {} MiB of memory",
        bytes.len(),
        taken >> 20
    );
    assert!(start.elapsed() < DEADLINE, "{} bytes of file take {:?}", bytes.len(), start.elapsed());
    drop(report);
    accepted
}

struct Report<'a> {
    case: &'a str,
    bytes: &'a [u8],
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = std::env::temp_dir().join(format!("privet-hostile-{}", self.bytes.len()));
            let kept = std::fs::write(&path, self.bytes);
            println!("{}: the bytes are in {} ({kept:?})", self.case, path.display());
        }
    }
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// Name and content of the committed files, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(fuzz().join("corpus").join(target)) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

fn write_corpus(target: &str, made: &[Vec<u8>]) {
    let dir = fuzz().join("corpus").join(target);
    std::fs::create_dir_all(&dir).unwrap();
    for (i, bytes) in made.iter().enumerate() {
        std::fs::write(dir.join(format!("made-{i:02}")), bytes).unwrap();
    }
}

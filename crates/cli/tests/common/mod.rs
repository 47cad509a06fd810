//! The built program, the digits model, and a look at processes.

#![allow(dead_code, reason = "every test binary uses a part")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything takes that has to happen, on any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(100);

/// The program under test; `TMPDIR` is `home`.
pub(crate) fn privet(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_privet"));
    command.env("TMPDIR", home).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A file of `assets/digits`.
pub(crate) fn digits(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/digits");
    dir.canonicalize().expect("assets/digits").join(name)
}

/// `privet run` on the digits model and one of its pictures.
pub(crate) fn run_digits(home: &Path, picture: &str) -> Command {
    let mut command = privet(home);
    command.arg("run").arg("--model").arg(digits("digits.onnx")).arg("--input").arg(digits(picture));
    lowering(&mut command);
    command
}

pub(crate) fn lowering(command: &mut Command) {
    command.arg("--preprocess").arg(digits("preprocess.toml")).arg("--labels").arg(digits("labels.txt"));
}

pub(crate) fn output(command: &mut Command) -> (Option<i32>, String, String) {
    text(command.output().expect("the program starts"))
}

pub(crate) fn text(output: Output) -> (Option<i32>, String, String) {
    let read = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), read(output.stdout), read(output.stderr))
}

/// Waits for a child, for as long as [`PATIENCE`] lasts, and gives its code and text.
pub(crate) fn finish(mut child: Child) -> (Option<i32>, String, String) {
    let start = Instant::now();
    while child.try_wait().expect("wait").is_none() {
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("still running after {PATIENCE:?}: {:?}", text(child.wait_with_output().expect("output")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    text(child.wait_with_output().expect("output"))
}

pub(crate) fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    nix::sys::signal::kill(pid, signal).expect("signal");
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until a process has a handler for a signal, which would end it without a word before.
#[track_caller]
pub(crate) fn until_it_handles(child: &Child, signal: nix::sys::signal::Signal) {
    // Where this cannot be seen, it has had time for it.
    if !Path::new("/proc/self/status").exists() {
        return std::thread::sleep(Duration::from_secs(2));
    }
    let handles = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim();
        u64::from_str_radix(mask, 16).unwrap_or(0) & (1 << (signal as i32 - 1)) != 0
    };
    until("it handles signals", handles);
}

/// Starts a listening party and waits for its address.
pub(crate) fn listening(home: &Path, args: &[&str]) -> (Child, String) {
    let mut child = privet(home).current_dir(home).args(args).arg("--events").spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let mut lines = BufReader::new(stdout).lines();
    let address = lines.by_ref().find_map(|line| {
        let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        event["address"].as_str().map(str::to_owned)
    });
    // Keeps the pipe open, so that later events do not fail.
    std::thread::spawn(move || lines.for_each(drop));
    match address {
        Some(address) => (child, address),
        None => panic!("no address: {:?}", finish(child)),
    }
}

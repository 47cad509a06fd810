//! A directory with commands in it, services that listen, and policies that accept this program.

#![allow(dead_code, reason = "every test binary uses a part")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use privet::attest::sample::sample_measurement;

use crate::common::{output, privet, signal};

pub(crate) const SAMPLE: &str = "--allow-sample-insecure";

/// A directory, and everything that commands in it have said.
pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) said: Arc<Mutex<Vec<u8>>>,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), said: Arc::default() }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = privet(self.dir.path());
        command.current_dir(self.dir.path()).args(line.split_whitespace());
        command.envs([("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full"), ("RUST_LIB_BACKTRACE", "full")]);
        command
    }

    /// Runs a command to its end; its code, and all that it said.
    pub(crate) fn run(&self, line: &str) -> (Option<i32>, String) {
        let (code, out, err) = output(&mut self.command(line));
        self.said.lock().unwrap().extend([out.as_bytes(), err.as_bytes()].concat());
        (code, out + &err)
    }

    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        let (code, text) = self.run(line);
        assert_eq!(code, Some(0), "privet {line}: {text}");
        text
    }

    #[track_caller]
    pub(crate) fn fails(&self, code: i32, line: &str, word: &str) {
        let (found, text) = self.run(line);
        assert_eq!(found, Some(code), "privet {line}: {text}");
        assert!(text.contains(word), "privet {line}: {text}");
    }

    /// Starts a service; its address.
    pub(crate) fn start(&self, line: &str) -> (Service, String) {
        let mut child = self.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let heard = self.said.clone();
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            BufReader::new(stderr).read_to_end(&mut text).unwrap();
            heard.lock().unwrap().extend(&text);
            text
        });
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        self.said.lock().unwrap().extend(line.as_bytes());
        match line.trim_end().strip_prefix("listening on ") {
            Some(address) => (Service { child, errors: Some(errors) }, address.to_owned()),
            None => panic!("{:?}", String::from_utf8_lossy(&errors.join().unwrap())),
        }
    }
}

pub(crate) struct Service {
    pub(crate) child: Child,
    errors: Option<std::thread::JoinHandle<Vec<u8>>>,
}

impl Service {
    pub(crate) fn end(mut self, how: Signal) -> Option<i32> {
        signal(&self.child, how);
        let code = self.child.wait().unwrap().code();
        self.errors.take().unwrap().join().unwrap();
        code
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// SHA-256 of the program, as development evidence has it.
pub(crate) fn own_measurement() -> String {
    let binary = fs::read(env!("CARGO_BIN_EXE_privet")).unwrap();
    sample_measurement(&binary, &[]).iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn policy(release: &Path, worker: &str, cache: &str) -> String {
    let text = fs::read_to_string(release).unwrap();
    let value = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let section = |name: &str, measurement: &str| {
        format!(
            "[{name}]\nversion = 1\n[{name}.sample]\nallow_sample_insecure = true\nmeasurement = [\"{measurement}\"]\n"
        )
    };
    format!(
        "version = 1\n{}\n{}\nminimum_model_version = 1\n{}[lease]\nseconds = 3600\n{}",
        value("key_id"),
        value("model_id"),
        section("get", worker),
        section("lease.to", cache)
    )
}

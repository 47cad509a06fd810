//! A cluster with shares, hosts on this machine, and a look at what runs there.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{PATIENCE, digits, finish, lowering, output, privet};

/// Stands in for ssh: drops options, and runs the command on this machine, in a directory of the host's own.
const FAKE: &str = r#"#!/bin/sh
while [ "$1" != -- ]; do shift; done
case $2 in
gone) echo "ssh: connect to host gone port 22: Connection refused" >&2; exit 255;;
esac
mkdir -p "$SITE/hosts/$2" && cd "$SITE/hosts/$2" || exit 255
exec sh -c "$3"
"#;

/// A directory with a cluster, shares of pictures of digits, and an ssh.
pub(crate) struct Site {
    home: tempfile::TempDir,
}

impl Site {
    /// Hosts are directories of this machine.
    pub(crate) fn new() -> Self {
        Self::with_ssh(FAKE)
    }

    /// Hosts are what this shell script makes of them.
    pub(crate) fn with_ssh(script: &str) -> Self {
        let site = Self { home: tempfile::tempdir().unwrap() };
        fs::create_dir(site.at("bin")).unwrap();
        fs::write(site.at("bin/ssh"), script).unwrap();
        fs::set_permissions(site.at("bin/ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        // Held until all three are known, so that they differ.
        let ports = [(); 3].map(|()| reserve());
        let hosts = ports.each_ref().map(|port| port.local_addr().unwrap().to_string());
        drop(ports);
        let mut setup = site.privet("setup");
        setup.args(["--parties", "3", "--out", "cluster"]);
        setup.args(hosts.iter().flat_map(|host| ["--host", host]));
        site.done(&mut setup);
        site
    }

    /// A path in it.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    /// Shares the digits model and these pictures, into `shares`.
    pub(crate) fn share(&self, pictures: &[u32]) {
        let mut compile = self.privet("compile");
        compile.arg(digits("digits.onnx")).args(["-o", "model"]);
        lowering(&mut compile);
        self.done(&mut compile);
        let share = |model: &str| {
            let mut share = self.privet("share");
            share.args(["--model", model, "--to", "cluster/cluster.toml", "--out", "shares"]);
            share
        };
        self.done(&mut share("model"));
        for picture in pictures {
            self.done(share("model/plan.privet").arg(digits(&format!("{picture}.png"))));
        }
    }

    /// A command of the program, here.
    pub(crate) fn privet(&self, command: &str) -> Command {
        let mut privet = privet(self.home.path());
        privet.arg(command).current_dir(self.home.path());
        privet
    }

    /// `privet launch` with the ssh of this place.
    pub(crate) fn launch(&self, args: &[&str]) -> Command {
        let mut launch = self.privet("launch");
        let path = std::env::var("PATH").unwrap_or_default();
        launch.env("PATH", format!("{}:{path}", self.at("bin").display()));
        launch.env("SITE", self.home.path()).args(args);
        launch
    }

    /// Runs a command that has to end well; gives its stdout.
    pub(crate) fn done(&self, command: &mut Command) -> String {
        let (code, stdout, stderr) = output(command);
        assert_eq!(code, Some(0), "{command:?}: {stderr}");
        stdout
    }

    /// Starts a launch whose output goes to the files `stdout` and `stderr`, and waits until `count` commands have said "up".
    pub(crate) fn start(&self, launch: &mut Command, count: usize) -> Running {
        let file = |name: &str| Stdio::from(fs::File::create(self.at(name)).unwrap());
        let child = launch.stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
        let mut running = Running(Some(child));
        let wait = || {
            let ended = running.child().try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", self.read("stderr"));
            self.read("stderr").matches(": up").count() == count
        };
        assert!(soon(wait), "not up: {}", self.read("stderr"));
        running
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    /// Processes that work in this directory, also after it was removed.
    pub(crate) fn processes(&self, dir: &str) -> Vec<String> {
        let dir = self.at(dir);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let cwd = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            if cwd.starts_with(&dir) {
                let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
                found.push(line.replace('\0', " "));
            }
        }
        found
    }

    /// Waits until no process works there and no working directory is left.
    pub(crate) fn assert_nothing_is_left(&self, dir: &str) {
        let left = || self.processes(dir).is_empty() && files(&self.at(dir)).is_empty();
        assert!(soon(left), "{:?}, {:?}", self.processes(dir), files(&self.at(dir)));
    }
}

/// A port for whoever listens there next. The system soon hands out ports again, to whoever runs at the same time; on Linux a
/// process has a loopback address of its own.
pub(crate) fn reserve() -> TcpListener {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let own = format!("127.{}.{middle}.{low}:0", 64 + high % 64);
    TcpListener::bind(own).or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap()
}

/// A launch that runs. Dropping it, as a failing test does, kills it.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Option<i32> {
        finish(self.0.take().unwrap()).0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether something happens within [`PATIENCE`].
pub(crate) fn soon(mut happened: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if happened() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// All files below a directory.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            _ => found.push(entry.path()),
        }
    }
    found
}

/// The line of `--json`: for each host its values of these keys.
pub(crate) fn states(stdout: &str, keys: &[&str]) -> Vec<Vec<Value>> {
    let summary: Value = serde_json::from_str(stdout).unwrap();
    let hosts = summary["hosts"].as_array().unwrap();
    hosts.iter().map(|host| keys.iter().map(|key| host[*key].clone()).collect()).collect()
}

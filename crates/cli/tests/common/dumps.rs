//! Processes that hold keys leave no picture of their memory, whoever asks for one.

#![allow(dead_code, reason = "every test binary uses a part")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::common::{PATIENCE, signal, text};

/// A user without privileges: to root, every process looks alike.
const NOBODY: u32 = 65534;

/// A directory of an ordinary user, who runs the program in it with core dumps on, as far as the system lets it.
pub(crate) struct Ordinary {
    dir: tempfile::TempDir,
    program: PathBuf,
    user: Option<u32>,
}

impl Ordinary {
    pub(crate) fn new() -> Self {
        let (dir, program) = (tempfile::tempdir().unwrap(), PathBuf::from(env!("CARGO_BIN_EXE_privet")));
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            return Self { dir, program, user: None };
        }
        // Where the program was built, others may not be able to look.
        let copy = dir.path().join("privet");
        fs::copy(&program, &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        Self { dir, program: copy, user: Some(NOBODY) }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Gives the user a file that the test made.
    pub(crate) fn give(&self, name: &str) {
        if let Some(user) = self.user {
            chown(self.path().join(name), Some(user), Some(user)).unwrap();
        }
    }

    /// Runs something else than the program.
    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.current_dir(self.path()).env("TMPDIR", self.path()).arg("-c");
        command.arg(format!("ulimit -S -c $(ulimit -H -c); {script}")).arg(&self.program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = self.shell("exec \"$0\" \"$@\"");
        command.args(line.split_whitespace());
        command
    }

    #[track_caller]
    pub(crate) fn ok(&self, line: &str) {
        let (code, out, err) = text(self.command(line).output().unwrap());
        assert_eq!(code, Some(0), "privet {line}: {out}{err}");
    }

    /// Runs a command that does not end by itself, and looks at it as it runs, and when it breaks.
    #[track_caller]
    pub(crate) fn assert_not_dumped(&self, line: &str) {
        // One that takes no care, for comparison.
        let mut other = self.shell("exec sleep 600").spawn().unwrap();
        let (user, name) = (self.user.unwrap_or_else(own_user), |child: &Child| child.id().to_string());
        wait(&mut other, |pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "sleep\n"));
        assert_eq!(owner(&name(&other)), user, "what another process shows is its user's");
        let dumps = break_it(other);

        let mut child = self.command(line).spawn().unwrap();
        let private = wait(&mut child, |pid| limit_is_zero(pid) && owner(pid) == 0);
        let pid = name(&child);
        assert!(private || limit_is_zero(&pid), "{line}: the limit of core dumps is not 0");
        // The files of a process that cannot be dumped belong to root.
        assert!(private, "{line}: what it shows belongs to user {}", owner(&pid));
        assert!(!break_it(child), "{line}: its memory was dumped");
        if !dumps {
            eprintln!("SKIPPED in part: this system dumps no process at all");
        }
    }
}

fn own_user() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

fn owner(pid: &str) -> u32 {
    fs::metadata(format!("/proc/{pid}/environ")).map_or(u32::MAX, |found| found.uid())
}

fn limit_is_zero(pid: &str) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("Max core file size")).unwrap_or_default();
    let mut words = line.split_whitespace().skip(4);
    (words.next(), words.next()) == (Some("0"), Some("0"))
}

/// Waits, for as long as [`PATIENCE`] lasts, until a running process is as it should be; whether it is then.
fn wait(child: &mut Child, is_so: impl Fn(&str) -> bool) -> bool {
    let (start, pid) = (Instant::now(), child.id().to_string());
    while !is_so(&pid) {
        if let Some(status) = child.try_wait().unwrap() {
            panic!("it ended: {status}");
        }
        if start.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Makes a process end as by `abort`; whether its memory was dumped.
fn break_it(mut child: Child) -> bool {
    signal(&child, Signal::SIGABRT);
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32));
    status.core_dumped()
}

//! Child processes: their events, their last words, and their certain end.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use privet::Event;

/// Lines of a child's stderr that are kept.
const TAIL_LINES: usize = 20;
/// Longest line that is read from a child.
const MAX_LINE: u64 = 64 << 10;

/// A running or finished child. Dropping it kills and reaps it.
pub(super) struct Child {
    pub(super) name: &'static str,
    process: Process,
    /// Copies events; ends when the child closes its stdout.
    events: Option<JoinHandle<()>>,
    /// Collects the last lines of stderr.
    tail: Option<JoinHandle<Vec<String>>>,
}

impl Child {
    /// Starts this program again as a party in `dir`: no environment, no stdin, nothing but `args`.
    pub(super) fn spawn(
        name: &'static str,
        dir: &Path,
        args: Vec<OsString>,
        events: Sender<(&'static str, Event)>,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.args(args).current_dir(dir).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C reaches this process only, which then ends its children.
        command.process_group(0);
        let mut process = command.spawn().with_context(|| format!("cannot start the {name}"))?;
        let stdout = process.stdout.take().map(|out| thread::spawn(move || copy_events(name, out, &events)));
        let tail = process.stderr.take().map(|err| thread::spawn(move || last_lines(err)));
        Ok(Self { name, process, events: stdout, tail })
    }

    /// The exit status, if the child is done and all its events are delivered.
    pub(super) fn finished(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let status = self.process.try_wait().with_context(|| format!("cannot wait for the {}", self.name))?;
        if status.is_some()
            && let Some(events) = self.events.take()
        {
            // The pipe is closed: this does not block.
            let _ = events.join();
        }
        Ok(status)
    }

    /// Asks the child to finish what is under way and exit.
    pub(super) fn terminate(&self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).context("process id")?);
        kill(pid, Signal::SIGTERM).with_context(|| format!("cannot stop the {}", self.name))
    }

    /// Ends the child if it runs, and returns the last lines it wrote to stderr.
    pub(super) fn end(&mut self) -> Vec<String> {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.tail.take().and_then(|tail| tail.join().ok()).unwrap_or_default()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

fn copy_events(name: &'static str, stdout: impl Read, events: &Sender<(&'static str, Event)>) {
    for line in lines(stdout) {
        if let Ok(event) = serde_json::from_str(&line)
            && events.send((name, event)).is_err()
        {
            return;
        }
    }
}

fn last_lines(stderr: impl Read) -> Vec<String> {
    let mut last = VecDeque::new();
    for line in lines(stderr) {
        if last.len() == TAIL_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    last.into()
}

/// Lines of at most [`MAX_LINE`] bytes; longer ones come in pieces.
fn lines(stream: impl Read) -> impl Iterator<Item = String> {
    let mut reader = BufReader::new(stream);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(String::from_utf8_lossy(&line).trim_end().to_owned()),
        }
    })
}

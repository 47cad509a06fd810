//! Child processes: their events, their last words, and their certain end.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use privet::resources;

/// Lines of a child's stderr that are kept.
const TAIL_LINES: usize = 20;
/// Longest line that is read from a child.
const MAX_LINE: u64 = 64 << 10;

/// How a child ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// From its start.
    pub(crate) seconds: f64,
    /// Of the whole process.
    pub(crate) cpu_seconds: f64,
}

/// A running or finished child. Dropping it kills and reaps it.
pub(crate) struct Child {
    pub(crate) name: &'static str,
    /// Seconds from its start until it listened, if it does.
    pub(crate) listening: Option<f64>,
    spawned: Instant,
    process: Process,
    end: Option<Ended>,
    /// Reads what it says; ends when the child closed its stdout.
    events: Option<JoinHandle<Instant>>,
    /// Collects the last lines of stderr.
    tail: Option<JoinHandle<Vec<String>>>,
}

impl Child {
    /// Starts this program again as a party in `dir`: no environment, no stdin, nothing but `args`. Each line of its stdout goes
    /// to `hear`.
    pub(crate) fn spawn(
        name: &'static str,
        dir: &Path,
        args: Vec<OsString>,
        mut hear: impl FnMut(String) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.args(args).current_dir(dir).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C reaches this process only, which then ends its children.
        command.process_group(0);
        let spawned = Instant::now();
        let mut process = command.spawn().with_context(|| format!("cannot start the {name}"))?;
        let stdout = process.stdout.take().map(|out| {
            thread::spawn(move || {
                lines(out).for_each(&mut hear);
                Instant::now()
            })
        });
        let tail = process.stderr.take().map(|err| thread::spawn(move || last_lines(err)));
        Ok(Self { name, listening: None, spawned, process, end: None, events: stdout, tail })
    }

    /// Of the process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Notes that it listens.
    pub(crate) fn listens(&mut self) {
        self.listening = Some(self.spawned.elapsed().as_secs_f64());
    }

    /// How it ended, if it is done and all its events are delivered.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<Ended>> {
        if self.end.is_some() {
            return Ok(self.end);
        }
        let others = resources::children_cpu_seconds();
        let status = self.process.try_wait().with_context(|| format!("cannot wait for the {}", self.name))?;
        let Some(status) = status else { return Ok(None) };
        // The system counts a child once it has been waited for.
        let cpu_seconds = resources::children_cpu_seconds() - others;
        // The pipe is closed: this does not block.
        let closed = self.events.take().and_then(|events| events.join().ok()).unwrap_or_else(Instant::now);
        let seconds = closed.duration_since(self.spawned).as_secs_f64();
        self.end = Some(Ended { status, seconds, cpu_seconds });
        Ok(self.end)
    }

    /// Asks the child to finish what is under way and exit.
    pub(crate) fn terminate(&self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).context("process id")?);
        kill(pid, Signal::SIGTERM).with_context(|| format!("cannot stop the {}", self.name))
    }

    /// Ends the child if it runs, and returns the last lines it wrote to stderr.
    pub(crate) fn end(&mut self) -> Vec<String> {
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

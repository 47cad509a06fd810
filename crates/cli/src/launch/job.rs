//! A command on a host: ssh, the tar at this end of it, and what both say.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::commands::Words;
use crate::exit::{Code, Failure};

/// Longest line that is shown and kept in one piece.
const MAX_LINE: u64 = 64 << 10;
/// How long what was said may take to arrive after the process has ended. Somebody else may hold the pipe open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Something said: by which host, and what.
pub(super) type Line = (usize, String);

/// How a job ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    /// Of ssh: the status of what ran on the host, or 255.
    pub(super) ssh: ExitStatus,
    /// Of tar here, if it was part of it.
    pub(super) tar: Option<ExitStatus>,
    pub(super) seconds: f64,
    /// It was asked to.
    pub(super) is_stopped: bool,
}

impl Ended {
    pub(super) fn is_well(&self) -> bool {
        !self.is_stopped && self.ssh.success() && self.tar.is_none_or(|status| status.success())
    }
}

/// Running processes. Dropping it kills and reaps them; what ssh runs on the host ends with it.
pub(super) struct Job {
    pub(super) host: usize,
    ssh: Child,
    tar: Option<Child>,
    /// As long as it is open the party runs.
    stdin: Option<ChildStdin>,
    /// From tar to ssh or the other way; through this process, so that nothing goes on without it.
    pump: Option<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
    started: Instant,
    is_stopped: bool,
    ssh_ended: Option<(ExitStatus, Instant)>,
}

impl Job {
    /// ssh alone; its stdin stays open until the job is stopped.
    pub(super) fn run(host: usize, ssh: &Words, lines: &Sender<Line>) -> anyhow::Result<Self> {
        let mut job = Self::new(host, spawn(ssh, Stdio::piped())?);
        job.stdin = job.ssh.stdin.take();
        job.read_ssh(lines, true);
        Ok(job)
    }

    /// From `tar` here to `ssh`.
    pub(super) fn send(host: usize, tar: &Words, ssh: &Words, lines: &Sender<Line>) -> anyhow::Result<Self> {
        let mut job = Self::new(host, spawn(ssh, Stdio::piped())?);
        let mut tar = spawn(tar, Stdio::null())?;
        let pipe = (tar.stdout.take(), job.ssh.stdin.take());
        job.read_ssh(lines, true);
        job.take_tar(tar, lines, pipe);
        Ok(job)
    }

    /// From `ssh` to `tar` here.
    pub(super) fn receive(
        host: usize,
        ssh: &Words,
        tar: &Words,
        lines: &Sender<Line>,
    ) -> anyhow::Result<Self> {
        let mut job = Self::new(host, spawn(ssh, Stdio::null())?);
        let mut tar = spawn(tar, Stdio::piped())?;
        let pipe = (job.ssh.stdout.take(), tar.stdin.take());
        job.read_ssh(lines, false);
        job.take_tar(tar, lines, pipe);
        Ok(job)
    }

    fn new(host: usize, ssh: Child) -> Self {
        let (tar, stdin, pump, readers) = (None, None, None, Vec::new());
        let started = Instant::now();
        Self { host, ssh, tar, stdin, pump, readers, started, is_stopped: false, ssh_ended: None }
    }

    fn read_ssh(&mut self, lines: &Sender<Line>, with_stdout: bool) {
        if with_stdout && let Some(stdout) = self.ssh.stdout.take() {
            self.read(stdout, lines);
        }
        if let Some(stderr) = self.ssh.stderr.take() {
            self.read(stderr, lines);
        }
    }

    fn take_tar(
        &mut self,
        mut tar: Child,
        lines: &Sender<Line>,
        (from, to): (Option<impl Read + Send + 'static>, Option<impl Write + Send + 'static>),
    ) {
        if let Some(stderr) = tar.stderr.take() {
            self.read(stderr, lines);
        }
        self.pump = from.zip(to).map(|(mut from, mut to)| {
            thread::spawn(move || {
                // Why it broke off is said by whoever did it.
                let _ = io::copy(&mut from, &mut to);
            })
        });
        self.tar = Some(tar);
    }

    fn read(&mut self, stream: impl Read + Send + 'static, lines: &Sender<Line>) {
        let (host, lines) = (self.host, lines.clone());
        self.readers.push(thread::spawn(move || copy_lines(host, stream, &lines)));
    }

    /// How it ended, once it has and all that was said is on its way.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<Ended>> {
        let (ssh, since) = match self.ssh_ended {
            Some(ended) => ended,
            None => match self.ssh.try_wait().context("cannot wait for ssh")? {
                Some(status) => *self.ssh_ended.insert((status, Instant::now())),
                None => return Ok(None),
            },
        };
        let tar = match &mut self.tar {
            Some(tar) => match tar.try_wait().context("cannot wait for tar")? {
                Some(status) => Some(status),
                None => return Ok(None),
            },
            None => None,
        };
        if !self.readers.iter().all(JoinHandle::is_finished) && since.elapsed() < LAST_WORDS {
            return Ok(None);
        }
        let seconds = since.duration_since(self.started).as_secs_f64();
        Ok(Some(Ended { ssh, tar, seconds, is_stopped: self.is_stopped }))
    }

    /// Asks it to end: the end of stdin does so on the host.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
        self.stdin = None;
        if let Some(tar) = &mut self.tar {
            let _ = tar.kill();
        }
    }

    /// Ends it here. On the host, its end follows from that of the connection.
    pub(super) fn kill(&mut self) {
        let _ = self.ssh.kill();
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.stdin = None;
        for child in self.tar.iter_mut().chain([&mut self.ssh]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawn(words: &[OsString], stdin: Stdio) -> anyhow::Result<Child> {
    let (program, args) = words.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(args).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C reaches launch only, which then ends them in order.
    command.process_group(0);
    command.spawn().map_err(|e| {
        let program = program.to_string_lossy();
        let text = match e.kind() {
            ErrorKind::NotFound => {
                format!("{program}: not found on this machine; install it, or set PATH to where it is")
            }
            _ => format!("cannot start {program}: {e}"),
        };
        Failure::error(Code::Internal, text)
    })
}

/// Lines of at most [`MAX_LINE`] bytes; longer ones come in pieces.
fn copy_lines(host: usize, stream: impl Read, lines: &Sender<Line>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if lines.send((host, String::from_utf8_lossy(&line).trim_end().to_owned())).is_err() => {
                return;
            }
            Ok(_) => {}
        }
    }
}

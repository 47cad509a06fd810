//! Processes of this program that are measured.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use privet::resources;
use serde::de::DeserializeOwned;

use super::sampler::{Sampler, status, tree};
use crate::exit::{Code, Failure};
use crate::watch::Watch;

/// How often an ended process is noticed, and its largest memory read.
const POLL: Duration = Duration::from_millis(10);
/// Most bytes of its output.
const MAX_OUTPUT: u64 = 256 << 20;

/// What a process has said and taken.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) stdout: Vec<u8>,
    /// Of it and its children.
    pub(super) cpu_seconds: f64,
    pub(super) wall_seconds: f64,
    /// Largest resident memory of one of them, as of the last look.
    pub(super) peak_rss_bytes: Option<u64>,
}

/// Runs this program in `dir` until it ends, seen by a sampler. Its own error becomes this one's.
pub(super) fn run(
    dir: &Path,
    words: &[&str],
    threads: u32,
    sampler: Option<&Sampler>,
    watch: &Watch,
) -> anyhow::Result<Done> {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    let mut process = Process::spawn(dir, &words, threads, sampler)?;
    let mut peak = None;
    let code = loop {
        watch.check()?;
        peak = peak.max(process.peak());
        if let Some(code) = process.ended()? {
            break code;
        }
        thread::sleep(POLL);
    };
    let stderr = process.stderr();
    let done = process.done(peak)?;
    match code {
        Some(0) => Ok(done),
        code => {
            let said = stderr.trim().rsplit("error: ").next().unwrap_or_default().to_owned();
            let shown: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            let text = format!("privet {}: {said}", shown.join(" "));
            Err(Failure::error(Code::from_status(code), text))
        }
    }
}

/// [`run`], and what it printed as JSON.
pub(super) fn json<T: DeserializeOwned>(
    dir: &Path,
    words: &[&str],
    threads: u32,
    sampler: Option<&Sampler>,
    watch: &Watch,
) -> anyhow::Result<(T, Done)> {
    let done = run(dir, words, threads, sampler, watch)?;
    let said =
        serde_json::from_slice(&done.stdout).with_context(|| format!("privet {}: its JSON", words[0]))?;
    Ok((said, done))
}

/// A running or ended process. Dropping it kills and reaps it.
pub(super) struct Process<'a> {
    child: Child,
    sampler: Option<&'a Sampler>,
    started: Instant,
    ended: Option<(Option<i32>, f64, f64)>,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl<'a> Process<'a> {
    /// Starts it: no environment but the number of threads, no stdin.
    pub(super) fn spawn(
        dir: &Path,
        words: &[OsString],
        threads: u32,
        sampler: Option<&'a Sampler>,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.args(words).current_dir(dir).env_clear().env("RAYON_NUM_THREADS", threads.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C reaches this process only, which then ends its children.
        command.process_group(0);
        let started = Instant::now();
        let mut child = command.spawn().context("cannot start a process to measure")?;
        if let Some(sampler) = sampler {
            sampler.add(child.id());
        }
        let stdout = child.stdout.take().map(|stream| thread::spawn(move || all(stream)));
        let stderr = child.stderr.take().map(|stream| thread::spawn(move || all(stream)));
        Ok(Self { child, sampler, started, ended: None, stdout, stderr })
    }

    /// The exit code once it has ended; none of it for a signal.
    fn ended(&mut self) -> anyhow::Result<Option<Option<i32>>> {
        if let Some((code, ..)) = self.ended {
            return Ok(Some(code));
        }
        let others = resources::children_cpu_seconds();
        let Some(ended) = self.child.try_wait().context("cannot wait for a process")? else {
            return Ok(None);
        };
        // The system counts a child once it has been waited for.
        let cpu = resources::children_cpu_seconds() - others;
        if let Some(sampler) = self.sampler {
            sampler.ended(self.child.id(), cpu);
        }
        self.ended = Some((ended.code(), cpu, self.started.elapsed().as_secs_f64()));
        Ok(Some(ended.code()))
    }

    /// The most memory that it or one of its descendants had so far.
    fn peak(&self) -> Option<u64> {
        tree(self.child.id()).into_iter().filter_map(|pid| status(pid, "VmHWM:")).max()
    }

    fn stderr(&mut self) -> String {
        let bytes = self.stderr.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn done(&mut self, peak_rss_bytes: Option<u64>) -> anyhow::Result<Done> {
        let (_, cpu_seconds, wall_seconds) = self.ended.context("a process that has ended")?;
        let stdout = self.stdout.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        Ok(Done { stdout, cpu_seconds, wall_seconds, peak_rss_bytes })
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // Its own children are in its group.
            if let Ok(pid) = i32::try_from(self.child.id()) {
                let _ = nix::sys::signal::killpg(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
            let _ = self.child.wait();
        }
    }
}

fn all(stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.take(MAX_OUTPUT).read_to_end(&mut bytes);
    bytes
}

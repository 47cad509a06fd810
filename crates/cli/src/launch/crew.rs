//! The hosts of a launch: what each has said, where that is kept, and jobs on all of them at a time.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::commands::{Commands, NOT_FOUND, line};
use super::job::{Ended, Job, Line};
use crate::args::hosts::Host;
use crate::exit::Code;
use crate::show::printable_line;

/// How often jobs, clock and signals are looked at.
const POLL: Duration = Duration::from_millis(20);
/// How long the others may take to fail by themselves once one has failed: their reasons matter too.
const FAILURE_GRACE: Duration = Duration::from_millis(500);
/// How long jobs that were asked to stop may take to; the script on the host kills the party after three seconds.
const STOP_GRACE: Duration = Duration::from_secs(8);

/// How each job ended, with its host; and what made all of them end, if something did.
pub(super) type Outcome = (Vec<(usize, Ended)>, anyhow::Result<()>);

/// A host, and what has become of its party.
pub(super) struct Member {
    pub(super) host: Host,
    pub(super) party: String,
    /// What its lines begin with.
    pub(super) label: String,
    pub(super) commands: Commands,
    pub(super) log: PathBuf,
    pub(super) results: PathBuf,
    log_file: File,
    /// The last thing that was said.
    last: String,
    /// The working directory is there, and was made by this launch.
    pub(super) is_made: bool,
    /// How the party ended.
    pub(super) ended: Option<Ended>,
    /// Its results that have arrived.
    pub(super) fetched: Vec<PathBuf>,
    /// Why it failed.
    pub(super) failure: Option<(Code, String)>,
}

impl Member {
    pub(super) fn new(
        (party, host): (String, Host),
        label: String,
        commands: Commands,
        out: &Path,
    ) -> anyhow::Result<Self> {
        let (log, results) = (out.join(format!("{party}.log")), out.join(&party));
        let log_file = File::options()
            .append(true)
            .create(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        Ok(Self {
            host,
            party,
            label,
            commands,
            log,
            results,
            log_file,
            last: String::new(),
            is_made: false,
            ended: None,
            fetched: Vec::new(),
            failure: None,
        })
    }

    /// Why a job failed that was to do `what`, in words that say what to do.
    fn reason(&self, what: &str, not_found: &str, ended: &Ended) -> (Code, String) {
        let said = if self.last.is_empty() { String::new() } else { format!(": {}", self.last) };
        let check = || {
            // Options and host as launch uses them, without its script.
            let ssh = &self.commands.run[..self.commands.run.len() - 1];
            format!("{} true", line(ssh))
        };
        match (ended.ssh.code(), ended.tar) {
            (Some(255), _) => (
                Code::Peer,
                format!("{what}: ssh failed{said}; this has to work without a question: {}", check()),
            ),
            (Some(NOT_FOUND), _) => (Code::Input, format!("{what}: {not_found}")),
            (Some(0), Some(tar)) => (Code::Input, format!("{what}: tar on this machine: {tar}{said}")),
            (Some(code), None) => (Code::from_status(Some(code)), format!("{what}: exit code {code}{said}")),
            (Some(code), Some(_)) => (Code::Input, format!("{what}: exit code {code}{said}")),
            (None, _) => (Code::Internal, format!("{what}: ssh was killed: {}", ended.ssh)),
        }
    }
}

/// All hosts.
pub(super) struct Crew {
    pub(super) members: Vec<Member>,
    /// What to say where the program is missing.
    not_found: String,
    sender: Sender<Line>,
    lines: Receiver<Line>,
}

impl Crew {
    pub(super) fn new(members: Vec<Member>, not_found: String) -> Self {
        let (sender, lines) = channel();
        Self { members, not_found, sender, lines }
    }

    /// Where jobs send what is said.
    pub(super) fn sender(&self) -> Sender<Line> {
        self.sender.clone()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.members.iter().any(|member| member.failure.is_some())
    }

    /// Waits for all jobs, which do `what`. Once one has failed, or `check` says so, the others are stopped.
    pub(super) fn wait(
        &mut self,
        what: &str,
        jobs: Vec<Job>,
        check: impl Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<Outcome> {
        self.wait_while(jobs, check, |crew, host, ended| {
            let member = &mut crew.members[host];
            let failure = member.reason(what, &crew.not_found, ended);
            member.failure.get_or_insert(failure);
            true
        })
    }

    /// As [`Crew::wait`], but a failure of one is none of the others' business.
    pub(super) fn wait_for_each(
        &mut self,
        jobs: Vec<Job>,
        check: impl Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<Outcome> {
        self.wait_while(jobs, check, |_, _, _| false)
    }

    /// `failed` says whether the other jobs are stopped.
    fn wait_while(
        &mut self,
        mut jobs: Vec<Job>,
        check: impl Fn() -> anyhow::Result<()>,
        failed: impl Fn(&mut Self, usize, &Ended) -> bool,
    ) -> anyhow::Result<Outcome> {
        let mut all = Vec::with_capacity(jobs.len());
        let (mut verdict, mut failed_at, mut stopped_at) = (Ok(()), None::<Instant>, None::<Instant>);
        while !jobs.is_empty() {
            if let Ok(line) = self.lines.recv_timeout(POLL) {
                self.say(line);
                self.drain();
            }
            if verdict.is_ok() {
                verdict = check();
            }
            let mut running = Vec::with_capacity(jobs.len());
            for mut job in jobs {
                let Some(ended) = job.ended()? else {
                    running.push(job);
                    continue;
                };
                self.drain();
                if !ended.is_well() && !ended.is_stopped && failed(self, job.host, &ended) {
                    failed_at.get_or_insert_with(Instant::now);
                }
                all.push((job.host, ended));
            }
            jobs = running;
            let is_over = verdict.is_err() || failed_at.is_some_and(|at| at.elapsed() > FAILURE_GRACE);
            match stopped_at {
                None if is_over => {
                    jobs.iter_mut().for_each(Job::stop);
                    stopped_at = Some(Instant::now());
                }
                Some(at) if at.elapsed() > STOP_GRACE => jobs.iter_mut().for_each(Job::kill),
                _ => {}
            }
        }
        self.drain();
        Ok((all, verdict))
    }

    fn drain(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.say(line);
        }
    }

    /// Shows a line and keeps it.
    fn say(&mut self, (host, text): Line) {
        let member = &mut self.members[host];
        note(&format!("{}: {text}", member.label));
        // A full disk is no reason to end the parties; what is lost is what people have seen.
        let _ = writeln!(member.log_file, "{text}");
        if !text.trim().is_empty() {
            member.last = text;
        }
    }
}

/// A line for people. That nobody reads it is no error.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable_line(text));
}

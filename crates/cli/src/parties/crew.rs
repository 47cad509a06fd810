//! Running children, and what they have said.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use privet::{Event, Report};

use super::child::{Child, Ended};
use super::{CONFIG_FILE, Process};
use crate::exit::{Code, Failure};
use crate::network::Network;
use crate::show::observe::Terminal;
use crate::watch::Watch;

/// How long the others may take to fail by themselves once one party has failed: their reasons matter too.
const GRACE: Duration = Duration::from_millis(500);
/// How often children, clock and signals are looked at.
const POLL: Duration = Duration::from_millis(20);

/// The running children and what they have said.
pub(super) struct Crew<'a> {
    home: PathBuf,
    network: &'a Network,
    watch: &'a Watch,
    terminal: &'a Terminal,
    children: Vec<Child>,
    sender: Sender<(&'static str, Event)>,
    events: Receiver<(&'static str, Event)>,
    addresses: HashMap<&'static str, String>,
    /// Reports of children that have not ended yet.
    reports: HashMap<&'static str, Report>,
    /// How long their instructions took.
    laps: HashMap<&'static str, Vec<Vec<f64>>>,
    ended: Vec<Process>,
}

impl<'a> Crew<'a> {
    pub(super) fn new(home: PathBuf, network: &'a Network, watch: &'a Watch, terminal: &'a Terminal) -> Self {
        let (sender, events) = channel();
        let (children, addresses, reports, ended) = (Vec::new(), HashMap::new(), HashMap::new(), Vec::new());
        let laps = HashMap::new();
        Self { home, network, watch, terminal, children, sender, events, addresses, reports, laps, ended }
    }

    /// Starts `privet COMMAND` as `party`, in its directory.
    pub(super) fn spawn(
        &mut self,
        party: &'static str,
        command: &str,
        args: &[&str],
        more: &[OsString],
    ) -> anyhow::Result<()> {
        let parent = std::process::id().to_string();
        let network = self.network.to_string();
        let network = if self.network.link.is_some() { vec!["--network", &network] } else { Vec::new() };
        let own = [command, "--config", CONFIG_FILE, "--events", "--exit-with-parent", &parent];
        let args =
            own.iter().chain(&network).chain(args).map(OsString::from).chain(more.iter().cloned()).collect();
        self.start(party, &self.home.join(party), args)
    }

    /// Starts this program again with `args`, as a child that tells its events but is no party.
    pub(super) fn spawn_alone(&mut self, name: &'static str, mut args: Vec<OsString>) -> anyhow::Result<()> {
        let parent = std::process::id().to_string();
        args.extend(["--events", "--exit-with-parent", &parent].map(OsString::from));
        let home = self.home.clone();
        self.start(name, &home, args)
    }

    fn start(&mut self, name: &'static str, dir: &Path, args: Vec<OsString>) -> anyhow::Result<()> {
        self.addresses.remove(name);
        let events = self.sender.clone();
        let child = Child::spawn(name, dir, args, move |line| {
            if let Ok(event) = serde_json::from_str(&line) {
                // Nobody listens once this process is about to end.
                let _ = events.send((name, event));
            }
        })?;
        self.children.push(child);
        Ok(())
    }

    /// Waits until `party` says where it listens.
    pub(super) fn address(&mut self, party: &'static str) -> anyhow::Result<String> {
        loop {
            if let Some(address) = self.addresses.get(party) {
                return Ok(address.clone());
            }
            self.pump()?;
            if !self.children.iter().any(|c| c.name == party) {
                let text = format!("the {party} ended without saying where it listens");
                return Err(Failure::error(Code::Internal, text));
            }
        }
    }

    /// Waits until these parties have ended well.
    pub(super) fn wait_for(&mut self, parties: &[&str]) -> anyhow::Result<()> {
        while self.children.iter().any(|c| parties.contains(&c.name)) {
            self.pump()?;
        }
        self.drain();
        self.terminal.clear();
        Ok(())
    }

    /// The processes that have ended since this was asked last, in the order of their ends.
    pub(super) fn ended(&mut self) -> Vec<Process> {
        std::mem::take(&mut self.ended)
    }

    pub(super) fn terminate(&self, party: &str) -> anyhow::Result<()> {
        self.children.iter().filter(|c| c.name == party).try_for_each(Child::terminate)
    }

    /// Takes what has happened since; an error when a child failed, the deadline passed, or the user wants to stop.
    fn pump(&mut self) -> anyhow::Result<()> {
        self.watch.check()?;
        match self.events.recv_timeout(POLL) {
            Ok((party, event)) => self.take(party, event),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        self.drain();
        let mut failed = false;
        let (mut running, mut ended) = (Vec::new(), Vec::new());
        for mut child in std::mem::take(&mut self.children) {
            match child.ended()? {
                Some(end) if end.status.success() => ended.push((child, end)),
                Some(_) => {
                    failed = true;
                    running.push(child);
                }
                None => running.push(child),
            }
        }
        self.children = running;
        // All that these children have said has arrived.
        self.drain();
        for (child, end) in ended {
            self.record(&child, end)?;
        }
        if failed { Err(self.failure()) } else { Ok(()) }
    }

    fn record(&mut self, child: &Child, end: Ended) -> anyhow::Result<()> {
        let party = child.name;
        let Some(report) = self.reports.remove(party) else {
            let text = format!("the {party} ended without a report");
            return Err(Failure::error(Code::Internal, text));
        };
        let worked: f64 = report.work.iter().chain(&report.agreement.work).map(|w| w.seconds).sum();
        let startup_seconds = child.listening.unwrap_or_else(|| (end.seconds - worked).max(0.0));
        let laps = self.laps.remove(party).unwrap_or_default();
        self.ended.push(Process { party, report, laps, cpu_seconds: end.cpu_seconds, startup_seconds });
        Ok(())
    }

    fn drain(&mut self) {
        while let Ok((party, event)) = self.events.try_recv() {
            self.take(party, event);
        }
    }

    fn take(&mut self, party: &'static str, event: Event) {
        match event {
            Event::Progress { .. } => self.terminal.progress(party, &event),
            Event::Listening { address } => {
                if let Some(child) = self.children.iter_mut().find(|c| c.name == party) {
                    child.listens();
                }
                self.addresses.insert(party, address);
            }
            Event::Warning { text } => self.terminal.say(&format!("{party}: warning: {text}")),
            Event::Laps { microseconds } => {
                let seconds = microseconds.into_iter().map(|us| us as f64 / 1e6).collect();
                self.laps.entry(party).or_default().push(seconds);
            }
            Event::Report(report) => {
                self.reports.insert(party, report);
            }
            Event::Message { .. } | Event::Plan(_) => {}
        }
    }

    /// One party has failed: gives the others a moment to say why they fail too, then ends all.
    fn failure(&mut self) -> anyhow::Error {
        let until = Instant::now() + GRACE;
        let is_done = |child: &mut Child| child.ended().is_ok_and(|end| end.is_some());
        while Instant::now() < until && !self.children.iter_mut().all(is_done) {
            std::thread::sleep(POLL);
        }
        self.drain();
        self.terminal.clear();
        let mut text = "a party failed".to_owned();
        let mut codes = Vec::new();
        for mut child in std::mem::take(&mut self.children) {
            let status = child.ended().ok().flatten().map(|end| end.status).filter(|s| !s.success());
            let tail = child.end();
            let Some(status) = status else { continue };
            codes.push(Code::from_status(status.code()));
            text.push_str(&format!("\n{} ({status}):", child.name));
            tail.iter().for_each(|line| text.push_str(&format!("\n  {line}")));
        }
        // A wrong file explains a failed connection, not the other way round.
        let order = [Code::Input, Code::Usage, Code::Internal, Code::Peer];
        let code = order.into_iter().find(|code| codes.contains(code));
        Failure::error(code.or(codes.first().copied()).unwrap_or(Code::Internal), text)
    }
}

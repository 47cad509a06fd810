//! The three parties of `privet run`: first offline, then, without the dealer, online.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use privet::config::CONFIG_FILE;
use privet::model::{Model, NamedFile};
use privet::setup::{SetupOptions, setup};
use privet::{Event, Phase, Plan, Report};

use super::Outcome;
use super::child::Child;
use super::watch::Watch;
use crate::exit::{Code, Failure};
use crate::scratch::Scratch;
use crate::show::observe::Terminal;
use crate::show::table::Row;

const DEALER: &str = "dealer";
const SERVER: &str = "server";
const CLIENT: &str = "client";
/// Any free port of the loopback interface.
const ANYWHERE: &str = "127.0.0.1:0";
/// The model in the server's directory.
const MODEL_DIR: &str = "model";
/// The revealed integers in the client's directory.
const RAW_FILE: &str = "revealed.json";
/// How long the others may take to fail by themselves once one party has failed: their reasons matter too.
const GRACE: Duration = Duration::from_millis(500);
/// How often children, clock and signals are looked at.
const POLL: Duration = Duration::from_millis(20);

/// Runs one private inference of `model` on the files `inputs`.
pub(super) fn run(
    model: &Model,
    inputs: &[PathBuf],
    watch: &Watch,
    terminal: &Terminal,
) -> anyhow::Result<Outcome> {
    let home = Scratch::new()?;
    let (server, dealer) = (ANYWHERE.to_owned(), ANYWHERE.to_owned());
    let clients = vec![CLIENT.to_owned()];
    setup(&SetupOptions { out: home.path().to_owned(), server, dealer, clients })?;
    model.save(&home.path().join(SERVER).join(MODEL_DIR))?;
    let inputs = inputs.iter().map(|i| absolute(&model.plan, i)).collect::<anyhow::Result<Vec<_>>>()?;

    let mut crew = Crew::new(home.path(), watch, terminal);
    crew.spawn(DEALER, &["--listen", ANYWHERE], &[])?;
    let dealer = crew.address(DEALER)?;
    crew.spawn(
        SERVER,
        &["--model", MODEL_DIR, "--listen", ANYWHERE, "--dealer", &dealer, "offline", "--count", "1"],
        &["--sessions", "1"].map(OsString::from),
    )?;
    let server = crew.address(SERVER)?;
    crew.spawn(CLIENT, &["--server", &server, "--dealer", &dealer, "offline", "--count", "1"], &[])?;
    crew.wait_for(&[SERVER, CLIENT])?;
    // Only now does nobody need the dealer any more.
    crew.terminate(DEALER)?;
    crew.wait_for(&[DEALER])?;

    crew.spawn(SERVER, &["--model", MODEL_DIR, "--listen", ANYWHERE, "online", "--sessions", "1"], &[])?;
    let server = crew.address(SERVER)?;
    let inputs: Vec<OsString> = inputs.into_iter().flat_map(|input| ["--input".into(), input]).collect();
    crew.spawn(CLIENT, &["--server", &server, "online", "--raw", RAW_FILE], &inputs)?;
    crew.wait_for(&[SERVER, CLIENT])?;

    let path = home.path().join(CLIENT).join(RAW_FILE);
    let raw = std::fs::read(&path).with_context(|| format!("the client left no {RAW_FILE}"))?;
    let revealed = serde_json::from_slice(&raw).with_context(|| format!("the client's {RAW_FILE}"))?;
    let rows = crew.rows();
    home.close()?;
    Ok(Outcome { revealed, rows })
}

/// `[NAME=]FILE` with an absolute path, because the client works in its own directory.
fn absolute(plan: &Plan, input: &Path) -> anyhow::Result<OsString> {
    let NamedFile { name, file } = NamedFile::parse(plan, input);
    let prefix = name.map_or_else(String::new, |name| format!("{name}="));
    let file = std::path::absolute(&file).with_context(|| format!("no path for {}", file.display()))?;
    let mut whole = OsString::from(prefix);
    whole.push(file);
    Ok(whole)
}

/// The running children and what they have said.
struct Crew<'a> {
    home: &'a Path,
    watch: &'a Watch,
    terminal: &'a Terminal,
    children: Vec<Child>,
    sender: Sender<(&'static str, Event)>,
    events: Receiver<(&'static str, Event)>,
    addresses: HashMap<&'static str, String>,
    reports: Vec<(&'static str, Report)>,
}

impl<'a> Crew<'a> {
    fn new(home: &'a Path, watch: &'a Watch, terminal: &'a Terminal) -> Self {
        let (sender, events) = channel();
        let (children, addresses, reports) = (Vec::new(), HashMap::new(), Vec::new());
        Self { home, watch, terminal, children, sender, events, addresses, reports }
    }

    fn spawn(&mut self, party: &'static str, args: &[&str], more: &[OsString]) -> anyhow::Result<()> {
        let parent = std::process::id().to_string();
        let own = [party, "--config", CONFIG_FILE, "--events", "--exit-with-parent", &parent];
        let args = own.iter().chain(args).map(OsString::from).chain(more.iter().cloned()).collect();
        self.addresses.remove(party);
        let child = Child::spawn(party, &self.home.join(party), args, self.sender.clone())?;
        self.children.push(child);
        Ok(())
    }

    /// Waits until `party` says where it listens.
    fn address(&mut self, party: &'static str) -> anyhow::Result<String> {
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
    fn wait_for(&mut self, parties: &[&str]) -> anyhow::Result<()> {
        while self.children.iter().any(|c| parties.contains(&c.name)) {
            self.pump()?;
        }
        self.drain();
        self.terminal.clear();
        Ok(())
    }

    fn terminate(&self, party: &str) -> anyhow::Result<()> {
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
        let mut running = Vec::new();
        for mut child in std::mem::take(&mut self.children) {
            match child.finished()? {
                Some(status) if status.success() => {}
                Some(_) => {
                    failed = true;
                    running.push(child);
                }
                None => running.push(child),
            }
        }
        self.children = running;
        if failed { Err(self.failure()) } else { Ok(()) }
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
                self.addresses.insert(party, address);
            }
            Event::Warning { text } => self.terminal.say(&format!("{party}: warning: {text}")),
            Event::Report(report) => self.reports.push((party, report)),
            Event::Message { .. } | Event::Plan(_) => {}
        }
    }

    /// One party has failed: gives the others a moment to say why they fail too, then ends all.
    fn failure(&mut self) -> anyhow::Error {
        let until = Instant::now() + GRACE;
        let is_done = |child: &mut Child| child.finished().is_ok_and(|status| status.is_some());
        while Instant::now() < until && !self.children.iter_mut().all(is_done) {
            std::thread::sleep(POLL);
        }
        self.drain();
        self.terminal.clear();
        let mut text = "a party failed".to_owned();
        let mut codes = Vec::new();
        for mut child in std::mem::take(&mut self.children) {
            let status = child.finished().ok().flatten().filter(|status| !status.success());
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

    /// One row per party.
    fn rows(&self) -> Vec<Row> {
        let find = |party, phase| {
            self.reports.iter().find(|(p, r)| *p == party && r.phase == phase).map(|(_, r)| r.clone())
        };
        let row = |party: &'static str| Row {
            role: party.to_owned(),
            offline: find(party, Phase::Offline),
            online: find(party, Phase::Online),
        };
        [DEALER, SERVER, CLIENT].map(row).into()
    }
}

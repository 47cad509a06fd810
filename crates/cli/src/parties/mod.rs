//! Dealer, server and client on this machine, each a process with only its own files: first offline, then, without the
//! dealer, online. [`three`] has the three parties that compute on shares.

pub(crate) mod child;
mod crew;
pub(crate) mod three;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use privet::client::Outputs;
use privet::config::CONFIG_FILE;
use privet::model;
use privet::setup::{SetupOptions, setup};
use privet::{Plan, Report};
use privet_plan::Weights;

use crate::network::Network;
use crate::scratch::Scratch;
use crate::show::observe::Terminal;
use crate::watch::Watch;
use crew::Crew;

pub(crate) const DEALER: &str = "dealer";
pub(crate) const SERVER: &str = "server";
pub(crate) const CLIENT: &str = "client";
/// Any free port of the loopback interface.
const ANYWHERE: &str = "127.0.0.1:0";
/// The model in the server's directory.
const MODEL_DIR: &str = "model";
/// The revealed integers in the client's directory.
const RAW_FILE: &str = "revealed.json";

/// The three parties of one model, with fresh identities in a temporary directory.
pub(crate) struct Parties<'a> {
    // First: children end before their directories go.
    crew: Crew<'a>,
    home: Scratch,
}

/// A party's process that has ended well.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) party: &'static str,
    /// What it said of itself.
    pub(crate) report: Report,
    /// Seconds of the instructions, inference by inference; none offline.
    pub(crate) laps: Vec<Vec<f64>>,
    /// CPU time of the whole process, as the operating system says after its end.
    pub(crate) cpu_seconds: f64,
    /// Wall-clock time from its start until it listened; of a client, until it had connected, and of its end.
    pub(crate) startup_seconds: f64,
}

impl<'a> Parties<'a> {
    /// Sets the parties up, their connections as slow as `network`, and gives the server its model.
    pub(crate) fn new(
        plan: &Plan,
        weights: &Weights,
        network: &'a Network,
        watch: &'a Watch,
        terminal: &'a Terminal,
    ) -> anyhow::Result<Self> {
        let home = Scratch::new()?;
        let (server, dealer) = (ANYWHERE.to_owned(), ANYWHERE.to_owned());
        let clients = vec![CLIENT.to_owned()];
        setup(&SetupOptions { out: home.path().to_owned(), server, dealer, clients })?;
        model::save(plan, weights, &home.path().join(SERVER).join(MODEL_DIR))?;
        Ok(Self { crew: Crew::new(home.path().to_owned(), network, watch, terminal), home })
    }

    /// A party's directory.
    pub(crate) fn dir(&self, party: &str) -> PathBuf {
        self.home.path().join(party)
    }

    /// Prepares material until there is some for `count` inferences. With 0, plan and weights are shared, and nothing else.
    pub(crate) fn offline(&mut self, count: u64) -> anyhow::Result<Vec<Process>> {
        let crew = &mut self.crew;
        let count = count.to_string();
        crew.spawn(DEALER, DEALER, &["--listen", ANYWHERE], &[])?;
        let dealer = crew.address(DEALER)?;
        crew.spawn(
            SERVER,
            SERVER,
            &["--model", MODEL_DIR, "--listen", ANYWHERE, "--dealer", &dealer, "offline", "--count", &count],
            &["--sessions", "1"].map(OsString::from),
        )?;
        let server = crew.address(SERVER)?;
        let args = ["--server", &server, "--dealer", &dealer, "offline", "--count", &count];
        crew.spawn(CLIENT, CLIENT, &args, &[])?;
        crew.wait_for(&[SERVER, CLIENT])?;
        // Only now does nobody need the dealer any more.
        crew.terminate(DEALER)?;
        crew.wait_for(&[DEALER])?;
        Ok(crew.ended())
    }

    /// One inference after the other over one connection, each with inputs as [`privet::model::load_inputs`] takes them, their paths
    /// absolute: the client works in its own directory. Returns the outputs of each.
    pub(crate) fn online(
        &mut self,
        inferences: &[Vec<OsString>],
    ) -> anyhow::Result<(Vec<Outputs>, Vec<Process>)> {
        let crew = &mut self.crew;
        let sessions = inferences.len().to_string();
        crew.spawn(
            SERVER,
            SERVER,
            &["--model", MODEL_DIR, "--listen", ANYWHERE, "online", "--sessions", &sessions],
            &[],
        )?;
        let server = crew.address(SERVER)?;
        let inputs: Vec<OsString> =
            inferences.iter().flatten().flat_map(|input| ["--input".into(), input.clone()]).collect();
        crew.spawn(CLIENT, CLIENT, &["--server", &server, "online", "--raw", RAW_FILE], &inputs)?;
        crew.wait_for(&[CLIENT, SERVER])?;
        let outputs = take(&self.home.path().join(CLIENT).join(RAW_FILE))?;
        Ok((outputs, crew.ended()))
    }

    /// Removes everything.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        self.home.close()
    }
}

/// Runs this program again with `args` in `dir`, alone, until it has ended well.
pub(crate) fn alone(
    name: &'static str,
    dir: &Path,
    args: Vec<OsString>,
    watch: &Watch,
    terminal: &Terminal,
) -> anyhow::Result<Process> {
    let network = Network::loopback();
    let mut crew = Crew::new(dir.to_owned(), &network, watch, terminal);
    crew.spawn_alone(name, args)?;
    crew.wait_for(&[name])?;
    crew.ended().pop().with_context(|| format!("the {name} left no report"))
}

/// The revealed integers, inference by inference.
fn take(path: &Path) -> anyhow::Result<Vec<Outputs>> {
    let raw = std::fs::read_to_string(path).with_context(|| format!("the client left no {RAW_FILE}"))?;
    std::fs::remove_file(path).with_context(|| format!("cannot remove the client's {RAW_FILE}"))?;
    let parse = |line| serde_json::from_str(line).with_context(|| format!("the client's {RAW_FILE}"));
    raw.lines().map(parse).collect()
}

//! Three parties that compute on shares, on this machine, each a process with only its own files. This command shares the
//! weights and inputs, as their owners would, and puts the outputs together.

use std::path::PathBuf;

use privet::Plan;
use privet::client::Outputs;
use privet::model::LoadedModel;
use privet::setup::setup_cluster;
use privet::sharing::{self, CLUSTER_FILE, Cluster};
use privet_plan::Weights;

use super::{ANYWHERE, MODEL_DIR, Process, crew::Crew};
use crate::network::Network;
use crate::scratch::Scratch;
use crate::show::observe::Terminal;
use crate::watch::Watch;

/// In the order of their numbers; also the names that setup gives them.
pub(crate) const PARTIES: [&str; 3] = ["party0", "party1", "party2"];
/// The command that runs each of them.
const PARTY: &str = "party";
/// A party's shares of inputs, and of outputs.
const INPUTS_DIR: &str = "inputs";
const RESULTS_DIR: &str = "results";

/// The three parties of one model, with fresh identities in a temporary directory.
pub(crate) struct ThreeParties<'a> {
    // First: children end before their directories go.
    crew: Crew<'a>,
    home: Scratch,
    cluster: Cluster,
}

impl<'a> ThreeParties<'a> {
    /// Sets the parties up, their connections as slow as `network`, and gives each its share of the weights.
    pub(crate) fn new(
        plan: &Plan,
        weights: &Weights,
        network: &'a Network,
        watch: &'a Watch,
        terminal: &'a Terminal,
    ) -> anyhow::Result<Self> {
        let home = Scratch::new()?;
        setup_cluster(home.path(), &[ANYWHERE; 3].map(str::to_owned))?;
        let cluster = Cluster::load(&home.path().join(CLUSTER_FILE))?;
        let crew = Crew::new(home.path().to_owned(), network, watch, terminal);
        let parties = Self { crew, home, cluster };
        let shared = LoadedModel { plan: plan.clone(), weights: weights.clone() };
        let staging = parties.home.path().join("shares");
        watch.computing(|| sharing::share_weights(&shared, &parties.cluster, &staging))?;
        parties.hand_out(&staging, MODEL_DIR)?;
        Ok(parties)
    }

    /// Moves each party's shares into its directory, under `name`.
    fn hand_out(&self, staging: &std::path::Path, name: &str) -> anyhow::Result<()> {
        for party in PARTIES {
            std::fs::rename(staging.join(party), self.dir(party).join(name))?;
        }
        Ok(())
    }

    /// A party's directory.
    pub(crate) fn dir(&self, party: &str) -> PathBuf {
        self.home.path().join(party)
    }

    /// One inference after the other, on fixed-point inputs. Returns the outputs of each.
    pub(crate) fn infer(
        &mut self,
        plan: &Plan,
        inferences: &[Vec<Vec<i64>>],
    ) -> anyhow::Result<(Vec<Outputs>, Vec<Process>)> {
        let staging = self.home.path().join("input-shares");
        for (n, inputs) in inferences.iter().enumerate() {
            sharing::share_inputs(plan, inputs, &self.cluster, &staging, &n.to_string())?;
        }
        self.hand_out(&staging, INPUTS_DIR)?;
        let mut args: Vec<String> =
            ["--model", MODEL_DIR, "--out", RESULTS_DIR].into_iter().map(str::to_owned).collect();
        for n in 0..inferences.len() {
            args.extend(["--input".to_owned(), format!("{INPUTS_DIR}/{n}.share")]);
        }
        // Each connects to those before it.
        for (i, party) in PARTIES.into_iter().enumerate() {
            let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
            let known = PARTIES[..i].iter().map(|p| Ok(format!("{p}={}", self.crew.address(p)?)));
            let known: Vec<String> = known.collect::<anyhow::Result<_>>()?;
            args.extend(known.iter().flat_map(|peer| ["--peer", peer]));
            if i + 1 < PARTIES.len() {
                args.extend(["--listen", ANYWHERE]);
            }
            self.crew.spawn(party, PARTY, &args, &[])?;
        }
        self.crew.wait_for(&PARTIES)?;
        let mut outputs = Vec::with_capacity(inferences.len());
        for n in 0..inferences.len() {
            let result = |party| self.dir(party).join(RESULTS_DIR).join(format!("{n}.result.share"));
            outputs.push(sharing::reveal(plan, &PARTIES.map(result))?);
        }
        Ok((outputs, self.crew.ended()))
    }

    /// Removes everything.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        self.home.close()
    }
}

//! What launch needs on this machine: the cluster's directory as `privet setup` makes it, and shares as `privet share` does.

use std::path::{Path, PathBuf};

use anyhow::Context;
use privet::config::CONFIG_FILE;
use privet::model::PLAN_FILE;
use privet::sharing::{CLUSTER_FILE, Cluster, WEIGHTS_SHARE_FILE};

use crate::args::hosts::Host;
use crate::args::launch::LaunchArgs;
use crate::exit::{Code, Failure};

const SHARE: &str = ".share";
const RESULT: &str = ".result.share";

/// The cluster, and what each of its parties is given.
pub(super) struct Local {
    /// The parties, each with the host it runs on, in the order of their numbers.
    pub(super) parties: Vec<(String, Host)>,
    /// Absolute paths of directories that hold one for each party.
    pub(super) sources: Vec<PathBuf>,
    /// What the parties run, with placeholders.
    pub(super) command: Vec<String>,
    /// What is odd but no error.
    pub(super) warnings: Vec<String>,
}

impl Local {
    pub(super) fn find(args: &LaunchArgs) -> anyhow::Result<Self> {
        let cluster = cluster(args)?;
        let names: Vec<&str> = cluster.parties.iter().map(|party| party.name.as_str()).collect();
        let hosts = hosts(args, &cluster)?;
        let mut sources = vec![absolute(&args.cluster)?];
        for name in &names {
            let config = args.cluster.join(name).join(CONFIG_FILE);
            if !config.is_file() {
                let dir = args.cluster.join(name);
                return Err(missing(format!(
                    "{}: not found; launch needs the directories of all three parties, as privet setup makes them: {}",
                    config.display(),
                    if dir.is_dir() { "this one has no configuration" } else { "this one is missing" }
                )));
            }
        }
        let command = if args.command.is_empty() {
            party_command(args, &names)?
        } else {
            check_complete(&args.shares, &names)?;
            args.command.clone()
        };
        let shares = absolute(&args.shares)?;
        // Shares may lie where the configurations do.
        let is_same = || Some(shares.canonicalize().ok()? == sources[0].canonicalize().ok()?);
        if shares.is_dir() && is_same() != Some(true) {
            sources.push(shares);
        }
        let warnings = unreachable(&cluster, &hosts);
        let parties = names.into_iter().map(str::to_owned).zip(hosts).collect();
        Ok(Self { parties, sources, command, warnings })
    }
}

fn missing(text: String) -> anyhow::Error {
    Failure::error(Code::Input, text)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("no path for {}", path.display()))
}

fn cluster(args: &LaunchArgs) -> anyhow::Result<Cluster> {
    let file = args.cluster.join(CLUSTER_FILE);
    if file.is_file() {
        return Ok(Cluster::load(&file)?);
    }
    let example = ["a.example", "b.example", "c.example"].map(str::to_owned);
    let given: Vec<String> = args.hosts.iter().map(|host| host.name.clone()).collect();
    let hosts = <[String; 3]>::try_from(given).unwrap_or(example);
    // On one host they need ports of their own.
    let is_one = hosts.iter().all(|host| *host == hosts[0]);
    let option = |(i, host): (usize, &String)| {
        let port = if is_one { 7200 + i } else { 7200 };
        if host.contains(':') { format!(" --host [{host}]:{port}") } else { format!(" --host {host}:{port}") }
    };
    let hosts: String = hosts.iter().enumerate().map(option).collect();
    let out = args.cluster.display();
    Err(missing(format!(
        "{}: not found; make a cluster with: privet setup --parties 3 --out {out}{hosts}",
        file.display()
    )))
}

fn hosts(args: &LaunchArgs, cluster: &Cluster) -> anyhow::Result<Vec<Host>> {
    let expected = cluster.parties.len();
    match args.hosts.len() {
        0 => {
            let host = |address: &str| {
                Host::of_address(address).map_err(|problem| missing(format!("{CLUSTER_FILE}: {problem}")))
            };
            cluster.parties.iter().map(|party| host(&party.address)).collect()
        }
        found if found != expected => {
            let text = format!("--hosts: expected {expected}, one for each party, found {found}");
            Err(Failure::error(Code::Usage, text))
        }
        _ => Ok(args.hosts.clone()),
    }
}

/// `privet party` with its directory and shares, as they lie on the host.
fn party_command(args: &LaunchArgs, names: &[&str]) -> anyhow::Result<Vec<String>> {
    let (to, out) = (args.cluster.join(CLUSTER_FILE), &args.shares);
    let share = format!("privet share --model MODEL --to {} --out {}", to.display(), out.display());
    let first_missing =
        |file: &str| names.iter().map(|name| args.shares.join(name).join(file)).find(|path| !path.is_file());
    if let Some(path) = [PLAN_FILE, WEIGHTS_SHARE_FILE].into_iter().find_map(first_missing) {
        return Err(missing(format!("{}: not found; share the weights: {share}", path.display())));
    }
    let inputs = inputs(args, names[0])?;
    if inputs.is_empty() {
        let dir = args.shares.join(names[0]);
        return Err(missing(format!("{}: no share of an input; make them: {share} INPUT", dir.display())));
    }
    if let Some(path) = inputs.iter().find_map(|input| first_missing(input)) {
        return Err(missing(format!("{}: not found; share the input: {share} INPUT", path.display())));
    }
    let mut command = vec![args.privet.clone()];
    command.extend(["party", "--config", "{name}", "--model", "{name}", "--out"].map(str::to_owned));
    command.push(super::commands::RESULTS_DIR.to_owned());
    command.extend(inputs.into_iter().flat_map(|input| ["--input".to_owned(), format!("{{name}}/{input}")]));
    Ok(command)
}

/// Files of the inputs that are asked for, or of all that there are, by name.
fn inputs(args: &LaunchArgs, first: &str) -> anyhow::Result<Vec<String>> {
    if !args.input.is_empty() {
        let file = |name: &String| format!("{}{SHARE}", name.strip_suffix(SHARE).unwrap_or(name));
        return Ok(args.input.iter().map(file).collect());
    }
    let dir = args.shares.join(first);
    let entries = dir.read_dir().with_context(|| format!("cannot read {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| format!("cannot read {}", dir.display()))?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.ends_with(SHARE) && !name.ends_with(RESULT) && name != WEIGHTS_SHARE_FILE {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// For a command of its own, shares are optional; but a party's alone cannot be missing.
fn check_complete(shares: &Path, names: &[&str]) -> anyhow::Result<()> {
    match names.iter().map(|name| shares.join(name)).find(|dir| shares.is_dir() && !dir.is_dir()) {
        Some(dir) => Err(missing(format!("{}: not found; the others' are there", dir.display()))),
        None => Ok(()),
    }
}

/// Says so where parties on several hosts are to reach each other at a loopback address.
fn unreachable(cluster: &Cluster, hosts: &[Host]) -> Vec<String> {
    if hosts.iter().all(|host| host.name == hosts[0].name) {
        return Vec::new();
    }
    let is_loopback = |host: &Host| {
        host.name == "localhost"
            || host.name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    let addresses = cluster.parties.iter().zip(hosts).filter(|(party, host)| {
        !is_loopback(host) && Host::of_address(&party.address).is_ok_and(|own| is_loopback(&own))
    });
    let warn = |(party, host): (&privet::sharing::Member, &Host)| {
        let (name, address) = (&party.name, &party.address);
        format!("{CLUSTER_FILE}: the others are to reach {name} at {address}, which only {host} itself can")
    };
    addresses.map(warn).collect()
}

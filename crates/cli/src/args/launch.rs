//! Arguments of `launch`.

use std::path::{Component, Path, PathBuf};

use clap::Args;

use super::hosts::{self, Host};

pub(crate) const LAUNCH_HELP: &str = "\
Examples:
  privet setup --parties 3 --out cluster \\
      --host a.example:7200 --host b.example:7200 --host c.example:7200
  privet share --model model --to cluster/cluster.toml --out shares
  privet share --model model/plan.privet --to cluster/cluster.toml --out shares x.jpg
  privet launch --hosts a.example,b.example,c.example --ssh me
  privet reveal --model model/plan.privet results/party*/x.result.share

  privet launch --dry-run                             # the commands, and nothing else
  privet launch --input x --privet /opt/privet/bin/privet --json
  privet launch -- sh -c 'uname -a > results/{name}.txt; nproc'

On each host a new directory is made; party0 in it, or whichever it is, gets the party's
configuration, private key and shares, and COMMAND runs there: without one, privet party on every
shared input. In COMMAND, {index} is the party's number, {name} its name, {host} its host, {dir} the
directory. Files that it leaves in results are fetched into --out, where each party's log is as
well. Then the directory is removed.

Ctrl-C, a host that fails, and the deadline end all parties; so does kill -9, or the loss of the
connection. ssh asks nobody for anything: keys of hosts have to be known, and logins to work without
a password.

Whoever launches holds all three keys, and so everything that the parties are to keep from each
other: it is for clusters of one owner, and for measurements.";

#[derive(Debug, Args)]
pub(crate) struct LaunchArgs {
    /// Where party0, party1 and party2 run, as ssh knows these hosts; HOST:PORT for another port of ssh [default: the hosts
    /// of cluster.toml].
    #[arg(long, value_name = "A,B,C", value_delimiter = ',', value_parser = Host::parse)]
    pub(crate) hosts: Vec<Host>,
    /// The user to log in as [default: as ssh does].
    #[arg(long, value_name = "USER", value_parser = hosts::user)]
    pub(crate) ssh: Option<String>,
    /// The cluster's directory, made by `privet setup --parties 3`.
    #[arg(long, value_name = "DIR", default_value = "cluster")]
    pub(crate) cluster: PathBuf,
    /// Directory of the parties' shares, made by `privet share`.
    #[arg(long, value_name = "DIR", default_value = "shares")]
    pub(crate) shares: PathBuf,
    /// What the shares of an input are called; an inference for each [default: all there are, by name].
    #[arg(long, value_name = "NAME", value_parser = file_name, conflicts_with = "command")]
    pub(crate) input: Vec<String>,
    /// The program on the hosts.
    #[arg(long, value_name = "PATH", default_value = "privet", value_parser = program, conflicts_with = "command")]
    pub(crate) privet: String,
    /// The directory to make on each host, from the user's home; {index} stands for the party's number [default: a name
    /// that is not taken].
    #[arg(long, value_name = "DIR", value_parser = remote_dir)]
    pub(crate) dir: Option<String>,
    /// Where results and logs go.
    #[arg(short, long, value_name = "DIR", default_value = "results")]
    pub(crate) out: PathBuf,
    /// Leave the directories on the hosts, with keys and shares.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Bound on the whole run.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) deadline: u64,
    /// Print the commands that would be run, one per line, and run none.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// One line of JSON on stdout; everything else goes to stderr.
    #[arg(long)]
    pub(crate) json: bool,
    /// What to run on each host instead of `privet party`.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// A file's name, without a directory.
fn file_name(text: &str) -> Result<String, String> {
    if text.is_empty()
        || text.starts_with('.')
        || text.contains(['/', '\\', '{'])
        || text.contains(char::is_control)
    {
        return Err("expected the name of a share, without a directory".to_owned());
    }
    Ok(text.to_owned())
}

fn program(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('-') {
        return Err("expected a program's name or path".to_owned());
    }
    Ok(text.to_owned())
}

/// A directory to be made, and removed: not one that is anything else already.
fn remote_dir(text: &str) -> Result<String, String> {
    let is_plain =
        Path::new(text).components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir));
    if text.starts_with('~') {
        return Err("expected a path from the user's home, without ~, or an absolute one".to_owned());
    }
    if !is_plain || Path::new(text).file_name().is_none() || text.contains(char::is_control) {
        return Err("expected a directory that is not there yet, without . and ..".to_owned());
    }
    Ok(text.to_owned())
}

//! Arguments of `share`, `party` and `reveal`.

use std::path::PathBuf;

use clap::Args;

use super::common::{AnswerArgs, ProcessArgs, address};

pub(crate) const SHARE_HELP: &str = "\
Examples:
  privet share --model model --to cluster/cluster.toml --out shares             # the weights, and the plan
  privet share --model model/plan.privet --to cluster/cluster.toml --out shares x.jpg
  scp -r shares/party0 a.example:     # and so on: each directory to its party, and to nobody else

One call for each inference. A share alone is uniformly random; two parties' shares together are the
weights or the input. Parties see the name of the shares: --name gives another than the file's.";

pub(crate) const PARTY_HELP: &str = "\
Example, on each of the three hosts:
  privet party --config party0 --model shares/party0 --input shares/party0/x.share --out results

The directory of --model holds plan.privet and weights.share, as privet share writes them. With several
--input one inference runs after the other; the three parties take turns as dealer. What is written to
--out is this party's share of the outputs: privet reveal puts two of them together.";

pub(crate) const REVEAL_HELP: &str = "\
Examples:
  privet reveal --model model/plan.privet results0/x.result.share results1/x.result.share
  privet reveal --model model/plan.privet results*/x.result.share --output y.npz --json

Two parties' shares are enough; with three, what two of them hold alike is compared.";

#[derive(Debug, Args)]
pub(crate) struct ShareArgs {
    /// An input of the model: JPEG, PNG, .npy, .npz or .csv; NAME=FILE where it has several. Without any, the weights are shared.
    #[arg(value_name = "[NAME=]FILE")]
    pub(crate) input: Vec<PathBuf>,
    /// Directory made by `privet compile`; for inputs the public plan.privet is enough.
    #[arg(long, value_name = "PATH")]
    pub(crate) model: PathBuf,
    /// The cluster's public description, written by `privet setup --parties 3`.
    #[arg(long, value_name = "cluster.toml")]
    pub(crate) to: PathBuf,
    /// A directory for each party is made in here.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// What the shares of an input are called [default: the name of the first file].
    #[arg(long, value_name = "NAME", requires = "input")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PartyArgs {
    /// The party's directory or privet.toml.
    #[arg(long, value_name = "PATH", default_value = ".")]
    pub(crate) config: PathBuf,
    /// Directory of the plan and of this party's share of the weights.
    #[arg(long, value_name = "DIR", default_value = "model")]
    pub(crate) model: PathBuf,
    /// This party's share of an input; an inference for each.
    #[arg(long, value_name = "FILE.share", required = true)]
    pub(crate) input: Vec<PathBuf>,
    /// Where its shares of the outputs are written.
    #[arg(short, long, value_name = "DIR", default_value = "results")]
    pub(crate) out: PathBuf,
    /// Listen here instead of the configured address.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub(crate) listen: Option<String>,
    /// Another party's address, instead of the configured one.
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = named_address)]
    pub(crate) peer: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RevealArgs {
    /// Two or three parties' shares of the outputs.
    #[arg(value_name = "FILE.share", num_args = 2..=3, required = true)]
    pub(crate) shares: Vec<PathBuf>,
    /// Directory made by `privet compile`, or plan.privet.
    #[arg(long, value_name = "PATH")]
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs,
}

/// `NAME=HOST:PORT`.
fn named_address(text: &str) -> Result<(String, String), String> {
    let (name, rest) = text.split_once('=').ok_or("expected NAME=HOST:PORT")?;
    Ok((name.to_owned(), address(rest)?))
}

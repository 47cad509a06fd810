//! Three parties that compute on shares, and those whose data it is: `share`, `party` and `reveal`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use privet::model::{self, LoadedModel, PLAN_FILE};
use privet::party::{self, PartyOptions};
use privet::sharing::{self, Cluster};
use privet::{PartyRole, Plan, output};

use crate::args::{AnswerArgs, ProcessArgs, address};
use crate::commands::{config, decode, observer, print_line};
use crate::exit::{Code, Failure};
use crate::show::json::Answer;
use crate::show::{answer, print};
use crate::signals;

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

pub(crate) fn share(args: &ShareArgs) -> anyhow::Result<()> {
    let cluster = Cluster::load(&args.to)?;
    if args.input.is_empty() && !args.model.is_dir() {
        let text = format!(
            "no input is named, so the weights would be shared: --model {} has to be the directory made by privet compile",
            args.model.display()
        );
        return Err(Failure::error(Code::Usage, text));
    }
    let written = if args.input.is_empty() {
        let model = LoadedModel::load(&args.model)?;
        sharing::share_weights(&model, &cluster, &args.out)?
    } else {
        let plan = plan(&args.model)?;
        let inputs = model::load_inputs(&plan, &args.input)?;
        let integers = model::fixed_inputs(&plan, &inputs)?;
        let name = args.name.clone().or_else(|| name(&plan, &args.input[0]));
        let name = name.context("--name: a name for the shares is needed")?;
        if name.contains(['/', '\\']) || name.starts_with('.') {
            let text = format!("--name {name:?}: expected the name of a file, without a directory");
            return Err(Failure::error(Code::Usage, text));
        }
        sharing::share_inputs(&plan, &integers, &cluster, &args.out, &name)?
    };
    for (path, party) in written.iter().zip(&cluster.parties) {
        print(&format!("{}: for {} at {} only", path.display(), party.name, party.address))?;
    }
    Ok(())
}

/// The name of a file without directory and extension.
fn name(plan: &Plan, input: &Path) -> Option<String> {
    let file = model::NamedFile::parse(plan, input).file;
    Some(file.file_stem()?.to_string_lossy().into_owned())
}

/// The plan of a model's directory, or a plan file.
fn plan(path: &Path) -> anyhow::Result<Plan> {
    let file = if path.is_dir() { path.join(PLAN_FILE) } else { path.to_owned() };
    Ok(model::load_plan(&file)?)
}

pub(crate) fn party(args: &PartyArgs) -> anyhow::Result<()> {
    let observer = observer(&args.process)?;
    let config = config(&args.config, PartyRole::Party, &args.process)?;
    if let Some((unknown, _)) =
        args.peer.iter().find(|(name, _)| config.peers.iter().all(|p| p.name != *name))
    {
        let known: Vec<&str> = config.peers.iter().map(|p| p.name.as_str()).collect();
        let text = format!("--peer {unknown}: the configuration names {}", known.join(" and "));
        return Err(Failure::error(Code::Usage, text));
    }
    let options = PartyOptions {
        listen: args.listen.clone(),
        peers: args.peer.clone(),
        model: args.model.clone(),
        inputs: args.input.clone(),
        out: args.out.clone(),
    };
    signals::end_at_once()?;
    party::run(config, &options, &*observer)?;
    Ok(())
}

pub(crate) fn reveal(args: &RevealArgs) -> anyhow::Result<()> {
    let plan = plan(&args.model)?;
    if let Some(path) = &args.answer.output {
        output::check_path(path, plan.outputs.len())?;
    }
    let revealed = sharing::reveal(&plan, &args.shares)?;
    let outputs = decode(&plan, &revealed)?;
    let best = answer::best(&outputs, &plan.labels, args.answer.topk);
    if let Some(path) = &args.answer.output {
        answer::write(path, &outputs)?;
    }
    if args.answer.json {
        return print_line(&Answer::new(&plan, &outputs, &best));
    }
    print(&answer::describe(&outputs, &best))
}

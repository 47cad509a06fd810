//! Three parties that compute on shares, and those whose data it is: `share`, `party` and `reveal`.

use std::path::Path;

use anyhow::Context;
use privet::model::{self, LoadedModel, PLAN_FILE};
use privet::party::{self, PartyOptions};
use privet::sharing::{self, Cluster};
use privet::{PartyRole, Plan, output};

use crate::args::cluster::{PartyArgs, RevealArgs, ShareArgs};
use crate::commands::{config, decode, observer, print_line};
use crate::exit::{Code, Failure};
use crate::show::json::Answer;
use crate::show::{answer, print};
use crate::signals;

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
    let file = model::NamedFile::parse(&plan.inputs, input).file;
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

//! The commands of a single party, and those that prepare parties and models.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::Context;
use privet::client::{self, ClientOptions};
use privet::dealer::{self, DealerOptions};
use privet::model::{self, CompileOptions, LoadedModel, Model, PLAN_FILE, WEIGHTS_FILE};
use privet::server::{self, ServerOptions};
use privet::setup::SetupOptions;
use privet::{Observer, PartyConfig, PartyRole, PlanSummary, RevealTo, output, postprocess};

use crate::args::{
    ClientArgs, ClientPhase, CompileArgs, DealerArgs, Engine, LoweringArgs, OnlineArgs, ProcessArgs, Reveal,
    ServerArgs, ServerPhase, SetupArgs,
};
use crate::choice::{self, program};
use crate::exit::{Code, Failure};
use crate::network::Network;
use crate::show::accuracy_line;
use crate::show::json::{Answer, ClientResult, CompileResult, Online};
use crate::show::observe::{JsonLines, Terminal, describe};
use crate::show::{self, answer, print, table};
use crate::signals;

pub(crate) fn setup(args: &SetupArgs) -> anyhow::Result<()> {
    let SetupArgs { out, server, dealer, client, parties, host } = args;
    let made = if parties.is_some() {
        let count = host.len();
        let hosts = host.clone().try_into().map_err(|_| {
            Failure::error(Code::Usage, format!("--host: expected three times, found {count} times"))
        })?;
        privet::setup::setup_cluster(out, &hosts)?
    } else {
        let (server, dealer, clients) = (server.clone(), dealer.clone(), client.clone());
        privet::setup::setup(&SetupOptions { out: out.clone(), server, dealer, clients })?
    };
    for party in made {
        print(&format!("{:8} {} {}", party.role, party.fingerprint, party.dir.display()))?;
    }
    print("Copy each directory to its host and delete it here: it holds that party's private key.")
}

pub(crate) fn compile(args: &CompileArgs) -> anyhow::Result<()> {
    args.keys.check(&[args.engine])?;
    if let (Some(network), false) = (&args.network, args.engine == Engine::Auto) {
        let text = format!("--network {network}: only --engine auto chooses for a network");
        return Err(Failure::error(Code::Usage, text));
    }
    let terminal = Terminal::new();
    let mut model = {
        let _spinner = terminal.spinner("compiling");
        lower(&args.model, &args.lowering)?
    };
    let network = args.network.clone().unwrap_or_else(Network::lan);
    let choice = if args.engine == Engine::Auto {
        let _spinner = terminal.spinner("calibrating this machine");
        let (choice, _) = choice::choose(&model.plan, RevealTo::Client, &network, &args.keys)?;
        model.plan = choice.plan.clone();
        Some(choice)
    } else {
        model.plan = program(args.engine, &model.plan, &network, &args.keys)?;
        None
    };
    model.save(&args.output)?;
    let summary = PlanSummary::of(&model.plan);
    if args.json {
        let (calibration, choice) = (model.accuracy.as_ref(), choice.as_ref());
        return print_line(&CompileResult { plan: &summary, calibration, choice });
    }
    let size = |file: &str| {
        let path = args.output.join(file);
        let length = std::fs::metadata(&path).map_or(0, |m| m.len());
        format!("{} ({})", path.display(), table::bytes(length))
    };
    let mut text = describe(&summary);
    if let Some(accuracy) = &model.accuracy {
        text.push_str(&format!("\n  {}", accuracy_line(accuracy)));
    }
    if let Some(choice) = &choice {
        text.push_str(&format!("\n  {}", show::choice::line(&network, choice)));
    }
    print(&format!("{text}\npublic:  {}\nprivate: {}", size(PLAN_FILE), size(WEIGHTS_FILE)))
}

/// Compiles with the options of the command line.
pub(crate) fn lower(path: &Path, args: &LoweringArgs) -> anyhow::Result<Model> {
    let options = CompileOptions {
        ring: args.ring,
        frac_bits: args.frac_bits,
        calibrate: args.calibrate.clone(),
        samples: Vec::new(),
        preprocess: args.preprocess.clone(),
        labels: args.labels.clone(),
        margin: args.margin,
        tolerance: args.tolerance,
        input_ranges: args.input_range.clone(),
        input_shapes: args.input_shape.clone(),
    };
    let model = model::compile(path, &options)?;
    warn_of_tolerance(&model);
    Ok(model)
}

/// Says so where calibration could not keep to its tolerance.
pub(crate) fn warn_of_tolerance(model: &Model) {
    if let Some(accuracy) = model.accuracy.as_ref().filter(|a| !a.is_met()) {
        eprintln!(
            "warning: no number of fractional bits that fits keeps the error within {:e}; with {} it is {:.2e} on the calibration \
             inputs; use a wider --ring or a larger --tolerance",
            accuracy.tolerance.unwrap_or_default(),
            model.plan.frac_bits,
            accuracy.relative_error
        );
    }
}

pub(crate) fn dealer(args: &DealerArgs) -> anyhow::Result<()> {
    let observer = observer(&args.process)?;
    let config = config(&args.config, PartyRole::Dealer, &args.process)?;
    let stop = signals::stop_flag()?;
    let options = DealerOptions { listen: args.listen.clone(), bundles: args.bundles, stop };
    dealer::serve(config, &options, &*observer)?;
    Ok(())
}

pub(crate) fn server(args: &ServerArgs) -> anyhow::Result<()> {
    let observer = observer(&args.process)?;
    let config = config(&args.config, PartyRole::Server, &args.process)?;
    let model = LoadedModel::load(&args.model)?;
    let (listen, dealer) = (args.listen.clone(), args.dealer.clone());
    let stop = signals::stop_flag()?;
    match args.phase {
        ServerPhase::Offline { count, sessions } => {
            let options = ServerOptions { listen, dealer, count, sessions, stop };
            server::offline(config, model, &options, &*observer)?;
        }
        ServerPhase::Online { sessions } => {
            let options = ServerOptions { listen, dealer, count: 0, sessions, stop };
            server::online(config, model, &options, &*observer)?;
        }
    }
    Ok(())
}

pub(crate) fn client(args: &ClientArgs) -> anyhow::Result<()> {
    let observer = observer(&args.process)?;
    let config = config(&args.config, PartyRole::Client, &args.process)?;
    let options = ClientOptions {
        server: args.server.clone(),
        dealer: args.dealer.clone(),
        count: 0,
        reveal_to: RevealTo::Client,
    };
    signals::end_at_once()?;
    match &args.phase {
        ClientPhase::Offline { count } => {
            client::offline(config, &ClientOptions { count: *count, ..options }, &*observer)?;
            Ok(())
        }
        ClientPhase::Online(online) => ask(config, online, options, args.process.events, &*observer),
    }
}

fn ask(
    config: PartyConfig,
    args: &OnlineArgs,
    options: ClientOptions,
    is_child: bool,
    observer: &dyn Observer,
) -> anyhow::Result<()> {
    let plan = Arc::new(client::plan(&config)?);
    if let Some(path) = &args.answer.output {
        output::check_path(path, plan.outputs.len())?;
    }
    let inputs = inputs(&plan, &args.input, config.deadlines.wait)?;
    if matches!(args.reveal_to, Reveal::Server) && args.answer.output.is_some() {
        let text =
            "--output: with --reveal-to server this party learns nothing to write; leave one of them out";
        return Err(Failure::error(Code::Usage, text));
    }
    let options = ClientOptions { reveal_to: args.reveal_to.into(), ..options };
    let (revealed, report) = client::online(config, &inputs, &options, observer)?;
    if let (Some(path), Some(integers)) = (&args.raw, &revealed) {
        let write = || -> anyhow::Result<()> { Ok(std::fs::write(path, serde_json::to_vec(integers)?)?) };
        write().with_context(|| format!("cannot write {}", path.display()))?;
    }
    if is_child {
        return Ok(());
    }
    let outputs = match &revealed {
        Some(integers) => decode(&plan, integers)?,
        None => Vec::new(),
    };
    let best = answer::best(&outputs, &plan.labels, args.answer.topk);
    if let (Some(path), Some(_)) = (&args.answer.output, &revealed) {
        answer::write(path, &outputs)?;
    }
    if args.answer.json {
        let online = Online::total(std::iter::once(&report));
        return print_line(&ClientResult { answer: Answer::new(&plan, &outputs, &best), online });
    }
    match revealed {
        Some(_) => print(&answer::describe(&outputs, &best)),
        None => print("The server has learnt the outputs; this party has not, as --reveal-to server asks."),
    }
}

/// Loads the inputs. One may be a pipe, and then the process that writes it is waited for like a peer.
fn inputs(plan: &Arc<privet::Plan>, paths: &[PathBuf], wait: Duration) -> anyhow::Result<Vec<Vec<i64>>> {
    let (sender, receiver) = channel();
    let (own, files) = (Arc::clone(plan), paths.to_vec());
    // If it is stuck it ends with this process.
    std::thread::spawn(move || sender.send(model::load_inputs(&own, &files)));
    match receiver.recv_timeout(wait) {
        Ok(loaded) => Ok(model::fixed_inputs(plan, &loaded?)?),
        Err(RecvTimeoutError::Timeout) => {
            let text = format!("--input: not read within {wait:.1?}; is it a pipe that nobody writes to?");
            Err(Failure::error(Code::Deadline, text))
        }
        Err(RecvTimeoutError::Disconnected) => {
            Err(Failure::error(Code::Internal, "--input: reading it failed with an internal error"))
        }
    }
}

/// Revealed integers as floats.
pub(crate) fn decode(plan: &privet::Plan, revealed: &[Vec<i64>]) -> anyhow::Result<Vec<postprocess::Output>> {
    postprocess::decode(plan, revealed).map_err(|problem| Failure::error(Code::Internal, problem))
}

/// One line of JSON on stdout.
pub(crate) fn print_line(result: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string(result)?)
}

pub(crate) fn config(path: &Path, role: PartyRole, args: &ProcessArgs) -> anyhow::Result<PartyConfig> {
    let mut config = PartyConfig::load(path, role)?;
    config.link = args.network.link;
    Ok(config)
}

/// Tells a parent or a person.
pub(crate) fn observer(args: &ProcessArgs) -> anyhow::Result<Box<dyn Observer>> {
    if let Some(parent) = args.exit_with_parent {
        signals::exit_with_parent(parent)?;
    }
    Ok(if args.events { Box::new(JsonLines::default()) } else { Box::new(Terminal::new()) })
}

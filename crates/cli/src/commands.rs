//! The commands of a single party, and those that prepare parties and models.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::Context;
use privet::client::{self, ClientOptions, Outputs, Session};
use privet::dealer::{self, DealerOptions};
use privet::model::{self, CompileOptions, LoadedModel, Model, NamedFile, PLAN_FILE, WEIGHTS_FILE};
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
use crate::show::json::{Agreement, Answer, ClientCost, ClientResult, CompileResult, Online, SessionResult};
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

/// Inputs of a session that are decoded before it begins.
const KEPT_BYTES: usize = 64 << 20;

fn ask(
    config: PartyConfig,
    args: &OnlineArgs,
    options: ClientOptions,
    is_child: bool,
    observer: &dyn Observer,
) -> anyhow::Result<()> {
    let plan = Arc::new(client::plan(&config)?);
    let groups = model::group_inputs(&plan.inputs, &args.input);
    if let Some(path) = &args.answer.output {
        for n in 0..groups.len() {
            output::check_path(&numbered(path, n, groups.len()), plan.outputs.len())?;
        }
    }
    if matches!(args.reveal_to, Reveal::Server) && args.answer.output.is_some() {
        let text =
            "--output: with --reveal-to server this party learns nothing to write; leave one of them out";
        return Err(Failure::error(Code::Usage, text));
    }
    // Files are read before anything is agreed on, so that a wrong one costs no material. A pipe is read when the inference waits
    // for it. Those beyond a bound are read again then: the time that it takes shows to the server.
    let wait = config.deadlines.wait;
    let mut kept = 0;
    let mut early: Vec<Option<Vec<Vec<i64>>>> = Vec::with_capacity(groups.len());
    for group in &groups {
        let integers = if has_pipe(&plan, group) { None } else { Some(inputs(&plan, group, wait)?) };
        kept += integers.iter().flatten().map(|values| size_of::<i64>() * values.len()).sum::<usize>();
        let is_kept = early.is_empty() || kept <= KEPT_BYTES;
        early.push(integers.filter(|_| is_kept));
    }
    let mut raw = args.raw.as_deref().map(Raw::create).transpose()?;
    let options = ClientOptions { reveal_to: args.reveal_to.into(), ..options };
    let mut agreed = Session::open(config, &options, groups.len() as u64, observer)?;
    let mut n = 0;
    let (answer, report) = loop {
        let given = early[n].take().map_or_else(|| inputs(&plan, &groups[n], wait), Ok);
        let integers = match given {
            Ok(integers) => integers,
            Err(error) => {
                let _ = agreed.close();
                return Err(error);
            }
        };
        let (revealed, session) = agreed.infer(&integers)?;
        if let (Some(raw), Some(integers)) = (&mut raw, &revealed) {
            raw.append(integers)?;
        }
        let answer = Revealed::new(&plan, args, revealed.as_ref())?;
        if let (Some(path), Some(_)) = (&args.answer.output, &revealed) {
            answer::write(&numbered(path, n, groups.len()), &answer.outputs)?;
        }
        n += 1;
        if session.left() == 0 {
            break (answer, session.close()?);
        }
        if !is_child {
            answer.print(&plan, args.answer.json, None)?;
        }
        agreed = session.agree()?;
    };
    if is_child {
        return Ok(());
    }
    let cost = ClientCost { online: Online::of(&report), agreement: Agreement::of(&report) };
    if groups.len() == 1 {
        return answer.print(&plan, args.answer.json, Some(cost));
    }
    answer.print(&plan, args.answer.json, None)?;
    if args.answer.json { print_line(&SessionResult { inferences: report.inferences, cost }) } else { Ok(()) }
}

/// What one inference has given this party.
struct Revealed {
    is_told: bool,
    outputs: Vec<postprocess::Output>,
    best: Vec<postprocess::Top>,
}

impl Revealed {
    fn new(plan: &privet::Plan, args: &OnlineArgs, revealed: Option<&Outputs>) -> anyhow::Result<Self> {
        let outputs = revealed.map_or(Ok(Vec::new()), |integers| decode(plan, integers))?;
        let best = answer::best(&outputs, &plan.labels, args.answer.topk);
        Ok(Self { is_told: revealed.is_some(), outputs, best })
    }

    fn print(&self, plan: &privet::Plan, as_json: bool, cost: Option<ClientCost>) -> anyhow::Result<()> {
        if as_json {
            let answer = Answer::new(plan, &self.outputs, &self.best);
            return print_line(&ClientResult { answer, cost });
        }
        if self.is_told {
            return print(&answer::describe(&self.outputs, &self.best));
        }
        print("The server has learnt the outputs; this party has not, as --reveal-to server asks.")
    }
}

/// `y.npz`, and of several inferences `y-1.npz` and so on.
fn numbered(path: &Path, n: usize, of: usize) -> PathBuf {
    if of == 1 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{}", n + 1));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Whether one of these files is a pipe or the like, which can be read once.
fn has_pipe(plan: &privet::Plan, given: &[PathBuf]) -> bool {
    given.iter().any(|argument| {
        let file = NamedFile::parse(&plan.inputs, argument).file;
        file.metadata().is_ok_and(|m| !m.is_file() && !m.is_dir())
    })
}

/// The revealed integers of one inference after the other, a line of JSON each.
struct Raw<'a>(&'a Path, File);

impl<'a> Raw<'a> {
    fn create(path: &'a Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(path, file))
    }

    fn append(&mut self, integers: &Outputs) -> anyhow::Result<()> {
        let line = serde_json::to_string(integers)? + "\n";
        self.1.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", self.0.display()))
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

//! `privet run`: all parties on this machine, each a process with only its own files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use privet::model::{self, Model, NamedFile};
use privet::{Event, Report, output, reference};
use privet_plan::InputSpec;

use crate::args::{AutoArgs, Engine, RunArgs, RunEngine};
use crate::choice::program;
use crate::commands::{decode, lower, print_line};
use crate::exit::{Code, Failure};
use crate::network::Network;
use crate::parties::three::{self, ThreeParties};
use crate::parties::{CLIENT, DEALER, Parties, Process, SERVER};
use crate::show::json::{Agreement, Answer, Offline, Online, Party, RunResult};
use crate::show::observe::Terminal;
use crate::show::table::Row;
use crate::show::{accuracy_line, answer, print, table};
use crate::tee;
use crate::watch::Watch;

/// What an engine gives.
pub(crate) struct Outcome {
    pub(crate) revealed: Vec<Vec<i64>>,
    pub(crate) rows: Vec<Row>,
}

/// What all engines are given.
pub(crate) struct Task<'a> {
    pub(crate) model: &'a Model,
    /// Files, as a party of its own gets them.
    pub(crate) files: &'a [PathBuf],
    /// The same inputs as integers.
    pub(crate) integers: &'a [Vec<i64>],
    pub(crate) network: &'a Network,
    pub(crate) keys: &'a AutoArgs,
    pub(crate) watch: &'a Watch,
    pub(crate) terminal: &'a Terminal,
}

impl Task<'_> {
    /// One inference. A new engine is an arm here.
    pub(crate) fn run(&self, engine: Engine) -> anyhow::Result<Outcome> {
        match engine {
            Engine::Cleartext => self.watch.computing(|| cleartext(self)),
            Engine::TwoParty | Engine::Fss | Engine::Auto => two_party(self, engine),
            Engine::ThreeParty => three_party(self),
        }
    }
}

pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let RunEngine::Of(engine) = args.engine else { return tee::run(args) };
    if args.allow_sample_insecure || args.threads.is_some() {
        let text = "--allow-sample-insecure and --threads are about --engine tee, which is not asked for";
        return Err(Failure::error(Code::Usage, text));
    }
    args.keys.check(&[engine])?;
    if engine == Engine::Cleartext {
        args.network.refuse_in_the_clear()?;
    }
    let terminal = Terminal::new();
    let watch = Watch::start(Duration::from_secs(args.deadline))?;
    let (model, inputs, integers) = watch.computing(|| {
        let _spinner = terminal.spinner("compiling");
        let model = lower(&args.model, &args.lowering)?;
        let inputs = model::load_inputs(&model.plan, &args.input)?;
        let integers = model::fixed_inputs(&model.plan, &inputs)?;
        anyhow::Ok((model, inputs, integers))
    })?;
    let plan = &model.plan;
    if let Some(path) = &args.answer.output {
        output::check_path(path, plan.outputs.len())?;
    }
    // First in the clear: an overflow shows here, with the layer's name, and not at all on masked values.
    let task = Task {
        model: &model,
        files: &args.input,
        integers: &integers,
        network: &args.network,
        keys: &args.keys,
        watch: &watch,
        terminal: &terminal,
    };
    let reference = task.run(Engine::Cleartext)?;
    let (outcome, matches_cleartext) = match engine {
        Engine::Cleartext => (reference, true),
        private => {
            let outcome = task.run(private)?;
            let matches = outcome.revealed == reference.revealed;
            (outcome, matches)
        }
    };
    let outputs = decode(plan, &outcome.revealed)?;
    let error = watch.computing(|| reference::max_abs_error(&model, &inputs, &outputs))?;
    let best = answer::best(&outputs, &plan.labels, args.answer.topk);
    if let Some(path) = &args.answer.output {
        answer::write(path, &outputs)?;
    }
    if args.answer.json {
        let rows = &outcome.rows;
        print_line(&RunResult {
            engine: engine.name(),
            answer: Answer::new(plan, &outputs, &best),
            offline: Offline::total(rows.iter().filter_map(|r| r.offline.as_ref())),
            online: Online::total(rows.iter().filter_map(|r| r.online.as_ref())),
            agreement: Agreement::total(rows.iter().filter_map(|r| r.online.as_ref())),
            parties: rows
                .iter()
                .map(|r| Party::new(&r.role, r.offline.as_ref(), r.online.as_ref()))
                .collect(),
            matches_cleartext,
            max_abs_error_vs_float: error,
            calibration: model.accuracy.as_ref(),
        })?;
    } else {
        let equal = match engine {
            private if private != Engine::Cleartext && matches_cleartext => {
                "equal to the cleartext engine, bit for bit; "
            }
            _ => "",
        };
        let agreed = Agreement::total(outcome.rows.iter().filter_map(|r| r.online.as_ref()));
        let agreed = table::agreed(&agreed).map_or_else(String::new, |agreed| format!("\n{agreed}"));
        let calibrated =
            model.accuracy.as_ref().map_or_else(String::new, |a| format!("\n{}", accuracy_line(a)));
        print(&format!(
            "{}\n\n{}{agreed}\n\n{equal}{}-bit ring, {} fractional bits, largest difference to float {error:.2e}{calibrated}",
            answer::describe(&outputs, &best),
            table::parties(&outcome.rows),
            plan.ring.bits(),
            plan.frac_bits
        ))?;
    }
    if matches_cleartext {
        return Ok(());
    }
    Err(Failure::error(
        Code::Mismatch,
        "the private result differs from the cleartext result: this is a bug, please report it with the model",
    ))
}

/// The masked engine, in processes of its parties.
fn two_party(task: &Task<'_>, engine: Engine) -> anyhow::Result<Outcome> {
    let Task { model, files, network, watch, terminal, .. } = *task;
    let inputs = files.iter().map(|i| absolute(&model.plan.inputs, i)).collect::<anyhow::Result<Vec<_>>>()?;
    let plan = watch.computing(|| program(engine, &model.plan, network, task.keys))?;
    let mut parties = Parties::new(&plan, &model.weights, network, watch, terminal)?;
    let offline = parties.offline(1)?;
    let (mut outputs, online) = parties.online(&[inputs])?;
    parties.close()?;
    let find = |processes: &[Process], party| -> Option<Report> {
        processes.iter().find(|p| p.party == party).map(|p| p.report.clone())
    };
    let row = |party: &'static str| Row {
        role: party.to_owned(),
        offline: find(&offline, party),
        online: find(&online, party),
    };
    let revealed = outputs.pop().context("the client gave no outputs")?;
    Ok(Outcome { revealed, rows: [DEALER, SERVER, CLIENT].map(row).into() })
}

/// The engine on shares, in processes of its parties.
fn three_party(task: &Task<'_>) -> anyhow::Result<Outcome> {
    let Task { model, network, watch, terminal, .. } = *task;
    let mut parties = ThreeParties::new(&model.plan, &model.weights, network, watch, terminal)?;
    let (mut outputs, online) = parties.infer(&model.plan, &[task.integers.to_vec()])?;
    parties.close()?;
    let row = |party: &&str| Row {
        role: (*party).to_owned(),
        offline: None,
        online: online.iter().find(|p| p.party == *party).map(|p| p.report.clone()),
    };
    let revealed = outputs.pop().context("the parties gave no outputs")?;
    Ok(Outcome { revealed, rows: three::PARTIES.iter().map(row).collect() })
}

/// `[NAME=]FILE` with an absolute path, because the client works in its own directory.
pub(crate) fn absolute(inputs: &[InputSpec], input: &Path) -> anyhow::Result<OsString> {
    let NamedFile { name, file } = NamedFile::parse(inputs, input);
    let prefix = name.map_or_else(String::new, |name| format!("{name}="));
    let file = std::path::absolute(&file).with_context(|| format!("no path for {}", file.display()))?;
    let mut whole = OsString::from(prefix);
    whole.push(file);
    Ok(whole)
}

/// The cleartext engine, in this process.
fn cleartext(task: &Task<'_>) -> anyhow::Result<Outcome> {
    const ROLE: &str = "cleartext";
    let observer = |event: &Event| task.terminal.progress(ROLE, event);
    let (revealed, report) = reference::cleartext(task.model, task.integers, &observer)?;
    task.terminal.clear();
    Ok(Outcome { revealed, rows: vec![Row { role: ROLE.to_owned(), offline: None, online: Some(report) }] })
}

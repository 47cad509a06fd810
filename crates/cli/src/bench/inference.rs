//! Setup, offline and online phase of inferences, engine by engine.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::Context;
use ndarray::ArrayD;
use privet::bench::{Kind, KindSeconds};
use privet::explain::{Setting, explain};
use privet::model::fixed_inputs;
use privet::output::{self, Values};
use privet::predict::{Machine, Prediction, predict};
use privet::{Plan, RevealTo};
use privet_protocols::masked::Schedule;

use super::case::Case;
use super::phase::phase;
use super::plain;
use super::row::{Phase, Row};
use crate::args::Engine;
use crate::choice::program;
use crate::parties::three::ThreeParties;
use crate::parties::{CLIENT, DEALER, Parties, Process, SERVER};

/// Most bytes of one-time material that lie on the disk at a time.
const MAX_STORED: usize = 4_000_000_000;

/// What computes a model: a new engine is a variant of [`Engine`] and an arm here. One row for each phase that it has.
pub(super) fn measure(engine: Engine, case: &Case<'_>) -> anyhow::Result<Vec<Row>> {
    match engine {
        Engine::Cleartext => cleartext(case),
        Engine::TwoParty | Engine::Fss | Engine::Auto => {
            two_party(case, engine).with_context(|| failed(case))
        }
        Engine::ThreeParty => three_party(case).with_context(|| failed(case)),
    }
}

fn failed(case: &Case<'_>) -> String {
    format!("{}: the private inferences failed", case.name)
}

/// A process of its own, as others have them: its memory is not that of calibration.
fn cleartext(case: &Case<'_>) -> anyhow::Result<Vec<Row>> {
    let model = &case.workload.model;
    let (outputs, process) =
        plain::cleartext(&model.plan, &model.weights, &case.workload.inputs, case.watch, case.terminal)
            .with_context(|| format!("{}: the cleartext engine failed", case.name))?;
    let kinds = Kind::of_steps(&model.plan);
    let seconds: Vec<f64> = process.report.work.iter().map(|w| w.seconds).collect();
    let layers: Vec<KindSeconds> =
        process.laps.iter().zip(&seconds).map(|(laps, s)| KindSeconds::of(&kinds, laps, *s)).collect();
    let row = phase(case, Engine::Cleartext, Phase::Online, &[process], 0.0);
    let row = case.timed(Row { network: "none".to_owned(), ..row }, &seconds, &layers);
    case.judged(vec![row], &outputs)
}

/// Dealer, server and client, each a process.
fn two_party(case: &Case<'_>, engine: Engine) -> anyhow::Result<Vec<Row>> {
    let model = &case.workload.model;
    let args = case.args;
    let plan = &case.watch.computing(|| program(engine, &model.plan, &args.network, &args.keys))?;
    let explained = explain(plan, Setting::TwoParty(RevealTo::Client));
    let prediction = if args.predict { Some(predicted(case, plan)?) } else { None };
    let mut parties = Parties::new(plan, &model.weights, &args.network, case.watch, case.terminal)?;

    let setup = parties.offline(0)?;
    let stored: u64 = [DEALER, SERVER, CLIENT].iter().map(|p| stored(&parties.dir(p).join("state"))).sum();
    let setup = Row {
        iterations: 1,
        dropped: 0,
        declared_bytes: explained.masked_weights as u64,
        stored_bytes: stored,
        ..phase(case, engine, Phase::Setup, &setup, longest(&setup))
    };

    let files = write_inputs(plan, &case.workload.inputs, &parties.dir(CLIENT))?;
    let each = explained.totals.server_stores + explained.totals.client_stores;
    let (mut offline, mut offline_s) = (Vec::new(), 0.0);
    let (mut outputs, mut online) = (Vec::new(), Vec::new());
    for batch in files.chunks((MAX_STORED / each.max(1)).max(1)) {
        let prepared = parties.offline(batch.len() as u64)?;
        offline_s += longest(&prepared);
        offline.extend(prepared);
        let (results, processes) = parties.online(batch)?;
        outputs.extend(results);
        online.extend(processes);
    }
    parties.close()?;

    let n = case.iterations() as u64;
    let offline = Row {
        predicted_wall_s: prediction.as_ref().map(|p| p.offline_of(n).seconds),
        declared_bytes: (explained.totals.dealt + explained.totals.dealt_client) as u64,
        stored_bytes: offline.iter().map(|p| p.report.bytes_stored).sum::<u64>().div_ceil(n),
        dropped: 0,
        ..phase(case, engine, Phase::Offline, &offline, offline_s / n as f64)
    };

    let clients: Vec<&Process> = online.iter().filter(|p| p.party == CLIENT).collect();
    let kinds = Kind::of_schedule(plan, &Schedule::new(plan, RevealTo::Client));
    let seconds: Vec<f64> = clients.iter().flat_map(|p| &p.report.work).map(|w| w.seconds).collect();
    let layers: Vec<KindSeconds> = clients
        .iter()
        .flat_map(|p| &p.laps)
        .zip(&seconds)
        .map(|(laps, s)| KindSeconds::of(&kinds, laps, *s))
        .collect();
    let row = Row {
        predicted_wall_s: prediction.as_ref().map(|p| p.online.seconds),
        declared_bytes: (explained.totals.server_sends + explained.totals.client_sends) as u64,
        rounds: clients.iter().map(|p| p.report.rounds).sum::<u64>() / n,
        ..phase(case, engine, Phase::Online, &online, 0.0)
    };
    let online = case.timed(row, &seconds, &layers);
    case.judged(vec![setup, offline, online], &outputs)
}

/// The weights are shared in this process: that has no row.
fn three_party(case: &Case<'_>) -> anyhow::Result<Vec<Row>> {
    const ENGINE: Engine = Engine::ThreeParty;
    let model = &case.workload.model;
    let plan = &model.plan;
    let totals = explain(plan, Setting::ThreeParty).totals;
    let inputs = case.workload.inputs.iter().map(|input| Ok(fixed_inputs(plan, input)?));
    let inputs: Vec<_> = inputs.collect::<anyhow::Result<_>>()?;
    let mut parties = ThreeParties::new(plan, &model.weights, &case.args.network, case.watch, case.terminal)?;
    let (outputs, processes) = parties.infer(plan, &inputs)?;
    parties.close()?;

    let kinds = Kind::of_schedule(plan, &Schedule::three_party(plan));
    let (mut seconds, mut layers) = (Vec::new(), Vec::new());
    for i in 0..inputs.len() {
        let (slowest, laps) = slowest(&processes, i);
        seconds.push(slowest);
        layers.push(KindSeconds::of(&kinds, laps, slowest));
    }
    // In every inference two of the three count its rounds.
    let rounds = processes.iter().map(|p| p.report.rounds).sum::<u64>() / (2 * inputs.len() as u64);
    let row = Row {
        declared_bytes: (totals.dealt + totals.server_sends + totals.client_sends) as u64,
        rounds,
        ..phase(case, ENGINE, Phase::Online, &processes, 0.0)
    };
    case.judged(vec![case.timed(row, &seconds, &layers)], &outputs)
}

/// Seconds and laps of the party that was slowest in the inference of this number.
pub(super) fn slowest(processes: &[Process], inference: usize) -> (f64, &[f64]) {
    let of = |p: &Process| p.report.work.get(inference).map_or(0.0, |span| span.seconds);
    let slowest = processes.iter().max_by(|a, b| of(a).total_cmp(&of(b)));
    slowest.map_or((0.0, &[]), |p| (of(p), p.laps.get(inference).map_or(&[], Vec::as_slice)))
}

/// What this machine is expected to take.
fn predicted(case: &Case<'_>, plan: &Plan) -> anyhow::Result<Prediction> {
    let machine = case.watch.computing(|| Machine::calibrate(plan))?;
    Ok(predict(plan, RevealTo::Client, &machine, case.args.network.link))
}

/// The party that worked longest: the server, which listens until the client is done.
pub(super) fn longest(processes: &[Process]) -> f64 {
    let worked = |p: &Process| p.report.work.iter().map(|w| w.seconds).sum::<f64>();
    processes.iter().filter(|p| p.party != DEALER).map(worked).fold(0.0, f64::max)
}

/// Sizes of all files under a state directory but its database and journal.
fn stored(state: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(state) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => stored(&entry.path()),
        Ok(_) if entry.path().extension().is_none_or(|e| e != "redb" && e != "journal") => {
            entry.metadata().map_or(0, |m| m.len())
        }
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

/// Every inference's inputs as files of the client: `.npy` for a single one, otherwise `.npz`.
pub(super) fn write_inputs(
    plan: &Plan,
    inputs: &[Vec<ArrayD<f32>>],
    dir: &Path,
) -> anyhow::Result<Vec<Vec<OsString>>> {
    let extension = if plan.inputs.len() == 1 { "npy" } else { "npz" };
    let write = |(i, arrays): (usize, &Vec<ArrayD<f32>>)| {
        let path = dir.join(format!("input-{i}.{extension}"));
        let named: Vec<_> = plan
            .inputs
            .iter()
            .zip(arrays)
            .map(|(spec, array)| (spec.name.clone(), Values::Floats(array.mapv(f64::from))))
            .collect();
        output::write(&path, &named)?;
        Ok(vec![path.into_os_string()])
    };
    inputs.iter().enumerate().map(write).collect()
}

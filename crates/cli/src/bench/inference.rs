//! `--exp inference`: setup, offline and online phase of private inferences.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::Context;
use ndarray::ArrayD;
use privet::bench::{self, Expected, Options, Subject, Workload};
use privet::explain::{Setting, explain};
use privet::model::fixed_inputs;
use privet::output::{self, Values};
use privet::predict::{Machine, Prediction, predict};
use privet::{Event, Plan, RevealTo};

use super::row::{Party, Phase, Row, Widths, rounded};
use crate::args::{BenchArgs, Engine};
use crate::commands::{decode, warn_of_tolerance};
use crate::parties::three::{self, ThreeParties};
use crate::parties::{CLIENT, DEALER, Parties, Process, SERVER};
use crate::show::observe::Terminal;
use crate::watch::Watch;

/// Measures one model; one row for each phase that the engine has.
pub(super) fn measure(
    subject: &Subject,
    args: &BenchArgs,
    watch: &Watch,
    terminal: &Terminal,
) -> anyhow::Result<Vec<Row>> {
    let name = subject.name();
    let workload = watch.computing(|| {
        let what = if args.uncalibrated { "compiling" } else { "calibrating" };
        let _spinner = terminal.spinner(&format!("{name}: {what}"));
        Workload::new(
            subject,
            &Options {
                inputs: usize::try_from(args.iterations)?,
                seed: args.seed,
                calibrate: !args.uncalibrated,
                ring: args.ring,
                frac_bits: args.frac_bits,
            },
        )
        .with_context(|| name.clone())
    })?;
    warn_of_tolerance(&workload.model);
    // First in the clear: an overflow shows here, with the layer's name.
    let expected = workload
        .inputs
        .iter()
        .enumerate()
        .map(|(i, input)| {
            let role = format!("cleartext {}/{}", i + 1, args.iterations);
            let observer = |event: &Event| terminal.progress(&role, event);
            let expected = watch.computing(|| bench::expect(&workload.model, input, &observer));
            terminal.clear();
            expected.with_context(|| name.clone())
        })
        .collect::<anyhow::Result<Vec<Expected>>>()?;
    let mut rows = match args.engine {
        Engine::Cleartext => vec![cleartext(&name, args, &workload, &expected)?],
        Engine::ThreeParty => three_party(&name, args, &workload, &expected, watch, terminal)
            .with_context(|| format!("{name}: the private inferences failed"))?,
        Engine::TwoParty => two_party(&name, args, &workload, &expected, watch, terminal)
            .with_context(|| format!("{name}: the private inferences failed"))?,
    };
    for row in &mut rows {
        row.is_architecture = args.engine != Engine::Cleartext && matches!(subject, Subject::Zoo(_));
    }
    Ok(rows)
}

fn cleartext(
    name: &str,
    args: &BenchArgs,
    workload: &Workload,
    expected: &[Expected],
) -> anyhow::Result<Row> {
    let spans: Vec<_> = expected.iter().flat_map(|e| e.report.work.iter()).collect();
    let cpu_s = mean(spans.iter().map(|s| s.cpu_seconds));
    let outputs: Vec<_> = expected.iter().map(|e| e.outputs.clone()).collect();
    let peak_rss_bytes = expected.iter().map(|e| e.report.peak_memory_bytes).max().unwrap_or(0);
    let party =
        Party { role: "p0", cpu_s, bytes_sent: 0, peak_rss_bytes, startup_wall_s: 0.0, startup_cpu_s: 0.0 };
    let row = Row {
        network: "none".to_owned(),
        wall_s: median(spans.iter().map(|s| s.seconds).collect()),
        ..blank(name, args, &workload.model.plan, Phase::Online, vec![party])
    };
    judged(vec![row], workload, expected, &outputs)?.pop().context("one row")
}

fn two_party(
    name: &str,
    args: &BenchArgs,
    workload: &Workload,
    expected: &[Expected],
    watch: &Watch,
    terminal: &Terminal,
) -> anyhow::Result<Vec<Row>> {
    let plan = &workload.model.plan;
    let explained = explain(plan, Setting::TwoParty(RevealTo::Client));
    let prediction = if args.predict { Some(predicted(plan, args, watch)?) } else { None };
    let mut parties = Parties::new(&workload.model, &args.network, watch, terminal)?;
    let n = args.iterations;

    let setup = parties.offline(0)?;
    let stored: u64 = [DEALER, SERVER, CLIENT].iter().map(|p| stored(&parties.dir(p).join("state"))).sum();
    let setup = Row {
        iterations: 1,
        wall_s: longest(&setup),
        declared_bytes: explained.masked_weights as u64,
        stored_bytes: stored,
        ..sums(name, args, plan, Phase::Setup, &setup, 1)
    };

    let offline = parties.offline(n)?;
    let offline = Row {
        wall_s: longest(&offline) / n as f64,
        predicted_wall_s: prediction.as_ref().map(|p| p.offline_of(n).seconds),
        declared_bytes: explained.totals.dealt as u64,
        stored_bytes: offline.iter().map(|p| p.report.bytes_stored).sum::<u64>().div_ceil(n),
        ..sums(name, args, plan, Phase::Offline, &offline, n)
    };

    let files = write_inputs(plan, &workload.inputs, &parties.dir(CLIENT))?;
    let (outputs, online) = parties.online(&files)?;
    let waits = online.iter().filter(|p| p.party == CLIENT);
    let online = Row {
        wall_s: median(waits.flat_map(|p| &p.report.work).map(|w| w.seconds).collect()),
        predicted_wall_s: prediction.as_ref().map(|p| p.online.seconds),
        declared_bytes: (explained.totals.server_sends + explained.totals.client_sends) as u64,
        rounds: online.iter().filter(|p| p.party == CLIENT).map(|p| p.report.rounds).max().unwrap_or(0),
        ..sums(name, args, plan, Phase::Online, &online, n)
    };
    parties.close()?;
    judged(vec![setup, offline, online], workload, expected, &outputs)
}

/// The weights are shared in this process: that has no row.
fn three_party(
    name: &str,
    args: &BenchArgs,
    workload: &Workload,
    expected: &[Expected],
    watch: &Watch,
    terminal: &Terminal,
) -> anyhow::Result<Vec<Row>> {
    let plan = &workload.model.plan;
    let explained = explain(plan, Setting::ThreeParty);
    let mut parties = ThreeParties::new(&workload.model, &args.network, watch, terminal)?;
    let inputs = workload.inputs.iter().map(|input| Ok(fixed_inputs(plan, input)?));
    let inputs: Vec<_> = inputs.collect::<anyhow::Result<_>>()?;
    let (outputs, processes) = parties.infer(&workload.model, &inputs)?;
    let n = args.iterations;
    let slowest = |i: usize| {
        let spans = processes.iter().filter_map(|p| p.report.work.get(i));
        spans.map(|span| span.seconds).fold(0.0, f64::max)
    };
    // In every inference two of the three count its rounds.
    let rounds = processes.iter().map(|p| p.report.rounds).sum::<u64>() / (2 * n);
    let totals = explained.totals;
    let online = Row {
        wall_s: median((0..inputs.len()).map(slowest).collect()),
        declared_bytes: (totals.dealt + totals.server_sends + totals.client_sends) as u64,
        rounds,
        ..sums(name, args, plan, Phase::Online, &processes, n)
    };
    parties.close()?;
    judged(vec![online], workload, expected, &outputs)
}

/// What this machine is expected to take.
fn predicted(plan: &Plan, args: &BenchArgs, watch: &Watch) -> anyhow::Result<Prediction> {
    let machine = watch.computing(|| Machine::calibrate(plan))?;
    Ok(predict(plan, RevealTo::Client, &machine, args.network.link))
}

/// A row without what a phase costs as a whole.
fn blank(name: &str, args: &BenchArgs, plan: &Plan, phase: Phase, parties: Vec<Party>) -> Row {
    Row {
        exp: "inference",
        model: name.to_owned(),
        engine: args.engine.name(),
        network: args.network.to_string(),
        phase,
        iterations: args.iterations,
        ring: plan.ring.bits(),
        frac_bits: u32::from(plan.frac_bits),
        calibrated: !args.uncalibrated,
        widths: bench::widths(plan).map(|(min, max)| Widths { min, max }),
        wall_s: 0.0,
        predicted_wall_s: None,
        cpu_s: parties.iter().map(|p| p.cpu_s).sum(),
        bytes: parties.iter().map(|p| p.bytes_sent).sum(),
        declared_bytes: 0,
        wire_bytes: 0,
        rounds: 0,
        stored_bytes: 0,
        peak_rss_bytes: parties.iter().map(|p| p.peak_rss_bytes).max().unwrap_or(0),
        startup_wall_s: parties.iter().map(|p| p.startup_wall_s).fold(0.0, f64::max),
        startup_cpu_s: parties.iter().map(|p| p.startup_cpu_s).sum(),
        max_abs_err: 0.0,
        matches_cleartext: true,
        parties,
        relative_err: 0.0,
        is_architecture: false,
    }
}

/// What `processes` spent on `n` inferences, each party's share of one; the wall time of starts is that of one process.
fn sums(name: &str, args: &BenchArgs, plan: &Plan, phase: Phase, processes: &[Process], n: u64) -> Row {
    let party = |role: &'static str| {
        let own: Vec<&Process> = processes.iter().filter(|p| p.party == role).collect();
        if own.is_empty() {
            return None;
        }
        let worked = |p: &Process| p.report.work.iter().map(|w| w.cpu_seconds).sum::<f64>();
        Some(Party {
            role,
            // Rounded here, so that what is shown adds up.
            cpu_s: rounded(own.iter().map(|p| worked(p)).sum::<f64>() / n as f64),
            bytes_sent: own.iter().map(|p| p.report.bytes_sent).sum::<u64>().div_ceil(n),
            peak_rss_bytes: own.iter().map(|p| p.report.peak_memory_bytes).max().unwrap_or(0),
            startup_wall_s: mean(own.iter().map(|p| p.startup_seconds)),
            startup_cpu_s: rounded(
                own.iter().map(|p| (p.cpu_seconds - worked(p)).max(0.0)).sum::<f64>() / n as f64,
            ),
        })
    };
    let rounds = processes.iter().map(|p| p.report.rounds).max().unwrap_or(0);
    let parties = [DEALER, SERVER, CLIENT].into_iter().chain(three::PARTIES).filter_map(party).collect();
    let wire_bytes = processes.iter().map(|p| p.report.wire_bytes_sent).sum::<u64>().div_ceil(n);
    Row { rounds, wire_bytes, ..blank(name, args, plan, phase, parties) }
}

/// Adds what the outputs are worth.
fn judged(
    mut rows: Vec<Row>,
    workload: &Workload,
    expected: &[Expected],
    outputs: &[Vec<Vec<i64>>],
) -> anyhow::Result<Vec<Row>> {
    let matches_cleartext =
        outputs.len() == expected.len() && outputs.iter().zip(expected).all(|(o, e)| *o == e.outputs);
    let mut max_abs_err: f64 = 0.0;
    let largest =
        expected.iter().flat_map(|e| &e.float).flatten().fold(0.0f64, |most, v| most.max(f64::from(v.abs())));
    for (outputs, expected) in outputs.iter().zip(expected) {
        let error = expected.error(&decode(&workload.model.plan, outputs)?);
        max_abs_err = if error.is_nan() || max_abs_err.is_nan() { f64::NAN } else { max_abs_err.max(error) };
    }
    for row in &mut rows {
        (row.max_abs_err, row.matches_cleartext) = (max_abs_err, matches_cleartext);
        row.relative_err = max_abs_err / largest;
    }
    Ok(rows)
}

/// The party that worked longest: the server, which listens until the client is done.
fn longest(processes: &[Process]) -> f64 {
    let worked = |p: &Process| p.report.work.iter().map(|w| w.seconds).sum::<f64>();
    processes.iter().filter(|p| p.party != DEALER).map(worked).fold(0.0, f64::max)
}

/// Sizes of all files under a state directory but its database.
fn stored(state: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(state) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => stored(&entry.path()),
        Ok(_) if entry.path().extension().is_none_or(|e| e != "redb") => {
            entry.metadata().map_or(0, |m| m.len())
        }
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

/// Every inference's inputs as files of the client: `.npy` for a single one, otherwise `.npz`.
fn write_inputs(plan: &Plan, inputs: &[Vec<ArrayD<f32>>], dir: &Path) -> anyhow::Result<Vec<Vec<OsString>>> {
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

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1);
    values.sum::<f64>() / count as f64
}

/// Of an even number of values the mean of both in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    match values.as_slice() {
        [] => 0.0,
        values if values.len() % 2 == 1 => values[upper],
        values => f64::midpoint(values[upper - 1], values[upper]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_means() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!((median(Vec::new()), mean([1.0, 3.0].into_iter())), (0.0, 2.0));
    }
}

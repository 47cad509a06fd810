//! `--exp kernels`: what the pieces of an inference reach on this machine, next to what the machine can do.
//!
//! Everything runs in this process. What a piece is compared with (a loop of its own instructions in registers, a copy of
//! the same bytes) is measured in turn with it, because clocks and neighbours change within seconds.

mod fss;
mod gates;
mod measure;
mod memory;
mod products;
mod row;
mod transport;

use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::{BenchArgs, Engine, KernelPart};
use crate::exit::{Code, Failure};
use crate::show::print;
use crate::watch::Watch;
use measure::Effort;
use row::Row;

/// Something to measure in one go.
struct Job {
    label: String,
    run: Box<Run>,
}

type Run = dyn FnOnce(&Effort) -> anyhow::Result<Vec<Row>>;

impl Job {
    fn new(
        label: impl Into<String>,
        run: impl FnOnce(&Effort) -> anyhow::Result<Vec<Row>> + 'static,
    ) -> Self {
        Self { label: label.into(), run: Box::new(run) }
    }
}

pub(super) fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    check(args)?;
    let watch = Watch::start(Duration::from_secs(args.deadline))?;
    let effort = Effort::new(args.iterations(), args.seed);
    let parts = if args.kernels.is_empty() { KernelPart::value_variants() } else { &args.kernels };
    let groups: Vec<Vec<Job>> = parts.iter().map(|part| jobs(*part, &effort)).collect();
    let bar = progress(groups.iter().map(Vec::len).sum())?;
    if args.csv {
        print(row::CSV_HEADER)?;
    }
    let is_table = args.is_table();
    if is_table {
        print(row::INTRODUCTION)?;
    }
    for group in groups {
        let mut rows = Vec::new();
        for job in group {
            bar.set_message(job.label);
            // No temporary files, no processes: at the deadline this one just ends.
            let measured = watch.computing(|| (job.run)(&effort))?;
            bar.inc(1);
            bar.suspend(|| measured.iter().try_for_each(|row| show(args, row)))?;
            rows.extend(measured);
        }
        if is_table {
            bar.suspend(|| print(&row::tables(&rows)))?;
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn jobs(part: KernelPart, effort: &Effort) -> Vec<Job> {
    match part {
        KernelPart::Gemm => products::matrices(effort),
        KernelPart::Conv => products::convolutions(effort),
        KernelPart::Prg => vec![memory::prg()],
        KernelPart::Memory => memory::jobs(),
        KernelPart::Gates => gates::jobs(effort),
        KernelPart::Fss => vec![fss::job()],
        KernelPart::Tls => vec![transport::job()],
    }
}

/// Options that say how a model is measured say nothing here.
fn check(args: &BenchArgs) -> anyhow::Result<()> {
    let given = [
        (!args.models.is_empty(), "--models"),
        (args.ring.is_some(), "--ring"),
        (args.frac_bits.is_some(), "--frac-bits"),
        (args.uncalibrated, "--uncalibrated"),
        (args.network.link.is_some(), "--network"),
        (args.predict, "--predict"),
        (!args.engine.is_empty() && args.engine != [Engine::TwoParty], "--engine"),
        (args.avgpool, "--avgpool"),
        (args.elements.is_some(), "--elements"),
        (args.plot.is_some(), "--plot"),
    ];
    match given.iter().find(|(given, _)| *given) {
        None => Ok(()),
        Some((_, option)) => {
            let text =
                format!("--exp kernels measures no models; leave out {option}, or take --exp inference");
            Err(Failure::error(Code::Usage, text))
        }
    }
}

/// A bar on stderr, hidden when it is no terminal. It does not tick by itself: nothing else runs while something is measured.
fn progress(jobs: usize) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{prefix:7} [{bar:30}] {pos}/{len} {wide_msg}")?;
    let bar = ProgressBar::new(jobs as u64).with_prefix("kernels");
    Ok(bar.with_style(style.progress_chars("=> ")))
}

/// Prints a row for programs.
fn show(args: &BenchArgs, row: &Row) -> anyhow::Result<()> {
    match (args.json, args.csv) {
        (true, _) => print(&serde_json::to_string(row)?),
        (false, true) => print(&row.to_csv()),
        (false, false) => Ok(()),
    }
}

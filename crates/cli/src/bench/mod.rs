//! `privet bench`: the one command for all benchmarks. What each field means is in docs/benchmarks.md.

mod inference;
mod kernels;
mod peers;
mod row;
mod table;

use std::time::Duration;

use privet::bench::{self, Subject};

use crate::args::{BenchArgs, Engine, Experiment};
use crate::exit::{Code, Failure};
use crate::show::observe::Terminal;
use crate::show::print;
use crate::watch::Watch;
use row::Row;

/// What `all` stands for.
const ALL: [&str; 6] = ["lenet", "minionn-cifar", "vgg16-cifar", "squeezenet", "resnet18", "resnet50"];

pub(crate) fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    match args.exp {
        Experiment::Inference => models(args),
        Experiment::Kernels => kernels::bench(args),
    }
}

fn models(args: &BenchArgs) -> anyhow::Result<()> {
    let missing =
        args.models.is_empty().then_some("--models says what to measure; `--models list` shows names");
    let misplaced = (!args.kernels.is_empty()).then_some("--kernels belongs to --exp kernels");
    if let Some(text) = missing.or(misplaced) {
        return Err(Failure::error(Code::Usage, text));
    }
    if args.models.iter().any(|m| m == "list") {
        if args.models.len() > 1 {
            return Err(Failure::error(
                Code::Usage,
                "--models list shows the names, and takes nothing beside it",
            ));
        }
        return print(&bench::names().collect::<Vec<_>>().join("\n"));
    }
    if args.engine == Engine::Cleartext {
        args.network.refuse_in_the_clear()?;
        if args.predict {
            let text = "--predict: the engine cleartext sends nothing; leave it out, or use --engine 2pc";
            return Err(Failure::error(Code::Usage, text));
        }
    }
    let subjects = subjects(&args.models)?;
    let terminal = Terminal::new();
    let watch = Watch::start(Duration::from_secs(args.deadline))?;
    if args.csv {
        print(&row::csv_header())?;
    }
    let is_table = !args.json && !args.csv;
    let mut rows = Vec::new();
    for subject in &subjects {
        let measured = inference::measure(subject, args, &watch, &terminal)?;
        // At once: what is done stays, whatever becomes of the rest.
        if is_table {
            if rows.is_empty() {
                print(&table::introduction(args.engine.name(), &args.network))?;
            }
            print(&table::rows(&measured))?;
        }
        measured.iter().try_for_each(|row| show(args, row))?;
        rows.extend(measured);
    }
    if is_table {
        print(&table::peers(&rows))?;
    }
    if rows.iter().all(|row| row.matches_cleartext) {
        return Ok(());
    }
    Err(Failure::error(
        Code::Mismatch,
        "a private result differs from the cleartext result: this is a bug, please report it with the model and the seed",
    ))
}

/// Prints a row for programs.
fn show(args: &BenchArgs, row: &Row) -> anyhow::Result<()> {
    match (args.json, args.csv) {
        (true, _) => print(&serde_json::to_string(row)?),
        (false, true) => print(&row.to_csv()),
        (false, false) => Ok(()),
    }
}

fn subjects(names: &[String]) -> anyhow::Result<Vec<Subject>> {
    let names = names.iter().flat_map(|name| match name.as_str() {
        "all" => ALL.to_vec(),
        name => vec![name],
    });
    names.map(subject).collect()
}

fn subject(name: &str) -> anyhow::Result<Subject> {
    Subject::find(name).ok_or_else(|| {
        let known = bench::names().collect::<Vec<_>>().join(", ");
        let text =
            format!("--models: no model {name:?}; expected a path to an .onnx file, all, or of {known}");
        Failure::error(Code::Usage, text)
    })
}

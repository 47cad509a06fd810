//! `privet stages`: runs what `privet split` wrote, in float and without privacy, in a process that is held to its memory.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use comfy_table::Table;
use ndarray::ArrayD;
use nix::sys::resource::{Resource, setrlimit};
use privet::input;
use privet::split::{self, Index, Taken};
use serde::Serialize;

use crate::args::StagesArgs;
use crate::commands::print_line;
use crate::exit::{Code, Failure};
use crate::show::{print, table};

/// What the program takes besides weights, tensors and workspace: its data, packing buffers, nodes and index.
const PROGRAM: u64 = 24 << 20;
/// And for every thread beyond the first: stack, heap and packing buffers.
const THREAD: u64 = 8 << 20;

/// One stage, as JSON shows it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    file: &'a str,
    predicted_peak_bytes: u64,
    measured_peak_bytes: Option<u64>,
    load_seconds: f64,
    run_seconds: f64,
}

/// What JSON shows.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    engine: &'static str,
    limit_bytes: u64,
    predicted_peak_bytes: u64,
    measured_peak_bytes: Option<u64>,
    seconds: f64,
    stages: Vec<Row<'a>>,
    outputs: Vec<Output<'a>>,
}

#[derive(Debug, Serialize)]
struct Output<'a> {
    name: &'a str,
    shape: &'a [usize],
    values: Vec<f32>,
}

pub(crate) fn stages(args: &StagesArgs) -> anyhow::Result<()> {
    let index = Index::load(&args.stages)?;
    match args.within {
        Some(limit) => within(args, &index, limit),
        None => held(args, &index),
    }
}

/// Starts the process that computes. Freed memory has to go back to the system at once, which the allocator is told by its
/// environment.
fn held(args: &StagesArgs, index: &Index) -> anyhow::Result<()> {
    if !args.no_check {
        index.check(&args.stages)?;
    }
    let peak = index.stages.iter().map(|s| s.peak).max().unwrap_or(0);
    let limit = index.memory.unwrap_or(peak) + PROGRAM + THREAD * u64::from(args.threads - 1);
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let status = Command::new(program)
        .args(std::env::args_os().skip(1))
        .arg(format!("--within={limit}"))
        .env("MALLOC_ARENA_MAX", "1")
        .env("MALLOC_MMAP_THRESHOLD_", "65536")
        .env("MALLOC_TRIM_THRESHOLD_", "65536")
        .env("RAYON_NUM_THREADS", args.threads.to_string())
        .status()
        .context("cannot start the process that computes")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => {
            Err(Failure::error(Code::from_status(Some(code)), "the process that computes failed, see above"))
        }
        None => Err(Failure::error(
            Code::Internal,
            format!("the process that computes ended by a signal ({status}); it was held to {limit} bytes"),
        )),
    }
}

/// Computes within `limit` bytes.
fn within(args: &StagesArgs, index: &Index, limit: u64) -> anyhow::Result<()> {
    let preprocess = args.preprocess.as_deref().map(input::preprocess_from_str_or_file).transpose()?;
    let preprocess = preprocess.unwrap_or_default();
    let mut inputs: Vec<(String, ArrayD<f32>)> = Vec::new();
    for given in &args.input {
        let (spec, file) = named(index, given)?;
        anyhow::ensure!(
            spec.dtype == "float32",
            "input {:?}: expected float32, which this command can give, found {}",
            spec.name,
            spec.dtype
        );
        inputs.push((spec.name.clone(), input::load(file, &preprocess, &spec.shape)?));
    }
    setrlimit(Resource::RLIMIT_DATA, limit, limit).context("cannot limit the memory of this process")?;
    let mut last = None;
    for _ in 0..args.repeat {
        last = Some(split::run_stages(&args.stages, index, inputs.clone())?);
    }
    let (outputs, taken) = last.context("at least one run")?;
    let floats: Vec<(String, ArrayD<f32>)> =
        outputs.iter().map(|(name, t)| (name.clone(), split::to_floats(t))).collect();
    if let Some(path) = &args.output {
        let outputs: Vec<(String, ArrayD<f64>)> =
            floats.iter().map(|(name, a)| (name.clone(), a.mapv(f64::from))).collect();
        privet::output::write(path, &outputs)?;
    }
    let seconds = taken.iter().map(|t| t.load_seconds + t.run_seconds).sum();
    let predicted = index.stages.iter().map(|s| s.peak).max().unwrap_or(0);
    let measured =
        taken.iter().map(|t| t.peak).collect::<Option<Vec<u64>>>().and_then(|p| p.into_iter().max());
    if args.json {
        let row = |(entry, taken): (_, &Taken)| {
            let entry: &split::StageEntry = entry;
            Row {
                file: &entry.file,
                predicted_peak_bytes: entry.peak,
                measured_peak_bytes: taken.peak,
                load_seconds: taken.load_seconds,
                run_seconds: taken.run_seconds,
            }
        };
        let outputs = floats.iter().map(|(name, a)| {
            let values = a.iter().copied().collect();
            Output { name, shape: a.shape(), values }
        });
        return print_line(&Answer {
            engine: "float",
            limit_bytes: limit,
            predicted_peak_bytes: predicted,
            measured_peak_bytes: measured,
            seconds,
            stages: index.stages.iter().zip(&taken).map(row).collect(),
            outputs: outputs.collect(),
        });
    }
    print(&describe(index, &taken))?;
    let peak =
        measured.map_or_else(|| "not measured".to_owned(), |m| format!("measured {}", table::bytes(m)));
    print(&format!(
        "in float, without privacy: {seconds:.2} s; peak predicted {}, {peak}, held to {}",
        table::bytes(predicted),
        table::bytes(limit)
    ))?;
    for (name, values) in &floats {
        let shown: Vec<String> = values.iter().take(5).map(|v| format!("{v:.5}")).collect();
        let more = if values.len() > 5 { ", .." } else { "" };
        print(&format!("{name} {:?}: {}{more}", values.shape(), shown.join(", ")))?;
    }
    Ok(())
}

/// One line per stage, predicted and measured side by side.
fn describe(index: &Index, taken: &[Taken]) -> String {
    let mut table = Table::new();
    table.load_style(table::STYLE).set_header(["stage", "predicted", "measured", "load s", "run s"]);
    for (entry, taken) in index.stages.iter().zip(taken) {
        table.add_row([
            entry.file.clone(),
            table::bytes(entry.peak),
            taken.peak.map_or_else(|| "-".to_owned(), table::bytes),
            format!("{:.3}", taken.load_seconds),
            format!("{:.3}", taken.run_seconds),
        ]);
    }
    table::lines(table, 1)
}

/// The input that an argument is for, and its file.
fn named<'a>(index: &'a Index, given: &'a Path) -> anyhow::Result<(&'a split::Shape, &'a Path)> {
    let text = given.to_str().unwrap_or_default();
    let matches = |i: &&split::Shape| text.strip_prefix(&i.name).is_some_and(|rest| rest.starts_with('='));
    if let Some(input) = index.inputs.iter().filter(matches).max_by_key(|i| i.name.len()) {
        return Ok((input, Path::new(&text[input.name.len() + 1..])));
    }
    match index.inputs.as_slice() {
        [only] => Ok((only, given)),
        several => {
            let names: Vec<&str> = several.iter().map(|i| i.name.as_str()).collect();
            let text = format!(
                "{}: expected NAME=FILE for each of the inputs {}",
                given.display(),
                names.join(", ")
            );
            Err(Failure::error(Code::Usage, text))
        }
    }
}

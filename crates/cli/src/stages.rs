//! `privet stages`: runs what `privet split` wrote, in float and without privacy, in a process that is held to its memory.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use comfy_table::Table;
use ndarray::ArrayD;
use nix::sys::resource::{Resource, setrlimit};
use privet::input;
use privet::seal::{self, Accepted, RELEASE_FILE, Release, Swap};
use privet::split::{self, Index, SealedIndex, SealedStages, Shape, StageEntry, Taken};
use privet_ring::wipe::wipe_freed_memory;
use serde::Serialize;

use crate::args::StagesArgs;
use crate::commands::print_line;
use crate::exit::{Code, Failure};
use crate::given;
use crate::seal::version;
use crate::secrets::keep_memory_private;
use crate::show::{print, table};

/// What the program takes besides weights, tensors and workspace: its data, packing buffers, nodes and index.
const PROGRAM: u64 = 24 << 20;
/// And for every thread beyond the first: stack, heap and packing buffers.
pub(crate) const THREAD: u64 = 8 << 20;

/// One stage, as JSON shows it.
#[derive(Debug, Serialize)]
struct Row {
    file: String,
    predicted_peak_bytes: u64,
    /// Of it, those of the next stage.
    ahead_bytes: u64,
    measured_peak_bytes: Option<u64>,
    load_seconds: f64,
    run_seconds: f64,
    /// Of all threads; null where nothing is sealed.
    decrypt_seconds: Option<f64>,
}

/// What JSON shows.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    engine: &'static str,
    limit_bytes: u64,
    predicted_peak_bytes: u64,
    measured_peak_bytes: Option<u64>,
    seconds: f64,
    stages: Vec<Row>,
    outputs: Vec<Output<'a>>,
}

#[derive(Debug, Serialize)]
struct Output<'a> {
    name: &'a str,
    shape: &'a [usize],
    values: Vec<f32>,
}

pub(crate) fn stages(args: &StagesArgs) -> anyhow::Result<()> {
    let stages = Stages::load(args)?;
    match args.within {
        Some(limit) => within(args, &stages, limit),
        None => held(args, &stages),
    }
}

/// A directory of stages.
enum Stages {
    Plain(Index),
    Sealed(Box<SealedIndex>, Accepted),
}

impl Stages {
    fn load(args: &StagesArgs) -> anyhow::Result<Self> {
        given::directory("", &args.stages, "a directory that `privet split` wrote")?;
        let Some(key) = &args.key else {
            let is_sealed = args.stages.join(split::SEALED_INDEX_FILE).is_file();
            if is_sealed && !args.stages.join(split::INDEX_FILE).exists() {
                let text =
                    format!("{}: these stages are sealed; give their key: --key DIR", args.stages.display());
                return Err(Failure::error(Code::Usage, text));
            }
            return Ok(Self::Plain(Index::load(&args.stages)?));
        };
        given::directory("--key", key, given::OWNER)?;
        let is_plain = args.stages.join(split::INDEX_FILE).is_file();
        if is_plain && !args.stages.join(split::SEALED_INDEX_FILE).exists() {
            let text = format!("{}: these stages are not sealed; leave --key out", args.stages.display());
            return Err(Failure::error(Code::Usage, text));
        }
        let release = given::by("--key", Release::read(&key.join(RELEASE_FILE)))?;
        let accepted = Accepted::new(&release, version(args.min_version));
        let index = Box::new(SealedIndex::load(&args.stages, &accepted)?);
        Ok(Self::Sealed(index, accepted))
    }

    /// Whether all stages are there and those of the index, as far as can be said before they are read.
    fn check(&self, args: &StagesArgs) -> anyhow::Result<()> {
        match self {
            Self::Plain(_) if args.no_check => Ok(()),
            Self::Plain(index) => Ok(index.check(&args.stages)?),
            Self::Sealed(index, accepted) => {
                for stage in 0..index.stages.len() {
                    index.verify_stage(&args.stages, stage, accepted)?;
                }
                Ok(())
            }
        }
    }

    fn entries(&self) -> &[StageEntry] {
        match self {
            Self::Plain(index) => &index.stages,
            Self::Sealed(index, _) => &index.stages,
        }
    }

    fn inputs(&self) -> &[Shape] {
        match self {
            Self::Plain(index) => &index.inputs,
            Self::Sealed(index, _) => &index.inputs,
        }
    }

    /// The memory that was asked for, or else the largest peak.
    fn memory(&self) -> u64 {
        let asked = match self {
            Self::Plain(index) => index.memory,
            Self::Sealed(index, _) => index.memory,
        };
        asked.unwrap_or_else(|| self.entries().iter().map(|s| s.peak).max().unwrap_or(0))
    }
}

/// Has the allocator of a process give freed memory back to the system at once.
pub(crate) fn tell_allocator(command: &mut Command, threads: u32) {
    command.env("MALLOC_ARENA_MAX", "1").env("MALLOC_MMAP_THRESHOLD_", "65536");
    command.env("MALLOC_TRIM_THRESHOLD_", "65536").env("RAYON_NUM_THREADS", threads.to_string());
}

/// Starts the process that computes. Freed memory has to go back to the system at once, which the allocator is told by its
/// environment.
fn held(args: &StagesArgs, stages: &Stages) -> anyhow::Result<()> {
    stages.check(args)?;
    let limit = stages.memory() + PROGRAM + THREAD * u64::from(args.threads - 1);
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).arg(format!("--within={limit}"));
    tell_allocator(&mut command, args.threads);
    let status = command.status().context("cannot start the process that computes")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => {
            // It has said why.
            Err(Failure::error(Code::from_status(Some(code)), ""))
        }
        None => Err(Failure::error(
            Code::Internal,
            format!("the process that computes ended by a signal ({status}); it was held to {limit} bytes"),
        )),
    }
}

/// Computes within `limit` bytes.
fn within(args: &StagesArgs, stages: &Stages, limit: u64) -> anyhow::Result<()> {
    let preprocess = args.preprocess.as_deref().map(input::preprocess_from_str_or_file).transpose()?;
    let preprocess = preprocess.unwrap_or_default();
    let mut inputs: Vec<(String, ArrayD<f32>)> = Vec::new();
    for given in &args.input {
        let (spec, file) = named(stages.inputs(), given)?;
        inputs.push((spec.name.clone(), input::load(file, &preprocess, &spec.shape)?));
    }
    setrlimit(Resource::RLIMIT_DATA, limit, limit).context("cannot limit the memory of this process")?;
    let content = args.key.as_ref().map(|key| {
        keep_memory_private()?;
        wipe_freed_memory();
        anyhow::Ok(seal::read_content(key)?.0)
    });
    let content = content.transpose()?;
    let mut last = None;
    for _ in 0..args.repeat {
        last = Some(match (stages, &content) {
            (Stages::Sealed(index, accepted), Some(key)) => {
                let swap = if args.lock { Swap::Locked } else { Swap::Allowed };
                let directory = args.stages.as_path();
                let sealed = SealedStages { directory, index, accepted, key, swap, stop: None };
                split::run_sealed_stages(&sealed, inputs.clone())?
            }
            (Stages::Plain(index), _) => split::run_stages(&args.stages, index, inputs.clone())?,
            (Stages::Sealed(..), None) => unreachable!("sealed stages are loaded with --key"),
        });
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
    let predicted = rows(stages, &taken).map(|(s, t)| s.peak + t.ahead).max().unwrap_or(0);
    let measured =
        taken.iter().map(|t| t.peak).collect::<Option<Vec<u64>>>().and_then(|p| p.into_iter().max());
    if args.json {
        let row = |(entry, taken): (&'_ StageEntry, &Taken)| Row {
            file: entry.file.clone(),
            predicted_peak_bytes: entry.peak + taken.ahead,
            ahead_bytes: taken.ahead,
            measured_peak_bytes: taken.peak,
            load_seconds: taken.load_seconds,
            run_seconds: taken.run_seconds,
            decrypt_seconds: taken.decrypt_seconds,
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
            stages: rows(stages, &taken).map(row).collect(),
            outputs: outputs.collect(),
        });
    }
    print(&describe(stages, &taken))?;
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
fn describe(stages: &Stages, taken: &[Taken]) -> String {
    let mut table = Table::new();
    table.load_style(table::STYLE).set_header(["stage", "predicted", "measured", "load s", "run s"]);
    for (entry, taken) in rows(stages, taken) {
        table.add_row([
            entry.file.clone(),
            table::bytes(entry.peak + taken.ahead),
            taken.peak.map_or_else(|| "-".to_owned(), table::bytes),
            format!("{:.3}", taken.load_seconds),
            format!("{:.3}", taken.run_seconds),
        ]);
    }
    table::lines(table, 1)
}

fn rows<'a>(stages: &'a Stages, taken: &'a [Taken]) -> impl Iterator<Item = (&'a StageEntry, &'a Taken)> {
    stages.entries().iter().zip(taken)
}

/// The input that an argument is for, and its file.
fn named<'a>(inputs: &'a [Shape], given: &'a Path) -> anyhow::Result<(&'a Shape, &'a Path)> {
    let text = given.to_str().unwrap_or_default();
    let matches = |i: &&Shape| text.strip_prefix(&i.name).is_some_and(|rest| rest.starts_with('='));
    if let Some(input) = inputs.iter().filter(matches).max_by_key(|i| i.name.len()) {
        return Ok((input, Path::new(&text[input.name.len() + 1..])));
    }
    match inputs {
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

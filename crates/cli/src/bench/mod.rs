//! `privet bench`: the one command for all benchmarks. What each field means is in docs/benchmarks.md.

mod case;
mod enclave;
mod inference;
mod kernels;
mod micro;
mod peers;
mod phase;
mod pictures;
mod plain;
mod row;
mod suite;
mod table;

use std::time::Duration;

use privet::bench::{self, Subject};

use crate::args::{BenchArgs, Engine, Experiment};
use crate::exit::{Code, Failure};
use crate::plot::Picture;
use crate::show::observe::Terminal;
use crate::show::print;
use crate::watch::Watch;
use case::Case;
use row::Row;

/// What `all` stands for.
const ALL: [&str; 6] = ["lenet", "minionn-cifar", "vgg16-cifar", "squeezenet", "resnet18", "resnet50"];

pub(crate) fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    args.keys.check(&args.engine)?;
    let is_of_enclave = args.out.is_some() || !args.parts.is_empty() || args.allow_sample_insecure;
    if args.exp != Experiment::Enclave && is_of_enclave {
        let text = "--out, --parts and --allow-sample-insecure belong to --exp enclave";
        return Err(Failure::error(Code::Usage, text));
    }
    match args.exp {
        Experiment::Inference => {
            models(args, &Runs { engines: engines(args, &[Engine::TwoParty]), float: false })
        }
        Experiment::InferenceAll => {
            models(args, &Runs { engines: engines(args, &Engine::all()), float: true })
        }
        Experiment::InferencePlaintext => {
            if let Some(private) = args.engine.iter().find(|engine| engine.is_private()) {
                let text = format!(
                    "--engine {}: inference_plaintext measures without privacy; take --exp inference_all",
                    private.name()
                );
                return Err(Failure::error(Code::Usage, text));
            }
            models(args, &Runs { engines: engines(args, &[Engine::Cleartext]), float: true })
        }
        Experiment::Micro => micro::bench(args, &engines(args, &Engine::all())),
        Experiment::Kernels => kernels::bench(args),
        Experiment::Enclave => enclave::bench(args),
    }
}

/// What runs the models.
struct Runs {
    engines: Vec<Engine>,
    /// Whether the float runtime does, too.
    float: bool,
}

fn engines(args: &BenchArgs, default: &[Engine]) -> Vec<Engine> {
    let asked = if args.engine.is_empty() { default } else { &args.engine };
    let mut engines: Vec<Engine> = Vec::new();
    for engine in asked {
        if !engines.contains(engine) {
            engines.push(*engine);
        }
    }
    engines
}

fn models(args: &BenchArgs, runs: &Runs) -> anyhow::Result<()> {
    let is_suite = args.exp != Experiment::Inference;
    let missing = (args.models.is_empty() && !is_suite)
        .then_some("--models says what to measure; `--models list` shows names");
    let misplaced = (!args.kernels.is_empty()).then_some("--kernels belongs to --exp kernels");
    let elements = args.elements.map(|_| "--elements belongs to --exp micro");
    if let Some(text) = missing.or(misplaced).or(elements) {
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
    if !runs.engines.iter().any(|engine| engine.is_private()) {
        args.network.refuse_in_the_clear()?;
    }
    let is_predicted = |e: &Engine| matches!(e, Engine::TwoParty | Engine::Fss | Engine::Auto);
    if let (true, false, [engine, ..]) =
        (args.predict, runs.engines.iter().any(is_predicted), &runs.engines[..])
    {
        let text = format!(
            "--predict: the engine {} is not predicted; leave it out, or use --engine 2pc",
            engine.name()
        );
        return Err(Failure::error(Code::Usage, text));
    }
    let picture = args.plot.as_deref().map(Picture::new).transpose()?;
    let subjects = if args.models.is_empty() { subjects(&suite::models())? } else { subjects(&args.models)? };
    let terminal = Terminal::new();
    let watch = Watch::start(Duration::from_secs(args.deadline))?;
    if args.csv {
        print(&row::csv_header())?;
    }
    let mut rows = Vec::new();
    for subject in &subjects {
        let measured = measure(subject, args, runs, &watch, &terminal)?;
        // At once: what is done stays, whatever becomes of the rest.
        if args.is_table() {
            if rows.is_empty() {
                let names: Vec<&str> = runs.engines.iter().map(|engine| engine.name()).collect();
                print(&table::introduction(&names.join(", "), args))?;
            }
            print(&if is_suite { suite::table(&measured) } else { table::rows(&measured) })?;
        }
        measured.iter().try_for_each(|row| show(args, row))?;
        rows.extend(measured);
    }
    if args.is_table() && args.exp != Experiment::InferencePlaintext {
        print(&table::peers(&rows))?;
    }
    if let Some(picture) = picture {
        picture.draw(&pictures::models(&rows))?;
    }
    if rows.iter().all(|row| row.matches_cleartext != Some(false)) {
        return Ok(());
    }
    Err(Failure::error(
        Code::Mismatch,
        "a private result differs from the cleartext result: this is a bug, please report it with the model and the seed",
    ))
}

/// The rows of one model.
fn measure(
    subject: &Subject,
    args: &BenchArgs,
    runs: &Runs,
    watch: &Watch,
    terminal: &Terminal,
) -> anyhow::Result<Vec<Row>> {
    let case = Case::new(subject, args, watch, terminal)?;
    let mut rows = Vec::new();
    if runs.float {
        match (plain::measure(&case), subject) {
            (Ok(row), _) => rows.push(row),
            // A file may have what the runtime does not know, and a build no runtime: the engines do not need it.
            (Err(error), subject)
                if matches!(subject, Subject::File(_)) || !cfg!(feature = "float-runtime") =>
            {
                watch.check()?;
                terminal.say(&format!("warning: no row for the float runtime: {error:#}"));
            }
            (Err(error), _) => return Err(error),
        }
    }
    for engine in &runs.engines {
        rows.extend(inference::measure(*engine, &case)?);
    }
    Ok(rows)
}

/// Prints a row for programs.
fn show(args: &BenchArgs, row: &Row) -> anyhow::Result<()> {
    match (args.json, args.csv) {
        (true, _) => print(&serde_json::to_string(row)?),
        (false, true) => print(&row.to_csv()),
        (false, false) => Ok(()),
    }
}

fn subjects(names: &[impl AsRef<str>]) -> anyhow::Result<Vec<Subject>> {
    let names = names.iter().flat_map(|name| match name.as_ref() {
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

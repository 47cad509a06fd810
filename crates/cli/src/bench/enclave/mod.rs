//! `privet bench --exp enclave`: models in float, whole and in stages, in the clear and sealed, over time.
//!
//! Every variant runs in processes of its own, which a thread looks at once a second. Files grow while it runs; charts and page
//! are drawn after every model.

mod page;
mod pictures;
mod process;
mod rows;
mod sampler;
mod variants;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use comfy_table::Table;
use privet::bench::{self, Subject};

use crate::args::BenchArgs;
use crate::exit::{Code, Failure};
use crate::plot::{Figure, Picture};
use crate::scratch::Scratch;
use crate::show::observe::Terminal;
use crate::show::{print, table};
use crate::watch::Watch;
use page::Shown;
use rows::{Files, Measured, Variant};
use variants::Case;

/// The models of the systems that are compared with.
const MODELS: [&str; 8] = [
    "alexnet",
    "mobilenet-v3-large",
    "mobilenet-v3-small",
    "resnet50",
    "resnet101",
    "squeezenet",
    "vgg16",
    "vgg19",
];
const PARTS: [usize; 4] = [1, 2, 4, 12];
const OUT: &str = "privet-bench-enclave";

pub(super) fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    let misplaced = [
        ("--engine", !args.engine.is_empty()),
        ("--kernels", !args.kernels.is_empty()),
        ("--plot", args.plot.is_some()),
        ("--predict", args.predict),
        ("--ring", args.ring.is_some()),
        ("--frac-bits", args.frac_bits.is_some()),
        ("--elements", args.elements.is_some()),
        ("--csv", args.csv),
        ("--network", args.network.link.is_some()),
    ];
    if let Some((option, _)) = misplaced.iter().find(|(_, is_given)| *is_given) {
        let text = format!(
            "{option} does not belong to --exp enclave, which runs in float and writes files to --out"
        );
        return Err(Failure::error(Code::Usage, text));
    }
    let subjects =
        if args.models.is_empty() { super::subjects(&MODELS)? } else { super::subjects(&args.models)? };
    let mut parts: Vec<usize> = if args.parts.is_empty() { PARTS.to_vec() } else { args.parts.clone() };
    parts.sort_unstable();
    parts.dedup();
    let out = args.out.clone().unwrap_or_else(|| OUT.into());
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let files = Files { dir: &out };
    files.begin()?;
    let terminal = Terminal::new();
    if cfg!(debug_assertions) {
        terminal.say("warning: this build checks every addition, also of the kernels; for figures take one of --release");
    }
    if !args.allow_sample_insecure {
        terminal.say(
            "warning: no rows of workers: there is no trusted hardware between processes of one machine. With --allow-sample-insecure \
             they run by development evidence, which proves nothing and says so in every row",
        );
    }
    let watch = Watch::start(Duration::from_secs(args.deadline))?;
    let mut all: Vec<Measured> = Vec::new();
    for subject in &subjects {
        let first = all.len();
        model(subject, args, &parts, &files, &watch, &terminal, &mut all)?;
        files.write(&format!("{}.csv", stem(&subject.name())), &rows::side_by_side(&all[first..]))?;
        draw(args, &out, &all)?;
        for measured in &all[first..] {
            if args.json {
                print(&serde_json::to_string(&measured.summary())?)?;
            }
        }
        if args.is_table() {
            print(&describe(&all[first..]))?;
        }
    }
    if args.is_table() {
        print(&format!(
            "{}: charts; {}: medians and percentiles",
            out.join("index.html").display(),
            rows::SUMMARY
        ))?;
    }
    Ok(())
}

/// All variants of one model.
fn model(
    subject: &Subject,
    args: &BenchArgs,
    parts: &[usize],
    files: &Files<'_>,
    watch: &Watch,
    terminal: &Terminal,
    all: &mut Vec<Measured>,
) -> anyhow::Result<()> {
    let name = subject.name();
    let home = Scratch::new()?;
    let path = match subject {
        Subject::File(path) => std::fs::canonicalize(path)
            .map_err(|e| Failure::error(Code::Input, format!("cannot read {}: {e}", path.display())))?,
        Subject::Zoo(architecture) => {
            let path = home.path().join("model.onnx");
            let _spinner = terminal.spinner(&format!("{name}: drawing weights"));
            let bytes = watch.computing(|| bench::export(architecture, args.seed, args.avgpool))?;
            std::fs::write(&path, bytes).context("cannot write the model")?;
            path
        }
    };
    let case = Case {
        name: name.clone(),
        home: home.path(),
        model: path,
        iterations: args.iterations(),
        seconds: args.seconds,
        threads: args.threads,
        seed: args.seed,
        files,
        watch,
    };
    let measure = || -> anyhow::Result<Vec<Measured>> {
        let mut found = Vec::new();
        let mut done = |measured: Measured| -> anyhow::Result<()> {
            files.add(&measured)?;
            found.push(measured);
            Ok(())
        };
        let (_, whole) = {
            let _spinner = terminal.spinner(&format!("{name}: shapes"));
            case.split(1)?.context("a model has at least one part")?
        };
        let inputs = case.inputs(&whole)?;
        let (expected, seconds) = {
            let _spinner = terminal.spinner(&format!("{name}: native"));
            let (measured, expected) = case.native(&inputs)?;
            let seconds = measured.seconds();
            done(measured)?;
            (expected, seconds)
        };
        let with_worker = args.allow_sample_insecure;
        if with_worker {
            let _spinner = terminal.spinner(&format!("{name}: worker"));
            done(case.worker(None, &inputs, &expected, seconds)?)?;
        }
        for &parts in parts {
            let _spinner = terminal.spinner(&format!("{name}: {parts} stages"));
            // The first one is there already.
            let split =
                if parts == 1 { Some(("stages-1".to_owned(), whole.clone())) } else { case.split(parts)? };
            let Some((dir, index)) = split else {
                terminal.say(&format!(
                    "warning: {name}: has not {parts} places to cut; no rows for so many parts"
                ));
                continue;
            };
            let bytes: Vec<u64> = index.stages.iter().map(|stage| stage.bytes).collect();
            let plain = case.stages(Variant::Stages, (&dir, &bytes), &inputs, &expected)?;
            let seconds = plain.seconds();
            done(plain)?;
            std::fs::remove_dir_all(home.path().join(&dir)).context("cannot remove stages")?;
            let (dir, bytes) = case.split_sealed(parts)?;
            done(case.stages(Variant::Sealed, (&dir, &bytes), &inputs, &expected)?)?;
            std::fs::remove_dir_all(home.path().join(&dir)).context("cannot remove stages")?;
            if with_worker {
                done(case.worker(Some(parts), &inputs, &expected, seconds)?)?;
            }
        }
        Ok(found)
    };
    all.extend(measure().with_context(|| name.clone())?);
    home.close()
}

/// All charts, each as SVG and PNG, and the page.
fn draw(args: &BenchArgs, out: &Path, all: &[Measured]) -> anyhow::Result<()> {
    let mut shown = Vec::new();
    let mut add = |title: String, name: String, figures: Vec<Figure>| -> anyhow::Result<()> {
        if figures.is_empty() {
            return Ok(());
        }
        for extension in ["svg", "png"] {
            Picture::new(&out.join(format!("{name}.{extension}")))?.figures(&figures)?;
        }
        shown.push(Shown { title, name });
        Ok(())
    };
    add("Overhead over native".to_owned(), "overhead".to_owned(), pictures::overhead(all))?;
    add("Time and memory against parts".to_owned(), "parts".to_owned(), pictures::against_parts(all))?;
    add("All models over time".to_owned(), "all".to_owned(), pictures::of_all(all))?;
    let mut tables = Vec::new();
    for own in all.chunk_by(|a, b| a.model == b.model) {
        let (name, stem) = (own[0].model.clone(), stem(&own[0].model));
        add(format!("{name} over time"), format!("model-{stem}"), pictures::over_time(own))?;
        tables.push(format!("{stem}.csv"));
    }
    let about = format!(
        "privet {}, {} inferences each at least, {} thread{}, seed {}; times and memory of this machine, whatever else ran on it.",
        env!("CARGO_PKG_VERSION"),
        args.iterations(),
        args.threads,
        if args.threads == 1 { "" } else { "s" },
        args.seed
    );
    Files { dir: out }.write("index.html", &page::page(all, &shown, &tables, &about))
}

/// A model's name as that of files.
fn stem(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' })
        .collect()
}

/// A line for each variant.
fn describe(all: &[Measured]) -> String {
    let mut lines = Table::new();
    lines.load_style(table::STYLE).set_header([
        "model",
        "variant",
        "backend",
        "n",
        "load s",
        "compute s",
        "total s",
        "p95 s",
        "peak",
        "CPU s",
    ]);
    for measured in all {
        let summary = measured.summary();
        let seconds = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.3}"));
        lines.add_row([
            measured.model.clone(),
            measured.label(),
            measured.backend.clone(),
            summary.n.to_string(),
            seconds(summary.load_s_median),
            seconds(summary.compute_s_median),
            seconds(summary.total_s_median),
            seconds(summary.total_s_p95),
            summary.peak_rss_bytes.map_or_else(|| "-".to_owned(), table::bytes),
            format!("{:.3}", summary.cpu_s),
        ]);
    }
    table::lines(lines, 3)
}

//! `cargo xtask`: checks that take data or time.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::architectures::Size;
use xtask::conformance::Options;
use xtask::engine::Engine;
use xtask::{architectures, conformance, fetch, mutants, predict};

/// Checks of Privet that take data or time.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the cases of the ONNX backend suite.
    ///
    /// A case passes when float evaluation, cleartext engine and private engine give its expected output. Every case in
    /// scope has to pass, or be listed with a reason in xtask/conformance-exceptions.txt; a listed case that passes has to be
    /// taken off the list.
    #[command(after_help = "Examples:
  cargo xtask conformance
  cargo xtask conformance --engine 3pc
  cargo xtask conformance --engine cleartext --filter maxpool --verbose
  cargo xtask conformance --data target/conformance --json")]
    Conformance {
        /// The engine; private ones also run cleartext, and compare bit for bit.
        #[arg(long, value_enum, default_value = "2pc")]
        engine: Engine,
        /// Directory with onnx_node and the like. Default: ../shared/data/conformance, or what fetch-conformance fetched.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Only cases whose name contains this.
        #[arg(long, value_name = "TEXT", default_value = "")]
        filter: String,
        /// One line for every case.
        #[arg(long)]
        verbose: bool,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Downloads the node cases of the ONNX backend suite from PyPI (onnx 1.20.1, checked by SHA-256).
    #[command(after_help = "Examples:
  cargo xtask fetch-conformance
  cargo xtask fetch-conformance --out /tmp/conformance --json")]
    FetchConformance {
        /// Where the cases go.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Runs nine image classifiers of the ONNX model zoo, with seeded weights, on the cleartext engine and private ones.
    ///
    /// The originals have constant weights: where their values overflow they have to be refused by name of the layer, else to
    /// give the suite's output. With seeded weights, scaled to unit variance of every layer's output, engines have to
    /// agree bit for bit and stay close to ONNX Runtime. scripts/architectures.py makes those models; it needs Python 3 with
    /// numpy, onnx and onnxruntime.
    #[command(after_help = "Examples:
  cargo xtask architectures --reduced
  cargo xtask architectures --reduced --engine 2pc --engine 3pc
  cargo xtask architectures --full --only squeezenet --json
  cargo xtask architectures --full --python target/venv/bin/python")]
    Architectures {
        /// The size that the architectures were published with.
        #[arg(long, conflicts_with = "reduced")]
        full: bool,
        /// Smaller pictures and a quarter of the channels (the default).
        #[arg(long)]
        reduced: bool,
        /// The private engine; several may be given.
        #[arg(long, value_enum, default_value = "2pc")]
        engine: Vec<Engine>,
        /// Only this architecture.
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
        /// Python 3 with numpy, onnx and onnxruntime. Default: target/venv/bin/python where .ci/run has made it, else python3.
        #[arg(long, value_name = "PROGRAM")]
        python: Option<PathBuf>,
        /// Directory with onnx_light. Default: ../shared/data/conformance.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Compares predicted with measured wall times: five models over lan and wan, which may be 20 % off.
    ///
    /// Builds the command as released, and takes some minutes on a machine that does nothing else.
    #[command(after_help = "Examples:
  cargo xtask predict
  cargo xtask predict --repeat 3 --json")]
    Predict {
        /// How often everything is run; the smallest times count.
        #[arg(long, value_name = "N", default_value_t = 3)]
        repeat: usize,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Builds the mutants of xtask/mutants.toml, each of which drops a mask or breaks a rule, and checks that the leakage
    /// tests notice every one of them.
    #[command(after_help = "Examples:
  cargo xtask mutants
  cargo xtask mutants --only table --json")]
    Mutants {
        /// Only mutants whose name contains this.
        #[arg(long, value_name = "TEXT", default_value = "")]
        only: String,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether what was checked holds.
fn run(command: Command) -> Result<bool> {
    match command {
        Command::Conformance { engine, data, filter, verbose, json } => {
            let data = conformance::data(data)?;
            let report = conformance::run(&Options { engine, data, filter })?;
            if json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                print!("{}", report.text(verbose));
            }
            Ok(report.holds())
        }
        Command::Mutants { only, json } => {
            let report = mutants::run(&only)?;
            if json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                print!("{}", report.text());
            }
            Ok(report.holds())
        }
        Command::Predict { repeat, json } => {
            let report = predict::run(repeat)?;
            if json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                print!("{}", report.text());
            }
            Ok(report.holds())
        }
        Command::FetchConformance { out, json } => {
            let fetched = fetch::fetch(out)?;
            if json {
                println!("{}", serde_json::to_string(&fetched)?);
            } else {
                println!("{} cases in {}", fetched.cases, fetched.directory.display());
            }
            Ok(true)
        }
        Command::Architectures { full, reduced: _, engine, only, python, data, json } => {
            let size = if full { Size::Full } else { Size::Reduced };
            let report = architectures::run(
                size,
                &engine,
                only.as_deref(),
                &python.unwrap_or_else(architectures::python),
                data,
            )?;
            if json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                print!("{}", report.text());
            }
            Ok(true)
        }
    }
}

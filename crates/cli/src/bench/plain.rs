//! The same models without privacy: by a float runtime, and by the cleartext engine, each in a process of its own.

use std::ffi::OsString;

use anyhow::Context;
use ndarray::ArrayD;
use privet::bench::{self, Subject};
use privet::client::Outputs;
use privet::{Plan, model, reference};
use privet_plan::Weights;

use super::case::Case;
use super::phase::phase;
use super::row::{Phase, Row};
use crate::args::Engine;
use crate::parties::{Process, alone};
use crate::plain::{self, Tensor, Tensors};
use crate::scratch::Scratch;
use crate::show::observe::Terminal;
use crate::watch::Watch;

/// Name of the process, and of the engine in rows.
pub(super) const FLOAT: &str = "float";
/// The process of the cleartext engine, as rows call it.
const CLEAR: &str = "p0";
const MODEL_FILE: &str = "model.onnx";
const MODEL_DIR: &str = "model";
const INPUTS_FILE: &str = "inputs.json";
const OUTPUTS_FILE: &str = "outputs.json";

/// Measures the float runtime on the case's model and inputs.
pub(super) fn measure(case: &Case<'_>) -> anyhow::Result<Row> {
    let home = Scratch::new()?;
    let path = |file: &str| home.path().join(file);
    let model = match case.subject {
        Subject::File(file) => std::path::absolute(file)?,
        Subject::Zoo(architecture) => {
            let args = case.args;
            let bytes = case.watch.computing(|| {
                let _spinner = case.terminal.spinner(&format!("{}: writing ONNX", case.name));
                bench::export(architecture, args.seed, args.avgpool)
            })?;
            std::fs::write(path(MODEL_FILE), bytes)
                .context("cannot write the model for the float runtime")?;
            path(MODEL_FILE)
        }
    };
    write_inputs(&home, &case.workload.inputs)?;
    let words = words("float", model.into());
    let process = alone(FLOAT, home.path(), words, case.watch, case.terminal)
        .with_context(|| format!("{}: the float runtime failed", case.name))?;
    let outputs: Tensors = plain::read(&path(OUTPUTS_FILE))?;
    home.close()?;

    let mut errors = Vec::with_capacity(outputs.len());
    for (own, expected) in outputs.into_iter().zip(&case.expected) {
        let arrays = own.into_iter().map(Tensor::into_array).collect::<anyhow::Result<Vec<_>>>()?;
        errors.push(reference::float_difference(&expected.float, &arrays));
    }
    anyhow::ensure!(errors.len() == case.expected.len(), "{}: the float runtime left outputs out", case.name);
    let seconds: Vec<f64> = process.report.work.iter().map(|w| w.seconds).collect();
    // In place of an engine's name it has its own.
    let row = phase(case, Engine::Cleartext, Phase::Online, &[process], 0.0);
    let row = Row {
        engine: FLOAT,
        network: "none".to_owned(),
        ring: None,
        frac_bits: None,
        calibrated: false,
        widths: None,
        matches_cleartext: None,
        ..row
    };
    let mut row = case.timed(row, &seconds, &[]);
    case.erring(&mut row, &errors);
    Ok(row)
}

/// Runs a plan in the clear on every input. Returns the integers, and what the process said.
pub(super) fn cleartext(
    plan: &Plan,
    weights: &Weights,
    inputs: &[Vec<ArrayD<f32>>],
    watch: &Watch,
    terminal: &Terminal,
) -> anyhow::Result<(Vec<Outputs>, Process)> {
    let home = Scratch::new()?;
    model::save(plan, weights, &home.path().join(MODEL_DIR))?;
    write_inputs(&home, inputs)?;
    let process = alone(CLEAR, home.path(), words("cleartext", MODEL_DIR.into()), watch, terminal)?;
    let outputs = plain::read(&home.path().join(OUTPUTS_FILE))?;
    home.close()?;
    Ok((outputs, process))
}

fn write_inputs(home: &Scratch, inputs: &[Vec<ArrayD<f32>>]) -> anyhow::Result<()> {
    let tensors: Tensors = inputs.iter().map(|own| own.iter().map(Tensor::of).collect()).collect();
    plain::write(&home.path().join(INPUTS_FILE), &tensors)
}

/// The command line of such a process.
fn words(runtime: &str, model: OsString) -> Vec<OsString> {
    let words = ["plain", runtime, "--inputs", INPUTS_FILE, "--raw", OUTPUTS_FILE, "--model"];
    words.map(OsString::from).into_iter().chain([model]).collect()
}

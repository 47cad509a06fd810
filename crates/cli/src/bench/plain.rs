//! The same models without privacy, by a float runtime in a process of its own.

use std::ffi::OsString;

use anyhow::Context;
use privet::bench::{self, Subject};
use privet::reference;

use super::case::Case;
use super::inference;
use super::row::{Phase, Row};
use crate::args::Engine;
use crate::float::{self, Tensor};
use crate::parties::alone;
use crate::scratch::Scratch;

/// Name of the process, and of the engine in rows.
pub(super) const FLOAT: &str = "float";
const MODEL_FILE: &str = "model.onnx";
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
    let inputs = case.workload.inputs.iter().map(|own| own.iter().map(Tensor::of).collect()).collect();
    float::write(&path(INPUTS_FILE), &inputs)?;
    let words = [
        OsString::from("float-runtime"),
        "--model".into(),
        model.into(),
        "--inputs".into(),
        INPUTS_FILE.into(),
        "--raw".into(),
        OUTPUTS_FILE.into(),
    ];
    let process = alone(FLOAT, home.path(), words.into(), case.watch, case.terminal)
        .with_context(|| format!("{}: the float runtime failed", case.name))?;
    let outputs = float::read(&path(OUTPUTS_FILE))?;
    home.close()?;

    let mut errors = Vec::with_capacity(outputs.len());
    for (own, expected) in outputs.into_iter().zip(&case.expected) {
        let arrays = own.into_iter().map(Tensor::into_array).collect::<anyhow::Result<Vec<_>>>()?;
        errors.push(reference::float_difference(&expected.float, &arrays));
    }
    anyhow::ensure!(errors.len() == case.expected.len(), "{}: the float runtime left outputs out", case.name);
    let seconds: Vec<f64> = process.report.work.iter().map(|w| w.seconds).collect();
    // In place of an engine's name it has its own.
    let row = inference::phase(case, Engine::Cleartext, Phase::Online, &[process], 0.0);
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

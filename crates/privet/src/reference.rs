//! What private results are compared with, by whoever holds model and inputs anyway: the same integers in the clear, and
//! the model in float.

use ndarray::ArrayD;
use privet_protocols::{Progress, cleartext as engine};

use crate::error::Error;
use crate::events::{Event, Observer, Phase, Report};
use crate::model::{Model, ModelError};
use crate::output::Values;
use crate::postprocess::Output;
use crate::resources;
use crate::session::Stopwatch;

/// Runs the model on plain integers. Returns one vector per plan output, which the private engines match bit for bit.
///
/// # Errors
/// A value leaves the range of its wire; the message names the layer and the width it needs.
pub fn cleartext(
    model: &Model,
    inputs: &[Vec<i64>],
    observer: &dyn Observer,
) -> Result<(Vec<Vec<i64>>, Report), Error> {
    let stopwatch = Stopwatch::start();
    let outputs = engine::run(&model.plan, &model.weights, inputs, &mut Steps(observer))?;
    let work = stopwatch.span();
    let report = Report {
        role: "cleartext".to_owned(),
        phase: Phase::Online,
        inferences: 1,
        seconds: work.seconds,
        cpu_seconds: work.cpu_seconds,
        bytes_sent: 0,
        bytes_received: 0,
        wire_bytes_sent: 0,
        rounds: 0,
        bytes_stored: 0,
        peak_memory_bytes: resources::peak_memory_bytes(),
        work: vec![work],
    };
    Ok((outputs, report))
}

/// Largest absolute difference between `outputs` and what the model gives in float, as [`difference`] has it.
///
/// # Errors
/// The model does not run in float on these inputs.
pub fn max_abs_error(model: &Model, inputs: &[ArrayD<f32>], outputs: &[Output]) -> Result<f64, Error> {
    Ok(difference(&float(model, inputs)?, outputs))
}

/// What the model gives in float, final functions included.
///
/// # Errors
/// The model does not run in float on these inputs.
pub fn float(model: &Model, inputs: &[ArrayD<f32>]) -> Result<Vec<ArrayD<f32>>, Error> {
    Ok(model.float.run(inputs).map_err(|e| ModelError::Float(Box::new(e)))?)
}

/// Largest absolute difference between what a model gives in float and `outputs`, final functions included on both sides.
/// Not a number if one side has a value that is none. Whole-numbered outputs (indices, truth values) have no part in it:
/// how far apart two indices are says nothing.
pub fn difference(float: &[ArrayD<f32>], outputs: &[Output]) -> f64 {
    let pairs = float.iter().zip(outputs).filter_map(|(float, output)| match &output.values {
        Values::Floats(values) => Some(float.iter().zip(values)),
        Values::Whole(_) => None,
    });
    let differences = pairs.flatten().map(|(&f, &v)| (f64::from(f) - v).abs());
    differences
        .fold(0.0, |largest: f64, d| if d.is_nan() || largest.is_nan() { f64::NAN } else { largest.max(d) })
}

struct Steps<'a>(&'a dyn Observer);

impl Progress for Steps<'_> {
    fn step(&mut self, done: usize, total: usize, name: &str) {
        let name = name.to_owned();
        self.0.event(&Event::Progress { phase: Phase::Online, inference: 0, done, total, name });
    }
}

//! What private results are compared with, by whoever holds model and inputs anyway: the same integers in the clear, and
//! the model in float.

use std::path::Path;

use ndarray::ArrayD;
use privet_graph::FloatModel;
use privet_plan::{InputSpec, Plan, Preprocess, Weights};
use privet_protocols::{Progress, cleartext as engine};

use crate::error::Error;
use crate::events::{Agreement, Event, Observer, Phase, Report};
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
    integers(&model.plan, &model.weights, inputs, observer)
}

/// [`cleartext`] of a program that no model in float belongs to.
///
/// # Errors
/// As there.
pub fn integers(
    plan: &Plan,
    weights: &Weights,
    inputs: &[Vec<i64>],
    observer: &dyn Observer,
) -> Result<(Vec<Vec<i64>>, Report), Error> {
    let stopwatch = Stopwatch::start();
    let outputs = engine::run(plan, weights, inputs, &mut Steps(observer))?;
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
        agreement: Agreement::default(),
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
    differences.fold(0.0, worst)
}

/// Largest absolute difference between two runs of a model in float; not a number if they differ in shape, or a value is
/// none.
pub fn float_difference(left: &[ArrayD<f32>], right: &[ArrayD<f32>]) -> f64 {
    if left.len() != right.len() || left.iter().zip(right).any(|(l, r)| l.shape() != r.shape()) {
        return f64::NAN;
    }
    let pairs = left.iter().zip(right).flat_map(|(l, r)| l.iter().zip(r));
    pairs.map(|(&l, &r)| (f64::from(l) - f64::from(r)).abs()).fold(0.0, worst)
}

/// The larger one; not a number once one is none.
fn worst(largest: f64, next: f64) -> f64 {
    if next.is_nan() || largest.is_nan() { f64::NAN } else { largest.max(next) }
}

/// A model that runs in float by its graph's own operators, one after the other: what faster kernels are compared with.
pub struct FloatReference {
    model: FloatModel,
    inputs: Vec<InputSpec>,
}

impl FloatReference {
    /// Reads an ONNX file. Pictures become inputs by `preprocess`.
    ///
    /// # Errors
    /// The file is no model, or leaves shapes open.
    pub fn read(path: &Path, preprocess: &Preprocess) -> Result<Self, Error> {
        let graph = privet_onnx::load(path);
        let graph =
            graph.map_err(|source| ModelError::Onnx { path: path.to_owned(), source: Box::new(source) })?;
        let fail = |source| ModelError::Graph { path: path.to_owned(), source: Box::new(source) };
        let model = FloatModel::settle(&graph, &[]).map_err(fail)?;
        let mut inputs = Vec::new();
        for input in &model.graph().inputs {
            let shape = model.fact(input.value).map_err(fail)?.shape.clone();
            inputs.push(InputSpec { name: input.name.clone(), shape, preprocess: preprocess.clone() });
        }
        Ok(Self { model, inputs })
    }

    /// What it takes.
    pub fn inputs(&self) -> &[InputSpec] {
        &self.inputs
    }

    /// Names of what it gives.
    pub fn outputs(&self) -> impl ExactSizeIterator<Item = &str> {
        self.model.graph().outputs.iter().map(|output| output.name.as_str())
    }

    /// The outputs, in the model's order, final functions included.
    ///
    /// # Errors
    /// The model does not run on these inputs.
    pub fn run(&self, inputs: &[ArrayD<f32>]) -> Result<Vec<ArrayD<f32>>, Error> {
        Ok(self.model.run(inputs).map_err(|e| ModelError::Float(Box::new(e)))?)
    }
}

struct Steps<'a>(&'a dyn Observer);

impl Progress for Steps<'_> {
    fn step(&mut self, done: usize, total: usize, name: &str) {
        let name = name.to_owned();
        self.0.event(&Event::Progress { phase: Phase::Online, inference: 0, done, total, name });
    }
}

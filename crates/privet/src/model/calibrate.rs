//! Calibration: what typical inputs need decides ranges, ring and fractional bits.

use std::borrow::Cow;
use std::path::PathBuf;

use ndarray::ArrayD;
use privet_graph::{FloatModel, Graph};
use privet_plan::interval::Interval;
use privet_plan::ranges::{Evidence, Ranges};
use privet_plan::{OutputSpec, Plan, PlanError, Weights};
use privet_protocols::{Silent, cleartext};
use privet_ring::{Ring, fixed};
use serde::Serialize;

use super::declared::Declared;
use super::options::{DEFAULT_FRAC_BITS, DEFAULT_TOLERANCE, FRAC_BITS, Lowered, MARGIN};
use super::{Model, ModelError, fixed_inputs, load_inputs};

/// How far a model's integers are from float on the calibration inputs, before the receiver's final functions.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Accuracy {
    /// Number of calibration inputs.
    pub inputs: usize,
    /// Largest difference of an output value to the model in float.
    pub max_abs_error: f64,
    /// Largest difference of a value relative to the largest magnitude that its output has in float on these inputs.
    pub relative_error: f64,
    /// Elements of whole-numbered outputs (indices, truth values) that differ; they have no part in the errors.
    pub differing: u64,
    /// The relative error that was asked for; none where fractional bits were given.
    pub tolerance: Option<f64>,
}

impl Accuracy {
    /// Whether the relative error is within the tolerance, if there is one.
    pub fn is_met(&self) -> bool {
        self.tolerance.is_none_or(|t| self.relative_error <= t)
    }
}

/// What a calibration works with.
pub(super) struct Calibration<'a> {
    pub(super) graph: &'a Graph,
    pub(super) lowered: &'a dyn Fn(&Graph, Ring, u32) -> Result<Lowered, ModelError>,
    pub(super) samples: &'a Samples<'a>,
    pub(super) declared: &'a Declared,
    pub(super) margin: Option<u32>,
    pub(super) ring: Option<Ring>,
}

/// Typical inputs: files, then arrays.
pub(super) struct Samples<'a> {
    pub(super) files: &'a [PathBuf],
    pub(super) arrays: &'a [Vec<ArrayD<f32>>],
}

impl Samples<'_> {
    fn count(&self) -> usize {
        self.files.len() + self.arrays.len()
    }

    fn load(&self, plan: &Plan, index: usize) -> Result<Cow<'_, [ArrayD<f32>]>, ModelError> {
        match self.files.get(index) {
            Some(file) => Ok(load_inputs(plan, std::slice::from_ref(file))?.into()),
            None => Ok(Cow::Borrowed(&self.arrays[index - self.files.len()])),
        }
    }

    /// What errors call a sample.
    fn name(&self, index: usize) -> PathBuf {
        let array = || PathBuf::from(format!("sample {}", index - self.files.len() + 1));
        self.files.get(index).cloned().unwrap_or_else(array)
    }
}

/// A model with `frac_bits` fractional bits, measured.
struct Attempt {
    model: Model,
    accuracy: Accuracy,
}

/// What the model gives in float on every calibration input, and the largest magnitude of every output.
struct Reference {
    outputs: Vec<Vec<ArrayD<f32>>>,
    largest: Vec<f64>,
}

impl Calibration<'_> {
    /// The model with given fractional bits.
    pub(super) fn with_frac_bits(&self, frac_bits: u32) -> Result<Model, ModelError> {
        let lowered = self.lower(frac_bits)?;
        let reference = self.reference(&lowered)?;
        Ok(self.attempt(lowered, &reference, None)?.finish(None))
    }

    /// The model with the fewest fractional bits whose error is within `tolerance`; if none is, with the most that fit.
    pub(super) fn within(&self, tolerance: Option<f64>) -> Result<Model, ModelError> {
        let tolerance = tolerance.unwrap_or(DEFAULT_TOLERANCE);
        let first = self.lower(*FRAC_BITS.start())?;
        let reference = self.reference(&first)?;
        let most = self.ring.map_or(u32::MAX, |ring| (ring.bits() - 3) / 2);
        // Whole outputs show no error until one of them differs: nothing to choose fewer bits by.
        let is_whole = |o: &OutputSpec| first.plan.steps[o.wire.index()].frac_bits == 0;
        let all_whole = first.plan.outputs.iter().all(is_whole);
        let least = if all_whole { DEFAULT_FRAC_BITS.min(most) } else { *FRAC_BITS.start() };
        let (mut low, mut high) = (least, most.min(*FRAC_BITS.end()));
        let (mut precise, mut coarse, mut misfit) = (None, None, None);
        while low <= high {
            let middle = u32::midpoint(low, high);
            let attempt =
                self.lower(middle).and_then(|lowered| self.attempt(lowered, &reference, Some(tolerance)));
            match attempt {
                Ok(attempt) if attempt.accuracy.relative_error <= tolerance => {
                    precise = Some(attempt);
                    high = middle - 1;
                }
                Ok(_) => {
                    coarse = Some(middle);
                    low = middle + 1;
                }
                Err(error) => {
                    misfit = Some(error);
                    high = middle - 1;
                }
            }
        }
        match (precise, coarse, misfit) {
            (Some(attempt), ..) => Ok(attempt.finish(Some(tolerance))),
            (None, Some(frac_bits), _) => {
                Ok(self.attempt(self.lower(frac_bits)?, &reference, None)?.finish(Some(tolerance)))
            }
            (None, None, Some(error)) => Err(error),
            (None, None, None) => Err(ModelError::Options(format!(
                "--calibrate chooses at least {low} fractional bits, which a ring of {} bits does not hold",
                self.ring.map_or(Ring::MAX_BITS, Ring::bits)
            ))),
        }
    }

    /// Lowered to the widest ring: calibration looks at values where little can overflow, the ring comes afterwards.
    fn lower(&self, frac_bits: u32) -> Result<Lowered, ModelError> {
        (self.lowered)(self.graph, Ring::new(Ring::MAX_BITS)?, frac_bits)
    }

    fn reference(&self, lowered: &Lowered) -> Result<Reference, ModelError> {
        let Lowered { plan, float, .. } = lowered;
        let run = |i| run_float(float, plan, &self.samples.load(plan, i)?);
        let outputs = (0..self.samples.count()).map(run).collect::<Result<Vec<_>, ModelError>>()?;
        let largest = |i: usize| {
            let values = outputs.iter().flat_map(|o| o[i].iter());
            values.map(|v| f64::from(v.abs())).fold(0.0, f64::max)
        };
        let largest = (0..plan.outputs.len()).map(largest).collect();
        Ok(Reference { outputs, largest })
    }

    /// Runs all inputs and fits ranges and ring to them. Stops early when the error is beyond `tolerance`.
    fn attempt(
        &self,
        lowered: Lowered,
        reference: &Reference,
        tolerance: Option<f64>,
    ) -> Result<Attempt, ModelError> {
        let Lowered { mut plan, weights, float } = lowered;
        let declared = self.declared.encode(&plan)?;
        // What is declared or proved already binds the calibration inputs.
        declare(&mut plan, &weights, &declared)?;
        if let Some(ring) = self.ring {
            declare(&mut Plan { ring, ..plan.clone() }, &weights, &declared)?;
        }
        let mut maxima = vec![0u64; plan.steps.len()];
        let mut accuracy = Accuracy { inputs: self.samples.count(), ..Accuracy::default() };
        for (i, float) in reference.outputs.iter().enumerate() {
            let outputs = run_integers(&plan, &weights, self.samples, i, &mut maxima)?;
            accuracy.add(&plan, &outputs, float, &reference.largest);
            if tolerance.is_some_and(|t| accuracy.relative_error > t) {
                break;
            }
        }
        let margin = self.margin.unwrap_or(MARGIN);
        let evidence = Evidence { declared: &declared, maxima: Some(&maxima), margin };
        let ranges = Ranges::derive(&plan, &weights, &evidence);
        let plan = match self.ring {
            Some(ring) => narrowed(&plan, &weights, &ranges, ring),
            None => smallest(&plan, &weights, &ranges),
        };
        let plan = plan.map_err(|e| ModelError::Calibration(Box::new(e)))?;
        let model = Model { plan, weights, float, accuracy: None };
        Ok(Attempt { model, accuracy })
    }
}

impl Attempt {
    fn finish(mut self, tolerance: Option<f64>) -> Model {
        self.model.accuracy = Some(Accuracy { tolerance, ..self.accuracy });
        self.model
    }
}

impl Accuracy {
    /// Compares the outputs on one input.
    fn add(&mut self, plan: &Plan, integers: &[Vec<i64>], float: &[ArrayD<f32>], largest: &[f64]) {
        for (i, output) in plan.outputs.iter().enumerate() {
            let frac_bits = u32::from(plan.steps[output.wire.index()].frac_bits);
            let pairs =
                integers[i].iter().zip(&float[i]).map(|(&v, &f)| (fixed::decode(v, frac_bits), f64::from(f)));
            if frac_bits == 0 {
                self.differing += pairs.filter(|(v, f)| v != f).count() as u64;
                continue;
            }
            for difference in pairs.map(|(v, f)| (v - f).abs()) {
                // What is not a number is as wrong as can be.
                let difference = if difference.is_nan() { f64::INFINITY } else { difference };
                let relative = if difference == 0.0 { 0.0 } else { difference / largest[i] };
                self.max_abs_error = self.max_abs_error.max(difference);
                self.relative_error =
                    self.relative_error.max(if relative.is_nan() { f64::INFINITY } else { relative });
            }
        }
    }
}

fn run_float(
    float: &FloatModel,
    plan: &Plan,
    inputs: &[ArrayD<f32>],
) -> Result<Vec<ArrayD<f32>>, ModelError> {
    float.run_revealed(plan, inputs).map_err(|e| ModelError::Float(Box::new(e)))
}

fn run_integers(
    plan: &Plan,
    weights: &Weights,
    samples: &Samples,
    index: usize,
    maxima: &mut [u64],
) -> Result<Vec<Vec<i64>>, ModelError> {
    let path = || samples.name(index);
    let inputs = fixed_inputs(plan, &samples.load(plan, index)?)
        .map_err(|source| ModelError::CalibrationInput { path: path(), source: Box::new(source) })?;
    let observe = |wire: usize, values: &[i64]| {
        let largest = values.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0);
        maxima[wire] = maxima[wire].max(largest);
    };
    cleartext::run_observed(plan, weights, &inputs, &mut Silent, observe)
        .map_err(|source| ModelError::CalibrationRun { path: path(), source: Box::new(source) })
}

/// The plan in `ring`, if everything fits. The steps stay those of the ring it was lowered for; only ranges and widths
/// change.
fn narrowed(plan: &Plan, weights: &Weights, ranges: &Ranges, ring: Ring) -> Result<Plan, PlanError> {
    let mut plan = Plan { ring, ..plan.clone() };
    ranges.assign(&mut plan)?;
    plan.validate()?;
    weights.check(&plan)?;
    Ok(plan)
}

/// The plan in the smallest ring that fits; the error is the widest ring's.
fn smallest(plan: &Plan, weights: &Weights, ranges: &Ranges) -> Result<Plan, PlanError> {
    let mut attempt = narrowed(plan, weights, ranges, plan.ring);
    for bits in (Ring::MIN_BITS..plan.ring.bits()).rev() {
        let Some(narrower) = Ring::new(bits).ok().and_then(|r| narrowed(plan, weights, ranges, r).ok())
        else {
            break;
        };
        attempt = Ok(narrower);
    }
    attempt
}

/// Ranges that the inputs' owner promises, without calibration.
pub(super) fn declare(
    plan: &mut Plan,
    weights: &Weights,
    declared: &[Option<Interval>],
) -> Result<(), ModelError> {
    let evidence = Evidence { declared, maxima: None, margin: 1 };
    let misfit = |e| ModelError::Ranges(Box::new(e));
    Ranges::derive(plan, weights, &evidence).assign(plan).map_err(misfit)
}

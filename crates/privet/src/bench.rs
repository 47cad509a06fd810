//! What benchmarks measure: a model of the zoo with random weights, or an ONNX file, and random inputs for it.
//!
//! Everything follows from a seed. Ranges, ring and fractional bits are chosen on two inputs other than the measured ones.

mod kinds;
pub mod micro;

use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use privet_graph::Graph;
use privet_graph::nn::{self, Parameters, zoo};
use privet_plan::Plan;

use crate::error::Error;
use crate::events::Observer;
use crate::explain::{Setting, explain};
use crate::model::{self, CompileOptions, Model, ModelError};
use crate::postprocess::Output;
use crate::reference;

pub use kinds::{Kind, KindSeconds, Stopwatches};

/// How many inputs a model is calibrated on.
pub const CALIBRATION_INPUTS: usize = 2;

/// A model to measure.
#[derive(Debug, Clone)]
pub enum Subject {
    /// An architecture of the zoo, with random weights.
    Zoo(&'static zoo::Architecture),
    /// An ONNX file.
    File(PathBuf),
}

impl Subject {
    /// The architecture called `name`, or the ONNX file at this path.
    pub fn find(name: &str) -> Option<Self> {
        let is_file = || Path::new(name).extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"));
        match zoo::find(name) {
            Some(architecture) => Some(Self::Zoo(architecture)),
            None => is_file().then(|| Self::File(name.into())),
        }
    }

    /// The architecture's name, or the file's without its extension.
    pub fn name(&self) -> String {
        match self {
            Self::Zoo(architecture) => architecture.name.to_owned(),
            Self::File(path) => path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        }
    }
}

/// Names of all architectures.
pub fn names() -> impl Iterator<Item = &'static str> {
    zoo::ARCHITECTURES.iter().map(|a| a.name)
}

/// How a [`Workload`] is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of inputs to measure.
    pub inputs: usize,
    /// Decides weights and inputs.
    pub seed: u64,
    /// Whether ranges and comparison widths are calibrated; otherwise they are the full width.
    pub calibrate: bool,
    /// Ring width, instead of the smallest that fits.
    pub ring: Option<u32>,
    /// Fractional bits, instead of the fewest that keep to the tolerance.
    pub frac_bits: Option<u32>,
    /// Averages in the place of all maxima of an architecture; files stay as they are.
    pub average_pooling: bool,
}

/// A compiled model and inputs for it.
pub struct Workload {
    /// The model.
    pub model: Model,
    /// Inputs to measure with, each in the order of the model's.
    pub inputs: Vec<Vec<ArrayD<f32>>>,
}

impl Workload {
    /// Makes the model and its inputs. Inputs are independent N(0, 1), what the weights of the zoo are scaled for.
    ///
    /// # Errors
    /// A file that is no model, and ranges, rings and fractional bits that do not fit.
    pub fn new(subject: &Subject, options: &Options) -> Result<Self, ModelError> {
        let shapes = input_shapes(subject)?;
        let draw = |number: usize| -> Vec<ArrayD<f32>> {
            let tensor = |(i, shape): (usize, &Vec<usize>)| {
                nn::random_input(options.seed, (number * shapes.len() + i) as u64, shape)
            };
            shapes.iter().enumerate().map(tensor).collect()
        };
        let calibrated = if options.calibrate { CALIBRATION_INPUTS } else { 0 };
        let (ring, frac_bits) = (options.ring, options.frac_bits);
        let samples = (0..calibrated).map(draw).collect();
        let compile = CompileOptions { ring, frac_bits, samples, ..CompileOptions::default() };
        let model = match subject {
            Subject::File(path) => model::compile(path, &compile)?,
            Subject::Zoo(architecture) => {
                let graph = graph(architecture, options.seed, options.average_pooling);
                Model::from_graph(&graph, &compile)?
            }
        };
        let inputs = (CALIBRATION_INPUTS..CALIBRATION_INPUTS + options.inputs).map(draw).collect();
        Ok(Self { model, inputs })
    }
}

/// An architecture with random weights, in float.
fn graph(architecture: &zoo::Architecture, seed: u64, average_pooling: bool) -> Graph {
    let [channels, height, width] = architecture.input;
    let module = (architecture.make)(architecture.classes);
    let module = if average_pooling { zoo::average_pooling(module) } else { module };
    let built = module.build(architecture.name, &[1, channels, height, width], Parameters::random(seed));
    built.expect("the zoo's layers fit each other").graph
}

/// An architecture with the random weights that [`Workload::new`] gives it, as an ONNX file for other runtimes.
///
/// # Errors
/// An operator that is not written to such files.
pub fn export(
    architecture: &zoo::Architecture,
    seed: u64,
    average_pooling: bool,
) -> Result<Vec<u8>, ModelError> {
    privet_onnx::export(&graph(architecture, seed, average_pooling))
        .map_err(|e| ModelError::Onnx { path: architecture.name.into(), source: Box::new(e) })
}

/// Shapes of a model's inputs, an open batch being 1.
fn input_shapes(subject: &Subject) -> Result<Vec<Vec<usize>>, ModelError> {
    match subject {
        Subject::Zoo(architecture) => Ok(vec![[&[1], &architecture.input[..]].concat()]),
        Subject::File(path) => {
            let plan = model::compile(path, &CompileOptions::default())?.plan;
            Ok(plan.inputs.into_iter().map(|i| i.shape).collect())
        }
    }
}

/// What an inference has to give.
pub struct Expected {
    /// One vector per output.
    pub outputs: Vec<Vec<i64>>,
    /// The model's in float.
    pub float: Vec<ArrayD<f32>>,
}

/// Runs a model on plain integers and in float.
///
/// # Errors
/// An input or a value in the model beyond its range.
pub fn expect(model: &Model, input: &[ArrayD<f32>], observer: &dyn Observer) -> Result<Expected, Error> {
    let integers = model::fixed_inputs(&model.plan, input)?;
    let (outputs, _) = reference::cleartext(model, &integers, observer)?;
    Ok(Expected { outputs, float: reference::float(model, input)? })
}

impl Expected {
    /// Largest difference of `outputs` to float; not a number if one is none.
    pub fn error(&self, outputs: &[Output]) -> f64 {
        reference::difference(&self.float, outputs)
    }
}

/// Smallest and largest width of a plan's comparisons, if it has any.
pub fn widths(plan: &Plan) -> Option<(u8, u8)> {
    let rows = explain(plan, Setting::Cleartext).rows;
    let widths = || rows.iter().filter_map(|row| row.width);
    widths().min().zip(widths().max())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Silent;
    use crate::postprocess;

    const OPTIONS: Options =
        Options { inputs: 2, seed: 7, calibrate: true, ring: None, frac_bits: None, average_pooling: false };

    #[test]
    fn a_workload_follows_from_its_seed_and_keeps_its_accuracy() {
        let subject = Subject::find("lenet").unwrap();
        let make = |seed| Workload::new(&subject, &Options { seed, ..OPTIONS }).unwrap();
        let (one, same, other) = (make(7), make(7), make(8));
        assert_eq!((one.model.plan.digest(), &one.inputs), (same.model.plan.digest(), &same.inputs));
        assert_ne!(one.inputs, other.inputs);
        assert_ne!(one.inputs[0], one.inputs[1]);
        let (low, high) = widths(&one.model.plan).unwrap();
        assert!(low <= high && u32::from(high) < one.model.plan.ring.bits());
        let calibration = one.model.accuracy.as_ref().unwrap();
        assert_eq!(calibration.inputs, CALIBRATION_INPUTS);
        for input in &one.inputs {
            let expected = expect(&one.model, input, &Silent).unwrap();
            let outputs = postprocess::decode(&one.model.plan, &expected.outputs).unwrap();
            let error = expected.error(&outputs);
            assert!(error > 0.0 && error < 4.0 * calibration.max_abs_error, "{error} {calibration:?}");
        }
    }

    #[test]
    fn rings_are_forced_with_and_without_calibration() {
        let subject = Subject::find("lenet").unwrap();
        let make = |calibrate, ring, frac_bits| {
            let options = Options { calibrate, ring, frac_bits, inputs: 0, ..OPTIONS };
            Workload::new(&subject, &options).unwrap().model.plan
        };
        let full = make(false, Some(64), None);
        assert_eq!((full.ring.bits(), full.frac_bits, widths(&full)), (64, 16, Some((63, 63))));
        let narrow = make(true, Some(64), Some(12));
        assert_eq!((narrow.ring.bits(), narrow.frac_bits), (64, 12));
        assert!(widths(&narrow).unwrap().1 < 48);
    }

    #[test]
    fn files_are_subjects_and_other_names_are_none() {
        let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/digits/digits.onnx");
        let subject = Subject::find(digits.to_str().unwrap()).unwrap();
        assert_eq!(subject.name(), "digits");
        let workload = Workload::new(&subject, &OPTIONS).unwrap();
        assert_eq!(workload.inputs[0][0].shape(), [1, 1, 8, 8]);
        assert!(Subject::find("lenet6").is_none());
        assert_eq!(
            names().filter(|n| Subject::find(n).is_some_and(|s| s.name() == *n)).count(),
            names().count()
        );
    }
}

//! Models: from an ONNX file or a graph to a public plan and private weights, and their directory.
//!
//! | file | what | whose |
//! |---|---|---|
//! | `plan.privet` | the integer program, preprocessing and labels, no weights | public |
//! | `weights.safetensors` | fixed-point integers, bound to the plan by its digest | the server's, mode 0600 |

mod calibrate;
mod compile;
mod declared;
mod inputs;
mod options;

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use privet_graph::{FloatModel, GraphError};
use privet_onnx::OnnxError;
use privet_plan::file::MAX_PLAN_BYTES;
use privet_plan::{Plan, PlanError, Weights};
use privet_protocols::ProtocolError;
use privet_ring::RingError;

use crate::files;
use crate::input::InputError;

pub use calibrate::Accuracy;
pub use compile::{compile, parse_shape};
use inputs::names;
pub use inputs::{NamedFile, fixed_inputs, group_inputs, load_inputs, load_inputs_for};
pub use options::{CompileOptions, DEFAULT_FRAC_BITS, DEFAULT_TOLERANCE, FRAC_BITS, MARGIN};

/// File name of the plan in a model's directory.
pub const PLAN_FILE: &str = "plan.privet";
/// File name of the weights in a model's directory.
pub const WEIGHTS_FILE: &str = "weights.safetensors";

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The model file is not read.
    #[error("model {}", said_once(path, source))]
    Onnx {
        /// The model file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<OnnxError>,
    },
    /// The model does not lower onto a plan.
    #[error("model {}: {source}", path.display())]
    Graph {
        /// The model file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<GraphError>,
    },
    /// The model does not run in float.
    #[error("the model in float")]
    Float(#[source] Box<GraphError>),
    /// Options contradict each other or the model.
    #[error("{0}")]
    Options(String),
    /// Ring width.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A file of preprocessing, labels or inputs.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The plan that calibration asks for does not fit.
    #[error("calibration: {0}")]
    Calibration(#[source] Box<PlanError>),
    /// The plan that the declared ranges of the inputs ask for does not fit.
    #[error("--input-range: {0}")]
    Ranges(#[source] Box<PlanError>),
    /// Nobody would read the plan's file.
    #[error(
        "the plan has {bytes} bytes, at most {MAX_PLAN_BYTES} are accepted; shorten --labels or split the model"
    )]
    PlanSize {
        /// Length of the encoded plan.
        bytes: usize,
    },
    /// A calibration input does not fit.
    #[error("calibration with {}: {source}", path.display())]
    CalibrationInput {
        /// The input.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<ModelError>,
    },
    /// A calibration input does not run.
    #[error("calibration with {}: {source}", path.display())]
    CalibrationRun {
        /// The input.
        path: PathBuf,
        /// What went wrong.
        source: Box<ProtocolError>,
    },
    /// An input value does not fit the plan.
    #[error(
        "input {name:?}: the value at flat index {index} needs {needed} bits with {frac_bits} fractional bits, the plan \
         is safe for {bits}; compile with a larger --margin or --input-range, or --calibrate files that cover this \
         input"
    )]
    InputRange {
        /// Name of the input.
        name: String,
        /// The value's position in row-major order.
        index: usize,
        /// Signed width that the value needs.
        needed: u32,
        /// Width that the plan declares safe for this input.
        bits: u32,
        /// Fractional bits of inputs.
        frac_bits: u32,
    },
    /// Inputs as given do not match the model's.
    #[error("{0}")]
    Inputs(String),
    /// A file of a model's directory cannot be read.
    #[error("cannot read {}: {problem}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says, and what to do.
        problem: String,
    },
    /// A file of a model's directory cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of a model's directory is damaged, of another version, or belongs to another one.
    #[error("{}: {source}; make it anew with privet compile", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PlanError,
    },
}

/// A path and what is wrong with its file, which may begin with the path itself.
fn said_once(path: &Path, error: &OnnxError) -> String {
    let (path, text) = (path.display().to_string(), error.to_string());
    if text.starts_with(&path) { text } else { format!("{path}: {text}") }
}

/// A compiled model.
pub struct Model {
    /// The public integer program.
    pub plan: Plan,
    /// The private integers.
    pub weights: Weights,
    /// The same model in float, for comparison.
    pub float: FloatModel,
    /// What calibration measured, if there was one.
    pub accuracy: Option<Accuracy>,
}

impl Model {
    /// Writes plan and weights into `dir`, which is made if needed. Each file appears whole or not at all; an older
    /// model is replaced. The weights can be read by their owner only.
    ///
    /// # Errors
    /// Failures of the system, and a plan that [`load_plan`] would refuse for its length.
    pub fn save(&self, dir: &Path) -> Result<(), ModelError> {
        save(&self.plan, &self.weights, dir)
    }
}

/// See [`Model::save`]; of a program that no model in float belongs to.
///
/// # Errors
/// As there.
pub fn save(plan: &Plan, weights: &Weights, dir: &Path) -> Result<(), ModelError> {
    let bytes = check_size(plan)?;
    let encode = |source| ModelError::File { path: dir.join(WEIGHTS_FILE), source };
    let weights = weights.to_bytes(plan).map_err(encode)?;
    let make = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    make.map_err(|source| ModelError::Write { path: dir.to_owned(), source })?;
    // While a model is replaced, old weights with a new plan are refused by their digest.
    write(&dir.join(WEIGHTS_FILE), &weights, files::PRIVATE)?;
    write(&dir.join(PLAN_FILE), &bytes, files::PUBLIC)
}

/// A model as the server has it: no float, no ONNX.
pub struct LoadedModel {
    /// The public integer program.
    pub plan: Plan,
    /// The private integers.
    pub weights: Weights,
}

impl LoadedModel {
    /// Reads what [`Model::save`] wrote.
    ///
    /// # Errors
    /// A file is missing, cut short, damaged, of another version, or the weights belong to another plan.
    pub fn load(dir: &Path) -> Result<Self, ModelError> {
        let plan = load_plan(&dir.join(PLAN_FILE))?;
        let weights_path = dir.join(WEIGHTS_FILE);
        // 8 bytes a value and a header line per tensor.
        let values: u64 = plan.params.iter().map(|p| p.shape.iter().product::<usize>() as u64).sum();
        let limit = 8 * values + 4096 * (plan.params.len() as u64 + 1);
        let bytes = read(&weights_path, limit)?;
        let damaged = |source| ModelError::File { path: weights_path.clone(), source };
        let weights = Weights::from_bytes(&bytes, &plan).map_err(damaged)?;
        Ok(Self { plan, weights })
    }
}

/// Reads a plan alone, as everyone may see it.
///
/// # Errors
/// The file is missing, cut short, damaged or of another version.
pub fn load_plan(path: &Path) -> Result<Plan, ModelError> {
    let bytes = read(path, MAX_PLAN_BYTES as u64)?;
    Plan::from_bytes(&bytes).map_err(|source| ModelError::File { path: path.to_owned(), source })
}

/// The encoded plan, if files and peers accept one of its length.
fn check_size(plan: &Plan) -> Result<Vec<u8>, ModelError> {
    let bytes = plan.to_bytes();
    if bytes.len() > MAX_PLAN_BYTES { Err(ModelError::PlanSize { bytes: bytes.len() }) } else { Ok(bytes) }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ModelError> {
    let fail = |problem: String| ModelError::Read { path: path.to_owned(), problem };
    let open = File::open(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => fail("no such file; make it with privet compile MODEL.onnx -o DIR".to_owned()),
        _ => fail(e.to_string()),
    })?;
    let mut bytes = Vec::new();
    open.take(limit + 1).read_to_end(&mut bytes).map_err(|e| fail(e.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(fail(format!("more than the {limit} bytes it can have; is it another model's?")));
    }
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), ModelError> {
    files::write(path, bytes, mode).map_err(|source| ModelError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;

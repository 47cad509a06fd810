//! Runs stages one by one in this process.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use ndarray::ArrayD;
use privet_graph::Tensor;

use crate::index::Index;
use crate::stage::{Stage, Tensors};
use crate::{SplitError, kernels, process};

/// What a stage took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Taken {
    /// Seconds to read nodes and held weights.
    pub load_seconds: f64,
    /// Seconds to compute, reading of blocks included.
    pub run_seconds: f64,
    /// The most memory beyond what the process had before the first stage, in bytes; none where the system does not say.
    pub peak: Option<u64>,
}

/// Outputs of a model by their names, in its order.
pub type Outputs = Vec<(String, Tensor)>;

/// Runs the stages of a directory. Returns the model's outputs, and what every stage took.
///
/// # Errors
/// Inputs that are not the model's; stages that do not fit together or cannot be read.
pub fn run_stages(
    directory: &Path,
    index: &Index,
    inputs: Vec<(String, ArrayD<f32>)>,
) -> Result<(Outputs, Vec<Taken>), SplitError> {
    let mut tensors: Tensors = inputs.into_iter().map(|(name, values)| (name, values.into())).collect();
    if let Some(input) = index.inputs.iter().find(|i| !tensors.contains_key(&i.name)) {
        let (name, expected) = (input.name.clone(), format!("{} of shape {:?}", input.dtype, input.shape));
        return Err(SplitError::Input { name, expected, found: "nothing".to_owned() });
    }
    // The kernels' packing buffers stay, and belong to the program.
    kernels::warm_up();
    let base = process::resident();
    let mut taken = Vec::with_capacity(index.stages.len());
    for (i, entry) in index.stages.iter().enumerate() {
        process::reset_peak();
        let began = Instant::now();
        let mut stage = Stage::open(&directory.join(&entry.file), &entry.blocks)?;
        let loaded = began.elapsed().as_secs_f64();
        // What a later stage or the caller still needs.
        let later = index.stages[i + 1..].iter().flat_map(|s| &s.inputs).chain(&index.outputs);
        let keep: HashSet<&str> = later.map(|s| s.name.as_str()).collect();
        stage.run(&mut tensors, &keep)?;
        tensors.retain(|name, _| keep.contains(name.as_str()));
        let peak = process::peak().zip(base).map(|(peak, base)| peak.saturating_sub(base));
        let run_seconds = began.elapsed().as_secs_f64() - loaded;
        taken.push(Taken { load_seconds: loaded, run_seconds, peak });
    }
    let output = |name: &String| {
        let found = tensors.get(name).cloned();
        let missing = || SplitError::Input {
            name: name.clone(),
            expected: "a stage that gives it".to_owned(),
            found: "none".to_owned(),
        };
        Ok((name.clone(), found.ok_or_else(missing)?))
    };
    let outputs: Result<_, SplitError> = index.outputs.iter().map(|o| output(&o.name)).collect();
    Ok((outputs?, taken))
}

/// The values of a tensor as floats.
pub fn to_floats(tensor: &Tensor) -> ArrayD<f32> {
    match tensor {
        Tensor::F32(a) => a.clone(),
        Tensor::I64(a) => a.mapv(|v| v as f32),
        Tensor::Bool(a) => a.mapv(|v| f32::from(u8::from(v))),
    }
}

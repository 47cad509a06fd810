//! The hidden command that runs an ONNX file in float: a process of its own for `privet bench`, with a runtime that shares
//! nothing with this project. It is no part of private inference.

use std::path::Path;

use anyhow::Context;
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

/// A tensor between the two processes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<f32>,
}

impl Tensor {
    pub(crate) fn of(array: &ArrayD<f32>) -> Self {
        Self { shape: array.shape().to_vec(), data: array.iter().copied().collect() }
    }

    /// Errors unless the data fill the shape.
    pub(crate) fn into_array(self) -> anyhow::Result<ArrayD<f32>> {
        ArrayD::from_shape_vec(self.shape, self.data).context("a tensor whose data do not fill its shape")
    }
}

/// Tensors of several inferences.
pub(crate) type Tensors = Vec<Vec<Tensor>>;

/// Reads tensors of several inferences.
pub(crate) fn read(path: &Path) -> anyhow::Result<Tensors> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} holds no tensors", path.display()))
}

/// Writes them.
pub(crate) fn write(path: &Path, tensors: &Tensors) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(tensors)?;
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(feature = "float-runtime")]
pub(crate) use runtime::run;

#[cfg(feature = "float-runtime")]
mod runtime {
    use anyhow::{Context, anyhow};
    use privet::{Event, Phase, Report, Span, resources};
    use rten::{Model, Value, ValueOrView};
    use rten_tensor::prelude::*;

    use super::{Tensor, Tensors};
    use crate::args::FloatArgs;
    use crate::commands::observer;

    /// Runs the model on every input, and reports how long each took.
    pub(crate) fn run(args: &FloatArgs) -> anyhow::Result<()> {
        let observer = observer(&args.process)?;
        let model = Model::load_file(&args.model)
            .map_err(|e| anyhow!("the float runtime does not load {}: {e}", args.model.display()))?;
        let inputs = super::read(&args.inputs)?;
        let (mut outputs, mut work): (Tensors, Vec<Span>) = (Vec::new(), Vec::new());
        let start = std::time::Instant::now();
        for own in inputs {
            let mut operands: Vec<(rten::NodeId, ValueOrView<'_>)> = Vec::with_capacity(own.len());
            anyhow::ensure!(own.len() == model.input_ids().len(), "as many inputs as the model has");
            for (id, Tensor { shape, data }) in model.input_ids().iter().zip(own) {
                operands.push((*id, Value::from_shape(&shape, data).context("an input's shape")?.into()));
            }
            let (began, cpu) = (std::time::Instant::now(), resources::cpu_seconds());
            let results = model
                .run(operands, model.output_ids(), None)
                .map_err(|e| anyhow!("the float runtime does not run {}: {e}", args.model.display()))?;
            let cpu_seconds = resources::cpu_seconds() - cpu;
            work.push(Span { seconds: began.elapsed().as_secs_f64(), cpu_seconds });
            outputs.push(results.iter().map(tensor).collect::<anyhow::Result<_>>()?);
        }
        super::write(&args.raw, &outputs)?;
        observer.event(&Event::Report(Report {
            role: "float".to_owned(),
            phase: Phase::Online,
            inferences: work.len() as u64,
            seconds: start.elapsed().as_secs_f64(),
            cpu_seconds: resources::cpu_seconds(),
            bytes_sent: 0,
            bytes_received: 0,
            wire_bytes_sent: 0,
            rounds: 0,
            bytes_stored: 0,
            peak_memory_bytes: resources::peak_memory_bytes(),
            work,
        }));
        Ok(())
    }

    fn tensor(value: &Value) -> anyhow::Result<Tensor> {
        let view = value.as_tensor_view::<f32>().context("an output that is not of floats")?;
        Ok(Tensor { shape: view.shape().to_vec(), data: view.iter().copied().collect() })
    }
}

/// This program was built without it.
#[cfg(not(feature = "float-runtime"))]
pub(crate) fn run(args: &crate::args::FloatArgs) -> anyhow::Result<()> {
    let text = format!(
        "this program was built without a float runtime for {}; build it with --features float-runtime",
        args.model.display()
    );
    Err(crate::exit::Failure::error(crate::exit::Code::Usage, text))
}

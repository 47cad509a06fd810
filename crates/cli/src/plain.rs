//! The hidden command that runs a model without privacy, in a process of its own for `privet bench`: by the cleartext engine,
//! or in float by a runtime that shares nothing with this project. It is no part of private inference.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use ndarray::ArrayD;
use privet::bench::Stopwatches;
use privet::model::{self, LoadedModel};
use privet::split::{Blocks, Stage, to_floats};
use privet::{Agreement, Event, Observer, Phase, Report, Span, reference, resources};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::args::{PlainArgs, Runtime};
use crate::commands::observer;

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

/// Reads what the other process has written.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} holds something else", path.display()))
}

/// Writes for the other process.
pub(crate) fn write(path: &Path, values: &impl Serialize) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(values)?;
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Runs the model on every input, and reports how long each took.
pub(crate) fn run(args: &PlainArgs) -> anyhow::Result<()> {
    let observer = observer(&args.process)?;
    match args.runtime {
        Runtime::Cleartext => cleartext(args, &*observer),
        Runtime::Float => runtime::float(args, &*observer),
        Runtime::Resident => resident(args),
    }
}

fn cleartext(args: &PlainArgs, observer: &dyn Observer) -> anyhow::Result<()> {
    let LoadedModel { plan, weights } = LoadedModel::load(&args.model)?;
    let mut inputs = Vec::new();
    for own in read::<Tensors>(&args.inputs)? {
        let arrays = own.into_iter().map(Tensor::into_array).collect::<anyhow::Result<Vec<_>>>()?;
        inputs.push(model::fixed_inputs(&plan, &arrays)?);
    }
    let (mut outputs, mut work) = (Vec::new(), Vec::new());
    let watches = Stopwatches::default();
    for own in &inputs {
        let (integers, report) = reference::integers(&plan, &weights, own, &watches)?;
        observer.event(&Event::laps(&watches.take()));
        outputs.push(integers);
        work.extend(report.work);
    }
    write(&args.raw, &outputs)?;
    report("cleartext", work, observer);
    Ok(())
}

/// What a resident model took and gave.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Resident {
    /// Reading the file.
    pub(crate) load_seconds: f64,
    /// Of each inference.
    pub(crate) seconds: Vec<f64>,
    /// Of the whole process, in each inference.
    pub(crate) cpu_seconds: Vec<f64>,
    pub(crate) peak_memory_bytes: u64,
    /// Of the last inference.
    pub(crate) outputs: Vec<Tensor>,
}

/// Most inferences of a resident model.
const MOST: u64 = 100_000;

fn resident(args: &PlainArgs) -> anyhow::Result<()> {
    let inputs = read::<Tensors>(&args.inputs)?.pop().context("the inputs of one inference")?;
    let arrays = inputs.into_iter().map(Tensor::into_array).collect::<anyhow::Result<Vec<_>>>()?;
    let start = Instant::now();
    let mut model = Stage::open(&args.model, &Blocks::default())?;
    let load_seconds = start.elapsed().as_secs_f64();
    let names: Vec<String> = model.inputs().map(str::to_owned).collect();
    anyhow::ensure!(names.len() == arrays.len(), "as many inputs as the model has");
    let (mut seconds, mut cpu_seconds, start) = (Vec::new(), Vec::new(), Instant::now());
    let mut tensors = Default::default();
    while (seconds.len() as u64) < args.iterations
        || start.elapsed().as_secs_f64() < args.seconds && (seconds.len() as u64) < MOST
    {
        tensors = names.iter().cloned().zip(arrays.iter().cloned().map(Into::into)).collect();
        let (began, cpu) = (Instant::now(), resources::cpu_seconds());
        model.run(&mut tensors, &HashSet::new())?;
        seconds.push(began.elapsed().as_secs_f64());
        cpu_seconds.push(resources::cpu_seconds() - cpu);
    }
    let named: Vec<String> = model.output_facts()?.into_iter().map(|output| output.name.to_owned()).collect();
    let outputs = named.iter().map(|name| tensors.get(name).map(to_floats)).collect::<Option<Vec<_>>>();
    let outputs = outputs.context("an output is missing")?.iter().map(Tensor::of).collect();
    write(
        &args.raw,
        &Resident {
            load_seconds,
            seconds,
            cpu_seconds,
            peak_memory_bytes: resources::peak_memory_bytes(),
            outputs,
        },
    )
}

/// The last that this process says.
fn report(role: &str, work: Vec<Span>, observer: &dyn Observer) {
    observer.event(&Event::Report(Report {
        role: role.to_owned(),
        phase: Phase::Online,
        inferences: work.len() as u64,
        seconds: work.iter().map(|w| w.seconds).sum(),
        cpu_seconds: resources::cpu_seconds(),
        bytes_sent: 0,
        bytes_received: 0,
        wire_bytes_sent: 0,
        rounds: 0,
        bytes_stored: 0,
        peak_memory_bytes: resources::peak_memory_bytes(),
        work,
        agreement: Agreement::default(),
    }));
}

#[cfg(feature = "float-runtime")]
mod runtime {
    use std::time::Instant;

    use anyhow::{Context, anyhow};
    use privet::{Observer, Span, resources};
    use rten::{Model, NodeId, Value, ValueOrView};
    use rten_tensor::prelude::*;

    use super::{Tensor, Tensors};
    use crate::args::PlainArgs;

    pub(super) fn float(args: &PlainArgs, observer: &dyn Observer) -> anyhow::Result<()> {
        let model = Model::load_file(&args.model)
            .map_err(|e| anyhow!("the float runtime does not load {}: {e}", args.model.display()))?;
        let (mut outputs, mut work): (Tensors, Vec<Span>) = (Vec::new(), Vec::new());
        for own in super::read::<Tensors>(&args.inputs)? {
            let mut operands: Vec<(NodeId, ValueOrView<'_>)> = Vec::with_capacity(own.len());
            anyhow::ensure!(own.len() == model.input_ids().len(), "as many inputs as the model has");
            for (id, Tensor { shape, data }) in model.input_ids().iter().zip(own) {
                operands.push((*id, Value::from_shape(&shape, data).context("an input's shape")?.into()));
            }
            let (began, cpu) = (Instant::now(), resources::cpu_seconds());
            let results = model
                .run(operands, model.output_ids(), None)
                .map_err(|e| anyhow!("the float runtime does not run {}: {e}", args.model.display()))?;
            let cpu_seconds = resources::cpu_seconds() - cpu;
            work.push(Span { seconds: began.elapsed().as_secs_f64(), cpu_seconds });
            outputs.push(results.iter().map(tensor).collect::<anyhow::Result<_>>()?);
        }
        super::write(&args.raw, &outputs)?;
        super::report("float", work, observer);
        Ok(())
    }

    fn tensor(value: &Value) -> anyhow::Result<Tensor> {
        let view = value.as_tensor_view::<f32>().context("an output that is not of floats")?;
        Ok(Tensor { shape: view.shape().to_vec(), data: view.iter().copied().collect() })
    }
}

/// This program was built without it.
#[cfg(not(feature = "float-runtime"))]
mod runtime {
    use privet::Observer;

    use crate::args::PlainArgs;
    use crate::exit::{Code, Failure};

    pub(super) fn float(args: &PlainArgs, _: &dyn Observer) -> anyhow::Result<()> {
        let text = format!(
            "this program was built without a float runtime for {}; build it with --features float-runtime",
            args.model.display()
        );
        Err(Failure::error(Code::Usage, text))
    }
}

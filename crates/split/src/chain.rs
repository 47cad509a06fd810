//! Runs stages one by one in this process.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Instant;

use ndarray::ArrayD;
use privet_graph::Tensor;
use privet_seal::{Accepted, ContentKey, OpenedModel, ReadAt, SealedModel, Swap};

use crate::index::Index;
use crate::stage::{Stage, Tensors};
use crate::{Opening, SealedIndex, Shape, SplitError, StageEntry, WeightSource, kernels, process};

/// What a stage took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Taken {
    /// Seconds to read nodes and held weights, as far as the stage before has not done that.
    pub load_seconds: f64,
    /// Seconds to compute, reading of blocks included.
    pub run_seconds: f64,
    /// Seconds that all threads together spent with verifying and decrypting this stage, also ahead of its turn; none where
    /// nothing is sealed. Much of it is hidden behind computing.
    pub decrypt_seconds: Option<f64>,
    /// Bytes of the next stage that were opened meanwhile: what the stage takes beyond its own peak.
    pub ahead: u64,
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
    let mut chain = Chain::new(&index.inputs, &index.outputs, &index.stages, inputs)?;
    let mut meter = Meter::new();
    for (i, entry) in index.stages.iter().enumerate() {
        meter.start();
        let mut stage = Stage::open(&directory.join(&entry.file), &entry.blocks)?;
        meter.loaded();
        chain.run(i, &mut stage)?;
        drop(stage);
        meter.end(0, None);
    }
    Ok((chain.outputs()?, meter.taken))
}

/// Sealed stages, and what opens them.
pub struct SealedStages<'a> {
    /// Where they are.
    pub directory: &'a Path,
    /// Their index, which was verified.
    pub index: &'a SealedIndex,
    /// Whose they have to be.
    pub accepted: &'a Accepted,
    /// The key that opens them.
    pub key: &'a ContentKey,
    /// Whether weights in memory may be swapped out.
    pub swap: Swap,
    /// Ends the run with [`SplitError::Interrupted`], or that of a sealed model, soon after it is set.
    pub stop: Option<&'a Arc<AtomicBool>>,
}

/// Runs sealed stages. All are verified before the first runs, as far as that is possible without a key. While one computes, a
/// thread opens as much of the next as its peak leaves room for, in 15/16 of the memory that was asked for, or else of the
/// largest peak.
///
/// # Errors
/// Inputs that are not the model's; a stage that is not the one that the index names; chunks that are not what the owner sealed.
pub fn run_sealed_stages(
    sealed: &SealedStages<'_>,
    inputs: Vec<(String, ArrayD<f32>)>,
) -> Result<(Outputs, Vec<Taken>), SplitError> {
    let SealedStages { directory, index, accepted, key, swap, stop } = *sealed;
    let stages = &index.stages;
    let models = (0..stages.len()).map(|i| index.verify_stage(directory, i, accepted));
    let mut models = models.collect::<Result<Vec<_>, _>>()?.into_iter();
    let mut chain = Chain::new(&index.inputs, &index.outputs, stages, inputs)?;
    // Nodes, and what the allocator keeps, are not counted.
    let room = index.room() - index.room() / 16;
    let mut meter = Meter::new();
    let open = |model: SealedModel<File>| {
        let opened = model.open(key)?;
        Ok::<_, SplitError>(match stop {
            Some(stop) => opened.stop_with(stop.clone()),
            None => opened,
        })
    };
    let mut next = models.next().map(open).transpose()?.map(|model| Next::Opened(Box::new(model)));
    for (i, entry) in stages.iter().enumerate() {
        meter.start();
        let now = next.take().expect("a model for every stage");
        let mut stage = now.opening(&entry.blocks, swap)?.finish(&entry.blocks)?;
        if let Some(stop) = stop {
            stage.stop_with(stop.clone());
        }
        meter.loaded();
        let following = models.next().map(open).transpose()?;
        let spare = room.saturating_sub(entry.peak);
        let (ran, ahead) = thread::scope(|scope| {
            let ahead = |model| {
                let blocks = &stages[i + 1].blocks;
                thread::Builder::new()
                    .name("privet-next".to_owned())
                    .spawn_scoped(scope, move || Next::ahead(model, blocks, swap, spare))
            };
            let thread = following.map(ahead);
            let ran = chain.run(i, &mut stage);
            let failed = |text: &str| SplitError::Kernel(format!("the thread that reads ahead {text}"));
            let ahead = thread.map(|thread| match thread.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(ahead)) => ahead,
                Ok(Err(_)) => Err(failed("panicked")),
                Err(error) => Err(failed(&format!("does not start: {error}"))),
            });
            (ran, ahead)
        });
        ran?;
        let opening = stage.source().opening_seconds();
        drop(stage);
        next = ahead.transpose()?;
        meter.end(next.as_ref().map_or(0, Next::loaded), Some(opening));
    }
    Ok((chain.outputs()?, meter.taken))
}

/// A stage before its turn.
enum Next<S> {
    Opened(Box<OpenedModel<S>>),
    Opening(Box<Opening<S>>),
}

impl<S: ReadAt + Send + Sync + 'static> Next<S> {
    /// Opens as much of a stage as fits into `spare` bytes.
    fn ahead(
        model: OpenedModel<S>,
        blocks: &crate::Blocks,
        swap: Swap,
        spare: u64,
    ) -> Result<Self, SplitError> {
        // Nodes in memory are some copies of their bytes.
        let nodes = 4 * model.entries().first().map_or(0, |graph| graph.length);
        let Some(spare) = spare.checked_sub(nodes) else {
            return Ok(Self::Opened(Box::new(model)));
        };
        let mut opening = Opening::new(model, blocks, swap)?;
        opening.load(spare)?;
        Ok(Self::Opening(Box::new(opening)))
    }

    fn opening(self, blocks: &crate::Blocks, swap: Swap) -> Result<Opening<S>, SplitError> {
        match self {
            Self::Opened(model) => Opening::new(*model, blocks, swap),
            Self::Opening(opening) => Ok(*opening),
        }
    }

    fn loaded(&self) -> u64 {
        match self {
            Self::Opened(_) => 0,
            Self::Opening(opening) => opening.loaded(),
        }
    }
}

/// The tensors between stages.
struct Chain<'a> {
    outputs: &'a [Shape],
    stages: &'a [StageEntry],
    tensors: Tensors,
}

impl<'a> Chain<'a> {
    fn new(
        expected: &[Shape],
        outputs: &'a [Shape],
        stages: &'a [StageEntry],
        inputs: Vec<(String, ArrayD<f32>)>,
    ) -> Result<Self, SplitError> {
        let typed = |(name, values): (String, ArrayD<f32>)| {
            let dtype = expected.iter().find(|i| i.name == name).map_or("float32", |i| &i.dtype);
            Ok((name.clone(), as_declared(&name, values, dtype)?))
        };
        let tensors: Tensors = inputs.into_iter().map(typed).collect::<Result<_, SplitError>>()?;
        if let Some(input) = expected.iter().find(|i| !tensors.contains_key(&i.name)) {
            let (name, expected) =
                (input.name.clone(), format!("{} of shape {:?}", input.dtype, input.shape));
            return Err(SplitError::Input { name, expected, found: "nothing".to_owned() });
        }
        Ok(Self { outputs, stages, tensors })
    }

    /// Runs stage `i`, and keeps what a later stage or the caller still needs.
    fn run<S: WeightSource>(&mut self, i: usize, stage: &mut Stage<S>) -> Result<(), SplitError> {
        let later = self.stages[i + 1..].iter().flat_map(|s| &s.inputs).chain(self.outputs);
        let keep: HashSet<&str> = later.map(|s| s.name.as_str()).collect();
        stage.run(&mut self.tensors, &keep)?;
        self.tensors.retain(|name, _| keep.contains(name.as_str()));
        Ok(())
    }

    fn outputs(&self) -> Result<Outputs, SplitError> {
        let output = |name: &String| {
            let found = self.tensors.get(name).cloned();
            let missing = || SplitError::Input {
                name: name.clone(),
                expected: "a stage that gives it".to_owned(),
                found: "none".to_owned(),
            };
            Ok((name.clone(), found.ok_or_else(missing)?))
        };
        self.outputs.iter().map(|o| output(&o.name)).collect()
    }
}

/// Measures stages.
struct Meter {
    base: Option<u64>,
    began: Instant,
    load_seconds: f64,
    taken: Vec<Taken>,
}

impl Meter {
    fn new() -> Self {
        // The kernels' packing buffers stay, and belong to the program.
        kernels::warm_up();
        Self { base: process::resident(), began: Instant::now(), load_seconds: 0.0, taken: Vec::new() }
    }

    fn start(&mut self) {
        process::reset_peak();
        self.began = Instant::now();
    }

    fn loaded(&mut self) {
        self.load_seconds = self.began.elapsed().as_secs_f64();
    }

    fn end(&mut self, ahead: u64, decrypt_seconds: Option<f64>) {
        let peak = process::peak().zip(self.base).map(|(peak, base)| peak.saturating_sub(base));
        let load_seconds = self.load_seconds;
        let run_seconds = self.began.elapsed().as_secs_f64() - load_seconds;
        self.taken.push(Taken { load_seconds, run_seconds, decrypt_seconds, ahead, peak });
    }
}

/// Values as elements of an input's type.
fn as_declared(name: &str, values: ArrayD<f32>, dtype: &str) -> Result<Tensor, SplitError> {
    // Floats hold whole numbers up to here.
    const LARGEST: f32 = 16_777_216.0;
    let fits = |v: &f32| match dtype {
        "int64" => v.fract() == 0.0 && v.abs() <= LARGEST,
        "bool" => *v == 0.0 || *v == 1.0,
        _ => true,
    };
    if let Some(wrong) = values.iter().find(|v| !fits(v)) {
        let (name, found) = (name.to_owned(), wrong.to_string());
        return Err(SplitError::Input { name, expected: format!("values of type {dtype}"), found });
    }
    Ok(match dtype {
        "int64" => values.mapv(|v| v as i64).into(),
        "bool" => values.mapv(|v| v == 1.0).into(),
        _ => values.into(),
    })
}

/// The values of a tensor as floats.
pub fn to_floats(tensor: &Tensor) -> ArrayD<f32> {
    match tensor {
        Tensor::F32(a) => a.clone(),
        Tensor::I64(a) => a.mapv(|v| v as f32),
        Tensor::Bool(a) => a.mapv(|v| f32::from(u8::from(v))),
    }
}

//! Sealed stages of a model: all of them one by one, or some of them in memory, with the others in workers before and behind.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use privet_graph::Tensor;
use privet_seal::{Accepted, ContentKey, Part, SealDigest, Swap, VerifyingKey};
use privet_split::{
    Blocks, HopSession, SealedIndex, SealedStages, SealedWeights, Shape, Stage, TensorOpener, TensorSealer,
    Tensors, run_sealed_stages,
};

use crate::engine::{Halt, Program};
use crate::error::EnclaveError;
use crate::model::{Terms, ending};
use crate::pin::ModelPin;
use crate::tensor::{ElementType, TensorSpec, total};
use crate::wire::{Ending, ModelInfo};

/// A directory of sealed stages whose index was verified.
struct Stages {
    directory: PathBuf,
    index: SealedIndex,
    accepted: Accepted,
    key: ContentKey,
    swap: Swap,
    halt: Halt,
    /// Seconds of verifying and decrypting, by stages that are not held.
    decrypting: Cell<f64>,
}

impl Stages {
    fn open(directory: &Path, terms: Terms<'_>) -> Result<Self, EnclaveError> {
        let Terms { pinned, grant, swap, halt } = terms;
        let accepted = pinned.accepted(grant, Part::WHOLE)?;
        let index = SealedIndex::load(directory, &accepted)?;
        check_digest(&index, accepted.digest)?;
        let (directory, key, halt) = (directory.to_owned(), grant.key()?, halt.clone());
        Ok(Self { directory, index, accepted, key, swap, halt, decrypting: Cell::new(0.0) })
    }

    fn stage(&self, at: usize, blocks: Option<&Blocks>) -> Result<Stage<SealedWeights<File>>, EnclaveError> {
        let model = self.index.open_stage(&self.directory, at, &self.accepted, &self.key)?;
        let model = model.stop_with(self.halt.clone());
        // Nothing is held: only what its nodes are is wanted.
        let all = || model.entries().iter().map(|entry| (entry.name.clone(), 1)).collect();
        let blocks = blocks.cloned().unwrap_or_else(all);
        let mut stage = Stage::open_sealed(model, &blocks, self.swap)?;
        stage.stop_with(self.halt.clone());
        Ok(stage)
    }

    /// What the model's outputs are, as far as the stages that give them are here.
    fn endings(&self) -> Result<Vec<Ending>, EnclaveError> {
        let mut endings = Vec::with_capacity(self.index.outputs.len());
        for output in &self.index.outputs {
            let by = |entry: &privet_split::StageEntry| entry.outputs.iter().any(|o| o.name == output.name);
            let at = self.index.stages.iter().position(by);
            let at = at.filter(|&at| self.directory.join(&self.index.stages[at].file).exists());
            let Some(at) = at else {
                endings.push(Ending::Values);
                continue;
            };
            let stage = self.stage(at, None)?;
            let facts = stage.output_facts()?;
            endings.push(ending(facts.iter().find(|f| f.name == output.name).and_then(|f| f.operator)));
            self.decrypting.update(|seconds| seconds + stage.source().opening_seconds());
        }
        Ok(endings)
    }

    fn info(&self, inputs: &[Shape]) -> Result<ModelInfo, EnclaveError> {
        let SealedIndex { model_id: id, model_version: version, outputs, .. } = &self.index;
        let digest = digest(&self.index).parse::<SealDigest>()?;
        let specs = |shapes: &[Shape]| shapes.iter().map(spec).collect::<Result<Vec<_>, _>>();
        Ok(ModelInfo {
            verifying_key: self.accepted.verifying_key,
            id: *id,
            version: *version,
            digest,
            inputs: specs(inputs)?,
            outputs: specs(outputs)?,
            endings: self.endings()?,
        })
    }
}

/// A digest that is pinned is that of the index, and through it of all stages.
pub(crate) fn check_digest(index: &SealedIndex, pinned: Option<SealDigest>) -> Result<(), EnclaveError> {
    match pinned.filter(|expected| expected.to_string() != digest(index)) {
        Some(expected) => {
            let text = format!("the index of stages has the digest {}, expected {expected}", digest(index));
            Err(EnclaveError::Model(text))
        }
        None => Ok(()),
    }
}

fn digest(index: &SealedIndex) -> String {
    index.digest().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn spec(shape: &Shape) -> Result<TensorSpec, EnclaveError> {
    let dtype = match shape.dtype.as_str() {
        "float32" => ElementType::Float32,
        "int64" => ElementType::Int64,
        "bool" => ElementType::Bool,
        other => return Err(EnclaveError::Model(format!("a tensor of {other:?} between stages"))),
    };
    let axes = shape.shape.iter().map(|&axis| axis as u64).collect();
    Ok(TensorSpec { name: shape.name.clone(), dtype, shape: axes })
}

/// All stages, one by one: while one computes, the next is opened.
pub struct StagedProgram {
    stages: Stages,
    info: ModelInfo,
}

impl StagedProgram {
    /// Verifies the index and the stages of a directory.
    ///
    /// # Errors
    /// If they are not what the worker's owner or the grant accept.
    pub fn open(directory: &Path, terms: Terms<'_>) -> Result<Self, EnclaveError> {
        let stages = Stages::open(directory, terms)?;
        for at in 0..stages.index.stages.len() {
            stages.index.verify_stage(directory, at, &stages.accepted)?;
        }
        let info = stages.info(&stages.index.inputs)?;
        if let Some(odd) = info.inputs.iter().find(|input| input.dtype != ElementType::Float32) {
            let text = format!("input {:?} is of {}; stages one by one take float32", odd.name, odd.dtype);
            return Err(EnclaveError::Model(text));
        }
        Ok(Self { stages, info })
    }

    /// Bytes of weights, tensors and workspace that a run keeps to.
    pub fn room(&self) -> u64 {
        self.stages.index.room()
    }
}

impl Program for StagedProgram {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn decrypt_seconds(&self) -> f64 {
        self.stages.decrypting.get()
    }

    fn run(&mut self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, EnclaveError> {
        let Stages { directory, index, accepted, key, swap, halt, decrypting } = &self.stages;
        let floats = |(spec, tensor): (&TensorSpec, Tensor)| match tensor {
            Tensor::F32(values) => Ok((spec.name.clone(), values)),
            _ => Err(EnclaveError::Internal("an input that is not of floats")),
        };
        let inputs = self.info.inputs.iter().zip(inputs).map(floats).collect::<Result<Vec<_>, _>>()?;
        let sealed = SealedStages { directory, index, accepted, key, swap: *swap, stop: Some(halt) };
        let (outputs, taken) = run_sealed_stages(&sealed, inputs)?;
        let seconds: f64 = taken.iter().filter_map(|stage| stage.decrypt_seconds).sum();
        decrypting.update(|before| before + seconds);
        Ok(outputs.into_iter().map(|(_, tensor)| tensor).collect())
    }
}

/// What crosses from one stage to the next.
pub struct Crossing {
    index: SealedIndex,
    verifying_key: VerifyingKey,
    /// Number of the stage that takes it, from 1.
    to: u32,
    /// In this order.
    shapes: Vec<Shape>,
    specs: Vec<TensorSpec>,
}

impl Crossing {
    /// Into the stage `at`, counted from 0: everything that it or a later one, or the caller, needs.
    fn into_stage(stages: &Stages, at: usize) -> Result<Self, EnclaveError> {
        let index = &stages.index;
        let later = index.stages[at..].iter().flat_map(|stage| &stage.inputs).chain(&index.outputs);
        let needed: HashSet<&str> = later.map(|shape| shape.name.as_str()).collect();
        let given = index.inputs.iter().chain(index.stages[..at].iter().flat_map(|stage| &stage.outputs));
        let mut shapes: Vec<Shape> = Vec::new();
        for shape in given.filter(|shape| needed.contains(shape.name.as_str())) {
            if shapes.iter().all(|other| other.name != shape.name) {
                shapes.push(shape.clone());
            }
        }
        let specs = shapes.iter().map(spec).collect::<Result<Vec<_>, _>>()?;
        let verifying_key = stages.accepted.verifying_key;
        Ok(Self { index: index.clone(), verifying_key, to: at as u32 + 1, shapes, specs })
    }

    /// Most bytes of a message.
    pub(crate) fn bytes(&self) -> u64 {
        let declared = |s: &Shape| 4 + s.name.len() as u64 + 8 * s.shape.len() as u64;
        let front: u64 = self.shapes.iter().map(declared).sum();
        total(&self.specs).saturating_add(front + 64)
    }

    /// Whose stages, and of which index, the other worker has to have.
    pub(crate) fn pin(&self) -> Result<ModelPin, EnclaveError> {
        Ok(ModelPin {
            verifying_key: Some(self.verifying_key),
            id: Some(self.index.model_id),
            min_version: Some(self.index.model_version),
            digest: Some(digest(&self.index).parse()?),
        })
    }

    /// Whether a worker that has the index serves the stages from here on.
    pub(crate) fn check(&self, model: &ModelInfo) -> Result<(), String> {
        if model.inputs != self.specs {
            return Err(format!("it does not have the stages from number {} on", self.to));
        }
        Ok(())
    }

    pub(crate) fn sealer(&self, secrets: &HopSecrets) -> Result<Sealer<'_>, EnclaveError> {
        Ok(Sealer { crossing: self, sealer: secrets.session(&self.index).sealer(self.to - 1)? })
    }

    pub(crate) fn opener(self: &Arc<Self>, secrets: &HopSecrets) -> Result<Opener, EnclaveError> {
        Ok(Opener { crossing: self.clone(), opener: secrets.session(&self.index).opener(self.to)? })
    }

    fn named(&self, tensors: Vec<Tensor>) -> Tensors {
        self.shapes.iter().map(|shape| shape.name.clone()).zip(tensors).collect()
    }

    fn ordered(&self, tensors: &mut Tensors) -> Result<Vec<Tensor>, EnclaveError> {
        let take = |shape: &Shape| {
            tensors
                .remove(&shape.name)
                .ok_or(EnclaveError::Internal("a stage did not give what crosses to the next"))
        };
        self.shapes.iter().map(take).collect()
    }
}

/// Label of the exporter that both ends of a connection make the secrets of a hop from.
pub(crate) const HOP_LABEL: &[u8] = b"EXPERIMENTAL-privet-enclave-hop-v1";
pub(crate) const HOP_SECRET_BYTES: usize = 48;

/// Known to both ends of one connection, and to nobody else.
pub(crate) struct HopSecrets(pub(crate) zeroize::Zeroizing<[u8; HOP_SECRET_BYTES]>);

impl HopSecrets {
    fn session(&self, index: &SealedIndex) -> HopSession {
        let (mut secret, mut id) = ([0; 32], [0; 16]);
        secret.copy_from_slice(&self.0[..32]);
        id.copy_from_slice(&self.0[32..]);
        HopSession::new(secret, id, index)
    }
}

/// Seals what crosses, message after message.
pub(crate) struct Sealer<'a> {
    crossing: &'a Crossing,
    sealer: TensorSealer,
}

impl Sealer<'_> {
    pub(crate) fn seal(&mut self, tensors: &Tensors) -> Result<Vec<u8>, EnclaveError> {
        let names: Vec<&str> = self.crossing.shapes.iter().map(|shape| shape.name.as_str()).collect();
        Ok(self.sealer.seal(&names, tensors)?)
    }

    pub(crate) fn named(&self, tensors: Vec<Tensor>) -> Tensors {
        self.crossing.named(tensors)
    }
}

/// Opens what crosses, message after message.
pub(crate) struct Opener {
    crossing: Arc<Crossing>,
    opener: TensorOpener,
}

impl Opener {
    pub(crate) fn open(&mut self, message: &mut [u8]) -> Result<Vec<Tensor>, EnclaveError> {
        let mut tensors = self.opener.open(message, &self.crossing.shapes)?;
        self.crossing.ordered(&mut tensors)
    }
}

/// `stage 4`, or `stages 2 to 4`.
pub fn stages_text(first: usize, last: usize) -> String {
    if first == last { format!("stage {first}") } else { format!("stages {first} to {last}") }
}

/// Some stages of a model, in memory.
pub struct PartProgram {
    stages: Stages,
    loaded: Vec<Stage<SealedWeights<File>>>,
    first: usize,
    info: ModelInfo,
    entrance: Option<Arc<Crossing>>,
    exit: Option<Arc<Crossing>>,
}

impl PartProgram {
    /// Opens the stages `first` to `last`, counted from 1, of a directory; others need not be there.
    ///
    /// # Errors
    /// If there are no such stages, or they are not what the worker's owner or the grant accept.
    pub fn open(
        directory: &Path,
        (first, last): (usize, usize),
        terms: Terms<'_>,
    ) -> Result<Self, EnclaveError> {
        let stages = Stages::open(directory, terms)?;
        let count = stages.index.stages.len();
        if first == 0 || first > last || last > count {
            let text = format!("{}: expected some of 1 to {count}", stages_text(first, last));
            return Err(EnclaveError::Model(text));
        }
        let blocks = |at: usize| &stages.index.stages[at].blocks;
        let loaded =
            (first - 1..last).map(|at| stages.stage(at, Some(blocks(at)))).collect::<Result<_, _>>()?;
        let crossing = |at| Crossing::into_stage(&stages, at).map(Arc::new);
        let entrance = (first > 1).then(|| crossing(first - 1)).transpose()?;
        let exit = (last < count).then(|| crossing(last)).transpose()?;
        let inputs = entrance.as_ref().map_or(&stages.index.inputs, |entrance| &entrance.shapes);
        let info = stages.info(inputs)?;
        Ok(Self { loaded, first: first - 1, info, entrance, exit, stages })
    }
}

impl Program for PartProgram {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn decrypt_seconds(&self) -> f64 {
        let held: f64 = self.loaded.iter().map(|stage| stage.source().opening_seconds()).sum();
        self.stages.decrypting.get() + held
    }

    fn entrance(&self) -> Option<Arc<Crossing>> {
        self.entrance.clone()
    }

    fn exit(&self) -> Option<Arc<Crossing>> {
        self.exit.clone()
    }

    fn run(&mut self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, EnclaveError> {
        let Self { stages, loaded, first, info, exit, .. } = self;
        let SealedIndex { stages: entries, outputs, .. } = &stages.index;
        let mut tensors: Tensors = info.inputs.iter().map(|input| input.name.clone()).zip(inputs).collect();
        for (i, stage) in loaded.iter_mut().enumerate() {
            let later = entries[*first + i + 1..].iter().flat_map(|entry| &entry.inputs).chain(outputs);
            let keep: HashSet<&str> = later.map(|shape| shape.name.as_str()).collect();
            stage.run(&mut tensors, &keep)?;
            tensors.retain(|name, _| keep.contains(name.as_str()));
        }
        if let Some(exit) = exit {
            return exit.ordered(&mut tensors);
        }
        let output = |spec: &TensorSpec| {
            tensors
                .get(&spec.name)
                .cloned()
                .ok_or(EnclaveError::Internal("no stage gave an output of the model"))
        };
        info.outputs.iter().map(output).collect()
    }
}

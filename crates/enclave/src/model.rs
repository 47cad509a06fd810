//! The sealed model that a worker serves.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

use privet_graph::Tensor;
use privet_keys::Grant;
use privet_seal::{
    Accepted, KeyId, KeyVersion, ModelId, ModelVersion, Part, Release, SealDigest, SealedModel, Swap,
    VerifyingKey,
};
use privet_split::{Blocks, SealedWeights, Stage, Tensors};

use crate::engine::{Halt, Program};
use crate::error::EnclaveError;
use crate::tensor::TensorSpec;
use crate::wire::{Ending, ModelInfo};

/// What a worker accepts, whoever gives it a key: part of what is measured in an enclave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// Who has to have signed the model.
    pub verifying_key: VerifyingKey,
    /// Which model; none is any of this signer's.
    pub model_id: Option<ModelId>,
    /// Which key opens it.
    pub key_id: KeyId,
    /// Which version of the key; none is the newest.
    pub key_version: Option<KeyVersion>,
    /// How old it may be.
    pub min_version: ModelVersion,
    /// The only sealed file.
    pub digest: Option<SealDigest>,
}

impl Pinned {
    /// What an owner's release file says.
    pub fn of_release(release: &Release, min_version: ModelVersion, digest: Option<SealDigest>) -> Self {
        Self {
            verifying_key: release.verifying_key,
            model_id: Some(release.model_id),
            key_id: release.key_id.clone(),
            key_version: Some(release.key_version),
            min_version,
            digest,
        }
    }

    /// What may be opened with a grant: what both it and this accept.
    ///
    /// # Errors
    /// If they contradict each other.
    pub fn accepted(&self, grant: &Grant, part: Part) -> Result<Accepted, EnclaveError> {
        let fail = |what: &str, expected: String, found: String| {
            Err(EnclaveError::Model(format!(
                "the key {} came for {what} {found}; this worker accepts only {expected}",
                grant.key_id
            )))
        };
        if grant.verifying_key != self.verifying_key {
            let [expected, found] = [self.verifying_key, grant.verifying_key].map(|key| key.to_string());
            return fail("models signed by", expected, found);
        }
        if let Some(expected) = self.model_id.filter(|id| *id != grant.model_id) {
            return fail("the model", expected.to_string(), grant.model_id.to_string());
        }
        if let (Some(own), Some(found)) = (self.digest, grant.model_digest)
            && own != found
        {
            return fail("the sealed file", own.to_string(), found.to_string());
        }
        let oldest = grant.minimum_model_version.unwrap_or(ModelVersion::FIRST);
        Ok(Accepted {
            verifying_key: self.verifying_key,
            model_id: grant.model_id,
            key_id: self.key_id.clone(),
            key_version: grant.key_version,
            min_version: self.min_version.max(oldest),
            part,
            digest: self.digest.or(grant.model_digest),
        })
    }
}

/// On what terms a sealed model is opened.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// What the worker accepts.
    pub pinned: &'a Pinned,
    /// The key, and what its owner accepts.
    pub grant: &'a Grant,
    /// Whether weights in memory may be swapped out.
    pub swap: Swap,
    /// When it is set, opening and running are given up.
    pub halt: &'a Halt,
}

/// A sealed model in memory, whole.
pub struct SealedProgram {
    stage: Stage<SealedWeights<File>>,
    info: ModelInfo,
}

impl SealedProgram {
    /// Verifies a sealed model, and opens it chunk by chunk into memory that is wiped, and locked as the terms say.
    ///
    /// # Errors
    /// If it is not what the worker's owner or the grant accept, is no model that runs, or there is no such memory; if it is
    /// told to give up before.
    pub fn open(path: &Path, terms: Terms<'_>) -> Result<Self, EnclaveError> {
        let Terms { pinned, grant, swap, halt } = terms;
        let accepted = pinned.accepted(grant, Part::WHOLE)?;
        let model = SealedModel::verify_file(path, &accepted)?.open(&grant.key()?)?.stop_with(halt.clone());
        let (header, digest) = (model.header(), model.digest());
        let (id, version) = (header.model_id, header.model_version);
        let mut stage = Stage::open_sealed(model, &Blocks::new(), swap)?;
        stage.stop_with(halt.clone());
        let names = stage.inputs().zip(stage.input_facts()?);
        let inputs = names.map(|(name, fact)| TensorSpec::new(name, fact.dtype, &fact.shape)).collect();
        let outputs = stage.output_facts()?;
        let endings = outputs.iter().map(|output| ending(output.operator)).collect();
        let outputs = outputs.iter().map(|o| TensorSpec::new(o.name, o.fact.dtype, &o.fact.shape)).collect();
        let verifying_key = accepted.verifying_key;
        let info = ModelInfo { verifying_key, id, version, digest, inputs, outputs, endings };
        Ok(Self { stage, info })
    }
}

/// What values are that an operator gives.
pub(crate) fn ending(operator: Option<&str>) -> Ending {
    match operator {
        Some("Softmax") => Ending::Softmax,
        Some("LogSoftmax") => Ending::LogSoftmax,
        Some("Sigmoid") => Ending::Sigmoid,
        _ => Ending::Values,
    }
}

impl Program for SealedProgram {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn decrypt_seconds(&self) -> f64 {
        self.stage.source().opening_seconds()
    }

    fn run(&mut self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, EnclaveError> {
        let Self { stage, info } = self;
        let mut tensors: Tensors = info.inputs.iter().map(|input| input.name.clone()).zip(inputs).collect();
        stage.run(&mut tensors, &HashSet::new())?;
        let output = |spec: &TensorSpec| {
            let found = tensors.get(&spec.name).filter(|tensor| spec.fits(tensor)).cloned();
            found.ok_or(EnclaveError::Internal("the model gave an output of another shape than it declares"))
        };
        info.outputs.iter().map(output).collect()
    }
}

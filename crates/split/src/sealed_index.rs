//! Stages as sealed models, and their index with its owner's signature.
//!
//! The index says everything that a reader relies on: which model, version and key, how many stages there are, the digest of each
//! sealed stage, what crosses between them, and what they take. So a stage of another version, of another way to cut, in
//! another place, or twice, is not the one that the index names, and an old directory is as old as its index says.
//!
//! ```text
//! PRIVSTGS | version u16 | bytes of the body u32 | body (JSON) | Ed25519 signature, 64 bytes, of all before it
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use privet_onnx::PartBytes;
use privet_seal::{
    Accepted, ContentKey, KeyId, KeyVersion, ModelId, ModelVersion, OpenedModel, OwnerKeys, Part, ReadAt,
    Release, SIGNATURE_BYTES, SealDigest, SealError, SealOptions, SealedModel, VerifyingKey, seal_onnx_from,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::directory::NewDirectory;
use crate::error::io as io_error;
use crate::index::{self, Cut, MAX_INDEX};
use crate::planner::{Balance, Streaming};
use crate::{Shape, SplitError, SplitOptions, StageEntry, ahead};

/// Name of the index.
pub const SEALED_INDEX_FILE: &str = "stages.signed";
/// Version of the index.
pub const SEALED_INDEX_VERSION: u16 = 1;

const MAGIC: &[u8; 8] = b"PRIVSTGS";
/// Magic, version, length.
const PREFIX_BYTES: usize = 8 + 2 + 4;
/// What the owner signs it as.
const KIND: &str = "privet index of sealed stages v1";

/// What the signed index of a directory of sealed stages says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedIndex {
    /// Name of the model, for people.
    pub model: String,
    /// Which model.
    pub model_id: ModelId,
    /// Which of its versions.
    pub model_version: ModelVersion,
    /// The key that opens the stages.
    pub key_id: KeyId,
    /// Which of the keys of this name.
    pub key_version: KeyVersion,
    /// SHA-256, in hexadecimal, of how the model is cut: the same for all versions that are cut alike.
    pub plan: String,
    /// Memory that was asked for, in bytes.
    pub memory: Option<u64>,
    /// What was balanced.
    pub balance: Balance,
    /// What the model is given.
    pub inputs: Vec<Shape>,
    /// What it gives; an output that is an input too is no stage's.
    pub outputs: Vec<Shape>,
    /// Stages in order; their digests are those of sealed models.
    pub stages: Vec<StageEntry>,
    /// See [`SealedIndex::digest`].
    #[serde(skip)]
    digest: [u8; 32],
}

/// Cuts the model at `model` into sealed stages and a signed index in the new directory `out`. Parts go from the model's file
/// into the sealed ones in chunks: nothing is written in the clear. If it fails nothing is left of it.
///
/// # Errors
/// As [`crate::split`], and failures of sealing.
pub fn split_sealed(
    model: &Path,
    options: &SplitOptions,
    keys: &OwnerKeys,
    version: ModelVersion,
    out: &Path,
) -> Result<SealedIndex, SplitError> {
    let seal = SealOptions { version, ..SealOptions::default() };
    let streaming = Streaming {
        // A thread opens the next block while one is computed with.
        largest_block: ahead::AHEAD_BYTES,
        overhead: ahead::workspace(1 << seal.chunk_bits),
    };
    let cut = Cut::new(model, options, streaming)?;
    let mut directory = NewDirectory::new(out)?;
    let of = cut.plan.stages.len();
    let mut stages = Vec::with_capacity(of);
    for i in 0..of {
        let part = cut.part(i);
        let name = format!("{}.sealed", part.name);
        let path = directory.file(&name);
        let source = Source { bytes: cut.file.part_bytes(&part)?, stop: &options.stop };
        let seal = SealOptions { part: Part { number: i as u32 + 1, of: of as u32 }, ..seal.clone() };
        let sealed = seal_onnx_from(&source, model, &path, keys, &seal);
        options.interrupted()?;
        let sealed = sealed?;
        stages.push(cut.entry(i, &part, name, sealed.digest.to_string(), sealed.sealed_bytes));
    }
    let release = &keys.release;
    let mut index = SealedIndex {
        model: cut.file.name().to_owned(),
        model_id: release.model_id,
        model_version: version,
        key_id: release.key_id.clone(),
        key_version: release.key_version,
        plan: String::new(),
        memory: options.memory,
        balance: options.balance,
        inputs: cut.inputs(),
        outputs: cut.outputs(),
        stages,
        digest: [0; 32],
    };
    index.plan = index.plan_digest();
    let bytes = signed(&serde_json::to_vec(&index).expect("an index is JSON"), keys)?;
    index.digest = Sha256::digest(&bytes[..bytes.len() - SIGNATURE_BYTES]).into();
    let path = directory.file(SEALED_INDEX_FILE);
    options.interrupted()?;
    let file = fs::write(&path, bytes).and_then(|()| File::open(&path)?.sync_all());
    file.map_err(|e| io_error(&path, e))?;
    directory.keep();
    Ok(index)
}

impl SealedIndex {
    /// Reads the index of a directory. Nothing of it is looked at before its owner's signature was verified. `accepted` says
    /// whose it has to be, of which model and key, and how old it may be; its part and digest are those of a whole
    /// model and do not matter.
    ///
    /// # Errors
    /// It is not there, not signed by the accepted owner, of another model, key or format, or too old.
    pub fn load(directory: &Path, accepted: &Accepted) -> Result<Self, SplitError> {
        let index = Self::signed_by(directory, &accepted.verifying_key)?;
        index.check(accepted)?;
        Ok(index)
    }

    /// As [`SealedIndex::load`], whatever model, version and key it is of: for those who look before they know what to accept.
    ///
    /// # Errors
    /// It is not there, or not signed by this owner.
    pub fn signed_by(directory: &Path, owner: &VerifyingKey) -> Result<Self, SplitError> {
        let path = directory.join(SEALED_INDEX_FILE);
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(|e| index::no_index(directory, &path, e))?;
        file.take(MAX_INDEX + 1).read_to_end(&mut bytes).map_err(|e| io_error(&path, e))?;
        Self::parse(&bytes, owner).map_err(|error| match error {
            SplitError::Index { expected, found, .. } => SplitError::Index { path, expected, found },
            other => other,
        })
    }

    /// As [`SealedIndex::load`], from the bytes of the file.
    ///
    /// # Errors
    /// As [`SealedIndex::load`].
    pub fn from_bytes(bytes: &[u8], accepted: &Accepted) -> Result<Self, SplitError> {
        let index = Self::parse(bytes, &accepted.verifying_key)?;
        index.check(accepted)?;
        Ok(index)
    }

    fn parse(bytes: &[u8], owner: &VerifyingKey) -> Result<Self, SplitError> {
        let wrong = |expected: &str, found: String| SplitError::Index {
            path: SEALED_INDEX_FILE.into(),
            expected: expected.to_owned(),
            found,
        };
        if bytes.len() > MAX_INDEX as usize {
            return Err(wrong(&format!("at most {MAX_INDEX} bytes"), "more".to_owned()));
        }
        let split = bytes.len().checked_sub(SIGNATURE_BYTES).and_then(|at| bytes.split_at_checked(at));
        let Some((signed, signature)) = split.filter(|(signed, _)| signed.len() >= PREFIX_BYTES) else {
            return Err(wrong("a signed index of stages", format!("{} bytes", bytes.len())));
        };
        if signed[..8] != MAGIC[..] {
            return Err(wrong("a signed index of stages", "something else".to_owned()));
        }
        let version = u16::from_le_bytes([signed[8], signed[9]]);
        if version != SEALED_INDEX_VERSION {
            return Err(wrong(&format!("version {SEALED_INDEX_VERSION}"), version.to_string()));
        }
        if !owner.verifies_statement(KIND, signed, signature) {
            let expected = format!("the signature of the owner with verifying key {owner}");
            return Err(wrong(&expected, "another, or a damaged index".to_owned()));
        }
        let body = &signed[PREFIX_BYTES..];
        let length = u32::from_le_bytes(signed[10..14].try_into().expect("four bytes")) as usize;
        if length != body.len() {
            return Err(wrong(&format!("a body of {length} bytes"), body.len().to_string()));
        }
        let mut index: Self =
            serde_json::from_slice(body).map_err(|e| wrong("an index of sealed stages", e.to_string()))?;
        index.digest = Sha256::digest(signed).into();
        index::check_files(&index.stages).map_err(|(expected, found)| wrong(expected, found))?;
        if let Some(bad) = index.stages.iter().find(|s| s.digest.parse::<SealDigest>().is_err()) {
            return Err(wrong("digests of sealed models", bad.digest.clone()));
        }
        let (expected, found) = (index.plan_digest(), index.plan.clone());
        if expected != found {
            return Err(wrong(&format!("the plan {expected}"), found));
        }
        Ok(index)
    }

    /// SHA-256 of what is signed: names the index, and through it all that it names.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Bytes of weights, tensors and workspace that running the stages one by one keeps to: the memory that was asked for, or else
    /// the largest peak.
    pub fn room(&self) -> u64 {
        self.memory.unwrap_or_else(|| self.stages.iter().map(|stage| stage.peak).max().unwrap_or(0))
    }

    /// Verifies all of a stage but its chunks, and that it is the one that the index names; from 0.
    ///
    /// # Errors
    /// It is another, is damaged, or cannot be read.
    ///
    /// # Panics
    /// There is no such stage.
    pub fn verify_stage(
        &self,
        directory: &Path,
        stage: usize,
        accepted: &Accepted,
    ) -> Result<SealedModel<File>, SplitError> {
        let entry = &self.stages[stage];
        let accepted = Accepted {
            min_version: self.model_version,
            part: Part { number: stage as u32 + 1, of: self.stages.len() as u32 },
            digest: Some(entry.digest.parse()?),
            ..accepted.clone()
        };
        Ok(SealedModel::verify_file(&directory.join(&entry.file), &accepted)?)
    }

    /// As [`SealedIndex::verify_stage`], and takes the content key.
    ///
    /// # Errors
    /// As [`SealedIndex::verify_stage`]; another key.
    ///
    /// # Panics
    /// There is no such stage.
    pub fn open_stage(
        &self,
        directory: &Path,
        stage: usize,
        accepted: &Accepted,
        key: &ContentKey,
    ) -> Result<OpenedModel<File>, SplitError> {
        Ok(self.verify_stage(directory, stage, accepted)?.open(key)?)
    }

    /// Whether it is the model that is accepted.
    fn check(&self, accepted: &Accepted) -> Result<(), SealError> {
        if self.model_id != accepted.model_id {
            let [expected, found] = [accepted.model_id, self.model_id].map(|id| id.to_string());
            return Err(SealError::OtherModel { expected, found });
        }
        if (&self.key_id, self.key_version) != (&accepted.key_id, accepted.key_version) {
            return Err(SealError::OtherKey {
                expected: format!("{} version {}", accepted.key_id, accepted.key_version),
                found: format!("{} version {}", self.key_id, self.key_version),
            });
        }
        if self.model_version < accepted.min_version {
            let [minimum, found] = [accepted.min_version, self.model_version].map(ModelVersion::get);
            return Err(SealError::RolledBack { minimum, found });
        }
        Ok(())
    }

    fn plan_digest(&self) -> String {
        let how = |s: &StageEntry| (s.nodes, s.peak, s.inputs.clone(), s.outputs.clone(), s.blocks.clone());
        let stages: Vec<_> = self.stages.iter().map(how).collect();
        let plan = (self.memory, self.balance, &self.inputs, &self.outputs, stages);
        let text = serde_json::to_vec(&plan).expect("a plan is JSON");
        let digest = Sha256::new().chain_update(b"privet plan of stages v1").chain_update(text).finalize();
        index::hex(&digest)
    }

    /// An index of these stages, for tests.
    pub(crate) fn example(
        release: &Release,
        inputs: Vec<Shape>,
        outputs: Vec<Shape>,
        stages: Vec<StageEntry>,
    ) -> Self {
        let mut index = Self {
            model: "example".to_owned(),
            model_id: release.model_id,
            model_version: ModelVersion::FIRST,
            key_id: release.key_id.clone(),
            key_version: release.key_version,
            plan: String::new(),
            memory: Some(1 << 16),
            balance: Balance::Memory,
            inputs,
            outputs,
            stages,
            digest: [0; 32],
        };
        index.plan = index.plan_digest();
        index
    }
}

/// The file of an index with this body.
pub(crate) fn signed(body: &[u8], keys: &OwnerKeys) -> Result<Vec<u8>, SplitError> {
    if body.len() as u64 + (PREFIX_BYTES + SIGNATURE_BYTES) as u64 > MAX_INDEX {
        return Err(SplitError::Index {
            path: SEALED_INDEX_FILE.into(),
            expected: format!("at most {MAX_INDEX} bytes"),
            found: body.len().to_string(),
        });
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend(SEALED_INDEX_VERSION.to_le_bytes());
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(body);
    bytes.extend(keys.signing.sign_statement(KIND, &bytes)?);
    Ok(bytes)
}

/// A part of a model, until that is to end.
struct Source<'a> {
    bytes: PartBytes<'a>,
    stop: &'a AtomicBool,
}

impl ReadAt for Source<'_> {
    fn length(&self) -> io::Result<u64> {
        Ok(self.bytes.len())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if self.stop.load(Ordering::SeqCst) {
            return Err(io::Error::other("interrupted"));
        }
        self.bytes.read_at(bytes, offset).map_err(io::Error::other)
    }
}

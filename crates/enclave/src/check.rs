//! What can be said of sealed files before there is a key: a worker that will not open them need not listen.

use std::path::{Path, PathBuf};

use privet_seal::{Accepted, Kind, Part, SealedModel};
use privet_split::SealedIndex;

use crate::error::EnclaveError;
use crate::model::Pinned;
use crate::stages::check_digest;

/// Whether a sealed model is one that a worker with these arguments opens, as far as its key is not needed for that. The key's
/// policy may still refuse it.
///
/// # Errors
/// If it is not a sealed model, or one of another owner, model, key, version or digest.
pub fn check_sealed(path: &Path, pinned: &Pinned) -> Result<(), EnclaveError> {
    let (header, _) = SealedModel::signed_header(path, &pinned.verifying_key)?;
    let accepted = Accepted {
        verifying_key: pinned.verifying_key,
        model_id: pinned.model_id.unwrap_or(header.model_id),
        key_id: pinned.key_id.clone(),
        key_version: pinned.key_version.unwrap_or(header.key_version),
        min_version: pinned.min_version,
        part: Part::WHOLE,
        digest: pinned.digest,
    };
    SealedModel::verify_file(path, &accepted)?;
    if header.kind != Kind::Onnx {
        let text =
            format!("{}: expected a sealed ONNX model, found the sealed state of a module", path.display());
        return Err(EnclaveError::Model(text));
    }
    Ok(())
}

/// Sealed stages, of which their index was verified.
pub struct SignedStages {
    directory: PathBuf,
    index: SealedIndex,
    accepted: Accepted,
}

impl SignedStages {
    /// Verifies the index of a directory, as [`check_sealed`] does a sealed model.
    ///
    /// # Errors
    /// If there is none, or one of another owner, model, key, version or digest.
    pub fn open(directory: &Path, pinned: &Pinned) -> Result<Self, EnclaveError> {
        let index = SealedIndex::signed_by(directory, &pinned.verifying_key)?;
        let accepted = Accepted {
            verifying_key: pinned.verifying_key,
            model_id: pinned.model_id.unwrap_or(index.model_id),
            key_id: pinned.key_id.clone(),
            key_version: pinned.key_version.unwrap_or(index.key_version),
            min_version: pinned.min_version,
            part: Part::WHOLE,
            digest: pinned.digest,
        };
        let index = SealedIndex::load(directory, &accepted)?;
        check_digest(&index, pinned.digest)?;
        Ok(Self { directory: directory.to_owned(), index, accepted })
    }

    /// What the index says.
    pub fn index(&self) -> &SealedIndex {
        &self.index
    }

    /// Verifies all of a stage but its chunks, counted from 1.
    ///
    /// # Errors
    /// If it is not there, or not the one that the index names.
    ///
    /// # Panics
    /// There is no such stage.
    pub fn check_stage(&self, number: usize) -> Result<(), EnclaveError> {
        self.index.verify_stage(&self.directory, number - 1, &self.accepted)?;
        Ok(())
    }
}

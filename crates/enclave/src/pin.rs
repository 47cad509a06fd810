//! Whose model a client asks for.
//!
//! A worker's evidence says which program runs, not whose model it was given: the same program with other arguments serves another
//! owner's. But that program verifies the model's signature under the key that it names, and names no other to its clients. So a
//! client that knows the owner's verifying key and accepts the program knows whose model answers, if that worker has the whole of it:
//! whom a worker asks for later stages is up to its arguments.

use privet_seal::{ModelId, ModelVersion, Release, SealDigest, VerifyingKey};

use crate::error::EnclaveError;
use crate::wire::ModelInfo;

/// What a client accepts of a worker's model; what is none does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelPin {
    /// Who has to have signed it. Without it, or a digest, id and version are names under which everyone can seal.
    pub verifying_key: Option<VerifyingKey>,
    /// Which model.
    pub id: Option<ModelId>,
    /// How old it may be.
    pub min_version: Option<ModelVersion>,
    /// Which sealed file, or index of stages.
    pub digest: Option<SealDigest>,
}

impl ModelPin {
    /// The model of an owner's release file.
    pub fn of_release(release: &Release) -> Self {
        Self { verifying_key: Some(release.verifying_key), id: Some(release.model_id), ..Self::default() }
    }

    /// Whether it says whose model it is: by the owner's key, or by the very file.
    pub fn names_owner(&self) -> bool {
        self.verifying_key.is_some() || self.digest.is_some()
    }

    /// Accepts what the worker `peer` serves.
    ///
    /// # Errors
    /// If it is another model.
    pub fn accept(&self, peer: &str, model: &ModelInfo) -> Result<(), EnclaveError> {
        let other = |expected: String, found: String, remedy| {
            Err(EnclaveError::OtherModel { peer: peer.to_owned(), expected, found, remedy })
        };
        if let Some(expected) = self.verifying_key.filter(|key| *key != model.verifying_key) {
            let signed = |key: VerifyingKey| format!("a model signed by {key}");
            let remedy = "ask a worker of that owner, or, if the owner has a new key, get the new release file from the owner";
            return other(signed(expected), signed(model.verifying_key), remedy);
        }
        if let Some(expected) = self.id.filter(|id| *id != model.id) {
            let remedy = "ask a worker of that model";
            return other(format!("model {expected}"), format!("model {}", model.id), remedy);
        }
        if let Some(oldest) = self.min_version.filter(|oldest| *oldest > model.version) {
            let remedy = "ask a worker that has been given the newer model";
            return other(format!("version {oldest} or later"), format!("version {}", model.version), remedy);
        }
        if let Some(expected) = self.digest.filter(|digest| *digest != model.digest) {
            let remedy = "ask a worker of that file, or, if the owner has sealed a new one, get its digest from the owner";
            return other(format!("sealed file {expected}"), format!("sealed file {}", model.digest), remedy);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_owner_model_version_or_file_is_refused() {
        let key = |byte| VerifyingKey::from_bytes([byte; 32]);
        let digest = |byte: &str| byte.repeat(32).parse::<SealDigest>().unwrap();
        let model = ModelInfo {
            verifying_key: key(1),
            id: ModelId::from_bytes([7; 16]),
            version: ModelVersion::new(3).unwrap(),
            digest: digest("ab"),
            inputs: Vec::new(),
            outputs: Vec::new(),
            endings: Vec::new(),
        };
        let own = ModelPin {
            verifying_key: Some(key(1)),
            id: Some(model.id),
            min_version: ModelVersion::new(3),
            digest: Some(digest("ab")),
        };
        assert!(own.accept("w", &model).is_ok() && ModelPin::default().accept("w", &model).is_ok());
        assert!(own.names_owner() && !ModelPin { id: own.id, ..ModelPin::default() }.names_owner());
        for (pin, expected) in [
            (ModelPin { verifying_key: Some(key(2)), ..own.clone() }, key(2).to_string()),
            (
                ModelPin { id: Some(ModelId::from_bytes([8; 16])), ..own.clone() },
                "expected model 0808".to_owned(),
            ),
            (ModelPin { min_version: ModelVersion::new(4), ..own.clone() }, "expected version 4".to_owned()),
            (ModelPin { digest: Some(digest("cd")), ..own.clone() }, "expected sealed file cdcd".to_owned()),
        ] {
            let error = pin.accept("worker:1", &model).unwrap_err().to_string();
            assert!(error.contains(&expected) && error.contains("no input was sent"), "{error}");
        }
    }
}

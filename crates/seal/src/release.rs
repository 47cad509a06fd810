//! What is public of an owner's keys: the release file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files::{self, PUBLIC};
use crate::{KeyFingerprint, KeyId, KeyVersion, ModelId, SealError, VerifyingKey};

/// Name of the release file in an owner's directory.
pub const RELEASE_FILE: &str = "release.toml";

/// Version of the release file.
const RELEASE_VERSION: u32 = 1;
/// A release file is a few hundred bytes; more is not one of ours.
const MAX_BYTES: u64 = 16 << 10;

/// What whoever opens a sealed model, or hands out its key, needs to know: no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The model that the keys are for.
    pub model_id: ModelId,
    /// The name under which the content key is asked for.
    pub key_id: KeyId,
    /// Which of the keys of this name.
    pub key_version: KeyVersion,
    /// Who signs the model.
    pub verifying_key: VerifyingKey,
    /// Which key it is.
    pub fingerprint: KeyFingerprint,
}

/// As it is in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseToml {
    version: u32,
    model_id: ModelId,
    key_id: KeyId,
    key_version: KeyVersion,
    verifying_key: VerifyingKey,
    content_key_fingerprint: KeyFingerprint,
}

impl Release {
    /// Reads the text of a release file.
    ///
    /// # Errors
    /// What is missing, unknown or malformed in it.
    pub fn from_toml(text: &str) -> Result<Release, toml::de::Error> {
        let file: ReleaseToml = toml::from_str(text)?;
        if file.version != RELEASE_VERSION {
            let problem = format!(
                "version {} of the release file is not supported; expected {RELEASE_VERSION}",
                file.version
            );
            return Err(serde::de::Error::custom(problem));
        }
        Ok(Release {
            model_id: file.model_id,
            key_id: file.key_id,
            key_version: file.key_version,
            verifying_key: file.verifying_key,
            fingerprint: file.content_key_fingerprint,
        })
    }

    /// The text of its file.
    pub fn to_toml(&self) -> String {
        let file = ReleaseToml {
            version: RELEASE_VERSION,
            model_id: self.model_id,
            key_id: self.key_id.clone(),
            key_version: self.key_version,
            verifying_key: self.verifying_key,
            content_key_fingerprint: self.fingerprint,
        };
        let body = toml::to_string(&file).expect("names and numbers are TOML");
        format!("# Public: who signs a sealed model, and which key opens it.\n{body}")
    }

    /// Reads a release file.
    ///
    /// # Errors
    /// If it is missing, too large, or not a release file.
    pub fn read(path: &Path) -> Result<Release, SealError> {
        let bytes = files::read_bounded(path, MAX_BYTES)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| SealError::file(path, "expected UTF-8 text"))?;
        // Without the line that is wrong: it may be of a key's file, given by mistake.
        let fail = |e: toml::de::Error| format!("not a release file of privet key new: {}", e.message());
        Release::from_toml(text).map_err(|e| SealError::file(path, fail(e)))
    }

    /// Writes it, readable by everyone; an existing file is not overwritten.
    ///
    /// # Errors
    /// If it exists, or the system fails.
    pub fn write(&self, path: &Path) -> Result<(), SealError> {
        files::create(path, self.to_toml().as_bytes(), PUBLIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContentKey, SigningKey};

    #[test]
    fn a_release_reads_back_and_refuses_what_it_does_not_know() {
        let release = Release {
            model_id: ModelId::from_bytes([7; 16]),
            key_id: "resnet-50.v2".parse().unwrap(),
            key_version: KeyVersion::FIRST,
            verifying_key: SigningKey::from_slice(&[1; 32]).unwrap().verifying_key().unwrap(),
            fingerprint: ContentKey::from_slice(&[2; 32]).unwrap().fingerprint(),
        };
        let text = release.to_toml();
        assert_eq!(Release::from_toml(&text).unwrap(), release);
        for (from, to, expected) in [
            ("version = 1\nmodel", "version = 2\nmodel", "version 2 of the release file"),
            ("key_id", "extra = 1\nkey_id", "extra"),
            ("resnet-50.v2", "../resnet", "expected 1 to 64 letters"),
            ("key_version = 1", "key_version = 0", "nonzero"),
            ("07070707-", "0707-", "expected a UUID"),
        ] {
            assert!(text.contains(from), "{text}");
            let error = Release::from_toml(&text.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

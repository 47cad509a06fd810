//! Names and versions, all of them public.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::SealError;

/// Longest name of a key.
const MAX_NAME: usize = 64;

/// The name by which an owner's key is asked for: 1 to 64 letters, digits, `-`, `_` or `.`, not starting with `.` or `-`, so
/// that it is also a file's name, a segment of a path in a URL, and no option of a command.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

impl KeyId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = SealError;

    fn from_str(name: &str) -> Result<KeyId, SealError> {
        let fits = (1..=MAX_NAME).contains(&name.len()) && !name.starts_with(['.', '-']);
        if fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            Ok(KeyId(name.to_owned()))
        } else {
            let expected = "1 to 64 letters, digits, '-', '_' or '.', not starting with '.' or '-'";
            Err(SealError::name("key id", expected, name))
        }
    }
}

impl TryFrom<String> for KeyId {
    type Error = SealError;

    fn try_from(name: String) -> Result<KeyId, SealError> {
        name.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> String {
        id.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A model, whatever its version: a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelId([u8; 16]);

impl ModelId {
    /// A fresh one (UUID version 4).
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn random() -> Result<ModelId, SealError> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SealError::Randomness)?;
        Ok(ModelId(uuid::Builder::from_random_bytes(bytes).into_uuid().into_bytes()))
    }

    /// From the 16 bytes of a UUID.
    pub fn from_bytes(bytes: [u8; 16]) -> ModelId {
        ModelId(bytes)
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for ModelId {
    type Err = SealError;

    fn from_str(text: &str) -> Result<ModelId, SealError> {
        let expected = "a UUID such as 67e55044-10b1-426f-9247-bb680e5fe0c8";
        let uuid = Uuid::try_parse(text).map_err(|_| SealError::name("model id", expected, text))?;
        Ok(ModelId(uuid.into_bytes()))
    }
}

impl TryFrom<String> for ModelId {
    type Error = SealError;

    fn try_from(text: String) -> Result<ModelId, SealError> {
        text.parse()
    }
}

impl From<ModelId> for String {
    fn from(id: ModelId) -> String {
        id.to_string()
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

/// Which of the keys of one [`KeyId`]: 1, and one more at every rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyVersion(NonZeroU32);

impl KeyVersion {
    /// The version of a new key.
    pub const FIRST: KeyVersion = KeyVersion(NonZeroU32::MIN);

    /// From its number; none is 0.
    pub fn new(number: u32) -> Option<KeyVersion> {
        NonZeroU32::new(number).map(KeyVersion)
    }

    /// Its number.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// That of the key after a rotation; `None` after 2^32 - 1.
    pub fn next(self) -> Option<KeyVersion> {
        self.0.checked_add(1).map(KeyVersion)
    }
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which of the sealed files of one [`ModelId`]: the owner counts them, and a policy says how old one may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelVersion(NonZeroU64);

impl ModelVersion {
    /// The version of a new model.
    pub const FIRST: ModelVersion = ModelVersion(NonZeroU64::MIN);

    /// From its number; none is 0.
    pub fn new(number: u64) -> Option<ModelVersion> {
        NonZeroU64::new(number).map(ModelVersion)
    }

    /// Its number.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

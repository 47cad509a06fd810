//! What can be wrong with keys, models to be sealed, and sealed models.

use std::io;
use std::path::{Path, PathBuf};

use crate::{KeyId, KeyVersion, ModelId, ModelVersion};

/// Why keys were not made or read, or a model was not sealed or opened. No message holds a byte of a key or of a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// A name, number or public key that is none.
    #[error("{what} {found:?}: expected {expected}")]
    Name {
        /// What it is for.
        what: &'static str,
        /// What it has to look like.
        expected: &'static str,
        /// What was given, cut off after 80 characters.
        found: String,
    },
    /// A key has the wrong number of bytes.
    #[error("{what}: expected 32 bytes, found {found}")]
    KeyLength {
        /// Which key.
        what: &'static str,
        /// Its bytes.
        found: usize,
    },
    /// The system has no randomness.
    #[error("the system gives no random bytes")]
    Randomness,
    /// The cryptographic library failed.
    #[error("{0} failed in the cryptographic library")]
    Crypto(&'static str),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Keys are there already.
    #[error("{} already exists: keys are never overwritten; choose another place", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A key file that others can read.
    #[error(
        "{0}: this key is accessible to other users (mode {mode:o}, expected 600); run: chmod 600 {0}",
        path.display()
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A key, release or wrapped key file is not one.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        problem: String,
    },
    /// A key is another than the one asked for.
    #[error("expected key {expected} version {expected_version}, found key {found} version {found_version}")]
    OtherKey {
        /// The key that is needed.
        expected: KeyId,
        /// Its version.
        expected_version: KeyVersion,
        /// The key that is there.
        found: KeyId,
        /// Its version.
        found_version: KeyVersion,
    },
    /// A sealed model is of another model.
    #[error("expected model {expected}, found model {found}")]
    OtherModel {
        /// The model that is needed.
        expected: ModelId,
        /// The model that is there.
        found: ModelId,
    },
    /// A sealed model is older than it may be.
    #[error(
        "the sealed model has version {found}, and at least version {minimum} is required: it was rolled back"
    )]
    RolledBack {
        /// The smallest version that is accepted.
        minimum: ModelVersion,
        /// The version of the file.
        found: ModelVersion,
    },
}

impl SealError {
    pub(crate) fn name(what: &'static str, expected: &'static str, found: &str) -> SealError {
        SealError::Name { what, expected, found: found.chars().take(80).collect() }
    }

    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> SealError {
        SealError::File { path: path.to_owned(), problem: problem.into() }
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> SealError {
        move |source| SealError::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> SealError {
        move |source| SealError::Write { path: path.to_owned(), source }
    }
}

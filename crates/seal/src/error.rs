//! What can be wrong with keys, models to be sealed, and sealed models.

use std::io;
use std::path::{Path, PathBuf};

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
    /// The caller wanted it to stop.
    #[error("interrupted; nothing was written")]
    Interrupted,
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
    /// There is no memory, or it cannot be locked.
    #[error(
        "{bytes} bytes of memory{}: {source}",
        if *locked { " that is not swapped out (ulimit -l says how much there may be)" } else { "" }
    )]
    Memory {
        /// How much was asked for.
        bytes: usize,
        /// Whether it was to be locked.
        locked: bool,
        /// What the system says.
        source: io::Error,
    },
    /// A model keeps data in other files.
    #[error(
        "{}: tensor {tensor:?} is kept in another file; put all into one file first, for instance with \
         onnx.save_model(model, path, save_as_external_data=False)",
        path.display()
    )]
    ExternalData {
        /// The model.
        path: PathBuf,
        /// The first such tensor.
        tensor: String,
    },
    /// A model does not fit the format.
    #[error(
        "{bytes} bytes and {entries} tensors are too large for one sealed model; take larger chunks, or split it"
    )]
    TooLarge {
        /// Bytes before sealing.
        bytes: u64,
        /// Tensors, and the graph.
        entries: usize,
    },
    /// A header contradicts itself or the format.
    #[error("malformed header of a sealed model: {0}")]
    Format(String),
    /// A sealed model is not one, is damaged, or is not what is accepted.
    #[error("{name}: {problem}")]
    Sealed {
        /// What it is called: its path.
        name: String,
        /// What was expected and found.
        problem: String,
    },
    /// A wrapped key does not open.
    #[error("{}: wrapped with another key-encryption key than {}, or damaged", path.display(), kek.display())]
    Wrapped {
        /// The wrapped key.
        path: PathBuf,
        /// The key-encryption key.
        kek: PathBuf,
    },
    /// A sealed model is opened with another key.
    #[error("this is another key than {needed}, under which the model was sealed")]
    WrongKey {
        /// The key that is needed, and its version.
        needed: String,
    },
    /// A key is another than the one asked for.
    #[error("expected key {expected}, found key {found}")]
    OtherKey {
        /// The key that is needed, and its version.
        expected: String,
        /// The key that is there, and its version.
        found: String,
    },
    /// A sealed model, or a release, is of another model.
    #[error("expected model {expected}, found model {found}")]
    OtherModel {
        /// The model that is needed.
        expected: String,
        /// The model that is there.
        found: String,
    },
    /// A sealed model is older than it may be.
    #[error(
        "the sealed model has version {found}, and at least version {minimum} is required: an old one was put in its place"
    )]
    RolledBack {
        /// The smallest version that is accepted.
        minimum: u64,
        /// The version of the file.
        found: u64,
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

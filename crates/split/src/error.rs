//! What can go wrong when models are cut or run in stages.

use std::path::PathBuf;

use privet_graph::GraphError;
use privet_onnx::OnnxError;
use privet_seal::SealError;

/// Why a model was not cut, or a stage did not run.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// The model's file.
    #[error(transparent)]
    Onnx(Box<OnnxError>),
    /// The model.
    #[error(transparent)]
    Graph(Box<GraphError>),
    /// A model is not one that can be cut.
    #[error("{}: {error}", path.display())]
    Model {
        /// The model's file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: Box<SplitError>,
    },
    /// The caller wanted it to stop.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// A sealed model.
    #[error(transparent)]
    Seal(Box<SealError>),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The model cannot be cut into as many stages.
    #[error("the model can be cut at {} places, into at most {most} stages{between}; expected 1 to {most}, found {found}", most - 1)]
    Parts {
        /// The most stages that it can be cut into.
        most: usize,
        /// What was asked for.
        found: usize,
        /// Why not at more places.
        between: String,
    },
    /// The memory does not suffice.
    #[error(
        "node {node:?} alone needs {least} bytes, with the weights block by block; expected a budget of at least {least} bytes, found {found}"
    )]
    Memory {
        /// What needs most.
        node: String,
        /// The smallest budget that is possible.
        least: u64,
        /// What was given.
        found: u64,
    },
    /// So few stages do not keep to the memory.
    #[error("{found} stages need more than {memory} bytes; expected at least {least} stages, or more memory")]
    PartsInMemory {
        /// The fewest stages within the memory.
        least: usize,
        /// What was asked for.
        found: usize,
        /// The memory.
        memory: u64,
    },
    /// The model is of a kind that is not cut.
    #[error("{what}; supported: {supported}")]
    Unsupported {
        /// What was found.
        what: String,
        /// What is supported.
        supported: &'static str,
    },
    /// The index does not say what was expected.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// An input is missing, or is not what the model says.
    #[error("input {name:?}: expected {expected}, found {found}")]
    Input {
        /// Its name.
        name: String,
        /// What the model says.
        expected: String,
        /// What was given.
        found: String,
    },
    /// What came is not what the stage before gave.
    #[error("tensors between stages: expected {expected}, found {found}")]
    Hop {
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A kernel refused its operands.
    #[error("a kernel does not take its operands: {0}")]
    Kernel(String),
}

/// An error of the file at `path`.
pub(crate) fn io(path: &std::path::Path, source: std::io::Error) -> SplitError {
    SplitError::Io { path: path.to_owned(), source }
}

impl From<OnnxError> for SplitError {
    fn from(error: OnnxError) -> Self {
        Self::Onnx(Box::new(error))
    }
}

impl From<SealError> for SplitError {
    fn from(error: SealError) -> Self {
        Self::Seal(Box::new(error))
    }
}

impl From<GraphError> for SplitError {
    fn from(error: GraphError) -> Self {
        Self::Graph(Box::new(error))
    }
}

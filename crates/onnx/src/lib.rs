//! Reads ONNX files into a [`privet_graph::Graph`], and writes layers as such files ([`export`])
//! or parts of a file as files of their own ([`ModelFile`]).
//!
//! Opsets 7 to 28 of the default domain. Every attribute of every operator is honoured or refused by name, as are
//! unknown operators, domains and element types. Files are foreign bytes: they never panic, and nothing is allocated
//! before its size was checked against the data that is there.

#![forbid(unsafe_code)]

mod error;
mod export;
mod file;
mod hollow;
mod import;
mod node;
mod ops;
mod part;
mod proto;
mod scan;
mod tensor;
#[cfg(test)]
mod tests;

use std::path::Path;

use privet_graph::{Graph, Tensor};
use prost::Message;

pub use error::OnnxError;
pub use export::export;
pub use file::{FileNode, ModelFile, StoredTensor};
pub use hollow::Elsewhere;
pub use import::Imported;
pub use part::{Declared, Part, PartBytes};

/// Largest model file: what protobuf allows.
const MAX_FILE: u64 = 1 << 31;

/// Reads a model file. External tensor data must lie in the model's directory.
pub fn load(path: &Path) -> Result<Graph, OnnxError> {
    let io = |source| OnnxError::Io { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > MAX_FILE {
        return Err(OnnxError::Malformed(format!(
            "a model file holds at most {MAX_FILE} bytes, found {size}"
        )));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let name = path.file_stem().map_or_else(|| "model".into(), |s| s.to_string_lossy());
    import(&bytes, &name, path.parent())
}

/// Reads a model from memory; external tensor data is refused.
pub fn parse(bytes: &[u8], name: &str) -> Result<Graph, OnnxError> {
    import(bytes, name, None)
}

/// Reads one serialised tensor (a `TensorProto`, as in the ONNX backend tests).
pub fn parse_tensor(bytes: &[u8]) -> Result<Tensor, OnnxError> {
    let tensor = proto::TensorProto::decode(bytes).map_err(|e| OnnxError::Protobuf(e.to_string()))?;
    tensor::read(tensor, None)
}

fn import(bytes: &[u8], name: &str, directory: Option<&Path>) -> Result<Graph, OnnxError> {
    let model = proto::ModelProto::decode(bytes).map_err(|e| OnnxError::Protobuf(e.to_string()))?;
    import::graph(model, name, directory)
}

//! What can be wrong with an ONNX file.

use std::path::PathBuf;

/// Why a model was not read.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The bytes are not a protobuf message of the ONNX schema.
    #[error("not an ONNX file: {0}")]
    Protobuf(String),
    /// The model contradicts itself or leaves out what ONNX requires.
    #[error("malformed model: {0}")]
    Malformed(String),
    /// The model's operator set is outside the supported versions.
    #[error("operator set {found} is not supported; supported: {supported}")]
    Opset {
        /// Domain and version.
        found: String,
        /// Supported versions.
        supported: String,
    },
    /// An operator is not supported.
    #[error("node {node:?}: operator {operator} (opset {opset}) is not supported; supported: {supported}")]
    Operator {
        /// The node.
        node: String,
        /// Domain and name of the operator.
        operator: String,
        /// Version of the model's operator set.
        opset: i64,
        /// Names of supported operators.
        supported: String,
    },
    /// An attribute, or a value of one, is not supported.
    #[error("node {node:?}, operator {operator}: attribute {attribute} {problem}; supported: {supported}")]
    Attribute {
        /// The node.
        node: String,
        /// Name of the operator.
        operator: String,
        /// Name of the attribute.
        attribute: String,
        /// What was found.
        problem: String,
        /// What could be used instead.
        supported: String,
    },
    /// The operands or results of a node are not what its operator asks for.
    #[error("node {node:?}, operator {operator}: {what}: expected {expected}, found {found}")]
    Operands {
        /// The node.
        node: String,
        /// Name of the operator.
        operator: String,
        /// The operand or result.
        what: String,
        /// What is supported.
        expected: String,
        /// What the model has.
        found: String,
    },
    /// A graph's node cannot be written.
    #[error("node {node:?}: operator {operator} is not written to ONNX files; supported: {supported}")]
    Export {
        /// The node.
        node: String,
        /// Name of the operator.
        operator: String,
        /// What can be written.
        supported: String,
    },
    /// An element type is not supported.
    #[error("{what}: element type {found} is not supported; supported: FLOAT, INT32, INT64, BOOL")]
    ElementType {
        /// The tensor or attribute.
        what: String,
        /// The type's name or number.
        found: String,
    },
    /// A tensor's data does not fit its declaration.
    #[error("tensor {tensor:?}: {what}: expected {expected}, found {found}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// The field.
        what: &'static str,
        /// What the declaration asks for.
        expected: String,
        /// What the file has.
        found: String,
    },
}

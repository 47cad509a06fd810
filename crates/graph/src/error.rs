//! What can be wrong with a graph, an operator or a compilation.

use privet_plan::PlanError;

/// What is wrong with a graph or with what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// An operator does not fit its operands, or is not supported in this place.
    #[error("node {node:?}, operator {op}: {error}")]
    Op {
        /// Name of the node.
        node: String,
        /// Name of the operator.
        op: String,
        /// What was expected and found.
        error: OpError,
    },
    /// A dimension that the model leaves open was not given.
    #[error(
        "input {input:?}: dimension {axis} ({dim}) is symbolic in the model; \
         give the shape with --input-shape {input}=D0,D1,.."
    )]
    SymbolicDim {
        /// Name of the input.
        input: String,
        /// Axis of the dimension.
        axis: usize,
        /// Name of the dimension in the model.
        dim: String,
    },
    /// A given shape contradicts the model.
    #[error("input {input:?}: the model has shape {expected}, --input-shape or the data has {found}")]
    InputShape {
        /// Name of the input.
        input: String,
        /// Shape in the model.
        expected: String,
        /// Shape given.
        found: String,
    },
    /// An input is named that the model does not have.
    #[error("the model has no input {found:?}; its inputs are {expected:?}")]
    NoSuchInput {
        /// Inputs of the model.
        expected: Vec<String>,
        /// Name given.
        found: String,
    },
    /// The number of inputs differs.
    #[error("the model has {expected} inputs, found {found}")]
    InputCount {
        /// Inputs of the model.
        expected: usize,
        /// Inputs given.
        found: usize,
    },
    /// The options of a compilation contradict each other.
    #[error("{0}")]
    Options(String),
    /// An output is not a value that the model computes from its inputs.
    #[error("output {name:?}: {problem}")]
    Output {
        /// Name of the output.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The graph contradicts itself.
    #[error("malformed graph: {0}")]
    Malformed(String),
    /// The lowered plan did not pass its own validation.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// What is wrong with one operator.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OpError {
    /// Operands or attributes contradict each other.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// The operand or attribute.
        what: &'static str,
        /// What the operator's definition asks for.
        expected: String,
        /// What the model has.
        found: String,
    },
    /// A legal use that is not supported.
    #[error("{what} is not supported; supported: {supported}")]
    Unsupported {
        /// The use.
        what: String,
        /// What could be used instead.
        supported: &'static str,
    },
    /// A tensor is too large.
    #[error("{what}: a tensor of shape {shape:?} has more than {limit} elements")]
    TooLarge {
        /// The tensor.
        what: &'static str,
        /// Its shape.
        shape: Vec<usize>,
        /// Most elements allowed.
        limit: usize,
    },
    /// A private tensor holds NaN or infinity.
    #[error("{tensor} holds NaN or infinity, as it is or after batch normalisation was folded in")]
    NotFinite {
        /// The tensor.
        tensor: String,
    },
    /// A weight does not fit the ring.
    #[error(
        "{tensor} holds a value that needs {needed} bits with {frac_bits} fractional bits; the ring has {ring}"
    )]
    WeightRange {
        /// The tensor.
        tensor: String,
        /// Signed width that would hold the value of largest magnitude.
        needed: u32,
        /// Fractional bits of the tensor.
        frac_bits: u32,
        /// Width of the ring.
        ring: u32,
    },
}

impl OpError {
    /// A contradiction between operands or attributes.
    pub fn mismatch(what: &'static str, expected: impl ToString, found: impl ToString) -> Self {
        Self::Mismatch { what, expected: expected.to_string(), found: found.to_string() }
    }

    /// A legal use that is not supported.
    pub fn unsupported(what: impl Into<String>, supported: &'static str) -> Self {
        Self::Unsupported { what: what.into(), supported }
    }
}

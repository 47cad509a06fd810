//! The operator trait: what one file in `ops` provides.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use privet_plan::{Post, WireId};

use crate::{Body, DType, Lowering, OpError, Tensor};

/// What is known about a value before the model runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<usize>,
    /// The value itself, when it does not depend on the model's inputs.
    pub value: Option<Arc<Tensor>>,
}

impl Fact {
    /// A value that depends on the inputs.
    pub fn new(dtype: DType, shape: Vec<usize>) -> Self {
        Self { dtype, shape, value: None }
    }

    /// A float value that depends on the inputs.
    pub fn float(shape: Vec<usize>) -> Self {
        Self::new(DType::F32, shape)
    }

    /// A known value.
    pub fn constant(value: Arc<Tensor>) -> Self {
        Self { dtype: value.dtype(), shape: value.shape().to_vec(), value: Some(value) }
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().fold(1, |product, &d| d.saturating_mul(product))
    }

    /// The known value, or an error saying that `what` must not depend on the inputs.
    pub fn known(&self, what: &'static str) -> Result<&Tensor, OpError> {
        self.value.as_deref().ok_or_else(|| {
            OpError::unsupported(format!("{what} that depends on the model's input"), "a constant")
        })
    }

    /// Errors unless the elements are floats.
    pub fn expect_float(&self, what: &'static str) -> Result<(), OpError> {
        match self.dtype {
            DType::F32 => Ok(()),
            other => Err(OpError::mismatch(what, "float32", format!("{other:?}"))),
        }
    }
}

/// The operands of a node; optional ones may be missing.
#[derive(Debug)]
pub struct Args<'a, T>(pub &'a [Option<&'a T>]);

impl<T> Clone for Args<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Args<'_, T> {}

impl<'a, T> Args<'a, T> {
    /// Operand `i`, or an error that calls it `what`.
    pub fn get(&self, i: usize, what: &'static str) -> Result<&'a T, OpError> {
        self.optional(i).ok_or_else(|| OpError::mismatch(what, format!("operand {i}"), "none"))
    }

    /// Operand `i` if it is there.
    pub fn optional(&self, i: usize) -> Option<&'a T> {
        self.0.get(i).copied().flatten()
    }

    /// All operands, for operators without optional ones.
    pub fn all(&self) -> Result<Vec<&'a T>, OpError> {
        (0..self.0.len()).map(|i| self.get(i, "operands")).collect()
    }

    /// Number of operand slots.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no operands.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Args<'a, Fact> {
    /// Operand `i`, which has to be of floats, or an error that calls it `what`.
    pub fn float(&self, i: usize, what: &'static str) -> Result<&'a Fact, OpError> {
        let fact = self.get(i, what)?;
        fact.expect_float(what)?;
        Ok(fact)
    }

    /// What an operator gives that maps each float of its input to another.
    pub fn mapped_floats(&self) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::float(self.float(0, "input")?.shape.clone())])
    }
}

/// The channel axis of a linear layer's result.
#[derive(Debug, Clone, Copy)]
pub struct Channel<'a> {
    /// Shape of the result.
    pub shape: &'a [usize],
    /// Its channel axis.
    pub axis: usize,
}

/// `scale[c] * x + shift[c]` per channel c.
#[derive(Debug, Clone)]
pub struct Affine {
    /// Factors.
    pub scale: Vec<f64>,
    /// Addends.
    pub shift: Vec<f64>,
}

/// A model operator.
pub trait Operator: Any + Debug + Send + Sync {
    /// Name as in ONNX where ONNX has the operator.
    fn name(&self) -> &'static str;

    /// Element types and shapes of the results; also their values where these follow from the facts alone.
    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError>;

    /// The results in float; operands satisfy [`Self::facts`].
    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError>;

    /// About how many operations [`Self::eval`] takes, for folding to be bounded.
    fn work(&self, inputs: Args<'_, Fact>, results: &[Fact]) -> usize {
        let facts = inputs.0.iter().copied().flatten().chain(results);
        facts.fold(0, |sum, fact| fact.len().saturating_add(sum))
    }

    /// Appends plan steps; returns one wire per result.
    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError>;

    /// Whether the first result always equals the first operand, so that the node can be removed.
    fn is_identity(&self, _inputs: Args<'_, Fact>) -> bool {
        false
    }

    /// What this operator does to operand `operand` if that is the same affine map on every element of a channel.
    fn affine(&self, _operand: usize, _channel: Channel<'_>, _inputs: Args<'_, Fact>) -> Option<Affine> {
        None
    }

    /// The nodes that stand in this one's place once its operands' facts are known: a chosen branch.
    fn inlined(&self, _inputs: Args<'_, Fact>, _results: usize) -> Option<Result<&Body, OpError>> {
        None
    }

    /// What the receiver can do after the reveal instead, when this is the model's last operator.
    fn post(&self, _input: &Fact) -> Option<Result<Post, OpError>> {
        None
    }
}

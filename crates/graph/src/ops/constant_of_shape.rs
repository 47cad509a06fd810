//! ConstantOfShape.

use ndarray::{ArrayD, IxDyn};
use privet_plan::WireId;

use crate::{Args, Fact, Lowering, OpError, Operator, Tensor, element_count};

/// A tensor of the shape that the operand holds, filled with one value.
#[derive(Debug, Clone)]
pub struct ConstantOfShape {
    /// A tensor with one element.
    pub value: Tensor,
}

impl Operator for ConstantOfShape {
    fn name(&self) -> &'static str {
        "ConstantOfShape"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        if self.value.len() != 1 {
            return Err(OpError::mismatch("value", "one element", format!("shape {:?}", self.value.shape())));
        }
        let shape = dimensions("input", inputs.get(0, "input")?.known("input")?)?;
        Ok(vec![Fact::new(self.value.dtype(), shape)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let shape = dimensions("input", inputs.get(0, "input")?)?;
        let shape = IxDyn(&shape);
        Ok(vec![match &self.value {
            Tensor::F32(v) => ArrayD::from_elem(shape, v.first().copied().unwrap_or_default()).into(),
            Tensor::I64(v) => ArrayD::from_elem(shape, v.first().copied().unwrap_or_default()).into(),
            Tensor::Bool(v) => ArrayD::from_elem(shape, v.first().copied().unwrap_or_default()).into(),
        }])
    }

    fn lower(&self, _ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        Err(OpError::unsupported("a shape that was not folded", "known shapes"))
    }
}

/// The shape that a tensor of integers spells out, bounded.
pub(super) fn dimensions(what: &'static str, tensor: &Tensor) -> Result<Vec<usize>, OpError> {
    let ints = tensor.ints(what)?;
    let shape: Option<Vec<usize>> = ints.iter().map(|&d| usize::try_from(d).ok()).collect();
    let shape =
        shape.ok_or_else(|| OpError::mismatch(what, "dimensions of at least 0", format!("{ints:?}")))?;
    element_count(what, &shape)?;
    Ok(shape)
}

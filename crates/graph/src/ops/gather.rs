//! Gather with known indices.

use ndarray::{ArrayD, Axis, IxDyn};
use privet_plan::WireId;

use crate::tensor::axis;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor, element_count};

/// Takes the entries of an axis that operand 1 names; negative indices count from the end.
#[derive(Debug, Clone, Copy)]
pub struct Gather {
    /// The axis; negative ones count from the end.
    pub axis: i64,
}

impl Operator for Gather {
    fn name(&self) -> &'static str {
        "Gather"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let (x, indices) = (inputs.get(0, "data")?, inputs.get(1, "indices")?);
        let at = axis("axis", self.axis, x.shape.len())?;
        positions(indices.known("indices")?, x.shape[at])?;
        let shape = [&x.shape[..at], &indices.shape, &x.shape[at + 1..]].concat();
        element_count("gathered result", &shape)?;
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let (x, indices) = (inputs.get(0, "data")?, inputs.get(1, "indices")?);
        let at = axis("axis", self.axis, x.shape().len())?;
        let positions = positions(indices, x.shape()[at])?;
        let shape = [&x.shape()[..at], indices.shape(), &x.shape()[at + 1..]].concat();
        Ok(vec![match x {
            Tensor::F32(a) => select(a, at, &positions, &shape)?.into(),
            Tensor::I64(a) => select(a, at, &positions, &shape)?.into(),
            Tensor::Bool(a) => select(a, at, &positions, &shape)?.into(),
        }])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "data")?;
        let from = ctx.shape_of(x);
        let at = axis("axis", self.axis, from.len())?;
        let positions = positions(ctx.operands().get(1, "indices")?.known("indices")?, from[at])?;
        let taken = ctx.gather(x, at, &positions)?;
        let shape = ctx.shape();
        Ok(vec![ctx.reshape(taken, shape)])
    }
}

fn positions(indices: &Tensor, size: usize) -> Result<Vec<usize>, OpError> {
    indices.ints("indices")?.into_iter().map(|i| axis("indices", i, size)).collect()
}

fn select<T: Clone>(
    a: &ArrayD<T>,
    at: usize,
    positions: &[usize],
    shape: &[usize],
) -> Result<ArrayD<T>, OpError> {
    let taken = a.select(Axis(at), positions).as_standard_layout().into_owned();
    taken
        .into_shape_with_order(IxDyn(shape))
        .map_err(|e| OpError::mismatch("indices", "indices that fit the data", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_outside_are_refused() {
        assert!(positions(&Tensor::from_ints(vec![3]), 3).is_err());
        assert_eq!(positions(&Tensor::from_ints(vec![-1]), 3), Ok(vec![2]));
    }
}

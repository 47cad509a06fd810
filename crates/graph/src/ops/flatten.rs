//! Flatten.

use privet_plan::WireId;

use super::reshape::{self, reshaped};
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// Joins the axes before `axis`, and those from it on, to a matrix.
#[derive(Debug, Clone, Copy)]
pub struct Flatten {
    /// First axis of the second group; from `-rank` to `rank`, both included.
    pub axis: i64,
}

impl Operator for Flatten {
    fn name(&self) -> &'static str {
        "Flatten"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "input")?;
        Ok(vec![Fact::new(x.dtype, self.shape(&x.shape)?)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?;
        Ok(vec![reshaped(x, &self.shape(x.shape())?)])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        reshape::lower(ctx)
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        inputs.optional(0).is_some_and(|x| self.shape(&x.shape).is_ok_and(|shape| shape == x.shape))
    }
}

impl Flatten {
    fn shape(&self, from: &[usize]) -> Result<Vec<usize>, OpError> {
        let rank = from.len() as i64;
        if !(-rank..=rank).contains(&self.axis) {
            return Err(OpError::mismatch("axis", format!("from -{rank} to {rank}"), self.axis));
        }
        let split = if self.axis < 0 { self.axis + rank } else { self.axis } as usize;
        Ok(vec![from[..split].iter().product(), from[split..].iter().product()])
    }
}

//! Mean of several operands.

use privet_plan::WireId;

use super::sum::{Sum, sum_of};
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// Mean of all operands with broadcasting.
#[derive(Debug, Clone, Copy)]
pub struct Mean;

impl Operator for Mean {
    fn name(&self) -> &'static str {
        "Mean"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        Sum.facts(inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let sum = Sum.eval(inputs)?;
        let count = inputs.len() as f32;
        Ok(vec![sum[0].floats("operands")?.mapv(|v| v / count).into()])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let count = ctx.operands().len();
        let sum = sum_of(ctx, &vec![1; count])?;
        let shape = ctx.shape_of(sum).to_vec();
        // The whole tensor is one axis of length 1 to a matrix with one element.
        let flat = ctx.reshape(sum, &[&[1], shape.as_slice()].concat());
        let mean = ctx.sum_times_reciprocal(flat, 0, count)?;
        Ok(vec![ctx.reshape(mean, &shape)])
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        inputs.len() == 1
    }
}

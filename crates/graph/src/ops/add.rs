//! Add.

use privet_plan::WireId;

use super::sum::sum_of;
use crate::{Affine, Args, Channel, Fact, Lowering, OpError, Operator, Tensor, broadcast};

/// `a + b` with broadcasting.
#[derive(Debug, Clone, Copy)]
pub struct Add;

impl Operator for Add {
    fn name(&self) -> &'static str {
        "Add"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        super::sum::elementwise_facts(inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![broadcast::zip(inputs.get(0, "A")?, inputs.get(1, "B")?, |a, b| a + b, i64::checked_add)?])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        Ok(vec![sum_of(ctx, &[1, 1])?])
    }

    fn affine(&self, operand: usize, channel: Channel<'_>, inputs: Args<'_, Fact>) -> Option<Affine> {
        let constant = inputs.optional(1 - operand)?.value.as_deref()?.floats("addend").ok()?;
        let shift = broadcast::per_channel(constant, channel)?;
        Some(Affine { scale: vec![1.0; shift.len()], shift })
    }
}

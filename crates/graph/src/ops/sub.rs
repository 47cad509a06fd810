//! Sub.

use privet_plan::WireId;

use super::sum::sum_of;
use crate::{Affine, Args, Channel, Fact, Lowering, OpError, Operator, Tensor, broadcast};

/// `a - b` with broadcasting.
#[derive(Debug, Clone, Copy)]
pub struct Sub;

impl Operator for Sub {
    fn name(&self) -> &'static str {
        "Sub"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        super::sum::elementwise_facts(inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![broadcast::zip(inputs.get(0, "A")?, inputs.get(1, "B")?, |a, b| a - b, i64::checked_sub)?])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        Ok(vec![sum_of(ctx, &[1, -1])?])
    }

    fn affine(&self, operand: usize, channel: Channel<'_>, inputs: Args<'_, Fact>) -> Option<Affine> {
        let constant = inputs.optional(1 - operand)?.value.as_deref()?.floats("operand").ok()?;
        let shift = broadcast::per_channel(constant, channel)?;
        let sign = if operand == 0 { 1.0 } else { -1.0 };
        // x - c or c - x.
        Some(Affine { scale: vec![sign; shift.len()], shift: shift.iter().map(|c| -sign * c).collect() })
    }
}

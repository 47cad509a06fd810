//! Mul.

use privet_plan::WireId;

use crate::{Affine, Args, Channel, Fact, Lowering, OpError, Operator, Tensor, broadcast};

/// `a · b` with broadcasting.
#[derive(Debug, Clone, Copy)]
pub struct Mul;

impl Operator for Mul {
    fn name(&self) -> &'static str {
        "Mul"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        super::sum::elementwise_facts(inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![broadcast::zip(inputs.get(0, "A")?, inputs.get(1, "B")?, |a, b| a * b, i64::checked_mul)?])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let shape = ctx.shape();
        let Some((x, constant)) = (0..2).find_map(|i| Some((1 - i, ctx.constant(i)?))) else {
            let (a, b) = (ctx.wire(0, "factor")?, ctx.wire(1, "factor")?);
            let (a, b) = (ctx.broadcast(a, shape), ctx.broadcast(b, shape));
            return Ok(vec![ctx.multiply(a, b)]);
        };
        let wire = ctx.wire(x, "factor")?;
        let wire = ctx.broadcast(wire, shape);
        Ok(vec![ctx.scale(wire, "factor", constant)?])
    }

    fn affine(&self, operand: usize, channel: Channel<'_>, inputs: Args<'_, Fact>) -> Option<Affine> {
        let constant = inputs.optional(1 - operand)?.value.as_deref()?.floats("factor").ok()?;
        let scale = broadcast::per_channel(constant, channel)?;
        Some(Affine { shift: vec![0.0; scale.len()], scale })
    }
}

//! Mul.

use privet_plan::WireId;

use crate::{Affine, Args, Channel, Fact, Lowering, OpError, Operator, Tensor, broadcast};

/// `a · b` with broadcasting; lowers when one of them is a constant.
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
        let Some((x, constant)) = (0..2).find_map(|i| Some((1 - i, ctx.constant(i)?))) else {
            return Err(OpError::unsupported(
                "a product of two values that both depend on the model's input",
                "a product with a constant",
            ));
        };
        let wire = ctx.wire(x, "factor")?;
        let shape = ctx.shape();
        let wire = ctx.broadcast(wire, shape);
        Ok(vec![ctx.scale(wire, "factor", constant)?])
    }

    fn affine(&self, operand: usize, channel: Channel<'_>, inputs: Args<'_, Fact>) -> Option<Affine> {
        let constant = inputs.optional(1 - operand)?.value.as_deref()?.floats("factor").ok()?;
        let scale = broadcast::per_channel(constant, channel)?;
        Some(Affine { shift: vec![0.0; scale.len()], scale })
    }
}

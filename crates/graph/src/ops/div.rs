//! Div.

use privet_plan::WireId;

use crate::{Affine, Args, Channel, DType, Fact, Lowering, OpError, Operator, Tensor, broadcast};

/// `a / b` with broadcasting; integers divide towards zero; lowers when b is a constant.
#[derive(Debug, Clone, Copy)]
pub struct Div;

impl Operator for Div {
    fn name(&self) -> &'static str {
        "Div"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        super::sum::elementwise_facts(inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![broadcast::zip(inputs.get(0, "A")?, inputs.get(1, "B")?, |a, b| a / b, i64::checked_div)?])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        if ctx.operands().get(0, "dividend")?.dtype != DType::F32 {
            return Err(OpError::unsupported(
                "a division of integers that depend on the model's input",
                "divisions of floats; Cast to float first",
            ));
        }
        let divisor = ctx.weight(1, "divisor")?;
        let wire = ctx.wire(0, "dividend")?;
        let shape = ctx.shape();
        let wire = ctx.broadcast(wire, shape)?;
        Ok(vec![ctx.scale(wire, "reciprocal", &divisor.mapv(f32::recip))?])
    }

    fn affine(&self, operand: usize, channel: Channel<'_>, inputs: Args<'_, Fact>) -> Option<Affine> {
        if operand != 0 {
            return None;
        }
        let constant = inputs.optional(1)?.value.as_deref()?.floats("divisor").ok()?;
        let scale: Vec<f64> = broadcast::per_channel(constant, channel)?.iter().map(|c| c.recip()).collect();
        Some(Affine { shift: vec![0.0; scale.len()], scale })
    }
}

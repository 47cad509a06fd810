//! Mul.

use privet_plan::{Op, WireId};

use crate::{Affine, Args, Channel, DType, Fact, Lowering, OpError, Operator, Tensor, broadcast};

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
        if ctx.operands().get(0, "A")?.dtype != DType::F32 {
            return Ok(vec![whole_product(ctx)?]);
        }
        let Some((x, constant)) = (0..2).find_map(|i| Some((1 - i, ctx.constant(i)?))) else {
            return Ok(vec![secret_product(ctx)?]);
        };
        let wire = ctx.wire(x, "factor")?;
        let wire = ctx.broadcast(wire, shape)?;
        Ok(vec![ctx.scale(wire, "factor", constant)?])
    }

    fn affine(&self, operand: usize, channel: Channel<'_>, inputs: Args<'_, Fact>) -> Option<Affine> {
        let constant = inputs.optional(1 - operand)?.value.as_deref()?.floats("factor").ok()?;
        let scale = broadcast::per_channel(constant, channel)?;
        Some(Affine { shift: vec![0.0; scale.len()], scale })
    }
}

/// A product of integers, which has no fractional bits either.
fn whole_product(ctx: &mut Lowering<'_>) -> Result<WireId, OpError> {
    let shape = ctx.shape();
    for i in 0..2 {
        if let Some(constant) = ctx.numbers(i)? {
            let x = ctx.wire(1 - i, "factor")?;
            let x = ctx.broadcast(x, shape)?;
            let factor = ctx.param("factor", &constant, 0)?;
            return Ok(ctx.layout(Op::Scale { factor }, x, shape.to_vec()));
        }
    }
    secret_product(ctx)
}

/// A product of two values that depend on the inputs.
fn secret_product(ctx: &mut Lowering<'_>) -> Result<WireId, OpError> {
    let shape = ctx.shape();
    let (a, b) = (ctx.wire(0, "A")?, ctx.wire(1, "B")?);
    let (a, b) = (ctx.broadcast(a, shape)?, ctx.broadcast(b, shape)?);
    Ok(ctx.multiply(a, b))
}

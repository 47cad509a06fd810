//! Relu.

use privet_plan::{Op, WireId};

use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// `max(x, 0)`.
#[derive(Debug, Clone, Copy)]
pub struct Relu;

impl Operator for Relu {
    fn name(&self) -> &'static str {
        "Relu"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "input")?;
        x.expect_float("input")?;
        Ok(vec![Fact::float(x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?.floats("input")?;
        Ok(vec![x.mapv(|v| if v > 0.0 { v } else { 0.0 }).into()])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        Ok(vec![relu(ctx, x)])
    }
}

/// ReLU of a wire, fused with the truncation if the wire is pending.
pub(super) fn relu(ctx: &mut Lowering<'_>, x: WireId) -> WireId {
    let (shape, base) = (ctx.shape_of(x).to_vec(), ctx.base());
    // The width is settled for the whole plan at the end.
    let op = Op::Relu { shift: ctx.frac_bits(x) - base, width: ctx.ring_bits() as u8 - 1 };
    ctx.emit(op, &[x], shape, base)
}

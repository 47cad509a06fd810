//! Relu.

use privet_plan::{Op, WireId};

use super::sum::elementwise_facts;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// `max(x, 0)`.
#[derive(Debug, Clone, Copy)]
pub struct Relu;

impl Operator for Relu {
    fn name(&self) -> &'static str {
        "Relu"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        elementwise_facts(inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![match inputs.get(0, "input")? {
            Tensor::I64(x) => x.mapv(|v| v.max(0)).into(),
            other => other.floats("input")?.mapv(|v| if v > 0.0 { v } else { 0.0 }).into(),
        }])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        Ok(vec![relu(ctx, x)])
    }
}

/// ReLU of a wire, fused with the truncation if the wire is pending.
pub(super) fn relu(ctx: &mut Lowering<'_>, x: WireId) -> WireId {
    let shift = ctx.frac_bits(x).saturating_sub(ctx.base());
    relu_shifted(ctx, x, shift)
}

/// `floor(max(x, 0) / 2^shift)`.
pub(super) fn relu_shifted(ctx: &mut Lowering<'_>, x: WireId, shift: u8) -> WireId {
    let (shape, frac_bits) = (ctx.shape_of(x).to_vec(), ctx.frac_bits(x) - shift);
    // The width is settled for the whole plan at the end.
    ctx.emit(Op::Relu { shift, width: ctx.ring_bits() as u8 - 1 }, &[x], shape, frac_bits)
}

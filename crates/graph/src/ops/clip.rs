//! Clip, Relu6 among them.

use privet_plan::WireId;
use privet_ring::fixed;

use super::relu::relu;
use crate::{Args, DType, Fact, Lowering, OpError, Operator, Tensor};

/// `min(max(x, low), high)`; operands are x, low and high, the bounds optional scalars.
#[derive(Debug, Clone, Copy)]
pub struct Clip;

impl Operator for Clip {
    fn name(&self) -> &'static str {
        "Clip"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "input")?;
        if x.dtype == DType::Bool {
            return Err(OpError::mismatch("input", "numbers", format!("{:?}", x.dtype)));
        }
        for (i, what) in [(1, "min"), (2, "max")] {
            if let Some(bound) = inputs.optional(i) {
                if bound.dtype != x.dtype {
                    return Err(OpError::mismatch(
                        what,
                        format!("{:?}", x.dtype),
                        format!("{:?}", bound.dtype),
                    ));
                }
                if bound.shape.iter().product::<usize>() != 1 {
                    return Err(OpError::mismatch(what, "a scalar", format!("shape {:?}", bound.shape)));
                }
            }
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = match inputs.get(0, "input")? {
            Tensor::I64(x) => {
                let bound =
                    |i: usize, what, default| match inputs.optional(i).map(|t| t.ints(what)).transpose()? {
                        Some(bound) => Ok(bound.first().copied().unwrap_or(default)),
                        None => Ok(default),
                    };
                let (low, high) = (bound(1, "min", i64::MIN)?, bound(2, "max", i64::MAX)?);
                return Ok(vec![x.mapv(|v| v.max(low).min(high)).into()]);
            }
            other => other.floats("input")?,
        };
        let low = inputs.optional(1).map_or(Ok(f32::NEG_INFINITY), |t| t.scalar("min"))?;
        let high = inputs.optional(2).map_or(Ok(f32::INFINITY), |t| t.scalar("max"))?;
        // Where low > high everything becomes high, as numpy and ONNX Runtime do.
        Ok(vec![
            x.mapv(|v| if v > low { v } else { low }).mapv_into(|v| if v < high { v } else { high }).into(),
        ])
    }

    /// With bounds a, b that are multiples of 2^s, `floor(clip(x) / 2^s)` is exactly
    /// `a/2^s + relu_s(x - a) - relu_s(x - b)` where `relu_s(x) = floor(max(x, 0) / 2^s)`.
    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        let low = self.bound(ctx, 1, "min", x)?;
        let high = self.bound(ctx, 2, "max", x)?;
        let low = match (low, high) {
            (Some(low), Some(high)) => Some(low.min(high)),
            (low, _) => low,
        };
        let base = self.base(ctx, x);
        let shift = ctx.frac_bits(x) - base;
        let moved = |ctx: &mut Lowering<'_>, bound: i64| -> Result<WireId, OpError> {
            if bound == 0 { Ok(x) } else { ctx.combine(&[(x, 1)], -(bound << shift)) }
        };
        let y = match (low, high) {
            (None, None) => x,
            (Some(low), None) => {
                let over = moved(ctx, low)?;
                let over = relu(ctx, over);
                if low == 0 { over } else { ctx.combine(&[(over, 1)], low)? }
            }
            (None, Some(high)) => {
                let over = moved(ctx, high)?;
                let over = relu(ctx, over);
                let x = if base == 0 { x } else { ctx.at_base(x) };
                ctx.combine(&[(x, 1), (over, -1)], 0)?
            }
            (Some(low), Some(high)) => {
                let over = [moved(ctx, low)?, moved(ctx, high)?];
                let over = ctx.joined(&over, relu)?;
                ctx.combine(&[(over[0], 1), (over[1], -1)], low)?
            }
        };
        Ok(vec![y])
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        inputs.optional(1).is_none() && inputs.optional(2).is_none()
    }
}

impl Clip {
    /// Fractional bits of the result: none for integers.
    fn base(&self, ctx: &Lowering<'_>, x: WireId) -> u8 {
        ctx.base().min(ctx.frac_bits(x))
    }

    /// A bound with f fractional bits; `None` when it is absent or so far out that no value of the ring reaches it.
    fn bound(
        &self,
        ctx: &Lowering<'_>,
        i: usize,
        what: &'static str,
        x: WireId,
    ) -> Result<Option<i64>, OpError> {
        let Some(fact) = ctx.operands().optional(i) else { return Ok(None) };
        fact.known(what)?;
        let value = ctx.numbers(i)?.and_then(|v| v.first().copied()).unwrap_or(f64::NAN);
        if value.is_nan() {
            return Err(OpError::mismatch(what, "a number", value));
        }
        // Values lie within 2^(l-2) at the operand's scale, and a bound within that range keeps x - bound in the ring.
        let base = self.base(ctx, x);
        let room = ctx.ring_bits() - 1 - u32::from(ctx.frac_bits(x) - base);
        match fixed::encode(value, room, u32::from(base)) {
            Ok(bound) => Ok(Some(bound)),
            Err(_) if (value < 0.0) == (i == 1) => Ok(None),
            Err(_) => Err(OpError::unsupported(
                format!("{what} = {value} in a {}-bit ring", ctx.ring_bits()),
                "bounds within the ring's range, or bounds that no value reaches",
            )),
        }
    }
}

//! ThresholdedRelu.

use privet_plan::WireId;

use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// `x` where x > alpha, else 0.
#[derive(Debug, Clone, Copy)]
pub struct ThresholdedRelu {
    /// Public, as everything in the plan.
    pub alpha: f32,
}

impl Operator for ThresholdedRelu {
    fn name(&self) -> &'static str {
        "ThresholdedRelu"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        inputs.mapped_floats()
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?.floats("input")?;
        Ok(vec![x.mapv(|v| if v > self.alpha { v } else { 0.0 }).into()])
    }

    /// Integers above `alpha·2^s` are those of at least `floor(alpha·2^s) + 1`.
    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        let threshold = (f64::from(self.alpha) * f64::from(ctx.frac_bits(x)).exp2()).floor() + 1.0;
        if threshold.is_nan() || threshold.abs() >= (f64::from(ctx.ring_bits()) - 3.0).exp2() {
            return Err(OpError::unsupported(
                format!("alpha = {} in a {}-bit ring", self.alpha, ctx.ring_bits()),
                "an alpha within the ring's range",
            ));
        }
        let above = ctx.combine(&[(x, 1)], -(threshold as i64))?;
        Ok(vec![ctx.select(above, x)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn alpha_itself_is_cut() {
        let x: Tensor = array(&[3], vec![1.0f32, 1.5, 2.0]).into();
        let y = ThresholdedRelu { alpha: 1.5 }.eval(Args(&[Some(&x)])).unwrap();
        assert_eq!(y[0], array(&[3], vec![0.0f32, 0.0, 2.0]).into());
    }
}

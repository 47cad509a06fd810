//! HardSigmoid and HardSwish.

use privet_plan::WireId;

use super::relu::relu;
use crate::lower::public_factor;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// `max(0, min(1, alpha·x + beta))`.
#[derive(Debug, Clone, Copy)]
pub struct HardSigmoid {
    /// Public, as everything in the plan.
    pub alpha: f32,
    /// Public, as everything in the plan.
    pub beta: f32,
}

/// `x · max(0, min(1, x/6 + 1/2))`.
#[derive(Debug, Clone, Copy)]
pub struct HardSwish;

impl Operator for HardSigmoid {
    fn name(&self) -> &'static str {
        "HardSigmoid"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        inputs.mapped_floats()
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?.floats("input")?;
        Ok(vec![x.mapv(|v| (self.alpha * v + self.beta).clamp(0.0, 1.0)).into()])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        Ok(vec![hard_sigmoid(ctx, x, f64::from(self.alpha), f64::from(self.beta))?])
    }
}

impl Operator for HardSwish {
    fn name(&self) -> &'static str {
        "HardSwish"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        inputs.mapped_floats()
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?.floats("input")?;
        Ok(vec![x.mapv(|v| v * (v / 6.0 + 0.5).clamp(0.0, 1.0)).into()])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        let gate = hard_sigmoid(ctx, x, 1.0 / 6.0, 0.5)?;
        Ok(vec![ctx.multiply(x, gate)])
    }
}

/// `relu(z) - relu(z - 1)` with z = alpha·x + beta, both truncating what alpha's fractional bits added.
fn hard_sigmoid(ctx: &mut Lowering<'_>, x: WireId, alpha: f64, beta: f64) -> Result<WireId, OpError> {
    let x = ctx.at_base(x);
    let (factor, bits) = public_factor("alpha", alpha, ctx.base())?;
    let frac_bits = ctx.base() + bits;
    let (beta, more) = public_factor("beta", beta, frac_bits)?;
    let beta = beta << (frac_bits - more);
    let terms = [(x, factor)];
    let low = ctx.integers(&terms, beta, frac_bits);
    let high = ctx.integers(&terms, beta - (1 << frac_bits), frac_bits);
    let above = ctx.joined(&[low, high], relu)?;
    ctx.combine(&[(above[0], 1), (above[1], -1)], 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn both_saturate() {
        let x: Tensor = array(&[4], vec![-8.0f32, -1.0, 1.0, 8.0]).into();
        let y = HardSigmoid { alpha: 0.25, beta: 0.5 }.eval(Args(&[Some(&x)])).unwrap();
        assert_eq!(y[0], array(&[4], vec![0.0f32, 0.25, 0.75, 1.0]).into());
        let y = HardSwish.eval(Args(&[Some(&x)])).unwrap();
        let found = y[0].floats("y").unwrap();
        assert!(
            found
                .iter()
                .zip([0.0, -1.0 / 3.0, 2.0 / 3.0, 8.0])
                .all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6)
        );
    }
}

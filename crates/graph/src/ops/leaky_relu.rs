//! LeakyRelu.

use privet_plan::WireId;

use super::relu::relu;
use crate::lower::public_factor;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// `x` where x >= 0, else `alpha · x`.
#[derive(Debug, Clone, Copy)]
pub struct LeakyRelu {
    /// Public, as everything in the plan.
    pub alpha: f32,
}

impl Operator for LeakyRelu {
    fn name(&self) -> &'static str {
        "LeakyRelu"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        inputs.mapped_floats()
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?.floats("input")?;
        Ok(vec![x.mapv(|v| if v < 0.0 { self.alpha * v } else { v }).into()])
    }

    /// `alpha·x + (1 - alpha)·relu(x)`, with the fractional bits that alpha needs on top.
    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        let (alpha, bits) = public_factor("alpha", f64::from(self.alpha), ctx.base())?;
        let positive = relu(ctx, x);
        let x = ctx.at_base(x);
        let terms = [(x, alpha), (positive, (1 << bits) - alpha)];
        Ok(vec![ctx.integers(&terms, 0, ctx.base() + bits)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn only_negative_values_leak() {
        let x: Tensor = array(&[3], vec![-2.0f32, 0.0, 3.0]).into();
        let y = LeakyRelu { alpha: 0.5 }.eval(Args(&[Some(&x)])).unwrap();
        assert_eq!(y[0], array(&[3], vec![-1.0f32, 0.0, 3.0]).into());
    }
}

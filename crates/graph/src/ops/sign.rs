//! Sign.

use privet_plan::WireId;

use super::sum::elementwise_facts;
use crate::{Args, DType, Fact, Lowering, OpError, Operator, Tensor};

/// -1, 0 or 1.
#[derive(Debug, Clone, Copy)]
pub struct Sign;

impl Operator for Sign {
    fn name(&self) -> &'static str {
        "Sign"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        elementwise_facts(inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let sign = |v: f32| f32::from(i8::from(v > 0.0) - i8::from(v < 0.0));
        Ok(vec![match inputs.get(0, "input")? {
            Tensor::I64(x) => x.mapv(i64::signum).into(),
            other => other.floats("input")?.mapv(sign).into(),
        }])
    }

    /// `[x >= 0] - [-x >= 0]`.
    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        let frac_bits = if ctx.operands().get(0, "input")?.dtype == DType::F32 { ctx.base() } else { 0 };
        let [positive, negative] = ctx.signs(x)?;
        let one = 1 << frac_bits;
        Ok(vec![ctx.integers(&[(positive, one), (negative, -one)], 0, frac_bits)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn zero_of_either_sign_is_zero() {
        let x: Tensor = array(&[4], vec![-1.5f32, -0.0, 0.0, 7.0]).into();
        let y = Sign.eval(Args(&[Some(&x)])).unwrap();
        assert_eq!(y[0], array(&[4], vec![-1.0f32, 0.0, 0.0, 1.0]).into());
    }
}

//! Abs.

use privet_plan::WireId;

use super::relu::relu_shifted;
use super::sum::elementwise_facts;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// `|x|`.
#[derive(Debug, Clone, Copy)]
pub struct Abs;

impl Operator for Abs {
    fn name(&self) -> &'static str {
        "Abs"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        elementwise_facts(inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![match inputs.get(0, "input")? {
            Tensor::I64(x) => x.mapv(i64::wrapping_abs).into(),
            other => other.floats("input")?.mapv(f32::abs).into(),
        }])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        Ok(vec![absolute(ctx, x)?])
    }
}

/// `2·relu(x) - x`, exact at any scale, which stays.
pub(super) fn absolute(ctx: &mut Lowering<'_>, x: WireId) -> Result<WireId, OpError> {
    let positive = relu_shifted(ctx, x, 0);
    ctx.combine(&[(positive, 2), (x, -1)], 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn floats_and_integers() {
        let x: Tensor = array(&[2], vec![-1.5f32, 0.5]).into();
        assert_eq!(Abs.eval(Args(&[Some(&x)])).unwrap()[0], array(&[2], vec![1.5f32, 0.5]).into());
        let x = Tensor::from_ints(vec![-3, 4]);
        assert_eq!(Abs.eval(Args(&[Some(&x)])).unwrap()[0], Tensor::from_ints(vec![3, 4]));
    }
}

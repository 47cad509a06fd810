//! PRelu.

use privet_plan::WireId;

use super::relu::relu;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor, broadcast};

/// `x` where x >= 0, else `slope · x`; the slope broadcasts to the shape of x.
#[derive(Debug, Clone, Copy)]
pub struct PRelu;

impl Operator for PRelu {
    fn name(&self) -> &'static str {
        "PRelu"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let (x, slope) = (inputs.float(0, "input")?, inputs.float(1, "slope")?);
        if broadcast::shape(&x.shape, &slope.shape)? != x.shape {
            return Err(OpError::mismatch(
                "slope",
                format!("a shape that broadcasts to {:?}", x.shape),
                format!("{:?}", slope.shape),
            ));
        }
        Ok(vec![Fact::float(x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let leak = |x: f32, slope: f32| if x < 0.0 { slope * x } else { x };
        let never = |_, _| None;
        Ok(vec![broadcast::zip(inputs.get(0, "input")?, inputs.get(1, "slope")?, leak, never)?])
    }

    /// `relu(x) - slope·relu(-x)`, where `relu(-x) = relu(x) - x` takes no comparison.
    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        let shape = ctx.shape();
        let positive = relu(ctx, x);
        let x = ctx.at_base(x);
        let below = ctx.combine(&[(positive, 1), (x, -1)], 0)?;
        let leak = match ctx.constant(1) {
            Some(slope) => ctx.scale(below, "slope", slope)?,
            None => {
                let slope = ctx.wire(1, "slope")?;
                let slope = ctx.broadcast(slope, shape)?;
                ctx.multiply(below, slope)
            }
        };
        Ok(vec![ctx.combine(&[(positive, 1), (leak, -1)], 0)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn slopes_broadcast_one_way() {
        let x: Tensor = array(&[2, 2], vec![-2.0f32, 1.0, -2.0, -4.0]).into();
        let slope: Tensor = array(&[2, 1], vec![0.5f32, -1.0]).into();
        let y = PRelu.eval(Args(&[Some(&x), Some(&slope)])).unwrap();
        assert_eq!(y[0], array(&[2, 2], vec![-1.0f32, 1.0, 2.0, 4.0]).into());
        let (small, large) = (Fact::float(vec![2]), Fact::float(vec![3, 2]));
        assert!(PRelu.facts(Args(&[Some(&small), Some(&large)])).is_err());
    }
}

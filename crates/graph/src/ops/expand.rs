//! Expand.

use ndarray::{ArrayD, IxDyn};
use privet_plan::WireId;

use super::constant_of_shape::dimensions;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor, broadcast};

/// Broadcasts operand 0 against the shape that operand 1 holds.
#[derive(Debug, Clone, Copy)]
pub struct Expand;

impl Operator for Expand {
    fn name(&self) -> &'static str {
        "Expand"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "input")?;
        let wanted = dimensions("shape", inputs.get(1, "shape")?.known("shape")?)?;
        Ok(vec![Fact::new(x.dtype, broadcast::shape(&x.shape, &wanted)?)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?;
        let shape = broadcast::shape(x.shape(), &dimensions("shape", inputs.get(1, "shape")?)?)?;
        Ok(vec![match x {
            Tensor::F32(a) => expand(a, &shape)?.into(),
            Tensor::I64(a) => expand(a, &shape)?.into(),
            Tensor::Bool(a) => expand(a, &shape)?.into(),
        }])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        let shape = ctx.shape();
        Ok(vec![ctx.broadcast(x, shape)?])
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        self.facts(inputs).is_ok_and(|facts| inputs.optional(0).is_some_and(|x| x.shape == facts[0].shape))
    }
}

fn expand<T: Clone>(a: &ArrayD<T>, shape: &[usize]) -> Result<ArrayD<T>, OpError> {
    let view = a.broadcast(IxDyn(shape));
    let view = view.ok_or_else(|| OpError::mismatch("shape", "one to broadcast to", format!("{shape:?}")))?;
    Ok(view.as_standard_layout().into_owned())
}

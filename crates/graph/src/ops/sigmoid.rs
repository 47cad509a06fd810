//! Sigmoid: by a table inside a model, by the receiver as a final operator.

use privet_plan::{Post, WireId};

use crate::lower::Far;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// `1 / (1 + exp(-x))`, with an error of at most 1e-4 inside a model, see `Lowering::bounded`.
#[derive(Debug, Clone, Copy)]
pub struct Sigmoid;

impl Operator for Sigmoid {
    fn name(&self) -> &'static str {
        "Sigmoid"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        inputs.mapped_floats()
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?.floats("input")?;
        Ok(vec![x.mapv(|v| 1.0 / (1.0 + (-v).exp())).into()])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        Ok(vec![ctx.bounded(x, 4, |x| 1.0 / (1.0 + (-x).exp()), Far::Constant)?])
    }

    fn post(&self, _input: &Fact) -> Option<Result<Post, OpError>> {
        Some(Ok(Post::Sigmoid))
    }
}

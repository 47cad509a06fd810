//! Identity: also what Dropout is at inference.

use privet_plan::WireId;

use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// `y = x`. Folding removes it.
#[derive(Debug, Clone, Copy)]
pub struct Identity;

impl Operator for Identity {
    fn name(&self) -> &'static str {
        "Identity"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        Ok(vec![inputs.get(0, "input")?.clone()])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![inputs.get(0, "input")?.clone()])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        Ok(vec![ctx.wire(0, "input")?])
    }

    fn is_identity(&self, _inputs: Args<'_, Fact>) -> bool {
        true
    }
}

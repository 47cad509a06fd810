//! Neg.

use privet_plan::WireId;

use super::sum::{elementwise_facts, sum_of};
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// `-x`.
#[derive(Debug, Clone, Copy)]
pub struct Neg;

impl Operator for Neg {
    fn name(&self) -> &'static str {
        "Neg"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        elementwise_facts(inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        match inputs.get(0, "input")? {
            Tensor::I64(x) => Ok(vec![x.mapv(i64::wrapping_neg).into()]),
            other => Ok(vec![other.floats("input")?.mapv(|v| -v).into()]),
        }
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        Ok(vec![sum_of(ctx, &[-1])?])
    }
}

//! Size.

use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};
use privet_plan::WireId;

use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// The number of elements: always known.
#[derive(Debug, Clone, Copy)]
pub struct Size;

impl Operator for Size {
    fn name(&self) -> &'static str {
        "Size"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::constant(Arc::new(size(&inputs.get(0, "data")?.shape)))])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![size(inputs.get(0, "data")?.shape())])
    }

    fn lower(&self, _ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        Err(OpError::unsupported("a size that was not folded", "known shapes"))
    }
}

fn size(shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>() as i64;
    ArrayD::from_elem(IxDyn(&[]), count).into()
}

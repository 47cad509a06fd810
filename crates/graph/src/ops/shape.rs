//! Shape.

use std::sync::Arc;

use privet_plan::WireId;

use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// The dimensions of a value from `start` to `end`: always known.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// First axis; negative ones count from the end; clamped.
    pub start: i64,
    /// Axis after the last; clamped.
    pub end: Option<i64>,
}

impl Operator for Shape {
    fn name(&self) -> &'static str {
        "Shape"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::constant(Arc::new(self.dims(&inputs.get(0, "data")?.shape)))])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![self.dims(inputs.get(0, "data")?.shape())])
    }

    fn lower(&self, _ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        Err(OpError::unsupported("a shape that was not folded", "known shapes"))
    }
}

impl Shape {
    fn dims(&self, shape: &[usize]) -> Tensor {
        let rank = shape.len() as i64;
        let clamp = |a: i64| (if a < 0 { a.saturating_add(rank) } else { a }).clamp(0, rank) as usize;
        let (start, end) = (clamp(self.start), self.end.map_or(shape.len(), clamp));
        let dims = shape.get(start..end).unwrap_or_default();
        Tensor::from_ints(dims.iter().map(|&d| d as i64).collect())
    }
}

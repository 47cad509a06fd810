//! Gather with known indices.

use ndarray::{ArrayD, Axis, IxDyn};
use privet_plan::WireId;

use super::slice::{Taken, slice};
use crate::tensor::axis;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor, element_count};

/// Takes the entries of an axis that operand 1 names; negative indices count from the end.
#[derive(Debug, Clone, Copy)]
pub struct Gather {
    /// The axis; negative ones count from the end.
    pub axis: i64,
}

impl Operator for Gather {
    fn name(&self) -> &'static str {
        "Gather"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let (x, indices) = (inputs.get(0, "data")?, inputs.get(1, "indices")?);
        let at = axis("axis", self.axis, x.shape.len())?;
        positions(indices.known("indices")?, x.shape[at])?;
        let shape = [&x.shape[..at], &indices.shape, &x.shape[at + 1..]].concat();
        element_count("gathered result", &shape)?;
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let (x, indices) = (inputs.get(0, "data")?, inputs.get(1, "indices")?);
        let at = axis("axis", self.axis, x.shape().len())?;
        let positions = positions(indices, x.shape()[at])?;
        let shape = [&x.shape()[..at], indices.shape(), &x.shape()[at + 1..]].concat();
        Ok(vec![match x {
            Tensor::F32(a) => select(a, at, &positions, &shape)?.into(),
            Tensor::I64(a) => select(a, at, &positions, &shape)?.into(),
            Tensor::Bool(a) => select(a, at, &positions, &shape)?.into(),
        }])
    }

    /// Runs of equal steps become slices.
    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "data")?;
        let from = ctx.shape_of(x).to_vec();
        let at = axis("axis", self.axis, from.len())?;
        let positions = positions(ctx.operands().get(1, "indices")?.known("indices")?, from[at])?;
        let mut parts = Vec::new();
        for run in runs(&positions) {
            let mut taken: Vec<Taken> = from.iter().map(|&d| Taken { start: 0, step: 1, count: d }).collect();
            taken[at] = run;
            parts.push(slice(ctx, x, &taken)?);
        }
        let joined = ctx.concat(&parts, at)?;
        let shape = ctx.shape();
        Ok(vec![ctx.reshape(joined, shape)])
    }
}

fn positions(indices: &Tensor, size: usize) -> Result<Vec<usize>, OpError> {
    indices.ints("indices")?.into_iter().map(|i| axis("indices", i, size)).collect()
}

/// Splits positions into runs of constant non-zero step.
fn runs(positions: &[usize]) -> Vec<Taken> {
    let mut runs: Vec<Taken> = Vec::new();
    for &p in positions {
        if let Some(run) = runs.last_mut() {
            let last = run.start as i64 + run.step * (run.count as i64 - 1);
            let step = p as i64 - last;
            if step != 0 && (run.count == 1 || step == run.step) {
                (run.step, run.count) = (step, run.count + 1);
                continue;
            }
        }
        runs.push(Taken { start: p, step: 1, count: 1 });
    }
    runs
}

fn select<T: Clone>(
    a: &ArrayD<T>,
    at: usize,
    positions: &[usize],
    shape: &[usize],
) -> Result<ArrayD<T>, OpError> {
    let taken = a.select(Axis(at), positions).as_standard_layout().into_owned();
    taken
        .into_shape_with_order(IxDyn(shape))
        .map_err(|e| OpError::mismatch("indices", "indices that fit the data", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_equal_steps_join() {
        let run = |start, step, count| Taken { start, step, count };
        assert_eq!(runs(&[1, 3, 5, 4]), [run(1, 2, 3), run(4, 1, 1)]);
        assert_eq!(runs(&[2, 2]), [run(2, 1, 1), run(2, 1, 1)]);
        assert_eq!(runs(&[2, 1, 0]), [run(2, -1, 3)]);
    }

    #[test]
    fn indices_outside_are_refused() {
        assert!(positions(&Tensor::from_ints(vec![3]), 3).is_err());
        assert_eq!(positions(&Tensor::from_ints(vec![-1]), 3), Ok(vec![2]));
    }
}

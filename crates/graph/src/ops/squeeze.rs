//! Squeeze and Unsqueeze.

use privet_plan::WireId;

use super::reshape::{self, reshaped};
use crate::tensor::axis;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// Removes axes of length 1: those that operand 1 names, else all.
#[derive(Debug, Clone, Copy)]
pub struct Squeeze;

/// Inserts axes of length 1 at the places in the result that operand 1 names.
#[derive(Debug, Clone, Copy)]
pub struct Unsqueeze;

impl Operator for Squeeze {
    fn name(&self) -> &'static str {
        "Squeeze"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "data")?;
        let axes = inputs.optional(1).map(|f| f.known("axes")?.ints("axes")).transpose()?;
        Ok(vec![Fact::new(x.dtype, squeezed(&x.shape, axes.as_deref())?)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "data")?;
        let axes = inputs.optional(1).map(|t| t.ints("axes")).transpose()?;
        Ok(vec![reshaped(x, &squeezed(x.shape(), axes.as_deref())?)])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        reshape::lower(ctx)
    }
}

impl Operator for Unsqueeze {
    fn name(&self) -> &'static str {
        "Unsqueeze"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "data")?;
        let axes = inputs.get(1, "axes")?.known("axes")?.ints("axes")?;
        Ok(vec![Fact::new(x.dtype, unsqueezed(&x.shape, &axes)?)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "data")?;
        let axes = inputs.get(1, "axes")?.ints("axes")?;
        Ok(vec![reshaped(x, &unsqueezed(x.shape(), &axes)?)])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        reshape::lower(ctx)
    }
}

fn squeezed(from: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>, OpError> {
    let remove = match axes {
        None => from.iter().map(|&d| d == 1).collect(),
        Some(axes) => chosen(axes, from.len())?,
    };
    if let Some(at) = (0..from.len()).find(|&a| remove[a] && from[a] != 1) {
        return Err(OpError::mismatch("axes", "axes of length 1", format!("axis {at} of {from:?}")));
    }
    Ok((0..from.len()).filter(|&a| !remove[a]).map(|a| from[a]).collect())
}

fn unsqueezed(from: &[usize], axes: &[i64]) -> Result<Vec<usize>, OpError> {
    let insert = chosen(axes, from.len() + axes.len())?;
    let mut rest = from.iter().copied();
    Ok(insert.into_iter().map(|new| if new { 1 } else { rest.next().unwrap_or(1) }).collect())
}

/// Which of `rank` axes are named; naming one twice is an error.
fn chosen(axes: &[i64], rank: usize) -> Result<Vec<bool>, OpError> {
    if rank > crate::MAX_RANK {
        return Err(OpError::mismatch("axes", "at most 12 axes in all", rank));
    }
    let mut chosen = vec![false; rank];
    for &a in axes {
        let at = axis("axes", a, rank)?;
        if std::mem::replace(&mut chosen[at], true) {
            return Err(OpError::mismatch("axes", "distinct axes", format!("{axes:?}")));
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_removed_and_inserted() {
        assert_eq!(squeezed(&[1, 3, 1], None), Ok(vec![3]));
        assert_eq!(squeezed(&[1, 3, 1], Some(&[-1])), Ok(vec![1, 3]));
        assert!(squeezed(&[1, 3], Some(&[1])).is_err());
        assert_eq!(unsqueezed(&[3, 4], &[0, -1]), Ok(vec![1, 3, 4, 1]));
        assert!(unsqueezed(&[3], &[0, 0]).is_err());
    }
}

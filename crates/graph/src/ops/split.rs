//! Split.

use ndarray::{ArrayD, Axis, Slice as AxisSlice};
use privet_plan::WireId;

use super::slice::{Taken, slice};
use crate::tensor::axis;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// Cuts an axis into consecutive parts, one result each. Operand 1, if there, says how long they are; else they are
/// equally long.
#[derive(Debug, Clone, Copy)]
pub struct Split {
    /// The axis; negative ones count from the end.
    pub axis: i64,
    /// Number of results.
    pub parts: usize,
    /// Whether the last part may be shorter when the lengths are not given.
    pub uneven: bool,
}

impl Operator for Split {
    fn name(&self) -> &'static str {
        "Split"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "input")?;
        let lengths = inputs.optional(1).map(|f| f.known("split")?.ints("split")).transpose()?;
        let (at, lengths) = self.lengths(&x.shape, lengths)?;
        let part = |length: usize| {
            let mut shape = x.shape.clone();
            shape[at] = length;
            Fact::new(x.dtype, shape)
        };
        Ok(lengths.into_iter().map(part).collect())
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?;
        let lengths = inputs.optional(1).map(|t| t.ints("split")).transpose()?;
        let (at, lengths) = self.lengths(x.shape(), lengths)?;
        let mut start = 0;
        let mut results = Vec::with_capacity(lengths.len());
        for length in lengths {
            results.push(match x {
                Tensor::F32(a) => part(a, at, start, length).into(),
                Tensor::I64(a) => part(a, at, start, length).into(),
                Tensor::Bool(a) => part(a, at, start, length).into(),
            });
            start += length;
        }
        Ok(results)
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        let shape = ctx.shape_of(x).to_vec();
        let lengths = ctx.operands().optional(1).map(|f| f.known("split")?.ints("split")).transpose()?;
        let (at, lengths) = self.lengths(&shape, lengths)?;
        if lengths.len() == 1 {
            return Ok(vec![x]);
        }
        let mut taken: Vec<Taken> = shape.iter().map(|&d| Taken { start: 0, step: 1, count: d }).collect();
        let mut start = 0;
        let mut results = Vec::with_capacity(lengths.len());
        for length in lengths {
            taken[at] = Taken { start, step: 1, count: length };
            // An empty part is refused where something reads it; what stands for it here does not matter.
            results.push(if length == 0 { x } else { slice(ctx, x, &taken)? });
            start += length;
        }
        Ok(results)
    }
}

impl Split {
    /// The axis, and the length of every part.
    fn lengths(&self, shape: &[usize], given: Option<Vec<i64>>) -> Result<(usize, Vec<usize>), OpError> {
        let at = axis("axis", self.axis, shape.len())?;
        let (size, parts) = (shape[at], self.parts);
        let wrong = |found: String| {
            OpError::mismatch("split", format!("{parts} lengths that add up to {size}"), found)
        };
        let Some(given) = given else {
            if parts == 0 || (!self.uneven && !size.is_multiple_of(parts)) {
                return Err(wrong(format!("{parts} equal parts of {size}")));
            }
            let length = size.div_ceil(parts);
            // All but the last part are full.
            let last = size.checked_sub(length * (parts - 1));
            let last = last.ok_or_else(|| wrong(format!("parts of {length} of {size}")))?;
            return Ok((at, [vec![length; parts - 1], vec![last]].concat()));
        };
        let lengths: Option<Vec<usize>> = given.iter().map(|&l| usize::try_from(l).ok()).collect();
        let lengths = lengths.filter(|l| {
            l.len() == parts && l.iter().try_fold(0usize, |sum, &l| sum.checked_add(l)) == Some(size)
        });
        Ok((at, lengths.ok_or_else(|| wrong(format!("{given:?}")))?))
    }
}

fn part<T: Clone>(a: &ArrayD<T>, at: usize, start: usize, length: usize) -> ArrayD<T> {
    let part = a.slice_axis(Axis(at), AxisSlice::from(start..start + length));
    part.as_standard_layout().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_may_be_shorter_only_where_the_operator_says_so() {
        let split = |parts, uneven| Split { axis: -1, parts, uneven };
        assert_eq!(split(3, true).lengths(&[2, 7], None), Ok((1, vec![3, 3, 1])));
        assert_eq!(split(3, true).lengths(&[2, 6], None), Ok((1, vec![2, 2, 2])));
        assert!(split(3, false).lengths(&[2, 7], None).is_err());
        // Two parts of 2 would be followed by one of -1.
        assert!(split(4, true).lengths(&[5], None).is_err());
        assert!(split(0, true).lengths(&[5], None).is_err());
    }

    #[test]
    fn given_lengths_add_up() {
        let split = Split { axis: 0, parts: 2, uneven: false };
        assert_eq!(split.lengths(&[5], Some(vec![5, 0])), Ok((0, vec![5, 0])));
        for wrong in [vec![2, 2], vec![5], vec![6, -1], vec![i64::MAX, i64::MAX]] {
            assert!(split.lengths(&[5], Some(wrong)).is_err());
        }
    }
}

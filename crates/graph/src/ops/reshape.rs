//! Reshape.

use privet_plan::WireId;

use crate::tensor::{array, contiguous};
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor, element_count};

/// The same elements under the shape that operand 1 holds: -1 is inferred, 0 copies unless `allow_zero`.
#[derive(Debug, Clone, Copy)]
pub struct Reshape {
    /// Whether 0 means an empty dimension.
    pub allow_zero: bool,
}

impl Operator for Reshape {
    fn name(&self) -> &'static str {
        "Reshape"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "data")?;
        let wanted = inputs.get(1, "shape")?.known("shape")?.ints("shape")?;
        Ok(vec![Fact::new(x.dtype, self.shape(&x.shape, &wanted)?)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "data")?;
        let shape = self.shape(x.shape(), &inputs.get(1, "shape")?.ints("shape")?)?;
        Ok(vec![reshaped(x, &shape)])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        lower(ctx)
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        self.facts(inputs).is_ok_and(|facts| inputs.optional(0).is_some_and(|x| x.shape == facts[0].shape))
    }
}

impl Reshape {
    fn shape(&self, from: &[usize], wanted: &[i64]) -> Result<Vec<usize>, OpError> {
        let wrong = || {
            OpError::mismatch(
                "shape",
                format!("one that holds the elements of {from:?}"),
                format!("{wanted:?}"),
            )
        };
        let mut shape = Vec::with_capacity(wanted.len());
        let mut inferred = None;
        for (i, &d) in wanted.iter().enumerate() {
            shape.push(match d {
                0 if !self.allow_zero => *from.get(i).ok_or_else(wrong)?,
                -1 if inferred.is_none() => {
                    inferred = Some(i);
                    1
                }
                d => usize::try_from(d).map_err(|_| wrong())?,
            });
        }
        let (have, given) = (element_count("data", from)?, element_count("shape", &shape)?);
        if let Some(at) = inferred {
            shape[at] = have.checked_div(given).ok_or_else(wrong)?;
        }
        if element_count("shape", &shape)? == have { Ok(shape) } else { Err(wrong()) }
    }
}

/// The same elements under another shape of as many.
pub(super) fn reshaped(x: &Tensor, shape: &[usize]) -> Tensor {
    match x {
        Tensor::F32(a) => array(shape, contiguous(a).into_owned()).into(),
        Tensor::I64(a) => array(shape, contiguous(a).into_owned()).into(),
        Tensor::Bool(a) => array(shape, contiguous(a).into_owned()).into(),
    }
}

/// Lowers an operator that only changes the shape of its first operand.
pub(super) fn lower(ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
    let x = ctx.wire(0, "data")?;
    let shape = ctx.shape();
    Ok(vec![ctx.reshape(x, shape)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_one_is_inferred_and_zero_copies() {
        let keep = Reshape { allow_zero: false };
        assert_eq!(keep.shape(&[2, 3, 4], &[0, -1]), Ok(vec![2, 12]));
        assert_eq!(Reshape { allow_zero: true }.shape(&[2, 0], &[0, 7]), Ok(vec![0, 7]));
        assert!(keep.shape(&[2, 3], &[-1, -1]).is_err());
        assert!(keep.shape(&[2, 3], &[4, -1]).is_err());
        assert!(keep.shape(&[2], &[2, 0]).is_err());
        assert!(keep.shape(&[2], &[i64::MAX, i64::MAX]).is_err());
    }
}

//! ReduceSum and ReduceMean.

use ndarray::{ArrayD, IxDyn};
use privet_plan::WireId;

use crate::tensor::{array, axis};
use crate::{Args, DType, Fact, Lowering, OpError, Operator, Tensor};

/// Sum or mean over the axes that operand 1 names, over all without it.
#[derive(Debug, Clone, Copy)]
pub struct Reduce {
    /// Whether sums are divided by the number of their terms.
    pub mean: bool,
    /// Whether reduced axes stay, with length 1.
    pub keep_dims: bool,
    /// Whether an empty or missing list of axes means none instead of all.
    pub empty_is_none: bool,
}

/// Which axes are reduced.
struct Axes {
    reduced: Vec<bool>,
    shape: Vec<usize>,
    terms: usize,
}

impl Operator for Reduce {
    fn name(&self) -> &'static str {
        if self.mean { "ReduceMean" } else { "ReduceSum" }
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "data")?;
        if x.dtype == DType::Bool || (self.mean && x.dtype != DType::F32) {
            let expected = if self.mean { "float32" } else { "float32 or int64" };
            return Err(OpError::mismatch("data", expected, format!("{:?}", x.dtype)));
        }
        let axes = inputs.optional(1).map(|f| f.known("axes")?.ints("axes")).transpose()?;
        Ok(vec![Fact::new(x.dtype, self.axes(&x.shape, axes)?.shape)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "data")?;
        let axes = inputs.optional(1).map(|t| t.ints("axes")).transpose()?;
        let axes = self.axes(x.shape(), axes)?;
        Ok(vec![match x {
            Tensor::F32(a) => {
                let terms = if self.mean { axes.terms as f64 } else { 1.0 };
                let sums = sums(a, &axes, 0.0f64, |sum, v| sum + f64::from(v));
                sums.mapv(|sum| (sum / terms) as f32).into()
            }
            Tensor::I64(a) => {
                let sums = sums(a, &axes, Some(0i64), |sum, v| sum?.checked_add(v));
                if sums.iter().any(Option::is_none) {
                    return Err(OpError::mismatch("sum", "a 64-bit result", "an overflow"));
                }
                sums.mapv(Option::unwrap_or_default).into()
            }
            Tensor::Bool(_) => return Err(OpError::mismatch("data", "numbers", "truth values")),
        }])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "data")?;
        let given = ctx.operands().optional(1).map(|f| f.known("axes")?.ints("axes")).transpose()?;
        let axes = self.axes(ctx.shape_of(x), given)?;
        let rank = axes.reduced.len();
        // All reduced axes become one, so that one public matrix sums and divides.
        let mut perm: Vec<usize> = (0..rank).filter(|&a| !axes.reduced[a]).collect();
        let kept = ctx.shape_of(x).iter().product::<usize>() / axes.terms;
        perm.extend((0..rank).filter(|&a| axes.reduced[a]));
        let x = if perm.is_sorted() { x } else { ctx.transpose(x, &perm) };
        let x = ctx.reshape(x, &[kept, axes.terms]);
        let y = if self.mean { ctx.sum_times_reciprocal(x, 1, axes.terms)? } else { ctx.sum_axis(x, 1)? };
        Ok(vec![ctx.reshape(y, &axes.shape)])
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        self.facts(inputs).is_ok_and(|facts| inputs.optional(0).is_some_and(|x| x.shape == facts[0].shape))
    }
}

impl Reduce {
    fn axes(&self, shape: &[usize], given: Option<Vec<i64>>) -> Result<Axes, OpError> {
        let given = given.unwrap_or_default();
        let mut reduced = vec![given.is_empty() && !self.empty_is_none; shape.len()];
        for &a in &given {
            if std::mem::replace(&mut reduced[axis("axes", a, shape.len())?], true) {
                return Err(OpError::mismatch("axes", "distinct axes", format!("{given:?}")));
            }
        }
        let all = || shape.iter().zip(&reduced);
        let terms: usize = all().filter(|(_, r)| **r).map(|(d, _)| *d).product();
        if self.mean && terms == 0 {
            return Err(OpError::mismatch("axes", "at least one element to average", format!("{shape:?}")));
        }
        let kept = all().filter(|(_, r)| self.keep_dims || !**r).map(|(&d, &r)| if r { 1 } else { d });
        Ok(Axes { shape: kept.collect(), terms, reduced })
    }
}

/// Folds the reduced axes.
fn sums<T: Copy, S: Copy>(a: &ArrayD<T>, axes: &Axes, zero: S, add: impl Fn(S, T) -> S) -> ArrayD<S> {
    let kept: Vec<usize> =
        a.shape().iter().zip(&axes.reduced).map(|(&d, &r)| if r { 1 } else { d }).collect();
    let mut sums = ArrayD::from_elem(IxDyn(&kept), zero);
    for (at, &value) in a.indexed_iter() {
        let at: Vec<usize> =
            axes.reduced.iter().enumerate().map(|(i, &r)| if r { 0 } else { at[i] }).collect();
        let sum = &mut sums[IxDyn(&at)];
        *sum = add(*sum, value);
    }
    array(&axes.shape, sums.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: Reduce = Reduce { mean: false, keep_dims: false, empty_is_none: false };

    #[test]
    fn missing_axes_mean_all_or_none() {
        let x: Tensor = array(&[2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).into();
        assert_eq!(SUM.eval(Args(&[Some(&x)])).unwrap()[0], Tensor::from_scalar(21.0));
        let none = Reduce { empty_is_none: true, ..SUM };
        assert_eq!(none.eval(Args(&[Some(&x)])).unwrap()[0], x);
        let empty = Tensor::from_ints(vec![]);
        assert_eq!(none.eval(Args(&[Some(&x), Some(&empty)])).unwrap()[0], x);
        let mean = Reduce { mean: true, keep_dims: true, ..SUM };
        let y = mean.eval(Args(&[Some(&x), Some(&Tensor::from_ints(vec![-1]))])).unwrap();
        assert_eq!(y[0], array(&[2, 1], vec![2.0f32, 5.0]).into());
    }

    #[test]
    fn axes_are_checked() {
        assert!(SUM.axes(&[2, 3], Some(vec![2])).is_err());
        assert!(SUM.axes(&[2, 3], Some(vec![1, -1])).is_err());
        assert!(Reduce { mean: true, ..SUM }.axes(&[2, 0], None).is_err());
        assert_eq!(SUM.axes(&[2, 0], Some(vec![1])).unwrap().shape, [2]);
    }
}

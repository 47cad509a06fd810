//! ReduceMax, ReduceMin, ReduceL1 and ReduceSumSquare.

use ndarray::{ArrayD, Axis};
use privet_plan::{Op, Window, WireId};

use super::abs::absolute;
use crate::tensor::axis;
use crate::{Args, DType, Fact, Lowering, OpError, Operator, Tensor};

/// What [`ReduceMax`] and its relatives compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// The largest element.
    Max,
    /// The smallest element.
    Min,
    /// The sum of magnitudes.
    L1,
    /// The sum of squares.
    SumSquare,
}

/// Reduces the axes that operand 1 lists; all of them when there is no operand 1.
#[derive(Debug, Clone, Copy)]
pub struct ReduceMax {
    /// What is computed.
    pub reduction: Reduction,
    /// Whether reduced axes stay, with length 1.
    pub keep_dims: bool,
    /// Whether an empty or missing list of axes reduces none.
    pub noop_with_empty_axes: bool,
}

impl Operator for ReduceMax {
    fn name(&self) -> &'static str {
        match self.reduction {
            Reduction::Max => "ReduceMax",
            Reduction::Min => "ReduceMin",
            Reduction::L1 => "ReduceL1",
            Reduction::SumSquare => "ReduceSumSquare",
        }
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "data")?;
        if x.dtype == DType::Bool && !matches!(self.reduction, Reduction::Max | Reduction::Min) {
            return Err(OpError::mismatch("data", "numbers", format!("{:?}", x.dtype)));
        }
        let axes = inputs.optional(1).map(|f| f.known("axes")?.ints("axes")).transpose()?;
        let reduced = self.reduced(x.shape.len(), axes)?;
        Ok(vec![Fact::new(x.dtype, self.result(&x.shape, &reduced))])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "data")?;
        let axes = inputs.optional(1).map(|t| t.ints("axes")).transpose()?;
        let reduced = self.reduced(x.shape().len(), axes)?;
        let max = self.reduction == Reduction::Max;
        Ok(vec![match (x, self.reduction) {
            (Tensor::F32(a), Reduction::L1) => self
                .fold(&a.mapv(|v| f64::from(v.abs())), &reduced, 0.0, |a, b| a + b)
                .mapv(|v| v as f32)
                .into(),
            (Tensor::F32(a), Reduction::SumSquare) => {
                let squares = a.mapv(|v| f64::from(v) * f64::from(v));
                self.fold(&squares, &reduced, 0.0, |a, b| a + b).mapv(|v| v as f32).into()
            }
            (Tensor::F32(a), _) if max => self.fold(a, &reduced, f32::NEG_INFINITY, f32::max).into(),
            (Tensor::F32(a), _) => self.fold(a, &reduced, f32::INFINITY, f32::min).into(),
            (Tensor::I64(a), Reduction::L1) => {
                self.fold(&a.mapv(i64::wrapping_abs), &reduced, 0, i64::wrapping_add).into()
            }
            (Tensor::I64(a), Reduction::SumSquare) => {
                self.fold(&a.mapv(|v| v.wrapping_mul(v)), &reduced, 0, i64::wrapping_add).into()
            }
            (Tensor::I64(a), _) if max => self.fold(a, &reduced, i64::MIN, i64::max).into(),
            (Tensor::I64(a), _) => self.fold(a, &reduced, i64::MAX, i64::min).into(),
            (Tensor::Bool(a), _) => {
                self.fold(a, &reduced, !max, |a, b| if max { a | b } else { a & b }).into()
            }
        }])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "data")?;
        let rank = ctx.shape_of(x).len();
        let axes = ctx.operands().optional(1).map(|f| f.known("axes")?.ints("axes")).transpose()?;
        let reduced = self.reduced(rank, axes)?;
        let y = match self.reduction {
            Reduction::Max => maximum(ctx, x, &reduced)?,
            Reduction::Min => {
                let x = ctx.negate(x)?;
                let y = maximum(ctx, x, &reduced)?;
                ctx.negate(y)?
            }
            Reduction::L1 | Reduction::SumSquare => {
                let mut y =
                    if self.reduction == Reduction::L1 { absolute(ctx, x)? } else { ctx.multiply(x, x) };
                for axis in (0..rank).filter(|&a| reduced[a]) {
                    y = ctx.sum_axis(y, axis)?;
                }
                y
            }
        };
        let shape = ctx.shape();
        Ok(vec![ctx.reshape(y, shape)])
    }
}

impl ReduceMax {
    /// Which axes are reduced.
    fn reduced(&self, rank: usize, axes: Option<Vec<i64>>) -> Result<Vec<bool>, OpError> {
        let axes = axes.unwrap_or_default();
        let mut reduced = vec![axes.is_empty() && !self.noop_with_empty_axes; rank];
        for &a in &axes {
            let at = axis("axes", a, rank)?;
            if std::mem::replace(&mut reduced[at], true) {
                return Err(OpError::mismatch("axes", "distinct axes", format!("{axes:?}")));
            }
        }
        Ok(reduced)
    }

    fn result(&self, shape: &[usize], reduced: &[bool]) -> Vec<usize> {
        let sizes = shape.iter().zip(reduced);
        sizes.filter(|(_, r)| self.keep_dims || !**r).map(|(&d, &r)| if r { 1 } else { d }).collect()
    }

    fn fold<T: Copy>(&self, a: &ArrayD<T>, reduced: &[bool], start: T, f: impl Fn(T, T) -> T) -> ArrayD<T> {
        let mut a = a.clone();
        for axis in (0..reduced.len()).rev().filter(|&axis| reduced[axis]) {
            a = a.fold_axis(Axis(axis), start, |&x, &y| f(x, y));
            if self.keep_dims {
                a = a.insert_axis(Axis(axis));
            }
        }
        a
    }
}

/// Pools the reduced axes, brought to the end and made one.
fn maximum(ctx: &mut Lowering<'_>, x: WireId, reduced: &[bool]) -> Result<WireId, OpError> {
    let (kept, gone): (Vec<usize>, Vec<usize>) = (0..reduced.len()).partition(|&a| !reduced[a]);
    let shape = ctx.shape_of(x);
    let size = |axes: &[usize]| axes.iter().map(|&a| shape[a]).product::<usize>();
    let (outer, inner) = (size(&kept), size(&gone));
    if inner >= 1 << 24 {
        return Err(OpError::unsupported(format!("the extreme of {inner} elements"), "less than 2^24"));
    }
    let x = ctx.transpose(x, &[kept, gone].concat());
    if inner == 1 {
        return Ok(x);
    }
    let x = ctx.reshape(x, &[1, outer, inner]);
    // The width is settled for the whole plan at the end.
    let op = Op::MaxPool { window: Window::global(&[inner]), width: ctx.ring_bits() as u8 - 1 };
    Ok(ctx.layout(op, x, vec![1, outer, 1]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    fn reduce(reduction: Reduction) -> ReduceMax {
        ReduceMax { reduction, keep_dims: false, noop_with_empty_axes: false }
    }

    #[test]
    fn axes_are_listed_or_all() {
        let x: Tensor = array(&[2, 3], vec![1.0f32, -5.0, 3.0, -4.0, 5.0, -6.0]).into();
        let axes = Tensor::from_ints(vec![-1]);
        let along = |reduction| reduce(reduction).eval(Args(&[Some(&x), Some(&axes)])).unwrap().remove(0);
        assert_eq!(along(Reduction::Max), array(&[2], vec![3.0f32, 5.0]).into());
        assert_eq!(along(Reduction::Min), array(&[2], vec![-5.0f32, -6.0]).into());
        assert_eq!(along(Reduction::L1), array(&[2], vec![9.0f32, 15.0]).into());
        assert_eq!(along(Reduction::SumSquare), array(&[2], vec![35.0f32, 77.0]).into());
        let all = reduce(Reduction::Max).eval(Args(&[Some(&x)])).unwrap();
        assert_eq!(all[0], Tensor::from_scalar(5.0));
        let none = ReduceMax { noop_with_empty_axes: true, ..reduce(Reduction::L1) };
        assert_eq!(none.eval(Args(&[Some(&x)])).unwrap()[0].shape(), [2, 3]);
    }

    #[test]
    fn an_axis_twice_is_refused() {
        assert!(reduce(Reduction::Max).reduced(2, Some(vec![1, -1])).is_err());
    }
}

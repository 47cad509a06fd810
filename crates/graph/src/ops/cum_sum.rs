//! CumSum.

use ndarray::{ArrayD, Axis};
use privet_plan::{Tap, WireId};

use crate::lower::expect_terms;
use crate::tensor::axis;
use crate::{Args, DType, Fact, Lowering, OpError, Operator, Tensor};

/// Sums of all elements up to each one, along the axis that operand 1 names.
#[derive(Debug, Clone, Copy)]
pub struct CumSum {
    /// Whether an element's own value is left out of its sum.
    pub exclusive: bool,
    /// Whether sums run from the end.
    pub reverse: bool,
}

impl Operator for CumSum {
    fn name(&self) -> &'static str {
        "CumSum"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "x")?;
        if x.dtype == DType::Bool {
            return Err(OpError::mismatch("x", "numbers", "truth values"));
        }
        self.axis(inputs.get(1, "axis")?.known("axis")?, x.shape.len())?;
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "x")?;
        let at = self.axis(inputs.get(1, "axis")?, x.shape().len())?;
        Ok(vec![
            match x {
                Tensor::F32(a) => self.sums(a, at, |a, b| Some(a + b)).map(Tensor::from),
                Tensor::I64(a) => self.sums(a, at, i64::checked_add).map(Tensor::from),
                Tensor::Bool(_) => None,
            }
            .ok_or_else(|| OpError::mismatch("sum", "a 64-bit result", "an overflow"))?,
        ])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "x")?;
        let shape = ctx.shape_of(x);
        let at = self.axis(ctx.operands().get(1, "axis")?.known("axis")?, shape.len())?;
        let size = shape[at];
        let skip = usize::from(self.exclusive);
        expect_terms(size, size.saturating_mul(size + 1 - 2 * skip) / 2)?;
        let row = |o: usize| {
            let range = if self.reverse { o + skip..size } else { 0..o + 1 - skip };
            range.map(|i| Tap { index: i as u32, coefficient: 1 }).collect()
        };
        Ok(vec![ctx.axis_map(x, at, (0..size).map(row).collect(), 0)?])
    }
}

impl CumSum {
    fn axis(&self, given: &Tensor, rank: usize) -> Result<usize, OpError> {
        match given.ints("axis")?.as_slice() {
            [one] => axis("axis", *one, rank),
            other => Err(OpError::mismatch("axis", "one axis", format!("{other:?}"))),
        }
    }

    fn sums<T: Copy + Default>(
        &self,
        a: &ArrayD<T>,
        at: usize,
        add: impl Fn(T, T) -> Option<T>,
    ) -> Option<ArrayD<T>> {
        let mut sums = a.as_standard_layout().into_owned();
        for mut lane in sums.lanes_mut(Axis(at)) {
            if self.reverse {
                lane.invert_axis(Axis(0));
            }
            let mut sum = T::default();
            for value in &mut lane {
                let before = sum;
                sum = add(sum, *value)?;
                *value = if self.exclusive { before } else { sum };
            }
        }
        Some(sums)
    }
}

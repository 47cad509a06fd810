//! Slice.

use ndarray::{ArrayD, Axis, Slice as AxisSlice};
use privet_plan::{Op, WireId};

use crate::tensor::axis;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// Elements `starts, starts + steps, ..` before `ends`, per axis; operands are data, starts, ends and optionally axes
/// and steps. Negative positions count from the end, positions outside are clamped.
#[derive(Debug, Clone, Copy)]
pub struct Slice;

/// What is taken of one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) start: usize,
    pub(super) step: i64,
    pub(super) count: usize,
}

impl Operator for Slice {
    fn name(&self) -> &'static str {
        "Slice"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "data")?;
        let taken =
            taken(&x.shape, |i, what| inputs.optional(i).map(|f| f.known(what)?.ints(what)).transpose())?;
        Ok(vec![Fact::new(x.dtype, taken.iter().map(|t| t.count).collect())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "data")?;
        let taken = taken(x.shape(), |i, what| inputs.optional(i).map(|t| t.ints(what)).transpose())?;
        Ok(vec![match x {
            Tensor::F32(a) => take(a, &taken).into(),
            Tensor::I64(a) => take(a, &taken).into(),
            Tensor::Bool(a) => take(a, &taken).into(),
        }])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "data")?;
        let inputs = ctx.operands();
        let taken = taken(ctx.shape_of(x), |i, what| {
            inputs.optional(i).map(|f| f.known(what)?.ints(what)).transpose()
        })?;
        Ok(vec![slice(ctx, x, &taken)?])
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        let Some(x) = inputs.optional(0) else { return false };
        let taken =
            taken(&x.shape, |i, what| inputs.optional(i).map(|f| f.known(what)?.ints(what)).transpose());
        taken.is_ok_and(|t| t.iter().zip(&x.shape).all(|(t, &d)| t.count == d && (t.step == 1 || d == 1)))
    }
}

/// Slices a wire, one entry per axis, at least one element each.
pub(super) fn slice(ctx: &mut Lowering<'_>, x: WireId, taken: &[Taken]) -> Result<WireId, OpError> {
    let mut steps = Vec::with_capacity(taken.len());
    for t in taken {
        // A step that is never taken may be anything.
        let step = if t.count > 1 { t.step } else { 1 };
        let step = i32::try_from(step);
        steps.push(
            step.map_err(|_| OpError::unsupported(format!("a step of {}", t.step), "steps below 2^31"))?,
        );
    }
    let starts = taken.iter().map(|t| t.start as u32).collect();
    Ok(ctx.layout(Op::Slice { starts, steps }, x, taken.iter().map(|t| t.count).collect()))
}

fn taken(
    shape: &[usize],
    list: impl Fn(usize, &'static str) -> Result<Option<Vec<i64>>, OpError>,
) -> Result<Vec<Taken>, OpError> {
    let required =
        |i, what| list(i, what)?.ok_or_else(|| OpError::mismatch(what, format!("operand {i}"), "none"));
    let (starts, ends) = (required(1, "starts")?, required(2, "ends")?);
    let axes = match list(3, "axes")? {
        Some(axes) => axes,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = list(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()].iter().any(|&n| n != starts.len()) {
        return Err(OpError::mismatch(
            "starts, ends, axes and steps",
            "equal lengths",
            format!("{}, {}, {} and {}", starts.len(), ends.len(), axes.len(), steps.len()),
        ));
    }
    let mut taken: Vec<Taken> = shape.iter().map(|&d| Taken { start: 0, step: 1, count: d }).collect();
    let mut seen = vec![false; shape.len()];
    for i in 0..starts.len() {
        let at = axis("axes", axes[i], shape.len())?;
        if std::mem::replace(&mut seen[at], true) {
            return Err(OpError::mismatch("axes", "distinct axes", format!("{axes:?}")));
        }
        taken[at] = along(shape[at], starts[i], ends[i], steps[i])?;
    }
    Ok(taken)
}

fn along(size: usize, start: i64, end: i64, step: i64) -> Result<Taken, OpError> {
    let size = size as i64;
    let wrap = |p: i64| if p < 0 { p.saturating_add(size) } else { p };
    if step == 0 {
        return Err(OpError::mismatch("steps", "steps other than 0", 0));
    }
    let (start, span) = if step > 0 {
        let (start, end) = (wrap(start).clamp(0, size), wrap(end).clamp(0, size));
        (start, end - start)
    } else {
        let (start, end) = (wrap(start).clamp(-1, size - 1), wrap(end).clamp(-1, size - 1));
        (start, start - end)
    };
    let count = u64::try_from(span).unwrap_or(0).div_ceil(step.unsigned_abs()) as usize;
    Ok(Taken { start: if count == 0 { 0 } else { start as usize }, step, count })
}

fn take<T: Clone>(a: &ArrayD<T>, taken: &[Taken]) -> ArrayD<T> {
    let mut view = a.view();
    for (at, t) in taken.iter().enumerate() {
        // Restrict to the exact stretch, then walk it from either end.
        let last = t.start as i64 + t.count.saturating_sub(1) as i64 * if t.count > 1 { t.step } else { 0 };
        let (low, high) = (last.min(t.start as i64) as isize, last.max(t.start as i64) as isize);
        let high = if t.count == 0 { low } else { high + 1 };
        let step = if t.count > 1 { t.step as isize } else { 1 };
        view.slice_axis_inplace(Axis(at), AxisSlice::new(low, Some(high), step));
    }
    view.as_standard_layout().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_wrap_and_clamp() {
        let t = |start, end, step| along(10, start, end, step).unwrap();
        assert_eq!(t(-3, i64::MAX, 1), Taken { start: 7, step: 1, count: 3 });
        assert_eq!(t(-1, i64::MIN, -3), Taken { start: 9, step: -3, count: 4 });
        assert_eq!(t(20, 0, -4), Taken { start: 9, step: -4, count: 3 });
        assert_eq!(t(5, 2, 1).count, 0);
        assert_eq!(t(0, 10, i64::MIN).count, 0);
        assert!(along(10, 0, 1, 0).is_err());
    }

    #[test]
    fn negative_steps_walk_backwards() {
        let a = ArrayD::from_shape_vec(vec![5], vec![0, 1, 2, 3, 4]).unwrap();
        let taken = along(5, -1, -6, -2).unwrap();
        assert_eq!(take(&a, &[taken]).into_raw_vec_and_offset().0, [4, 2, 0]);
        let none = along(5, 3, 3, 1).unwrap();
        assert_eq!(take(&a, &[none]).len(), 0);
    }
}

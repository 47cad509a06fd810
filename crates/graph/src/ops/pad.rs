//! Pad.

use ndarray::{ArrayD, Axis, IxDyn, SliceInfoElem};
use privet_plan::{Op, WireId};

use super::slice::{Taken, slice};
use crate::lower::expect_terms;
use crate::tensor::axis;
use crate::{Args, DType, Fact, Lowering, OpError, Operator, Tensor, element_count};

/// Padding; operands are data, pads (all beginnings, then all ends; negative ones crop, first of all) and optionally the
/// value and the axes that pads speaks of.
#[derive(Debug, Clone, Copy)]
pub struct Pad {
    /// What stands in the padding.
    pub mode: PadMode,
}

/// What padding repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PadMode {
    /// A constant.
    Constant,
    /// The data mirrored at its first and last elements, which are not repeated.
    Reflect,
    /// The first and the last element.
    Edge,
    /// The data from its other end on.
    Wrap,
}

impl Operator for Pad {
    fn name(&self) -> &'static str {
        "Pad"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "data")?;
        if let Some(value) = inputs.optional(2) {
            let elements = value.shape.iter().product::<usize>();
            if value.dtype != x.dtype || elements != 1 {
                return Err(OpError::mismatch(
                    "constant_value",
                    format!("one {:?}", x.dtype),
                    format!("{elements} {:?}", value.dtype),
                ));
            }
        }
        let pads = pads_of(&inputs, &x.shape)?;
        let shape = pads.result(&x.shape)?;
        if self.mode != PadMode::Constant {
            for (a, (&from, &to)) in x.shape.iter().zip(&shape).enumerate() {
                let (start, end) = pads.kept(a, from);
                if start == end && to > 0 {
                    return Err(OpError::mismatch("data", "an element to repeat", format!("{:?}", x.shape)));
                }
            }
        }
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "data")?;
        let list = |i: usize, what| inputs.optional(i).map(|t: &Tensor| t.ints(what)).transpose();
        let pads = Pads::new(x.shape().len(), list(1, "pads")?, list(3, "axes")?)?;
        let shape = pads.result(x.shape())?;
        if self.mode != PadMode::Constant {
            let sources: Vec<Vec<usize>> =
                (0..shape.len()).map(|a| pads.sources(self.mode, a, x.shape()[a], shape[a])).collect();
            return Ok(vec![match x {
                Tensor::F32(a) => repeat(a, &sources).into(),
                Tensor::I64(a) => repeat(a, &sources).into(),
                Tensor::Bool(a) => repeat(a, &sources).into(),
            }]);
        }
        Ok(vec![match (x, inputs.optional(2)) {
            (Tensor::F32(a), value) => {
                let fill = value.map_or(Ok(0.0), |v| v.scalar("constant_value"))?;
                pad(a, &pads, &shape, fill).into()
            }
            (Tensor::I64(a), value) => {
                let fill =
                    value.map(|v| v.ints("constant_value")).transpose()?.and_then(|v| v.first().copied());
                pad(a, &pads, &shape, fill.unwrap_or(0)).into()
            }
            (Tensor::Bool(a), Some(Tensor::Bool(value))) => {
                pad(a, &pads, &shape, value.first().copied().unwrap_or(false)).into()
            }
            (Tensor::Bool(a), _) => pad(a, &pads, &shape, false).into(),
        }])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let mut x = ctx.wire(0, "data")?;
        if self.mode != PadMode::Constant {
            for axis in 0..ctx.shape().len() {
                let size = ctx.shape_of(x)[axis];
                expect_terms(ctx.shape()[axis], ctx.shape()[axis])?;
                let pads = pads_of(&ctx.operands(), &ctx.operands().get(0, "data")?.shape)?;
                let sources = pads.sources(self.mode, axis, size, ctx.shape()[axis]);
                x = ctx.gather(x, axis, &sources)?;
            }
            return Ok(vec![x]);
        }
        let value = match ctx.operands().optional(2) {
            Some(value) if value.dtype != DType::F32 => {
                value.known("constant_value")?;
                ctx.numbers(2)?.and_then(|v| v.first().copied()).unwrap_or(0.0)
            }
            Some(value) => f64::from(value.known("constant_value")?.scalar("constant_value")?),
            None => 0.0,
        };
        let shape = ctx.shape_of(x).to_vec();
        let pads = pads_of(&ctx.operands(), &shape)?;
        if pads.crops() {
            let taken: Vec<Taken> = (0..shape.len())
                .map(|a| {
                    let (start, end) = pads.kept(a, shape[a]);
                    Taken { start, step: 1, count: end - start }
                })
                .collect();
            if taken.iter().any(|t| t.count == 0) {
                return Err(OpError::unsupported("pads that crop everything", "pads that keep an element"));
            }
            x = slice(ctx, x, &taken)?;
        }
        let before = pads.begin.iter().map(|&p| p.max(0) as u32).collect();
        let y = ctx.layout(Op::Pad { before }, x, ctx.shape().to_vec());
        if value == 0.0 {
            return Ok(vec![y]);
        }
        // The value belongs to the model, so it is a private addend and not a constant of the plan.
        let frame = pad(&ArrayD::zeros(IxDyn(&shape)), &pads, ctx.shape(), value);
        Ok(vec![ctx.add_param(y, "value", &frame)?])
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        let Some(x) = inputs.optional(0) else { return false };
        pads_of(&inputs, &x.shape).is_ok_and(|pads| pads.begin.iter().chain(&pads.end).all(|&p| p == 0))
    }
}

/// Padding per axis; negative numbers crop.
struct Pads {
    begin: Vec<i64>,
    end: Vec<i64>,
}

fn pads_of(inputs: &Args<'_, Fact>, shape: &[usize]) -> Result<Pads, OpError> {
    let list = |i: usize, what| inputs.optional(i).map(|f: &Fact| f.known(what)?.ints(what)).transpose();
    Pads::new(shape.len(), list(1, "pads")?, list(3, "axes")?)
}

impl Pads {
    fn new(rank: usize, pads: Option<Vec<i64>>, axes: Option<Vec<i64>>) -> Result<Self, OpError> {
        let pads = pads.ok_or_else(|| OpError::mismatch("pads", "operand 1", "none"))?;
        let axes = axes.unwrap_or_else(|| (0..rank as i64).collect());
        // The bound keeps sums of a size and two pads far from overflow.
        if pads.len() != 2 * axes.len() || pads.iter().any(|p| p.unsigned_abs() >= 1 << 31) {
            return Err(OpError::mismatch(
                "pads",
                format!("{} numbers below 2^31", 2 * axes.len()),
                format!("{pads:?}"),
            ));
        }
        let mut result = Self { begin: vec![0; rank], end: vec![0; rank] };
        let mut seen = vec![false; rank];
        for (i, &a) in axes.iter().enumerate() {
            let at = axis("axes", a, rank)?;
            if std::mem::replace(&mut seen[at], true) {
                return Err(OpError::mismatch("axes", "distinct axes", format!("{axes:?}")));
            }
            (result.begin[at], result.end[at]) = (pads[i], pads[i + axes.len()]);
        }
        Ok(result)
    }

    fn result(&self, shape: &[usize]) -> Result<Vec<usize>, OpError> {
        let along = |a: usize| {
            let size = shape[a] as i64;
            // What is cropped must be there; a crop never reaches into the padding of the other side.
            let crop = (-self.begin[a]).max(0) + (-self.end[a]).max(0);
            if crop > size {
                return Err(OpError::mismatch("pads", format!("crops of at most {size}"), crop));
            }
            Ok((size + self.begin[a] + self.end[a]) as usize)
        };
        let result = (0..shape.len()).map(along).collect::<Result<Vec<_>, _>>()?;
        element_count("padded result", &result)?;
        Ok(result)
    }

    fn crops(&self) -> bool {
        self.begin.iter().chain(&self.end).any(|&p| p < 0)
    }

    /// For every element of a result's axis, the element of the data that it repeats.
    fn sources(&self, mode: PadMode, a: usize, size: usize, result: usize) -> Vec<usize> {
        let (start, end) = self.kept(a, size);
        let (kept, before) = ((end - start) as i64, self.begin[a].max(0));
        let source = |o: i64| {
            let at = o - before;
            let at = match mode {
                PadMode::Constant | PadMode::Edge => at.clamp(0, kept - 1),
                PadMode::Wrap => at.rem_euclid(kept),
                PadMode::Reflect => {
                    // There and back again without the two ends.
                    let period = (2 * (kept - 1)).max(1);
                    let at = at.rem_euclid(period);
                    at.min(period - at).min(kept - 1)
                }
            };
            start + at as usize
        };
        (0..result as i64).map(source).collect()
    }

    /// The part of an axis that is kept.
    fn kept(&self, a: usize, size: usize) -> (usize, usize) {
        ((-self.begin[a]).max(0) as usize, size - (-self.end[a]).max(0) as usize)
    }
}

fn repeat<T: Clone>(a: &ArrayD<T>, sources: &[Vec<usize>]) -> ArrayD<T> {
    let mut result = a.clone();
    for (axis, sources) in sources.iter().enumerate() {
        result = result.select(Axis(axis), sources);
    }
    result.as_standard_layout().into_owned()
}

fn pad<T: Clone>(a: &ArrayD<T>, pads: &Pads, shape: &[usize], fill: T) -> ArrayD<T> {
    let mut padded = ArrayD::from_elem(IxDyn(shape), fill);
    let range = |start: usize, end: usize| SliceInfoElem::Slice {
        start: start as isize,
        end: Some(end as isize),
        step: 1,
    };
    let (mut from, mut to) = (Vec::new(), Vec::new());
    for (axis, &size) in a.shape().iter().enumerate() {
        let (start, end) = pads.kept(axis, size);
        let at = pads.begin[axis].max(0) as usize;
        from.push(range(start, end));
        to.push(range(at, at + (end - start)));
    }
    padded.slice_mut(to.as_slice()).assign(&a.slice(from.as_slice()));
    padded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    const CONSTANT: Pad = Pad { mode: PadMode::Constant };

    #[test]
    fn negative_pads_crop() {
        let x: Tensor = array(&[3], vec![1.0f32, 2.0, 3.0]).into();
        let pads = Tensor::from_ints(vec![-1, 2]);
        let y = CONSTANT.eval(Args(&[Some(&x), Some(&pads)])).unwrap();
        assert_eq!(y[0], array(&[4], vec![2.0f32, 3.0, 0.0, 0.0]).into());
    }

    #[test]
    fn modes_repeat_what_is_kept() {
        let x: Tensor = array(&[4], vec![0i64, 1, 2, 3]).into();
        let run = |mode, pads: [i64; 2]| {
            let y = Pad { mode }.eval(Args(&[Some(&x), Some(&Tensor::from_ints(pads.to_vec()))])).unwrap();
            y[0].ints("y").unwrap()
        };
        assert_eq!(run(PadMode::Reflect, [2, 3]), [2, 1, 0, 1, 2, 3, 2, 1, 0]);
        assert_eq!(run(PadMode::Edge, [1, 2]), [0, 0, 1, 2, 3, 3, 3]);
        assert_eq!(run(PadMode::Wrap, [1, 5]), [3, 0, 1, 2, 3, 0, 1, 2, 3, 0]);
        // Cropped first: the mirror stands at 1, the edge is 1.
        assert_eq!(run(PadMode::Reflect, [-1, 4]), [1, 2, 3, 2, 1, 2, 3]);
        assert_eq!(run(PadMode::Edge, [2, -2]), [0, 0, 0, 1]);
        // Mirrors that stand closer than the padding is long, as in numpy.
        assert_eq!(run(PadMode::Reflect, [-3, 2]), [3, 3, 3]);
    }

    #[test]
    fn nothing_cannot_be_repeated() {
        let x = Fact::float(vec![2]);
        let pads = Fact::constant(std::sync::Arc::new(Tensor::from_ints(vec![-2, 3])));
        assert!(Pad { mode: PadMode::Edge }.facts(Args(&[Some(&x), Some(&pads)])).is_err());
        assert!(CONSTANT.facts(Args(&[Some(&x), Some(&pads)])).is_ok());
    }

    #[test]
    fn crops_beyond_the_data_are_refused() {
        let x = Fact::float(vec![3]);
        for pads in [vec![-4, 0], vec![-2, -2], vec![i64::MIN, 0], vec![1]] {
            let pads = Fact::constant(std::sync::Arc::new(Tensor::from_ints(pads)));
            assert!(CONSTANT.facts(Args(&[Some(&x), Some(&pads)])).is_err());
        }
    }
}

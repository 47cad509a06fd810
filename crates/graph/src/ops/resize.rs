//! Resize and Upsample: public linear maps, one per axis.

use ndarray::{ArrayD, IxDyn};
use privet_plan::WireId;

use crate::interpolation::{AxisResize, Coordinates, Interpolation, Weights};
use crate::lower::expect_terms;
use crate::tensor::{array, axis, contiguous};
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor, element_count};

/// Largest magnitude of the cubic kernel's parameter; -0.5 and -0.75 are in use.
const MAX_CUBIC: f32 = 16.0;

/// Interpolates between elements; operands are the data, the region (for [`Coordinates::TfCropAndResize`]), scales and
/// sizes; one of the last two is given, both must be constants.
#[derive(Debug, Clone)]
pub struct Resize {
    /// The weights of neighbours.
    pub interpolation: Interpolation,
    /// How a coordinate of the result becomes one of the data.
    pub coordinates: Coordinates,
    /// Whether shrinking widens the kernel.
    pub antialias: bool,
    /// Whether neighbours outside the data count nothing.
    pub exclude_outside: bool,
    /// What stands outside the data when a region is cut out.
    pub extrapolation: f32,
    /// What sizes mean.
    pub aspect: Aspect,
    /// The axes that the other operands speak of, all if missing.
    pub axes: Option<Vec<i64>>,
}

/// What sizes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    /// Every axis gets its size.
    Stretch,
    /// One scale for all axes, such that none is larger than its size.
    NotLarger,
    /// One scale for all axes, such that none is smaller than its size.
    NotSmaller,
}

impl Operator for Resize {
    fn name(&self) -> &'static str {
        "Resize"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "X")?;
        if !matches!(self.interpolation, Interpolation::Nearest(_)) || self.extrapolates() {
            x.expect_float("X")?;
        }
        let known = |i: usize, what| inputs.optional(i).map(|f: &Fact| f.known(what)).transpose();
        let resizes = self.resizes(&x.shape, known(1, "roi")?, known(2, "scales")?, known(3, "sizes")?)?;
        Ok(vec![Fact::new(x.dtype, resizes.iter().map(|r| r.to).collect())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "X")?;
        let resizes = self.resizes(x.shape(), inputs.optional(1), inputs.optional(2), inputs.optional(3))?;
        let weights: Vec<Vec<Weights>> = resizes.iter().map(AxisResize::weights).collect();
        Ok(vec![match x {
            Tensor::F32(a) => {
                let mut y = a.clone();
                for at in order(&resizes) {
                    y = weigh(&y, at, &weights[at]);
                }
                if let Some(frame) = self.frame(&weights) {
                    y = y + frame;
                }
                y.into()
            }
            Tensor::I64(a) => pick(a, &weights).into(),
            Tensor::Bool(a) => pick(a, &weights).into(),
        }])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let mut wire = ctx.wire(0, "X")?;
        let inputs = ctx.operands();
        let known = |i: usize, what| inputs.optional(i).map(|f: &Fact| f.known(what)).transpose();
        let resizes =
            self.resizes(ctx.shape_of(wire), known(1, "roi")?, known(2, "scales")?, known(3, "sizes")?)?;
        let weights: Vec<Vec<Weights>> = resizes.iter().map(AxisResize::weights).collect();
        for at in order(&resizes) {
            let rows: Vec<Vec<(usize, f64)>> =
                weights[at].iter().map(|row| row.clone().unwrap_or_default()).collect();
            wire = ctx.interpolate(wire, at, &rows)?;
        }
        match self.frame(&weights) {
            Some(frame) => Ok(vec![ctx.add_param(wire, "extrapolation", &frame)?]),
            None => Ok(vec![wire]),
        }
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        let value = |i: usize| inputs.optional(i).and_then(|f: &Fact| f.value.as_deref());
        let Some(x) = inputs.optional(0) else { return false };
        let resizes = self.resizes(&x.shape, value(1), value(2), value(3));
        resizes.is_ok_and(|all| all.iter().all(AxisResize::is_identity))
    }
}

impl Resize {
    fn extrapolates(&self) -> bool {
        self.coordinates == Coordinates::TfCropAndResize
    }

    /// What to do along every axis.
    fn resizes(
        &self,
        shape: &[usize],
        roi: Option<&Tensor>,
        scales: Option<&Tensor>,
        sizes: Option<&Tensor>,
    ) -> Result<Vec<AxisResize>, OpError> {
        if let Interpolation::Cubic(a) = self.interpolation
            && !(-MAX_CUBIC..=MAX_CUBIC).contains(&a)
        {
            let expected = format!("a number between -{MAX_CUBIC} and {MAX_CUBIC}");
            return Err(OpError::mismatch("cubic_coeff_a", expected, a));
        }
        let rank = shape.len();
        let axes: Vec<usize> = match &self.axes {
            Some(axes) => axes.iter().map(|&a| axis("axes", a, rank)).collect::<Result<_, _>>()?,
            None => (0..rank).collect(),
        };
        let mut seen = vec![false; rank];
        if axes.iter().any(|&a| std::mem::replace(&mut seen[a], true)) {
            return Err(OpError::mismatch("axes", "distinct axes", format!("{axes:?}")));
        }
        let one = |from| AxisResize {
            from,
            to: from,
            scale: 1.0,
            region: (0.0, 1.0),
            interpolation: self.interpolation,
            coordinates: self.coordinates,
            antialias: self.antialias,
            exclude_outside: self.exclude_outside,
        };
        let mut resizes: Vec<AxisResize> = shape.iter().map(|&from| one(from)).collect();
        let count = axes.len();
        // An empty tensor stands for one that is left out.
        match (scales.filter(|t| !t.is_empty()), sizes.filter(|t| !t.is_empty())) {
            (Some(scales), None) => {
                let scales = contiguous(scales.floats("scales")?).into_owned();
                let fits = |s: &f32| (f32::MIN_POSITIVE..1e9).contains(s);
                if scales.len() != count || !scales.iter().all(fits) {
                    let expected = format!("{count} numbers above 0 and below 10^9");
                    return Err(OpError::mismatch("scales", expected, format!("{scales:?}")));
                }
                for (&a, scale) in axes.iter().zip(scales) {
                    (resizes[a].scale, resizes[a].to) = (scale, (scale * shape[a] as f32) as usize);
                }
            }
            (None, Some(sizes)) => {
                let given = sizes.ints("sizes")?;
                let sizes: Vec<usize> = given.iter().filter_map(|&s| usize::try_from(s).ok()).collect();
                if sizes.len() != count || given.len() != count {
                    let expected = format!("{count} numbers of at least 0");
                    return Err(OpError::mismatch("sizes", expected, format!("{given:?}")));
                }
                for (&a, size) in axes.iter().zip(sizes) {
                    (resizes[a].scale, resizes[a].to) = (size as f32 / shape[a] as f32, size);
                }
                self.keep_aspect(&axes, &mut resizes);
            }
            (Some(_), Some(_)) => return Err(OpError::mismatch("scales and sizes", "one of them", "both")),
            (None, None) => return Err(OpError::mismatch("scales and sizes", "one of them", "none")),
        }
        if self.extrapolates() {
            let roi = roi.map(|t| t.floats("roi")).transpose()?;
            let roi = roi.map(|t| contiguous(t).into_owned()).unwrap_or_default();
            if roi.len() != 2 * count || !roi.iter().all(|r| r.abs() < 1e6) {
                let expected = format!("{} numbers below 10^6", 2 * count);
                return Err(OpError::mismatch("roi", expected, format!("{roi:?}")));
            }
            for (i, &a) in axes.iter().enumerate() {
                resizes[a].region = (roi[i], roi[i + count]);
            }
        }
        for resize in resizes.iter().filter(|r| !r.is_identity()) {
            expect_terms(resize.to, resize.terms())?;
        }
        let to: Vec<usize> = resizes.iter().map(|r| r.to).collect();
        element_count("resized result", &to)?;
        match resizes.iter().find(|r| r.from == 0 && r.to > 0 || r.from >= 1 << 24 || r.to >= 1 << 24) {
            Some(axis) => Err(OpError::mismatch(
                "X",
                "axes of 1 to 2^24 elements to resize",
                format!("one of {} that becomes {}", axis.from, axis.to),
            )),
            None => Ok(resizes),
        }
    }

    fn keep_aspect(&self, axes: &[usize], resizes: &mut [AxisResize]) {
        let scales = axes.iter().map(|&a| resizes[a].scale);
        let scale = match self.aspect {
            Aspect::Stretch => return,
            Aspect::NotLarger => scales.fold(f32::INFINITY, f32::min),
            Aspect::NotSmaller => scales.fold(0.0, f32::max),
        };
        for &a in axes {
            let to = (scale * resizes[a].from as f32 + 0.5).floor() as usize;
            (resizes[a].scale, resizes[a].to) = (scale, to);
        }
    }

    /// The extrapolation value where some axis leaves the data, 0 elsewhere; nothing if that is everywhere.
    fn frame(&self, weights: &[Vec<Weights>]) -> Option<ArrayD<f32>> {
        let leaves = weights.iter().flatten().any(Option::is_none);
        if !leaves || self.extrapolation == 0.0 {
            return None;
        }
        let shape: Vec<usize> = weights.iter().map(Vec::len).collect();
        Some(ArrayD::from_shape_fn(IxDyn(&shape), |at| {
            let outside = weights.iter().enumerate().any(|(a, rows)| rows[at[a]].is_none());
            if outside { self.extrapolation } else { 0.0 }
        }))
    }
}

/// The axes, those that shrink most first.
fn order(resizes: &[AxisResize]) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..resizes.len()).collect();
    axes.sort_by(|&a, &b| {
        let ratio = |i: usize| resizes[i].to as f64 / resizes[i].from.max(1) as f64;
        ratio(a).total_cmp(&ratio(b))
    });
    axes
}

/// Applies the weights of one axis.
fn weigh(x: &ArrayD<f32>, at: usize, rows: &[Weights]) -> ArrayD<f32> {
    let from = x.shape();
    let inner: usize = from[at + 1..].iter().product();
    let outer: usize = from[..at].iter().product();
    let data = contiguous(x);
    let mut y = Vec::with_capacity(outer * rows.len() * inner);
    for o in 0..outer {
        let plane = &data[o * from[at] * inner..(o + 1) * from[at] * inner];
        for row in rows {
            let taps = row.as_deref().unwrap_or_default();
            let sum = |i: usize| taps.iter().map(|&(p, w)| f64::from(plane[p * inner + i]) * w).sum::<f64>();
            y.extend((0..inner).map(|i| sum(i) as f32));
        }
    }
    let mut shape = from.to_vec();
    shape[at] = rows.len();
    array(&shape, y)
}

/// Picks the nearest elements of integers or truth values, which are never extrapolated.
fn pick<T: Clone>(x: &ArrayD<T>, weights: &[Vec<Weights>]) -> ArrayD<T> {
    let mut y = x.clone();
    for (at, rows) in weights.iter().enumerate() {
        let positions: Vec<usize> =
            rows.iter().map(|row| row.as_ref().and_then(|r| r.first()).map_or(0, |tap| tap.0)).collect();
        y = y.select(ndarray::Axis(at), &positions);
    }
    y.as_standard_layout().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpolation::Rounding;

    fn nearest() -> Resize {
        Resize {
            interpolation: Interpolation::Nearest(Rounding::PreferFloor),
            coordinates: Coordinates::HalfPixel,
            antialias: false,
            exclude_outside: false,
            extrapolation: 0.0,
            aspect: Aspect::Stretch,
            axes: None,
        }
    }

    #[test]
    fn sizes_may_keep_the_aspect() {
        let shape = |aspect, axes: Option<Vec<i64>>| {
            let resize = Resize { aspect, axes, ..nearest() };
            let resizes = resize.resizes(&[2, 4], None, None, Some(&Tensor::from_ints(vec![7, 8]))).unwrap();
            resizes.iter().map(|r| r.to).collect::<Vec<_>>()
        };
        assert_eq!(shape(Aspect::Stretch, None), [7, 8]);
        assert_eq!(shape(Aspect::NotLarger, None), [4, 8]);
        assert_eq!(shape(Aspect::NotSmaller, None), [7, 14]);
        assert_eq!(shape(Aspect::NotLarger, Some(vec![-1, 0])), [4, 7]);
    }

    #[test]
    fn contradictions_are_refused() {
        let resize = nearest();
        let scales: Tensor = array(&[2], vec![2.0f32, 0.5]).into();
        let sizes = Tensor::from_ints(vec![4, 2]);
        assert!(resize.resizes(&[2, 4], None, Some(&scales), None).is_ok());
        assert!(resize.resizes(&[2, 4], None, Some(&scales), Some(&sizes)).is_err());
        assert!(resize.resizes(&[2, 4], None, None, None).is_err());
        assert!(resize.resizes(&[2, 4, 1], None, Some(&scales), None).is_err());
        assert!(resize.resizes(&[0, 4], None, None, Some(&sizes)).is_err());
        assert!(resize.resizes(&[2, 4], None, None, Some(&Tensor::from_ints(vec![1 << 40, 1]))).is_err());
        for wrong in [[f32::NAN, 1.0], [-1.0, 1.0], [f32::INFINITY, 1.0], [1e8, 1e8]] {
            let scales: Tensor = array(&[2], wrong.to_vec()).into();
            assert!(resize.resizes(&[2, 4], None, Some(&scales), None).is_err(), "{wrong:?}");
        }
        let crop = Resize { coordinates: Coordinates::TfCropAndResize, ..nearest() };
        assert!(crop.resizes(&[2, 4], None, Some(&scales), None).is_err(), "a region is needed");
        let twice = Resize { axes: Some(vec![1, -1]), ..nearest() };
        assert!(twice.resizes(&[2, 4], None, Some(&scales), None).is_err());
    }

    #[test]
    fn extrapolation_fills_what_lies_outside_on_any_axis() {
        let crop = Resize {
            interpolation: Interpolation::Linear,
            coordinates: Coordinates::TfCropAndResize,
            extrapolation: 9.0,
            ..nearest()
        };
        let x: Tensor = array(&[2, 2], vec![1.0f32, 2.0, 3.0, 4.0]).into();
        let roi: Tensor = array(&[4], vec![0.0f32, -1.0, 1.0, 1.0]).into();
        let sizes = Tensor::from_ints(vec![2, 3]);
        let y = crop.eval(Args(&[Some(&x), Some(&roi), None, Some(&sizes)])).unwrap();
        assert_eq!(y[0], array(&[2, 3], vec![9.0f32, 1.0, 2.0, 9.0, 3.0, 4.0]).into());
    }
}

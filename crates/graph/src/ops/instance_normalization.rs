//! InstanceNormalization and MeanVarianceNormalization: statistics of the input itself.
//!
//! `(x - mean) / sqrt(variance + epsilon)` with the inverse root of [`Lowering::inverse_square_root`]: variances up to 2^16
//! and a relative error below 1e-3 while the standard deviation has 2^10 units of the last fractional bit; larger
//! variances count as 2^16. Few values are normalised by, so that all powers of two are compared at once.

use ndarray::ArrayD;
use privet_plan::{Op, WireId};

use super::transpose::transposed;
use crate::tensor::{array, axis};
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// `scale · (x - mean) / sqrt(variance + epsilon) + B` over the spatial axes of `[N, C, spatial..]`.
#[derive(Debug, Clone, Copy)]
pub struct InstanceNormalization {
    /// Added to the variance.
    pub epsilon: f32,
}

/// `(x - mean) / (standard deviation + 1e-9)` over `axes`.
#[derive(Debug, Clone)]
pub struct MeanVarianceNormalization {
    /// The axes; negative ones count from the end.
    pub axes: Vec<i64>,
}

/// Added to the standard deviation by the definition of [`MeanVarianceNormalization`].
const DEVIATION: f64 = 1e-9;

impl Operator for InstanceNormalization {
    fn name(&self) -> &'static str {
        "InstanceNormalization"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.float(0, "input")?;
        if x.shape.len() < 3 {
            return Err(OpError::mismatch("input", "[N, C, spatial..]", format!("{:?}", x.shape)));
        }
        for (i, what) in [(1, "scale"), (2, "B")] {
            let fact = inputs.get(i, what)?;
            fact.expect_float(what)?;
            if fact.shape != [x.shape[1]] {
                return Err(OpError::mismatch(
                    what,
                    format!("[{}]", x.shape[1]),
                    format!("{:?}", fact.shape),
                ));
            }
        }
        Ok(vec![Fact::float(x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?.floats("input")?;
        let (scale, shift) = (inputs.get(1, "scale")?.floats("scale")?, inputs.get(2, "B")?.floats("B")?);
        let mut y = x.clone();
        for mut sample in y.outer_iter_mut() {
            for (channel, mut plane) in sample.outer_iter_mut().enumerate() {
                let values: Vec<f64> = plane.iter().map(|&v| f64::from(v)).collect();
                let (mean, variance) = moments(&values);
                let factor =
                    f64::from(scale[[channel].as_slice()]) / (variance + f64::from(self.epsilon)).sqrt();
                let shift = f64::from(shift[[channel].as_slice()]);
                plane.mapv_inplace(|v| ((f64::from(v) - mean) * factor + shift) as f32);
            }
        }
        Ok(vec![y.into()])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        let shape = ctx.shape();
        let per_channel = |values: &ArrayD<f32>| array(&[values.len(), 1], values.iter().copied().collect());
        let (scale, shift) = (per_channel(ctx.weight(1, "scale")?), per_channel(ctx.weight(2, "B")?));
        let planes = [shape[0], shape[1], shape[2..].iter().product()];
        let x = ctx.reshape(x, &planes);
        let (centred, root) = statistics(ctx, x, f64::from(self.epsilon), 1)?;
        // The channel's scale goes to the few factors, not to all elements.
        let (base, frac_bits, few) = (ctx.base(), ctx.frac_bits(root), ctx.shape_of(root).to_vec());
        let factor = ctx.param("scale", &scale, base)?;
        let root = ctx.emit(Op::Scale { factor }, &[root], few.clone(), frac_bits + base);
        let root = ctx.emit(Op::Trunc { shift: base }, &[root], few, frac_bits);
        let y = scaled(ctx, centred, root)?;
        let y = ctx.add_param(y, "B", &shift)?;
        Ok(vec![ctx.reshape(y, shape)])
    }
}

impl Operator for MeanVarianceNormalization {
    fn name(&self) -> &'static str {
        "MeanVarianceNormalization"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.float(0, "X")?;
        self.permutation(&x.shape)?;
        Ok(vec![Fact::float(x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "X")?;
        let (perm, count) = self.permutation(x.shape())?;
        let moved = transposed(x, &perm);
        let moved = moved.floats("X")?;
        let mut y: Vec<f32> = Vec::with_capacity(moved.len());
        let all: Vec<f64> = moved.iter().map(|&v| f64::from(v)).collect();
        for values in all.chunks(count.max(1)) {
            let (mean, variance) = moments(values);
            y.extend(values.iter().map(|v| ((v - mean) / (variance.sqrt() + DEVIATION)) as f32));
        }
        let y: Tensor = array(moved.shape(), y).into();
        Ok(vec![transposed(&y, &inverse(&perm))])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "X")?;
        let (perm, count) = self.permutation(ctx.shape())?;
        let x = ctx.transpose(x, &perm);
        let moved = ctx.shape_of(x).to_vec();
        let x = ctx.reshape(x, &[1, moved.iter().product::<usize>() / count, count]);
        // With so small an epsilon the inverse root needs many bits; more of it makes them fit.
        let (base, ring) = (i64::from(ctx.base()), i64::from(ctx.ring_bits()));
        let least_bits = (6 * base + 20 - 2 * (ring - 4)).max(0) as u32;
        let (centred, root) = statistics(ctx, x, DEVIATION * DEVIATION, 1 << least_bits.min(40))?;
        let y = scaled(ctx, centred, root)?;
        let y = ctx.reshape(y, &moved);
        Ok(vec![ctx.transpose(y, &inverse(&perm))])
    }
}

impl MeanVarianceNormalization {
    /// Brings the axes of the statistics to the end; the number of their elements.
    fn permutation(&self, shape: &[usize]) -> Result<(Vec<usize>, usize), OpError> {
        let mut gone = Vec::with_capacity(self.axes.len());
        for &a in &self.axes {
            let at = axis("axes", a, shape.len())?;
            if gone.contains(&at) {
                return Err(OpError::mismatch("axes", "distinct axes", format!("{:?}", self.axes)));
            }
            gone.push(at);
        }
        gone.sort_unstable();
        let count = gone.iter().map(|&a| shape[a]).product();
        let kept = (0..shape.len()).filter(|a| !gone.contains(a));
        Ok((kept.chain(gone.iter().copied()).collect(), count))
    }
}

/// Mean and variance.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (mean, values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count)
}

fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; perm.len()];
    perm.iter().enumerate().for_each(|(i, &p)| inverse[p] = i);
    inverse
}

/// Of `[n, c, count]`: x - mean with f fractional bits, and `1 / sqrt(variance + epsilon)` of every row, with some more. The
/// epsilon is at least `least` units of a square.
fn statistics(
    ctx: &mut Lowering<'_>,
    x: WireId,
    epsilon: f64,
    least: i64,
) -> Result<(WireId, WireId), OpError> {
    let x = ctx.at_base(x);
    let shape = ctx.shape_of(x).to_vec();
    let count = shape[2];
    let mean = ctx.mean_axis(x, 2)?;
    let mean = ctx.repeat(mean, 2, count)?;
    let centred = ctx.combine(&[(x, 1), (mean, -1)], 0)?;
    let squares = ctx.multiply(centred, centred);
    let sum = ctx.sum_axis(squares, 2)?;
    // Dividing by a power of two is enough: the rest of 1/count goes into the factor.
    let whole = (count as u64).ilog2();
    let rest = count as f64 / f64::from(whole).exp2();
    let units = ctx.shifted_down(sum, whole);
    let one = (2.0 * f64::from(ctx.base())).exp2();
    let epsilon = (epsilon * one * rest).round();
    let (most_bits, frac_bits) = (2 * u32::from(ctx.base()) + 16, ctx.base() + 8);
    // Below the highest power of two of the square root's domain.
    if !(0.0..f64::from(most_bits - 1).exp2()).contains(&epsilon) {
        return Err(OpError::unsupported(
            format!("epsilon = {}", epsilon / one / rest),
            "an epsilon from 0 to 2^14",
        ));
    }
    let epsilon = (epsilon as i64).max(least);
    let units = ctx.integers(&[(units, 1)], epsilon, 0);
    let factor = (one * rest).sqrt();
    let root = ctx.inverse_square_root(units, epsilon, most_bits, factor, frac_bits)?;
    Ok((centred, root))
}

/// Every row times its factor.
fn scaled(ctx: &mut Lowering<'_>, rows: WireId, factors: WireId) -> Result<WireId, OpError> {
    let shape = ctx.shape_of(rows).to_vec();
    let factors = ctx.repeat(factors, 2, shape[2])?;
    let frac_bits = ctx.frac_bits(rows) + ctx.frac_bits(factors);
    Ok(ctx.emit(Op::Multiply, &[rows, factors], shape, frac_bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_get_mean_and_deviation_of_their_own() {
        let x: Tensor = array(&[1, 2, 2], vec![1.0f32, 3.0, -5.0, -5.0]).into();
        let (scale, shift): (Tensor, Tensor) =
            (array(&[2], vec![2.0f32, 1.0]).into(), array(&[2], vec![0.0f32, 7.0]).into());
        let op = InstanceNormalization { epsilon: 0.0 };
        assert!(op.facts(Args(&[Some(&Fact::float(vec![1, 2, 2])), None, None])).is_err());
        let op = InstanceNormalization { epsilon: 3.0 };
        let y = op.eval(Args(&[Some(&x), Some(&scale), Some(&shift)])).unwrap();
        assert_eq!(y[0], array(&[1, 2, 2], vec![-1.0f32, 1.0, 7.0, 7.0]).into());
    }

    #[test]
    fn statistics_over_chosen_axes() {
        let x: Tensor = array(&[2, 2], vec![1.0f32, 10.0, 3.0, 30.0]).into();
        let y = MeanVarianceNormalization { axes: vec![0] }.eval(Args(&[Some(&x)])).unwrap();
        let found = y[0].floats("y").unwrap();
        assert!(found.iter().zip([-1.0f32, -1.0, 1.0, 1.0]).all(|(a, b)| (a - b).abs() < 1e-6));
        assert!(MeanVarianceNormalization { axes: vec![0, -2] }.permutation(&[2, 2]).is_err());
    }
}

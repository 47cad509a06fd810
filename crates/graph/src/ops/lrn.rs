//! LRN: local response normalisation across channels.
//!
//! `(bias + alpha/size · s)^-beta` of the sum of squares s comes from one table. With u = alpha/size · s / bias it covers
//! u from 0 to at least 54 (the sum of squares may raise the base to 55 times the bias); beyond, the base counts as the end of
//! the domain. For beta up to 1 the relative error is below 2e-3 everywhere and below 3e-4 for u < 1/2, the
//! resolution of the fractional bits apart.

use ndarray::{ArrayD, Axis};
use privet_plan::{Op, Tap, WireId};

use crate::lower::{Segment, expect_terms};
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// `x / (bias + alpha/size · Σ x²)^beta`, the sum over `size` neighbouring channels.
#[derive(Debug, Clone, Copy)]
pub struct Lrn {
    /// Factor of the mean square.
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
    /// Addend.
    pub bias: f32,
    /// Channels of the window.
    pub size: i64,
}

/// Narrow cells near 0, where the function bends; 2^6 units of the operand in the finest.
const SEGMENTS: [Segment; 3] = [
    Segment { cells: 64, width_bits: 6 },
    Segment { cells: 96, width_bits: 9 },
    Segment { cells: 96, width_bits: 12 },
];

impl Operator for Lrn {
    fn name(&self) -> &'static str {
        "LRN"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.float(0, "X")?;
        if x.shape.len() < 2 {
            return Err(OpError::mismatch("X", "[N, C, ..]", format!("{:?}", x.shape)));
        }
        if !(1..1 << 24).contains(&self.size) {
            return Err(OpError::mismatch("size", "a positive number of channels", self.size));
        }
        Ok(vec![Fact::float(x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "X")?.floats("X")?;
        let channels = x.shape()[1];
        let mut y = ArrayD::<f32>::zeros(x.raw_dim());
        for channel in 0..channels {
            let mut sum = ArrayD::<f64>::zeros(x.index_axis(Axis(1), 0).raw_dim());
            for other in self.window(channel, channels) {
                sum = sum + x.index_axis(Axis(1), other).mapv(|v| f64::from(v) * f64::from(v));
            }
            let values = ndarray::Zip::from(&x.index_axis(Axis(1), channel))
                .and(&sum)
                .map_collect(|&v, &s| (f64::from(v) * self.factor(s)) as f32);
            y.index_axis_mut(Axis(1), channel).assign(&values);
        }
        Ok(vec![y.into()])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let Self { alpha, beta, bias, .. } = *self;
        if !(alpha > 0.0
            && alpha.is_finite()
            && bias > 0.0
            && bias.is_finite()
            && (0.0..=4.0).contains(&beta))
        {
            return Err(OpError::unsupported(
                format!("alpha = {alpha}, bias = {bias}, beta = {beta}"),
                "a positive alpha and bias, and a beta from 0 to 4",
            ));
        }
        let x = ctx.wire(0, "X")?;
        let x = ctx.at_base(x);
        let squares = ctx.multiply(x, x);
        let channels = ctx.shape()[1];
        expect_terms(channels, channels.saturating_mul(channels.min(self.size as usize)))?;
        let tap = |i: usize| Tap { index: i as u32, coefficient: 1 };
        let rows = (0..channels).map(|c| self.window(c, channels).map(tap).collect()).collect();
        let sums = ctx.axis_map(squares, 1, rows, 0)?;
        // The finest cell is between 1/128 and 1/64 of the bias.
        let per_sum = f64::from(alpha) / self.size as f64 / f64::from(bias);
        let unit_bits = (f64::from(SEGMENTS[0].width_bits) + 6.0 + per_sum.log2()).ceil() as i32;
        let shift = i32::from(ctx.frac_bits(sums)) - unit_bits;
        let units = match u32::try_from(shift) {
            Ok(shift) if shift <= ctx.ring_bits() - 2 => ctx.shifted_down(sums, shift),
            Err(_) if shift >= -16 => ctx.integers(&[(sums, 1 << -shift)], 0, 0),
            _ => {
                return Err(OpError::unsupported(
                    format!("alpha / (size · bias) = {per_sum} at {} fractional bits", ctx.base()),
                    "an alpha closer to the bias, or other --frac-bits",
                ));
            }
        };
        let unit = f64::from(-unit_bits).exp2();
        // A little finer than the inputs, relative to the largest value.
        let frac_bits = i32::from(ctx.base()) + 2 - self.factor(0.0).log2().ceil() as i32;
        let frac_bits = u8::try_from(frac_bits)
            .ok()
            .filter(|bits| (1..=40).contains(bits))
            .ok_or_else(|| OpError::unsupported(format!("bias = {bias}"), "a bias closer to 1"))?;
        let factors = ctx.companded(units, &SEGMENTS, |units| self.factor(units * unit), frac_bits)?;
        let shape = ctx.shape().to_vec();
        let frac_bits = ctx.base() + frac_bits;
        Ok(vec![ctx.emit(Op::Multiply, &[x, factors], shape, frac_bits)])
    }
}

impl Lrn {
    /// The channels around `channel`.
    fn window(&self, channel: usize, channels: usize) -> std::ops::Range<usize> {
        let (before, after) = ((self.size as usize - 1) / 2, self.size as usize / 2);
        channel.saturating_sub(before)..channels.min(channel + after + 1)
    }

    /// What an element is multiplied with.
    fn factor(&self, sum: f64) -> f64 {
        let mean = f64::from(self.alpha) / self.size as f64 * sum;
        (f64::from(self.bias) + mean).powf(-f64::from(self.beta))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn even_windows_reach_further_up() {
        let lrn = Lrn { alpha: 1.0, beta: 0.5, bias: 1.0, size: 4 };
        assert_eq!(lrn.window(0, 8), 0..3);
        assert_eq!(lrn.window(5, 8), 4..8);
        let lrn = Lrn { size: 3, ..lrn };
        assert_eq!(lrn.window(2, 8), 1..4);
    }

    #[test]
    fn a_window_of_one_channel() {
        let x: Tensor = array(&[1, 2], vec![2.0f32, 0.0]).into();
        let y = Lrn { alpha: 2.0, beta: 0.5, bias: 1.0, size: 1 }.eval(Args(&[Some(&x)])).unwrap();
        assert_eq!(y[0], array(&[1, 2], vec![2.0f32 / 3.0, 0.0]).into());
    }
}

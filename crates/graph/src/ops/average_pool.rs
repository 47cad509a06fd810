//! AveragePool.

use privet_plan::{Op, Window, WireId};

use super::max_pool::{pool, pool_facts, pool_window};
use crate::lower::reciprocal_bits;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor, WindowSpec};

/// Average over windows.
#[derive(Debug, Clone)]
pub struct AveragePool {
    /// The window.
    pub window: WindowSpec,
    /// Whether declared padding counts as elements; the overhang of `ceil_mode` never does.
    pub count_include_pad: bool,
}

impl Operator for AveragePool {
    fn name(&self) -> &'static str {
        "AveragePool"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        pool_facts(&self.window, inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?.floats("input")?;
        let (window, out) = pool_window(&self.window, x.shape())?;
        let padded = self.count_include_pad.then(|| padded_counts(&window, &x.shape()[2..], &out));
        let mean = |window: &mut dyn Iterator<Item = f32>, o: usize| {
            let (sum, count) = window.fold((0.0f32, 0usize), |(sum, count), v| (sum + v, count + 1));
            sum / padded.as_ref().map_or(count, |counts| counts[o]) as f32
        };
        Ok(vec![pool(x, &window, &out, mean)?.into()])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        let (window, _) = pool_window(&self.window, ctx.shape_of(x))?;
        Ok(vec![average_pool(ctx, x, window, self.count_include_pad)])
    }
}

/// Average pooling of a wire, truncated first if it is pending.
pub(super) fn average_pool(
    ctx: &mut Lowering<'_>,
    x: WireId,
    window: Window,
    count_include_pad: bool,
) -> WireId {
    let (x, base) = (ctx.at_base(x), ctx.base());
    let is_whole = window.output(&ctx.shape_of(x)[2..], false).as_deref() == Some(&ctx.shape()[2..])
        && window.pad_begin.iter().chain(&window.pad_end).all(|&p| p == 0);
    let reciprocal_bits = reciprocal_bits(window.kernel_len(), is_whole, ctx.ring_bits(), base);
    let op = Op::AveragePool { window, count_include_pad, reciprocal_bits };
    ctx.emit(op, &[x], ctx.shape().to_vec(), base + reciprocal_bits)
}

/// For every window, how many of its positions are elements or declared padding.
fn padded_counts(window: &Window, spatial: &[usize], out: &[usize]) -> Vec<usize> {
    // A product over axes, like the windows themselves.
    let mut counts = vec![1usize];
    for axis in 0..spatial.len() {
        let limit = (window.pad_begin[axis] + window.pad_end[axis]) as usize + spatial[axis];
        let (stride, dilation) = (window.stride[axis] as usize, window.dilation[axis] as usize);
        let inside =
            |o: usize| limit.saturating_sub(o * stride).div_ceil(dilation).min(window.kernel[axis] as usize);
        let along: Vec<usize> = (0..out[axis]).map(inside).collect();
        counts = counts.iter().flat_map(|c| along.iter().map(move |n| c * n)).collect();
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn reciprocals_are_precise_or_as_precise_as_the_ring_allows() {
        assert_eq!(reciprocal_bits(64, true, 64, 16), 6);
        assert_eq!(reciprocal_bits(64, false, 64, 16), 21);
        for (count, base) in [(169, 8), (169, 12), (169, 16), (49, 4), (9, 16), (3, 20), (1, 10)] {
            let bits = reciprocal_bits(count, true, 64, base);
            let one = 2f64.powi(bits.into());
            let error = ((one / count as f64).round() * count as f64 / one - 1.0).abs();
            assert!(error <= 1.0 / 2f64.powi(base.into()), "1/{count} with {bits} bits is off by {error}");
        }
        // 32 bits leave room for 11; never fewer than f.
        assert_eq!([(32, 11), (32, 12)].map(|(ring, f)| reciprocal_bits(169, true, ring, f)), [11, 12]);
    }

    #[test]
    fn padding_counts_on_request_and_overhang_never() {
        let x: Tensor = array(&[1, 1, 4], vec![2.0f32, 4.0, 6.0, 8.0]).into();
        let eval = |count_include_pad| {
            let window = WindowSpec {
                kernel: Some(vec![3]),
                strides: Some(vec![3]),
                pads: Some(vec![1, 0]),
                ceil_mode: true,
                ..WindowSpec::default()
            };
            AveragePool { window, count_include_pad }.eval(Args(&[Some(&x)])).unwrap().remove(0)
        };
        assert_eq!(eval(false), array(&[1, 1, 2], vec![3.0f32, 7.0]).into());
        assert_eq!(eval(true), array(&[1, 1, 2], vec![2.0f32, 7.0]).into());
    }
}

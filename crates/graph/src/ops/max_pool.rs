//! MaxPool.

use ndarray::ArrayD;
use privet_plan::{Op, Window, WireId};

use crate::tensor::{array, contiguous};
use crate::window::{PADDING, every_window_reads, positions};
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor, WindowSpec};

/// Maximum over windows; padding never wins.
#[derive(Debug, Clone)]
pub struct MaxPool {
    /// The window.
    pub window: WindowSpec,
}

impl Operator for MaxPool {
    fn name(&self) -> &'static str {
        "MaxPool"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        pool_facts(&self.window, inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?.floats("input")?;
        let (window, out) = pool_window(&self.window, x.shape())?;
        let max = |window: &mut dyn Iterator<Item = f32>, _: usize| window.fold(f32::NEG_INFINITY, f32::max);
        Ok(vec![pool(x, &window, &out, max)?.into()])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        let (window, _) = pool_window(&self.window, ctx.shape_of(x))?;
        Ok(vec![max_pool(ctx, x, window)])
    }
}

/// Max pooling of a wire, pending or not; the width is settled for the whole plan at the end.
pub(super) fn max_pool(ctx: &mut Lowering<'_>, x: WireId, window: Window) -> WireId {
    let op = Op::MaxPool { window, width: ctx.ring_bits() as u8 - 1 };
    ctx.layout(op, x, ctx.shape().to_vec())
}

/// The window of a pooling operator over `[N, C, spatial..]`.
pub(super) fn pool_window(spec: &WindowSpec, x: &[usize]) -> Result<(Window, Vec<usize>), OpError> {
    if x.len() < 3 {
        return Err(OpError::mismatch("input", "[N, C, spatial..]", format!("{x:?}")));
    }
    let kernel: Option<Vec<usize>> =
        spec.kernel.as_ref().and_then(|k| k.iter().map(|&k| usize::try_from(k).ok()).collect());
    let kernel = kernel.ok_or_else(|| {
        OpError::mismatch("kernel_shape", "one size per spatial axis", format!("{:?}", spec.kernel))
    })?;
    spec.resolve(&kernel, &x[2..])
}

/// What a pooling operator gives, of which every window has to see an element.
pub(super) fn pool_facts(spec: &WindowSpec, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
    let x = inputs.float(0, "input")?;
    let (window, out) = pool_window(spec, &x.shape)?;
    every_window_reads(&window, &x.shape[2..], &out)?;
    Ok(vec![Fact::float(x.shape[..2].iter().copied().chain(out).collect())])
}

/// Applies `f` to the elements (padding left out) and the index of every window.
pub(super) fn pool(
    x: &ArrayD<f32>,
    window: &Window,
    out: &[usize],
    f: impl Fn(&mut dyn Iterator<Item = f32>, usize) -> f32,
) -> Result<ArrayD<f32>, OpError> {
    let positions = positions(window, &x.shape()[2..], out)?;
    let planes = x.shape()[0] * x.shape()[1];
    let (in_len, out_len) = (x.shape()[2..].iter().product::<usize>(), out.iter().product::<usize>());
    let data = contiguous(x);
    let mut y = Vec::with_capacity(planes * out_len);
    for plane in 0..planes {
        let plane = &data[plane * in_len..(plane + 1) * in_len];
        for o in 0..out_len {
            let reads = positions[o..].iter().step_by(out_len);
            let mut elements = reads.filter(|&&at| at != PADDING).map(|&at| plane[at as usize]);
            y.push(f(&mut elements, o));
        }
    }
    Ok(array(&x.shape()[..2].iter().copied().chain(out.iter().copied()).collect::<Vec<_>>(), y))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_never_wins_and_ceil_mode_counts_the_last_window() {
        let x: Tensor = array(&[1, 1, 4], vec![-1.0f32, -2.0, -3.0, -4.0]).into();
        let window = WindowSpec {
            kernel: Some(vec![2]),
            strides: Some(vec![3]),
            pads: Some(vec![1, 0]),
            ceil_mode: true,
            ..WindowSpec::default()
        };
        let y = MaxPool { window }.eval(Args(&[Some(&x)])).unwrap();
        assert_eq!(y[0], array(&[1, 1, 2], vec![-1.0f32, -3.0]).into());
    }

    #[test]
    fn windows_of_padding_alone_are_refused() {
        let x = Fact::float(vec![1, 1, 4]);
        let window = WindowSpec { kernel: Some(vec![2]), pads: Some(vec![2, 0]), ..WindowSpec::default() };
        assert!(MaxPool { window }.facts(Args(&[Some(&x)])).is_err());
    }
}

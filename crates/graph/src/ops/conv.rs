//! Conv over any number of spatial axes.

use ndarray::{Array2, ArrayD, ArrayView2, Axis, Slice};
use privet_plan::{Op, Window, WireId};

use crate::tensor::{array, contiguous};
use crate::window::{PADDING, positions};
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor, WindowSpec};

/// Most elements of the unfolded input per matrix product (64 MiB).
const MAX_UNFOLDED: usize = 1 << 24;

/// Convolution of x `[N, C, spatial..]` with w `[O, C/groups, kernel..]` and an optional bias `[O]`.
#[derive(Debug, Clone)]
pub struct Conv {
    /// Channel groups.
    pub groups: i64,
    /// The window; the kernel size comes from w.
    pub window: WindowSpec,
}

impl Operator for Conv {
    fn name(&self) -> &'static str {
        "Conv"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let (x, w) = (inputs.float(0, "input")?, inputs.float(1, "weight")?);
        let (_, out) = self.resolve(&x.shape, &w.shape)?;
        if let Some(bias) = inputs.optional(2) {
            bias.expect_float("bias")?;
            if bias.shape != [w.shape[0]] {
                return Err(OpError::mismatch(
                    "bias",
                    format!("[{}]", w.shape[0]),
                    format!("{:?}", bias.shape),
                ));
            }
        }
        Ok(vec![Fact::float([x.shape[0], w.shape[0]].into_iter().chain(out).collect())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?.floats("input")?;
        let w = inputs.get(1, "weight")?.floats("weight")?;
        let bias = inputs.optional(2).map(|b| b.floats("bias")).transpose()?;
        let (window, out) = self.resolve(x.shape(), w.shape())?;
        let plane =
            Plane { positions: positions(&window, &x.shape()[2..], &out)?, window: &window, out: &out };
        Ok(vec![convolve(x, w, bias, self.groups as usize, &plane).into()])
    }

    fn work(&self, inputs: Args<'_, Fact>, results: &[Fact]) -> usize {
        let filter = inputs.optional(1).map_or(1, |w| w.len() / w.shape[0].max(1));
        results[0].len().saturating_mul(filter)
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        let w = ctx.weight(1, "weight")?;
        let (window, _) = self.resolve(ctx.shape_of(x), w.shape())?;
        let bits = ctx.factor_bits(w);
        let x = ctx.operand(x, bits);
        let weight = ctx.param("weight", w, bits)?;
        let pending = ctx.frac_bits(x) + bits;
        let bias = match ctx.operands().optional(2) {
            Some(_) => Some(ctx.param("bias", ctx.weight(2, "bias")?, pending)?),
            None => None,
        };
        let op = Op::Conv { weight, bias, groups: self.groups as u32, window };
        Ok(vec![ctx.emit(op, &[x], ctx.shape().to_vec(), pending)])
    }
}

impl Conv {
    fn resolve(&self, x: &[usize], w: &[usize]) -> Result<(Window, Vec<usize>), OpError> {
        if x.len() < 3 || w.len() != x.len() {
            return Err(OpError::mismatch(
                "weight",
                "[O, C/groups, kernel..] for an input [N, C, spatial..]",
                format!("{w:?} for {x:?}"),
            ));
        }
        let groups = usize::try_from(self.groups).unwrap_or(0);
        if groups == 0 || w[1].checked_mul(groups) != Some(x[1]) || !w[0].is_multiple_of(groups) {
            return Err(OpError::mismatch(
                "group",
                "a divisor of both channel counts, and a weight to match",
                format!("group {} with weight {w:?} on {} channels", self.groups, x[1]),
            ));
        }
        self.window.resolve(&w[2..], &x[2..])
    }
}

/// One resolved window over one input plane.
struct Plane<'a> {
    positions: Vec<u32>,
    window: &'a Window,
    out: &'a [usize],
}

/// Unfolds blocks of output positions and multiplies matrices.
fn convolve(
    x: &ArrayD<f32>,
    w: &ArrayD<f32>,
    bias: Option<&ArrayD<f32>>,
    groups: usize,
    plane: &Plane<'_>,
) -> ArrayD<f32> {
    let (batch, channels, filters) = (x.shape()[0], x.shape()[1], w.shape()[0]);
    let (in_len, out_len) = (x.shape()[2..].iter().product::<usize>(), plane.out.iter().product::<usize>());
    let (per_group, filters_per_group) = (channels / groups, filters / groups);
    let kernel = plane.window.kernel_len();
    let rows = per_group * kernel;
    let (x, w) = (contiguous(x), contiguous(w));
    let w = ArrayView2::from_shape((filters, rows), &w).expect("facts fixed the shape");
    let mut y = Array2::<f32>::zeros((batch * filters, out_len));
    let block = (MAX_UNFOLDED / rows.max(1)).clamp(1, out_len.max(1));
    let mut unfolded = Array2::<f32>::zeros((rows, block));
    for (n, g) in (0..batch).flat_map(|n| (0..groups).map(move |g| (n, g))) {
        let filter = g * filters_per_group..(g + 1) * filters_per_group;
        for start in (0..out_len).step_by(block) {
            let end = (start + block).min(out_len);
            for row in 0..rows {
                let channel = n * channels + g * per_group + row / kernel;
                let source = &x[channel * in_len..(channel + 1) * in_len];
                let from = (row % kernel) * out_len;
                let wanted = &plane.positions[from + start..from + end];
                for (to, &at) in unfolded.row_mut(row).iter_mut().zip(wanted) {
                    *to = if at == PADDING { 0.0 } else { source[at as usize] };
                }
            }
            let filters_of_group = w.slice_axis(Axis(0), Slice::from(filter.clone()));
            let columns = unfolded.slice_axis(Axis(1), Slice::from(..end - start));
            let rows_of_group = Slice::from(n * filters + filter.start..n * filters + filter.end);
            let mut target = y.slice_axis_mut(Axis(0), rows_of_group);
            target.slice_axis_mut(Axis(1), Slice::from(start..end)).assign(&filters_of_group.dot(&columns));
        }
    }
    if let Some(bias) = bias {
        for (mut row, &b) in y.rows_mut().into_iter().zip(bias.iter().cycle()) {
            row += b;
        }
    }
    let shape: Vec<usize> = [batch, filters].into_iter().chain(plane.out.iter().copied()).collect();
    array(&shape, y.into_raw_vec_and_offset().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grouped_dilated_padded_convolution() {
        // Two groups of one channel; kernel (1, 2) dilated by 2; one zero in front.
        let x: Tensor = array(&[1, 2, 3], vec![1.0f32, 2.0, 3.0, 10.0, 20.0, 30.0]).into();
        let w: Tensor = array(&[2, 1, 2], vec![1.0f32, 1.0, 1.0, -1.0]).into();
        let b: Tensor = array(&[2], vec![0.5f32, 0.0]).into();
        let window = WindowSpec { dilations: Some(vec![2]), pads: Some(vec![1, 0]), ..WindowSpec::default() };
        let y = Conv { groups: 2, window }.eval(Args(&[Some(&x), Some(&w), Some(&b)])).unwrap();
        assert_eq!(y[0], array(&[1, 2, 2], vec![2.5f32, 4.5, -20.0, -20.0]).into());
    }

    #[test]
    fn groups_that_do_not_divide_are_refused() {
        let (x, w) = (Fact::float(vec![1, 3, 4]), Fact::float(vec![2, 1, 2]));
        for groups in [-1, 0, 2, 3] {
            let conv = Conv { groups, window: WindowSpec::default() };
            assert!(conv.facts(Args(&[Some(&x), Some(&w)])).is_err(), "{groups}");
        }
    }
}

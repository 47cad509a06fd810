//! ConvTranspose over any number of spatial axes.
//!
//! Element p of the uncropped result is `Σ x[i] · w[k]` over `i · stride + k · dilation = p`. With `p = q · stride + r`,
//! the phase r of p decides which k take part, and each of them reads `x[q - t]` for a `t = k · dilation div stride` of
//! its own. So all phases are one convolution of x with stride 1 and `stride` times as many filters, whose results
//! interleave: no zero is ever multiplied but where phases have kernels of different lengths.

use ndarray::{ArrayD, ArrayView2, IxDyn};
use privet_plan::{Op, Window, WireId};

use super::slice::{Taken, slice};
use crate::tensor::{array, contiguous};
use crate::{Args, AutoPad, Fact, Lowering, OpError, Operator, Tensor, WindowSpec, element_count};

/// The transpose of a convolution: x `[N, C, spatial..]`, w `[C, O/groups, kernel..]` and an optional bias `[O]`.
#[derive(Debug, Clone)]
pub struct ConvTranspose {
    /// Channel groups.
    pub groups: i64,
    /// Strides, dilations, pads (which crop the result) and the kernel's size, which comes from w.
    pub window: WindowSpec,
    /// Elements added behind the last one, per axis.
    pub output_padding: Option<Vec<i64>>,
    /// Spatial shape of the result; the pads follow from it.
    pub output_shape: Option<Vec<i64>>,
}

/// Most phases, which are the product of the strides.
const MAX_PHASES: usize = 1 << 16;
/// Limit of what a window may hold.
const MAX_WINDOW: i64 = 1 << 24;

/// One spatial axis.
#[derive(Debug, Clone, Copy)]
struct Along {
    size: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    /// Elements of the uncropped result in front of the first one.
    before: usize,
    result: usize,
}

impl Operator for ConvTranspose {
    fn name(&self) -> &'static str {
        "ConvTranspose"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let (x, w) = (inputs.float(0, "input")?, inputs.float(1, "weight")?);
        let (filters, axes) = self.resolve(&x.shape, &w.shape)?;
        if let Some(bias) = inputs.optional(2) {
            bias.expect_float("bias")?;
            if bias.shape != [filters] {
                return Err(OpError::mismatch("bias", format!("[{filters}]"), format!("{:?}", bias.shape)));
            }
        }
        Ok(vec![Fact::float(result(x.shape[0], filters, &axes)?)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?.floats("input")?;
        let w = inputs.get(1, "weight")?.floats("weight")?;
        let bias = inputs.optional(2).map(|b| b.floats("bias")).transpose()?;
        let (filters, axes) = self.resolve(x.shape(), w.shape())?;
        let shape = result(x.shape()[0], filters, &axes)?;
        let y = scatter(x, w, self.groups as usize, &axes, &shape);
        let Some(bias) = bias else { return Ok(vec![y.into()]) };
        let mut per_channel = vec![1; shape.len()];
        per_channel[1] = filters;
        Ok(vec![(y + array(&per_channel, contiguous(bias).into_owned())).into()])
    }

    fn work(&self, inputs: Args<'_, Fact>, results: &[Fact]) -> usize {
        let filter = inputs.optional(1).map_or(1, |w| w.len() / w.shape[0].max(1));
        let products = inputs.optional(0).map_or(0, |x| x.len().saturating_mul(filter));
        products.saturating_add(results[0].len())
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        let x = ctx.at_base(x);
        let w = ctx.weight(1, "weight")?;
        let (filters, axes) = self.resolve(ctx.shape_of(x), w.shape())?;
        let phases: Vec<Phases> = axes.iter().map(Phases::of).collect();
        let count = axes.iter().try_fold(1usize, |n, a| n.checked_mul(a.stride).filter(|&n| n <= MAX_PHASES));
        let wide = |p: &Phases| p.begin.max(p.end).max(p.step as i64) >= MAX_WINDOW;
        let Some(count) = count.filter(|_| !phases.iter().any(wide)) else {
            return Err(OpError::unsupported(
                format!("strides and dilations as large as {:?}", self.window),
                "strides with a product of at most 2^16, and kernels that reach over less than 2^24 elements",
            ));
        };
        let base = ctx.base();

        let x = cropped(ctx, x, &phases)?;
        let kernel = phase_kernels(w, self.groups as usize, &axes, &phases)?;
        let weight = ctx.param("weight", &kernel, base)?;
        let bias = match ctx.operands().optional(2) {
            Some(_) => {
                let bias = ctx.weight(2, "bias")?;
                let repeated = bias.iter().flat_map(|&b| std::iter::repeat_n(b, count)).collect();
                Some(ctx.param("bias", &array(&[filters * count], repeated), 2 * base)?)
            }
            None => None,
        };
        let window = Window {
            kernel: phases.iter().map(|p| p.taps as u32).collect(),
            stride: vec![1; axes.len()],
            dilation: phases.iter().map(|p| p.step as u32).collect(),
            pad_begin: phases.iter().map(|p| p.begin.max(0) as u32).collect(),
            pad_end: phases.iter().map(|p| p.end.max(0) as u32).collect(),
        };
        let batch = ctx.shape_of(x)[0];
        let mut shape = vec![batch, filters * count];
        shape.extend(phases.iter().map(|p| p.count));
        let op = Op::Conv { weight, bias, groups: self.groups as u32, window };
        let y = ctx.emit(op, &[x], shape, 2 * base);
        let y = interleaved(ctx, y, filters, &axes, &phases);
        let mut taken: Vec<Taken> =
            [batch, filters].iter().map(|&d| Taken { start: 0, step: 1, count: d }).collect();
        taken.extend(axes.iter().zip(&phases).map(|(a, p)| Taken {
            start: a.before - p.first * a.stride,
            step: 1,
            count: a.result,
        }));
        let whole = ctx.shape_of(y).iter().zip(&taken).all(|(&d, t)| d == t.count);
        Ok(vec![if whole { y } else { slice(ctx, y, &taken)? }])
    }
}

impl ConvTranspose {
    /// Number of filters, and every spatial axis.
    fn resolve(&self, x: &[usize], w: &[usize]) -> Result<(usize, Vec<Along>), OpError> {
        if x.len() < 3 || w.len() != x.len() {
            return Err(OpError::mismatch(
                "weight",
                "[C, O/groups, kernel..] for an input [N, C, spatial..]",
                format!("{w:?} for {x:?}"),
            ));
        }
        let groups = usize::try_from(self.groups).unwrap_or(0);
        if groups == 0 || w[0] != x[1] || !x[1].is_multiple_of(groups) {
            return Err(OpError::mismatch(
                "group",
                "a divisor of the channels, and a weight to match",
                format!("group {} with weight {w:?} on {} channels", self.groups, x[1]),
            ));
        }
        let filters = w[1].checked_mul(groups).filter(|&f| f <= 1 << 24);
        let filters = filters.ok_or_else(|| OpError::mismatch("weight", "at most 2^24 filters", w[1]))?;
        let (spatial, axes) = (&x[2..], x.len() - 2);
        let strides = numbers("strides", self.window.strides.as_deref(), axes, 1, 1)?;
        let dilations = numbers("dilations", self.window.dilations.as_deref(), axes, 1, 1)?;
        let extra = numbers("output_padding", self.output_padding.as_deref(), axes, 0, 0)?;
        let declared = numbers("pads", self.window.pads.as_deref(), 2 * axes, 0, 0)?;
        if let Some(kernel) = &self.window.kernel
            && !kernel.iter().map(|&k| usize::try_from(k).ok()).eq(w[2..].iter().map(|&k| Some(k)))
        {
            return Err(OpError::mismatch("kernel_shape", format!("{:?}", &w[2..]), format!("{kernel:?}")));
        }
        if spatial.iter().chain(&w[2..]).any(|&d| d == 0 || d >= 1 << 24) {
            return Err(OpError::mismatch("input", "axes of 1 to 2^24 elements", format!("{x:?} and {w:?}")));
        }
        let wanted = match &self.output_shape {
            // Some exporters list batch and channels too.
            Some(shape) if shape.len() == axes + 2 => Some(&shape[2..]),
            Some(shape) => Some(shape.as_slice()),
            None => None,
        };
        let wanted = wanted.map(|s| numbers("output_shape", Some(s), axes, 1, 1)).transpose()?;
        let along = |a: usize| {
            let (size, kernel, stride, dilation) = (spatial[a], w[2 + a], strides[a], dilations[a]);
            let full = stride * (size - 1) + extra[a] + (kernel - 1) * dilation + 1;
            let (mut before, mut after) = (declared[a], declared[a + axes]);
            let same = matches!(self.window.auto_pad, AutoPad::SameUpper | AutoPad::SameLower);
            let result = match &wanted {
                Some(shape) => Some(shape[a]),
                None if same => Some(size * stride),
                None => None,
            };
            if let Some(result) = result {
                let total = full.saturating_sub(result);
                let upper = self.window.auto_pad == AutoPad::SameUpper;
                before = if upper { total / 2 } else { total - total / 2 };
                return Ok(Along { size, kernel, stride, dilation, before, result });
            }
            if self.window.auto_pad == AutoPad::Valid {
                (before, after) = (0, 0);
            }
            match full.checked_sub(before + after).filter(|&r| r > 0) {
                Some(result) => Ok(Along { size, kernel, stride, dilation, before, result }),
                None => Err(OpError::mismatch(
                    "pads",
                    format!("pads that leave some of {full} elements"),
                    format!("{before} and {after}"),
                )),
            }
        };
        Ok((filters, (0..axes).map(along).collect::<Result<_, _>>()?))
    }
}

/// Positions of the result within one axis, sorted by phase.
#[derive(Debug, Clone, Copy)]
struct Phases {
    /// First q that the result needs.
    first: usize,
    /// How many q the result needs.
    count: usize,
    /// Kernel elements per phase.
    taps: usize,
    /// Distance of the elements that they read.
    step: usize,
    /// Padding of x, before and after; negative numbers crop.
    begin: i64,
    end: i64,
}

impl Phases {
    fn of(a: &Along) -> Self {
        let first = a.before / a.stride;
        let count = (a.before + a.result - 1) / a.stride - first + 1;
        // All elements read at multiples of `step` before q.
        let step = (0..a.kernel).fold(0, |g, k| gcd(g, k * a.dilation / a.stride)).max(1);
        let reach = (a.kernel - 1) * a.dilation / a.stride;
        Self {
            first,
            count,
            taps: reach / step + 1,
            step,
            begin: reach as i64 - first as i64,
            end: (first + count) as i64 - a.size as i64,
        }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The part of x that the result depends on.
fn cropped(ctx: &mut Lowering<'_>, x: WireId, phases: &[Phases]) -> Result<WireId, OpError> {
    let shape = ctx.shape_of(x).to_vec();
    if phases.iter().all(|p| p.begin >= 0 && p.end >= 0) {
        return Ok(x);
    }
    let mut taken: Vec<Taken> = shape[..2].iter().map(|&d| Taken { start: 0, step: 1, count: d }).collect();
    for (p, &size) in phases.iter().zip(&shape[2..]) {
        let (start, end) = ((-p.begin).max(0) as usize, (-p.end).max(0) as usize);
        let count = size.checked_sub(start + end).filter(|&c| c > 0).ok_or_else(|| {
            OpError::unsupported("a result that reads none of the input".to_owned(), "smaller pads")
        })?;
        taken.push(Taken { start, step: 1, count });
    }
    slice(ctx, x, &taken)
}

/// Kernels of all phases, `[O · phases, C/groups, taps..]`, phases varying faster than filters.
fn phase_kernels(
    w: &ArrayD<f32>,
    groups: usize,
    axes: &[Along],
    phases: &[Phases],
) -> Result<ArrayD<f32>, OpError> {
    let (channels, filters) = (w.shape()[0] / groups, w.shape()[1]);
    let count: usize = axes.iter().map(|a| a.stride).product();
    let mut shape = vec![groups * filters * count, channels];
    shape.extend(phases.iter().map(|p| p.taps));
    element_count("kernels of all phases", &shape)?;
    let mut kernels = ArrayD::zeros(IxDyn(&shape));
    let mut to = vec![0; shape.len()];
    for (at, &value) in w.indexed_iter() {
        let (group, channel) = (at[0] / channels, at[0] % channels);
        let mut phase = 0;
        for (i, (a, p)) in axes.iter().zip(phases).enumerate() {
            let offset = at[i + 2] * a.dilation;
            phase = phase * a.stride + offset % a.stride;
            // The element that is read furthest before q comes first.
            to[i + 2] = p.taps - 1 - offset / a.stride / p.step;
        }
        to[0] = (group * filters + at[1]) * count + phase;
        to[1] = channel;
        kernels[IxDyn(&to)] = value;
    }
    Ok(kernels)
}

/// `[N, O · phases, q..]` as `[N, O, q · stride + phase..]`.
fn interleaved(
    ctx: &mut Lowering<'_>,
    y: WireId,
    filters: usize,
    axes: &[Along],
    phases: &[Phases],
) -> WireId {
    if axes.iter().all(|a| a.stride == 1) {
        return y;
    }
    let (batch, n) = (ctx.shape_of(y)[0], axes.len());
    let mut split = vec![batch, filters];
    split.extend(axes.iter().map(|a| a.stride));
    split.extend(phases.iter().map(|p| p.count));
    let mut perm = vec![0, 1];
    perm.extend((0..n).flat_map(|a| [2 + n + a, 2 + a]));
    let mut joined = vec![batch, filters];
    joined.extend(axes.iter().zip(phases).map(|(a, p)| a.stride * p.count));
    let y = ctx.reshape(y, &split);
    let y = ctx.transpose(y, &perm);
    ctx.reshape(y, &joined)
}

fn result(batch: usize, filters: usize, axes: &[Along]) -> Result<Vec<usize>, OpError> {
    let shape: Vec<usize> = [batch, filters].into_iter().chain(axes.iter().map(|a| a.result)).collect();
    element_count("result", &shape)?;
    Ok(shape)
}

/// A list of `len` numbers from `least` to 2^24.
fn numbers(
    what: &'static str,
    given: Option<&[i64]>,
    len: usize,
    least: usize,
    default: usize,
) -> Result<Vec<usize>, OpError> {
    let Some(given) = given else { return Ok(vec![default; len]) };
    let fits = |&v: &i64| usize::try_from(v).ok().filter(|v| (least..1 << 24).contains(v));
    let values: Option<Vec<usize>> = given.iter().map(fits).collect();
    values.filter(|v| v.len() == len).ok_or_else(|| {
        OpError::mismatch(what, format!("{len} numbers from {least} to 2^24"), format!("{given:?}"))
    })
}

/// For every kernel element a matrix product, added where it belongs.
fn scatter(x: &ArrayD<f32>, w: &ArrayD<f32>, groups: usize, axes: &[Along], shape: &[usize]) -> ArrayD<f32> {
    let (channels, filters) = (w.shape()[0] / groups, w.shape()[1]);
    let in_len: usize = axes.iter().map(|a| a.size).product();
    let out_len: usize = axes.iter().map(|a| a.result).product();
    let kernel: Vec<usize> = axes.iter().map(|a| a.kernel).collect();
    let kernel_len: usize = kernel.iter().product();
    // [kernel.., C, O/groups], so that every kernel element has its matrix in one piece.
    let order: Vec<usize> = (2..w.ndim()).chain([0, 1]).collect();
    let w = w.view().permuted_axes(order).as_standard_layout().into_owned();
    let (x, w) = (contiguous(x), contiguous(&w));
    let mut y = vec![0.0f32; shape.iter().product()];
    for k in 0..kernel_len {
        let targets = targets(k, &kernel, axes);
        for n in 0..shape[0] {
            for g in 0..groups {
                let first = (n * groups + g) * channels * in_len;
                let planes = ArrayView2::from_shape((channels, in_len), &x[first..first + channels * in_len]);
                let first = (k * groups + g) * channels * filters;
                let matrix =
                    ArrayView2::from_shape((channels, filters), &w[first..first + channels * filters]);
                let (planes, matrix) =
                    (planes.expect("the slice is one group"), matrix.expect("the slice is one matrix"));
                let product = matrix.t().dot(&planes);
                for (filter, row) in product.rows().into_iter().enumerate() {
                    let plane = ((n * groups + g) * filters + filter) * out_len;
                    for (value, target) in row.iter().zip(&targets) {
                        if let Some(target) = target {
                            y[plane + target] += value;
                        }
                    }
                }
            }
        }
    }
    array(shape, y)
}

/// Where the products of kernel element `k` go, for every element of the input's plane.
fn targets(k: usize, kernel: &[usize], axes: &[Along]) -> Vec<Option<usize>> {
    let mut targets = vec![Some(0)];
    let mut below: usize = kernel.iter().product();
    for a in axes {
        below /= a.kernel;
        let offset = k / below % a.kernel * a.dilation;
        let to = |i: usize| (i * a.stride + offset).checked_sub(a.before).filter(|&o| o < a.result);
        let along: Vec<Option<usize>> = (0..a.size).map(to).collect();
        let join = |t: Option<usize>, o: Option<usize>| Some(t? * a.result + o?);
        targets = targets.iter().flat_map(|&t| along.iter().map(move |&o| join(t, o))).collect();
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transpose(window: WindowSpec) -> ConvTranspose {
        ConvTranspose { groups: 1, window, output_padding: None, output_shape: None }
    }

    #[test]
    fn a_strided_kernel_spreads_elements() {
        let window = WindowSpec { strides: Some(vec![2]), ..WindowSpec::default() };
        let x: Tensor = array(&[1, 1, 2], vec![1.0f32, 10.0]).into();
        let w: Tensor = array(&[1, 1, 3], vec![1.0f32, 2.0, 3.0]).into();
        let y = transpose(window).eval(Args(&[Some(&x), Some(&w)])).unwrap();
        assert_eq!(y[0], array(&[1, 1, 5], vec![1.0f32, 2.0, 13.0, 20.0, 30.0]).into());
    }

    #[test]
    fn shapes_follow_from_pads_or_pads_from_shapes() {
        let along =
            |op: ConvTranspose| op.resolve(&[1, 1, 4], &[1, 1, 3]).map(|(_, a)| (a[0].before, a[0].result));
        let strided = |pads: Option<Vec<i64>>, auto_pad| {
            transpose(WindowSpec { strides: Some(vec![2]), pads, auto_pad, ..WindowSpec::default() })
        };
        assert_eq!(along(strided(None, AutoPad::NotSet)), Ok((0, 9)));
        assert_eq!(along(strided(Some(vec![1, 2]), AutoPad::NotSet)), Ok((1, 6)));
        assert_eq!(along(strided(None, AutoPad::SameUpper)), Ok((0, 8)));
        assert_eq!(along(strided(None, AutoPad::SameLower)), Ok((1, 8)));
        let shaped = ConvTranspose { output_shape: Some(vec![12]), ..strided(None, AutoPad::NotSet) };
        assert_eq!(along(shaped), Ok((0, 12)));
        let extra = ConvTranspose { output_padding: Some(vec![1]), ..strided(None, AutoPad::NotSet) };
        assert_eq!(along(extra), Ok((0, 10)));
        assert!(along(strided(Some(vec![5, 4]), AutoPad::NotSet)).is_err());
        assert!(along(strided(Some(vec![-1, 0]), AutoPad::NotSet)).is_err());
    }

    #[test]
    fn phases_share_the_taps() {
        let along = Along { size: 5, kernel: 4, stride: 2, dilation: 1, before: 1, result: 10 };
        let phases = Phases::of(&along);
        assert_eq!((phases.first, phases.count, phases.taps, phases.step), (0, 6, 2, 1));
        // Without a stride, dilation stays dilation.
        let phases = Phases::of(&Along { stride: 1, dilation: 3, before: 0, result: 14, ..along });
        assert_eq!((phases.taps, phases.step, phases.begin, phases.end), (4, 3, 9, 9));
    }
}

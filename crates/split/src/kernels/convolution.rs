//! Convolution over two axes, as a matrix product with the unfolded picture. `rten-gemm` unfolds it block by block while it
//! packs, at most 256 rows and 1024 output positions at a time, so that the unfolded picture never exists.

use rten_gemm::{
    BiasVector, ColOffsets, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, Im2Col, RowOffsets,
};
use rten_tensor::NdTensorView;

use super::Rows;
use crate::SplitError;

/// Sizes of a convolution of `[batch, channels, height, width]`.
#[derive(Debug, Clone)]
pub(crate) struct Convolution {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    pub(crate) filters: usize,
    pub(crate) groups: usize,
    pub(crate) input: [usize; 2],
    pub(crate) output: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    pub(crate) padding: [usize; 2],
}

impl Convolution {
    /// Weights of one filter.
    fn filter(&self) -> usize {
        self.channels / self.groups * self.kernel[0] * self.kernel[1]
    }

    /// Whether every output is a product of the inputs at its own position.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0] && self.input == self.output
    }

    fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.channels
    }

    /// Bytes that [`convolve`] takes besides operands and result.
    pub(crate) fn workspace(&self) -> usize {
        if self.is_pointwise() || self.is_depthwise() {
            return 0;
        }
        // Two offsets for every output position, three for every row of the unfolded picture.
        8 * self.output[0] * self.output[1] + 12 * self.filter()
    }
}

/// The convolution of `x` with the rows of `w` and an optional bias.
pub(crate) fn convolve(
    gemm: &GemmExecutor,
    sizes: &Convolution,
    x: &[f32],
    w: &mut dyn Rows,
    bias: Option<&[f32]>,
) -> Result<Vec<f32>, SplitError> {
    let plane = sizes.output[0] * sizes.output[1];
    let mut y = vec![0.0f32; sizes.batch * sizes.filters * plane];
    if y.is_empty() {
        return Ok(y);
    }
    let (per_group, filters) = (sizes.channels / sizes.groups, sizes.filters / sizes.groups);
    let in_plane = sizes.input[0] * sizes.input[1];
    if sizes.is_depthwise() {
        w.blocks(&mut |first, block| depthwise(sizes, x, first, block, bias, &mut y))?;
        return Ok(y);
    }
    let [height, width] = sizes.input;
    let image = |n: usize, group: usize| {
        let from = (n * sizes.channels + group * per_group) * in_plane;
        &x[from..from + per_group * in_plane]
    };
    let picture =
        |n: usize, group: usize| NdTensorView::from_data([per_group, height, width], image(n, group));
    let mut unfolded = (!sizes.is_pointwise()).then(|| unfold(gemm, sizes, picture(0, 0)));
    let mut failed = None;
    w.blocks(&mut |first, block| {
        let rows = block.len() / sizes.filter();
        // A block may reach over several groups.
        let mut row = 0;
        while row < rows {
            let group = (first + row) / filters;
            let take = (rows - row).min((group + 1) * filters - (first + row));
            let weights = &block[row * sizes.filter()..(row + take) * sizes.filter()];
            let a = GemmInputA::Unpacked(NdTensorView::from_data([take, sizes.filter()], weights));
            for n in 0..sizes.batch {
                let to = (n * sizes.filters + first + row) * plane;
                let target = &mut y[to..to + take * plane];
                let bias = bias.map(|b| BiasVector::Column(&b[first + row..first + row + take]));
                let options = GemmOptions { bias, ..GemmOptions::default() };
                let done = if let Some(unfolded) = &mut unfolded {
                    unfolded.image = picture(n, group);
                    gemm.gemm(target, a, GemmInputB::Im2Col(unfolded), options)
                } else {
                    let b = NdTensorView::from_data([per_group, plane], image(n, group));
                    gemm.gemm(target, a, GemmInputB::Unpacked(b), options)
                };
                failed = failed.take().or(done.err());
            }
            row += take;
        }
    })?;
    match failed {
        None => Ok(y),
        Some(error) => Err(SplitError::Kernel(error.to_string())),
    }
}

/// The unfolded picture: for every row and column, where it lies in the picture. Offsets are those of the first group's
/// channels, `image` is exchanged.
fn unfold<'a>(gemm: &GemmExecutor, sizes: &Convolution, image: NdTensorView<'a, f32, 3>) -> Im2Col<'a, f32> {
    let [height, width] = sizes.input;
    let [kernel_y, kernel_x] = sizes.kernel;
    let (n_rows, n_cols) = (sizes.filter(), sizes.output[0] * sizes.output[1]);
    let padded_rows = n_rows.next_multiple_of(gemm.im2col_row_count_step());
    let padded_cols = n_cols.next_multiple_of(gemm.im2col_col_count_step());
    // What fills the tables up points outside of the picture.
    let outside = i32::MAX / 4;
    let row = |f: &dyn Fn(usize, usize, usize) -> i32, filler: i32| {
        let place = |row: usize| {
            let (channel, k) = (row / (kernel_y * kernel_x), row % (kernel_y * kernel_x));
            if row < n_rows { f(channel, k / kernel_x, k % kernel_x) } else { filler }
        };
        (0..padded_rows).map(place).collect::<Vec<i32>>()
    };
    let col = |axis: usize, step: usize| {
        let at = |col: usize| {
            let o = if axis == 0 { col / sizes.output[1] } else { col % sizes.output[1] };
            let at = (o * sizes.stride[axis]) as i32 - sizes.padding[axis] as i32;
            if col < n_cols { at * step as i32 } else { outside }
        };
        (0..padded_cols).map(at).collect::<Vec<i32>>()
    };
    Im2Col {
        image,
        row_offsets: RowOffsets {
            chan: row(&|channel, _, _| (channel * height * width) as i32, 0),
            y: row(&|_, y, _| (y * sizes.dilation[0] * width) as i32, outside),
            x: row(&|_, _, x| (x * sizes.dilation[1]) as i32, outside),
        },
        col_offsets: ColOffsets { y: col(0, width), x: col(1, 1) },
        n_cols,
        n_rows,
        max_y_offset: ((height - 1) * width) as i32,
        max_x_offset: width as i32 - 1,
    }
}

/// Filters of one channel each: products of rows with single weights.
fn depthwise(
    sizes: &Convolution,
    x: &[f32],
    first: usize,
    block: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    let ([height, width], [out_height, out_width]) = (sizes.input, sizes.output);
    let filters = sizes.filters / sizes.groups;
    for (row, weights) in block.chunks_exact(sizes.filter()).enumerate() {
        let filter = first + row;
        for n in 0..sizes.batch {
            let from = (n * sizes.channels + filter / filters) * height * width;
            let image = &x[from..from + height * width];
            let to = (n * sizes.filters + filter) * out_height * out_width;
            let target = &mut y[to..to + out_height * out_width];
            target.fill(bias.map_or(0.0, |b| b[filter]));
            for (k, &weight) in weights.iter().enumerate() {
                let reach =
                    [k / sizes.kernel[1] * sizes.dilation[0], k % sizes.kernel[1] * sizes.dilation[1]];
                let columns = valid(reach[1], sizes.padding[1], sizes.stride[1], width, out_width);
                for out_row in valid(reach[0], sizes.padding[0], sizes.stride[0], height, out_height) {
                    let at = (out_row * sizes.stride[0] + reach[0] - sizes.padding[0]) * width;
                    let line = &image[at..at + width];
                    let target = &mut target[out_row * out_width..][columns.clone()];
                    let start = (columns.start * sizes.stride[1] + reach[1]).saturating_sub(sizes.padding[1]);
                    if sizes.stride[1] == 1 {
                        target.iter_mut().zip(&line[start..]).for_each(|(t, v)| *t += weight * v);
                    } else {
                        let line = line.get(start..).unwrap_or_default().iter().step_by(sizes.stride[1]);
                        target.iter_mut().zip(line).for_each(|(t, v)| *t += weight * v);
                    }
                }
            }
        }
    }
}

/// The output positions for which an element of the window lies in the picture.
fn valid(reach: usize, padding: usize, stride: usize, size: usize, out: usize) -> std::ops::Range<usize> {
    let first = padding.saturating_sub(reach).div_ceil(stride);
    let end = (size + padding).saturating_sub(reach).div_ceil(stride).min(out);
    first.min(end)..end
}

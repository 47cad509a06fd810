//! Maxima over windows of two axes.

/// Sizes of one plane and its windows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows {
    pub(crate) input: [usize; 2],
    pub(crate) output: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    pub(crate) padding: [usize; 2],
}

/// The maximum of every window of every plane of `x`; padding never wins.
pub(crate) fn max_pool(sizes: &Windows, x: &[f32]) -> Vec<f32> {
    let ([height, width], [out_height, out_width]) = (sizes.input, sizes.output);
    let planes = x.len() / (height * width).max(1);
    let mut y = vec![f32::NEG_INFINITY; planes * out_height * out_width];
    let mut line = vec![0.0f32; width];
    for (image, target) in x.chunks_exact(height * width).zip(y.chunks_exact_mut(out_height * out_width)) {
        for (out_row, target) in target.chunks_exact_mut(out_width).enumerate() {
            // First over the rows of the window, then over its columns.
            line.fill(f32::NEG_INFINITY);
            for k in 0..sizes.kernel[0] {
                let at = out_row * sizes.stride[0] + k * sizes.dilation[0];
                let Some(row) = at.checked_sub(sizes.padding[0]).filter(|&row| row < height) else {
                    continue;
                };
                let source = &image[row * width..(row + 1) * width];
                line.iter_mut().zip(source).for_each(|(m, &v)| *m = m.max(v));
            }
            for (out_col, value) in target.iter_mut().enumerate() {
                for k in 0..sizes.kernel[1] {
                    let at = out_col * sizes.stride[1] + k * sizes.dilation[1];
                    if let Some(&v) = at.checked_sub(sizes.padding[1]).and_then(|col| line.get(col)) {
                        *value = value.max(v);
                    }
                }
            }
        }
    }
    y
}

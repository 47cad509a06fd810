//! Convolution over `u64` lanes, modulo 2^64, for any number of spatial axes.

use crate::gemm::{axpy, gemm_with};
use crate::geometry::Window;

/// A tap that reads padding.
const PADDING: u32 = u32::MAX;

/// Which input position every output position reads at every kernel position.
pub struct Taps {
    positions: usize,
    /// `[kernel position][output position]`, row-major input offsets or [`PADDING`].
    table: Vec<u32>,
}

impl Taps {
    /// Taps of `window` from `input` to `output` spatial sizes.
    pub fn new(window: &Window, input: &[usize], output: &[usize]) -> Self {
        let positions: usize = output.iter().product();
        let mut table = vec![0u32; window.kernel_len() * positions];
        let mut stride = 1;
        for axis in (0..window.axes()).rev() {
            let (kernel, size, out) = (window.kernel[axis] as usize, input[axis], output[axis]);
            let inner_kernel: usize = window.kernel[axis + 1..].iter().map(|&k| k as usize).product();
            let inner_out: usize = output[axis + 1..].iter().product();
            for (kp, row) in table.chunks_exact_mut(positions).enumerate() {
                let k = kp / inner_kernel % kernel;
                for (p, tap) in row.iter_mut().enumerate() {
                    match window.input_position(axis, p / inner_out % out, k, size) {
                        Some(at) if *tap != PADDING => *tap += (at * stride) as u32,
                        _ => *tap = PADDING,
                    }
                }
            }
            stride *= size;
        }
        Self { positions, table }
    }

    /// Output positions.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Input offsets that output position `out` reads, in kernel order, padding left out.
    pub fn of(&self, out: usize) -> impl Iterator<Item = usize> + '_ {
        self.table[out..].iter().step_by(self.positions).filter(|&&t| t != PADDING).map(|&t| t as usize)
    }

    fn row(&self, kernel_position: usize) -> &[u32] {
        &self.table[kernel_position * self.positions..][..self.positions]
    }
}

/// Sizes of a convolution of `[batch, in_channels, spatial..]` by `[out_channels, in_channels / groups, kernel..]`.
pub struct Conv<'a> {
    /// Images.
    pub batch: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Channel groups; divides both channel counts.
    pub groups: usize,
    /// The window.
    pub window: &'a Window,
    /// Spatial sizes of the input.
    pub input: &'a [usize],
    /// Spatial sizes of the output.
    pub output: &'a [usize],
}

impl Conv<'_> {
    /// The convolution of `x` by `w`, zero-padded, row-major, modulo 2^64.
    pub fn apply(&self, x: &[u64], w: &[u64]) -> Vec<u64> {
        let taps = Taps::new(self.window, self.input, self.output);
        let (inputs, outputs) = (self.input.iter().product::<usize>(), taps.positions());
        let (group_in, group_out) = (self.in_channels / self.groups, self.out_channels / self.groups);
        let depth = group_in * self.window.kernel_len();
        assert!(x.len() == self.batch * self.in_channels * inputs && w.len() == self.out_channels * depth);
        let mut z = vec![0; self.batch * self.out_channels * outputs];
        for n in 0..self.batch {
            for g in 0..self.groups {
                let x = &x[(n * self.in_channels + g * group_in) * inputs..][..group_in * inputs];
                let w = &w[g * group_out * depth..][..group_out * depth];
                let z = &mut z[(n * self.out_channels + g * group_out) * outputs..][..group_out * outputs];
                if group_out == 1 {
                    self.one_channel(&taps, inputs, x, w, z);
                } else {
                    self.by_gemm(&taps, inputs, x, w, z);
                }
            }
        }
        z
    }

    /// Kernels times gathered columns; the columns are gathered straight into the product's panels.
    fn by_gemm(&self, taps: &Taps, inputs: usize, x: &[u64], w: &[u64], z: &mut [u64]) {
        let kernel = self.window.kernel_len();
        let (m, n) = (z.len() / taps.positions(), taps.positions());
        let k = w.len() / m;
        gemm_with(m, n, k, w, z, |k0, j0, depth, columns, panel| {
            let width = panel.len() / depth;
            for (p, row) in panel.chunks_exact_mut(width).enumerate() {
                let (channel, at) = ((k0 + p) / kernel, (k0 + p) % kernel);
                gather(&x[channel * inputs..][..inputs], &taps.row(at)[j0..j0 + columns], row);
            }
        });
    }

    /// One output channel per group (depthwise): a product would waste most of its tile.
    fn one_channel(&self, taps: &Taps, inputs: usize, x: &[u64], w: &[u64], z: &mut [u64]) {
        let kernel = self.window.kernel_len();
        let mut gathered = vec![0; z.len()];
        for (i, &factor) in w.iter().enumerate() {
            gather(&x[i / kernel * inputs..][..inputs], taps.row(i % kernel), &mut gathered);
            axpy(factor, &gathered, z);
        }
    }
}

/// Reads the tapped elements of one channel, zero for padding.
fn gather(channel: &[u64], taps: &[u32], out: &mut [u64]) {
    for (o, &tap) in out.iter_mut().zip(taps) {
        *o = channel.get(tap as usize).copied().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prg::{Prg, Seed};

    /// Straight from the definition, two spatial axes.
    fn naive(c: &Conv, x: &[u64], w: &[u64]) -> Vec<u64> {
        let [kh, kw] = [c.window.kernel[0] as usize, c.window.kernel[1] as usize];
        let ([h, wd], [oh, ow]) = ([c.input[0], c.input[1]], [c.output[0], c.output[1]]);
        let (gi, go) = (c.in_channels / c.groups, c.out_channels / c.groups);
        let mut z = Vec::new();
        for n in 0..c.batch {
            for o in 0..c.out_channels {
                for y in 0..oh {
                    for xx in 0..ow {
                        let mut sum = 0u64;
                        for i in 0..gi {
                            for a in 0..kh {
                                for b in 0..kw {
                                    let at = c
                                        .window
                                        .input_position(0, y, a, h)
                                        .zip(c.window.input_position(1, xx, b, wd));
                                    if let Some((r, s)) = at {
                                        let xi = x[((n * c.in_channels + o / go * gi + i) * h + r) * wd + s];
                                        sum = sum.wrapping_add(
                                            xi.wrapping_mul(w[((o * gi + i) * kh + a) * kw + b]),
                                        );
                                    }
                                }
                            }
                        }
                        z.push(sum);
                    }
                }
            }
        }
        z
    }

    #[test]
    fn equals_the_definition_for_strides_dilations_pads_and_groups() {
        let prg = Prg::new(&Seed::from_bytes([3; 16]));
        let cases = [
            (1, 3, 8, 1, [3, 3], [1, 1], [1, 1], [1, 1], [1, 1], [9, 7]),
            (2, 4, 6, 2, [3, 2], [2, 1], [1, 2], [0, 1], [2, 0], [8, 9]),
            (1, 5, 5, 5, [3, 3], [2, 2], [1, 1], [1, 1], [1, 1], [10, 10]),
            (1, 6, 18, 6, [1, 1], [1, 3], [1, 1], [0, 0], [0, 0], [5, 40]),
            (1, 20, 9, 1, [5, 5], [1, 1], [1, 1], [2, 2], [2, 2], [12, 12]),
        ];
        for (batch, in_channels, out_channels, groups, kernel, stride, dilation, begin, end, input) in cases {
            let window = Window {
                kernel: kernel.into(),
                stride: stride.into(),
                dilation: dilation.into(),
                pad_begin: begin.into(),
                pad_end: end.into(),
            };
            let input = input.map(|v: usize| v);
            let output = window.output(&input, false).unwrap();
            let conv = Conv {
                batch,
                in_channels,
                out_channels,
                groups,
                window: &window,
                input: &input,
                output: &output,
            };
            let x = prg.stream(1).words(batch * in_channels * input[0] * input[1], u64::MAX);
            let w = prg.stream(2).words(out_channels * in_channels / groups * window.kernel_len(), u64::MAX);
            assert_eq!(conv.apply(&x, &w), naive(&conv, &x, &w), "{window:?}");
        }
    }

    #[test]
    fn one_and_three_axes() {
        let window = Window {
            kernel: vec![2],
            stride: vec![1],
            dilation: vec![1],
            pad_begin: vec![1],
            pad_end: vec![0],
        };
        let conv = Conv {
            batch: 1,
            in_channels: 1,
            out_channels: 2,
            groups: 1,
            window: &window,
            input: &[3],
            output: &[3],
        };
        assert_eq!(conv.apply(&[1, 2, 3], &[10, 1, 0, 2]), vec![1, 12, 23, 2, 4, 6]);
        let window = Window::global(&[2, 2, 2]);
        let conv = Conv { window: &window, input: &[2, 2, 2], output: &[1, 1, 1], out_channels: 1, ..conv };
        assert_eq!(conv.apply(&[1, 2, 3, 4, 5, 6, 7, 8], &[1, 0, 0, 0, 0, 0, 0, 100]), vec![801]);
    }
}

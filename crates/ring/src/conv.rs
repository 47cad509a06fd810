//! Convolution over `u64` lanes, modulo 2^l, for any number of spatial axes.

use crate::direct::Rows;
use crate::gemm::gemm_with;
use crate::geometry::Window;
use crate::kernel::Kernel;
#[cfg(target_arch = "x86_64")]
use crate::kernel::amx::{self, Room, Side, Sizes, image};
use crate::packed::{PackedWeights, WeightShape};
use crate::right::{Right, Runs};
#[cfg(target_arch = "x86_64")]
use crate::threads::divide;
use crate::threads::on_threads;

/// Most output channels of a group that is convolved without a matrix product.
const DIRECT: usize = 2;

/// A tap that reads padding.
pub(crate) const PADDING: u32 = u32::MAX;

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
        // One axis after the other: [outer kernel positions][outer outputs] becomes [.., kernel][.., outputs].
        let mut table = vec![0u32];
        let mut outer = 1;
        for axis in 0..window.axes() {
            let (kernel, size) = (window.kernel[axis] as usize, input[axis]);
            let mut inner = Vec::with_capacity(table.len() * kernel * output[axis]);
            for row in table.chunks_exact(outer) {
                for k in 0..kernel {
                    let own: Vec<u32> = (0..output[axis])
                        .map(|p| window.input_position(axis, p, k, size).map_or(PADDING, |at| at as u32))
                        .collect();
                    for &tap in row {
                        let start = tap.wrapping_mul(size as u32);
                        let padded = |at| if tap == PADDING || at == PADDING { PADDING } else { start + at };
                        inner.extend(own.iter().map(|&at| padded(at)));
                    }
                }
            }
            outer *= output[axis];
            table = inner;
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

    /// Offsets that all output positions read, for one kernel position after the other.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[u32]> {
        self.table.chunks_exact(self.positions.max(1))
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
    /// The convolution of `x` by `w`, zero-padded, row-major, modulo the 2^l that `kernel` was chosen for; bits above l
    /// are garbage.
    pub fn apply(&self, kernel: Kernel, x: &[u64], w: &[u64]) -> Vec<u64> {
        self.convolve(kernel, x, Filters::Elements(w))
    }

    /// The same by filters of [`weight_shape`](Self::weight_shape) that were packed for `kernel`: for many products by the same
    /// ones.
    pub fn apply_packed(&self, kernel: Kernel, x: &[u64], w: &PackedWeights) -> Vec<u64> {
        assert_eq!(w.shape(), self.weight_shape(), "shape of the filters");
        let kernel = w.kernel(kernel);
        self.convolve(kernel, x, w.elements().map_or(Filters::Packed(w), Filters::Elements))
    }

    /// What [`apply`](Self::apply) takes in place of `kernel` for these sizes.
    pub fn kernel(&self, kernel: Kernel) -> Kernel {
        let [group_out, outputs, depth] = self.sizes();
        let is_direct = group_out <= DIRECT && Rows::new(self.window, self.input, self.output).is_some();
        if is_direct { kernel.of_loops() } else { kernel.for_shape([group_out, outputs, depth]) }
    }

    /// Of the product of a group: output channels, positions, depth.
    fn sizes(&self) -> [usize; 3] {
        let (group_in, group_out) = (self.in_channels / self.groups, self.out_channels / self.groups);
        [group_out, self.output.iter().product(), group_in * self.window.kernel_len()]
    }

    /// What the filters are to be packed as.
    pub fn weight_shape(&self) -> WeightShape {
        WeightShape::Filters {
            out_channels: self.out_channels,
            channels: self.in_channels / self.groups,
            taps: self.window.kernel_len(),
            groups: self.groups,
        }
    }

    fn convolve(&self, kernel: Kernel, x: &[u64], w: Filters) -> Vec<u64> {
        let inputs = self.input.iter().product::<usize>();
        let group_in = self.in_channels / self.groups;
        let sizes @ [group_out, outputs, depth] = self.sizes();
        assert!(x.len() == self.batch * self.in_channels * inputs);
        let mut z = vec![0; self.batch * self.out_channels * outputs];
        if z.is_empty() || depth == 0 {
            return z;
        }
        let w = match w {
            #[cfg(not(target_arch = "x86_64"))]
            Filters::Packed(_) => unreachable!("without tiles there are elements"),
            #[cfg(target_arch = "x86_64")]
            Filters::Packed(_) => {
                self.tiled(kernel, sizes, x, &w, &mut z);
                return z;
            }
            Filters::Elements(w) => w,
        };
        assert!(w.len() == self.out_channels * depth);
        if group_out <= DIRECT
            && let Some(rows) = Rows::new(self.window, self.input, self.output)
        {
            self.direct(kernel, &rows, x, w, &mut z);
            return z;
        }
        let kernel = kernel.for_shape(sizes);
        #[cfg(target_arch = "x86_64")]
        if kernel.tiles().is_some() {
            self.tiled(kernel, sizes, x, &Filters::Elements(w), &mut z);
            return z;
        }
        let taps = Taps::new(self.window, self.input, self.output);
        let runs = Runs::new(&taps, inputs);
        let groups = x.chunks_exact(group_in * inputs).zip(z.chunks_exact_mut(group_out * outputs));
        for ((x, z), w) in groups.zip(w.chunks_exact(group_out * depth).cycle()) {
            // Kernels times gathered columns; the columns are gathered straight into the product's panels.
            gemm_with(kernel, sizes, w, z, Right::new(x, &runs));
        }
        z
    }

    /// In tiles of digits, which the image is split into once.
    #[cfg(target_arch = "x86_64")]
    fn tiled(&self, kernel: Kernel, sizes: [usize; 3], x: &[u64], w: &Filters, z: &mut [u64]) {
        let ring = kernel.tiles().expect("a kernel that multiplies tiles");
        let [group_out, outputs, depth_len] = sizes;
        let inputs = self.input.iter().product::<usize>();
        let group_in = self.in_channels / self.groups;
        let taps = Taps::new(self.window, self.input, self.output);
        let reads = image::Reads::new(&taps.table, outputs, inputs);
        let depth = image::Depth::new(group_in, self.window.kernel_len());
        let product = Sizes { limbs: amx::limbs(ring), chunks: depth.chunks() };
        let groups = x.chunks_exact(group_in * inputs).zip(z.chunks_exact_mut(group_out * outputs));
        for ((x, z), group) in groups.zip((0..self.groups).cycle()) {
            let split_filters = |blocks, chunks, room: Room| {
                let Filters::Elements(w) = w else { unreachable!("packed filters lie in tiles") };
                let w = &w[group * group_out * depth_len..][..group_out * depth_len];
                depth.split_filters(w, blocks, chunks, room);
            };
            let left = match w {
                Filters::Packed(w) => Side::Ready(w.filters(group).expect("in tiles")),
                Filters::Elements(_) => Side::Split(&split_filters),
            };
            let multiply = |right: &Side, z| {
                divide(kernel.threads_for(sizes.iter().product()), sizes, z, &|first, c| {
                    amx::product(product, &left, right, first, c)
                });
            };
            if reads.are_in_place() {
                // The image is a matrix, of which every element is split once anyway.
                let split = |blocks, chunks, room: Room| amx::split::right(x, inputs, blocks, chunks, room);
                multiply(&Side::Split(&split), z);
            } else {
                let image = image::Image::new(kernel, ring, x, inputs);
                let split = |blocks, chunks, room: Room| image.tiles(&depth, &reads, blocks, chunks, room);
                multiply(&Side::Split(&split), z);
            }
        }
    }

    /// Groups of few outputs, divided over threads.
    fn direct(&self, kernel: Kernel, rows: &Rows, x: &[u64], w: &[u64], z: &mut [u64]) {
        let all = self.batch * self.groups;
        let (group_x, group_w, group_z) = (x.len() / all, w.len() / self.groups, z.len() / all);
        // Every product is read and padded for few outputs: it takes as long as several in a matrix.
        let threads = kernel.threads_for(8 * z.len() * (group_w / (self.out_channels / self.groups)));
        let share = all.div_ceil(threads);
        let run = |first: usize, z: &mut [u64]| {
            let mut room = rows.room();
            for (g, z) in z.chunks_exact_mut(group_z).enumerate().map(|(i, z)| (first + i, z)) {
                let x = &x[g * group_x..][..group_x];
                let w = &w[g % self.groups * group_w..][..group_w];
                rows.group(kernel, x, w, z, &mut room);
            }
        };
        on_threads(threads, z.chunks_mut(share * group_z).enumerate(), &|(i, z)| run(i * share, z));
    }
}

/// Filters as elements, or in tiles.
enum Filters<'a> {
    Elements(&'a [u64]),
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    Packed(&'a PackedWeights),
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;
    use crate::Ring;
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
            (1, 2, 17, 1, [3, 3], [1, 1], [1, 1], [1, 1], [1, 1], [23, 24]),
            (1, 3, 2, 1, [2, 2], [9, 9], [3, 3], [5, 6], [7, 8], [4, 4]),
            (1, 1, 3, 1, [4, 4], [1, 1], [4, 4], [9, 9], [9, 9], [3, 3]),
            (1, 3, 7, 1, [3, 3], [2, 2], [1, 1], [1, 1], [1, 1], [20, 38]),
            (1, 4, 4, 4, [2, 2], [1, 2], [1, 1], [0, 0], [0, 0], [3, 64]),
            (2, 3, 6, 3, [3, 5], [2, 3], [2, 1], [1, 4], [3, 0], [11, 71]),
            (1, 4, 2, 2, [3, 2], [1, 1], [1, 4], [2, 3], [0, 1], [6, 33]),
            (2, 64, 1, 1, [1, 1], [2, 2], [1, 1], [0, 0], [0, 0], [5, 5]),
            (1, 3, 1, 1, [2, 2], [5, 4], [1, 1], [5, 9], [3, 2], [3, 2]),
            (1, 32, 40, 2, [3, 3], [2, 2], [1, 1], [1, 1], [1, 1], [17, 19]),
            // Images split into digits: whole and broken groups of channels, taps that are runs, near and far.
            (1, 64, 32, 1, [3, 3], [1, 1], [1, 1], [1, 1], [1, 1], [14, 14]),
            (1, 70, 48, 1, [3, 3], [1, 1], [1, 1], [1, 1], [1, 1], [7, 7]),
            (1, 24, 40, 1, [3, 3], [2, 2], [1, 1], [1, 1], [1, 1], [33, 29]),
            (2, 96, 64, 2, [1, 1], [2, 2], [1, 1], [0, 0], [0, 0], [15, 24]),
            (1, 16, 36, 1, [2, 2], [5, 3], [3, 2], [2, 0], [0, 3], [64, 16]),
            (1, 3, 64, 1, [7, 7], [2, 2], [1, 1], [3, 3], [3, 3], [40, 34]),
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
            let expected = naive(&conv, &x, &w);
            for bits in [16, 24, 32, 40, 48, 52, 53, 64] {
                let ring = Ring::new(bits).unwrap();
                for (kernel, threads) in Kernel::available(ring).into_iter().zip((1..4).cycle()) {
                    let packed = PackedWeights::new(kernel, conv.weight_shape(), &w);
                    assert!(packed.bytes() <= size_of_val(&w[..]));
                    let kernel = kernel.with_threads(NonZero::new(threads).unwrap());
                    let mut expected = expected.clone();
                    ring.reduce_all(&mut expected);
                    for mut z in [conv.apply(kernel, &x, &w), conv.apply_packed(kernel, &x, &packed)] {
                        ring.reduce_all(&mut z);
                        assert_eq!(z, expected, "{kernel:?}, {bits} bits, {window:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn one_and_three_axes() {
        let kernel = Kernel::best(Ring::new(64).unwrap());
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
        assert_eq!(conv.apply(kernel, &[1, 2, 3], &[10, 1, 0, 2]), vec![1, 12, 23, 2, 4, 6]);
        let window = Window::global(&[2, 2, 2]);
        let conv = Conv { window: &window, input: &[2, 2, 2], output: &[1, 1, 1], out_channels: 1, ..conv };
        assert_eq!(conv.apply(kernel, &[1, 2, 3, 4, 5, 6, 7, 8], &[1, 0, 0, 0, 0, 0, 0, 100]), vec![801]);
    }

    #[test]
    fn strides_and_paddings_take_no_memory() {
        const FAR: u32 = (1 << 24) - 1;
        let pair = |a, b| vec![a, b];
        for (stride, begin, end) in [(FAR, 0, FAR), (FAR, FAR, 0), (1 << 20, 1 << 20, 1 << 20)] {
            let window = Window {
                kernel: pair(1, 1),
                stride: pair(FAR, stride),
                dilation: pair(1, 1),
                pad_begin: pair(0, begin),
                pad_end: pair(FAR, end),
            };
            let Some(output) = window.output(&[1, 1], false) else { panic!("{window:?} has outputs") };
            let conv = Conv {
                batch: 1,
                in_channels: 1,
                out_channels: 1,
                groups: 1,
                window: &window,
                input: &[1, 1],
                output: &output,
            };
            let reads =
                |i: &usize| window.input_position(1, i % output[1], 0, 1).is_some() && i / output[1] == 0;
            let expected: Vec<u64> =
                (0..output[0] * output[1]).map(|i| if reads(&i) { 35 } else { 0 }).collect();
            for kernel in Kernel::available(Ring::new(64).expect("in range")) {
                assert!(conv.apply(kernel, &[5], &[7]) == expected, "{kernel:?}, {window:?}");
            }
        }
    }
}

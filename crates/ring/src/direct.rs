//! Convolution with few output channels to a group, depthwise above all, straight from its definition on whole rows.
//!
//! Products of tiny matrices would spend their time on packing. Here every channel is padded and split into as many
//! phases as the columns' stride once, so that each kernel position reads its inputs side by side.

use crate::geometry::Window;
use crate::kernel::{Kernel, Loops};

/// Outputs whose sums are kept in registers.
const BLOCK: usize = 32;

/// Elements of a padded channel that are always fine, and how often those of the input and output channel are. Plans come
/// from others: strides and paddings of millions are valid, and a product of matrices takes no memory for them.
const SMALL_ROOM: usize = 1 << 18;
const ROOM: usize = 4;

/// Sizes of one group with one or two spatial axes.
pub(crate) struct Rows<'a> {
    window: &'a Window,
    /// Input and output sizes of the rows' axis, one where there is none, and of the columns'.
    input: [usize; 2],
    output: [usize; 2],
    /// Padded rows, phases of each, and elements of a phase.
    padded: [usize; 3],
}

impl<'a> Rows<'a> {
    /// `None` for windows of no or more than two axes, and for those whose padded channels would be much larger than
    /// channels.
    pub(crate) fn new(window: &'a Window, input: &[usize], output: &[usize]) -> Option<Self> {
        let most =
            SMALL_ROOM.max(ROOM * (input.iter().product::<usize>() + output.iter().product::<usize>()));
        let (input, output) = match (input, output) {
            (&[x], &[z]) => ([1, x], [1, z]),
            (&[y, x], &[v, z]) => ([y, x], [v, z]),
            _ => return None,
        };
        let mut rows = Self { window, input, output, padded: [1; 3] };
        let reach = |axis: usize| (output[axis].max(1) - 1) * rows.step(axis) + rows.extent(axis);
        let phases = rows.step(1);
        // One block more than the last output needs: blocks are read whole.
        let padded = [reach(0), phases, reach(1).div_ceil(phases) + BLOCK];
        rows.padded = padded;
        let room = padded.iter().try_fold(1usize, |room, &size| room.checked_mul(size));
        room.is_some_and(|room| room <= most).then_some(rows)
    }

    /// Room for one padded channel.
    pub(crate) fn room(&self) -> Vec<u64> {
        vec![0; self.padded.iter().product()]
    }

    /// `z += w · x` for one group: some input channels `x`, one filter after the other in `w`, as many outputs in `z`, modulo
    /// 2^64. `room` is [`room`](Self::room)'s, zero in the padding.
    pub(crate) fn group(&self, kernel: Kernel, x: &[u64], w: &[u64], z: &mut [u64], room: &mut [u64]) {
        let (inputs, outputs) = (self.input.iter().product::<usize>(), self.output.iter().product::<usize>());
        let taps = self.taps();
        let filter = x.len() / inputs * taps.len();
        for (i, channel) in x.chunks_exact(inputs).enumerate() {
            kernel.run(|| self.pad(channel, room));
            for (w, z) in w.chunks_exact(filter).zip(z.chunks_exact_mut(outputs)) {
                let factors = &w[i * taps.len()..][..taps.len()];
                let line = self.step(0) * self.padded[1] * self.padded[2];
                kernel.run_loops(Sums { room, line, taps: &taps, factors, z, columns: self.output[1] });
            }
        }
    }

    /// Where every kernel position starts to read in a padded channel, for the first output.
    fn taps(&self) -> Vec<usize> {
        let [_, phases, len] = self.padded;
        let axis = |axis: usize| (0..self.size(axis)).map(move |k| k * self.dilation(axis));
        let rows: Vec<usize> = axis(0).map(|y| y * phases * len).collect();
        rows.iter().flat_map(|&y| axis(1).map(move |x| y + x % phases * len + x / phases)).collect()
    }

    #[inline(always)]
    fn pad(&self, channel: &[u64], room: &mut [u64]) {
        let [height, phases, len] = self.padded;
        let [top, left] = [self.begin(0), self.begin(1)];
        for (row, y) in channel.chunks_exact(self.input[1]).zip(top..height) {
            let phases_of_row = &mut room[y * phases * len..][..phases * len];
            if phases == 1 {
                let columns = row.len().min(len.saturating_sub(left));
                phases_of_row[left.min(len)..][..columns].copy_from_slice(&row[..columns]);
                continue;
            }
            for phase in 0..phases {
                // Padded columns are those of the input from `left` on.
                let first = (phase + phases - left % phases) % phases;
                let at = (left + first) / phases;
                let out = phases_of_row[phase * len..][..len].get_mut(at..).unwrap_or(&mut []);
                let from = row.get(first..).unwrap_or(&[]);
                if phases == 2 {
                    // Nearly every stride but one: as vectors.
                    let (pairs, last) = from.as_chunks::<2>();
                    out.iter_mut().zip(pairs).for_each(|(o, pair)| *o = pair[0]);
                    if let (Some(o), &[v]) = (out.get_mut(pairs.len()), last) {
                        *o = v;
                    }
                } else {
                    out.iter_mut().zip(from.iter().step_by(phases)).for_each(|(o, v)| *o = *v);
                }
            }
        }
    }

    /// The window's axis of ours, if it has that many.
    fn axis(&self, axis: usize) -> Option<usize> {
        (axis + self.window.axes()).checked_sub(2)
    }

    fn size(&self, axis: usize) -> usize {
        self.axis(axis).map_or(1, |a| self.window.kernel[a] as usize)
    }

    fn step(&self, axis: usize) -> usize {
        self.axis(axis).map_or(1, |a| self.window.stride[a] as usize)
    }

    fn dilation(&self, axis: usize) -> usize {
        self.axis(axis).map_or(1, |a| self.window.dilation[a] as usize)
    }

    fn begin(&self, axis: usize) -> usize {
        self.axis(axis).map_or(0, |a| self.window.pad_begin[a] as usize)
    }

    fn extent(&self, axis: usize) -> usize {
        self.axis(axis).map_or(1, |a| self.window.extent(a))
    }
}

/// One channel's part of one output channel.
struct Sums<'a> {
    room: &'a [u64],
    /// Elements of the room between the rows that neighbouring rows of outputs read.
    line: usize,
    taps: &'a [usize],
    factors: &'a [u64],
    z: &'a mut [u64],
    columns: usize,
}

impl Loops for Sums<'_> {
    #[inline(always)]
    fn run(self) {
        for (y, row) in self.z.chunks_exact_mut(self.columns).enumerate() {
            let room = &self.room[y * self.line..];
            for (j, out) in row.chunks_mut(BLOCK).enumerate() {
                let mut sums = [0u64; BLOCK];
                for (&tap, &factor) in self.taps.iter().zip(self.factors) {
                    let from: &[u64; BLOCK] =
                        room[tap + j * BLOCK..].first_chunk().expect("padded by a block");
                    for i in 0..BLOCK {
                        sums[i] = sums[i].wrapping_add(factor.wrapping_mul(from[i]));
                    }
                }
                out.iter_mut().zip(sums).for_each(|(o, s)| *o = o.wrapping_add(s));
            }
        }
    }
}

//! Convolutions in tiles: the image is split into digits once, and every tap reads four channels of a pixel as one word.
//!
//! The depth of the product is ordered by groups of four channels, in them by taps, so that a row of a tile on the right is sixteen
//! words of one plane: most often neighbours, less what is padding. A filter has the taps of a channel side by side: what is
//! reordered lies within four channels, and planes are read again while they are in the first-level cache.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{CHUNK, Digits, Room, SIDE, limbs, split};
use crate::Ring;
use crate::kernel::Kernel;
use crate::threads::on_threads;

/// Channels of a word.
const FOUR: usize = 4;
/// Words of a chunk.
const WORDS: usize = CHUNK / FOUR;
/// Words behind the last plane that may be read.
const SLACK: usize = 2 * SIDE;
/// Pixels that are worth a thread.
const THREAD_PIXELS: usize = 1 << 17;

/// Where columns of a tile lie in what [`split::fours`] makes: column `ORDER[p]` at position p.
const ORDER: [u32; SIDE] = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15];
/// Column c is at position `POSITION[c]`.
const POSITION: [u32; SIDE] = [0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15];

/// The depth of a convolution in the order of tiles: of every word its four channels and its tap.
pub(crate) struct Depth {
    channels: usize,
    taps: usize,
    words: Vec<[u32; 2]>,
    /// Where words of four channels that there are start in a filter.
    starts: Vec<u32>,
}

impl Depth {
    pub(crate) fn new(channels: usize, taps: usize) -> Self {
        let fours = 0..channels.div_ceil(FOUR) as u32;
        let words = fours.flat_map(|four| (0..taps as u32).map(move |tap| [four, tap])).collect();
        let whole = 0..(channels / FOUR) as u32;
        let starts =
            whole.flat_map(|four| (0..taps as u32).map(move |tap| four * FOUR as u32 * taps as u32 + tap));
        Self { channels, taps, words, starts: starts.collect() }
    }

    pub(crate) fn chunks(&self) -> usize {
        self.words.len().div_ceil(WORDS)
    }

    /// Elements of a filter.
    fn len(&self) -> usize {
        self.channels * self.taps
    }

    fn chunk(&self, chunk: usize) -> &[[u32; 2]] {
        &self.words[chunk * WORDS..self.words.len().min((chunk + 1) * WORDS)]
    }

    /// Digits of sixteen filters for each of `blocks` in some chunks of the depth, as a left side.
    pub(crate) fn split_filters(
        &self,
        w: &[u64],
        blocks: Range<usize>,
        chunks: Range<usize>,
        mut room: Room,
    ) {
        if self.taps == 1 {
            return split::left(w, self.channels, blocks, chunks, room);
        }
        for (i, block) in blocks.enumerate() {
            let filters = &w[w.len().min(block * SIDE * self.len())..];
            for (p, chunk) in chunks.clone().enumerate() {
                let tiles = room.at(i, p);
                let mut count = 0;
                for (row, filter) in filters.chunks_exact(self.len()).take(SIDE).enumerate() {
                    match self.starts(chunk) {
                        Some(starts) => split::left_words(filter, starts, self.taps, row, tiles),
                        None => split::left_row(&self.gather(filter, chunk), row, tiles),
                    }
                    count = row + 1;
                }
                split::no_rows_from(count, tiles);
            }
        }
    }

    /// Where the words of a chunk start in a filter, if it has all elements of all of them.
    fn starts(&self, chunk: usize) -> Option<&[u32; WORDS]> {
        self.starts[(chunk * WORDS).min(self.starts.len())..].first_chunk()
    }

    /// One chunk of a filter, element by element. What lies behind its end does not matter: the image has zeros there.
    fn gather(&self, filter: &[u64], chunk: usize) -> [u64; CHUNK] {
        let mut row = [0; CHUNK];
        for (out, &[four, tap]) in row.as_chunks_mut::<FOUR>().0.iter_mut().zip(self.chunk(chunk)) {
            for (e, out) in out.iter_mut().enumerate() {
                let channel = (four as usize * FOUR + e).min(self.channels - 1);
                *out = filter[channel * self.taps + tap as usize];
            }
        }
        row
    }
}

/// What one tap reads for sixteen neighbouring outputs.
#[derive(Clone, Copy)]
struct Read {
    start: i32,
    /// Outputs for which it is no padding.
    mask: u16,
    /// The same in the order of positions.
    permuted: u16,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Output j reads `start` + j.
    Run,
    /// All read `start` to `start` + 31.
    Near,
    Far,
}

/// What every tap reads.
pub(crate) struct Reads<'a> {
    inputs: usize,
    positions: usize,
    taps: &'a [u32],
    blocks: usize,
    /// `[tap][block]`
    reads: Vec<Read>,
}

impl<'a> Reads<'a> {
    /// Whether there is one tap, and every output reads the input of its own place.
    pub(crate) fn are_in_place(&self) -> bool {
        self.taps.len() == self.inputs && self.taps.iter().zip(0..).all(|(&tap, place)| tap == place)
    }

    /// `taps` has the input positions of all outputs, tap by tap; those from `inputs` on are padding.
    pub(crate) fn new(taps: &'a [u32], positions: usize, inputs: usize) -> Self {
        assert!(i32::try_from(inputs + SLACK).is_ok(), "fewer than 2^31 pixels");
        let blocks = positions.div_ceil(SIDE);
        let read = |taps: &[u32]| {
            let mut read = Read { start: 0, mask: 0, permuted: 0, kind: Kind::Run };
            let [mut least, mut most] = [u32::MAX, 0];
            let mut is_run = true;
            for (j, &tap) in taps.iter().enumerate() {
                if (tap as usize) < inputs {
                    if read.mask == 0 {
                        read.start = tap as i32 - j as i32;
                    }
                    is_run &= tap as i32 - j as i32 == read.start;
                    read.mask |= 1 << j;
                    (least, most) = (least.min(tap), most.max(tap));
                }
            }
            if !is_run {
                read.start = least as i32;
                read.kind = if most - least < 2 * SIDE as u32 { Kind::Near } else { Kind::Far };
            }
            for (p, column) in ORDER.into_iter().enumerate() {
                read.permuted |= (read.mask >> column & 1) << p;
            }
            read
        };
        let reads = taps.chunks_exact(positions).flat_map(|row| row.chunks(SIDE).map(read)).collect();
        Self { inputs, positions, taps, blocks, reads }
    }
}

/// Digits of the channels of an image.
pub(crate) struct Image {
    limbs: usize,
    inputs: usize,
    /// Words from one plane to the next.
    step: usize,
    /// `[four channels][digit][pixel]`
    words: Vec<u32>,
}

impl Image {
    /// Splits channels of `inputs` pixels each.
    pub(crate) fn new(kernel: Kernel, ring: Ring, x: &[u64], inputs: usize) -> Self {
        assert!(super::runs() && x.len().is_multiple_of(inputs));
        let limbs = limbs(ring);
        // Planes that lie a multiple of 4 KiB apart would share few places of the cache.
        let step = inputs.next_multiple_of(SIDE);
        let step = if step.is_multiple_of(256) { step + SIDE } else { step };
        let fours = (x.len() / inputs).div_ceil(FOUR);
        let mut words = vec![0; fours * limbs * step + SLACK];
        let threads = kernel.threads_up_to(x.len() / THREAD_PIXELS);
        let pairs = x.chunks(FOUR * inputs).zip(words.chunks_exact_mut(limbs * step));
        on_threads(threads, pairs, &|(x, planes)| {
            // SAFETY: `runs` was asserted.
            unsafe { split_channels(x, inputs, step, planes) }
        });
        Self { limbs, inputs, step, words }
    }

    /// Digits of sixteen outputs for each of `blocks` in some chunks of the depth, as a right side.
    pub(crate) fn tiles(
        &self,
        depth: &Depth,
        reads: &Reads,
        blocks: Range<usize>,
        chunks: Range<usize>,
        mut room: Room,
    ) {
        assert!(super::runs() && self.inputs == reads.inputs);
        for (p, chunk) in chunks.enumerate() {
            let words = depth.chunk(chunk);
            for (i, block) in blocks.clone().enumerate() {
                let tiles = room.at(i, p);
                assert!(tiles.len() == self.limbs);
                for (row, &[four, tap]) in words.iter().enumerate() {
                    let read = reads.reads[tap as usize * reads.blocks + block];
                    let planes = &self.words[four as usize * self.limbs * self.step..];
                    assert!(planes.len() >= self.limbs * self.step + SLACK);
                    let outputs = tap as usize * reads.positions + block * SIDE;
                    let taps = &reads.taps[outputs..][..SIDE.min(reads.positions - block * SIDE)];
                    // SAFETY: `runs` was asserted, there are planes of all digits and words behind them, `Reads::new` made `read`
                    // for these taps and planes of as many pixels.
                    unsafe { self.row(planes, read, taps, row, tiles) };
                }
                tiles.iter_mut().for_each(|tile| tile.0[words.len() * SIDE * FOUR..].fill(0));
            }
        }
    }

    /// # Safety
    ///
    /// The CPU has AVX-512 F. `planes` has a plane for each of `tiles` and `SLACK` words behind; `read` is what
    /// [`Reads::new`] makes of `taps`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn row(&self, planes: &[u32], read: Read, taps: &[u32], row: usize, tiles: &mut [Digits]) {
        let (first, step) = (planes.as_ptr().cast::<i32>(), self.step);
        // SAFETY: two vectors of constants.
        let order = unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) };
        let present = u16::MAX >> (SIDE - taps.len());
        // SAFETY: the mask leaves out lanes behind the slice's end.
        let places = || unsafe { _mm512_maskz_loadu_epi32(present, taps.as_ptr().cast()) };
        match read.kind {
            Kind::Run => {
                for (digit, tile) in tiles.iter_mut().enumerate() {
                    let from = first.wrapping_add(digit * step).wrapping_offset(read.start as isize);
                    // SAFETY: lanes that are padding are not read, the others lie in the plane.
                    let words = unsafe { _mm512_maskz_loadu_epi32(read.mask, from) };
                    let words = _mm512_permutexvar_epi32(order, words);
                    // SAFETY: `row` lies in the tile.
                    unsafe { _mm512_store_si512(tile.row(row), words) };
                }
            }
            Kind::Near => {
                let places = _mm512_sub_epi32(places(), _mm512_set1_epi32(read.start));
                let places = _mm512_permutexvar_epi32(order, places);
                for (digit, tile) in tiles.iter_mut().enumerate() {
                    let from = first.wrapping_add(digit * step + read.start as usize);
                    // SAFETY: `start` lies in the plane, and there are 32 words behind all planes.
                    let (low, high) = unsafe {
                        (_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(SIDE).cast()))
                    };
                    let words = _mm512_maskz_permutex2var_epi32(read.permuted, low, places, high);
                    // SAFETY: `row` lies in the tile.
                    unsafe { _mm512_store_si512(tile.row(row), words) };
                }
            }
            Kind::Far => {
                let places = _mm512_permutexvar_epi32(order, places());
                let zero = _mm512_setzero_si512();
                for (digit, tile) in tiles.iter_mut().enumerate() {
                    let plane = first.wrapping_add(digit * step);
                    // SAFETY: lanes that are padding are not read, the others lie in the plane.
                    let words =
                        unsafe { _mm512_mask_i32gather_epi32::<4>(zero, read.permuted, places, plane) };
                    // SAFETY: `row` lies in the tile.
                    unsafe { _mm512_store_si512(tile.row(row), words) };
                }
            }
        }
    }
}

/// Digits of up to four channels, one plane for each.
///
/// # Safety
///
/// The CPU has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn split_channels(x: &[u64], inputs: usize, step: usize, planes: &mut [u32]) {
    // SAFETY: a vector of constants.
    let position = unsafe { _mm512_loadu_si512(POSITION.as_ptr().cast()) };
    let whole = x.len() == FOUR * inputs;
    for at in (0..inputs).step_by(SIDE) {
        let mut partial = [0; FOUR * SIDE];
        let digits = if whole && at + SIDE <= inputs {
            // SAFETY: four channels of sixteen pixels from `at` on.
            unsafe { split::fours(x.as_ptr().add(at), inputs) }
        } else {
            for (copy, channel) in partial.chunks_exact_mut(SIDE).zip(x.chunks_exact(inputs)) {
                let pixels = SIDE.min(inputs - at);
                copy[..pixels].copy_from_slice(&channel[at..][..pixels]);
            }
            // SAFETY: four rows of sixteen elements.
            unsafe { split::fours(partial.as_ptr(), SIDE) }
        };
        for (plane, digits) in planes.chunks_exact_mut(step).zip(digits) {
            let out = &mut plane[at..][..SIDE];
            // SAFETY: `out` has sixteen words.
            unsafe {
                _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_permutexvar_epi32(position, digits));
            }
        }
    }
}

//! Products in AMX tiles of bytes, where the CPU has them (Intel from 2023 on), for rings of any width.
//!
//! An element of l bits is a number of L = ceil(l / 8) digits of one byte, and a product modulo 2^(8L) is the sum over s < L of
//! 2^(8s) times the products of all digits i and j with i + j = s. One `tdpbuud` multiplies 16 x 64 digits by 64 x 16 and
//! adds to 16 x 16 sums of 32 bits: 1024 products of digits a cycle, of which an element takes L (L + 1) / 2. That are 48 products
//! a cycle at 48 bits and 28 at 64 bits, where vectors have 16 of 52 bits and 4 of 64 bits.
//!
//! Both sides are split digit by digit ([`split`]): the left one into blocks of 16 rows of 64 digits, the right one into blocks of
//! 16 rows of 16 columns of 4 digits. Sides that lie in tiles already ([`Side::Ready`]) are read where they are.

pub(crate) mod image;
pub(crate) mod split;
mod tiles;

use std::arch::x86_64::*;
use std::ops::Range;
use std::sync::LazyLock;

use tiles::Configured;
use zeroize::Zeroize;

use super::LANES;
use crate::Ring;

/// Rows and columns of a tile of sums.
pub(crate) const SIDE: usize = 16;
/// Depth of a tile of digits.
pub(crate) const CHUNK: usize = 64;
/// Tiles of the left side that stay in the first-level cache (24 KiB), next to those of the right side that stream by.
const NEAR: usize = 24;
/// Blocks of the right side that stream by, from the second-level cache.
const GROUP: usize = 8;
/// Tiles of the left side that stay in the second-level cache.
const FAR: usize = 1024;
/// Rows on the left for which a block of the right side is split once.
const ROWS: usize = 512;
/// Tiles of sums: the CPU has eight tiles, two hold operands.
const SUMS: usize = 6;
/// Most passes over the same operands.
const PASSES: usize = 2;

/// Whether the CPU has tiles and vectors of bytes, and the operating system lets this process use them.
pub(super) fn runs() -> bool {
    static RUNS: LazyLock<bool> = LazyLock::new(|| {
        let vectors = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vbmi");
        // Bits 24 and 25 of EDX: tiles, and products of bytes in them.
        vectors && __cpuid(0).eax >= 7 && (__cpuid_count(7, 0).edx >> 24) & 3 == 3 && permitted()
    });
    *RUNS
}

/// Asks Linux for the tile state (`ARCH_REQ_XCOMP_PERM`), which it gives to the whole process, once and for all.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    let mut result = 158_i64;
    // SAFETY: arch_prctl(0x1023, 18) reads and writes no memory; a system call overwrites rax, rcx and r11 only.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") result, in("rdi") 0x1023, in("rsi") 18, out("rcx") _, out("r11") _);
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Whether tiles are faster than vectors of `rate` multiply-adds a cycle, by an estimate of cycles: tiles are padded, and
/// both sides have to be split. (Who packed one side has decided already.)
pub(super) fn pays(ring: Ring, [m, n, k]: [usize; 3], rate: f64) -> bool {
    let limbs = limbs(ring) as f64;
    let padded = |size: usize, step: usize| size.next_multiple_of(step) as f64;
    let tiles = padded(m, SIDE) * padded(n, SIDE) * padded(k, CHUNK);
    let digits = tiles / 16384.0 * 30.0 * limbs * (limbs + 1.0) / 2.0;
    // Filters are read tap by tap.
    let splitting = padded(k, CHUNK) * (3.6 * padded(m, SIDE) + padded(n, SIDE));
    digits + splitting + 2000.0 < (m * n * k) as f64 / rate
}

/// Digits of an element.
pub(crate) fn limbs(ring: Ring) -> usize {
    ring.bits().div_ceil(8) as usize
}

/// Digits of one operand of a product of tiles, all of the same weight.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Digits([u8; SIDE * CHUNK]);

impl Digits {
    const ZERO: Self = Self([0; SIDE * CHUNK]);

    /// Where a row starts.
    #[inline]
    fn row(&mut self, row: usize) -> *mut __m512i {
        self.0[row * CHUNK..][..CHUNK].as_mut_ptr().cast()
    }

    /// Room for as many tiles.
    pub(crate) fn room(tiles: usize) -> Vec<Self> {
        vec![Self::ZERO; tiles]
    }
}

impl Zeroize for Digits {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

/// One side of a product, in blocks of [`SIDE`] rows or columns and chunks of [`CHUNK`] of its depth.
pub(crate) enum Side<'a> {
    /// Tiles `[block][chunk][digit]`, of all chunks.
    Ready(&'a [Digits]),
    /// Writes the digits of some chunks of some blocks.
    Split(&'a Split<'a>),
}

/// Splits chunks of blocks: `split(blocks, chunks, room)`.
type Split<'a> = dyn Fn(Range<usize>, Range<usize>, Room) + Sync + 'a;

/// Where the digits of some chunks of some blocks belong: one tile for each, chunk after chunk, those of the next block some
/// tiles further on.
pub(crate) struct Room<'a> {
    tiles: &'a mut [Digits],
    step: usize,
    limbs: usize,
}

impl<'a> Room<'a> {
    pub(crate) fn new(tiles: &'a mut [Digits], step: usize, limbs: usize) -> Self {
        Self { tiles, step, limbs }
    }

    /// The tiles of one chunk of one block.
    fn at(&mut self, block: usize, chunk: usize) -> &mut [Digits] {
        &mut self.tiles[block * self.step + chunk * self.limbs..][..self.limbs]
    }
}

/// Sizes of a product.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// Digits of an element.
    pub(crate) limbs: usize,
    /// Chunks of the depth.
    pub(crate) chunks: usize,
}

/// Sums of products of digits: tiles of all passes.
#[repr(C, align(64))]
struct Sums([[u32; SIDE * SIDE]; SUMS * PASSES]);

impl Sums {
    const ZERO: Self = Self([[0; SIDE * SIDE]; SUMS * PASSES]);
}

/// `c += left · right` for rows `first[0]`.. and of them columns `first[1]`.., both multiples of [`SIDE`].
pub(crate) fn product(sizes: Sizes, left: &Side, right: &Side, first: [usize; 2], c: &mut [&mut [u64]]) {
    assert!(runs());
    // SAFETY: `runs` was asserted.
    unsafe { multiply(sizes, left, right, first, c) };
}

/// All of it compiled for AVX-512: instructions of SSE in between would wait for vectors that have nothing to do with them.
///
/// # Safety
///
/// The CPU has tiles, AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn multiply(sizes: Sizes, left: &Side, right: &Side, first: [usize; 2], c: &mut [&mut [u64]]) {
    assert!((2..=8).contains(&sizes.limbs) && c.iter().all(|row| row.len() == c[0].len()));
    assert!(first.iter().all(|at| at.is_multiple_of(SIDE)), "whole blocks");
    let first = first.map(|at| at / SIDE);
    let Some(n) = c.first().map(|row| row.len()) else { return };
    let Sizes { limbs, chunks } = sizes;
    let near = NEAR / limbs;
    let rows = c.len().min(ROWS).div_ceil(SIDE);
    let far = (FAR / (rows * limbs)).max(1).next_multiple_of(near).min(chunks);
    let mut left_room = Digits::room(if matches!(left, Side::Split(_)) { rows * far * limbs } else { 0 });
    let mut right_room = Digits::room(if matches!(right, Side::Split(_)) { GROUP * near * limbs } else { 0 });
    let mut adder = Adder { limbs, pending: None, sums: Box::new([Sums::ZERO, Sums::ZERO]), current: 0 };
    let _configured = Configured::new();
    for (i0, c) in c.chunks_mut(ROWS).enumerate() {
        let first = [first[0] + i0 * ROWS / SIDE, first[1]];
        for far in (0..chunks).step_by(far).map(|p| p..chunks.min(p + far)) {
            let blocks = c.len().div_ceil(SIDE);
            if let Side::Split(split) = left {
                let room = Room::new(&mut left_room, far.len() * limbs, limbs);
                split(first[0]..first[0] + blocks, far.clone(), room);
            }
            for group in pieces(&(0..n.div_ceil(SIDE)), GROUP) {
                for near in pieces(&far, near) {
                    let used = near.len() * limbs;
                    if let Side::Split(split) = right {
                        let room = Room::new(&mut right_room, used, limbs);
                        split(first[1] + group.start..first[1] + group.end, near.clone(), room);
                    }
                    for block in 0..blocks {
                        let left = match left {
                            Side::Ready(tiles) => {
                                &tiles[((first[0] + block) * chunks + near.start) * limbs..]
                            }
                            Side::Split(_) => {
                                &left_room[(block * far.len() + near.start - far.start) * limbs..]
                            }
                        };
                        for j in group.clone() {
                            let right = match right {
                                Side::Ready(tiles) => {
                                    &tiles[((first[1] + j) * chunks + near.start) * limbs..]
                                }
                                Side::Split(_) => &right_room[(j - group.start) * used..],
                            };
                            let place = Place { block, at: j * SIDE };
                            // SAFETY: the caller's, and the tiles are configured.
                            unsafe { adder.unit(&left[..used], &right[..used], place, c) };
                        }
                    }
                }
            }
        }
        // SAFETY: as above.
        unsafe { adder.finish(c) };
    }
}

/// Consecutive parts of a range.
fn pieces(range: &Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = range.end;
    range.clone().step_by(len).map(move |p| p..end.min(p + len))
}

/// Where a tile of sums belongs: a block of rows, and a first column.
#[derive(Clone, Copy)]
struct Place {
    block: usize,
    at: usize,
}

/// Multiplies tiles, and meanwhile adds up what the tiles before gave: products of tiles take their unit sixteen cycles each, in
/// which vectors have nothing to wait for.
struct Adder {
    limbs: usize,
    /// What the other sums are of.
    pending: Option<Place>,
    sums: Box<[Sums; 2]>,
    current: usize,
}

impl Adder {
    /// Products of a block of either side, some chunks deep.
    ///
    /// # Safety
    ///
    /// The CPU has tiles and AVX-512 F; this thread has configured the tiles as [`Configured`] does.
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unit(&mut self, left: &[Digits], right: &[Digits], place: Place, c: &mut [&mut [u64]]) {
        let limbs = self.limbs;
        assert!(left.len() == right.len() && left.len().is_multiple_of(limbs));
        let passes = tiles::passes(limbs);
        let steps = left.len() / limbs * passes.len();
        let mut step = 0;
        for (i, pass) in passes.iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { tiles::zero() };
            for (left, right) in left.chunks_exact(limbs).zip(right.chunks_exact(limbs)) {
                // SAFETY: as above; both have `limbs` tiles, which are those of the pass.
                unsafe { (pass.run)(left, right) };
                let rows = SIDE * step / steps..SIDE * (step + 1) / steps;
                prefetch(place, rows.clone(), c);
                // SAFETY: the caller's.
                unsafe { self.add(rows, c) };
                step += 1;
            }
            let sums = &mut self.sums[self.current].0[i * SUMS..][..SUMS];
            // SAFETY: as above; there is room for six tiles.
            unsafe { tiles::store(pass.tiles, sums) };
        }
        self.pending = Some(place);
        self.current ^= 1;
    }

    /// Adds what is left.
    ///
    /// # Safety
    ///
    /// The CPU has AVX-512 F.
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn finish(&mut self, c: &mut [&mut [u64]]) {
        // SAFETY: the caller's.
        unsafe { self.add(0..SIDE, c) };
        self.pending = None;
    }

    /// Adds some rows of the sums before.
    ///
    /// # Safety
    ///
    /// The CPU has AVX-512 F.
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn add(&self, rows: Range<usize>, c: &mut [&mut [u64]]) {
        let Some(Place { block, at }) = self.pending else { return };
        let sums = &self.sums[self.current ^ 1];
        let c = &mut c[block * SIDE..];
        let rows = rows.start.min(c.len())..rows.end.min(c.len());
        // SAFETY: the caller's.
        unsafe {
            match self.limbs {
                2 => add_rows::<2>(sums, rows, c, at),
                3 => add_rows::<3>(sums, rows, c, at),
                4 => add_rows::<4>(sums, rows, c, at),
                5 => add_rows::<5>(sums, rows, c, at),
                6 => add_rows::<6>(sums, rows, c, at),
                7 => add_rows::<7>(sums, rows, c, at),
                _ => add_rows::<8>(sums, rows, c, at),
            }
        }
    }
}

/// Brings rows that will be added to into the cache.
#[inline]
fn prefetch(Place { block, at }: Place, rows: Range<usize>, c: &[&mut [u64]]) {
    for row in c[block * SIDE..].iter().take(rows.end).skip(rows.start) {
        let from = row[at..].as_ptr();
        // SAFETY: prefetching reads nothing, wherever it points.
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(from.cast());
            _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(LANES).cast());
        }
    }
}

/// Of every sum the tiles that it is spread over, by weight: tiles 0 to 5 are the first pass's, 6 to 11 the second one's. A
/// product of tiles is ready after three others; where few sums take many products, more tiles than sums keep the unit busy.
const fn parts(limbs: usize) -> [(usize, &'static [usize]); 8] {
    const fn none(tile: usize) -> (usize, &'static [usize]) {
        (tile, &[])
    }
    let plain = [none(0), none(1), none(2), none(3), none(4), none(5), none(0), none(0)];
    let [p0, p1, p2, p3, p4, p5, unused, _] = plain;
    match limbs {
        2 => [p0, (1, &[2]), unused, unused, unused, unused, unused, unused],
        3 => [p0, (1, &[3]), (2, &[4, 5]), unused, unused, unused, unused, unused],
        4 => [p0, p1, (2, &[4]), (3, &[5]), unused, unused, unused, unused],
        5 => [p0, p1, p2, p3, (4, &[5]), unused, unused, unused],
        6 => plain,
        7 => [p0, p1, p2, p3, (4, &[5]), (6, &[7, 8]), (9, &[10, 11]), unused],
        8 => [p0, p1, p2, p3, p4, p5, (6, &[7, 8]), (9, &[10, 11])],
        _ => panic!("rings have 16 to 64 bits"),
    }
}

/// Adds rows of sums of digits to the result, in columns `at`.. Sums of weights s and s + 4 are the halves of one lane.
///
/// # Safety
///
/// The CPU has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn add_rows<const LIMBS: usize>(sums: &Sums, rows: Range<usize>, c: &mut [&mut [u64]], at: usize) {
    let zero = _mm512_setzero_si512();
    for r in rows {
        let mut digits = [zero; 8];
        for (digit, (first, others)) in digits.iter_mut().zip(const { parts(LIMBS) }).take(LIMBS) {
            // SAFETY: row r of sixteen has sixteen sums.
            let load = |tile: usize| unsafe { _mm512_load_si512(sums.0[tile].as_ptr().add(r * SIDE).cast()) };
            *digit = load(first);
            for &tile in others {
                *digit = _mm512_add_epi32(*digit, load(tile));
            }
        }
        let [a, b, c0, d, e, f, g, h] = digits;
        // The right side has its columns in the order that this undoes.
        let low = [
            _mm512_unpacklo_epi32(a, e),
            _mm512_slli_epi64::<8>(_mm512_unpacklo_epi32(b, f)),
            _mm512_slli_epi64::<16>(_mm512_unpacklo_epi32(c0, g)),
            _mm512_slli_epi64::<24>(_mm512_unpacklo_epi32(d, h)),
        ];
        let high = [
            _mm512_unpackhi_epi32(a, e),
            _mm512_slli_epi64::<8>(_mm512_unpackhi_epi32(b, f)),
            _mm512_slli_epi64::<16>(_mm512_unpackhi_epi32(c0, g)),
            _mm512_slli_epi64::<24>(_mm512_unpackhi_epi32(d, h)),
        ];
        let halves = [
            _mm512_add_epi64(_mm512_add_epi64(low[0], low[1]), _mm512_add_epi64(low[2], low[3])),
            _mm512_add_epi64(_mm512_add_epi64(high[0], high[1]), _mm512_add_epi64(high[2], high[3])),
        ];
        let out = &mut c[r][at..];
        if let Some(sixteen) = out.first_chunk_mut::<SIDE>() {
            let at = sixteen.as_mut_ptr();
            // SAFETY: sixteen elements.
            unsafe {
                let [low, high] = [at.cast(), at.add(LANES).cast()];
                _mm512_storeu_si512(low, _mm512_add_epi64(_mm512_loadu_si512(low), halves[0]));
                _mm512_storeu_si512(high, _mm512_add_epi64(_mm512_loadu_si512(high), halves[1]));
            }
            continue;
        }
        let columns = out.len();
        for (half, eight) in halves.into_iter().zip(out[..columns].chunks_mut(LANES)) {
            let mask = u8::MAX >> (LANES - eight.len());
            let at = eight.as_mut_ptr().cast();
            // SAFETY: the mask leaves out the lanes behind the slice's end.
            unsafe {
                let old = _mm512_maskz_loadu_epi64(mask, at);
                _mm512_mask_storeu_epi64(at, mask, _mm512_add_epi64(old, half));
            }
        }
    }
}

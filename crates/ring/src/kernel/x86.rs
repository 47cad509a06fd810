//! Vectors of x86-64: AVX2, and AVX-512 with lanes of 32 and 64 bits, with 52-bit products, and with these and products of 16 bits.

pub(super) mod avx2;
pub(super) mod pack;
pub(super) mod split;

use std::arch::x86_64::*;

use super::{LANES, Loops};

/// Whether the CPU multiplies lanes of 32 and 64 bits in one micro-op: AMD's with AVX-512 do.
pub(super) fn multiplies_lanes_at_once() -> bool {
    let maker = __cpuid(0);
    [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
}

#[target_feature(enable = "avx2")]
pub(super) fn run_avx2<T>(code: impl FnOnce() -> T) -> T {
    code()
}

#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn run_avx512<T>(code: impl FnOnce() -> T) -> T {
    code()
}

#[target_feature(enable = "avx2")]
pub(super) fn loops_avx2(loops: impl Loops) {
    loops.run();
}

#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn loops_avx512(loops: impl Loops) {
    loops.run();
}

/// Adds eight sums to a row of the result, of which there may be less.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn add_words(out: &mut [u64], sums: __m512i) {
    let at = out.as_mut_ptr().cast();
    // SAFETY: whole vectors lie in the slice, and the mask leaves out the lanes behind its end.
    unsafe {
        if out.len() >= LANES {
            return _mm512_storeu_epi64(at, _mm512_add_epi64(_mm512_loadu_epi64(at), sums));
        }
        let mask = u8::MAX >> (LANES - out.len());
        let old = _mm512_maskz_loadu_epi64(mask, at);
        _mm512_mask_storeu_epi64(at, mask, _mm512_add_epi64(old, sums));
    }
}

/// The same for sixteen sums of 32 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn add_halves(out: &mut [u64], sums: __m512i) {
    let (first, second) = out.split_at_mut(out.len().min(LANES));
    add_words(first, _mm512_cvtepu32_epi64(_mm512_castsi512_si256(sums)));
    if !second.is_empty() {
        add_words(second, _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64::<1>(sums)));
    }
}

/// The same loops for multiply-adds of 512-bit vectors that need different target features: lanes of a vector, the factor of all
/// lanes, the multiply-add, and how sums are added to the result.
macro_rules! vector_kernels {
    ($name:ident, $features:literal, $lanes:expr, $factor:expr, $multiply_add:expr, $add:expr) => {
        pub(super) mod $name {
            use std::arch::x86_64::*;

            use crate::kernel::{LANES, MR, Tile};

            /// # Safety
            ///
            /// The panel has `depth` rows of whole vectors for `columns`, and every row of the left side is `depth` long.
            #[target_feature(enable = $features)]
            pub(in crate::kernel) unsafe fn tile(tile: &Tile, depth: usize, out: &mut [&mut [u64]]) {
                // SAFETY: passed on; the second parameter is the panel's width in vectors.
                unsafe {
                    match tile.columns.div_ceil($lanes) {
                        1 => by_rows::<1>(tile, depth, out),
                        2 => by_rows::<2>(tile, depth, out),
                        _ => by_rows::<3>(tile, depth, out),
                    }
                }
            }

            /// # Safety
            ///
            /// As for `tile`, with panels `V` vectors wide.
            #[target_feature(enable = $features)]
            unsafe fn by_rows<const V: usize>(tile: &Tile, depth: usize, out: &mut [&mut [u64]]) {
                // SAFETY: passed on; a tile of R rows reads only the first R, missing rows repeat the first.
                unsafe {
                    match tile.rows.len() {
                        1 => sums::<1, V>(tile, depth, out),
                        2 => sums::<2, V>(tile, depth, out),
                        3 | 4 => sums::<4, V>(tile, depth, out),
                        _ => sums::<MR, V>(tile, depth, out),
                    }
                }
            }

            /// R x V vectors of sums, kept in registers.
            ///
            /// # Safety
            ///
            /// As for `by_rows`.
            #[target_feature(enable = $features)]
            unsafe fn sums<const R: usize, const V: usize>(
                tile: &Tile,
                depth: usize,
                out: &mut [&mut [u64]],
            ) {
                let mut sums = [[_mm512_setzero_si512(); V]; R];
                // The result comes from far away, and is needed when the products are done.
                for out in out.iter().take(R) {
                    for at in (tile.at..tile.at + tile.columns).step_by(LANES) {
                        _mm_prefetch::<_MM_HINT_T0>(out.as_ptr().wrapping_add(at).cast());
                    }
                }
                let mut left = [tile.rows[0].as_ptr(); R];
                left.iter_mut().zip(tile.rows).for_each(|(left, row)| *left = row.as_ptr());
                let mut right = tile.panel.as_ptr();
                for p in 0..depth {
                    let mut columns = [_mm512_setzero_si512(); V];
                    for v in 0..V {
                        // SAFETY: the panel has V vectors in each of `depth` rows.
                        columns[v] = unsafe { _mm512_loadu_epi64(right.wrapping_add(v * LANES).cast()) };
                    }
                    right = right.wrapping_add(tile.step);
                    for i in 0..R {
                        // SAFETY: every row has `depth` elements.
                        let factor = $factor(unsafe { *left[i].wrapping_add(p) });
                        for v in 0..V {
                            sums[i][v] = $multiply_add(sums[i][v], factor, columns[v]);
                        }
                    }
                }
                for i in 0..R {
                    if i < tile.rows.len() {
                        let out = &mut out[i][tile.at..][..tile.columns];
                        for v in 0..V {
                            $add(&mut out[v * $lanes..], sums[i][v]);
                        }
                    }
                }
            }

            /// Sums along the depth, of elements of 64 bits: one for every row.
            ///
            /// # Safety
            ///
            /// Every row is as long as the column.
            #[target_feature(enable = $features)]
            pub(in crate::kernel) unsafe fn dots(rows: &[&[u64]], column: &[u64]) -> [u64; MR] {
                let mut sums = [_mm512_setzero_si512(); MR];
                let mut left = [rows[0].as_ptr(); MR];
                left.iter_mut().zip(rows).for_each(|(left, row)| *left = row.as_ptr());
                for p in (0..column.len()).step_by(LANES) {
                    let mask = u8::MAX >> LANES.saturating_sub(column.len() - p);
                    let at = column.as_ptr().wrapping_add(p).cast();
                    // SAFETY: the mask leaves out what lies behind the column's end, and the rows'.
                    let factors = unsafe { _mm512_maskz_loadu_epi64(mask, at) };
                    for i in 0..MR {
                        // SAFETY: as above.
                        let row = unsafe { _mm512_maskz_loadu_epi64(mask, left[i].wrapping_add(p).cast()) };
                        sums[i] = $multiply_add(sums[i], row, factors);
                    }
                }
                sums.map(|sum| _mm512_reduce_add_epi64(sum) as u64)
            }
        }
    };
}

vector_kernels!(
    avx512,
    "avx512f,avx512dq",
    LANES,
    |factor: u64| _mm512_set1_epi64(factor as i64),
    |sum, a, b| _mm512_add_epi64(sum, _mm512_mullo_epi64(a, b)),
    super::add_words
);
vector_kernels!(
    narrow,
    "avx512f,avx512dq",
    2 * LANES,
    |factor: u64| _mm512_set1_epi32(factor as i32),
    |sum, a, b| _mm512_add_epi32(sum, _mm512_mullo_epi32(a, b)),
    super::add_halves
);
vector_kernels!(
    ifma,
    "avx512f,avx512dq,avx512ifma",
    LANES,
    |factor: u64| _mm512_set1_epi64(factor as i64),
    |sum, a, b| _mm512_madd52lo_epu64(sum, a, b),
    super::add_words
);

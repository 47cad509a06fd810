//! Vectors of x86-64: AVX2, and AVX-512 with and without 52-bit products.

use std::arch::x86_64::*;

use super::{LANES, Loops, Tile};

/// Two rows by eight columns at a time. AVX2 multiplies halves only: low by low with all 64 bits of the product, and both
/// cross products, whose upper halves do not count, at once in 32-bit lanes.
///
/// # Safety
///
/// The panel has `depth` rows of whole vectors for `columns`, and every row of the left side is `depth` long.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn tile_avx2(tile: &Tile, depth: usize, out: &mut [&mut [u64]]) {
    for (pair, rows) in tile.rows.chunks(2).enumerate() {
        let left = [rows[0].as_ptr(), rows[rows.len() - 1].as_ptr()];
        for j in (0..tile.columns).step_by(LANES) {
            let mut low = [[_mm256_setzero_si256(); 2]; 2];
            let mut cross = low;
            for p in 0..depth {
                // SAFETY: row p of the panel has eight lanes from j on, two vectors; every row on the left has `depth`.
                let (columns, factors) = unsafe {
                    let at = tile.panel.as_ptr().add(p * tile.step + j).cast::<__m256i>();
                    (
                        [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))],
                        [*left[0].add(p), *left[1].add(p)],
                    )
                };
                for r in 0..2 {
                    let factor = _mm256_set1_epi64x(factors[r] as i64);
                    let swapped = _mm256_set1_epi64x(factors[r].rotate_left(32) as i64);
                    for v in 0..2 {
                        low[r][v] = _mm256_add_epi64(low[r][v], _mm256_mul_epu32(factor, columns[v]));
                        cross[r][v] = _mm256_add_epi32(cross[r][v], _mm256_mullo_epi32(swapped, columns[v]));
                    }
                }
            }
            for r in 0..rows.len() {
                let mut sums = [0u64; LANES];
                for v in 0..2 {
                    let both = _mm256_add_epi64(cross[r][v], _mm256_srli_epi64::<32>(cross[r][v]));
                    let sum = _mm256_add_epi64(low[r][v], _mm256_slli_epi64::<32>(both));
                    // SAFETY: `sums` has room for two vectors.
                    unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast::<__m256i>().add(v), sum) };
                }
                let out = &mut out[2 * pair + r][tile.at + j..];
                let columns = tile.columns - j;
                out.iter_mut().zip(sums).take(columns).for_each(|(o, s)| *o = o.wrapping_add(s));
            }
        }
    }
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

/// The same loops for two multiply-adds of 512-bit vectors, which need different target features.
macro_rules! vector_kernels {
    ($name:ident, $features:literal, $multiply_add:expr) => {
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
                    match tile.columns.div_ceil(LANES) {
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
                let left: [*const u64; R] =
                    std::array::from_fn(|i| tile.rows.get(i).unwrap_or(&tile.rows[0]).as_ptr());
                let right = tile.panel.as_ptr();
                for p in 0..depth {
                    let mut columns = [_mm512_setzero_si512(); V];
                    for v in 0..V {
                        let at = p * tile.step + v * LANES;
                        // SAFETY: the panel has V vectors in each of `depth` rows.
                        columns[v] = unsafe { _mm512_loadu_epi64(right.add(at).cast()) };
                    }
                    for i in 0..R {
                        // SAFETY: every row has `depth` elements.
                        let factor = _mm512_set1_epi64(unsafe { *left[i].add(p) } as i64);
                        for v in 0..V {
                            sums[i][v] = $multiply_add(sums[i][v], factor, columns[v]);
                        }
                    }
                }
                for i in 0..R {
                    if i < tile.rows.len() {
                        let out = &mut out[i][tile.at..][..tile.columns];
                        for v in 0..V {
                            let eight = &mut out[v * LANES..];
                            let mask = u8::MAX >> (LANES - eight.len().min(LANES));
                            let at = eight.as_mut_ptr().cast();
                            // SAFETY: the mask leaves out the lanes behind the slice's end.
                            unsafe {
                                let old = _mm512_maskz_loadu_epi64(mask, at);
                                _mm512_mask_storeu_epi64(at, mask, _mm512_add_epi64(old, sums[i][v]));
                            }
                        }
                    }
                }
            }
        }
    };
}

vector_kernels!(avx512, "avx512f,avx512dq", |sum, a, b| _mm512_add_epi64(sum, _mm512_mullo_epi64(a, b)));
vector_kernels!(ifma, "avx512f,avx512dq,avx512ifma", |sum, a, b| _mm512_madd52lo_epu64(sum, a, b));

//! Products of 64 bits from IFMA and VNNI, for CPUs that multiply lanes of 64 bits slowly.
//!
//! With a = a0 + 2^52 a1, and b alike, a b = a0 b0 + 2^52 (a0 b1 + a1 b0) modulo 2^64. Low and high halves of the 104 bits of a0 b0
//! are summed apart (`vpmadd52luq`, `vpmadd52huq`); of everything above bit 52 twelve bits count, so that the cross products need the
//! low twelve bits of each part, and one `vpdpwssd` multiplies and adds those of two steps of the depth. Nothing overflows where it
//! matters: sums wrap modulo 2^64, and modulo 2^32 for cross products. That are 2.5 micro-ops for eight multiply-adds.

use std::arch::x86_64::*;

use super::add_words;
use crate::kernel::{LANES, Tile};

/// Rows of a full register tile: three sums for each of 4 x 2 vectors.
pub(in crate::kernel) const ROWS: usize = 4;

/// # Safety
///
/// The panel has `depth` rows of whole vectors for `columns`, and every row of the left side is `depth` long, with an element of
/// `complement` for every two.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vnni")]
pub(in crate::kernel) unsafe fn tile(tile: &Tile, depth: usize, out: &mut [&mut [u64]]) {
    // SAFETY: passed on; the second parameter is the panel's width in vectors.
    unsafe {
        match (tile.rows.len(), tile.columns.div_ceil(LANES)) {
            (1, 1) => sums::<1, 1>(tile, depth, out),
            (1, _) => sums::<1, 2>(tile, depth, out),
            (2, 1) => sums::<2, 1>(tile, depth, out),
            (2, _) => sums::<2, 2>(tile, depth, out),
            (_, 1) => sums::<ROWS, 1>(tile, depth, out),
            _ => sums::<ROWS, 2>(tile, depth, out),
        }
    }
}

/// # Safety
///
/// As for `tile`, with panels `V` vectors wide; missing rows repeat the first.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma,avx512vnni")]
unsafe fn sums<const R: usize, const V: usize>(tile: &Tile, depth: usize, out: &mut [&mut [u64]]) {
    let zero = [[_mm512_setzero_si512(); V]; R];
    let (mut low, mut high, mut cross) = (zero, zero, zero);
    let pairs = depth.div_ceil(2);
    let (mut left, mut parts) = ([tile.rows[0].as_ptr(); R], [tile.complement.as_ptr(); R]);
    for i in 0..R.min(tile.rows.len()) {
        left[i] = tile.rows[i].as_ptr();
        parts[i] = tile.complement[i * pairs..].as_ptr();
    }
    let mut right = tile.panel.as_ptr();
    let mut columns = [_mm512_setzero_si512(); V];
    for pair in 0..pairs {
        for half in 0..2_usize {
            let p = pair.wrapping_mul(2).wrapping_add(half);
            if p < depth {
                for v in 0..V {
                    // SAFETY: a pair of rows has V vectors of the first, of the second, and of the parts of both.
                    columns[v] = unsafe { load(right, half * V + v) };
                }
                for i in 0..R {
                    // SAFETY: every row has `depth` elements.
                    let factor = _mm512_set1_epi64(unsafe { *left[i].wrapping_add(p) } as i64);
                    for v in 0..V {
                        low[i][v] = _mm512_madd52lo_epu64(low[i][v], factor, columns[v]);
                        high[i][v] = _mm512_madd52hi_epu64(high[i][v], factor, columns[v]);
                    }
                }
            }
        }
        for v in 0..V {
            // SAFETY: as above.
            columns[v] = unsafe { load(right, 2 * V + v) };
        }
        for i in 0..R {
            // SAFETY: the complement of every row has an element for every pair.
            let factor = _mm512_set1_epi64(unsafe { *parts[i].wrapping_add(pair) } as i64);
            for v in 0..V {
                cross[i][v] = _mm512_dpwssd_epi32(cross[i][v], factor, columns[v]);
            }
        }
        right = right.wrapping_add(tile.step);
    }
    for i in 0..R.min(tile.rows.len()) {
        let out = &mut out[i][tile.at..][..tile.columns];
        for v in 0..V {
            let cross = _mm512_add_epi64(cross[i][v], _mm512_srli_epi64::<32>(cross[i][v]));
            let high = _mm512_slli_epi64::<52>(_mm512_add_epi64(high[i][v], cross));
            add_words(&mut out[v * LANES..], _mm512_add_epi64(low[i][v], high));
        }
    }
}

/// Vector `v` behind `at`.
///
/// # Safety
///
/// It can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(at: *const u64, v: usize) -> __m512i {
    // SAFETY: the caller's.
    unsafe { _mm512_loadu_epi64(at.wrapping_add(v * LANES).cast()) }
}

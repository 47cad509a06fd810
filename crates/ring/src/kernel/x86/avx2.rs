//! AVX2, which multiplies lanes of 32 bits only.

use std::arch::x86_64::*;

use crate::kernel::panel::fetch;
use crate::kernel::{LANES, MR, Panels, Tile};
use crate::right::Right;

/// Rows whose sums are kept in registers.
const ROWS: usize = 4;
/// Lanes of 64 bits of a vector.
const QUARTET: usize = 4;

/// Four rows by four columns at a time: low half by low half with all 64 bits of the product, and both cross products, whose upper
/// halves do not count, at once in lanes of 32 bits.
///
/// # Safety
///
/// The panel has `depth` rows of whole vectors for `columns`, and every row of the left side is `depth` long.
#[target_feature(enable = "avx2")]
pub(in crate::kernel) unsafe fn tile(tile: &Tile, depth: usize, out: &mut [&mut [u64]]) {
    for (group, rows) in tile.rows.chunks(ROWS).enumerate() {
        let left: [*const u64; ROWS] = std::array::from_fn(|i| rows[i.min(rows.len() - 1)].as_ptr());
        for j in (0..tile.columns).step_by(QUARTET) {
            let mut low = [_mm256_setzero_si256(); ROWS];
            let mut cross = low;
            let mut right = tile.panel[j..].as_ptr();
            for p in 0..depth {
                // SAFETY: row p of the panel has four lanes from j on.
                let columns = unsafe { _mm256_loadu_si256(right.cast()) };
                right = right.wrapping_add(tile.step);
                let swapped = _mm256_shuffle_epi32::<0b10_11_00_01>(columns);
                for r in 0..ROWS {
                    // SAFETY: every row on the left has `depth` elements.
                    let factor = _mm256_set1_epi64x(unsafe { *left[r].wrapping_add(p) } as i64);
                    low[r] = _mm256_add_epi64(low[r], _mm256_mul_epu32(factor, columns));
                    cross[r] = _mm256_add_epi32(cross[r], _mm256_mullo_epi32(factor, swapped));
                }
            }
            for r in 0..rows.len() {
                let both = _mm256_add_epi64(cross[r], _mm256_srli_epi64::<32>(cross[r]));
                let sums = _mm256_add_epi64(low[r], _mm256_slli_epi64::<32>(both));
                let mut lanes = [0u64; QUARTET];
                // SAFETY: `lanes` has room for a vector.
                unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums) };
                let out = &mut out[ROWS * group + r][tile.at + j..];
                out.iter_mut().zip(lanes).take(tile.columns - j).for_each(|(o, s)| *o = o.wrapping_add(s));
            }
        }
    }
}

/// Four rows by sixteen columns at a time, in lanes of 32 bits.
///
/// # Safety
///
/// As for `tile`.
#[target_feature(enable = "avx2")]
pub(in crate::kernel) unsafe fn narrow_tile(tile: &Tile, depth: usize, out: &mut [&mut [u64]]) {
    for (group, rows) in tile.rows.chunks(ROWS).enumerate() {
        let left: [*const u64; ROWS] = std::array::from_fn(|i| rows[i.min(rows.len() - 1)].as_ptr());
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        let mut right = tile.panel.as_ptr();
        for p in 0..depth {
            // SAFETY: row p of the panel has sixteen lanes, two vectors.
            let columns = unsafe {
                let at = right.cast::<__m256i>();
                [_mm256_loadu_si256(at), _mm256_loadu_si256(at.wrapping_add(1))]
            };
            right = right.wrapping_add(tile.step);
            for r in 0..ROWS {
                // SAFETY: every row on the left has `depth` elements.
                let factor = _mm256_set1_epi32(unsafe { *left[r].wrapping_add(p) } as i32);
                for v in 0..2 {
                    sums[r][v] = _mm256_add_epi32(sums[r][v], _mm256_mullo_epi32(factor, columns[v]));
                }
            }
        }
        for r in 0..rows.len() {
            let out = &mut out[ROWS * group + r][tile.at..][..tile.columns];
            if let Ok(out) = <&mut [u64; 2 * LANES]>::try_from(&mut *out) {
                for (v, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                    add_eight(out, sums[r][v]);
                }
                continue;
            }
            let mut lanes = [0u32; 2 * LANES];
            // SAFETY: `lanes` has room for two vectors.
            unsafe {
                let at = lanes.as_mut_ptr().cast::<__m256i>();
                _mm256_storeu_si256(at, sums[r][0]);
                _mm256_storeu_si256(at.add(1), sums[r][1]);
            }
            out.iter_mut().zip(lanes).for_each(|(o, s)| *o = o.wrapping_add(s.into()));
        }
    }
}

/// Packs rows k0.. and vectors `first`.. of their columns into panels of lanes of 32 bits; lanes behind the last column hold
/// anything.
#[target_feature(enable = "avx2")]
pub(in crate::kernel) fn narrow_panels(
    right: &Right,
    k0: usize,
    first: usize,
    panels: &Panels,
    room: &mut [u64],
) {
    let vectors = panels.columns.div_ceil(LANES);
    for p in 0..panels.depth {
        right.ahead(k0 + p, p == 0, first, vectors).for_each(fetch);
        let (plane, runs) = right.row(k0 + p, first, vectors);
        for panel in panels.iter() {
            let runs = &runs[panel.first / LANES..][..panel.columns.div_ceil(LANES)];
            let row = &mut room[panel.at + p * panel.row..][..panel.row];
            for (out, &run) in row.as_chunks_mut::<{ LANES / 2 }>().0.iter_mut().zip(runs) {
                let lanes: &[u64; LANES] = match right.whole(plane, run) {
                    Some(lanes) => lanes,
                    None => &right.lanes(plane, run),
                };
                // SAFETY: eight elements are two vectors, four are one.
                unsafe {
                    let at = lanes.as_ptr().cast();
                    let [low, high] = [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(LANES))];
                    let halves = _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(low, high));
                    let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(halves);
                    _mm256_storeu_si256(out.as_mut_ptr().cast(), halves);
                }
            }
        }
    }
}

/// Adds eight sums of 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn add_eight(out: &mut [u64; LANES], sums: __m256i) {
    let halves = [_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums)];
    for (out, sums) in out.as_chunks_mut::<QUARTET>().0.iter_mut().zip(halves) {
        let at = out.as_mut_ptr().cast();
        // SAFETY: four elements are a vector.
        unsafe {
            let sums = _mm256_add_epi64(_mm256_loadu_si256(at), _mm256_cvtepu32_epi64(sums));
            _mm256_storeu_si256(at, sums);
        }
    }
}

/// Sums along the depth, of elements of 64 bits whose products count in 32: one for every row, of which there are at most eight.
///
/// # Safety
///
/// Every row is as long as the column.
#[target_feature(enable = "avx2")]
pub(in crate::kernel) unsafe fn narrow_dots(rows: &[&[u64]], column: &[u64]) -> [u64; MR] {
    let mut sums = [_mm256_setzero_si256(); MR];
    let (whole, rest) = column.as_chunks::<QUARTET>();
    let mut left = [rows[0].as_ptr(); MR];
    left.iter_mut().zip(rows).for_each(|(left, row)| *left = row.as_ptr());
    for (p, column) in whole.iter().enumerate() {
        // SAFETY: four elements are a vector.
        let factors = unsafe { _mm256_loadu_si256(column.as_ptr().cast()) };
        for i in 0..MR {
            // SAFETY: as above; rows are as long as the column.
            let row = unsafe { _mm256_loadu_si256(left[i].wrapping_add(p * QUARTET).cast()) };
            sums[i] = _mm256_add_epi32(sums[i], _mm256_mullo_epi32(row, factors));
        }
    }
    let behind = column.len() - rest.len();
    let mut found = [0; MR];
    for (i, row) in rows.iter().enumerate() {
        let mut lanes = [0u64; QUARTET];
        // SAFETY: `lanes` has room for a vector.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums[i]) };
        let rest = row[behind..].iter().zip(rest).map(|(a, b)| a.wrapping_mul(*b));
        found[i] = lanes.into_iter().chain(rest).fold(0, u64::wrapping_add);
    }
    found
}

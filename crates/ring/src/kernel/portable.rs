//! Plain Rust, for any target.

use super::{LANES, MR, Tile};

#[inline(always)]
pub(super) fn tile(tile: &Tile, out: &mut [&mut [u64]]) {
    match (tile.rows.len(), tile.columns.div_ceil(LANES)) {
        (1, 1) => sums::<1, LANES>(tile, out),
        (1, _) => sums::<1, { 2 * LANES }>(tile, out),
        (_, 1) => sums::<MR, LANES>(tile, out),
        _ => sums::<MR, { 2 * LANES }>(tile, out),
    }
}

/// Missing rows repeat the first one; their sums are dropped.
#[inline(always)]
fn sums<const R: usize, const WIDTH: usize>(tile: &Tile, out: &mut [&mut [u64]]) {
    let mut sums = [[0u64; WIDTH]; R];
    let left: [&[u64]; R] = std::array::from_fn(|i| *tile.rows.get(i).unwrap_or(&tile.rows[0]));
    for p in 0..left[0].len() {
        let right: &[u64; WIDTH] = tile.panel[p * tile.step..].first_chunk().expect("checked by the caller");
        for (sums, left) in sums.iter_mut().zip(left) {
            for (sum, r) in sums.iter_mut().zip(right) {
                *sum = sum.wrapping_add(left[p].wrapping_mul(*r));
            }
        }
    }
    for (i, sums) in sums.iter().enumerate().take(tile.rows.len()) {
        let out = &mut out[i][tile.at..][..tile.columns];
        out.iter_mut().zip(sums).for_each(|(o, s)| *o = o.wrapping_add(*s));
    }
}

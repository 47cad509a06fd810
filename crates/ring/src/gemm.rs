//! Matrix product over `u64` lanes, modulo 2^l.
//!
//! Blocked: the right side is packed in panels as wide as a register tile, of which a block stays in the second-level
//! cache; the left side is read where it lies, a tile's rows side by side. The tile's loop is [`Kernel`]'s.

use crate::kernel::{Kernel, LANES, LONE, MR, Panels, Tile};
use crate::packed::PackedWeights;
use crate::right::{Right, Runs};
use crate::threads::divide;

/// Depth of a block.
const KC: usize = 256;
/// Columns packed at a time, whole panels of every kernel: a KC x NC block (half a MiB in lanes of 64 bits) stays in the second-level
/// cache, of which CPUs have 1 MiB and more.
const NC: usize = 240;
/// Elements of a line of the cache, where panels start: vectors that lie across two lines take twice as long to load.
const LINE: usize = 8;

/// `c += a · b` with `a` of m x k, `b` of k x n and `c` of m x n, all row-major, modulo the 2^l that `kernel` was
/// chosen for; bits above l are garbage.
pub fn gemm(kernel: Kernel, m: usize, n: usize, k: usize, a: &[u64], b: &[u64], c: &mut [u64]) {
    assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n, "matrix sizes");
    let kernel = kernel.for_shape([m, n, k]);
    if m <= kernel.few_rows() {
        return divide(kernel.threads_for(m * n * k), [m, n, k], c, &|[i, j], c| {
            few_rows(kernel, n, k, &a[i * k..], &b[j..], c)
        });
    }
    from_matrix(kernel, [m, n, k], a, b, c);
}

/// `c += a · b` with `a` of m rows and `b` packed: for many products by the same matrix.
pub fn gemm_packed(kernel: Kernel, m: usize, a: &[u64], b: &PackedWeights, c: &mut [u64]) {
    let [k, n] = b.matrix();
    assert!(a.len() == m * k && c.len() == m * n, "matrix sizes");
    match b.elements() {
        Some(elements) => gemm(b.kernel(kernel).for_shape([m, n, k]), m, n, k, a, elements, c),
        None => b.tiled_product(kernel, m, a, c),
    }
}

fn from_matrix(kernel: Kernel, [m, n, k]: [usize; 3], a: &[u64], b: &[u64], c: &mut [u64]) {
    if kernel.tiled_product([m, n, k], a, b, c) {
        return;
    }
    let runs = Runs::matrix(n);
    gemm_with(kernel, [m, n, k], a, c, Right::new(b, &runs));
}

/// Like [`gemm`] with `[m, n, k]` and a kernel of vectors, but b is read by vectors of its columns, straight into panels.
pub(crate) fn gemm_with(kernel: Kernel, [m, n, k]: [usize; 3], a: &[u64], c: &mut [u64], b: Right) {
    divide(kernel.threads_for(m * n * k), [m, n, k], c, &|[i, j], c| {
        blocked(kernel, k, &a[i * k..], &b, j, c)
    });
}

/// `c += a · b` for columns `first..` of b, with vectors.
fn blocked(kernel: Kernel, k: usize, a: &[u64], b: &Right, first: usize, c: &mut [&mut [u64]]) {
    let n = c[0].len();
    let panels = |depth, columns| Panels { form: kernel.form(), depth, step: kernel.columns(), columns };
    let mut room = vec![0; LINE + panels(KC.min(k), NC.min(n)).len()];
    let start = room.as_ptr().align_offset(LINE * size_of::<u64>()).min(LINE);
    let room = &mut room[start..];
    let mut complement = [0; MR * KC / 2];
    let mut lone = [[0; KC]; LONE];
    for j0 in (0..n).step_by(NC) {
        for k0 in (0..k).step_by(KC) {
            let panels = panels(KC.min(k - k0), NC.min(n - j0));
            kernel.pack(b, k0, (first + j0) / LANES, &panels, room);
            // Only the last panel can have less than whole vectors.
            if let Some(panel) = panels.iter().last() {
                let whole = panel.columns - kernel.lone_columns(panel.columns);
                for (column, j) in lone.iter_mut().zip(whole..panel.columns) {
                    panels.column(room, &panel, j, &mut column[..panels.depth]);
                }
            }
            for (i, c) in c.chunks_mut(kernel.rows()).enumerate() {
                let mut rows = [&a[..0]; MR];
                for (r, row) in rows.iter_mut().enumerate().take(c.len()) {
                    *row = &a[(i * kernel.rows() + r) * k + k0..][..panels.depth];
                }
                let rows = &rows[..c.len()];
                let complement = kernel.complement(rows, &mut complement);
                for panel in panels.iter() {
                    let (at, columns) =
                        (j0 + panel.first, panel.columns - kernel.lone_columns(panel.columns));
                    if columns > 0 {
                        let (panel, step) = (&room[panel.at..][..panel.len], panel.row);
                        kernel.tile(&Tile { rows, complement, panel, step, columns, at }, c);
                    }
                    for (column, at) in lone.iter().zip(at + columns..at + panel.columns) {
                        kernel.dots(rows, &column[..panels.depth], at, c);
                    }
                }
            }
        }
    }
}

/// Streams the right side, rows of `n` of which those of `c` are the first columns, without packing it: for so few rows that
/// costs more than it saves.
fn few_rows(kernel: Kernel, n: usize, k: usize, a: &[u64], b: &[u64], c: &mut [&mut [u64]]) {
    if kernel.few_rows() == MR {
        return short_tiles(kernel, n, k, a, b, c);
    }
    for (left, out) in a.chunks_exact(k).zip(c) {
        for (&factor, row) in left.iter().zip(b.chunks(n)) {
            kernel.axpy(factor, row, out);
        }
    }
}

/// Rows of the right side that are read side by side.
const STREAMS: usize = 8;

/// Tiles of few rows and little depth, the right side being read where it lies; only partial vectors are copied.
fn short_tiles(kernel: Kernel, n: usize, k: usize, a: &[u64], b: &[u64], c: &mut [&mut [u64]]) {
    let (columns, count) = (c[0].len(), c.len());
    let whole = columns / LANES * LANES;
    for k0 in (0..k).step_by(STREAMS) {
        let depth = STREAMS.min(k - k0);
        let mut rows = [&a[..0]; MR];
        for (row, left) in rows.iter_mut().zip(a.chunks_exact(k)) {
            *row = &left[k0..k0 + depth];
        }
        let rows = &rows[..count];
        for j in (0..whole).step_by(kernel.columns()) {
            let columns = kernel.columns().min(whole - j);
            let panel = &b[k0 * n + j..];
            kernel.tile(&Tile { rows, complement: &[], panel, step: n, columns, at: j }, c);
        }
        if whole < columns {
            let mut panel = [0; STREAMS * LANES];
            for (p, out) in panel.chunks_exact_mut(LANES).enumerate().take(depth) {
                out[..columns - whole].copy_from_slice(&b[(k0 + p) * n + whole..][..columns - whole]);
            }
            let columns = columns - whole;
            let tile = Tile { rows, complement: &[], panel: &panel, step: LANES, columns, at: whole };
            kernel.tile(&tile, c);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;
    use crate::Ring;
    use crate::packed::WeightShape;
    use crate::prg::{Prg, Seed};

    fn naive(m: usize, n: usize, k: usize, a: &[u64], b: &[u64]) -> Vec<u64> {
        let mut c = vec![0u64; m * n];
        for i in 0..m {
            for p in 0..k {
                for j in 0..n {
                    c[i * n + j] = c[i * n + j].wrapping_add(a[i * k + p].wrapping_mul(b[p * n + j]));
                }
            }
        }
        c
    }

    /// Widths at the ends of what kernels and their digits cover.
    const WIDTHS: [u32; 12] = [16, 17, 24, 32, 33, 40, 48, 49, 52, 53, 57, 64];

    /// Every kernel of this CPU in turn, as chosen, where its own loops pack and by packed weights, added to what was there, in all rings that it
    /// serves.
    fn check(m: usize, n: usize, k: usize, a: &[u64], b: &[u64]) {
        let product = naive(m, n, k, a, b);
        let available =
            WIDTHS.map(|bits| Ring::new(bits).expect("in range")).map(|r| (r, Kernel::available(r)));
        let mut done = Vec::new();
        for &kernel in available.iter().flat_map(|(_, kernels)| kernels) {
            if done.contains(&kernel) {
                continue;
            }
            done.push(kernel);
            let packed = PackedWeights::new(kernel, WeightShape::Matrix { k, n }, b);
            assert!(packed.bytes() <= size_of_val(b));
            for form in 0..3 {
                let mut c = vec![u64::MAX - 4; m * n];
                match form {
                    0 => gemm(kernel, m, n, k, a, b, &mut c),
                    1 => from_matrix(kernel, [m, n, k], a, b, &mut c),
                    _ => gemm_packed(kernel, m, a, &packed, &mut c),
                }
                for ring in
                    available.iter().filter(|(_, kernels)| kernels.contains(&kernel)).map(|(ring, _)| ring)
                {
                    for (i, (c, p)) in c.iter().zip(&product).enumerate() {
                        let expected = ring.reduce(p.wrapping_sub(5));
                        assert_eq!(ring.reduce(*c), expected, "{kernel:?}, {ring:?}, {m} x {n} x {k} at {i}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_kernel_equals_the_naive_product_for_all_tile_remainders() {
        let prg = Prg::new(&Seed::from_bytes([1; 16]));
        let sizes = [(4, 16, 1), (7, 33, 257), (13, 530, 40), (65, 17, 513), (9, 49, 4609), (32, 24, 5000)];
        let few_rows = [(1, 1, 1), (1, 37, 9), (2, 8, 4097), (3, 20, 300)];
        let tiles = (4..=16).flat_map(|m| (1..=25).map(move |n| (m, n, 3)));
        for (m, n, k) in sizes.into_iter().chain(few_rows).chain(tiles) {
            let a = prg.stream(m as u64).words(m * k, u64::MAX);
            let b = prg.stream(1000 + n as u64).words(k * n, u64::MAX);
            check(m, n, k, &a, &b);
        }
    }

    #[test]
    fn every_kernel_is_right_at_the_ends_of_the_range() {
        let (m, n, k) = (9, 25, 8200);
        for bits in [16, 32, 51, 52, 53, 64] {
            let mask = u64::MAX >> (64 - bits);
            for (left, right) in [(mask, mask), (mask, 1), (mask ^ mask >> 1, mask), (!mask | 1, mask)] {
                check(m, n, k, &vec![left; m * k], &vec![right; k * n]);
            }
        }
    }

    #[test]
    fn threads_do_not_change_the_product() {
        let prg = Prg::new(&Seed::from_bytes([2; 16]));
        for (m, n, k) in
            [(200, 310, 400), (310, 200, 400), (3, 5001, 1000), (1, 70, 300_000), (1000, 9, 3000)]
        {
            let a = prg.stream(m as u64).words(m * k, u64::MAX);
            let b = prg.stream(n as u64).words(k * n, u64::MAX);
            for bits in [48, 64] {
                let ring = Ring::new(bits).expect("in range");
                let kernel = Kernel::best(ring);
                let expected: Vec<u64> = naive(m, n, k, &a, &b).into_iter().map(|v| ring.reduce(v)).collect();
                for threads in 1..=4 {
                    let mut c = vec![0; m * n];
                    gemm(
                        kernel.with_threads(NonZero::new(threads).expect("positive")),
                        m,
                        n,
                        k,
                        &a,
                        &b,
                        &mut c,
                    );
                    ring.reduce_all(&mut c);
                    let packed = PackedWeights::new(kernel, WeightShape::Matrix { k, n }, &b);
                    let mut by_packed = vec![0; m * n];
                    let threaded = kernel.with_threads(NonZero::new(threads).expect("positive"));
                    gemm_packed(threaded, m, &a, &packed, &mut by_packed);
                    ring.reduce_all(&mut by_packed);
                    assert!(c == by_packed, "packed, {threads} threads, {m} x {n} x {k}, {bits} bits");
                    assert!(c == expected, "{threads} threads, {m} x {n} x {k}, {bits} bits");
                }
            }
        }
    }

    #[test]
    fn empty_products_add_nothing() {
        for kernel in Kernel::available(Ring::new(48).expect("in range")) {
            let mut c = [7; 20];
            gemm(kernel, 4, 5, 0, &[], &[], &mut c);
            assert_eq!(c, [7; 20]);
            gemm(kernel, 0, 5, 2, &[], &[1; 10], &mut []);
            gemm(kernel, 4, 0, 2, &[1; 8], &[], &mut []);
        }
    }

    #[test]
    fn only_narrow_rings_take_narrow_products() {
        for bits in Ring::MIN_BITS..=Ring::MAX_BITS {
            let kernels = Kernel::available(Ring::new(bits).expect("in range"));
            assert!(bits <= 52 || kernels.iter().all(|k| k.name() != "ifma"), "{bits} bits");
            assert!(bits <= 32 || kernels.iter().all(|k| !k.name().ends_with("-32")), "{bits} bits");
            assert_eq!(kernels.last().map(|k| k.name()), Some("portable"));
            let why =
                |(_, kernel): (_, Result<Kernel, _>)| kernel.err().map(|e: crate::Unavailable| e.to_string());
            let refused = Kernel::all(Ring::new(bits).expect("in range")).into_iter().filter_map(why);
            let known = |why: &str| {
                ["this CPU", "than 52 bits", "than 32 bits"].iter().any(|part| why.contains(part))
            };
            assert!(refused.clone().all(|why| known(&why)));
            assert_eq!(kernels.len() + refused.count(), Kernel::all(Ring::new(16).expect("in range")).len());
        }
    }
}

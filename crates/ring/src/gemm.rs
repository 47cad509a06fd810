//! Matrix product over `u64` lanes, modulo 2^l.
//!
//! Blocked: the right side is packed in panels as wide as a register tile, of which a block stays in the second-level
//! cache; the left side is read where it lies, a tile's rows side by side. The tile's loop is [`Kernel`]'s.

use crate::kernel::{Kernel, LANES, MR, Tile};

/// Depth of a block.
const KC: usize = 256;
/// Columns packed at a time, whole panels of every kernel: a KC x NC block (under 1 MiB) stays in the second-level cache.
const NC: usize = 480;
/// `c += a · b` with `a` of m x k, `b` of k x n and `c` of m x n, all row-major, modulo the 2^l that `kernel` was
/// chosen for; bits above l are garbage.
pub fn gemm(kernel: Kernel, m: usize, n: usize, k: usize, a: &[u64], b: &[u64], c: &mut [u64]) {
    assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n, "matrix sizes");
    if m <= kernel.few_rows() {
        return few_rows(kernel, n, k, a, b, c);
    }
    gemm_with(kernel, [m, n, k], a, c, &mut Vec::new(), |k0, j0, columns, width, panel| {
        for (p, out) in panel.chunks_exact_mut(width).enumerate() {
            let row = &b[(k0 + p) * n + j0..][..columns];
            let (vectors, rest) = row.as_chunks::<LANES>();
            let (out_vectors, _) = out.as_chunks_mut::<LANES>();
            out_vectors.iter_mut().zip(vectors).for_each(|(o, v)| *o = *v);
            if !rest.is_empty() {
                out[columns - rest.len()..columns].copy_from_slice(rest);
            }
        }
    });
}

/// Like [`gemm`] with `[m, n, k]`, but `b` is produced panel by panel: `fill(k0, j0, columns, width, panel)` writes
/// b[k0 + p, j0 + j] to `panel[p * width + j]` for all p < panel.len() / width and j < columns; j0 is a multiple of
/// [`LANES`], what it writes behind `columns` is ignored. `packed` is room that calls may share.
pub(crate) fn gemm_with(
    kernel: Kernel,
    [m, n, k]: [usize; 3],
    a: &[u64],
    c: &mut [u64],
    packed: &mut Vec<u64>,
    mut fill: impl FnMut(usize, usize, usize, usize, &mut [u64]),
) {
    let step = kernel.columns();
    packed.resize(KC.min(k) * NC.min(n.next_multiple_of(LANES)), 0);
    for k0 in (0..k).step_by(KC) {
        let depth = KC.min(k - k0);
        for j0 in (0..n).step_by(NC) {
            let block = NC.min(n - j0);
            let panels = || {
                (0..block).step_by(step).map(|j| {
                    let columns = step.min(block - j);
                    let width = columns.next_multiple_of(LANES);
                    (j, columns, width, j * depth..(j + width) * depth)
                })
            };
            for (j, columns, width, at) in panels() {
                kernel.run(|| fill(k0, j0 + j, columns, width, &mut packed[at]));
            }
            for i in (0..m).step_by(MR) {
                let count = MR.min(m - i);
                let mut rows = [&a[..0]; MR];
                for (r, row) in rows.iter_mut().enumerate().take(count) {
                    *row = &a[(i + r) * k + k0..][..depth];
                }
                for (j, columns, step, at) in panels() {
                    let tile = Tile { rows: &rows[..count], panel: &packed[at], step, columns, stride: n };
                    kernel.tile(&tile, &mut c[i * n + j0 + j..]);
                }
            }
        }
    }
}

/// Stream the right side without packing it: for so few rows that costs more than it saves.
fn few_rows(kernel: Kernel, n: usize, k: usize, a: &[u64], b: &[u64], c: &mut [u64]) {
    if n == 0 || k == 0 || a.is_empty() {
        return;
    }
    if kernel.few_rows() == MR {
        return short_tiles(kernel, n, k, a, b, c);
    }
    for (left, out) in a.chunks_exact(k).zip(c.chunks_exact_mut(n)) {
        for (&factor, row) in left.iter().zip(b.chunks_exact(n)) {
            kernel.axpy(factor, row, out);
        }
    }
}

/// Rows of the right side that are read side by side.
const STREAMS: usize = 8;

/// Tiles of few rows and little depth, the right side being read where it lies; only partial vectors are copied.
fn short_tiles(kernel: Kernel, n: usize, k: usize, a: &[u64], b: &[u64], c: &mut [u64]) {
    let whole = n / LANES * LANES;
    let count = a.len() / k;
    for k0 in (0..k).step_by(STREAMS) {
        let depth = STREAMS.min(k - k0);
        let mut rows = [&a[..0]; MR];
        for (row, left) in rows.iter_mut().zip(a.chunks_exact(k)) {
            *row = &left[k0..k0 + depth];
        }
        let rows = &rows[..count];
        for j in (0..whole).step_by(kernel.columns()) {
            let columns = kernel.columns().min(whole - j);
            let tile = Tile { rows, panel: &b[k0 * n + j..], step: n, columns, stride: n };
            kernel.tile(&tile, &mut c[j..]);
        }
        if whole < n {
            let mut panel = [0; STREAMS * LANES];
            for (p, out) in panel.chunks_exact_mut(LANES).enumerate().take(depth) {
                out[..n - whole].copy_from_slice(&b[(k0 + p) * n + whole..][..n - whole]);
            }
            let tile = Tile { rows, panel: &panel, step: LANES, columns: n - whole, stride: n };
            kernel.tile(&tile, &mut c[whole..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ring;
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

    /// All rings that `kernel` may be chosen for.
    fn rings(kernel: Kernel) -> impl Iterator<Item = Ring> {
        let all = (Ring::MIN_BITS..=Ring::MAX_BITS).map(|bits| Ring::new(bits).expect("in range"));
        all.filter(move |&ring| Kernel::available(ring).contains(&kernel))
    }

    /// Every kernel of this CPU in turn, added to what was there, in every ring that it serves.
    fn check(m: usize, n: usize, k: usize, a: &[u64], b: &[u64]) {
        let product = naive(m, n, k, a, b);
        for kernel in Kernel::available(Ring::new(Ring::MIN_BITS).expect("in range")) {
            let mut c = vec![u64::MAX - 4; m * n];
            gemm(kernel, m, n, k, a, b, &mut c);
            for ring in rings(kernel) {
                for (i, (c, p)) in c.iter().zip(&product).enumerate() {
                    let expected = ring.reduce(p.wrapping_sub(5));
                    assert_eq!(ring.reduce(*c), expected, "{kernel:?}, {ring:?}, {m} x {n} x {k} at {i}");
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
    fn only_rings_of_at_most_52_bits_take_52_bit_products() {
        for bits in Ring::MIN_BITS..=Ring::MAX_BITS {
            let kernels = Kernel::available(Ring::new(bits).expect("in range"));
            assert!(bits <= 52 || kernels.iter().all(|k| k.name() != "ifma"), "{bits} bits");
            assert_eq!(kernels.last().map(|k| k.name()), Some("portable"));
            let why =
                |(_, kernel): (_, Result<Kernel, _>)| kernel.err().map(|e: crate::Unavailable| e.to_string());
            let refused = Kernel::all(Ring::new(bits).expect("in range")).into_iter().filter_map(why);
            assert!(refused.clone().all(|why| why.contains("this CPU") || why.contains("more than 52 bits")));
            assert_eq!(kernels.len() + refused.count(), Kernel::all(Ring::new(16).expect("in range")).len());
        }
    }
}

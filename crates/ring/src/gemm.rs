//! Matrix product over `u64` lanes, modulo 2^64 (and so modulo every 2^l).
//!
//! Blocked and packed: the right side in panels of NR columns, the left side in panels of MR rows, so that the
//! micro-kernel keeps an MR x NR tile of sums in registers. The kernel is plain Rust, compiled once per instruction
//! set and chosen at run time; for AVX-512, where the compiler does not find the vectors, it is written out.

/// Rows of a register tile.
const MR: usize = 8;
/// Columns of a register tile: two 512-bit vectors.
const NR: usize = 16;
/// Depth of a block: an NR-column panel of this depth (32 KiB) stays in the first-level cache.
const KC: usize = 256;
/// Columns packed at a time: a KC x NC block (1 MiB) stays in the second-level cache.
const NC: usize = 512;
/// Below this many rows packing the right side costs more than it saves.
const SMALL_M: usize = 3;

/// `c += a · b` with `a` of m x k, `b` of k x n and `c` of m x n, all row-major, modulo 2^64.
pub fn gemm(m: usize, n: usize, k: usize, a: &[u64], b: &[u64], c: &mut [u64]) {
    assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n, "matrix sizes");
    if m <= SMALL_M {
        return few_rows(n, k, a, b, c);
    }
    gemm_with(m, n, k, a, c, |k0, j0, depth, columns, panel| {
        for p in 0..depth {
            let row = &b[(k0 + p) * n + j0..][..columns];
            panel[p * NR..p * NR + columns].copy_from_slice(row);
        }
    });
}

/// Like [`gemm`], but `b` is produced panel by panel: `fill(k0, j0, depth, columns, panel)` writes
/// b[k0 + p, j0 + j] to `panel[p * NR + j]` for p < depth, j < columns (columns <= [`NR`]).
pub(crate) fn gemm_with(
    m: usize,
    n: usize,
    k: usize,
    a: &[u64],
    c: &mut [u64],
    mut fill: impl FnMut(usize, usize, usize, usize, &mut [u64]),
) {
    let kernel = Kernel::detect();
    let mut packed_b = vec![0; KC.min(k) * NC.min(n.next_multiple_of(NR))];
    let mut packed_a = vec![0; KC.min(k) * m.next_multiple_of(MR)];
    for k0 in (0..k).step_by(KC) {
        let depth = KC.min(k - k0);
        pack_rows(m, k, k0, depth, a, &mut packed_a);
        for j0 in (0..n).step_by(NC) {
            let width = NC.min(n - j0);
            for (panel, j) in (0..width).step_by(NR).enumerate() {
                let columns = NR.min(width - j);
                let panel = &mut packed_b[panel * depth * NR..][..depth * NR];
                if columns < NR {
                    panel.fill(0);
                }
                fill(k0, j0 + j, depth, columns, panel);
            }
            for i in (0..m).step_by(MR) {
                let rows = MR.min(m - i);
                let left = &packed_a[i * depth..][..depth * MR];
                for (panel, j) in (0..width).step_by(NR).enumerate() {
                    let columns = NR.min(width - j);
                    let tile = kernel.tile(left, &packed_b[panel * depth * NR..][..depth * NR]);
                    for (r, sums) in tile.iter().enumerate().take(rows) {
                        let out = &mut c[(i + r) * n + j0 + j..][..columns];
                        out.iter_mut().zip(sums).for_each(|(o, s)| *o = o.wrapping_add(*s));
                    }
                }
            }
        }
    }
}

/// Panels of MR rows, k-major, zero-padded to full panels.
fn pack_rows(m: usize, k: usize, k0: usize, depth: usize, a: &[u64], packed: &mut [u64]) {
    for i in (0..m).step_by(MR) {
        let panel = &mut packed[i * depth..][..depth * MR];
        for r in 0..MR {
            for p in 0..depth {
                panel[p * MR + r] = if i + r < m { a[(i + r) * k + k0 + p] } else { 0 };
            }
        }
    }
}

/// One to three rows: stream the right side once, no packing.
fn few_rows(n: usize, k: usize, a: &[u64], b: &[u64], c: &mut [u64]) {
    if n == 0 || k == 0 {
        return;
    }
    let kernel = Kernel::detect();
    for (left, out) in a.chunks_exact(k).zip(c.chunks_exact_mut(n)) {
        for (&factor, row) in left.iter().zip(b.chunks_exact(n)) {
            kernel.axpy(factor, row, out);
        }
    }
}

/// `out += factor · row`, with the widest vectors this machine has.
pub(crate) fn axpy(factor: u64, row: &[u64], out: &mut [u64]) {
    Kernel::detect().axpy(factor, row, out);
}

/// The instruction set the kernels were compiled for.
#[derive(Clone, Copy)]
enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Kernel {
    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    fn tile(self, left: &[u64], right: &[u64]) -> [[u64; NR]; MR] {
        match self {
            Self::Portable => tile(left, right),
            // SAFETY: `detect` returned this variant only after the running CPU reported the feature.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { tile_avx2(left, right) },
            // SAFETY: as above, for avx512f and avx512dq.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { tile_avx512(left, right) },
        }
    }

    fn axpy(self, factor: u64, row: &[u64], out: &mut [u64]) {
        match self {
            Self::Portable => axpy_portable(factor, row, out),
            // SAFETY: `detect` returned this variant only after the running CPU reported the feature.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { axpy_avx2(factor, row, out) },
            // SAFETY: as above, for avx512f and avx512dq.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { axpy_avx512(factor, row, out) },
        }
    }
}

/// Sums of products of one MR-row and one NR-column panel.
#[inline(always)]
fn tile(left: &[u64], right: &[u64]) -> [[u64; NR]; MR] {
    let mut sums = [[0u64; NR]; MR];
    let (left, _) = left.as_chunks::<MR>();
    let (right, _) = right.as_chunks::<NR>();
    for (l, r) in left.iter().zip(right) {
        for i in 0..MR {
            for j in 0..NR {
                sums[i][j] = sums[i][j].wrapping_add(l[i].wrapping_mul(r[j]));
            }
        }
    }
    sums
}

#[inline(always)]
fn axpy_portable(factor: u64, row: &[u64], out: &mut [u64]) {
    out.iter_mut().zip(row).for_each(|(o, r)| *o = o.wrapping_add(factor.wrapping_mul(*r)));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn tile_avx2(left: &[u64], right: &[u64]) -> [[u64; NR]; MR] {
    tile(left, right)
}

/// 16 accumulators of eight lanes; the compiler does not find them by itself.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn tile_avx512(left: &[u64], right: &[u64]) -> [[u64; NR]; MR] {
    use std::arch::x86_64::{
        _mm512_add_epi64, _mm512_loadu_epi64, _mm512_mullo_epi64, _mm512_set1_epi64, _mm512_setzero_si512,
        _mm512_storeu_epi64,
    };
    let mut sums = [[_mm512_setzero_si512(); NR / 8]; MR];
    let (left, _) = left.as_chunks::<MR>();
    let (right, _) = right.as_chunks::<NR>();
    for (l, r) in left.iter().zip(right) {
        // SAFETY: both loads read eight of the NR = 16 lanes of `r`; unaligned loads need no alignment.
        let columns =
            unsafe { [_mm512_loadu_epi64(r.as_ptr().cast()), _mm512_loadu_epi64(r.as_ptr().add(8).cast())] };
        for (row, &factor) in sums.iter_mut().zip(l) {
            let factor = _mm512_set1_epi64(factor as i64);
            for (sum, column) in row.iter_mut().zip(columns) {
                *sum = _mm512_add_epi64(*sum, _mm512_mullo_epi64(factor, column));
            }
        }
    }
    let mut out = [[0; NR]; MR];
    for (row, sums) in out.iter_mut().zip(sums) {
        for (eight, sum) in row.chunks_exact_mut(8).zip(sums) {
            // SAFETY: `eight` has room for eight lanes; unaligned stores need no alignment.
            unsafe { _mm512_storeu_epi64(eight.as_mut_ptr().cast(), sum) };
        }
    }
    out
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn axpy_avx2(factor: u64, row: &[u64], out: &mut [u64]) {
    axpy_portable(factor, row, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn axpy_avx512(factor: u64, row: &[u64], out: &mut [u64]) {
    axpy_portable(factor, row, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prg::{Prg, Seed};

    fn naive(m: usize, n: usize, k: usize, a: &[u64], b: &[u64]) -> Vec<u64> {
        let mut c = vec![0u64; m * n];
        for i in 0..m {
            for j in 0..n {
                for p in 0..k {
                    c[i * n + j] = c[i * n + j].wrapping_add(a[i * k + p].wrapping_mul(b[p * n + j]));
                }
            }
        }
        c
    }

    #[test]
    fn equals_the_naive_product_for_all_tile_remainders() {
        let prg = Prg::new(&Seed::from_bytes([1; 16]));
        for (m, n, k) in
            [(1, 1, 1), (1, 37, 9), (3, 20, 300), (4, 16, 1), (7, 33, 257), (13, 530, 40), (65, 17, 513)]
        {
            let a = prg.stream(m as u64).words(m * k, u64::MAX);
            let b = prg.stream(1000 + n as u64).words(k * n, u64::MAX);
            let mut c = vec![5; m * n];
            gemm(m, n, k, &a, &b, &mut c);
            let expected: Vec<u64> = naive(m, n, k, &a, &b).iter().map(|v| v.wrapping_add(5)).collect();
            assert_eq!(c, expected, "{m} x {n} x {k}");
        }
    }

    #[test]
    fn every_instruction_set_gives_the_portable_result() {
        let prg = Prg::new(&Seed::from_bytes([2; 16]));
        let left = prg.stream(0).words(19 * MR, u64::MAX);
        let right = prg.stream(1).words(19 * NR, u64::MAX);
        assert_eq!(Kernel::detect().tile(&left, &right), tile(&left, &right));
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            assert_eq!(Kernel::Avx2.tile(&left, &right), tile(&left, &right));
        }
    }
}

//! The inner loops of products, one per instruction set, chosen at run time by the ring's width and the CPU.
//!
//! Every kernel is right modulo 2^l for the ring it was chosen for and leaves garbage above bit l. For l <= 52 that is
//! AVX-512 IFMA where it exists: one `vpmadd52luq` multiplies the low 52 bits of eight lanes and adds the low 52 bits of
//! the products; sums wrap modulo 2^64, which 2^52 divides, so nothing has to be reduced in between. Wider rings take
//! `vpmullq` and an addition; elsewhere plain Rust is compiled for AVX2 and for the target's baseline.

use crate::Ring;

/// Rows of a full register tile.
pub(crate) const MR: usize = 8;
/// Lanes of a vector; panels are whole vectors wide.
pub(crate) const LANES: usize = 8;

/// A way to compute products modulo 2^l that the running CPU supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(Isa);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Isa {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Ifma,
}

impl Isa {
    /// Whether the running CPU has the instructions.
    fn runs(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq"),
            #[cfg(target_arch = "x86_64")]
            Self::Ifma => Self::Avx512.runs() && is_x86_feature_detected!("avx512ifma"),
        }
    }

    /// Widest ring whose products are right.
    fn max_bits(self) -> u32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Ifma => 52,
            _ => Ring::MAX_BITS,
        }
    }
}

/// Why there is no kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The running CPU lacks instructions.
    #[error("this CPU lacks its instructions")]
    Cpu,
    /// Products would be wrong.
    #[error("wrong in rings of more than {max_bits} bits")]
    Ring {
        /// The widest ring it is right for.
        max_bits: u32,
    },
}

/// The left rows and the right panel of one tile of a product.
pub(crate) struct Tile<'a> {
    /// Up to [`MR`] rows of the left side, all as deep as the panel.
    pub(crate) rows: &'a [&'a [u64]],
    /// `panel[p * step + j]` for j < `columns` rounded up to whole vectors.
    pub(crate) panel: &'a [u64],
    /// Distance of two rows of the panel.
    pub(crate) step: usize,
    /// Columns of the result that the panel has.
    pub(crate) columns: usize,
    /// Distance of two rows of the result.
    pub(crate) stride: usize,
}

impl Kernel {
    /// The fastest kernel for `ring` on this CPU.
    pub fn best(ring: Ring) -> Self {
        Self::available(ring)[0]
    }

    /// Every kernel that is right for `ring` and that this CPU runs, the fastest first.
    pub fn available(ring: Ring) -> Vec<Self> {
        Self::all(ring).into_iter().filter_map(|(_, kernel)| kernel.ok()).collect()
    }

    /// Names of all kernels that were built, the fastest first, each with the kernel or why there is none for `ring` here.
    pub fn all(ring: Ring) -> Vec<(&'static str, Result<Self, Unavailable>)> {
        let isas = [
            #[cfg(target_arch = "x86_64")]
            Isa::Ifma,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2,
            Isa::Portable,
        ];
        let usable = |isa: Isa| match isa.max_bits() {
            max_bits if ring.bits() > max_bits => Err(Unavailable::Ring { max_bits }),
            _ if !isa.runs() => Err(Unavailable::Cpu),
            _ => Ok(Self(isa)),
        };
        isas.into_iter().map(|isa| (Self(isa).name(), usable(isa))).collect()
    }

    /// Name for reports.
    pub fn name(self) -> &'static str {
        match self.0 {
            Isa::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Isa::Ifma => "ifma",
        }
    }

    /// Columns of a full register tile.
    pub(crate) fn columns(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Isa::Ifma => 3 * LANES,
            _ => 2 * LANES,
        }
    }

    /// Runs plain code compiled for this kernel's instructions.
    #[inline]
    pub(crate) fn run<T>(self, code: impl FnOnce() -> T) -> T {
        match self.0 {
            Isa::Portable => code(),
            // SAFETY: `available` made this variant only after the running CPU reported the feature.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { run_avx2(code) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Ifma => unsafe { run_avx512(code) },
        }
    }

    /// Adds the products of a tile to the result, whose first element is the tile's corner.
    pub(crate) fn tile(self, tile: &Tile, out: &mut [u64]) {
        let width = tile.columns.next_multiple_of(LANES);
        let depth = tile.rows[0].len();
        assert!((1..=MR).contains(&tile.rows.len()) && (1..=self.columns()).contains(&tile.columns));
        assert!(tile.rows.iter().all(|row| row.len() == depth));
        assert!(depth == 0 || (tile.step >= width && tile.panel.len() >= (depth - 1) * tile.step + width));
        match self.0 {
            // SAFETY: `available` made this variant only after the running CPU reported the features; the lengths were
            // checked.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { tile_avx2(tile, depth, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512::tile(tile, depth, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Ifma => unsafe { ifma::tile(tile, depth, out) },
            Isa::Portable => tile_portable(tile, out),
        }
    }

    /// Up to how many rows on the left it is faster to read the right side where it lies than to pack it.
    pub(crate) fn few_rows(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Ifma => MR,
            _ => 3,
        }
    }

    /// `out += factor · row`.
    pub(crate) fn axpy(self, factor: u64, row: &[u64], out: &mut [u64]) {
        self.run(|| out.iter_mut().zip(row).for_each(|(o, r)| *o = o.wrapping_add(factor.wrapping_mul(*r))));
    }
}

#[inline(always)]
fn tile_portable(tile: &Tile, out: &mut [u64]) {
    match (tile.rows.len(), tile.columns.div_ceil(LANES)) {
        (1, 1) => sums::<1, LANES>(tile, out),
        (1, _) => sums::<1, { 2 * LANES }>(tile, out),
        (_, 1) => sums::<MR, LANES>(tile, out),
        _ => sums::<MR, { 2 * LANES }>(tile, out),
    }
}

/// Missing rows repeat the first one; their sums are dropped.
#[inline(always)]
fn sums<const R: usize, const WIDTH: usize>(tile: &Tile, out: &mut [u64]) {
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
        let out = &mut out[i * tile.stride..][..tile.columns];
        out.iter_mut().zip(sums).for_each(|(o, s)| *o = o.wrapping_add(*s));
    }
}

/// Two rows by eight columns at a time. AVX2 multiplies halves only: low by low with all 64 bits of the product, and both
/// cross products, whose upper halves do not count, at once in 32-bit lanes.
///
/// # Safety
///
/// The panel has `depth` rows of whole vectors for `columns`, and every row of the left side is `depth` long.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn tile_avx2(tile: &Tile, depth: usize, out: &mut [u64]) {
    use std::arch::x86_64::*;
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
                let out = &mut out[(2 * pair + r) * tile.stride + j..];
                let columns = tile.columns - j;
                out.iter_mut().zip(sums).take(columns).for_each(|(o, s)| *o = o.wrapping_add(s));
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_avx2<T>(code: impl FnOnce() -> T) -> T {
    code()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn run_avx512<T>(code: impl FnOnce() -> T) -> T {
    code()
}

/// The same loops for two multiply-adds of 512-bit vectors, which need different target features.
#[cfg(target_arch = "x86_64")]
macro_rules! vector_kernels {
    ($name:ident, $features:literal, $multiply_add:expr) => {
        mod $name {
            use super::{LANES, MR, Tile};
            use std::arch::x86_64::*;

            /// # Safety
            ///
            /// The panel has `depth` rows of whole vectors for `columns`, and every row of the left side is `depth` long.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn tile(tile: &Tile, depth: usize, out: &mut [u64]) {
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
            unsafe fn by_rows<const V: usize>(tile: &Tile, depth: usize, out: &mut [u64]) {
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
            unsafe fn sums<const R: usize, const V: usize>(tile: &Tile, depth: usize, out: &mut [u64]) {
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
                        let out = &mut out[i * tile.stride..][..tile.columns];
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

#[cfg(target_arch = "x86_64")]
vector_kernels!(avx512, "avx512f,avx512dq", |sum, a, b| _mm512_add_epi64(sum, _mm512_mullo_epi64(a, b)));
#[cfg(target_arch = "x86_64")]
vector_kernels!(ifma, "avx512f,avx512dq,avx512ifma", |sum, a, b| _mm512_madd52lo_epu64(sum, a, b));

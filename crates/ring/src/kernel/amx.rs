//! Products in AMX tiles of bytes, where the CPU has them (Intel from 2023 on), for rings of any width.
//!
//! An element of l bits is a number of L = ceil(l / 8) digits of one byte, and a product modulo 2^(8L) is the sum over s < L of
//! 2^(8s) times the products of all digits i and j with i + j = s. One `tdpbuud` multiplies 16 x 64 digits by 64 x 16 and
//! adds to 16 x 16 sums of 32 bits: 1024 products of digits a cycle, of which an element takes L (L + 1) / 2. That are 48 products
//! a cycle at 48 bits and 28 at 64 bits, where vectors have 16 of 52 bits and 4 of 64 bits.
//!
//! Both sides are packed digit by digit: the left one as 16 rows of 64 digits, the right one as 16 rows of 16 columns of 4 digits.

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::LazyLock;

use super::LANES;
use crate::Ring;

/// Rows and columns of a tile of sums.
pub(crate) const SIDE: usize = 16;
/// Depth of a tile of digits.
const CHUNK: usize = 64;
/// Depth of a block: eight products of digits for each of 512 stay below 2^32.
const KC: usize = 512;
/// Bytes of packed right side that stay in the second-level cache.
const RIGHT_BYTES: usize = 768 << 10;
/// Most sums of a pass: there are eight tiles, two hold the operands.
const SUMS: usize = 6;

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
        asm!("syscall", inlateout("rax") result, in("rdi") 0x1023, in("rsi") 18, out("rcx") _, out("r11") _);
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Whether tiles are faster than vectors of `rate` multiply-adds a cycle, by an estimate of cycles: tiles are padded, and
/// both sides have to be packed.
pub(super) fn pays(ring: Ring, [m, n, k]: [usize; 3], rate: f64) -> bool {
    let limbs = ring.bits().div_ceil(8) as f64;
    let padded = |size: usize, step: usize| size.next_multiple_of(step) as f64;
    let tiles = padded(m, SIDE) * padded(n, SIDE) * padded(k, CHUNK);
    let digits = tiles / 16384.0 * 22.0 * limbs * (limbs + 1.0) / 2.0;
    let packing = padded(k, CHUNK) * (padded(m, SIDE) + 1.5 * padded(n, SIDE));
    let sums = padded(m, SIDE) * padded(n, SIDE) * (k.div_ceil(KC) as f64) * limbs * 0.3;
    digits + packing + sums + 1000.0 < (m * n * k) as f64 / rate
}

/// Digits of one operand.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Digits([u8; SIDE * CHUNK]);

/// Sums of products of digits.
#[repr(C, align(64))]
struct Sums([[u32; SIDE * SIDE]; SUMS]);

/// `c += a · b` modulo 2^l where `a` has `c.len()` rows of k and `fill` gives the columns of b from `first` on, as for
/// [`gemm_with`](crate::gemm::gemm_with). The CPU has to have the instructions.
pub(crate) fn product(
    ring: Ring,
    k: usize,
    a: &[u64],
    first: usize,
    c: &mut [&mut [u64]],
    fill: &impl Fn(usize, usize, usize, usize, &mut [u64]),
) {
    assert!(runs() && a.len() == c.len() * k && c.iter().all(|row| row.len() == c[0].len()));
    let Some(n) = c.first().map(|row| row.len()) else { return };
    let limbs = ring.bits().div_ceil(8) as usize;
    let chunks = KC.min(k).div_ceil(CHUNK);
    let nc = (RIGHT_BYTES / (KC * limbs) / SIDE * SIDE).min(n.next_multiple_of(SIDE));
    let mut left = vec![Digits([0; SIDE * CHUNK]); chunks * limbs];
    let mut right = vec![Digits([0; SIDE * CHUNK]); nc / SIDE * chunks * limbs];
    let mut panel = [0; CHUNK * SIDE];
    let _configured = Configured::new();
    let mut sums = Sums([[0; SIDE * SIDE]; SUMS]);
    for j0 in (0..n).step_by(nc) {
        let block = nc.min(n - j0);
        for k0 in (0..k).step_by(KC) {
            let depth = KC.min(k - k0);
            let used = depth.div_ceil(CHUNK) * limbs;
            for (j, tiles) in (0..block).step_by(SIDE).zip(right.chunks_exact_mut(used)) {
                let columns = SIDE.min(block - j);
                let width = columns.next_multiple_of(LANES);
                for (p, tiles) in (0..depth).step_by(CHUNK).zip(tiles.chunks_exact_mut(limbs)) {
                    let rows = CHUNK.min(depth - p);
                    fill(k0 + p, first + j0 + j, columns, width, &mut panel[..rows * width]);
                    panel[rows * width..].fill(0);
                    // SAFETY: `runs` was asserted.
                    unsafe { pack_right(&panel, width, tiles) };
                }
            }
            for (i, c) in c.chunks_mut(SIDE).enumerate() {
                for (p, tiles) in (0..depth).step_by(CHUNK).zip(left.chunks_exact_mut(limbs)) {
                    for r in 0..c.len() {
                        let row = &a[(i * SIDE + r) * k + k0 + p..][..CHUNK.min(depth - p)];
                        // SAFETY: `runs` was asserted.
                        unsafe { pack_left(row, r, tiles) };
                    }
                }
                for (j, tiles) in (0..block).step_by(SIDE).zip(right.chunks_exact(used)) {
                    let columns = SIDE.min(block - j);
                    for pass in passes(limbs) {
                        // SAFETY: `runs` was asserted.
                        unsafe {
                            (pass.run)(&left[..used], tiles, limbs, &mut sums);
                            add(&sums.0[..pass.sums], pass.first, c, j0 + j, columns);
                        }
                    }
                }
            }
        }
    }
}

/// One walk over the depth of a block, for the sums of some digits.
struct Pass {
    /// Digit of the first sum.
    first: usize,
    sums: usize,
    run: unsafe fn(&[Digits], &[Digits], usize, &mut Sums),
}

/// Few passes that have at least two sums, better three: a tile's products have a latency of three.
fn passes(limbs: usize) -> &'static [Pass] {
    const fn pass(first: usize, sums: usize, run: unsafe fn(&[Digits], &[Digits], usize, &mut Sums)) -> Pass {
        Pass { first, sums, run }
    }
    match limbs {
        2 => const { &[pass(0, 2, below_2)] },
        3 => const { &[pass(0, 3, below_3)] },
        4 => const { &[pass(0, 4, below_4)] },
        5 => const { &[pass(0, 5, below_5)] },
        6 => const { &[pass(0, 6, below_6)] },
        7 => const { &[pass(0, 4, below_4), pass(4, 3, from_4_below_7)] },
        8 => const { &[pass(0, 5, below_5), pass(5, 3, from_5_below_8)] },
        _ => unreachable!("rings have 16 to 64 bits"),
    }
}

/// What `ldtilecfg` reads: palette 1, eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config([u8; 64]);

static CONFIG: Config = {
    let mut config = [0; 64];
    config[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        config[16 + 2 * tile] = CHUNK as u8;
        config[48 + tile] = SIDE as u8;
        tile += 1;
    }
    Config(config)
};

/// While it lives, this thread's tiles are configured.
struct Configured;

impl Configured {
    fn new() -> Self {
        assert!(runs());
        // SAFETY: the CPU has tiles; compiled code knows nothing of them.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(nostack, readonly, preserves_flags)) };
        Self
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: `new` asserted that the CPU has tiles. Without this, the system would go on saving their 8 KiB.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// A pass: for every digit of the right side (at its offset) those of the left that it is multiplied by, and the sum that this adds to.
macro_rules! pass {
    ($name:ident: $($right:literal: $($left:literal > $sum:literal),+;)+) => {
        /// # Safety
        ///
        /// The CPU has tiles, and this thread has configured them as [`Configured`] does. The operands are whole chunks of `limbs` tiles each, which the pass does not exceed.
        unsafe fn $name(left: &[Digits], right: &[Digits], limbs: usize, sums: &mut Sums) {
            assert!(!left.is_empty() && left.len() == right.len() && left.len().is_multiple_of(limbs));
            // SAFETY: `left` and `right` have `chunks` times `limbs` tiles; `sums` has room for six. The
            // tiles are said to be overwritten.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "tilezero tmm4",
                    "tilezero tmm5",
                    "2:",
                    $(
                        concat!("tileloadd tmm7, [{right} + {row} + 1024 * ", $right, "]"),
                        $(
                            concat!("tileloadd tmm6, [{left} + {row} + 1024 * ", $left, "]"),
                            concat!("tdpbuud tmm", $sum, ", tmm6, tmm7"),
                        )+
                    )+
                    "add {left}, {step}",
                    "add {right}, {step}",
                    "dec {chunks}",
                    "jnz 2b",
                    "tilestored [{sums} + {row}], tmm0",
                    "tilestored [{sums} + {row} + 1024], tmm1",
                    "tilestored [{sums} + {row} + 2048], tmm2",
                    "tilestored [{sums} + {row} + 3072], tmm3",
                    "tilestored [{sums} + {row} + 4096], tmm4",
                    "tilestored [{sums} + {row} + 5120], tmm5",
                    left = inout(reg) left.as_ptr() => _,
                    right = inout(reg) right.as_ptr() => _,
                    chunks = inout(reg) left.len() / limbs => _,
                    step = in(reg) size_of::<Digits>() * limbs,
                    row = in(reg) CHUNK,
                    sums = in(reg) sums,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

pass!(below_2: 0: 0 > 0, 1 > 1; 1: 0 > 1;);
pass!(below_3: 0: 0 > 0, 1 > 1, 2 > 2; 1: 0 > 1, 1 > 2; 2: 0 > 2;);
pass!(below_4: 0: 0 > 0, 1 > 1, 2 > 2, 3 > 3; 1: 0 > 1, 1 > 2, 2 > 3; 2: 0 > 2, 1 > 3; 3: 0 > 3;);
pass!(below_5:
    0: 0 > 0, 1 > 1, 2 > 2, 3 > 3, 4 > 4;
    1: 0 > 1, 1 > 2, 2 > 3, 3 > 4;
    2: 0 > 2, 1 > 3, 2 > 4;
    3: 0 > 3, 1 > 4;
    4: 0 > 4;
);
pass!(below_6:
    0: 0 > 0, 1 > 1, 2 > 2, 3 > 3, 4 > 4, 5 > 5;
    1: 0 > 1, 1 > 2, 2 > 3, 3 > 4, 4 > 5;
    2: 0 > 2, 1 > 3, 2 > 4, 3 > 5;
    3: 0 > 3, 1 > 4, 2 > 5;
    4: 0 > 4, 1 > 5;
    5: 0 > 5;
);
pass!(from_4_below_7:
    0: 4 > 0, 5 > 1, 6 > 2;
    1: 3 > 0, 4 > 1, 5 > 2;
    2: 2 > 0, 3 > 1, 4 > 2;
    3: 1 > 0, 2 > 1, 3 > 2;
    4: 0 > 0, 1 > 1, 2 > 2;
    5: 0 > 1, 1 > 2;
    6: 0 > 2;
);
pass!(from_5_below_8:
    0: 5 > 0, 6 > 1, 7 > 2;
    1: 4 > 0, 5 > 1, 6 > 2;
    2: 3 > 0, 4 > 1, 5 > 2;
    3: 2 > 0, 3 > 1, 4 > 2;
    4: 1 > 0, 2 > 1, 3 > 2;
    5: 0 > 0, 1 > 1, 2 > 2;
    6: 0 > 1, 1 > 2;
    7: 0 > 2;
);

/// Adds sums of digits, the first of which counts 2^(8 `first`), to columns `at`.. of the result.
///
/// # Safety
///
/// The CPU has AVX-512 F.
#[target_feature(enable = "avx512f")]
unsafe fn add(sums: &[[u32; SIDE * SIDE]], first: usize, c: &mut [&mut [u64]], at: usize, columns: usize) {
    // `pack_right` interleaves pairs of columns.
    let order = [_mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13), _mm512_setr_epi64(2, 3, 6, 7, 10, 11, 14, 15)];
    for (r, row) in c.iter_mut().enumerate() {
        let mut halves = [_mm512_setzero_si512(); 2];
        for (sum, digit) in sums.iter().zip(first..) {
            let shift = _mm_cvtsi64_si128(8 * digit as i64);
            let row: &[u32; SIDE] = sum[r * SIDE..].first_chunk().expect("16 rows");
            for (h, half) in halves.iter_mut().enumerate() {
                // SAFETY: a row has two halves of eight sums.
                let eight = unsafe { _mm256_loadu_si256(row.as_ptr().add(h * LANES).cast()) };
                *half = _mm512_add_epi64(*half, _mm512_sll_epi64(_mm512_cvtepu32_epi64(eight), shift));
            }
        }
        let out = &mut row[at..][..columns];
        for (eight, order) in out.chunks_mut(LANES).zip(order) {
            let sum = _mm512_permutex2var_epi64(halves[0], order, halves[1]);
            let mask = u8::MAX >> (LANES - eight.len());
            let at = eight.as_mut_ptr().cast();
            // SAFETY: the mask leaves out the lanes behind the slice's end.
            unsafe {
                let old = _mm512_maskz_loadu_epi64(mask, at);
                _mm512_mask_storeu_epi64(at, mask, _mm512_add_epi64(old, sum));
            }
        }
    }
}

/// Digits of up to 64 elements of a row of the left side, to row `r` of one tile per digit; the rest is zero.
///
/// # Safety
///
/// The CPU has AVX-512 F and VBMI.
#[target_feature(enable = "avx512f,avx512vbmi")]
unsafe fn pack_left(row: &[u64], r: usize, tiles: &mut [Digits]) {
    let mut order = [0u8; 64];
    for (i, at) in order.iter_mut().enumerate() {
        *at = (i % 8 * 8 + i / 8) as u8;
    }
    // SAFETY: 64 bytes.
    let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
    // Eight elements a vector, whose digits are brought together: lane i has those of weight i.
    let mut eights = [_mm512_setzero_si512(); 8];
    for (eight, values) in eights.iter_mut().zip(row.chunks(LANES)) {
        let mask = u8::MAX >> (LANES - values.len());
        // SAFETY: the mask leaves out the lanes behind the slice's end.
        *eight =
            _mm512_permutexvar_epi8(order, unsafe { _mm512_maskz_loadu_epi64(mask, values.as_ptr().cast()) });
    }
    // Transposed as a matrix of 8 x 8 lanes.
    let [a, b, c, d, e, f, g, h] = eights;
    let even = [(a, b), (c, d), (e, f), (g, h)].map(|(x, y)| _mm512_unpacklo_epi64(x, y));
    let odd = [(a, b), (c, d), (e, f), (g, h)].map(|(x, y)| _mm512_unpackhi_epi64(x, y));
    let quarters = |[p, q, r, s]: [__m512i; 4]| {
        let low = [_mm512_shuffle_i64x2::<0x44>(p, q), _mm512_shuffle_i64x2::<0x44>(r, s)];
        let high = [_mm512_shuffle_i64x2::<0xee>(p, q), _mm512_shuffle_i64x2::<0xee>(r, s)];
        [
            _mm512_shuffle_i64x2::<0x88>(low[0], low[1]),
            _mm512_shuffle_i64x2::<0xdd>(low[0], low[1]),
            _mm512_shuffle_i64x2::<0x88>(high[0], high[1]),
            _mm512_shuffle_i64x2::<0xdd>(high[0], high[1]),
        ]
    };
    let (even, odd) = (quarters(even), quarters(odd));
    for (i, tile) in tiles.iter_mut().enumerate() {
        let out = &mut tile.0[r * CHUNK..][..CHUNK];
        // SAFETY: `out` has 64 bytes.
        unsafe {
            _mm512_storeu_si512(out.as_mut_ptr().cast(), if i % 2 == 0 { even[i / 2] } else { odd[i / 2] })
        };
    }
}

/// Digits of 64 rows of a panel of 8 or 16 columns, one tile per digit. Columns are permuted: pairs 0, 4, 1, 5, 2, 6, 3, 7.
///
/// # Safety
///
/// The CPU has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_right(panel: &[u64; CHUNK * SIDE], width: usize, tiles: &mut [Digits]) {
    assert!(tiles.len() <= 8);
    for (four, rows) in panel[..CHUNK * width].chunks_exact(4 * width).enumerate() {
        // Of 2 x 4 columns, even and odd ones: digits 0 to 3 and 4 to 7, four bytes each.
        let mut low = [_mm512_setzero_si512(); 4];
        let mut high = low;
        for half in 0..width / LANES {
            let row: [__m512i; 4] = std::array::from_fn(|r| {
                let eight = &rows[r * width + half * LANES..][..LANES];
                // SAFETY: eight elements.
                unsafe { _mm512_loadu_si512(eight.as_ptr().cast()) }
            });
            let even = [_mm512_unpacklo_epi8(row[0], row[1]), _mm512_unpacklo_epi8(row[2], row[3])];
            let odd = [_mm512_unpackhi_epi8(row[0], row[1]), _mm512_unpackhi_epi8(row[2], row[3])];
            for (i, pair) in [even, odd].into_iter().enumerate() {
                low[2 * half + i] = _mm512_unpacklo_epi16(pair[0], pair[1]);
                high[2 * half + i] = _mm512_unpackhi_epi16(pair[0], pair[1]);
            }
        }
        let transposed = |[p, q, r, s]: [__m512i; 4]| {
            let first = [_mm512_unpacklo_epi32(p, q), _mm512_unpacklo_epi32(r, s)];
            let second = [_mm512_unpackhi_epi32(p, q), _mm512_unpackhi_epi32(r, s)];
            [
                _mm512_unpacklo_epi64(first[0], first[1]),
                _mm512_unpackhi_epi64(first[0], first[1]),
                _mm512_unpacklo_epi64(second[0], second[1]),
                _mm512_unpackhi_epi64(second[0], second[1]),
            ]
        };
        let digits = [transposed(low), transposed(high)];
        for (i, tile) in tiles.iter_mut().enumerate() {
            let out = &mut tile.0[four * CHUNK..][..CHUNK];
            // SAFETY: `out` has 64 bytes.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), digits[i / 4][i % 4]) };
        }
    }
}

//! The hash and the levels by VAES and AVX-512: four blocks to a vector, [`GROUP`] vectors through the cipher together.
//!
//! A vector's masks have two bits for each block, one for each half of it.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Doubled, Word};
use crate::prg::Seed;

/// Vectors whose rounds are interleaved. What hides the latency of a round beyond them is that groups do not depend on
/// one another.
const GROUP: usize = 4;
/// Blocks to a vector.
const LANES: usize = 4;
/// Halves to a vector.
const HALVES: usize = 2 * LANES;

/// The round keys, each in all four lanes.
pub(super) struct Keys {
    rounds: [__m512i; 11],
    /// In every half; from here, so that the compiler does not know it: it would test for it in more instructions.
    one: __m512i,
}

/// The first block of a group and how many blocks it has, less than a vector's only in the last one.
#[derive(Clone, Copy)]
struct Place {
    at: usize,
    mask: u8,
}

impl Place {
    /// Vector `v` of the group that starts here.
    fn vector(self, v: usize) -> Self {
        Self { at: self.at + v * LANES, ..self }
    }
}

impl Keys {
    /// `None` where the running CPU lacks the instructions.
    pub(super) fn new(key: &Seed) -> Option<Self> {
        let runs = is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        // SAFETY: the features were just detected; a `Keys` exists nowhere else, so all methods may rely on them.
        runs.then(|| unsafe { schedule(key) })
    }

    pub(super) fn blocks(&self, blocks: &[u128], tweak: u128, out: &mut [u128]) {
        let n = blocks.len().min(out.len());
        // SAFETY: the features as in `new`; places lie within both slices.
        unsafe { blocks_loop(self, blocks.as_ptr(), tweak, out.as_mut_ptr(), n) }
    }

    pub(super) fn descend(
        &self,
        nodes: &mut [u128],
        words: &[Word],
        x: &[Doubled],
        bit: u32,
        sums: &mut [u128],
    ) {
        let n = nodes.len().min(words.len()).min(x.len()).min(sums.len());
        // SAFETY: the features as in `new`; places lie within all slices.
        unsafe {
            descend_loop(self, nodes.as_mut_ptr(), words.as_ptr(), x.as_ptr(), bit, sums.as_mut_ptr(), n);
        }
    }

    pub(super) fn split(
        &self,
        nodes: &mut [u128],
        differences: &[u128],
        alpha: &[Doubled],
        bit: u32,
        words: &mut [Word],
    ) {
        let n = nodes.len().min(differences.len()).min(alpha.len()).min(words.len());
        let (nodes, words) = (nodes.as_mut_ptr(), words.as_mut_ptr());
        // SAFETY: the features as in `new`; places lie within all slices.
        unsafe { split_loop(self, nodes, differences.as_ptr(), alpha.as_ptr(), bit, words, n) }
    }

    pub(super) fn children(&self, nodes: &[u128], words: &[Word], left: &mut [u128], right: &mut [u128]) {
        let n = nodes.len().min(words.len()).min(left.len()).min(right.len());
        let children = [left.as_mut_ptr(), right.as_mut_ptr()];
        // SAFETY: the features as in `new`; places lie within all slices.
        unsafe { children_loop(self, nodes.as_ptr(), words.as_ptr(), children, n) }
    }

    /// The sum of all entries whose bit is 1.
    pub(super) fn sum_selected<'a>(&self, words: impl Iterator<Item = (&'a u128, &'a [u64; 128])>) -> u64 {
        // SAFETY: the features as in `new`.
        unsafe { sum_loop(words) }
    }
}

/// FIPS 197, section 5.2.
#[target_feature(enable = "aes,avx512f")]
fn schedule(key: &Seed) -> Keys {
    macro_rules! next {
        ($key:expr, $constant:literal) => {{
            let word = _mm_shuffle_epi32::<0xff>(_mm_aeskeygenassist_si128::<$constant>($key));
            let mut key = _mm_xor_si128($key, _mm_slli_si128::<4>($key));
            key = _mm_xor_si128(key, _mm_slli_si128::<8>(key));
            _mm_xor_si128(key, word)
        }};
    }
    let bytes = u128::from_le_bytes(*key.expose());
    let k0 = _mm_set_epi64x((bytes >> 64) as i64, bytes as i64);
    let k1 = next!(k0, 0x01);
    let k2 = next!(k1, 0x02);
    let k3 = next!(k2, 0x04);
    let k4 = next!(k3, 0x08);
    let k5 = next!(k4, 0x10);
    let k6 = next!(k5, 0x20);
    let k7 = next!(k6, 0x40);
    let k8 = next!(k7, 0x80);
    let k9 = next!(k8, 0x1b);
    let k10 = next!(k9, 0x36);
    let rounds = [k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10].map(|k| _mm512_broadcast_i32x4(k));
    Keys { rounds, one: _mm512_set1_epi64(1) }
}

/// H of every block, in two parts whose sum it is: what leaves the cipher, and what entered it.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,vaes")]
fn hash<const V: usize>(keys: &Keys, blocks: [__m512i; V]) -> [[__m512i; V]; 2] {
    let rounds = &keys.rounds;
    let mut sigmas = blocks;
    sigmas.iter_mut().for_each(|s| *s = sigma(*s));
    let mut state = sigmas;
    state.iter_mut().for_each(|s| *s = _mm512_xor_si512(*s, rounds[0]));
    for key in &rounds[1..10] {
        state.iter_mut().for_each(|s| *s = _mm512_aesenc_epi128(*s, *key));
        in_step(&mut state);
    }
    state.iter_mut().for_each(|s| *s = _mm512_aesenclast_epi128(*s, rounds[10]));
    [state, sigmas]
}

/// Keeps the compiler from finishing one vector before it starts with the next one: rounds of one wait for each other, and the
/// CPU does not look far enough ahead to find those of the next.
#[inline]
#[target_feature(enable = "avx512f")]
fn in_step<const V: usize>(state: &mut [__m512i; V]) {
    if let [a, b, c, d] = &mut state[..] {
        // SAFETY: no instruction; the values stay where they are.
        unsafe {
            asm!(
                "/* {0} {1} {2} {3} */",
                inout(zmm_reg) * a,
                inout(zmm_reg) * b,
                inout(zmm_reg) * c,
                inout(zmm_reg) * d,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
    }
}

/// The high half becomes the low one, and the sum of both the high one.
#[inline]
#[target_feature(enable = "avx512f")]
fn sigma(block: __m512i) -> __m512i {
    let swapped = _mm512_shuffle_epi32::<0x4e>(block);
    _mm512_mask_xor_epi64(swapped, 0xaa, swapped, block)
}

/// The sum of three.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0x96>(a, b, c)
}

/// Which blocks have the lowest bit 1.
#[inline]
#[target_feature(enable = "avx512f")]
fn lowest(keys: &Keys, block: __m512i) -> __mmask8 {
    _mm512_test_epi64_mask(_mm512_shuffle_epi32::<0x44>(block), keys.one)
}

/// # Safety
/// There are blocks at `from` for the place's mask.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load<T>(from: *const T, place: Place) -> __m512i {
    debug_assert_eq!(size_of::<T>(), 16);
    // SAFETY: the caller's; what the mask leaves out is not touched.
    unsafe { _mm512_maskz_loadu_epi64(place.mask, from.add(place.at).cast()) }
}

/// # Safety
/// There is room for blocks at `to` for the place's mask.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store<T>(to: *mut T, place: Place, blocks: __m512i) {
    // SAFETY: the caller's; what the mask leaves out is not touched.
    unsafe { _mm512_mask_storeu_epi64(to.add(place.at).cast(), place.mask, blocks) }
}

/// Runs `$body::<V>` for groups of vectors over `n` blocks, and for what is left.
macro_rules! groups {
    ($n:expr, $body:ident($($argument:expr),*)) => {{
        let mut at = 0;
        while at + GROUP * LANES <= $n {
            $body::<GROUP>($($argument,)* Place { at, mask: u8::MAX });
            at += GROUP * LANES;
        }
        while at < $n {
            let halves = (2 * ($n - at)).min(HALVES);
            $body::<1>($($argument,)* Place { at, mask: u8::MAX >> (HALVES - halves) });
            at += LANES;
        }
    }};
}

/// # Safety
/// There are `n` blocks at both pointers.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,vaes")]
unsafe fn blocks_loop(keys: &Keys, blocks: *const u128, tweak: u128, out: *mut u128, n: usize) {
    let tweak = _mm512_broadcast_i32x4(_mm_set_epi64x((tweak >> 64) as i64, tweak as i64));
    // SAFETY: the caller's; groups cover blocks 0 to n − 1.
    unsafe { groups!(n, blocks_group(keys, blocks, tweak, out)) }
}

/// # Safety
/// There are blocks at both pointers for `V` vectors from `place` on.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,vaes")]
unsafe fn blocks_group<const V: usize>(
    keys: &Keys,
    blocks: *const u128,
    tweak: __m512i,
    out: *mut u128,
    place: Place,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut s = [_mm512_setzero_si512(); V];
        for v in 0..V {
            s[v] = _mm512_xor_si512(load(blocks, place.vector(v)), tweak);
        }
        let [h, sigma] = hash(keys, s);
        for v in 0..V {
            store(out, place.vector(v), _mm512_xor_si512(h[v], sigma[v]));
        }
    }
}

/// # Safety
/// There are `n` of each at all pointers, and `bit` < 64.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,vaes")]
unsafe fn descend_loop(
    keys: &Keys,
    nodes: *mut u128,
    words: *const Word,
    x: *const Doubled,
    bit: u32,
    sums: *mut u128,
    n: usize,
) {
    let bit = _mm512_set1_epi64((1u64 << bit) as i64);
    // SAFETY: the caller's; groups cover trees 0 to n − 1.
    unsafe { groups!(n, descend_group(keys, nodes, words, x, bit, sums)) }
}

/// # Safety
/// There are as many of each at all pointers as `V` vectors from `place` on have blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,vaes")]
unsafe fn descend_group<const V: usize>(
    keys: &Keys,
    nodes: *mut u128,
    words: *const Word,
    x: *const Doubled,
    bit: __m512i,
    sums: *mut u128,
    place: Place,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut s = [_mm512_setzero_si512(); V];
        for v in 0..V {
            s[v] = load(nodes, place.vector(v));
        }
        let [h, sigma] = hash(keys, s);
        // Everything is read before anything is written, which the compiler could not move.
        let mut passed = s;
        for v in 0..V {
            let place = place.vector(v);
            let word = load(words, Place { mask: place.mask & lowest(keys, s[v]), ..place });
            let left = sum(h[v], sigma[v], word);
            let x = load(x, place);
            let (goes_left, goes_right) = (_mm512_testn_epi64_mask(x, bit), _mm512_test_epi64_mask(x, bit));
            let before = load(sums, place);
            passed[v] = _mm512_mask_mov_epi64(before, goes_left, sum(before, left, s[v]));
            s[v] = _mm512_mask_xor_epi64(left, goes_right, left, s[v]);
        }
        for v in 0..V {
            store(sums, place.vector(v), passed[v]);
            store(nodes, place.vector(v), s[v]);
        }
    }
}

/// # Safety
/// There are `n` of each at all pointers, and `bit` < 64.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,vaes")]
unsafe fn split_loop(
    keys: &Keys,
    nodes: *mut u128,
    differences: *const u128,
    alpha: *const Doubled,
    bit: u32,
    words: *mut Word,
    n: usize,
) {
    let bit = _mm512_set1_epi64((1u64 << bit) as i64);
    // SAFETY: the caller's; groups cover trees 0 to n − 1.
    unsafe { groups!(n, split_group(keys, nodes, differences, alpha, bit, words)) }
}

/// # Safety
/// There are as many of each at all pointers as `V` vectors from `place` on have blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,vaes")]
unsafe fn split_group<const V: usize>(
    keys: &Keys,
    nodes: *mut u128,
    differences: *const u128,
    alpha: *const Doubled,
    bit: __m512i,
    words: *mut Word,
    place: Place,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut s = [[_mm512_setzero_si512(); V]; 2];
        for v in 0..V {
            s[0][v] = load(nodes, place.vector(v));
            s[1][v] = _mm512_xor_si512(s[0][v], load(differences, place.vector(v)));
        }
        let [[h_0, sigma_0], [h_1, sigma_1]] = [hash(keys, s[0]), hash(keys, s[1])];
        let mut word = h_0;
        for v in 0..V {
            let place = place.vector(v);
            let alpha = load(alpha, place);
            let (goes_left, goes_right) =
                (_mm512_testn_epi64_mask(alpha, bit), _mm512_test_epi64_mask(alpha, bit));
            let left = _mm512_xor_si512(h_0[v], sigma_0[v]);
            let both = sum(left, h_1[v], sigma_1[v]);
            let difference = load(differences, Place { mask: place.mask & goes_left, ..place });
            word[v] = _mm512_xor_si512(both, difference);
            let left = _mm512_mask_xor_epi64(left, lowest(keys, s[0][v]), left, word[v]);
            s[0][v] = _mm512_mask_xor_epi64(left, goes_right, left, s[0][v]);
        }
        for v in 0..V {
            store(words, place.vector(v), word[v]);
            store(nodes, place.vector(v), s[0][v]);
        }
    }
}

/// # Safety
/// There are `n` of each at all pointers.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,vaes")]
unsafe fn children_loop(
    keys: &Keys,
    nodes: *const u128,
    words: *const Word,
    children: [*mut u128; 2],
    n: usize,
) {
    // SAFETY: the caller's; groups cover trees 0 to n − 1.
    unsafe { groups!(n, children_group(keys, nodes, words, children)) }
}

/// # Safety
/// There are as many of each at all pointers as `V` vectors from `place` on have blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,vaes")]
unsafe fn children_group<const V: usize>(
    keys: &Keys,
    nodes: *const u128,
    words: *const Word,
    children: [*mut u128; 2],
    place: Place,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut s = [_mm512_setzero_si512(); V];
        for v in 0..V {
            s[v] = load(nodes, place.vector(v));
        }
        let [h, sigma] = hash(keys, s);
        let mut left = s;
        for v in 0..V {
            let place = place.vector(v);
            let word = load(words, Place { mask: place.mask & lowest(keys, s[v]), ..place });
            left[v] = sum(h[v], sigma[v], word);
        }
        for v in 0..V {
            store(children[0], place.vector(v), left[v]);
            store(children[1], place.vector(v), _mm512_xor_si512(left[v], s[v]));
        }
    }
}

/// Eight entries at a time under eight bits of mask.
#[target_feature(enable = "avx512f")]
fn sum_loop<'a>(words: impl Iterator<Item = (&'a u128, &'a [u64; 128])>) -> u64 {
    let mut sums = [_mm512_setzero_si512(); 4];
    for (bits, entries) in words {
        let (eights, _) = entries.as_chunks::<8>();
        for (i, (mask, eight)) in bits.to_le_bytes().into_iter().zip(eights).enumerate() {
            // SAFETY: eight entries are one vector.
            let eight = unsafe { _mm512_maskz_loadu_epi64(u8::MAX, eight.as_ptr().cast()) };
            sums[i % 4] = _mm512_mask_add_epi64(sums[i % 4], mask, sums[i % 4], eight);
        }
    }
    let [a, b, c, d] = sums;
    _mm512_reduce_add_epi64(_mm512_add_epi64(_mm512_add_epi64(a, b), _mm512_add_epi64(c, d))) as u64
}

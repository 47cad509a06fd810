//! The hash and the levels by VAES and AVX-512: four blocks to a vector, four vectors through the cipher together.
//!
//! What surrounds the cipher takes as many instructions as the cipher itself, and on other pipes. The CPU does not look far
//! enough ahead to find them, so they are written where they fit: [`pipeline`].
//!
//! A mask made of secret bits is never one of an access to memory: what a mask leaves out is not read, and whoever takes pages
//! away from a process sees that. The compiler would merge a load with what uses it under a mask; [`opaque`] keeps them apart.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{BATCH, Doubled, Word};
use crate::prg::Seed;

/// Blocks to a vector.
const LANES: usize = 4;
/// Halves to a vector; a vector's masks have a bit for each.
const HALVES: usize = 2 * LANES;

/// The round keys, each in all four lanes. There are none where the running CPU lacks the instructions of the passes.
pub(super) struct Keys {
    rounds: [__m512i; 11],
}

/// The first block of a vector, and which of its halves there are: not all of them only in the last one.
#[derive(Clone, Copy)]
struct Place {
    at: usize,
    mask: u8,
}

impl Keys {
    /// `None` where the running CPU lacks the instructions.
    pub(super) fn new(key: &Seed) -> Option<Self> {
        let runs = is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        // SAFETY: the features were just detected; a `Keys` exists nowhere else, so callers of all methods may rely on them.
        runs.then(|| unsafe { schedule(key) })
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
    Keys { rounds }
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

/// All ones in blocks whose lowest bit is 1.
#[inline]
#[target_feature(enable = "avx512f")]
fn lowest(block: __m512i) -> __m512i {
    _mm512_srai_epi64::<63>(_mm512_slli_epi64::<63>(_mm512_shuffle_epi32::<0x44>(block)))
}

/// The same block in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn in_all_lanes(block: u128) -> __m512i {
    _mm512_broadcast_i32x4(_mm_set_epi64x((block >> 64) as i64, block as i64))
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
    debug_assert_eq!(size_of::<T>(), 16);
    // SAFETY: the caller's; what the mask leaves out is not touched.
    unsafe { _mm512_mask_storeu_epi64(to.add(place.at).cast(), place.mask, blocks) }
}

/// The correction words of those blocks that correct.
///
/// # Safety
/// There are words at `words` for the place's mask.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn correction(words: *const Word, place: Place, blocks: __m512i) -> __m512i {
    // SAFETY: the caller's.
    let words = opaque(unsafe { load(words, place) });
    _mm512_and_si512(lowest(blocks), words)
}

/// The same, of which the compiler knows nothing: what was loaded before is not loaded under the mask of what comes after.
#[inline]
#[target_feature(enable = "avx512f")]
fn opaque(mut blocks: __m512i) -> __m512i {
    // SAFETY: no instruction; the value stays where it is.
    unsafe { asm!("/* {0} */", inout(zmm_reg) blocks, options(pure, nomem, nostack, preserves_flags)) };
    blocks
}

/// Keeps the compiler from finishing one vector before it starts with the next one: rounds of one wait for each other.
#[inline]
#[target_feature(enable = "avx512f")]
fn in_step(state: &mut [__m512i]) {
    if let [a, b, c, d] = state {
        // SAFETY: no instruction; the values stay where they are.
        unsafe {
            asm!(
                "/* {0} {1} {2} {3} */",
                inout(zmm_reg) * a,
                inout(zmm_reg) * b,
                inout(zmm_reg) * c,
                inout(zmm_reg) * d,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// Keeps the compiler from going on with `a` before it has made `b` and `c`.
#[inline]
#[target_feature(enable = "avx512f")]
fn tie(a: &mut __m512i, b: &mut __m512i, c: &mut __m512i) {
    // SAFETY: no instruction; the values stay where they are.
    unsafe {
        asm!(
            "/* {0} {1} {2} */",
            inout(zmm_reg) * a,
            inout(zmm_reg) * b,
            inout(zmm_reg) * c,
            options(nostack, preserves_flags)
        );
    }
}

/// `VECTORS` vectors of each of `HASHES` hashes: what is in the cipher, and what the last round adds.
#[derive(Clone, Copy)]
struct Group<const HASHES: usize, const VECTORS: usize> {
    state: [[__m512i; HASHES]; VECTORS],
    last: [[__m512i; HASHES]; VECTORS],
}

impl<const HASHES: usize, const VECTORS: usize> Group<HASHES, VECTORS> {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new() -> Self {
        let zeros = [[_mm512_setzero_si512(); HASHES]; VECTORS];
        Self { state: zeros, last: zeros }
    }

    /// Puts one vector in, of `blocks` and what is added to their hashes, as far as the first key: `H(x) = π(σ(x)) ⊕ σ(x)`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn enter(&mut self, keys: &Keys, v: usize, [blocks, add]: [[__m512i; HASHES]; 2]) {
        for h in 0..HASHES {
            let sigma = sigma(blocks[h]);
            self.state[v][h] = _mm512_xor_si512(sigma, keys.rounds[0]);
            self.last[v][h] = sum(sigma, add[h], keys.rounds[10]);
        }
    }

    /// The rounds 1 to 9; after each, what has been given to do in between.
    #[inline]
    #[target_feature(enable = "avx512f,vaes")]
    fn rounds(&mut self, keys: &Keys, mut between: impl FnMut(usize, &mut __m512i)) {
        // Written out, as a loop that is not unrolled would keep `between`'s vectors in memory.
        macro_rules! rounds {
            ($($round:literal)*) => { $(
                let state = self.state.as_flattened_mut();
                state.iter_mut().for_each(|s| *s = _mm512_aesenc_epi128(*s, keys.rounds[$round]));
                in_step(state);
                between($round, &mut state[0]);
            )* };
        }
        rounds!(1 2 3 4 5 6 7 8 9);
    }

    /// The last round: the hashes and what is added to them.
    #[inline]
    #[target_feature(enable = "avx512f,vaes")]
    fn leave(self) -> [[__m512i; HASHES]; VECTORS] {
        let Self { mut state, last } = self;
        let vectors = state.as_flattened_mut().iter_mut().zip(last.as_flattened());
        vectors.for_each(|(s, last)| *s = _mm512_aesenclast_epi128(*s, *last));
        state
    }
}

/// Hashes of `n` blocks, or of several for each of them: `head` gives a vector's blocks and what is added to their hashes, `tail`
/// is given the sums. While one group of `VECTORS` vectors is in the cipher, the one before goes through `tail` and the next one
/// through `head`, so a `head` may not depend on what any `tail` of another vector writes. Both are only called for places below `n`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,vaes")]
fn pipeline<const HASHES: usize, const VECTORS: usize>(
    keys: &Keys,
    n: usize,
    head: impl Fn(Place) -> [[__m512i; HASHES]; 2],
    tail: impl Fn(Place, [__m512i; HASHES]),
) {
    let groups = n / (VECTORS * LANES);
    let place = |group: usize, v: usize| Place { at: (group * VECTORS + v) * LANES, mask: u8::MAX };
    // After the last group, it is read once more for nothing: cheaper than to ask.
    let next = |group: usize| (group + 1).min(groups - 1);
    let keys = &Keys { rounds: keys.rounds };
    if groups > 0 {
        let mut group = Group::<HASHES, VECTORS>::new();
        (0..VECTORS).for_each(|v| group.enter(keys, v, head(place(0, v))));
        group.rounds(keys, |_, _| ());
        let mut hashed = group.leave();
        (0..VECTORS).for_each(|v| group.enter(keys, v, head(place(next(0), v))));
        for i in 1..groups {
            let mut following = Group::new();
            group.rounds(keys, |round, state| {
                // Tails after the rounds 1 to 4, heads after 5 to 8.
                let (v, every) = ((round - 1) % 4 * VECTORS / 4, 4 / VECTORS);
                match round {
                    1..=4 if (round - 1) % every == 0 => tail(place(i - 1, v), hashed[v]),
                    5..=8 if (round - 1) % every == 0 => {
                        following.enter(keys, v, head(place(next(i), v)));
                        for h in 0..HASHES {
                            tie(state, &mut following.state[v][h], &mut following.last[v][h]);
                        }
                    }
                    _ => (),
                }
            });
            hashed = group.leave();
            group = following;
        }
        (0..VECTORS).for_each(|v| tail(place(groups - 1, v), hashed[v]));
    }
    for at in (groups * VECTORS * LANES..n).step_by(LANES) {
        let halves = (2 * (n - at)).min(HALVES);
        let place = Place { at, mask: u8::MAX >> (HALVES - halves) };
        let mut group = Group::<HASHES, 1>::new();
        group.enter(keys, 0, head(place));
        group.rounds(keys, |_, _| ());
        let [hashed] = group.leave();
        tail(place, hashed);
    }
}

impl Keys {
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,vaes")]
    pub(super) fn blocks(&self, blocks: &[u128], tweak: u128, out: &mut [u128]) {
        let n = blocks.len().min(out.len());
        let (blocks, out) = (blocks.as_ptr(), out.as_mut_ptr());
        let (tweak, zero) = (in_all_lanes(tweak), _mm512_setzero_si512());
        // SAFETY: here and in the passes below, places are below n, which is the length of the shortest slice.
        let head = |place| unsafe { [[_mm512_xor_si512(load(blocks, place), tweak)], [zero]] };
        // SAFETY: as above.
        let tail = |place, [h]: [__m512i; 1]| unsafe { store(out, place, h) };
        pipeline::<1, 4>(self, n, head, tail);
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512vl,vaes")]
    pub(super) fn descend(
        &self,
        nodes: &mut [u128],
        words: &[Word],
        x: &[Doubled],
        bit: u32,
        sums: &mut [u128],
    ) {
        let n = nodes.len().min(words.len()).min(x.len()).min(sums.len());
        let (nodes, words, x, sums) = (nodes.as_mut_ptr(), words.as_ptr(), x.as_ptr(), sums.as_mut_ptr());
        let bit = _mm512_set1_epi64(1 << bit);
        // SAFETY: as in `Self::blocks`.
        let head = |place: Place| unsafe {
            let s = load(nodes, place);
            _mm_prefetch::<_MM_HINT_T0>(words.wrapping_add(place.at + 2 * n).cast());
            [[s], [correction(words, place, s)]]
        };
        // SAFETY: as in `Self::blocks`.
        let tail = |place, [left]: [__m512i; 1]| unsafe {
            let (s, x, before) = (load(nodes, place), load(x, place), load(sums, place));
            let (goes_left, goes_right) = (_mm512_testn_epi64_mask(x, bit), _mm512_test_epi64_mask(x, bit));
            let passed = _mm512_mask_mov_epi64(before, goes_left, sum(before, left, s));
            // Not stored under the mask, which takes longer.
            store(sums, place, opaque(passed));
            store(nodes, place, _mm512_mask_xor_epi64(left, goes_right, left, s));
        };
        pipeline::<1, 4>(self, n, head, tail);
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512vl,vaes")]
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
        let (differences, alpha) = (differences.as_ptr(), alpha.as_ptr());
        let (bit, zero) = (_mm512_set1_epi64(1 << bit), _mm512_setzero_si512());
        // SAFETY: as in `Self::blocks`.
        let head = |place| unsafe {
            let (s, difference) = (load(nodes, place), opaque(load(differences, place)));
            let goes_left = _mm512_testn_epi64_mask(load(alpha, place), bit);
            let add = _mm512_maskz_mov_epi64(goes_left, difference);
            [[s, _mm512_xor_si512(s, difference)], [zero, add]]
        };
        // SAFETY: as in `Self::blocks`.
        let tail = |place, [h_0, h_1]: [__m512i; 2]| unsafe {
            let s = opaque(load(nodes, place));
            let goes_right = _mm512_test_epi64_mask(load(alpha, place), bit);
            let word = _mm512_xor_si512(h_0, h_1);
            let left = _mm512_ternarylogic_epi64::<0x78>(h_0, lowest(s), word);
            store(words, place, word);
            store(nodes, place, opaque(_mm512_mask_xor_epi64(left, goes_right, left, s)));
        };
        pipeline::<2, 2>(self, n, head, tail);
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512vl,vaes")]
    pub(super) fn children(&self, nodes: &[u128], words: &[Word], left: &mut [u128], right: &mut [u128]) {
        let n = nodes.len().min(words.len()).min(left.len()).min(right.len());
        let (nodes, words) = (nodes.as_ptr(), words.as_ptr());
        let (left, right) = (left.as_mut_ptr(), right.as_mut_ptr());
        // SAFETY: as in `Self::blocks`.
        let head = |place| unsafe {
            let s = load(nodes, place);
            [[s], [correction(words, place, s)]]
        };
        // SAFETY: as in `Self::blocks`.
        let tail = |place, [child]: [__m512i; 1]| unsafe {
            store(left, place, child);
            store(right, place, _mm512_xor_si512(child, load(nodes, place)));
        };
        pipeline::<1, 4>(self, n, head, tail);
    }

    /// Of at most [`BATCH`] trees.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,vaes")]
    pub(super) fn look_up(
        &self,
        nodes: &[u128],
        tweak: u128,
        words: &[Word],
        x: &[Doubled],
        sums: &[u128],
        shares: &mut [u64],
    ) {
        let n = nodes.len().min(words.len()).min(x.len()).min(sums.len()).min(BATCH);
        let (nodes, words, x, sums) = (nodes.as_ptr(), words.as_ptr(), x.as_ptr(), sums.as_ptr());
        // One for every vector: of the two bits of a block at most one is 1, and their sum is the share.
        let mut masks = [0; BATCH / LANES];
        let out = masks.as_mut_ptr();
        let (tweak, low, one) = (in_all_lanes(tweak), _mm512_set1_epi64(127), _mm512_set1_epi64(1));
        let starts = in_all_lanes(64 << 64);
        // SAFETY: as in `Self::blocks`.
        let head = |place| unsafe {
            let s = load(nodes, place);
            [[_mm512_xor_si512(s, tweak)], [correction(words, place, s)]]
        };
        // SAFETY: as in `Self::blocks`; there is a mask for each vector.
        let tail = |place: Place, [leaf]: [__m512i; 1]| unsafe {
            let index = _mm512_sub_epi64(_mm512_and_si512(load(x, place), low), starts);
            // No bit in the half where the index is not: it is shifted by more than there is.
            let bit = _mm512_sllv_epi64(one, index);
            let leaf = _mm512_xor_si512(leaf, lowest(opaque(load(sums, place))));
            out.add(place.at / LANES).write(place.mask & _mm512_test_epi64_mask(leaf, bit));
        };
        pipeline::<1, 4>(self, n, head, tail);
        let (halves, _) = masks.as_chunks::<8>();
        for (share, [low, high]) in shares.iter_mut().zip(halves.as_chunks::<2>().0) {
            *share = one_of_two(*low) | one_of_two(*high) << 32;
        }
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512vl,vaes")]
    pub(super) fn leaves_below(
        &self,
        nodes: &[u128],
        differences: &[u128],
        tweak: u128,
        alpha: &[Doubled],
        words: &mut [Word],
    ) {
        let n = nodes.len().min(differences.len()).min(alpha.len()).min(words.len());
        let (nodes, differences) = (nodes.as_ptr(), differences.as_ptr());
        let (alpha, words) = (alpha.as_ptr(), words.as_mut_ptr());
        let (tweak, low, zero) = (in_all_lanes(tweak), _mm512_set1_epi64(127), _mm512_setzero_si512());
        let (ends, ones) = (in_all_lanes(128 << 64 | 64), _mm512_set1_epi64(-1));
        // SAFETY: as in `Self::blocks`.
        let head = |place| unsafe {
            let s = _mm512_xor_si512(load(nodes, place), tweak);
            // How many bits of a half are not below α; 64 and more leave none.
            let others = _mm512_sub_epi64(ends, _mm512_and_si512(load(alpha, place), low));
            let below = _mm512_srlv_epi64(ones, _mm512_max_epi64(others, zero));
            [[s, _mm512_xor_si512(s, load(differences, place))], [below, zero]]
        };
        // SAFETY: as in `Self::blocks`.
        let tail =
            |place, [h_0, h_1]: [__m512i; 2]| unsafe { store(words, place, _mm512_xor_si512(h_0, h_1)) };
        pipeline::<2, 2>(self, n, head, tail);
    }

    /// The sum of all entries whose bit is 1: eight at a time under eight bits of mask.
    #[target_feature(enable = "avx512f")]
    pub(super) fn sum_selected<'a>(&self, words: impl Iterator<Item = (&'a u128, &'a [u64; 128])>) -> u64 {
        let mut sums = [_mm512_setzero_si512(); 4];
        for (bits, entries) in words {
            let (eights, _) = entries.as_chunks::<8>();
            for (i, (mask, eight)) in bits.to_le_bytes().into_iter().zip(eights).enumerate() {
                // SAFETY: eight entries are one vector.
                let eight = opaque(unsafe { _mm512_maskz_loadu_epi64(u8::MAX, eight.as_ptr().cast()) });
                sums[i % 4] = _mm512_mask_add_epi64(sums[i % 4], mask, sums[i % 4], eight);
            }
        }
        let [a, b, c, d] = sums;
        _mm512_reduce_add_epi64(_mm512_add_epi64(_mm512_add_epi64(a, b), _mm512_add_epi64(c, d))) as u64
    }
}

/// Bit 2i or bit 2i + 1 of a mask, of which at most one is 1, to bit i.
fn one_of_two(mask: [u8; 8]) -> u64 {
    let mask = u64::from_le_bytes(mask);
    let mut bits = (mask | mask >> 1) & 0x5555_5555_5555_5555;
    bits = (bits | bits >> 1) & 0x3333_3333_3333_3333;
    bits = (bits | bits >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
    bits = (bits | bits >> 4) & 0x00ff_00ff_00ff_00ff;
    bits = (bits | bits >> 8) & 0x0000_ffff_0000_ffff;
    (bits | bits >> 16) & 0xffff_ffff
}

//! `[x < α]` as one shared bit, for a public x and a secret α of n bits.
//!
//! On the way of x down the tree, a party adds up the lowest bits of all right siblings that it passes on the left: the one
//! where x leaves the path of α downwards gives 1, all others are equal at both parties and give 0. The last seven bits are
//! looked up in a leaf of 128 bits, `[j < α mod 128]`.
//!
//! - Source: comparison from a distributed point function as in SIGMA (Gupta et al., PETS 2024, section 4) and Storrier et al.,
//!   "Grotto" (CCS 2023); early termination of Boyle, Gilboa, Ishai (CCS 2016).
//! - Adversary: semi-honest dealer that gives each party its own root only; each party may be malicious in what it learns, its view is
//!   pseudorandom.
//! - Key: max(n − 7, 0) words of 16 bytes, and a leaf of 2^min(n, 7) bits, at least a byte: 528 bytes at n = 39. Both parties get the same words. One call of
//!   the hash a level to evaluate, two to make.
//! - Opened: nothing. Leaks: nothing.

use crate::hash::Hash;
use crate::tree::{LEAF_BITS, NODE, Pair, Walk};

/// Comparisons with α of `bits` bits, at least 1 and at most 63; higher bits of x and α are not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    bits: u32,
}

/// Keys evaluated at a time: their nodes, hashes and words stay in the first-level cache.
const PIECE: usize = 256;

impl Comparison {
    /// Over n bits.
    ///
    /// # Panics
    /// Unless 1 <= `bits` <= 63.
    pub fn new(bits: u32) -> Self {
        assert!((1..=63).contains(&bits), "a comparison of {bits} bits");
        Self { bits }
    }

    /// n.
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// Levels of the tree above the leaf.
    fn depth(self) -> u32 {
        self.bits.saturating_sub(LEAF_BITS)
    }

    fn leaf_bytes(self) -> usize {
        (1usize << self.bits.min(LEAF_BITS)).div_ceil(8)
    }

    /// Bytes of the keys of so many comparisons, the same for both parties.
    pub fn key_bytes(self, keys: usize) -> usize {
        keys * (self.depth() as usize * NODE + self.leaf_bytes())
    }

    /// Calls of the hash to evaluate one key; to make one takes twice as many.
    pub fn hashes(self) -> usize {
        self.depth() as usize + 1
    }

    fn leaf_index(self, x: u64) -> u32 {
        (x & ((1 << self.bits.min(LEAF_BITS)) - 1)) as u32
    }

    /// Dealer: appends the keys for `alpha`, level by level, to `words`. `roots` are the two parties', see [`root`](crate::root).
    pub fn make(self, hash: &Hash, alpha: &[u64], roots: [&[u128]; 2], words: &mut Vec<u8>) {
        let (n, depth) = (alpha.len(), self.depth() as usize);
        let start = words.len();
        words.resize(start + self.key_bytes(n), 0);
        let (levels, leaves) = words[start..].split_at_mut(depth * n * NODE);
        let mut level = Vec::with_capacity(PIECE * NODE);
        for at in (0..n).step_by(PIECE) {
            let piece = at..(at + PIECE).min(n);
            let alpha = &alpha[piece.clone()];
            let mut pair = Pair::new(roots[0][piece.clone()].to_vec(), roots[1][piece.clone()].to_vec());
            for k in 0..depth {
                level.clear();
                pair.descend(hash, alpha, self.bits - 1 - k as u32, &mut level);
                levels[(k * n + at) * NODE..][..level.len()].copy_from_slice(&level);
            }
            let below = |i: usize| (1u128 << self.leaf_index(alpha[i])) - 1;
            let made = pair.leaves(hash, below);
            let bytes = self.leaf_bytes();
            for (cell, leaf) in leaves[at * bytes..].chunks_exact_mut(bytes).zip(made) {
                cell.copy_from_slice(&leaf.to_le_bytes()[..bytes]);
            }
        }
    }

    /// Party: own shares of `[x < α]`, packed 64 to a word, the i-th in bit i mod 64 of word i div 64; unused bits are zero.
    ///
    /// # Panics
    /// Unless `words` are the keys of as many comparisons as there are `x` and `roots`.
    pub fn evaluate(self, hash: &Hash, x: &[u64], roots: &[u128], words: &[u8]) -> Vec<u64> {
        let (n, depth) = (x.len(), self.depth() as usize);
        assert_eq!((roots.len(), words.len()), (n, self.key_bytes(n)), "keys of {n} comparisons");
        let (levels, leaves) = words.split_at(depth * n * NODE);
        let bytes = self.leaf_bytes();
        let mut bits = vec![0u64; n.div_ceil(64)];
        for at in (0..n).step_by(PIECE) {
            let piece = at..(at + PIECE).min(n);
            let (x, len) = (&x[piece.clone()], piece.len());
            let mut walk = Walk::new(&roots[piece]);
            let mut sums = [0u64; PIECE];
            for k in 0..depth {
                let words = &levels[(k * n + at) * NODE..][..len * NODE];
                // Siblings passed on the left.
                let add = |i: usize, goes_right: u128, right: u128| sums[i] ^= (right & !goes_right) as u64;
                walk.descend(hash, x, self.bits - 1 - k as u32, words, add);
            }
            let word = |i: usize| {
                let mut leaf = [0; NODE];
                leaf[..bytes].copy_from_slice(&leaves[(at + i) * bytes..][..bytes]);
                u128::from_le_bytes(leaf)
            };
            let leaves = walk.leaves(hash, word);
            for (i, ((sum, leaf), &x)) in sums.iter().zip(leaves).zip(x).enumerate() {
                let bit = (sum ^ (leaf >> self.leaf_index(x)) as u64) & 1;
                bits[(at + i) / 64] |= bit << (i % 64);
            }
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use privet_ring::prg::{Prg, Seed};

    use super::*;
    use crate::tree::{Side, root};

    fn seed() -> Seed {
        Seed::random().unwrap()
    }

    /// Keys for `alpha`, and both parties' shares at `x`, put together.
    fn compare(comparison: Comparison, alpha: &[u64], x: &[u64]) -> Vec<bool> {
        let hash = Hash::new(&seed());
        let (a, b) = (Prg::new(&seed()), Prg::new(&seed()));
        let first = root(Side::First, alpha.len(), &mut a.stream(0));
        let second = root(Side::Second, alpha.len(), &mut b.stream(0));
        let mut words = Vec::new();
        comparison.make(&hash, alpha, [&first, &second], &mut words);
        assert_eq!(words.len(), comparison.key_bytes(alpha.len()));
        let shares = [first, second].map(|roots| comparison.evaluate(&hash, x, &roots, &words));
        (0..x.len()).map(|i| (shares[0][i / 64] ^ shares[1][i / 64]) >> (i % 64) & 1 == 1).collect()
    }

    #[test]
    fn every_pair_of_small_domains() {
        for bits in 1..=10 {
            let size = 1u64 << bits;
            let pairs = (0..size).flat_map(|alpha| (0..size).map(move |x| (alpha, x)));
            let (alpha, x): (Vec<u64>, Vec<u64>) = pairs.unzip();
            let found = compare(Comparison::new(bits), &alpha, &x);
            for ((found, x), alpha) in found.iter().zip(&x).zip(&alpha) {
                assert_eq!(*found, x < alpha, "{x} < {alpha}, {bits} bits");
            }
        }
    }

    #[test]
    fn wide_domains_at_their_ends_and_anywhere() {
        let prg = Prg::new(&seed());
        for bits in 11..=63 {
            let mask = (1u64 << bits) - 1;
            let random = prg.stream(bits.into()).words(300, mask);
            let edges = [0, 1, 127, 128, 129, mask, mask - 1, mask / 2, mask / 2 + 1, 1 << (bits - 1)];
            let values: Vec<u64> = edges.into_iter().chain(random).collect();
            // Every edge with every value, and neighbours; bits beyond the domain are not looked at.
            let pairs = values.iter().flat_map(|&x| edges.map(|alpha| (alpha, x)));
            let near =
                values.iter().flat_map(|&x| [(x, x), (x, x.wrapping_sub(1) & mask), (x, (x + 1) & mask)]);
            let (alpha, x): (Vec<u64>, Vec<u64>) = pairs.chain(near).unzip();
            let dirty: Vec<u64> = x.iter().map(|x| x | !mask).collect();
            let found = compare(Comparison::new(bits), &alpha, &dirty);
            for ((found, x), alpha) in found.iter().zip(&x).zip(&alpha) {
                assert_eq!(*found, x < alpha, "{x} < {alpha}, {bits} bits");
            }
        }
    }

    #[test]
    fn keys_have_the_published_size() {
        for (bits, bytes) in [(3, 1), (7, 16), (8, 32), (15, 144), (39, 528), (63, 912)] {
            assert_eq!(Comparison::new(bits).key_bytes(1), bytes, "{bits} bits");
        }
    }

    /// Without the other party's root, the words are uniform: half a million bytes, α the same everywhere.
    #[test]
    fn one_key_alone_is_uniform() {
        let comparison = Comparison::new(15);
        let n = 4096;
        for alpha in [0, (1 << 15) - 1] {
            let hash = Hash::new(&seed());
            let (a, b) = (Prg::new(&seed()), Prg::new(&seed()));
            let first = root(Side::First, n, &mut a.stream(0));
            let second = root(Side::Second, n, &mut b.stream(0));
            let mut words = Vec::new();
            comparison.make(&hash, &vec![alpha; n], [&first, &second], &mut words);
            let mut counts = [0f64; 256];
            words.iter().for_each(|&b| counts[usize::from(b)] += 1.0);
            let expected = words.len() as f64 / 256.0;
            let chi: f64 = counts.iter().map(|n| (n - expected).powi(2) / expected).sum();
            // 255 degrees of freedom: beyond this once in 10^12 times.
            assert!(chi < 450.0, "α = {alpha}: {chi}");
            // A share is as often 0 as 1, wherever it is evaluated.
            for x in [0, 1, 77, (1 << 15) - 1] {
                let share = comparison.evaluate(&hash, &vec![x; n], &first, &words);
                let ones: u32 = share.iter().map(|w| w.count_ones()).sum();
                assert!(ones.abs_diff(2048) < 32 * 8, "α = {alpha}, x = {x}: {ones} of 4096");
            }
        }
    }
}

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

use privet_ring::blocks::{Hash, Word};

use crate::tree::{
    LEAF_BITS, LEAF_TWEAK, Lines, NODE, PIECE, Path, appended, double, level, level_mut, pieces, put_leaves,
    read_leaves,
};

/// Comparisons with α of `bits` bits, at least 1 and at most 63; higher bits of x and α are not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    bits: u32,
}

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
    fn depth(self) -> usize {
        self.bits.saturating_sub(LEAF_BITS) as usize
    }

    fn leaf_bytes(self) -> usize {
        (1usize << self.bits.min(LEAF_BITS)).div_ceil(8)
    }

    /// Bytes of the keys of so many comparisons, the same for both parties.
    pub fn key_bytes(self, keys: usize) -> usize {
        keys * (self.depth() * NODE + self.leaf_bytes())
    }

    /// Calls of the hash to evaluate one key; to make one takes twice as many.
    pub fn hashes(self) -> usize {
        self.depth() + 1
    }

    /// Dealer: appends the keys for `alpha` to `words`, in pieces of 256 keys, each level by level, its leaves last. `roots` are
    /// the two parties', see [`root`](crate::root).
    pub fn make(self, hash: &Hash, alpha: &[u64], roots: [&[u128]; 2], words: &mut Vec<u8>) {
        words.reserve(self.key_bytes(alpha.len()));
        let mut path = Path::empty();
        for piece in pieces(alpha.len(), PIECE) {
            let (n, bytes) = (piece.len(), self.leaf_bytes());
            let roots = roots.map(|roots| &roots[piece.clone()]);
            path.start(roots, &alpha[piece], self.bits);
            path.descend_all(hash, self.bits, self.depth(), words);
            if bytes == NODE {
                path.leaves_below(hash, level_mut(appended(words, n * NODE)));
            } else {
                let mut leaves: Lines<Word> = Lines::new();
                path.leaves_below(hash, &mut leaves[..n]);
                put_leaves(
                    leaves.iter().map(|leaf| u128::from_le_bytes(*leaf)),
                    bytes,
                    appended(words, n * bytes),
                );
            }
        }
    }

    /// Party: own shares of `[x < α]`, packed 64 to a word, the i-th in bit i mod 64 of word i div 64; unused bits are zero.
    ///
    /// # Panics
    /// Unless `words` are the keys of as many comparisons as there are `x` and `roots`.
    pub fn evaluate(self, hash: &Hash, x: &[u64], roots: &[u128], words: &[u8]) -> Vec<u64> {
        let n = x.len();
        assert_eq!((roots.len(), words.len()), (n, self.key_bytes(n)), "keys of {n} comparisons");
        let (mut nodes, mut sums, mut points, mut leaves) =
            (Lines::new(), Lines::new(), Lines::new(), Lines::new());
        let mut shares = vec![0; n.div_ceil(64)];
        let mut rest = words;
        for (piece, shares) in pieces(n, PIECE).zip(shares.chunks_mut(PIECE / 64)) {
            let len = piece.len();
            let (words, after) = rest.split_at(self.key_bytes(len));
            rest = after;
            let (levels, packed) = words.split_at(self.depth() * len * NODE);
            let (nodes, sums) = (&mut nodes[..len], &mut sums[..len]);
            nodes.copy_from_slice(&roots[piece.clone()]);
            sums.fill(0);
            double(&x[piece], self.bits, &mut points);
            let points = &points[..len];
            for (bit, words) in (0..self.bits).rev().zip(levels.chunks_exact(len * NODE)) {
                hash.descend(nodes, level(words), points, bit, sums);
            }
            let leaves = if self.leaf_bytes() == NODE {
                level(packed)
            } else {
                let mut own = [0; PIECE];
                read_leaves(packed, self.leaf_bytes(), &mut own[..len]);
                leaves.iter_mut().zip(own).for_each(|(leaf, own)| *leaf = u128::to_le_bytes(own));
                &leaves[..len]
            };
            hash.look_up(nodes, LEAF_TWEAK, leaves, points, sums, shares);
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use privet_ring::prg::Prg;

    use super::*;
    use crate::testing::{Keys, expect_uniform, seed};

    /// Keys for `alpha`, and both parties' shares at `x`, put together.
    fn compare(comparison: Comparison, alpha: &[u64], x: &[u64]) -> Vec<bool> {
        let Keys { hash, roots, .. } = Keys::new(alpha.len());
        let mut words = Vec::new();
        comparison.make(&hash, alpha, [&roots[0], &roots[1]], &mut words);
        assert_eq!(words.len(), comparison.key_bytes(alpha.len()));
        let shares = roots.map(|roots| comparison.evaluate(&hash, x, &roots, &words));
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

    /// What is evaluated in pieces is what one piece after the other gives.
    #[test]
    fn keys_can_be_read_piece_by_piece() {
        let comparison = Comparison::new(20);
        let n = 3 * PIECE + 5;
        let alpha = Prg::new(&seed()).stream(0).words(n, u64::MAX);
        let Keys { hash, roots, .. } = Keys::new(n);
        let mut words = Vec::new();
        comparison.make(&hash, &alpha, [&roots[0], &roots[1]], &mut words);
        let whole = comparison.evaluate(&hash, &alpha, &roots[0], &words);
        let parts: Vec<u64> = pieces(n, PIECE)
            .flat_map(|p| {
                let own = &words[comparison.key_bytes(p.start)..comparison.key_bytes(p.end)];
                comparison.evaluate(&hash, &alpha[p.clone()], &roots[0][p], own)
            })
            .collect();
        assert_eq!(whole, parts);
    }

    /// Without the other party's root, the words are uniform: half a million bytes, α the same everywhere.
    #[test]
    fn one_key_alone_is_uniform() {
        let comparison = Comparison::new(15);
        let n = 4096;
        for alpha in [0, (1 << 15) - 1] {
            let Keys { hash, roots, .. } = Keys::new(n);
            let mut words = Vec::new();
            comparison.make(&hash, &vec![alpha; n], [&roots[0], &roots[1]], &mut words);
            expect_uniform(&words, &format!("α = {alpha}"));
            // A share is as often 0 as 1, wherever it is evaluated.
            for x in [0, 1, 77, (1 << 15) - 1] {
                let share = comparison.evaluate(&hash, &vec![x; n], &roots[0], &words);
                let ones: u32 = share.iter().map(|w| w.count_ones()).sum();
                assert!(ones.abs_diff(2048) < 32 * 8, "α = {alpha}, x = {x}: {ones} of 4096");
            }
        }
    }
}

//! A public table at a secret index `x = c − α mod 2^n`: c is public, α the dealer's.
//!
//! The key shares the unit vector e of 2^n bits that is 1 at α only. With it a party adds up those entries whose bit is 1 in its
//! share, `u = ±Σ_j e[j]·T[(c − j) mod 2^n]`, the second party with the minus. Where both have a 1, or both have none, entries
//! cancel; what is left is `σ·T[x]`, σ = 1 if the first party has the 1 at α and −1 if the second one has: `u` are shares of
//! σ·T[x], and who knows σ, the dealer alone, can share it. It has to stay secret: with both shares of u it says T[x] or −T[x].
//!
//! - Source: full-domain evaluation of a distributed point function (Boyle, Gilboa, Ishai, CCS 2016; Guo et al., Eurocrypt 2023)
//!   with the leaf `1 << (α mod 128)`; tables as in SIGMA (Gupta et al., PETS 2024) and Pika (Wagh, PETS 2022).
//! - Adversary: semi-honest dealer that gives each party its own root only; a party's view is pseudorandom.
//! - Key: as of [`Comparison`](crate::Comparison). Evaluation: 2^(n−7) leaves and as many inner nodes, a call of the hash each,
//!   and all 2^n entries: 0.35 μs at n = 12 and 9 μs at n = 16 on one core with AVX-512, the latter bound by the 512 KiB of
//!   entries.
//! - Opened: nothing. Leaks: nothing; every entry is read whatever the index, from a place that c says.

use std::ops::Range;

use privet_ring::blocks::{Hash, all_if};

use crate::tree::{
    LEAF_BITS, LEAF_TWEAK, NODE, Path, Side, appended, level, pieces, put_leaves, read_leaves,
};

/// Tables of 2^`bits` entries, from 1 to 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    bits: u32,
}

impl Table {
    /// Most bits of an index.
    pub const MAX_BITS: u32 = 16;

    /// Of 2^n entries.
    ///
    /// # Panics
    /// Unless 1 <= `bits` <= [`Self::MAX_BITS`].
    pub fn new(bits: u32) -> Self {
        assert!((1..=Self::MAX_BITS).contains(&bits), "a table of 2^{bits} entries");
        Self { bits }
    }

    fn depth(self) -> usize {
        self.bits.saturating_sub(LEAF_BITS) as usize
    }

    fn leaf_bytes(self) -> usize {
        (1usize << self.bits.min(LEAF_BITS)).div_ceil(8)
    }

    /// Bytes of so many keys, the same for both parties.
    pub fn key_bytes(self, keys: usize) -> usize {
        keys * (self.depth() * NODE + self.leaf_bytes())
    }

    /// Calls of the hash to evaluate one key.
    pub fn hashes(self) -> usize {
        (2 << self.depth()) - 1
    }

    /// Keys that are made and evaluated together: their leaves stay in the first-level cache, and the first levels, which have few
    /// nodes for each key, fill the cipher's pipeline.
    fn pieces(self, keys: usize) -> impl Iterator<Item = Range<usize>> {
        pieces(keys, (2048usize >> self.depth()).clamp(4, 64))
    }

    /// Dealer: appends the keys for `alpha`, of which the n lowest bits count, to `words`. Returns σ for each, 1 or −1.
    pub fn make(self, hash: &Hash, alpha: &[u64], roots: [&[u128]; 2], words: &mut Vec<u8>) -> Vec<i64> {
        words.reserve(self.key_bytes(alpha.len()));
        let mut signs = Vec::with_capacity(alpha.len());
        let low = (1u64 << self.bits.min(LEAF_BITS)) - 1;
        for piece in self.pieces(alpha.len()) {
            let alpha = &alpha[piece.clone()];
            let mut path = Path::new(roots.map(|roots| &roots[piece.clone()]), alpha);
            path.descend_all(hash, self.bits, self.depth(), words);
            let [first, second] = path.hashed(hash, LEAF_TWEAK);
            let word = |i: usize| first[i] ^ second[i] ^ 1u128 << (alpha[i] & low);
            let leaves = appended(words, alpha.len() * self.leaf_bytes());
            put_leaves((0..alpha.len()).map(word), self.leaf_bytes(), leaves);
            let nodes = path.second();
            signs.extend((0..alpha.len()).map(|i| {
                let leaf = second[i] ^ masked(nodes[i], word(i));
                1 - 2 * (leaf >> (alpha[i] & low) & 1) as i64
            }));
        }
        signs
    }

    /// Party: own shares of σ·T\[c − α\] modulo 2^64, key by key; `entries` is T.
    ///
    /// # Panics
    /// Unless `words` are the keys of as many lookups as there are `c` and `roots`, and T has 2^n entries.
    pub fn evaluate(
        self,
        hash: &Hash,
        side: Side,
        c: &[u64],
        roots: &[u128],
        words: &[u8],
        entries: &[i64],
    ) -> Vec<u64> {
        let (n, size) = (c.len(), 1usize << self.bits);
        assert_eq!((roots.len(), words.len()), (n, self.key_bytes(n)), "keys of {n} lookups");
        assert_eq!(entries.len(), size, "entries of a table of {} bits", self.bits);
        // T[(c − j) mod 2^n] for j = 0, 1, .. is a run of the reversed table, written twice.
        let reversed: Vec<u64> =
            entries.iter().rev().chain(entries.iter().rev()).map(|&e| e as u64).collect();
        let run = |c: u64| &reversed[size - 1 - (c as usize & (size - 1))..][..size];
        let mut rest = words;
        let mut shares = Vec::with_capacity(n);
        for piece in self.pieces(n) {
            let len = piece.len();
            let (words, after) = rest.split_at(self.key_bytes(len));
            rest = after;
            let leaves = self.leaves(hash, &roots[piece.clone()], words);
            shares.extend(c[piece].iter().enumerate().map(|(i, &c)| {
                let sum = hash.sum_selected(&leaves[i..], len, run(c));
                if side == Side::Second { sum.wrapping_neg() } else { sum }
            }));
        }
        shares
    }

    /// Own shares of the unit vectors of some keys: for every leaf of 128 bits those of all keys.
    fn leaves(self, hash: &Hash, roots: &[u128], words: &[u8]) -> Vec<u128> {
        let len = roots.len();
        let (levels, packed) = words.split_at(self.depth() * len * NODE);
        let mut words = vec![0; len];
        read_leaves(packed, self.leaf_bytes(), &mut words);
        let mut nodes = roots.to_vec();
        for words in levels.chunks_exact(len * NODE) {
            let mut children = vec![0; 2 * nodes.len()];
            for (nodes, children) in nodes.chunks_exact(len).zip(children.chunks_exact_mut(2 * len)) {
                let (left, right) = children.split_at_mut(len);
                hash.children(nodes, level(words), left, right);
            }
            nodes = children;
        }
        let mut made = vec![0; nodes.len()];
        hash.blocks(&nodes, LEAF_TWEAK, &mut made);
        for (nodes, made) in nodes.chunks_exact(len).zip(made.chunks_exact_mut(len)) {
            let own = nodes.iter().zip(&words).zip(made);
            own.for_each(|((node, word), made)| *made ^= masked(*node, *word));
        }
        made
    }
}

/// The word, if the node's party corrects.
fn masked(node: u128, word: u128) -> u128 {
    let corrects = all_if(node as u64);
    word & (u128::from(corrects) << 64 | u128::from(corrects))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Keys, expect_uniform};

    /// Every index under every mask, and what both parties' shares add up to.
    #[test]
    fn every_entry_under_every_mask() {
        for bits in 1..=16 {
            let table = Table::new(bits);
            let size = 1u64 << bits;
            let entries: Vec<i64> = (0..size as i64).map(|x| x * x - 1000 * x + 7).collect();
            let alphas: Vec<u64> =
                if bits <= 10 { (0..size).collect() } else { vec![0, 1, 127, 128, size / 3, size - 1] };
            let points: Vec<u64> =
                if bits <= 10 { (0..size).collect() } else { vec![0, 1, 126, 129, size / 5, size - 1] };
            let Keys { hash, roots, .. } = Keys::new(alphas.len());
            let mut words = Vec::new();
            // Bits beyond the index are not looked at.
            let dirty: Vec<u64> = alphas.iter().map(|a| a | !(size - 1)).collect();
            let signs = table.make(&hash, &dirty, [&roots[0], &roots[1]], &mut words);
            assert_eq!(words.len(), table.key_bytes(alphas.len()));
            // Every c with every key; a key is used again here as no engine may.
            for &c in &points {
                let c = vec![c | 1 << 60; alphas.len()];
                let first = table.evaluate(&hash, Side::First, &c, &roots[0], &words, &entries);
                let second = table.evaluate(&hash, Side::Second, &c, &roots[1], &words, &entries);
                for (i, alpha) in alphas.iter().enumerate() {
                    let x = (c[i].wrapping_sub(*alpha) & (size - 1)) as usize;
                    let found = first[i].wrapping_add(second[i]);
                    assert_eq!(found as i64, signs[i] * entries[x], "T[{x}], α = {alpha}, {bits} bits");
                }
            }
            // Both signs are there, but for one time in 2^63.
            if alphas.len() >= 64 {
                assert!(signs.contains(&1) && signs.contains(&-1), "{bits} bits");
            }
        }
    }

    /// Without the other party's root, words and shares are uniform, wherever the point is.
    #[test]
    fn one_key_alone_is_uniform() {
        let table = Table::new(9);
        let n = 2048;
        for alpha in [0, 511] {
            let Keys { hash, roots, .. } = Keys::new(n);
            let mut words = Vec::new();
            let signs = table.make(&hash, &vec![alpha; n], [&roots[0], &roots[1]], &mut words);
            expect_uniform(&words, &format!("α = {alpha}: words"));
            let negative = signs.iter().filter(|s| **s < 0).count();
            assert!(negative.abs_diff(1024) < 23 * 8, "α = {alpha}: {negative} of {n} negative");
            for (roots, side) in roots.iter().zip(["first", "second"]) {
                let mut rest = &words[..];
                let (mut bytes, mut ones) = (Vec::new(), 0);
                for piece in table.pieces(n) {
                    let (own, after) = rest.split_at(table.key_bytes(piece.len()));
                    rest = after;
                    let len = piece.len();
                    let leaves = table.leaves(&hash, &roots[piece], own);
                    let at_alpha = &leaves[alpha as usize / 128 * len..][..len];
                    ones += at_alpha.iter().filter(|leaf| **leaf >> (alpha % 128) & 1 == 1).count();
                    bytes.extend(leaves.iter().flat_map(|leaf| leaf.to_le_bytes()));
                }
                expect_uniform(&bytes, &format!("α = {alpha}: shares of the {side}"));
                // At α's own place a share is as often 1 as anywhere.
                assert!(ones.abs_diff(1024) < 23 * 8, "α = {alpha}: {ones} of {n}, {side}");
            }
        }
    }
}

//! `[x = α]` at every x of a small domain at once, as shared bits: what a public table is looked up with.
//!
//! - Source: full-domain evaluation of a distributed point function (Boyle, Gilboa, Ishai, CCS 2016; Guo et al., Eurocrypt 2023).
//! - Key: as of [`Comparison`](crate::Comparison), with the leaf `1 << (α mod 128)`.
//! - Opened: nothing. Leaks: nothing.

use crate::hash::Hash;
use crate::tree::{LEAF_BITS, NODE, Pair, Walk, all_if};

/// Points α of `bits` bits, from 1 to 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    bits: u32,
}

impl Point {
    /// Over n bits.
    ///
    /// # Panics
    /// Unless 1 <= `bits` <= 16.
    pub fn new(bits: u32) -> Self {
        assert!((1..=16).contains(&bits), "a point of {bits} bits");
        Self { bits }
    }

    fn depth(self) -> u32 {
        self.bits.saturating_sub(LEAF_BITS)
    }

    fn leaf_bytes(self) -> usize {
        (1usize << self.bits.min(LEAF_BITS)).div_ceil(8)
    }

    /// Bytes of the keys of so many points, the same for both parties.
    pub fn key_bytes(self, keys: usize) -> usize {
        keys * (self.depth() as usize * NODE + self.leaf_bytes())
    }

    /// Dealer: appends the keys for `alpha` to `words`, key by key.
    pub fn make(self, hash: &Hash, alpha: &[u64], roots: [&[u128]; 2], words: &mut Vec<u8>) {
        let [first, second] = roots.map(<[u128]>::to_vec);
        let mut pair = Pair::new(first, second);
        let mut levels = Vec::new();
        for k in 0..self.depth() {
            pair.descend(hash, alpha, self.bits - 1 - k, &mut levels);
        }
        let low = (1u64 << self.bits.min(LEAF_BITS)) - 1;
        let leaves = pair.leaves(hash, |i| 1u128 << (alpha[i] & low));
        for (i, leaf) in leaves.iter().enumerate() {
            for level in levels.chunks_exact(alpha.len() * NODE) {
                words.extend(&level[i * NODE..][..NODE]);
            }
            words.extend(&leaf.to_le_bytes()[..self.leaf_bytes()]);
        }
    }

    /// Party: own shares of `[x = α]` of one key, for x = 0, 1, ..: bit x mod 128 of word x div 128. `words` are this key's.
    ///
    /// # Panics
    /// Unless `words` are those of one key.
    pub fn evaluate(self, hash: &Hash, root: u128, words: &[u8]) -> Vec<u128> {
        assert_eq!(words.len(), self.key_bytes(1), "one key");
        let (levels, leaf) = words.split_at(self.depth() as usize * NODE);
        let mut nodes = vec![root];
        let mut hashed = Vec::new();
        for word in levels.as_chunks::<NODE>().0 {
            let word = u128::from_le_bytes(*word);
            hashed.resize(nodes.len(), 0);
            hash.blocks(&nodes, &mut hashed);
            let children = nodes.iter().zip(&hashed).flat_map(|(s, h)| {
                let left = h ^ (all_if(*s) & word);
                [left, left ^ s]
            });
            nodes = children.collect();
        }
        let mut own = [0; NODE];
        own[..leaf.len()].copy_from_slice(leaf);
        let word = u128::from_le_bytes(own);
        let mut shares = Walk::new(&nodes).leaves(hash, |_| word);
        if self.bits < LEAF_BITS {
            shares[0] &= (1 << (1 << self.bits)) - 1;
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use privet_ring::prg::{Prg, Seed};

    use super::*;
    use crate::tree::{Side, root};

    #[test]
    fn one_bit_of_all_is_set() {
        let seed = || Seed::random().unwrap();
        for bits in 1..=16 {
            let point = Point::new(bits);
            let size = 1u64 << bits;
            let alpha: Vec<u64> =
                if bits <= 9 { (0..size).collect() } else { vec![0, 1, 127, 128, size / 3, size - 1] };
            let hash = Hash::new(&seed());
            let (a, b) = (Prg::new(&seed()), Prg::new(&seed()));
            let first = root(Side::First, alpha.len(), &mut a.stream(0));
            let second = root(Side::Second, alpha.len(), &mut b.stream(0));
            let mut words = Vec::new();
            point.make(&hash, &alpha, [&first, &second], &mut words);
            assert_eq!(words.len(), point.key_bytes(alpha.len()));
            for (i, key) in words.chunks_exact(point.key_bytes(1)).enumerate() {
                let [own, others] = [first[i], second[i]].map(|root| point.evaluate(&hash, root, key));
                let sum: Vec<u128> = own.iter().zip(&others).map(|(a, b)| a ^ b).collect();
                for x in 0..size {
                    let bit = sum[(x / 128) as usize] >> (x % 128) & 1;
                    assert_eq!(bit == 1, x == alpha[i], "{x} = {}, {bits} bits", alpha[i]);
                }
            }
        }
    }

    /// Without the other party's root, words and shares are uniform, wherever the point is.
    #[test]
    fn one_key_alone_is_uniform() {
        let seed = || Seed::random().unwrap();
        let point = Point::new(9);
        let n = 2048;
        for alpha in [0, 511] {
            let hash = Hash::new(&seed());
            let (a, b) = (Prg::new(&seed()), Prg::new(&seed()));
            let first = root(Side::First, n, &mut a.stream(0));
            let second = root(Side::Second, n, &mut b.stream(0));
            let mut words = Vec::new();
            point.make(&hash, &vec![alpha; n], [&first, &second], &mut words);
            let shares = first.iter().zip(words.chunks_exact(point.key_bytes(1)));
            let shares: Vec<u8> = shares
                .flat_map(|(root, key)| point.evaluate(&hash, *root, key))
                .flat_map(u128::to_le_bytes)
                .collect();
            for (what, bytes) in [("words", &words), ("shares", &shares)] {
                let mut counts = [0f64; 256];
                bytes.iter().for_each(|&b| counts[usize::from(b)] += 1.0);
                let expected = bytes.len() as f64 / 256.0;
                let chi: f64 = counts.iter().map(|n| (n - expected).powi(2) / expected).sum();
                // 255 degrees of freedom: beyond this once in 10^12 times.
                assert!(chi < 450.0, "α = {alpha}: {what}: {chi}");
            }
            // At α's own place a share is as often 1 as anywhere.
            let ones =
                shares.chunks_exact(64).filter(|s| s[alpha as usize / 8] >> (alpha % 8) & 1 == 1).count();
            assert!(ones.abs_diff(1024) < 23 * 8, "α = {alpha}: {ones} of {n}");
        }
    }
}

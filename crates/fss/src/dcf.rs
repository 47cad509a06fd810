//! `β·[x < α]` in the group Z_2^l, for a public x and a secret α of n bits and a secret β: shares that add up, without a round.
//!
//! On the way of x down the tree, a party adds up a value from each node at which x goes to the left. Where both parties have the
//! same node, off the path to α, they add the same and one of them subtracts; on the path the level's second correction word
//! makes the two add up to β if α goes to the right there, and to 0 otherwise. x leaves the path to the left once or never, and
//! below α exactly once.
//!
//! - Source: distributed comparison functions of Boyle, Chandran, Gilboa, Gupta, Ishai, Kumar, Rathee, "Function secret sharing
//!   for mixed-mode and fixed-point secure computation" (Eurocrypt 2021), figure 1, on half-trees. Deviates: values come from the
//!   node where x turns, not from its child, so that the sum on the path is 0 at every level and needs no correction of its own.
//! - Adversary: as for [`Comparison`](crate::Comparison).
//! - Key: n − 1 words of 16 bytes, and n values of l bits, packed for every 256 keys. Two calls of the hash a level to evaluate,
//!   four to make. Where a bit is enough, a comparison is smaller and twice as fast.
//! - Opened: nothing. Leaks: nothing.

use privet_ring::blocks::{Hash, all_if};
use privet_ring::{Ring, pack, packed_len};

use crate::tree::{Lines, NODE, PIECE, Path, Side, VALUE_TWEAK, appended, doubled, level, pieces};

/// Comparisons of n-bit numbers with results in a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dcf {
    bits: u32,
    ring: Ring,
}

impl Dcf {
    /// Over n bits, with β and results in `ring`.
    ///
    /// # Panics
    /// Unless 1 <= `bits` <= 63.
    pub fn new(bits: u32, ring: Ring) -> Self {
        assert!((1..=63).contains(&bits), "a comparison of {bits} bits");
        Self { bits, ring }
    }

    /// Bytes of so many keys, the same for both parties.
    pub fn key_bytes(self, keys: usize) -> usize {
        pieces(keys, PIECE).map(|piece| self.piece_bytes(piece.len())).sum()
    }

    fn piece_bytes(self, keys: usize) -> usize {
        (self.bits as usize - 1) * keys * NODE + self.bits as usize * packed_len(self.ring.bits(), keys)
    }

    /// Dealer: appends the keys for `alpha` and `beta` to `words`, piece by piece, each level by level.
    pub fn make(self, hash: &Hash, alpha: &[u64], beta: &[u64], roots: [&[u128]; 2], words: &mut Vec<u8>) {
        words.reserve(self.key_bytes(alpha.len()));
        for piece in pieces(alpha.len(), PIECE) {
            let n = piece.len();
            let (alpha, beta) = (&alpha[piece.clone()], &beta[piece.clone()]);
            let mut path = Path::new(roots.map(|roots| &roots[piece.clone()]), alpha);
            for bit in (0..self.bits).rev() {
                let [first, second] = path.hashed(hash, VALUE_TWEAK);
                let value = |i: usize| {
                    let target = (alpha[i] >> bit & 1).wrapping_mul(beta[i]);
                    let difference = target.wrapping_sub(first[i] as u64).wrapping_add(second[i] as u64);
                    // One of the two corrects: plus if it is the first one.
                    let sign = (2 * (path.first[i] as u64 & 1)).wrapping_sub(1);
                    difference.wrapping_mul(sign)
                };
                let values: Vec<u64> = (0..n).map(value).collect();
                pack::pack(&values, self.ring.bits(), words);
                if bit > 0 {
                    path.descend(hash, bit, appended(words, n * NODE));
                }
            }
        }
    }

    /// Party: own shares of `β·[x < α]`, reduced.
    ///
    /// # Panics
    /// Unless `words` are as many keys as there are `x` and `roots`.
    pub fn evaluate(self, hash: &Hash, side: Side, x: &[u64], roots: &[u128], words: &[u8]) -> Vec<u64> {
        let n = x.len();
        assert_eq!((roots.len(), words.len()), (n, self.key_bytes(n)), "{n} keys");
        let mut rest = words;
        let mut take = |len: usize| {
            let (own, after) = rest.split_at(len);
            rest = after;
            own
        };
        let mut shares = Vec::with_capacity(n);
        for piece in pieces(n, PIECE) {
            let len = piece.len();
            let (mut nodes, mut hashed, mut unused) = (Lines::new(), Lines::new(), Lines::new());
            let (mut values, mut sums) = ([0; PIECE], [0u64; PIECE]);
            let (nodes, hashed, x) = (&mut nodes[..len], &mut hashed[..len], &x[piece.clone()]);
            nodes.copy_from_slice(&roots[piece]);
            let points = doubled(x);
            for bit in (0..self.bits).rev() {
                let packed = take(packed_len(self.ring.bits(), len));
                pack::unpack_into(packed, self.ring.bits(), &mut values[..len]).expect("as many as asked");
                hash.blocks(nodes, VALUE_TWEAK, hashed);
                for (i, sum) in sums[..len].iter_mut().enumerate() {
                    let corrects = all_if(nodes[i] as u64);
                    let value = (hashed[i] as u64).wrapping_add(corrects & values[i]);
                    // Public: x goes to the left.
                    *sum = sum.wrapping_add((!x[i] >> bit & 1).wrapping_mul(value));
                }
                if bit > 0 {
                    let words = level(take(len * NODE));
                    hash.descend(nodes, words, &points[..len], bit, &mut unused[..len]);
                }
            }
            let sign = if side == Side::First { 1 } else { u64::MAX };
            shares.extend(sums[..len].iter().map(|sum| self.ring.reduce(sum.wrapping_mul(sign))));
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Keys, expect_uniform};

    fn expect_products(dcf: Dcf, alpha: &[u64], x: &[u64]) {
        let n = alpha.len();
        let Keys { hash, roots, prg } = Keys::new(n);
        let beta = prg.stream(1).words(n, dcf.ring.mask());
        let mut words = Vec::new();
        dcf.make(&hash, alpha, &beta, [&roots[0], &roots[1]], &mut words);
        assert_eq!(words.len(), dcf.key_bytes(n));
        let first = dcf.evaluate(&hash, Side::First, x, &roots[0], &words);
        let second = dcf.evaluate(&hash, Side::Second, x, &roots[1], &words);
        let low = (1u64 << dcf.bits) - 1;
        for i in 0..n {
            let expected = if x[i] & low < alpha[i] & low { beta[i] } else { 0 };
            let found = dcf.ring.reduce(first[i].wrapping_add(second[i]));
            assert_eq!(found, expected, "{} < {} in {dcf:?}", x[i], alpha[i]);
        }
    }

    #[test]
    fn every_pair_of_small_domains() {
        for (bits, ring) in (1..=10).zip([16, 17, 32, 33, 40, 48, 63, 64, 16, 40]) {
            let size = 1u64 << bits;
            let pairs = (0..size).flat_map(|alpha| (0..size).map(move |x| (alpha, x)));
            let (alpha, x): (Vec<u64>, Vec<u64>) = pairs.unzip();
            expect_products(Dcf::new(bits, Ring::new(ring).unwrap()), &alpha, &x);
        }
    }

    #[test]
    fn wide_domains_at_their_ends_and_anywhere() {
        for bits in [11, 31, 40, 63] {
            let mask = (1u64 << bits) - 1;
            let values = Keys::new(1).prg.stream(2).words(300, u64::MAX);
            let edges = [0, 1, mask, mask - 1, mask / 2, mask / 2 + 1];
            let pairs = values.iter().flat_map(|&x| edges.map(|alpha| (alpha, x)));
            let near = values.iter().flat_map(|&x| [(x, x), (x, x.wrapping_sub(1)), (x, x.wrapping_add(1))]);
            let (alpha, x): (Vec<u64>, Vec<u64>) = pairs.chain(near).unzip();
            expect_products(Dcf::new(bits, Ring::new(48).unwrap()), &alpha, &x);
        }
    }

    #[test]
    fn one_key_alone_is_uniform() {
        let dcf = Dcf::new(9, Ring::new(64).unwrap());
        let n = 4096;
        for (alpha, beta) in [(0, 0), (0, u64::MAX), (511, 1)] {
            let Keys { hash, roots, .. } = Keys::new(n);
            let mut words = Vec::new();
            dcf.make(&hash, &vec![alpha; n], &vec![beta; n], [&roots[0], &roots[1]], &mut words);
            expect_uniform(&words, &format!("α = {alpha}, β = {beta}: words"));
            for x in [0, 255, 511] {
                let shares = dcf.evaluate(&hash, Side::First, &vec![x; n], &roots[0], &words);
                let bytes: Vec<u8> = shares.iter().flat_map(|s| s.to_le_bytes()).collect();
                // At the largest x nothing is added: the share is 0 whatever the key.
                if x < 511 {
                    expect_uniform(&bytes, &format!("α = {alpha}, β = {beta}, x = {x}: shares"));
                }
            }
        }
    }
}

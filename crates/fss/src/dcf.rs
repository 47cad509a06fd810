//! `β·[x < α]` in the group Z_2^l, or Z_2^l × Z_2^l, for a public x and a secret α of n bits and a secret β: shares that add
//! up, without a round.
//!
//! On the way of x down the tree, a party adds up a value from each node at which x goes to the left. Where both parties have the
//! same node, off the path to α, they add the same and one of them subtracts; on the path the level's second correction word
//! makes the two add up to β if α goes to the right there, and to 0 otherwise. x leaves the path to the left once or never, and
//! below α exactly once. Two values are the two halves of one block.
//!
//! - Source: distributed comparison functions of Boyle, Chandran, Gilboa, Gupta, Ishai, Kumar, Rathee, "Function secret sharing
//!   for mixed-mode and fixed-point secure computation" (Eurocrypt 2021), figure 1, on half-trees. Deviates: values come from the
//!   node where x turns, not from its child, so that the sum on the path is 0 at every level and needs no correction of its own.
//! - Adversary: as for [`Comparison`](crate::Comparison).
//! - Key: n − 1 words of 16 bytes, and n times one or two values of l bits, packed for every 256 keys. Two calls of the hash a
//!   level to evaluate, four to make. Where a bit is enough, a comparison is smaller and twice as fast.
//! - Opened: nothing. Leaks: nothing.

use std::array::from_fn;
use std::hint::black_box;

use privet_ring::blocks::Hash;
use privet_ring::{Ring, pack, packed_len};

use crate::tree::{Lines, NODE, PIECE, Path, Side, VALUE_TWEAK, appended, doubled, level, pieces};

/// Comparisons of n-bit numbers with `VALUES` results in a ring, one or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dcf<const VALUES: usize> {
    bits: u32,
    ring: Ring,
}

impl<const VALUES: usize> Dcf<VALUES> {
    /// Over n bits, with β and results in `ring`.
    ///
    /// # Panics
    /// Unless 1 <= `bits` <= 63.
    pub fn new(bits: u32, ring: Ring) -> Self {
        const { assert!(VALUES == 1 || VALUES == 2, "values of 64 bits in a block") };
        assert!((1..=63).contains(&bits), "a comparison of {bits} bits");
        Self { bits, ring }
    }

    /// n.
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// Bytes of so many keys, the same for both parties.
    pub fn key_bytes(self, keys: usize) -> usize {
        pieces(keys, PIECE).map(|piece| self.piece_bytes(piece.len())).sum()
    }

    fn piece_bytes(self, keys: usize) -> usize {
        let values = VALUES * packed_len(self.ring.bits(), keys);
        (self.bits as usize - 1) * keys * NODE + self.bits as usize * values
    }

    /// Calls of the hash to evaluate one key; to make one takes twice as many.
    pub fn hashes(self) -> usize {
        2 * self.bits as usize - 1
    }

    /// Dealer: appends the keys for `alpha` and as many of each of `betas` to `words`, piece by piece, each level by level.
    pub fn make(
        self,
        hash: &Hash,
        alpha: &[u64],
        betas: [&[u64]; VALUES],
        roots: [&[u128]; 2],
        words: &mut Vec<u8>,
    ) {
        assert!(betas.iter().all(|beta| beta.len() == alpha.len()), "a value for every key");
        words.reserve(self.key_bytes(alpha.len()));
        for piece in pieces(alpha.len(), PIECE) {
            let n = piece.len();
            let (alpha, betas) = (&alpha[piece.clone()], betas.map(|beta| &beta[piece.clone()]));
            let mut path = Path::new(roots.map(|roots| &roots[piece.clone()]), alpha);
            for bit in (0..self.bits).rev() {
                let [first, second] = path.hashed(hash, VALUE_TWEAK);
                for (k, beta) in betas.into_iter().enumerate() {
                    let value = |i: usize| {
                        let target = (alpha[i] >> bit & 1).wrapping_mul(beta[i]);
                        let difference =
                            target.wrapping_sub(half(first[i], k)).wrapping_add(half(second[i], k));
                        // One of the two corrects: plus if it is the first one.
                        let sign = (2 * (path.first[i] as u64 & 1)).wrapping_sub(1);
                        difference.wrapping_mul(sign)
                    };
                    let values: [u64; PIECE] = from_fn(|i| if i < n { value(i) } else { 0 });
                    pack::pack(&values[..n], self.ring.bits(), words);
                }
                if bit > 0 {
                    path.descend(hash, bit, appended(words, n * NODE));
                }
            }
        }
    }

    /// Party: own shares of `β·[x < α]`, reduced, for every β.
    ///
    /// # Panics
    /// Unless `words` are as many keys as there are `x` and `roots`.
    pub fn evaluate(
        self,
        hash: &Hash,
        side: Side,
        x: &[u64],
        roots: &[u128],
        words: &[u8],
    ) -> [Vec<u64>; VALUES] {
        let n = x.len();
        assert_eq!((roots.len(), words.len()), (n, self.key_bytes(n)), "{n} keys");
        let mut rest = words;
        let mut take = |len: usize| {
            let (own, after) = rest.split_at(len);
            rest = after;
            own
        };
        let mut shares = [(); VALUES].map(|()| Vec::with_capacity(n));
        let (mut nodes, mut hashed, mut unused) = (Lines::new(), Lines::new(), Lines::new());
        let mut corrections = [0; PIECE];
        for piece in pieces(n, PIECE) {
            let len = piece.len();
            let (x, nodes, hashed) = (&x[piece.clone()], &mut nodes[..len], &mut hashed[..len]);
            nodes.copy_from_slice(&roots[piece]);
            let points = doubled(x);
            let mut sums = [[0u64; PIECE]; VALUES];
            for bit in (0..self.bits).rev() {
                hash.blocks(nodes, VALUE_TWEAK, hashed);
                // The compiler may not see that a mask is all zeros or all ones: it would branch on it.
                let mut corrects: [u64; PIECE] =
                    from_fn(|i| 0u64.wrapping_sub(nodes.get(i).map_or(0, |node| *node as u64 & 1)));
                black_box(&mut corrects);
                for (k, sums) in sums.iter_mut().enumerate() {
                    let packed = take(packed_len(self.ring.bits(), len));
                    pack::unpack_into(packed, self.ring.bits(), &mut corrections[..len])
                        .expect("as many as asked");
                    for (i, sum) in sums[..len].iter_mut().enumerate() {
                        let value = half(hashed[i], k).wrapping_add(corrects[i] & corrections[i]);
                        // Public: x goes to the left.
                        let left = 0u64.wrapping_sub(!x[i] >> bit & 1);
                        *sum = sum.wrapping_add(left & value);
                    }
                }
                if bit > 0 {
                    let words = level(take(len * NODE));
                    hash.descend(nodes, words, &points[..len], bit, &mut unused[..len]);
                }
            }
            let sign = if side == Side::First { 1 } else { u64::MAX };
            for (shares, sums) in shares.iter_mut().zip(&sums) {
                shares.extend(sums[..len].iter().map(|sum| self.ring.reduce(sum.wrapping_mul(sign))));
            }
        }
        shares
    }
}

/// The k-th value of a block.
#[inline(always)]
fn half(block: u128, k: usize) -> u64 {
    (block >> (64 * k)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Keys, expect_uniform};

    fn expect_products<const VALUES: usize>(dcf: Dcf<VALUES>, alpha: &[u64], x: &[u64]) {
        let n = alpha.len();
        let Keys { hash, roots, prg } = Keys::new(n);
        let betas: [Vec<u64>; VALUES] = from_fn(|k| prg.stream(1 + k as u64).words(n, dcf.ring.mask()));
        let mut words = Vec::new();
        dcf.make(&hash, alpha, betas.each_ref().map(|b| &b[..]), [&roots[0], &roots[1]], &mut words);
        assert_eq!(words.len(), dcf.key_bytes(n));
        let first = dcf.evaluate(&hash, Side::First, x, &roots[0], &words);
        let second = dcf.evaluate(&hash, Side::Second, x, &roots[1], &words);
        let low = (1u64 << dcf.bits) - 1;
        for (k, beta) in betas.iter().enumerate() {
            for i in 0..n {
                let expected = if x[i] & low < alpha[i] & low { beta[i] } else { 0 };
                let found = dcf.ring.reduce(first[k][i].wrapping_add(second[k][i]));
                assert_eq!(found, expected, "{} < {} in {dcf:?}, value {k}", x[i], alpha[i]);
            }
        }
    }

    #[test]
    fn every_pair_of_small_domains() {
        for (bits, ring) in (1..=10).zip([16, 17, 32, 33, 40, 48, 63, 64, 16, 40]) {
            let size = 1u64 << bits;
            let pairs = (0..size).flat_map(|alpha| (0..size).map(move |x| (alpha, x)));
            let (alpha, x): (Vec<u64>, Vec<u64>) = pairs.unzip();
            expect_products(Dcf::<1>::new(bits, Ring::new(ring).unwrap()), &alpha, &x);
            expect_products(Dcf::<2>::new(bits, Ring::new(ring).unwrap()), &alpha, &x);
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
            expect_products(Dcf::<1>::new(bits, Ring::new(48).unwrap()), &alpha, &x);
            expect_products(Dcf::<2>::new(bits, Ring::new(33).unwrap()), &alpha, &x);
        }
    }

    #[test]
    fn one_key_alone_is_uniform() {
        let dcf = Dcf::<2>::new(9, Ring::new(64).unwrap());
        let n = 4096;
        for (alpha, beta) in [(0, 0), (0, u64::MAX), (511, 1)] {
            let Keys { hash, roots, .. } = Keys::new(n);
            let (mut words, betas) = (Vec::new(), [vec![beta; n], vec![beta; n]]);
            let betas = [&betas[0][..], &betas[1]];
            dcf.make(&hash, &vec![alpha; n], betas, [&roots[0], &roots[1]], &mut words);
            expect_uniform(&words, &format!("α = {alpha}, β = {beta}: words"));
            for (side, roots) in [Side::First, Side::Second].into_iter().zip(&roots) {
                for x in [0, 255, 511] {
                    let [a, b] = dcf.evaluate(&hash, side, &vec![x; n], roots, &words);
                    // At the largest x nothing is added: the share is 0 whatever the key.
                    if x == 511 {
                        continue;
                    }
                    let bytes =
                        |shares: &[u64]| -> Vec<u8> { shares.iter().flat_map(|s| s.to_le_bytes()).collect() };
                    let sum: Vec<u64> = a.iter().zip(&b).map(|(a, b)| a ^ b).collect();
                    for (shares, what) in [(a, "first"), (b, "second"), (sum, "sum of both")] {
                        let what = format!("α = {alpha}, β = {beta}, x = {x}, {side:?}: {what}");
                        expect_uniform(&bytes(&shares), &what);
                    }
                }
            }
        }
    }
}

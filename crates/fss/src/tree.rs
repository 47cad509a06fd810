//! Half-trees: a tree of 128-bit nodes for each party, equal but for the path to α, where the two nodes differ by the key's
//! secret Δ. The lowest bit of a node says whether its party corrects: on the path one of the two does, elsewhere both or none.
//!
//! From a node s with lowest bit t and the level's correction word W, the left child is H(s) ⊕ t·W and the right one that ⊕ s.
//! W = H(s_0) ⊕ H(s_1) ⊕ ¬α_i·Δ keeps the rule: the children on the path differ by Δ, the others are equal. One level of many
//! trees is [`Hash::split`] at the dealer and [`Hash::descend`] at a party.
//!
//! Source: Guo, Yang, Wang, Zhang, Xie, Liu, Zhang, "Half-tree: halving the cost of tree expansion in COT and DPF" (Eurocrypt
//! 2023), figure 8; one call of the hash for both children. Deviates: both roots are drawn from seeds, so that keys hold correction words only.

use std::ops::Range;

use privet_ring::blocks::{Hash, Word};
use privet_ring::prg::Stream;

/// Bits of the domain that a leaf's 128 bits stand for.
pub(crate) const LEAF_BITS: u32 = 7;
/// Bytes of a node, and of a correction word.
pub(crate) const NODE: usize = size_of::<Word>();
/// Keys made or evaluated at a time: their nodes, points and sums stay in the first-level cache, their words in the second.
pub(crate) const PIECE: usize = 256;

/// Keep the hashes of a node that make a leaf, or a value, apart from the one that makes its children: other points for it.
pub(crate) const LEAF_TWEAK: u128 = 0x6c65_6166_6c65_6166_6c65_6166_6c65_6160;
pub(crate) const VALUE_TWEAK: u128 = 0x7661_6c75_6576_616c_7565_7661_6c75_6560;

/// Which of the two parties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Its root has the lowest bit 0. It adds public terms.
    First,
    /// Its root has the lowest bit 1.
    Second,
}

/// Roots of `keys` trees of one party, from its stream of seeds.
pub fn root(side: Side, keys: usize, stream: &mut Stream) -> Vec<u128> {
    let words = stream.words(2 * keys, u64::MAX);
    let (pairs, _) = words.as_chunks::<2>();
    let lowest = u128::from(side == Side::Second);
    pairs.iter().map(|[low, high]| (u128::from(*high) << 64 | u128::from(*low)) & !1 | lowest).collect()
}

/// All ones if the lowest bit of `value` is 1.
#[inline(always)]
pub(crate) fn all_if(value: u128) -> u128 {
    0u128.wrapping_sub(value & 1)
}

/// The keys 0 to `keys` − 1 in runs of at most `piece`.
pub(crate) fn pieces(keys: usize, piece: usize) -> impl Iterator<Item = Range<usize>> {
    (0..keys).step_by(piece).map(move |at| at..(at + piece).min(keys))
}

/// Correction words of a level.
pub(crate) fn level(bytes: &[u8]) -> &[Word] {
    bytes.as_chunks().0
}

/// Correction words of a level, to be written.
pub(crate) fn level_mut(bytes: &mut [u8]) -> &mut [Word] {
    bytes.as_chunks_mut().0
}

/// The dealer's two nodes on the path, for a piece of keys.
pub(crate) struct Pair {
    pub(crate) first: [u128; PIECE],
    pub(crate) second: [u128; PIECE],
}

impl Pair {
    /// Both parties' roots.
    pub(crate) fn new([first, second]: [&[u128]; 2]) -> Self {
        let mut pair = Self { first: [0; PIECE], second: [0; PIECE] };
        pair.first[..first.len()].copy_from_slice(first);
        pair.second[..second.len()].copy_from_slice(second);
        pair
    }

    /// Down `depth` levels from bit `bits` − 1 of α on; writes their words level by level.
    pub(crate) fn descend(&mut self, hash: &Hash, alpha: &[u64], bits: u32, words: &mut [u8]) {
        let n = alpha.len();
        for (bit, words) in (0..bits).rev().zip(words.chunks_exact_mut(n * NODE)) {
            hash.split(&mut self.first[..n], &mut self.second[..n], alpha, bit, level_mut(words));
        }
    }

    /// Both parties' hashes of their nodes under a tweak.
    pub(crate) fn hashed(&self, hash: &Hash, tweak: u128, n: usize) -> [[u128; PIECE]; 2] {
        let mut hashed = [[0; PIECE]; 2];
        for (nodes, hashed) in [&self.first, &self.second].into_iter().zip(&mut hashed) {
            hash.blocks(&nodes[..n], tweak, &mut hashed[..n]);
        }
        hashed
    }
}

/// The first `bytes` bytes of leaves' words, one after the other.
pub(crate) fn put_leaves(leaves: impl Iterator<Item = u128>, bytes: usize, out: &mut [u8]) {
    for (cell, leaf) in out.chunks_exact_mut(bytes).zip(leaves) {
        cell.copy_from_slice(&leaf.to_le_bytes()[..bytes]);
    }
}

/// What [`put_leaves`] wrote.
pub(crate) fn leaf(leaves: &[u8], bytes: usize, i: usize) -> u128 {
    let mut leaf = [0; NODE];
    leaf[..bytes].copy_from_slice(&leaves[i * bytes..][..bytes]);
    u128::from_le_bytes(leaf)
}

//! Half-trees: a tree of 128-bit nodes for each party, equal but for the path to α, where the two nodes differ by the key's
//! secret Δ. The lowest bit of a node says whether its party corrects: on the path one of the two does, elsewhere both or none.
//!
//! From a node s with lowest bit t and the level's correction word W, the left child is H(s) ⊕ t·W and the right one that ⊕ s.
//! W = H(s_0) ⊕ H(s_1) ⊕ ¬α_i·Δ keeps the rule: the children on the path differ by Δ, the others are equal. One level of many
//! trees is [`Hash::split`] at the dealer and [`Hash::descend`] at a party.
//!
//! Source: Guo, Yang, Wang, Zhang, Xie, Liu, Zhang, "Half-tree: halving the cost of tree expansion in COT and DPF" (Eurocrypt
//! 2023), figure 8; one call of the hash for both children. Deviates: both roots are drawn from seeds, so that keys hold correction words only.

use std::ops::{Deref, DerefMut, Range};

use privet_ring::blocks::{Doubled, Hash, Word};
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

/// One of something for each key of a piece, from a line of the cache on: no vector of it lies across two lines.
#[derive(Clone)]
#[repr(align(64))]
pub(crate) struct Lines<T>([T; PIECE]);

impl<T: Copy + Default> Lines<T> {
    pub(crate) fn new() -> Self {
        Self([T::default(); PIECE])
    }
}

impl<T> Deref for Lines<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Lines<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// Numbers as [`Hash`] reads them.
pub(crate) fn doubled(x: &[u64]) -> Lines<Doubled> {
    let mut doubled = Lines::new();
    double(x, u64::BITS, &mut doubled);
    doubled
}

/// The `bits` lowest bits of numbers, as [`Hash`] reads them.
pub(crate) fn double(x: &[u64], bits: u32, doubled: &mut Lines<Doubled>) {
    let mask = u64::MAX >> (u64::BITS - bits);
    doubled.iter_mut().zip(x).for_each(|(d, x)| *d = [x & mask; 2]);
}

/// The dealer's nodes on the path to α, for a piece of keys.
pub(crate) struct Path {
    /// The first party's.
    pub(crate) first: Lines<u128>,
    /// What the second party's differ by, on every level.
    difference: Lines<u128>,
    alpha: Lines<Doubled>,
    len: usize,
}

impl Path {
    /// Of no keys yet.
    pub(crate) fn empty() -> Self {
        Self { first: Lines::new(), difference: Lines::new(), alpha: Lines::new(), len: 0 }
    }

    /// From both parties' roots.
    pub(crate) fn new(roots: [&[u128]; 2], alpha: &[u64]) -> Self {
        let mut path = Self::empty();
        path.start(roots, alpha, u64::BITS);
        path
    }

    /// From both parties' roots, to the `bits` lowest bits of α.
    pub(crate) fn start(&mut self, [first, second]: [&[u128]; 2], alpha: &[u64], bits: u32) {
        self.len = alpha.len();
        double(alpha, bits, &mut self.alpha);
        self.first[..self.len].copy_from_slice(first);
        let roots = first.iter().zip(second);
        self.difference.iter_mut().zip(roots).for_each(|(d, (first, second))| *d = first ^ second);
    }

    /// Down one level, to the child that bit `bit` of α says; writes the level's words.
    pub(crate) fn descend(&mut self, hash: &Hash, bit: u32, words: &mut [u8]) {
        let n = self.len;
        hash.split(&mut self.first[..n], &self.difference[..n], &self.alpha[..n], bit, level_mut(words));
    }

    /// Down `levels` levels, from bit `bits` − 1 on; appends their words level by level.
    pub(crate) fn descend_all(&mut self, hash: &Hash, bits: u32, levels: usize, words: &mut Vec<u8>) {
        for bit in (0..bits).rev().take(levels) {
            // A level's room is made when it is filled: it is in the first-level cache then.
            let words = appended(words, self.len * NODE);
            self.descend(hash, bit, words);
        }
    }

    /// Words of leaves in which the bits below α mod 128 are 1.
    pub(crate) fn leaves_below(&self, hash: &Hash, words: &mut [Word]) {
        let n = self.len;
        hash.leaves_below(&self.first[..n], &self.difference[..n], LEAF_TWEAK, &self.alpha[..n], words);
    }

    /// The second party's nodes.
    pub(crate) fn second(&self) -> Lines<u128> {
        let mut second = self.first.clone();
        second.iter_mut().zip(&*self.difference).for_each(|(s, d)| *s ^= d);
        second
    }

    /// Both parties' hashes of their nodes under a tweak.
    pub(crate) fn hashed(&self, hash: &Hash, tweak: u128) -> [Lines<u128>; 2] {
        let mut hashed = [Lines::new(), Lines::new()];
        for (nodes, hashed) in [&self.first, &self.second()].into_iter().zip(&mut hashed) {
            hash.blocks(&nodes[..self.len], tweak, &mut hashed[..self.len]);
        }
        hashed
    }
}

/// So many zeros more.
pub(crate) fn appended(bytes: &mut Vec<u8>, more: usize) -> &mut [u8] {
    let start = bytes.len();
    bytes.resize(start + more, 0);
    &mut bytes[start..]
}

/// The first `bytes` bytes of leaves' words, one after the other.
pub(crate) fn put_leaves(leaves: impl Iterator<Item = u128>, bytes: usize, out: &mut [u8]) {
    if bytes == NODE {
        // Whole words, without a call for each.
        level_mut(out).iter_mut().zip(leaves).for_each(|(cell, leaf)| *cell = leaf.to_le_bytes());
        return;
    }
    for (cell, leaf) in out.chunks_exact_mut(bytes).zip(leaves) {
        cell.copy_from_slice(&leaf.to_le_bytes()[..bytes]);
    }
}

/// What [`put_leaves`] wrote.
pub(crate) fn read_leaves(packed: &[u8], bytes: usize, leaves: &mut [u128]) {
    if bytes == NODE {
        leaves.iter_mut().zip(level(packed)).for_each(|(leaf, word)| *leaf = u128::from_le_bytes(*word));
        return;
    }
    for (leaf, own) in leaves.iter_mut().zip(packed.chunks_exact(bytes)) {
        let mut word = [0; NODE];
        word[..bytes].copy_from_slice(own);
        *leaf = u128::from_le_bytes(word);
    }
}

//! Half-trees: a tree of 128-bit nodes for each party, equal but for the path to α, where the two nodes differ by the key's
//! secret Δ. The lowest bit of a node says whether its party corrects: on the path one of the two does, elsewhere both or none.
//!
//! From a node s with lowest bit t and the level's correction word W, the left child is H(s) ⊕ t·W and the right one that ⊕ s.
//! W = H(s_0) ⊕ H(s_1) ⊕ ¬α_i·Δ keeps the rule: the children on the path differ by Δ, the others are equal.
//!
//! Source: Guo, Yang, Wang, Zhang, Xie, Liu, Zhang, "Half-tree: halving the cost of tree expansion in COT and DPF" (Eurocrypt
//! 2023), figure 8; one call of the hash for both children. Deviates: both roots are drawn from seeds, so that keys hold correction words only.

use privet_ring::prg::Stream;

use crate::hash::Hash;

/// Bits of the domain that a leaf's 128 bits stand for.
pub(crate) const LEAF_BITS: u32 = 7;
/// Bytes of a node, and of a correction word.
pub(crate) const NODE: usize = 16;

/// Which of the two parties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Its root has the lowest bit 0.
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

/// The dealer's two nodes on the path, for a batch of keys.
pub(crate) struct Pair {
    pub(crate) nodes: [Vec<u128>; 2],
    hashed: [Vec<u128>; 2],
}

impl Pair {
    pub(crate) fn new(first: Vec<u128>, second: Vec<u128>) -> Self {
        let hashed = [vec![0; first.len()], vec![0; first.len()]];
        Self { nodes: [first, second], hashed }
    }

    /// Goes down one level, to the child that bit `bit` of each α says; appends the correction words.
    pub(crate) fn descend(&mut self, hash: &Hash, alpha: &[u64], bit: u32, words: &mut Vec<u8>) {
        let [first, second] = &mut self.nodes;
        let [hash_first, hash_second] = &mut self.hashed;
        hash.blocks(first, hash_first);
        hash.blocks(second, hash_second);
        words.reserve(NODE * alpha.len());
        let nodes = first.iter_mut().zip(second);
        let hashes = hash_first.iter().zip(hash_second.iter());
        for (((s_0, s_1), (h_0, h_1)), alpha) in nodes.zip(hashes).zip(alpha) {
            let goes_right = all_if(u128::from(alpha >> bit));
            let word = h_0 ^ h_1 ^ (!goes_right & (*s_0 ^ *s_1));
            words.extend(word.to_le_bytes());
            *s_0 = h_0 ^ (all_if(*s_0) & word) ^ (goes_right & *s_0);
            *s_1 = h_1 ^ (all_if(*s_1) & word) ^ (goes_right & *s_1);
        }
    }

    /// The correction words of leaves: `leaf(i)` is what both parties' leaves of key i differ by on the path.
    pub(crate) fn leaves(mut self, hash: &Hash, leaf: impl Fn(usize) -> u128) -> Vec<u128> {
        for (nodes, hashed) in self.nodes.iter_mut().zip(&mut self.hashed) {
            nodes.iter_mut().for_each(|s| *s ^= LEAF_TWEAK);
            hash.blocks(nodes, hashed);
        }
        let [first, second] = &self.hashed;
        first.iter().zip(second).enumerate().map(|(i, (a, b))| a ^ b ^ leaf(i)).collect()
    }
}

/// Keeps the hash of a leaf apart from that of an inner node: another point for the same node.
const LEAF_TWEAK: u128 = 0x6c65_6166_6c65_6166_6c65_6166_6c65_6160;

/// One party's nodes, for a batch of keys.
pub(crate) struct Walk {
    pub(crate) nodes: Vec<u128>,
    hashed: Vec<u128>,
}

impl Walk {
    pub(crate) fn new(roots: &[u128]) -> Self {
        Self { nodes: roots.to_vec(), hashed: vec![0; roots.len()] }
    }

    /// Goes down one level, to the child that bit `bit` of each x says. `words` are the level's correction words; `visit` is given
    /// the index of a key, whether it went right (all ones), and the right child.
    pub(crate) fn descend(
        &mut self,
        hash: &Hash,
        x: &[u64],
        bit: u32,
        words: &[u8],
        mut visit: impl FnMut(usize, u128, u128),
    ) {
        hash.blocks(&self.nodes, &mut self.hashed);
        let (words, _) = words.as_chunks::<NODE>();
        let nodes = self.nodes.iter_mut().zip(&self.hashed).zip(words).zip(x).enumerate();
        for (i, (((s, h), word), x)) in nodes {
            let left = h ^ (all_if(*s) & u128::from_le_bytes(*word));
            let right = left ^ *s;
            let goes_right = all_if(u128::from(x >> bit));
            visit(i, goes_right, right);
            *s = left ^ (goes_right & *s);
        }
    }

    /// The leaves, from their correction words.
    pub(crate) fn leaves(self, hash: &Hash, word: impl Fn(usize) -> u128) -> Vec<u128> {
        let Self { nodes, mut hashed } = self;
        hashed.resize(nodes.len(), 0);
        let tweaked: Vec<u128> = nodes.iter().map(|s| s ^ LEAF_TWEAK).collect();
        hash.blocks(&tweaked, &mut hashed);
        for (i, (h, s)) in hashed.iter_mut().zip(&nodes).enumerate() {
            *h ^= all_if(*s) & word(i);
        }
        hashed
    }
}

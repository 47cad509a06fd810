//! A fixed-key hash of 128-bit blocks, and the levels of half-trees that are made of it, for many trees at a time.
//!
//! `H(x) = π(σ(x)) ⊕ σ(x)` with π = AES-128 under a public key that both parties use, and σ(high ‖ low) = (high ⊕ low) ‖ high,
//! a linear orthomorphism: circular correlation robust. Source: Guo, Katz, Wang, Yu, "Efficient and secure multiparty
//! computation from fixed-key block ciphers" (S&P 2020), which half-trees (Guo et al., Eurocrypt 2023) are built on. The key
//! is drawn for every set of keys, so that precomputation for one says nothing about another.
//!
//! A level of a half-tree is one pass over the nodes: where the CPU has VAES and AVX-512, sixteen blocks go through the cipher
//! together, and everything around it happens in the same registers (`blocks/vaes.rs`). Elsewhere blocks go through the `aes`
//! crate, which is also what the tests compare with. Neither run time nor memory accesses depend on a node, on a word or on α.

#[cfg(target_arch = "x86_64")]
mod vaes;

use std::hint::black_box;

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};

use crate::prg::Seed;

/// Blocks that go through the cipher at a time; see [`Hash::blocks`].
const BATCH: usize = 256;

/// A correction word, as it is stored.
pub type Word = [u8; 16];

/// A number as the levels read it: twice, once for each half of a block.
pub type Doubled = [u64; 2];

/// The hash under one key.
pub struct Hash {
    cipher: Aes128,
    #[cfg(target_arch = "x86_64")]
    vaes: Option<vaes::Keys>,
}

impl Hash {
    /// Keys the cipher; the key is known to both parties, and random.
    pub fn new(key: &Seed) -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            vaes: vaes::Keys::new(key),
            ..Self::portable(key)
        }
    }

    /// The same hash without vectors of our own: what tests compare with.
    #[doc(hidden)]
    pub fn portable(key: &Seed) -> Self {
        Self {
            cipher: Aes128::new(&Array::from(*key.expose())),
            #[cfg(target_arch = "x86_64")]
            vaes: None,
        }
    }

    /// What computes, for reports.
    pub fn isa(&self) -> &'static str {
        #[cfg(target_arch = "x86_64")]
        if self.vaes.is_some() {
            return "vaes512";
        }
        "aes crate"
    }

    /// Overwrites `out` with the hashes of `blocks[i] ⊕ tweak`, of the same number.
    pub fn blocks(&self, blocks: &[u128], tweak: u128, out: &mut [u128]) {
        assert_eq!(blocks.len(), out.len(), "a hash for every block");
        #[cfg(target_arch = "x86_64")]
        if let Some(keys) = &self.vaes {
            // SAFETY: there are keys only where the CPU has the instructions.
            return unsafe { keys.blocks(blocks, tweak, out) };
        }
        self.blocks_portable(blocks, tweak, out);
    }

    /// Out of line like all of its kind: what they need on the stack would be touched with vectors as well.
    #[inline(never)]
    fn blocks_portable(&self, blocks: &[u128], tweak: u128, out: &mut [u128]) {
        let mut buffer = [Array::from([0u8; 16]); BATCH];
        for (blocks, out) in blocks.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
            let buffer = &mut buffer[..blocks.len()];
            for (cell, block) in buffer.iter_mut().zip(blocks) {
                *cell = Array::from(sigma(*block ^ tweak).to_le_bytes());
            }
            self.cipher.encrypt_blocks(buffer);
            for ((out, cell), block) in out.iter_mut().zip(buffer).zip(blocks) {
                *out = u128::from_le_bytes(cell.0) ^ sigma(*block ^ tweak);
            }
        }
    }

    /// A party goes down one level in as many trees as there are nodes: to the child that bit `bit` of each x says. Adds the
    /// right child to `sums` where x passes it on the left.
    pub fn descend(&self, nodes: &mut [u128], words: &[Word], x: &[Doubled], bit: u32, sums: &mut [u128]) {
        let n = nodes.len();
        assert!(all_are(n, [words.len(), x.len(), sums.len()]) && bit < 64, "one of each for {n} trees");
        #[cfg(target_arch = "x86_64")]
        if let Some(keys) = &self.vaes {
            // SAFETY: as in [`Self::blocks`].
            return unsafe { keys.descend(nodes, words, x, bit, sums) };
        }
        self.descend_portable(nodes, words, x, bit, sums);
    }

    #[inline(never)]
    fn descend_portable(
        &self,
        nodes: &mut [u128],
        words: &[Word],
        x: &[Doubled],
        bit: u32,
        sums: &mut [u128],
    ) {
        let mut hashed = [0; BATCH];
        let pieces = nodes.chunks_mut(BATCH).zip(words.chunks(BATCH));
        for ((nodes, words), (x, sums)) in pieces.zip(x.chunks(BATCH).zip(sums.chunks_mut(BATCH))) {
            let hashed = &mut hashed[..nodes.len()];
            self.blocks(nodes, 0, hashed);
            for (i, s) in nodes.iter_mut().enumerate() {
                let left = hashed[i] ^ (all_if_wide(*s) & u128::from_le_bytes(words[i]));
                let goes_right = all_if_wide(u128::from(x[i][0] >> bit));
                sums[i] ^= (left ^ *s) & !goes_right;
                *s = left ^ (goes_right & *s);
            }
        }
    }

    /// The dealer goes down one level in as many trees as there are nodes, on the way to α. `nodes` are the first party's, which
    /// the second party's differ from by `differences`, the same on every level. Writes the correction words: the sum of both
    /// nodes' hashes, and the difference where bit `bit` of α is 0.
    pub fn split(
        &self,
        nodes: &mut [u128],
        differences: &[u128],
        alpha: &[Doubled],
        bit: u32,
        words: &mut [Word],
    ) {
        let n = nodes.len();
        assert!(
            all_are(n, [differences.len(), alpha.len(), words.len()]) && bit < 64,
            "one of each for {n} trees"
        );
        #[cfg(target_arch = "x86_64")]
        if let Some(keys) = &self.vaes {
            // SAFETY: as in [`Self::blocks`].
            return unsafe { keys.split(nodes, differences, alpha, bit, words) };
        }
        self.split_portable(nodes, differences, alpha, bit, words);
    }

    #[inline(never)]
    fn split_portable(
        &self,
        nodes: &mut [u128],
        differences: &[u128],
        alpha: &[Doubled],
        bit: u32,
        words: &mut [Word],
    ) {
        let (mut others, mut hashed) = ([0; BATCH], [[0; BATCH]; 2]);
        let pieces = nodes.chunks_mut(BATCH).zip(differences.chunks(BATCH));
        for ((nodes, differences), (alpha, words)) in
            pieces.zip(alpha.chunks(BATCH).zip(words.chunks_mut(BATCH)))
        {
            let others = &mut others[..nodes.len()];
            others.iter_mut().zip(nodes.iter().zip(differences)).for_each(|(o, (s, d))| *o = s ^ d);
            let [h_0, h_1] = hashed.each_mut().map(|hashed| &mut hashed[..others.len()]);
            self.blocks(nodes, 0, h_0);
            self.blocks(others, 0, h_1);
            for (i, s) in nodes.iter_mut().enumerate() {
                let goes_right = all_if_wide(u128::from(alpha[i][0] >> bit));
                let word = h_0[i] ^ h_1[i] ^ (!goes_right & differences[i]);
                words[i] = word.to_le_bytes();
                *s = h_0[i] ^ (all_if_wide(*s) & word) ^ (goes_right & *s);
            }
        }
    }

    /// Both children of nodes of as many trees as there are words.
    pub fn children(&self, nodes: &[u128], words: &[Word], left: &mut [u128], right: &mut [u128]) {
        let n = nodes.len();
        assert!(all_are(n, [words.len(), left.len(), right.len()]), "one of each for {n} trees");
        #[cfg(target_arch = "x86_64")]
        if let Some(keys) = &self.vaes {
            // SAFETY: as in [`Self::blocks`].
            return unsafe { keys.children(nodes, words, left, right) };
        }
        self.blocks(nodes, 0, left);
        for (i, s) in nodes.iter().enumerate() {
            left[i] ^= all_if_wide(*s) & u128::from_le_bytes(words[i]);
            right[i] = left[i] ^ s;
        }
    }

    /// A party's shares of bits in leaves, packed 64 to a word: of each tree bit x mod 128 of `H(node ⊕ tweak) ⊕ t·word`, and
    /// on it the lowest bit of the tree's sum. Unused bits are zero.
    ///
    /// # Panics
    /// Unless there is one of each for every tree, and room for their bits.
    pub fn look_up(
        &self,
        nodes: &[u128],
        tweak: u128,
        words: &[Word],
        x: &[Doubled],
        sums: &[u128],
        shares: &mut [u64],
    ) {
        let n = nodes.len();
        assert!(all_are(n, [words.len(), x.len(), sums.len()]), "one of each for {n} trees");
        assert_eq!(shares.len(), n.div_ceil(64), "a word for 64 trees");
        let pieces =
            nodes.chunks(BATCH).zip(words.chunks(BATCH)).zip(x.chunks(BATCH).zip(sums.chunks(BATCH)));
        for (((nodes, words), (x, sums)), shares) in pieces.zip(shares.chunks_mut(BATCH / 64)) {
            #[cfg(target_arch = "x86_64")]
            if let Some(keys) = &self.vaes {
                // SAFETY: as in [`Self::blocks`].
                unsafe { keys.look_up(nodes, tweak, words, x, sums, shares) };
                continue;
            }
            self.look_up_portable(nodes, tweak, words, x, sums, shares);
        }
    }

    #[inline(never)]
    fn look_up_portable(
        &self,
        nodes: &[u128],
        tweak: u128,
        words: &[Word],
        x: &[Doubled],
        sums: &[u128],
        shares: &mut [u64],
    ) {
        let mut hashed = [0; BATCH];
        let hashed = &mut hashed[..nodes.len()];
        self.blocks(nodes, tweak, hashed);
        shares.fill(0);
        for (i, node) in nodes.iter().enumerate() {
            let leaf = hashed[i] ^ (all_if_wide(*node) & u128::from_le_bytes(words[i]));
            let index = x[i][0] & 127;
            // The half that the index lies in, which is public, without a branch for speed.
            let upper = 0u64.wrapping_sub(index >> 6);
            let half = (leaf as u64 & !upper) | ((leaf >> 64) as u64 & upper);
            shares[i / 64] |= ((half >> (index & 63) ^ sums[i] as u64) & 1) << (i % 64);
        }
    }

    /// The dealer's words for leaves in which all bits below α mod 128 are to be 1: of each tree the sum of both nodes' hashes
    /// under the tweak, and those bits. `nodes` and `differences` are as for [`Self::split`].
    ///
    /// # Panics
    /// Unless there is one of each for every tree.
    pub fn leaves_below(
        &self,
        nodes: &[u128],
        differences: &[u128],
        tweak: u128,
        alpha: &[Doubled],
        words: &mut [Word],
    ) {
        let n = nodes.len();
        assert!(all_are(n, [differences.len(), alpha.len(), words.len()]), "one of each for {n} trees");
        #[cfg(target_arch = "x86_64")]
        if let Some(keys) = &self.vaes {
            // SAFETY: as in [`Self::blocks`].
            return unsafe { keys.leaves_below(nodes, differences, tweak, alpha, words) };
        }
        self.leaves_below_portable(nodes, differences, tweak, alpha, words);
    }

    #[inline(never)]
    fn leaves_below_portable(
        &self,
        nodes: &[u128],
        differences: &[u128],
        tweak: u128,
        alpha: &[Doubled],
        words: &mut [Word],
    ) {
        let (mut others, mut hashed) = ([0; BATCH], [[0; BATCH]; 2]);
        let pieces = nodes.chunks(BATCH).zip(differences.chunks(BATCH));
        for ((nodes, differences), (alpha, words)) in
            pieces.zip(alpha.chunks(BATCH).zip(words.chunks_mut(BATCH)))
        {
            let others = &mut others[..nodes.len()];
            others.iter_mut().zip(nodes.iter().zip(differences)).for_each(|(o, (s, d))| *o = s ^ d);
            let [h_0, h_1] = hashed.each_mut().map(|hashed| &mut hashed[..others.len()]);
            self.blocks(nodes, tweak, h_0);
            self.blocks(others, tweak, h_1);
            for (i, word) in words.iter_mut().enumerate() {
                let below = (1u128 << (alpha[i][0] & 127)) - 1;
                *word = (h_0[i] ^ h_1[i] ^ below).to_le_bytes();
            }
        }
    }

    /// The sum modulo 2^64 of those `entries` whose bit is 1 in `bits`: bit i mod 128 of word `stride`·(i div 128). All are read.
    ///
    /// # Panics
    /// Unless there is a bit for every entry.
    pub fn sum_selected(&self, bits: &[u128], stride: usize, entries: &[u64]) -> u64 {
        let words = bits.iter().step_by(stride);
        assert!(words.len() >= entries.len().div_ceil(128), "a bit for every entry");
        let (whole, rest) = entries.as_chunks::<128>();
        #[cfg(target_arch = "x86_64")]
        if let Some(keys) = &self.vaes {
            let last = words.clone().nth(whole.len()).map_or(0, |word| selected(*word, rest));
            // SAFETY: as in [`Self::blocks`].
            return unsafe { keys.sum_selected(words.zip(whole)).wrapping_add(last) };
        }
        let entries = whole.iter().map(|w| &w[..]).chain([rest]);
        words.zip(entries).fold(0, |sum, (word, entries)| sum.wrapping_add(selected(*word, entries)))
    }
}

/// The sum of at most 128 entries whose bit is 1.
fn selected(bits: u128, entries: &[u64]) -> u64 {
    let halves = [bits as u64, (bits >> 64) as u64];
    halves.into_iter().zip(entries.chunks(64)).fold(0, |sum, (half, entries)| {
        // The compiler may not see that a mask is all zeros or all ones: it would branch on it.
        let mut masks: [u64; 64] = std::array::from_fn(|j| 0u64.wrapping_sub(half >> j & 1));
        black_box(&mut masks);
        entries.iter().zip(&masks).map(|(entry, mask)| entry & mask).fold(sum, u64::wrapping_add)
    })
}

/// Whether there are n of everything. Not by comparing arrays: they are read by a vector right after they were written word by
/// word, which waits for all that is still to be stored, a piece's nodes before.
#[inline(always)]
fn all_are<const N: usize>(n: usize, lengths: [usize; N]) -> bool {
    lengths.into_iter().all(|length| length == n)
}

#[inline(always)]
fn sigma(block: u128) -> u128 {
    let (high, low) = ((block >> 64) as u64, block as u64);
    u128::from(high ^ low) << 64 | u128::from(high)
}

/// All ones if the lowest bit of `value` is 1.
#[inline(always)]
fn all_if_wide(value: u128) -> u128 {
    let mask = all_if(value as u64);
    u128::from(mask) << 64 | u128::from(mask)
}

/// All ones if the lowest bit of `value` is 1, in a way that the compiler cannot make a branch of.
#[inline(always)]
pub fn all_if(value: u64) -> u64 {
    black_box(0u64.wrapping_sub(value & 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prg::Prg;

    /// Every way this CPU has; the first one is the oracle.
    fn hashes(seed: u8) -> Vec<Hash> {
        let key = Seed::from_bytes([seed; 16]);
        vec![Hash::portable(&key), Hash::new(&key)]
    }

    fn blocks(number: u64, n: usize) -> Vec<u128> {
        let words = Prg::new(&Seed::from_bytes([9; 16])).stream(number).words(2 * n, u64::MAX);
        words.chunks_exact(2).map(|w| u128::from(w[1]) << 64 | u128::from(w[0])).collect()
    }

    /// Numbers of trees: with and without rests of vectors, of groups of vectors and of batches.
    const SIZES: [usize; 12] = [0, 1, 2, 3, 4, 5, 15, 16, 17, 37, 256, 531];

    /// AES-128 of FIPS 197, appendix C.1, around σ.
    #[test]
    fn hashes_are_those_of_the_definition() {
        let key = Seed::from_bytes(std::array::from_fn(|i| i as u8));
        let plain = u128::from_le_bytes(std::array::from_fn(|i| (i * 0x11) as u8));
        // The block whose σ is the plaintext: high = low half of it, low = both halves' sum.
        let (high, low) = ((plain >> 64) as u64, plain as u64);
        let block = u128::from(low) << 64 | u128::from(high ^ low);
        assert_eq!(sigma(block), plain);
        let cipher: [u8; 16] =
            [0x69, 0xc4, 0xe0, 0xd8, 0x6a, 0x7b, 0x04, 0x30, 0xd8, 0xcd, 0xb7, 0x80, 0x70, 0xb4, 0xc5, 0x5a];
        for hash in [Hash::portable(&key), Hash::new(&key)] {
            for n in SIZES {
                let mut out = vec![0; n];
                hash.blocks(&vec![block ^ 77; n], 77, &mut out);
                assert!(out.iter().all(|&h| h == u128::from_le_bytes(cipher) ^ plain), "{}", hash.isa());
            }
        }
    }

    /// An orthomorphism: σ and x ↦ σ(x) ⊕ x are one to one, shown by inverses.
    #[test]
    fn sigma_is_an_orthomorphism() {
        for x in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0011_2233_4455_6677, 1 << 64, 1 << 127] {
            let invert = |y: u128| {
                let (high, low) = ((y >> 64) as u64, y as u64);
                u128::from(low) << 64 | u128::from(high ^ low)
            };
            assert_eq!(invert(sigma(x)), x);
            let y = sigma(x) ^ x;
            // high' = low, low' = low ⊕ high.
            let (high, low) = ((y >> 64) as u64, y as u64);
            assert_eq!(u128::from(high ^ low) << 64 | u128::from(high), x);
        }
    }

    #[test]
    fn every_path_goes_down_alike() {
        for (seed, n) in (0..).zip(SIZES) {
            let [oracle, other] = <[Hash; 2]>::try_from(hashes(seed)).ok().unwrap();
            let words: Vec<Word> = blocks(1, n).iter().map(|w| w.to_le_bytes()).collect();
            let x = Prg::new(&Seed::from_bytes([3; 16])).stream(n as u64).words(n, u64::MAX);
            let x: Vec<Doubled> = x.into_iter().map(|x| [x; 2]).collect();
            for bit in [0, 1, 31, 63] {
                let run = |hash: &Hash| {
                    let (mut nodes, mut sums) = (blocks(2, n), blocks(3, n));
                    hash.descend(&mut nodes, &words, &x, bit, &mut sums);
                    (nodes, sums)
                };
                assert_eq!(run(&other), run(&oracle), "{n} trees, bit {bit}, {}", other.isa());
                let run = |hash: &Hash| {
                    let (mut nodes, mut words) = (blocks(4, n), vec![[0; 16]; n]);
                    hash.split(&mut nodes, &blocks(5, n), &x, bit, &mut words);
                    (nodes, words)
                };
                assert_eq!(run(&other), run(&oracle), "{n} trees, bit {bit}, {}", other.isa());
            }
            let run = |hash: &Hash| {
                let (mut left, mut right) = (vec![0; n], vec![0; n]);
                hash.children(&blocks(6, n), &words, &mut left, &mut right);
                (left, right)
            };
            assert_eq!(run(&other), run(&oracle), "{n} trees, {}", other.isa());
            let run = |hash: &Hash| {
                let mut shares = vec![u64::MAX; n.div_ceil(64)];
                hash.look_up(&blocks(7, n), 5, &words, &x, &blocks(8, n), &mut shares);
                shares
            };
            assert_eq!(run(&other), run(&oracle), "{n} leaves, {}", other.isa());
            let run = |hash: &Hash| {
                let mut words = vec![[0; 16]; n];
                hash.leaves_below(&blocks(9, n), &blocks(10, n), 5, &x, &mut words);
                words
            };
            assert_eq!(run(&other), run(&oracle), "{n} leaves, {}", other.isa());
        }
    }

    /// Every index, next to the definition: bit x of the corrected leaf and the sum's lowest; ones below α.
    #[test]
    fn leaves_are_those_of_the_definition() {
        let n = 128;
        let (nodes, differences, sums) = (blocks(1, n), blocks(2, n), blocks(3, n));
        let words: Vec<Word> = blocks(4, n).iter().map(|w| w.to_le_bytes()).collect();
        let x: Vec<Doubled> = (0..n as u64).map(|i| [i | i << 57; 2]).collect();
        for hash in hashes(6) {
            let hashed = |nodes: &[u128]| {
                let mut hashed = vec![0; n];
                hash.blocks(nodes, 3, &mut hashed);
                hashed
            };
            let others: Vec<u128> = nodes.iter().zip(&differences).map(|(s, d)| s ^ d).collect();
            let (own, other) = (hashed(&nodes), hashed(&others));
            let mut shares = [0; 2];
            hash.look_up(&nodes, 3, &words, &x, &sums, &mut shares);
            let mut made = vec![[0; 16]; n];
            hash.leaves_below(&nodes, &differences, 3, &x, &mut made);
            for i in 0..n {
                let leaf = own[i] ^ if nodes[i] & 1 == 1 { u128::from_le_bytes(words[i]) } else { 0 };
                let share = shares[i / 64] >> (i % 64) & 1;
                assert_eq!(u128::from(share), (leaf >> i ^ sums[i]) & 1, "{i}, {}", hash.isa());
                let below = u128::from_le_bytes(made[i]) ^ own[i] ^ other[i];
                assert_eq!(below, (1 << i) - 1, "{i}, {}", hash.isa());
            }
        }
    }

    #[test]
    fn sums_are_those_of_the_chosen_entries() {
        let entries = Prg::new(&Seed::from_bytes([4; 16])).stream(0).words(1024, u64::MAX);
        for n in [0usize, 1, 2, 8, 63, 64, 65, 127, 128, 256, 300, 1024] {
            for stride in [1, 3] {
                let bits = blocks(7, stride * n.div_ceil(128));
                let chosen = (0..n).filter(|i| bits[stride * (i / 128)] >> (i % 128) & 1 == 1);
                let expected = chosen.fold(0u64, |sum, i| sum.wrapping_add(entries[i]));
                for hash in hashes(8) {
                    assert_eq!(
                        hash.sum_selected(&bits, stride, &entries[..n]),
                        expected,
                        "{n}, {}",
                        hash.isa()
                    );
                }
            }
        }
    }
}

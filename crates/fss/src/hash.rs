//! A circular correlation robust hash from a block cipher under a public key that both parties use: `H(x) = π(σ(x)) ⊕ σ(x)`.
//!
//! σ(high ‖ low) = (high ⊕ low) ‖ high is a linear orthomorphism. Source: Guo, Katz, Wang, Yu, "Efficient and secure multiparty
//! computation from fixed-key block ciphers" (S&P 2020), which half-trees (Guo et al., Eurocrypt 2023) are built on. The key is
//! drawn for every set of keys, so that precomputation for one says nothing about another.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use privet_ring::prg::Seed;

/// Blocks hashed at a time; see [`Hash::blocks`].
pub(crate) const BATCH: usize = 256;

/// The hash under one key.
pub struct Hash {
    cipher: Aes128,
}

impl Hash {
    /// Keys the cipher; the key is known to both parties, and random.
    pub fn new(key: &Seed) -> Self {
        Self { cipher: Aes128::new(&Array::from(*key.expose())) }
    }

    /// Overwrites `out` with the hashes of `blocks`, of the same number.
    pub fn blocks(&self, blocks: &[u128], out: &mut [u128]) {
        debug_assert_eq!(blocks.len(), out.len());
        let mut buffer = [Array::from([0u8; 16]); BATCH];
        for (blocks, out) in blocks.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
            let buffer = &mut buffer[..blocks.len()];
            for (cell, block) in buffer.iter_mut().zip(blocks) {
                *cell = Array::from(sigma(*block).to_le_bytes());
            }
            self.cipher.encrypt_blocks(buffer);
            for ((out, cell), block) in out.iter_mut().zip(buffer).zip(blocks) {
                *out = u128::from_le_bytes(cell.0) ^ sigma(*block);
            }
        }
    }
}

#[inline(always)]
fn sigma(block: u128) -> u128 {
    let (high, low) = ((block >> 64) as u64, block as u64);
    u128::from(high ^ low) << 64 | u128::from(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AES-128 of FIPS 197, appendix C.1, around σ.
    #[test]
    fn hashes_are_those_of_the_definition() {
        let hash = Hash::new(&Seed::from_bytes(std::array::from_fn(|i| i as u8)));
        let plain = u128::from_le_bytes(std::array::from_fn(|i| (i * 0x11) as u8));
        // The block whose σ is the plaintext: high = low half of it, low = both halves' sum.
        let (high, low) = ((plain >> 64) as u64, plain as u64);
        let block = u128::from(low) << 64 | u128::from(high ^ low);
        assert_eq!(sigma(block), plain);
        let cipher: [u8; 16] =
            [0x69, 0xc4, 0xe0, 0xd8, 0x6a, 0x7b, 0x04, 0x30, 0xd8, 0xcd, 0xb7, 0x80, 0x70, 0xb4, 0xc5, 0x5a];
        let mut out = vec![0; 2 * BATCH + 3];
        hash.blocks(&vec![block; 2 * BATCH + 3], &mut out);
        assert!(out.iter().all(|&h| h == u128::from_le_bytes(cipher) ^ plain));
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
}

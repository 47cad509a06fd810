//! Pseudorandom streams: AES-128 in counter mode under one-time seeds from the operating system.
//!
//! A seed belongs to one bundle half or one weight mask and is never reused; the 64-bit stream number separates the
//! uses of one seed, the low 64 bits of the counter run within a stream.

use std::fmt;

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A 128-bit secret seed. Deliberately neither `Debug` nor `Display` shows it; it serialises for its owner's eyes only.
#[derive(Clone, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
pub struct Seed([u8; 16]);

impl Seed {
    /// A fresh seed from the operating system. Errors when it has no entropy to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Wraps existing secret bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The secret bytes, for storing or sending to their owner.
    pub fn expose(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(secret)")
    }
}

/// Expands a seed into independent streams.
pub struct Prg {
    cipher: Aes128,
}

/// One stream of a [`Prg`]. Every `fill` starts at a fresh block, so equal sequences of calls give equal values.
pub struct Stream<'a> {
    cipher: &'a Aes128,
    number: u64,
    block: u64,
}

/// Blocks encrypted at a time: enough to spread what a call of the cipher costs, small enough for the first-level cache.
const BATCH: usize = 256;

impl Prg {
    /// Keys the generator.
    pub fn new(seed: &Seed) -> Self {
        Self { cipher: Aes128::new(&Array::from(*seed.expose())) }
    }

    /// The stream of this number.
    pub fn stream(&self, number: u64) -> Stream<'_> {
        Stream { cipher: &self.cipher, number, block: 0 }
    }
}

impl Stream<'_> {
    /// Splits off the next `len` words, which fills of even lengths then read piece by piece. This stream goes on as after
    /// one fill of `len` words.
    pub fn take(&mut self, len: usize) -> Self {
        let taken = Self { cipher: self.cipher, number: self.number, block: self.block };
        self.block += len.div_ceil(2) as u64;
        taken
    }

    /// Overwrites `out` with pseudorandom words, each masked by `mask`.
    pub fn fill(&mut self, out: &mut [u64], mask: u64) {
        let mut blocks = [Array::from([0u8; 16]); BATCH];
        for batch in out.chunks_mut(2 * BATCH) {
            let take = batch.len().div_ceil(2);
            for (i, block) in blocks[..take].iter_mut().enumerate() {
                let counter = self.block.wrapping_add(i as u64);
                *block = Array::from((u128::from(self.number) << 64 | u128::from(counter)).to_le_bytes());
            }
            self.cipher.encrypt_blocks(&mut blocks[..take]);
            self.block += take as u64;
            let (halves, _) = Array::slice_as_flattened(&blocks[..take]).as_chunks::<8>();
            for (out, half) in batch.iter_mut().zip(halves) {
                let word = u64::from_le_bytes(*half);
                *out = word & mask;
            }
        }
    }

    /// `len` pseudorandom words, each masked by `mask`.
    pub fn words(&mut self, len: usize, mask: u64) -> Vec<u64> {
        let mut out = vec![0; len];
        self.fill(&mut out, mask);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_aes_128_of_the_counter_block() {
        // FIPS 197, appendix C.1: key 00..0f, plaintext 00112233..ff.
        let seed = Seed::from_bytes(std::array::from_fn(|i| i as u8));
        let plain: [u8; 16] = std::array::from_fn(|i| (i * 0x11) as u8);
        let expected =
            [0x69, 0xc4, 0xe0, 0xd8, 0x6a, 0x7b, 0x04, 0x30, 0xd8, 0xcd, 0xb7, 0x80, 0x70, 0xb4, 0xc5, 0x5a];
        let prg = Prg::new(&seed);
        let mut stream = prg.stream(u64::from_le_bytes(plain[8..].try_into().unwrap()));
        stream.block = u64::from_le_bytes(plain[..8].try_into().unwrap());
        let words = stream.words(2, u64::MAX);
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn streams_are_deterministic_and_distinct() {
        let prg = Prg::new(&Seed::from_bytes([7; 16]));
        let a = prg.stream(1).words(1001, u64::MAX);
        assert_eq!(a, prg.stream(1).words(1001, u64::MAX));
        assert_ne!(a, prg.stream(2).words(1001, u64::MAX));
        assert!(prg.stream(1).words(9, 0xff).iter().all(|&w| w < 256));
        let mut stream = prg.stream(3);
        assert_ne!(stream.words(3, u64::MAX), stream.words(3, u64::MAX));
    }

    #[test]
    fn a_long_fill_is_the_blocks_one_by_one() {
        // The streams are part of the protocol: how many blocks are encrypted at a time must not show.
        let prg = Prg::new(&Seed::from_bytes([5; 16]));
        for len in [1, 2, 2 * BATCH - 1, 2 * BATCH, 2 * BATCH + 1, 5 * BATCH + 3] {
            let mut single = prg.stream(9);
            let mut expected: Vec<u64> =
                (0..len.div_ceil(2)).flat_map(|_| single.words(2, u64::MAX >> 3)).collect();
            expected.truncate(len);
            let mut long = prg.stream(9);
            assert_eq!(long.words(len, u64::MAX >> 3), expected, "{len} words");
            let mut pieces = prg.stream(9);
            let mut taken = pieces.take(len);
            let read: Vec<u64> =
                expected.chunks(6).flat_map(|piece| taken.words(piece.len(), u64::MAX >> 3)).collect();
            assert_eq!(read, expected, "{len} words piece by piece");
            let next = single.words(1, u64::MAX);
            assert_eq!(long.words(1, u64::MAX), next, "after {len} words");
            assert_eq!(pieces.words(1, u64::MAX), next, "after {len} words taken");
        }
    }

    #[test]
    fn seeds_are_not_printed() {
        assert_eq!(format!("{:?}", Seed::from_bytes([1; 16])), "Seed(secret)");
    }
}

//! Randomness, given from outside.

use std::sync::Mutex;

use aws_lc_rs::agreement::{Algorithm, PrivateKey};
use aws_lc_rs::hkdf;
use aws_lc_rs::rand::fill;
use zeroize::Zeroizing;

use crate::error::{KeysError, unspecified};

/// A source of random bytes.
pub trait Randomness: Send + Sync {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// If the source fails; then nothing may be done with what is there.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), KeysError>;
}

/// The random numbers of the cryptographic library, seeded by the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), KeysError> {
        fill(bytes).map_err(unspecified("the operating system gave no random numbers"))
    }
}

/// Bytes that follow from a seed, for traces and tests only.
#[doc(hidden)]
pub struct SeededRandomness {
    key: hkdf::Prk,
    drawn: Mutex<u64>,
}

impl SeededRandomness {
    #[doc(hidden)]
    pub fn new(seed: u64) -> Self {
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, b"privet keys test").extract(&seed.to_le_bytes());
        Self { key, drawn: Mutex::new(0) }
    }
}

impl Randomness for SeededRandomness {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), KeysError> {
        let mut drawn = self.drawn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for chunk in bytes.chunks_mut(32) {
            *drawn += 1;
            expand(&self.key, &[&drawn.to_le_bytes()], chunk)?;
        }
        Ok(())
    }
}

/// HKDF-Expand.
pub(crate) fn expand(key: &hkdf::Prk, info: &[&[u8]], out: &mut [u8]) -> Result<(), KeysError> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    key.expand(info, Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .map_err(unspecified("key derivation failed"))
}

/// A fresh private key on a curve whose scalars have so many bytes, of the first of which only the bits of `mask` may be set.
pub(crate) fn draw_private_key(
    curve: &'static Algorithm,
    bytes: usize,
    mask: u8,
    random: &dyn Randomness,
) -> Result<PrivateKey, KeysError> {
    let mut scalar = Zeroizing::new(vec![0; bytes]);
    // A scalar is out of range less than once in 2^32 times for P-256, and less than every second time for P-521.
    for _ in 0..128 {
        random.fill(&mut scalar)?;
        scalar[0] &= mask;
        if let Ok(key) = PrivateKey::from_private_key(curve, &scalar) {
            return Ok(key);
        }
    }
    Err(KeysError::Internal("no private key could be made"))
}

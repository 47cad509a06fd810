//! The key that everything else in a store is encrypted under.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use crate::error::{KeysError, unspecified};
use crate::random::{Randomness, expand};

/// Version of an encrypted record.
const RECORD_VERSION: u8 = 1;
const SALT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// What keys of records are derived for.
const RECORD: &[u8] = b"privet keys record v1";

/// 256 bits: no `Debug`, wiped on drop, and in one place: what is moved leaves no copies behind.
pub struct MasterKey(Box<Zeroizing<[u8; MasterKey::LEN]>>);

impl MasterKey {
    /// Bytes of a master key.
    pub const LEN: usize = 32;

    /// Fresh random bytes.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn draw(random: &dyn Randomness) -> Result<Self, KeysError> {
        let mut key = Self(Box::default());
        random.fill(&mut key.0[..])?;
        Ok(key)
    }

    /// Copies bytes, which the caller wipes. `None` if there are not 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut key = Self(Box::default());
        (bytes.len() == Self::LEN).then(|| key.0.copy_from_slice(bytes))?;
        Some(key)
    }

    pub(crate) fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// 32 bytes for one purpose.
    pub(crate) fn derive(&self, purpose: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeysError> {
        let mut out = Zeroizing::new([0; 32]);
        let extracted = Salt::new(HKDF_SHA256, b"privet keys master").extract(&self.0[..]);
        expand(&extracted, &[purpose], &mut *out)?;
        Ok(out)
    }

    /// Encrypts a record. Each has an AES-256-GCM key of its own, derived from the master key and 256 random bits, and is
    /// the only message under it: no nonce can repeat, whatever is restored from which backup.
    pub(crate) fn seal(
        &self,
        place: &[u8],
        plain: &[u8],
        random: &dyn Randomness,
    ) -> Result<Vec<u8>, KeysError> {
        let mut salt = [0; SALT_BYTES];
        random.fill(&mut salt)?;
        let mut body = Zeroizing::new(Vec::with_capacity(plain.len() + TAG_BYTES));
        body.extend_from_slice(plain);
        self.record_key(&salt)?
            .seal_in_place_append_tag(nonce(), Aad::from(place), &mut *body)
            .map_err(unspecified("encryption failed"))?;
        Ok([&[RECORD_VERSION], salt.as_slice(), body.as_slice()].concat())
    }

    /// Decrypts a record that was encrypted for this place. `None` if it was not, or has been changed.
    pub(crate) fn open(&self, place: &[u8], record: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (&version, rest) = record.split_first()?;
        let (salt, body) = rest.split_first_chunk::<SALT_BYTES>()?;
        if version != RECORD_VERSION {
            return None;
        }
        let mut body = Zeroizing::new(body.to_vec());
        let opened = self.record_key(salt).ok()?.open_in_place(nonce(), Aad::from(place), &mut body).ok()?;
        let length = opened.len();
        body.truncate(length);
        Some(body)
    }

    fn record_key(&self, salt: &[u8; SALT_BYTES]) -> Result<LessSafeKey, KeysError> {
        let extracted = Salt::new(HKDF_SHA256, salt).extract(&self.0[..]);
        let key = extracted.expand(&[RECORD], &AES_256_GCM).map(UnboundKey::from);
        key.map(LessSafeKey::new).map_err(unspecified("key derivation failed"))
    }
}

/// The only nonce under a key that encrypts once.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandomness;

    #[test]
    fn records_open_at_their_place_only_and_no_bit_is_free() {
        let random = SeededRandomness::new(1);
        let master = MasterKey::draw(&random).unwrap();
        let record = master.seal(b"keys\0a", b"secret", &random).unwrap();
        assert_eq!(**master.open(b"keys\0a", &record).unwrap(), *b"secret");
        assert!(master.open(b"keys\0b", &record).is_none());
        assert!(MasterKey::draw(&random).unwrap().open(b"keys\0a", &record).is_none());
        for bit in 0..record.len() * 8 {
            let mut changed = record.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(master.open(b"keys\0a", &changed).is_none(), "bit {bit}");
        }
        for length in 0..record.len() {
            assert!(master.open(b"keys\0a", &record[..length]).is_none());
        }
        assert_ne!(master.seal(b"keys\0a", b"secret", &random).unwrap(), record, "another salt");
    }
}

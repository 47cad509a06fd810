//! The two keys of an owner, and what is public of them.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{SealError, hex};

/// Bytes of a content key, of a key-encryption key, and of an Ed25519 seed.
pub const KEY_BYTES: usize = 32;

/// What a fingerprint is derived for.
const FINGERPRINT: &[u8] = b"privet content key fingerprint v1";

/// The 256-bit key under which models are sealed. Whoever has it can read them; see [`SigningKey`] for what it cannot do.
///
/// It has no `Debug` and no `Clone`, is compared in constant time, and is wiped when it is dropped.
pub struct ContentKey(Box<Zeroizing<[u8; KEY_BYTES]>>);

impl ContentKey {
    /// A fresh one.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate() -> Result<ContentKey, SealError> {
        random().map(ContentKey)
    }

    /// From its 32 bytes. The caller wipes its own copy.
    ///
    /// # Errors
    /// If there are not 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<ContentKey, SealError> {
        copied("content key", bytes).map(ContentKey)
    }

    /// The key itself, for transport to whoever may have it.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// What tells this key from others, and says nothing else about it.
    pub fn fingerprint(&self) -> KeyFingerprint {
        let mut bytes = [0; KEY_BYTES];
        self.derive(&[], FINGERPRINT, &mut bytes);
        KeyFingerprint(bytes)
    }

    /// HKDF-SHA256 (RFC 5869) of the key.
    pub(crate) fn derive(&self, salt: &[u8], info: &[u8], out: &mut [u8; KEY_BYTES]) {
        derive(self.expose(), salt, info, out);
    }
}

impl ConstantTimeEq for ContentKey {
    fn ct_eq(&self, other: &ContentKey) -> subtle::Choice {
        self.expose().ct_eq(other.expose())
    }
}

impl PartialEq for ContentKey {
    fn eq(&self, other: &ContentKey) -> bool {
        self.ct_eq(other).into()
    }
}

impl Eq for ContentKey {}

/// A one-way value of a content key (HKDF-SHA256), by which a wrong key is noticed before it is used. Public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyFingerprint(#[serde(with = "hex")] [u8; 32]);

impl KeyFingerprint {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The owner's Ed25519 key. Models are accepted only with its signature, and it is never released: a [`ContentKey`] alone
/// does not make a model that others accept.
///
/// It has no `Debug` and no `Clone`, and is wiped when it is dropped.
pub struct SigningKey(Box<Zeroizing<[u8; KEY_BYTES]>>);

impl SigningKey {
    /// A fresh one.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate() -> Result<SigningKey, SealError> {
        random().map(SigningKey)
    }

    /// From its seed of 32 bytes (RFC 8032). The caller wipes its own copy.
    ///
    /// # Errors
    /// If there are not 32 bytes.
    pub fn from_slice(seed: &[u8]) -> Result<SigningKey, SealError> {
        copied("signing key", seed).map(SigningKey)
    }

    /// The seed, for the owner's file.
    pub(crate) fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// The public half.
    ///
    /// # Errors
    /// If the cryptographic library refuses the key.
    pub fn verifying_key(&self) -> Result<VerifyingKey, SealError> {
        let public = self.pair()?;
        let bytes = public.public_key().as_ref().try_into().map_err(|_| SealError::Crypto("Ed25519"))?;
        Ok(VerifyingKey(bytes))
    }

    /// An Ed25519 signature, 64 bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<[u8; 64], SealError> {
        let signature = self.pair()?.sign(message);
        signature.as_ref().try_into().map_err(|_| SealError::Crypto("Ed25519"))
    }

    fn pair(&self) -> Result<Ed25519KeyPair, SealError> {
        Ed25519KeyPair::from_seed_unchecked(self.expose()).map_err(|_| SealError::Crypto("Ed25519"))
    }
}

/// The public half of a [`SigningKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VerifyingKey(#[serde(with = "hex")] [u8; 32]);

impl VerifyingKey {
    /// From the 32 bytes of RFC 8032.
    pub fn from_bytes(bytes: [u8; 32]) -> VerifyingKey {
        VerifyingKey(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` is this key's for `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl FromStr for VerifyingKey {
    type Err = SealError;

    fn from_str(text: &str) -> Result<VerifyingKey, SealError> {
        hex::parse("verifying key", text).map(VerifyingKey)
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::text(&self.0))
    }
}

impl FromStr for KeyFingerprint {
    type Err = SealError;

    fn from_str(text: &str) -> Result<KeyFingerprint, SealError> {
        hex::parse("key fingerprint", text).map(KeyFingerprint)
    }
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::text(&self.0))
    }
}

/// HKDF-SHA256 of a key, 32 bytes.
pub(crate) fn derive(key: &[u8; KEY_BYTES], salt: &[u8], info: &[u8], out: &mut [u8; KEY_BYTES]) {
    struct Bytes32;
    impl KeyType for Bytes32 {
        fn len(&self) -> usize {
            KEY_BYTES
        }
    }
    let extracted = Salt::new(HKDF_SHA256, salt).extract(key);
    let info = [info];
    let filled = extracted.expand(&info, Bytes32).and_then(|okm| okm.fill(out));
    filled.expect("32 bytes are fewer than 255 blocks");
}

pub(crate) fn random() -> Result<Box<Zeroizing<[u8; KEY_BYTES]>>, SealError> {
    let mut bytes = Box::new(Zeroizing::new([0; KEY_BYTES]));
    aws_lc_rs::rand::fill(&mut bytes[..]).map_err(|_| SealError::Randomness)?;
    Ok(bytes)
}

pub(crate) fn copied(what: &'static str, bytes: &[u8]) -> Result<Box<Zeroizing<[u8; KEY_BYTES]>>, SealError> {
    if bytes.len() != KEY_BYTES {
        return Err(SealError::KeyLength { what, found: bytes.len() });
    }
    let mut own = Box::new(Zeroizing::new([0; KEY_BYTES]));
    own.copy_from_slice(bytes);
    Ok(own)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER as HEX;

    use super::*;

    static_assertions::assert_not_impl_any!(ContentKey: fmt::Debug, Clone, fmt::Display);
    static_assertions::assert_not_impl_any!(SigningKey: fmt::Debug, Clone, fmt::Display);

    #[test]
    fn keys_and_fingerprints_differ_and_read_back() {
        let (one, two) = (ContentKey::generate().unwrap(), ContentKey::generate().unwrap());
        assert!(one != two && one == ContentKey::from_slice(one.expose()).unwrap());
        assert_ne!(one.fingerprint(), two.fingerprint());
        assert_eq!(one.fingerprint().to_string().parse::<KeyFingerprint>().unwrap(), one.fingerprint());
        assert!(ContentKey::from_slice(&[0; 31]).is_err());
        let key = SigningKey::generate().unwrap();
        let public = key.verifying_key().unwrap();
        let signature = key.sign(b"message").unwrap();
        assert!(public.verifies(b"message", &signature) && !public.verifies(b"massage", &signature));
    }

    /// RFC 8032, section 7.1, test 1.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let seed = HEX.decode(b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = SigningKey::from_slice(&seed).unwrap();
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(key.verifying_key().unwrap().to_string(), public);
        assert!(HEX.encode(&key.sign(b"").unwrap()).starts_with("e5564300c360ac729086e2cc806e828a84877f1e"));
    }
}

//! Wrapped keys: a content key under a key-encryption key, for whoever keeps keys at rest.
//!
//! AES-256-GCM under a key derived (HKDF-SHA256) from the key-encryption key with a random salt, so that the nonce may be
//! constant. Key id and version are authenticated: a wrapped key cannot be passed off as another one.

use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use data_encoding::HEXLOWER_PERMISSIVE;
use zeroize::Zeroizing;

use crate::files::{self, PRIVATE, PUBLIC};
use crate::key::{derive, random};
use crate::owner::write_content_key;
use crate::{CONTENT_KEY_FILE, ContentKey, KEY_BYTES, KeyId, KeyVersion, RELEASE_FILE, Release, SealError};

/// What a wrapped key begins with, and its version.
const MAGIC: &[u8; 8] = b"PRIVWRAP";
const WRAP_VERSION: u16 = 1;
/// What keys are derived for.
const WRAP: &[u8] = b"privet wrapped key v1";
const SALT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// A wrapped key with the longest name has some 180 bytes.
const MAX_BYTES: u64 = 1 << 10;

/// A key that encrypts keys: 256 bits, from a file or a key-management system. No `Debug`, wiped when dropped.
pub struct WrappingKey(Box<Zeroizing<[u8; KEY_BYTES]>>);

impl WrappingKey {
    /// A fresh one.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate() -> Result<WrappingKey, SealError> {
        random().map(WrappingKey)
    }

    /// From its 32 bytes. The caller wipes its own copy.
    ///
    /// # Errors
    /// If there are not 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<WrappingKey, SealError> {
        crate::key::copied("key-encryption key", bytes).map(WrappingKey)
    }

    /// Reads a file of 32 bytes, or of 64 hexadecimal digits and perhaps a line break, that only its owner can read.
    ///
    /// # Errors
    /// If it is missing, anything else, or accessible to other users.
    pub fn read(path: &Path) -> Result<WrappingKey, SealError> {
        let bytes = files::read_secret(path, MAX_BYTES)?;
        if bytes.len() == KEY_BYTES {
            return WrappingKey::from_slice(&bytes);
        }
        let digits = bytes.trim_ascii_end();
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let decoded =
            digits.len() == 2 * KEY_BYTES && HEXLOWER_PERMISSIVE.decode_mut(digits, &mut *key).is_ok();
        if decoded {
            return WrappingKey::from_slice(&*key);
        }
        Err(SealError::file(
            path,
            format!(
                "expected a key-encryption key of 32 bytes or 64 hexadecimal digits, found {} bytes of something else; \
                 make one with privet key kek",
                bytes.len()
            ),
        ))
    }

    /// Writes it as 32 bytes, with mode 0600.
    ///
    /// # Errors
    /// If the file exists: keys are never overwritten. If the system fails.
    pub fn write(&self, path: &Path) -> Result<(), SealError> {
        files::create(path, &self.0[..], PRIVATE)
    }

    fn cipher(&self, salt: &[u8]) -> Result<LessSafeKey, SealError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        derive(&self.0, salt, WRAP, &mut key);
        let key = UnboundKey::new(&AES_256_GCM, &*key).map_err(|_| SealError::Crypto("AES-256-GCM"))?;
        Ok(LessSafeKey::new(key))
    }
}

/// A content key under a key-encryption key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which key it is.
    pub key_id: KeyId,
    /// Which of the keys of this name.
    pub key_version: KeyVersion,
    bytes: Vec<u8>,
}

impl WrappedKey {
    /// Wraps a key.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn wrap(
        key: &ContentKey,
        key_id: &KeyId,
        key_version: KeyVersion,
        kek: &WrappingKey,
    ) -> Result<WrappedKey, SealError> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(WRAP_VERSION.to_le_bytes());
        bytes.push(key_id.as_str().len() as u8);
        bytes.extend(key_id.as_str().as_bytes());
        bytes.extend(key_version.get().to_le_bytes());
        let mut salt = [0; SALT_BYTES];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| SealError::Randomness)?;
        bytes.extend(salt);
        let mut body = Zeroizing::new(*key.expose());
        let tag = kek.cipher(&salt)?.seal_in_place_separate_tag(nonce(), Aad::from(&bytes), &mut body[..]);
        let tag = tag.map_err(|_| SealError::Crypto("AES-256-GCM"))?;
        bytes.extend(*body);
        bytes.extend(tag.as_ref());
        Ok(WrappedKey { key_id: key_id.clone(), key_version, bytes })
    }

    /// The key, if `kek` is what it was wrapped with and nothing of it was changed.
    pub fn unwrap(&self, kek: &WrappingKey) -> Option<ContentKey> {
        let (aad, sealed) = self.bytes.split_at(self.bytes.len() - KEY_BYTES - TAG_BYTES);
        let salt = &aad[aad.len() - SALT_BYTES..];
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let key = kek.cipher(salt).ok()?.open_in_place(nonce(), Aad::from(aad), &mut sealed).ok()?;
        ContentKey::from_slice(key).ok()
    }

    /// Its bytes, for a file or a message.
    pub fn to_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// From its bytes; what they hold is verified by [`WrappedKey::unwrap`] only.
    ///
    /// # Errors
    /// If they are no wrapped key.
    pub fn from_bytes(bytes: &[u8]) -> Result<WrappedKey, SealError> {
        let fail = || SealError::Format("not a wrapped key of privet key wrap".to_owned());
        let (&[len], rest) = bytes
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.strip_prefix(&WRAP_VERSION.to_le_bytes()))
            .and_then(|rest| rest.split_first_chunk())
            .ok_or_else(fail)?;
        let (name, rest) = rest.split_at_checked(usize::from(len)).ok_or_else(fail)?;
        let key_id = std::str::from_utf8(name).map_err(|_| fail())?.parse()?;
        let (&version, rest) = rest.split_first_chunk().ok_or_else(fail)?;
        let key_version = KeyVersion::new(u32::from_le_bytes(version)).ok_or_else(fail)?;
        if rest.len() != SALT_BYTES + KEY_BYTES + TAG_BYTES {
            return Err(fail());
        }
        Ok(WrappedKey { key_id, key_version, bytes: bytes.to_vec() })
    }

    /// Writes it into a new file. It is no secret without its key-encryption key.
    ///
    /// # Errors
    /// If the file exists, or the system fails.
    pub fn write(&self, path: &Path) -> Result<(), SealError> {
        files::create(path, &self.bytes, PUBLIC)
    }

    /// Reads what [`WrappedKey::write`] wrote.
    ///
    /// # Errors
    /// If it is missing, or no wrapped key.
    pub fn read(path: &Path) -> Result<WrappedKey, SealError> {
        let bytes = files::read_bounded(path, MAX_BYTES)?;
        let wrong = |error| match error {
            SealError::Format(problem) => SealError::file(path, problem),
            other => SealError::file(path, other.to_string()),
        };
        WrappedKey::from_bytes(&bytes).map_err(wrong)
    }
}

/// Unwraps a key into a directory that opens models: content key and release file, which have to belong together.
///
/// # Errors
/// If the wrapped key is another than the release's, does not open, or the directory has keys already.
pub fn unwrap_into(dir: &Path, wrapped: &Path, kek: &Path, release: &Path) -> Result<Release, SealError> {
    let (found, owner) = (WrappedKey::read(wrapped)?, Release::read(release)?);
    if (&found.key_id, found.key_version) != (&owner.key_id, owner.key_version) {
        return Err(SealError::OtherKey {
            expected: format!("{} version {}", owner.key_id, owner.key_version),
            found: format!("{} version {}", found.key_id, found.key_version),
        });
    }
    let key = found
        .unwrap(&WrappingKey::read(kek)?)
        .ok_or_else(|| SealError::Wrapped { path: wrapped.to_owned(), kek: kek.to_owned() })?;
    if key.fingerprint() != owner.fingerprint {
        return Err(SealError::file(wrapped, "holds another key than that of the release file"));
    }
    for name in [CONTENT_KEY_FILE, RELEASE_FILE] {
        let path = dir.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(SealError::Exists { path });
        }
    }
    files::private_dir(dir)?;
    write_content_key(&dir.join(CONTENT_KEY_FILE), &key)?;
    owner.write(&dir.join(RELEASE_FILE))?;
    Ok(owner)
}

/// Every salt gives a key of its own, which encrypts once.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_not_impl_any!(WrappingKey: std::fmt::Debug, Clone);

    #[test]
    fn wrapped_keys_open_with_their_key_and_refuse_every_change() {
        let (kek, other) = (WrappingKey::generate().unwrap(), WrappingKey::generate().unwrap());
        let key = ContentKey::generate().unwrap();
        let id = "resnet".parse().unwrap();
        let wrapped = WrappedKey::wrap(&key, &id, KeyVersion::new(3).unwrap(), &kek).unwrap();
        let again = WrappedKey::from_bytes(wrapped.to_bytes()).unwrap();
        assert_eq!((&again.key_id, again.key_version.get()), (&id, 3));
        assert!(again.unwrap(&kek).unwrap() == key);
        assert!(again.unwrap(&other).is_none());
        let bytes = wrapped.to_bytes();
        let opens = |bytes: &[u8]| WrappedKey::from_bytes(bytes).is_ok_and(|w| w.unwrap(&kek).is_some());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.to_vec();
                changed[at] ^= 1 << bit;
                assert!(!opens(&changed), "bit {bit} of byte {at}");
            }
            assert!(!opens(&bytes[..at]), "{at} bytes");
        }
        assert!(!opens(&[bytes, &[0]].concat()));
    }
}

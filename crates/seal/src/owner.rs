//! An owner's directory: content key, signing key and release file.

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::files::{self, PRIVATE};
use crate::{
    ContentKey, KEY_BYTES, KeyId, KeyVersion, ModelId, RELEASE_FILE, Release, SealError, SigningKey,
};

/// Name of the content key's file in an owner's directory.
pub const CONTENT_KEY_FILE: &str = "content.key";
/// Name of the signing key's file in an owner's directory.
pub const SIGNING_KEY_FILE: &str = "signing.key";

/// Version of key files.
const KEY_FILE_VERSION: u16 = 1;
/// What a key file of either kind begins with.
const CONTENT_MAGIC: &[u8; 8] = b"PRIVCKEY";
const SIGNING_MAGIC: &[u8; 8] = b"PRIVSKEY";
/// Of SHA-256, at the end of a key file, against damage.
const CHECKSUM_BYTES: usize = 8;
/// Magic, version, key, checksum.
const KEY_FILE_BYTES: usize = 8 + 2 + KEY_BYTES + CHECKSUM_BYTES;

/// Both keys of a model's owner, and what is public of them.
pub struct OwnerKeys {
    /// Under which the model is sealed.
    pub content: ContentKey,
    /// By which it is signed.
    pub signing: SigningKey,
    /// What others may know.
    pub release: Release,
}

impl OwnerKeys {
    /// Fresh keys for a model, version 1 of this name.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate(key_id: KeyId, model_id: ModelId) -> Result<OwnerKeys, SealError> {
        OwnerKeys::new(ContentKey::generate()?, SigningKey::generate()?, model_id, key_id, KeyVersion::FIRST)
    }

    /// From two keys.
    ///
    /// # Errors
    /// If the cryptographic library refuses the signing key.
    pub fn new(
        content: ContentKey,
        signing: SigningKey,
        model_id: ModelId,
        key_id: KeyId,
        key_version: KeyVersion,
    ) -> Result<OwnerKeys, SealError> {
        let release = Release {
            model_id,
            key_id,
            key_version,
            verifying_key: signing.verifying_key()?,
            fingerprint: content.fingerprint(),
        };
        Ok(OwnerKeys { content, signing, release })
    }

    /// Writes the three files into `dir`, which is made if needed and closed to others (mode 0700); keys have mode 0600.
    ///
    /// # Errors
    /// If one of them is there already: keys are never overwritten. If `dir` is open to others, or the system fails.
    pub fn write(&self, dir: &Path) -> Result<(), SealError> {
        for name in [CONTENT_KEY_FILE, SIGNING_KEY_FILE, RELEASE_FILE] {
            let path = dir.join(name);
            if path.symlink_metadata().is_ok() {
                return Err(SealError::Exists { path });
            }
        }
        files::private_dir(dir)?;
        write_content_key(&dir.join(CONTENT_KEY_FILE), &self.content)?;
        write_key(&dir.join(SIGNING_KEY_FILE), SIGNING_MAGIC, self.signing.expose())?;
        self.release.write(&dir.join(RELEASE_FILE))
    }

    /// Reads what [`OwnerKeys::write`] wrote.
    ///
    /// # Errors
    /// If a file is missing, damaged or accessible to other users, or keys and release file do not belong together.
    pub fn read(dir: &Path) -> Result<OwnerKeys, SealError> {
        let (content, release) = read_content(dir)?;
        let path = dir.join(SIGNING_KEY_FILE);
        if !path.exists() {
            let problem = "there is no such file: these keys open models, and cannot seal them; the owner has the \
                           directory that can, which privet key new has made";
            return Err(SealError::file(&path, problem));
        }
        let signing = SigningKey::from_slice(&read_key(&path, SIGNING_MAGIC, "signing key")?[..])?;
        if signing.verifying_key()? != release.verifying_key {
            return Err(apart(&path));
        }
        Ok(OwnerKeys { content, signing, release })
    }
}

/// Reads what opening takes: the content key and the release file of a directory.
///
/// # Errors
/// As [`OwnerKeys::read`].
pub fn read_content(dir: &Path) -> Result<(ContentKey, Release), SealError> {
    let path = dir.join(RELEASE_FILE);
    if !path.exists() {
        let problem = "there is no such file; expected a directory that privet key new, key unwrap or keyserver key \
                       rotate has made";
        return Err(SealError::file(&path, problem));
    }
    let release = Release::read(&path)?;
    let path = dir.join(CONTENT_KEY_FILE);
    let content = read_content_key(&path)?;
    if content.fingerprint() != release.fingerprint {
        return Err(apart(&path));
    }
    Ok((content, release))
}

/// Reads a content key's file.
pub(crate) fn read_content_key(path: &Path) -> Result<ContentKey, SealError> {
    ContentKey::from_slice(&read_key(path, CONTENT_MAGIC, "content key")?[..])
}

/// Writes a content key's file; one that is there stays.
pub(crate) fn write_content_key(path: &Path, key: &ContentKey) -> Result<(), SealError> {
    write_key(path, CONTENT_MAGIC, key.expose())
}

fn apart(path: &Path) -> SealError {
    SealError::file(
        path,
        format!("does not belong to {RELEASE_FILE} next to it; restore both from one backup"),
    )
}

fn write_key(path: &Path, magic: &[u8; 8], key: &[u8; KEY_BYTES]) -> Result<(), SealError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES));
    bytes.extend(magic);
    bytes.extend(KEY_FILE_VERSION.to_le_bytes());
    bytes.extend(key);
    let sum = digest(&SHA256, &bytes);
    bytes.extend(&sum.as_ref()[..CHECKSUM_BYTES]);
    files::create(path, &bytes, PRIVATE)
}

fn read_key(path: &Path, magic: &[u8; 8], what: &str) -> Result<Box<Zeroizing<[u8; KEY_BYTES]>>, SealError> {
    let bytes = files::read_secret(path, KEY_FILE_BYTES as u64)?;
    let fail =
        |problem: &str| Err(SealError::file(path, format!("not a {what} of privet key new: {problem}")));
    if bytes.len() != KEY_FILE_BYTES {
        return fail(&format!("expected {KEY_FILE_BYTES} bytes, found {}", bytes.len()));
    }
    let (body, sum) = bytes.split_at(KEY_FILE_BYTES - CHECKSUM_BYTES);
    if body[..8] != magic[..] {
        return fail("it begins with something else");
    }
    let version = u16::from_le_bytes([body[8], body[9]]);
    if version != KEY_FILE_VERSION {
        return fail(&format!("expected version {KEY_FILE_VERSION}, found {version}"));
    }
    if !bool::from(digest(&SHA256, body).as_ref()[..CHECKSUM_BYTES].ct_eq(sum)) {
        return fail("its checksum is wrong: it is damaged; restore it from a backup");
    }
    let mut key = Box::new(Zeroizing::new([0; KEY_BYTES]));
    key.copy_from_slice(&body[10..]);
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn keys() -> OwnerKeys {
        OwnerKeys::generate("resnet".parse().unwrap(), ModelId::random().unwrap()).unwrap()
    }

    #[test]
    fn keys_read_back_are_closed_and_never_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a/owner");
        let keys = keys();
        keys.write(&dir).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        for (file, expected) in [(CONTENT_KEY_FILE, 0o600), (SIGNING_KEY_FILE, 0o600), (RELEASE_FILE, 0o644)]
        {
            assert_eq!(mode(&dir.join(file)), expected, "{file}");
        }
        let again = OwnerKeys::read(&dir).unwrap();
        assert!(again.content == keys.content && again.release == keys.release);
        assert!(matches!(keys.write(&dir), Err(SealError::Exists { .. })));
        let path = dir.join(CONTENT_KEY_FILE);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(OwnerKeys::read(&dir), Err(SealError::Mode { mode: 0o640, .. })));
    }

    #[test]
    fn damaged_and_mixed_up_keys_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let (one, two) = (home.path().join("one"), home.path().join("two"));
        keys().write(&one).unwrap();
        keys().write(&two).unwrap();
        for file in [CONTENT_KEY_FILE, SIGNING_KEY_FILE] {
            let path = one.join(file);
            let own = fs::read(&path).unwrap();
            fs::write(&path, fs::read(two.join(file)).unwrap()).unwrap();
            let error = OwnerKeys::read(&one).err().unwrap().to_string();
            assert!(error.contains("restore both"), "{error}");
            for at in 0..own.len() {
                let mut bytes = own.clone();
                bytes[at] ^= 1;
                fs::write(&path, &bytes).unwrap();
                assert!(OwnerKeys::read(&one).is_err(), "byte {at} of {file}");
                fs::write(&path, &own[..at]).unwrap();
                assert!(OwnerKeys::read(&one).is_err(), "{at} bytes of {file}");
            }
            fs::write(&path, &own).unwrap();
            assert!(OwnerKeys::read(&one).is_ok());
        }
    }
}

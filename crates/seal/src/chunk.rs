//! Keys of a file, and its chunks: AES-256-GCM, each bound to its file, entry, place and whether it is the last.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::{ContentKey, KEY_BYTES, SealError};

/// What keys are derived for, with the file's salt: to encrypt its chunks, and to recognise the content key.
const ENCRYPT: &[u8] = b"privet sealed model v1: chunks";
const COMMIT: &[u8] = b"privet sealed model v1: commitment";

/// Where a chunk belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) entry: u32,
    pub(crate) chunk: u64,
    pub(crate) is_last: bool,
}

/// The key of one file. A nonce is a place, so that none is used twice: a file's key is derived with a salt of its own, and
/// its writer goes through its places once.
pub(crate) struct FileKey {
    key: LessSafeKey,
    header: [u8; 32],
}

/// The value by which a file's content key is recognised. It also commits to the key: AES-GCM alone does not, and one chunk
/// could be made that opens under two keys.
pub(crate) fn commitment(content: &ContentKey, salt: &[u8; 32]) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    content.derive(salt, COMMIT, &mut bytes);
    bytes
}

impl FileKey {
    /// The key of the file with this salt and SHA-256 of prefix and header.
    pub(crate) fn new(content: &ContentKey, salt: &[u8; 32], header: [u8; 32]) -> Result<FileKey, SealError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        content.derive(salt, ENCRYPT, &mut key);
        let key = UnboundKey::new(&AES_256_GCM, &*key).map_err(|_| SealError::Crypto("AES-256-GCM"))?;
        Ok(FileKey { key: LessSafeKey::new(key), header })
    }

    /// Encrypts a chunk where it is; its tag.
    pub(crate) fn seal(&self, place: Place, chunk: &mut [u8]) -> Result<[u8; 16], SealError> {
        let aad = Aad::from(self.aad(place));
        let tag = self.key.seal_in_place_separate_tag(nonce(place), aad, chunk);
        let tag = tag.map_err(|_| SealError::Crypto("AES-256-GCM"))?;
        Ok(tag.as_ref().try_into().expect("16 bytes"))
    }

    /// Decrypts a chunk with its tag where it is; false if it is not what was sealed at this place.
    pub(crate) fn open(&self, place: Place, chunk: &mut [u8]) -> bool {
        self.key.open_in_place(nonce(place), Aad::from(self.aad(place)), chunk).is_ok()
    }

    /// Header hash 32 bytes, entry u32, chunk u64, last u8.
    fn aad(&self, place: Place) -> [u8; 45] {
        let mut aad = [0; 45];
        aad[..32].copy_from_slice(&self.header);
        aad[32..36].copy_from_slice(&place.entry.to_le_bytes());
        aad[36..44].copy_from_slice(&place.chunk.to_le_bytes());
        aad[44] = u8::from(place.is_last);
        aad
    }
}

/// Entry u32, chunk u64.
fn nonce(place: Place) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&place.entry.to_le_bytes());
    nonce[4..].copy_from_slice(&place.chunk.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

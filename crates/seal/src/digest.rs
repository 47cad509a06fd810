//! What names a sealed model.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::{SealError, hex};

/// What the owner signs, before the digest.
const STATEMENT: &[u8; 22] = b"privet sealed model v1";

/// SHA-256 of prefix, header and the digests of all chunks: names one sealed file and all that is in it. Public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealDigest(#[serde(with = "hex")] [u8; 32]);

impl SealDigest {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Of the bytes before the signature.
    pub(crate) fn of(front: &[u8]) -> SealDigest {
        SealDigest(digest(&SHA256, front).as_ref().try_into().expect("32 bytes"))
    }

    /// What is signed.
    pub(crate) fn statement(&self) -> [u8; 54] {
        let mut statement = [0; 54];
        statement[..22].copy_from_slice(STATEMENT);
        statement[22..].copy_from_slice(&self.0);
        statement
    }
}

impl FromStr for SealDigest {
    type Err = SealError;

    fn from_str(text: &str) -> Result<SealDigest, SealError> {
        hex::parse("digest of a sealed model", text).map(SealDigest)
    }
}

impl fmt::Display for SealDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::text(&self.0))
    }
}

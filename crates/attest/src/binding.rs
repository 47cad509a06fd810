//! What the 64 bytes of report data stand for: a public key, and a nonce where there is one.
//!
//! As in "Interoperable RA-TLS" of the Confidential Computing Consortium: report data is the SHA-256 of the *claims buffer*,
//! padded with zeros. The buffer is a CBOR map `{ "pubkey-hash": h'..', "nonce": h'..' }`, the first value of which holds the
//! CBOR array `[algorithm, hash]` over the DER of the key's SubjectPublicKeyInfo. Algorithms: 1 SHA-256, 7 SHA-384, 8 SHA-512.

use ciborium::Value;
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::error::AttestError;

/// Largest claims buffer that is read.
pub const MAX_CLAIMS_BUFFER_BYTES: usize = 4 << 10;
/// Largest nonce.
pub const MAX_NONCE_BYTES: usize = 1 << 10;

const WHAT: &str = "claims buffer";
const PUBKEY_HASH: &str = "pubkey-hash";
const NONCE: &str = "nonce";
const SHA256: u64 = 1;

/// A key and a nonce that evidence is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    algorithm: u64,
    hash: Vec<u8>,
    nonce: Option<Vec<u8>>,
}

impl Binding {
    /// Binds to a public key (DER of its SubjectPublicKeyInfo) and a nonce, if there is one.
    ///
    /// # Errors
    /// If the nonce is too long.
    pub fn new(spki: &[u8], nonce: Option<&[u8]>) -> Result<Self, AttestError> {
        if let Some(nonce) = nonce.filter(|nonce| nonce.len() > MAX_NONCE_BYTES) {
            let problem = format!("a nonce of {} bytes, at most {MAX_NONCE_BYTES} are allowed", nonce.len());
            return Err(AttestError::malformed(WHAT, problem));
        }
        Ok(Self { algorithm: SHA256, hash: Sha256::digest(spki).to_vec(), nonce: nonce.map(<[u8]>::to_vec) })
    }

    /// Reads a claims buffer. Claims of other names are ignored, as the specification says.
    ///
    /// # Errors
    /// If it is too large, not such a map, without a key's hash, or has a claim twice.
    pub fn decode(buffer: &[u8]) -> Result<Self, AttestError> {
        if buffer.len() > MAX_CLAIMS_BUFFER_BYTES {
            let problem = format!("{} bytes, at most {MAX_CLAIMS_BUFFER_BYTES} are allowed", buffer.len());
            return Err(AttestError::malformed(WHAT, problem));
        }
        let map = match cbor(WHAT, buffer)? {
            Value::Map(map) => map,
            _ => return Err(AttestError::malformed(WHAT, "expected a map")),
        };
        let claim = |name: &str| {
            let mut values =
                map.iter().filter(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value);
            let value = values.next();
            if values.next().is_some() {
                return Err(AttestError::malformed(WHAT, format!("{name} is there twice")));
            }
            let bytes = value.map(|v| v.as_bytes().ok_or_else(|| format!("{name} is not a byte string")));
            bytes.transpose().map_err(|problem| AttestError::malformed(WHAT, problem))
        };
        let entry =
            claim(PUBKEY_HASH)?.ok_or_else(|| AttestError::malformed(WHAT, "it has no pubkey-hash"))?;
        let nonce = claim(NONCE)?.cloned();
        let fields = match cbor("pubkey-hash", entry)? {
            Value::Array(fields) => fields,
            _ => return Err(AttestError::malformed("pubkey-hash", "expected an array")),
        };
        let [Value::Integer(algorithm), Value::Bytes(hash)] = fields.as_slice() else {
            return Err(AttestError::malformed("pubkey-hash", "expected an array of algorithm and hash"));
        };
        let algorithm = u64::try_from(*algorithm)
            .map_err(|_| AttestError::malformed("pubkey-hash", "negative algorithm"))?;
        Ok(Self { algorithm, hash: hash.clone(), nonce })
    }

    /// The claims buffer.
    pub fn encode(&self) -> Vec<u8> {
        let entry = Value::Array(vec![self.algorithm.into(), Value::Bytes(self.hash.clone())]);
        let mut map = vec![(PUBKEY_HASH.into(), Value::Bytes(to_cbor(&entry)))];
        map.extend(self.nonce.iter().map(|nonce| (NONCE.into(), Value::Bytes(nonce.clone()))));
        to_cbor(&Value::Map(map))
    }

    /// The report data that binds evidence to this.
    pub fn report_data(&self) -> [u8; 64] {
        report_data(&self.encode())
    }

    /// The nonce, if there is one.
    pub fn nonce(&self) -> Option<&[u8]> {
        self.nonce.as_deref()
    }

    /// Whether it is bound to this public key (DER of its SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// If it is not, or the hash is of an unknown kind.
    pub fn check_key(&self, spki: &[u8]) -> Result<(), AttestError> {
        let expected = match self.algorithm {
            SHA256 => Sha256::digest(spki).to_vec(),
            7 => Sha384::digest(spki).to_vec(),
            8 => Sha512::digest(spki).to_vec(),
            other => {
                return Err(AttestError::refused(
                    "key binding",
                    "SHA-256, SHA-384 or SHA-512",
                    format!("algorithm {other}"),
                ));
            }
        };
        if self.hash != expected {
            return Err(AttestError::refused("key binding", hex::encode(expected), hex::encode(&self.hash)));
        }
        Ok(())
    }

    /// Whether it has this nonce.
    ///
    /// # Errors
    /// If it has another one or none.
    pub fn check_nonce(&self, expected: &[u8]) -> Result<(), AttestError> {
        if self.nonce() != Some(expected) {
            let found = self.nonce().map_or("none".to_owned(), hex::encode);
            return Err(AttestError::refused("nonce", hex::encode(expected), found));
        }
        Ok(())
    }
}

/// Report data of a claims buffer: its SHA-256, padded with zeros.
pub fn report_data(claims_buffer: &[u8]) -> [u8; 64] {
    let mut data = [0; 64];
    data[..32].copy_from_slice(&Sha256::digest(claims_buffer));
    data
}

/// One CBOR value, with nothing after it.
pub(crate) fn cbor(what: &'static str, mut bytes: &[u8]) -> Result<Value, AttestError> {
    let value = ciborium::de::from_reader_with_recursion_limit(&mut bytes, 8);
    let value = value.map_err(|e| AttestError::malformed(what, format!("no CBOR: {e}")))?;
    if !bytes.is_empty() {
        return Err(AttestError::malformed(what, format!("{} bytes after the CBOR value", bytes.len())));
    }
    Ok(value)
}

pub(crate) fn to_cbor(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("encoding into memory does not fail");
    bytes
}

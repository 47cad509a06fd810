//! What an owner signs besides sealed models: statements, each of a kind, so that one of a kind is never taken for another's.

use crate::{SealError, SigningKey, VerifyingKey};

/// Of Ed25519.
pub const SIGNATURE_BYTES: usize = 64;

/// What every statement begins with. What is signed of a sealed model begins otherwise.
const STATEMENT: &[u8] = b"privet statement v1";

impl SigningKey {
    /// Signs a statement of a kind, which says what the bytes are, with their version: at most 255 bytes.
    ///
    /// # Errors
    /// If the cryptographic library refuses the key.
    ///
    /// # Panics
    /// If the kind is longer.
    pub fn sign_statement(&self, kind: &str, bytes: &[u8]) -> Result<[u8; SIGNATURE_BYTES], SealError> {
        self.sign(&statement(kind, bytes))
    }
}

impl VerifyingKey {
    /// Whether the owner of this key signed these bytes as a statement of this kind.
    ///
    /// # Panics
    /// If the kind is longer than 255 bytes.
    pub fn verifies_statement(&self, kind: &str, bytes: &[u8], signature: &[u8]) -> bool {
        self.verifies(&statement(kind, bytes), signature)
    }
}

/// Beginning, length of the kind u8, kind, bytes.
fn statement(kind: &str, bytes: &[u8]) -> Vec<u8> {
    let len = u8::try_from(kind.len()).expect("kinds are short");
    [STATEMENT, &[len], kind.as_bytes(), bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_of_one_kind_one_owner_and_its_bytes() {
        let key = SigningKey::from_slice(&[3; 32]).unwrap();
        let public = key.verifying_key().unwrap();
        let signature = key.sign_statement("stages", b"body").unwrap();
        assert!(public.verifies_statement("stages", b"body", &signature));
        for (kind, bytes) in
            [("stage", &b"sbody"[..]), ("stages", b"bodi"), ("other", b"body"), ("", b"body")]
        {
            assert!(!public.verifies_statement(kind, bytes, &signature), "{kind}");
        }
        assert!(!public.verifies_statement("stages", b"body", &signature[..63]));
        let other = SigningKey::from_slice(&[4; 32]).unwrap().verifying_key().unwrap();
        assert!(!other.verifies_statement("stages", b"body", &signature));
        // Neither is it the signature of the same bytes alone.
        assert!(!public.verifies(b"body", &signature));
    }
}

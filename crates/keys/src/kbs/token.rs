//! Attestation tokens: JWTs that say who was attested, signed by the server, valid as long as the session.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use data_encoding::BASE64URL_NOPAD as BASE64URL;
use kbs_types::TeePubKey;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::wire::CanonicalKey;
use crate::error::{KeysError, unspecified};

/// Longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 16 << 10;
const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;

/// Signs and checks tokens.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    issuer: String,
}

/// What is in a token.
pub(crate) struct Statement<'a> {
    pub(crate) session: &'a str,
    pub(crate) issued: u64,
    pub(crate) expires: u64,
    pub(crate) key: &'a TeePubKey,
    pub(crate) tee: &'a str,
    pub(crate) claims_digest: &'a str,
}

/// What is read of one.
#[derive(Serialize, Deserialize)]
struct Read {
    exp: u64,
    jti: String,
}

impl Signer {
    pub(crate) fn new(seed: &[u8; 32], issuer: &str) -> Result<Self, KeysError> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed).map_err(unspecified("no signing key could be made"))?;
        Ok(Self { pair, issuer: issuer.to_owned() })
    }

    fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    pub(crate) fn sign(&self, statement: &Statement<'_>) -> Result<String, KeysError> {
        let jwk: Value = json!({ "crv": "Ed25519", "kty": "OKP", "x": BASE64URL.encode(self.public()) });
        // Names in their order, so that the bytes do not depend on how serde_json was built.
        let claims = json!({
            "claims-digest": statement.claims_digest,
            "exp": statement.expires,
            "iat": statement.issued,
            "iss": self.issuer,
            "jti": statement.session,
            "jwk": jwk,
            "tee": statement.tee,
            "tee-pubkey": CanonicalKey::of(statement.key),
        });
        let signed = format!(
            "{}.{}",
            BASE64URL.encode(HEADER.as_bytes()),
            BASE64URL.encode(claims.to_string().as_bytes())
        );
        let signature = BASE64URL.encode(self.pair.sign(signed.as_bytes()).as_ref());
        Ok(format!("{signed}.{signature}"))
    }

    /// The session of a token that this server signed and that has not expired.
    pub(crate) fn session(&self, token: &str, now: u64) -> Option<String> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = BASE64URL.decode(signature.as_bytes()).ok()?;
        UnparsedPublicKey::new(&ED25519, self.public()).verify(signed.as_bytes(), &signature).ok()?;
        let (_, claims) = signed.split_once('.')?;
        let read: Read = serde_json::from_slice(&BASE64URL.decode(claims.as_bytes()).ok()?).ok()?;
        (now < read.exp).then_some(read.jti)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_this_servers_and_end() {
        let signer = Signer::new(&[1; 32], "https://keys.example").unwrap();
        let key = TeePubKey::AKP { alg: "a".to_owned(), public_key: "p".to_owned() };
        let statement =
            Statement { session: "s", issued: 10, expires: 20, key: &key, tee: "sgx", claims_digest: "cd" };
        let token = signer.sign(&statement).unwrap();
        assert_eq!(signer.session(&token, 19).as_deref(), Some("s"));
        assert_eq!(signer.session(&token, 20), None, "expired");
        assert_eq!(Signer::new(&[2; 32], "").unwrap().session(&token, 15), None, "another server's");
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(signer.session(std::str::from_utf8(&changed).unwrap(), 15), None, "character {at}");
        }
        for garbage in ["", ".", "..", "a.b.c", &"x".repeat(20_000)] {
            assert_eq!(signer.session(garbage, 15), None);
        }
    }
}

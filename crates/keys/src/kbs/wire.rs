//! Messages of the KBS protocol, version 0.4.0 of `confidential-containers/trustee`, `kbs/docs/kbs_attestation_protocol.md`.

use kbs_types::{Attestation, CompositeEvidence, HashAlgorithm, RuntimeData, Tee, TeePubKey};
use privet_attest::Evidence;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use data_encoding::{BASE64, BASE64URL_NOPAD as BASE64URL};

/// Versions of the protocol that are spoken: those of clients whose report data is [`report_data`].
pub const VERSIONS: [&str; 1] = ["0.4.0"];
/// Largest body of `/kbs/v0/auth`.
pub const MAX_REQUEST_BYTES: usize = 64 << 10;
/// Largest body of `/kbs/v0/attest`: evidence and collateral, in base64.
pub const MAX_ATTESTATION_BYTES: usize = 2 << 20;
/// Largest answer that a client reads.
pub const MAX_REPLY_BYTES: usize = 1 << 20;

/// Which hash binds evidence to [`RuntimeData`]. A challenge says so, as those of a KBS may.
pub const HASH: HashAlgorithm = HashAlgorithm::Sha384;
/// The key under which a challenge says so.
pub const SELECTED_HASH: &str = "selected-hash-algorithm";

/// The cookie that carries a session.
pub const COOKIE: &str = "kbs-session-id";

/// What `/kbs/v0/attest` answers.
#[derive(Serialize, Deserialize)]
pub struct Token {
    /// A JWT.
    pub token: String,
}

/// The signed 64 bytes of evidence for this key and nonce: SHA-384 of the canonical JSON (RFC 8785) of both and of additional
/// evidence, then zeros.
pub fn report_data(runtime: &RuntimeData, additional_evidence: &str) -> Option<[u8; 64]> {
    // Fields in the order of their names.
    #[derive(Serialize)]
    struct Bound<'a> {
        #[serde(rename = "additional-evidence")]
        additional_evidence: &'a str,
        nonce: &'a str,
        #[serde(rename = "tee-pubkey")]
        tee_pubkey: CanonicalKey<'a>,
    }
    let tee_pubkey = CanonicalKey::of(&runtime.tee_pubkey);
    let bound = Bound { additional_evidence, nonce: &runtime.nonce, tee_pubkey };
    let mut data = [0; 64];
    let digest = HASH.digest(&serde_json::to_vec(&bound).ok()?);
    data[..digest.len()].copy_from_slice(&digest);
    Some(data)
}

/// A public key whose fields are in the order of their names.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum CanonicalKey<'a> {
    Ec { alg: &'a str, crv: &'a str, kty: &'a str, x: &'a str, y: &'a str },
    Rsa { alg: &'a str, e: &'a str, kty: &'a str, n: &'a str },
    Akp { alg: &'a str, kty: &'a str, r#pub: &'a str },
}

impl<'a> CanonicalKey<'a> {
    pub(crate) fn of(key: &'a TeePubKey) -> Self {
        match key {
            TeePubKey::EC { crv, alg, x, y } => Self::Ec { alg, crv, kty: "EC", x, y },
            TeePubKey::RSA { alg, k_mod, k_exp } => Self::Rsa { alg, e: k_exp, kty: "RSA", n: k_mod },
            TeePubKey::AKP { alg, public_key } => Self::Akp { alg, kty: "AKP", r#pub: public_key },
        }
    }
}

/// The evidence in an attestation: of Privet's clients (`{"privet": base64url}`), or the bare quote of SGX and TDX clients of
/// Confidential Containers (`{"quote": base64}`).
pub fn evidence(tee: Tee, attestation: &Attestation) -> Result<Evidence, String> {
    let CompositeEvidence { primary_evidence, additional_evidence } = &attestation.tee_evidence;
    if !matches!(additional_evidence.as_str(), "" | "{}") {
        return Err(
            "additional_evidence: evidence of devices is not supported; expected an empty string".to_owned()
        );
    }
    let expected = match tee {
        Tee::Sgx => privet_attest::Tee::Sgx,
        Tee::Tdx => privet_attest::Tee::Tdx,
        Tee::Snp => privet_attest::Tee::Snp,
        Tee::Sample => privet_attest::Tee::Sample,
        other => return Err(format!("evidence of {other} is not supported; expected sgx, tdx or snp")),
    };
    let text = |name: &str| primary_evidence.get(name).and_then(Value::as_str);
    let found = if let Some(own) = text("privet") {
        let bytes = BASE64URL.decode(own.as_bytes()).map_err(|e| format!("primary_evidence.privet: {e}"))?;
        Evidence::decode(&bytes).map_err(|e| e.to_string())?
    } else if let (Some(quote), Tee::Sgx | Tee::Tdx) = (text("quote"), tee) {
        let bytes = BASE64.decode(quote.as_bytes()).map_err(|e| format!("primary_evidence.quote: {e}"))?;
        Evidence::new(expected, bytes).map_err(|e| e.to_string())?
    } else {
        return Err("primary_evidence: expected an object with privet or, for sgx and tdx, quote".to_owned());
    };
    if found.tee() != expected {
        return Err(format!("the request said {tee}, the evidence is of {}", found.tee()));
    }
    Ok(found)
}

/// The name of a kind of environment in the protocol, and evidence of it as Privet's clients send it.
pub fn primary_evidence(evidence: &Evidence) -> (Tee, Value) {
    let tee = match evidence.tee() {
        privet_attest::Tee::Sgx => Tee::Sgx,
        privet_attest::Tee::Tdx => Tee::Tdx,
        privet_attest::Tee::Snp => Tee::Snp,
        privet_attest::Tee::Sample => Tee::Sample,
    };
    (tee, serde_json::json!({ "privet": BASE64URL.encode(&evidence.encode()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python: json.dumps(.., sort_keys=True, separators=(",", ":")), hashlib.sha384.
    #[test]
    fn report_data_is_the_hash_of_canonical_json() {
        let runtime = RuntimeData {
            nonce: "bm9uY2U=".to_owned(),
            tee_pubkey: TeePubKey::EC {
                crv: "P-256".to_owned(),
                alg: "ECDH-ES+A256KW".to_owned(),
                x: "eA".to_owned(),
                y: "eQ".to_owned(),
            },
        };
        let text = concat!(
            r#"{"additional-evidence":"","nonce":"bm9uY2U=","tee-pubkey":{"alg":"ECDH-ES+A256KW","crv":"P-256","#,
            r#""kty":"EC","x":"eA","y":"eQ"}}"#
        );
        let data = report_data(&runtime, "").unwrap();
        assert_eq!(data[..48], HashAlgorithm::Sha384.digest(text.as_bytes()));
        assert_eq!(data[48..], [0; 16]);
    }
}

//! Evidence for one connection: made after the client has drawn a nonce, and bound to the channel that the client sees.
//!
//! The evidence in a certificate may be hours old. It shows that the key was made inside, not that the platform is still
//! what it was. So the worker makes evidence again for every connection: its report data is that of the claims
//! `{ "pubkey-hash": the certificate's key, "nonce": client's nonce ‖ exporter ‖ SHA-256 of the model's description }`, where the
//! exporter is that of the TLS connection (RFC 8446, section 7.5). Evidence that was made for another nonce, key, connection
//! or model has another hash.

use std::time::SystemTime;

use privet_attest::ratls::Attested;
use privet_attest::{AttestError, Attester, Binding, Evidence, Policy, Verifier, appraise};

use crate::wire::{MODEL_HASH_BYTES, NONCE_BYTES};

/// Label of the exporter.
pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL-privet-enclave-v1";
pub(crate) const EXPORTER_BYTES: usize = 32;

/// What the evidence of a connection is bound to.
pub(crate) struct Freshness<'a> {
    /// The worker's key: DER of its SubjectPublicKeyInfo.
    pub(crate) public_key: &'a [u8],
    pub(crate) nonce: [u8; NONCE_BYTES],
    pub(crate) exporter: [u8; EXPORTER_BYTES],
    /// Of what the worker says of its model: owner, id, version, digest, shapes.
    pub(crate) model: [u8; MODEL_HASH_BYTES],
}

impl Freshness<'_> {
    fn report_data(&self) -> Result<[u8; 64], AttestError> {
        let nonce = [self.nonce.as_slice(), &self.exporter, &self.model].concat();
        Ok(Binding::new(self.public_key, Some(&nonce))?.report_data())
    }

    /// Evidence for this connection.
    ///
    /// # Errors
    /// If none can be made here.
    pub(crate) fn attest(&self, attester: &dyn Attester) -> Result<Evidence, AttestError> {
        attester.evidence(&self.report_data()?)
    }

    /// Who is on the other side of this connection.
    ///
    /// # Errors
    /// If the evidence is not authentic, not for this connection, or not accepted by the policy.
    pub(crate) fn verify(
        &self,
        evidence: &Evidence,
        verifier: &dyn Verifier,
        policy: &Policy,
        at: SystemTime,
    ) -> Result<Attested, AttestError> {
        let claims = verifier.verify(evidence, at)?;
        if claims.report_data != self.report_data()? {
            return Err(AttestError::Refused {
                check: "evidence for this connection",
                expected: "report data of its key, our nonce, this channel and its model".to_owned(),
                found: "other report data: it was made for another connection or model".to_owned(),
            });
        }
        let verdict = appraise(&claims, policy);
        verdict.clone().into_result()?;
        Ok(Attested { claims, verdict })
    }
}

#[cfg(test)]
mod tests {
    use privet_attest::Verifiers;
    use privet_attest::sample::{AllowSampleInsecure, SampleAttester};

    use super::*;

    #[test]
    fn evidence_is_for_one_connection() {
        let allow = AllowSampleInsecure::from_flag(true).unwrap();
        let attester = SampleAttester::new(allow, [5; 32]);
        let verifier = Verifiers::default().allow_sample_insecure(true).unwrap();
        let policy = |measurement: &str| {
            let text = "version = 1\n[sample]\nallow_sample_insecure = true\n";
            Policy::parse(&format!("{text}measurement = [\"{}\"]\n", measurement.repeat(32))).unwrap()
        };
        let own = |public_key, nonce, exporter, model| Freshness {
            public_key,
            nonce: [nonce; NONCE_BYTES],
            exporter: [exporter; EXPORTER_BYTES],
            model: [model; MODEL_HASH_BYTES],
        };
        let evidence = own(b"key", 1, 2, 3).attest(&attester).unwrap();
        let verify = |freshness: Freshness<'_>, policy: &Policy| {
            freshness.verify(&evidence, &verifier, policy, SystemTime::UNIX_EPOCH).map(drop)
        };
        assert!(verify(own(b"key", 1, 2, 3), &policy("05")).is_ok());
        for other in [own(b"kex", 1, 2, 3), own(b"key", 0, 2, 3), own(b"key", 1, 3, 3), own(b"key", 1, 2, 4)]
        {
            let error = verify(other, &policy("05")).unwrap_err().to_string();
            assert!(error.contains("another connection"), "{error}");
        }
        assert!(matches!(verify(own(b"key", 1, 2, 3), &policy("06")), Err(AttestError::Appraisal(_))));
    }
}

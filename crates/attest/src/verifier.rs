//! Turning evidence into claims.

mod dcap;
mod snp;

use std::time::{SystemTime, UNIX_EPOCH};

use x509_cert::der::DateTime;

use crate::claims::Claims;
use crate::error::AttestError;
use crate::evidence::{Collateral, Evidence, Tee};
#[cfg(feature = "sample-attestation-insecure")]
use crate::sample::SampleVerifier;

pub use dcap::DcapVerifier;
pub use snp::{SnpRoot, SnpVerifier};

/// Checks that evidence is authentic and current. Whether it is of the right software is for [`crate::appraise`].
pub trait Verifier: Send + Sync {
    /// The claims of evidence that is authentic at this time.
    ///
    /// # Errors
    /// If it is malformed, forged, expired, from the future, revoked, or something that the verdict needs is missing.
    fn verify(&self, evidence: &Evidence, at: SystemTime) -> Result<Claims, AttestError>;
}

/// The verifiers of all kinds, with the vendors' roots. Development evidence is accepted only after
/// `accept_sample_insecure`, which exists with the feature `sample-attestation-insecure`.
#[derive(Debug)]
pub struct Verifiers {
    dcap: DcapVerifier,
    snp: SnpVerifier,
    #[cfg(feature = "sample-attestation-insecure")]
    sample: Option<SampleVerifier>,
}

impl Default for Verifiers {
    fn default() -> Self {
        Self::new(Collateral::default())
    }
}

impl Verifiers {
    /// With collateral of one's own. It goes before what comes with evidence: a peer could choose old collateral.
    pub fn new(collateral: Collateral) -> Self {
        Self {
            dcap: DcapVerifier::new(collateral.dcap.clone()),
            snp: SnpVerifier::new(collateral),
            #[cfg(feature = "sample-attestation-insecure")]
            sample: None,
        }
    }

    /// Accepts development evidence too (sample, INSECURE).
    #[cfg(feature = "sample-attestation-insecure")]
    #[must_use]
    pub fn accept_sample_insecure(mut self, allow: crate::sample::AllowSampleInsecure) -> Self {
        self.sample = Some(SampleVerifier::new(allow));
        self
    }
}

impl Verifier for Verifiers {
    fn verify(&self, evidence: &Evidence, at: SystemTime) -> Result<Claims, AttestError> {
        match evidence.tee() {
            Tee::Sgx | Tee::Tdx => self.dcap.verify(evidence, at),
            Tee::Snp => self.snp.verify(evidence, at),
            #[cfg(feature = "sample-attestation-insecure")]
            Tee::Sample => {
                let verifier = self.sample.as_ref().ok_or_else(|| AttestError::no_verifier(Tee::Sample))?;
                verifier.verify(evidence, at)
            }
            #[cfg(not(feature = "sample-attestation-insecure"))]
            Tee::Sample => Err(AttestError::no_verifier(Tee::Sample)),
        }
    }
}

/// A time as text, in UTC.
pub(crate) fn time_text(at: SystemTime) -> String {
    let time = at.duration_since(UNIX_EPOCH).ok().and_then(|since| DateTime::from_unix_duration(since).ok());
    time.map_or("a time outside 1970 to 9999".to_owned(), |time| time.to_string())
}

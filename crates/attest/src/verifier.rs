//! Turning evidence into claims.

mod dcap;
mod snp;

use std::time::SystemTime;

use crate::claims::Claims;
use crate::error::AttestError;
use crate::evidence::{Collateral, Evidence, Tee};
#[cfg(feature = "sample-attestation-insecure")]
use crate::sample::SampleVerifier;

pub use dcap::{DcapVerifier, check_dcap_collateral};
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
/// [`Verifiers::allow_sample_insecure`].
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

    /// Accepts development evidence too (sample, INSECURE), where a command's flag `--allow-sample-insecure` says so.
    ///
    /// # Errors
    /// If the flag is given, and this is a build without the feature `sample-attestation-insecure`.
    pub fn allow_sample_insecure(self, flag: bool) -> Result<Self, AttestError> {
        #[cfg(feature = "sample-attestation-insecure")]
        return Ok(Self {
            sample: crate::sample::AllowSampleInsecure::from_flag(flag).map(SampleVerifier::new),
            ..self
        });
        #[cfg(not(feature = "sample-attestation-insecure"))]
        return if flag { Err(AttestError::no_verifier(Tee::Sample)) } else { Ok(self) };
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

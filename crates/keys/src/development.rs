//! What attests this machine and verifies others; with development evidence (**sample, INSECURE**) only in builds with the
//! feature `sample-attestation-insecure`, and for those who ask for it.

use std::path::Path;
use std::sync::Arc;

use privet_attest::attester::{GRAMINE_DIR, TSM_REPORT_DIR, attester_at};
use privet_attest::verifier::Verifiers;
use privet_attest::{Attester, Collateral, Verifier};

use crate::error::KeysError;

/// Whether this build knows development evidence at all.
pub const SAMPLE_BUILD: bool = cfg!(feature = "sample-attestation-insecure");

/// Verifies evidence of all vendors, with collateral of one's own; and development evidence, if it is asked for.
///
/// # Errors
/// If that is asked for in a build without it.
pub fn verifier(collateral: Collateral, allow_sample_insecure: bool) -> Result<Arc<dyn Verifier>, KeysError> {
    let verifiers = Verifiers::new(collateral).allow_sample_insecure(allow_sample_insecure);
    Ok(Arc::new(verifiers.map_err(|e| KeysError::Attest(e.to_string()))?))
}

/// What attests this machine: Gramine's interface, or the kernel's; or a development attester, if it is asked for.
///
/// # Errors
/// If there is none; or if a development attester is asked for in a build without one.
pub fn machine_attester(allow_sample_insecure: bool) -> Result<Arc<dyn Attester>, KeysError> {
    if allow_sample_insecure {
        return sample_attester();
    }
    let attester = attester_at(Path::new(GRAMINE_DIR), Path::new(TSM_REPORT_DIR));
    attester.map(Arc::from).map_err(|e| KeysError::Attest(format!("{e}; {ADVICE}")))
}

/// For those who only want to try.
#[cfg(feature = "sample-attestation-insecure")]
const ADVICE: &str =
    "run it in one of them, or, for development, with --allow-sample-insecure: evidence that proves nothing";
#[cfg(not(feature = "sample-attestation-insecure"))]
const ADVICE: &str = "run it in one of them; for development there are builds with the cargo feature \
                      sample-attestation-insecure, which take --allow-sample-insecure: evidence that proves nothing";

#[cfg(feature = "sample-attestation-insecure")]
fn sample_attester() -> Result<Arc<dyn Attester>, KeysError> {
    use privet_attest::sample::{AllowSampleInsecure, SampleAttester};

    let allow = AllowSampleInsecure::from_flag(true).ok_or(KeysError::Internal("a flag that was given"))?;
    let attester = SampleAttester::of_this_program(allow).map_err(|e| KeysError::Attest(e.to_string()))?;
    Ok(Arc::new(attester))
}

#[cfg(not(feature = "sample-attestation-insecure"))]
fn sample_attester() -> Result<Arc<dyn Attester>, KeysError> {
    let problem = "--allow-sample-insecure: this build has no development evidence; it takes the cargo feature \
                   sample-attestation-insecure";
    Err(KeysError::Usage(problem.to_owned()))
}

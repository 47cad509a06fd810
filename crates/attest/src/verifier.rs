//! Turning evidence into claims.

use std::time::SystemTime;

use crate::claims::Claims;
use crate::error::AttestError;
use crate::evidence::Evidence;

/// Checks that evidence is authentic and current. Whether it is of the right software is for [`crate::appraise`].
pub trait Verifier: Send + Sync {
    /// The claims of evidence that is authentic at this time.
    ///
    /// # Errors
    /// If it is malformed, forged, expired, from the future, revoked, or something that the verdict needs is missing.
    fn verify(&self, evidence: &Evidence, at: SystemTime) -> Result<Claims, AttestError>;
}

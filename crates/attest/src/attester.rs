//! Producing evidence.

use crate::error::AttestError;
use crate::evidence::Evidence;

/// Something that can prove where it runs.
pub trait Attester: Send + Sync {
    /// Evidence with these 64 bytes in its signed part; [`crate::binding`] makes them of a key and a nonce.
    ///
    /// # Errors
    /// If the hardware's interface is missing, fails or gives something else.
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttestError>;
}

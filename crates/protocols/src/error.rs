//! What can go wrong while an engine runs.

use privet_net::NetError;
use privet_ring::RingError;

/// A value left the range that its wire declares.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "overflow in step {step} ({name}): a value needs {needed} bits, the wire is safe for {bits}; {advice}"
)]
pub struct Overflow {
    /// Index of the step.
    pub step: usize,
    /// Name of the model node.
    pub name: String,
    /// The offending value; no message shows it.
    pub value: i128,
    /// Signed bits it needs.
    pub needed: u32,
    /// Signed bits the wire has.
    pub bits: u32,
    /// What to do about it.
    pub advice: &'static str,
}

/// Why an engine stopped.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A value does not fit; only the cleartext engine can see this.
    #[error(transparent)]
    Overflow(#[from] Overflow),
    /// The peer or the connection failed.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Reading or writing one-time material failed.
    #[error("one-time material: {0}")]
    Material(#[source] std::io::Error),
    /// A message or chunk of material does not have the size the plan asks for.
    #[error("{what}: expected {expected} bytes, found {found}")]
    Size {
        /// What was read.
        what: String,
        /// Bytes the plan asks for.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// The operating system has no entropy to give.
    #[error("no randomness from the operating system: {0}")]
    Randomness(String),
    /// Inputs, weights or material do not belong to the plan.
    #[error("{0}")]
    Mismatch(String),
}

impl From<RingError> for ProtocolError {
    fn from(error: RingError) -> Self {
        match error {
            RingError::PackedLength { expected, found } => {
                Self::Size { what: "packed values".to_owned(), expected, found }
            }
            other => Self::Mismatch(other.to_string()),
        }
    }
}

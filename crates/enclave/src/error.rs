//! Everything that can go wrong with a worker, or with asking one.

use privet_attest::AttestError;
use privet_keys::KeysError;
use privet_seal::SealError;
use privet_split::SplitError;

use crate::wire::RefusalKind;

/// Why a worker ended, or did not answer. No variant ever holds a byte of a key, a weight, an input or an output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnclaveError {
    /// Evidence cannot be made, or is refused.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// The key cannot be had, or the worker cannot listen.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The sealed model is refused.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The model does not run.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// The evidence of the worker, or the channel that it is bound to, is refused.
    #[error("{peer} is not a worker that the policy accepts, and nothing was sent to it: {source}")]
    Untrusted {
        /// Who.
        peer: String,
        /// Why not.
        source: AttestError,
    },
    /// The other side refused.
    #[error("{peer} refused: {kind}: {detail}")]
    Refused {
        /// Who.
        peer: String,
        /// For which reason.
        kind: RefusalKind,
        /// In its words.
        detail: String,
    },
    /// The other side cannot be reached, or does not keep to the protocol.
    #[error("{peer}: {problem}")]
    Peer {
        /// Who.
        peer: String,
        /// What is wrong.
        problem: String,
    },
    /// A wait ended without what was waited for.
    #[error("{peer} did not answer within {seconds} s")]
    Deadline {
        /// Who.
        peer: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The worker serves another model than was asked for.
    #[error("{peer} serves {found}, expected {expected}; no input was sent to it: {remedy}")]
    OtherModel {
        /// Who.
        peer: String,
        /// What was asked for.
        expected: String,
        /// What it has.
        found: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The worker's evidence was verified too long ago.
    #[error("{peer} was verified more than {seconds} s ago; connect again, which verifies it again")]
    Stale {
        /// Who.
        peer: String,
        /// How long a verification holds.
        seconds: u64,
    },
    /// An input that the model does not take.
    #[error("input {name:?}: expected {expected}, found {found}")]
    Input {
        /// Its name.
        name: String,
        /// Element type and shape.
        expected: String,
        /// The same of what there is.
        found: String,
    },
    /// The key may no longer be used.
    #[error("the key may no longer be used: {0}")]
    KeyEnded(String),
    /// A model that this worker does not take.
    #[error("{0}")]
    Model(String),
    /// The operating system failed, or there is a bug.
    #[error("{0}")]
    Internal(&'static str),
}

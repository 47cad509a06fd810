//! Why evidence, a policy or a machine's attestation interface could not be used.

use std::path::PathBuf;

use crate::tee::Tee;
use crate::verdict::Verdict;

/// What went wrong, with what was expected and found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// Bytes that are not what they should be.
    #[error("malformed {what}: {problem}")]
    Malformed {
        /// What should have been there.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Evidence that is well-formed, but not authentic, or not at this time.
    #[error("the evidence is refused: {check}: expected {expected}, found {found}")]
    Refused {
        /// Which check failed.
        check: &'static str,
        /// What would have passed.
        expected: String,
        /// What was there.
        found: String,
    },
    /// Something that a verdict needs and nobody supplied.
    #[error("{what} is missing: {advice}")]
    Missing {
        /// What.
        what: &'static str,
        /// Where to get it.
        advice: String,
    },
    /// A policy that cannot be used.
    #[error("unusable policy: {0}")]
    Policy(String),
    /// Authentic evidence of something that a policy does not accept.
    #[error("the evidence is authentic, but the policy does not accept it: {}", .0.failures())]
    Appraisal(Box<Verdict>),
    /// The machine's attestation interface does not work.
    #[error("cannot attest with {}: {problem}", path.display())]
    Attester {
        /// File or directory of the interface.
        path: PathBuf,
        /// What failed and what to do.
        problem: String,
    },
    /// No verifier for this kind of evidence.
    #[error("evidence of {tee} is not accepted here{advice}")]
    NoVerifier {
        /// The kind.
        tee: Tee,
        /// What to do, starting with a separator, or empty.
        advice: &'static str,
    },
    /// TLS with attested certificates could not be set up.
    #[error("cannot set up TLS with an attested certificate: {0}")]
    Tls(String),
}

impl AttestError {
    pub(crate) fn no_verifier(tee: Tee) -> Self {
        let advice = match tee {
            Tee::Sample => {
                ": it proves nothing; for development, build with the feature sample-attestation-insecure and say --allow-sample-insecure"
            }
            Tee::Sgx | Tee::Tdx | Tee::Snp => "",
        };
        Self::NoVerifier { tee, advice }
    }

    pub(crate) fn malformed(what: &'static str, problem: impl ToString) -> Self {
        Self::Malformed { what, problem: problem.to_string() }
    }

    pub(crate) fn refused(check: &'static str, expected: impl ToString, found: impl ToString) -> Self {
        Self::Refused { check, expected: expected.to_string(), found: found.to_string() }
    }
}

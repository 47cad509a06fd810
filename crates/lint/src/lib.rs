//! Findings about files that say what is trusted: attestation policies, policies of keys, manifests. All of them have the same
//! degrees.

#![forbid(unsafe_code)]

use std::fmt;

use serde::Serialize;

/// How bad it is. Ordered: the worst is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is protected: the host gets it, or anyone is accepted.
    Insecure,
    /// More is accepted, or less is said, than should be without a reason.
    Weak,
    /// Worth knowing.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Insecure => "INSECURE",
            Self::Weak => "weak",
            Self::Note => "note",
        })
    }
}

/// A finding about a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lint {
    /// How bad it is.
    pub severity: Severity,
    /// Which rule.
    pub rule: String,
    /// Why, and what to do.
    pub message: String,
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.severity, self.rule, self.message)
    }
}

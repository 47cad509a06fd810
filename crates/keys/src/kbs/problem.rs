//! Refusals, as a KBS words them.

use kbs_types::ErrorInformation;

/// Why a request was refused: the last part of `type` in the JSON of an error (RFC 7807).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Evidence, nonce, cookie or key are not accepted.
    AttestationError,
    /// No session or token came with the request.
    TokenNotFound,
    /// A token that is not valid any more, or never was.
    TokenVerifierError,
    /// There is such a key, and who asks may not have it.
    PolicyDeny,
    /// Not a path of a resource, or of one that there is not.
    InvalidRequestPath,
    /// JSON that is not what it should be.
    SerdeError,
    /// A body that is too long.
    PayloadTooLarge,
    /// Too many requests or sessions.
    TooManyRequests,
    /// A method that this path does not have.
    MethodNotAllowed,
    /// Something that failed here.
    Internal,
    /// Something that took too long here.
    Deadline,
}

impl Problem {
    /// Its name in `type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::AttestationError => "AttestationError",
            Self::TokenNotFound => "TokenNotFound",
            Self::TokenVerifierError => "TokenVerifierError",
            Self::PolicyDeny => "PolicyDeny",
            Self::InvalidRequestPath => "InvalidRequestPath",
            Self::SerdeError => "SerdeError",
            Self::PayloadTooLarge => "PayloadTooLarge",
            Self::TooManyRequests => "TooManyRequests",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::Internal => "PluginInternalError",
            Self::Deadline => "Deadline",
        }
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::AttestationError | Self::TokenNotFound | Self::TokenVerifierError | Self::SerdeError => 401,
            Self::PolicyDeny => 403,
            Self::InvalidRequestPath => 404,
            Self::MethodNotAllowed => 405,
            Self::PayloadTooLarge => 413,
            Self::TooManyRequests => 429,
            Self::Internal => 500,
            Self::Deadline => 503,
        }
    }
}

/// A refusal, with words for whoever is refused. They never depend on a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Of which kind.
    pub problem: Problem,
    /// In words.
    pub detail: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(problem: Problem, detail: impl Into<String>) -> Self {
        Self { problem, detail: detail.into() }
    }

    /// Something that failed here, of which others need not know more.
    pub fn internal() -> Self {
        Self::new(Problem::Internal, "the server failed; its operator finds more in its log")
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let error_type =
            format!("https://github.com/confidential-containers/kbs/errors/{}", self.problem.name());
        let information = ErrorInformation { error_type, detail: self.detail.clone() };
        serde_json::to_vec(&information).unwrap_or_default()
    }
}

//! Exit codes and the one message that goes with them.

use std::fmt;
use std::process::ExitCode;

use privet::attest::AttestError;
use privet::enclave::EnclaveError;
use privet::input::InputError;
use privet::keys::KeysError;
use privet::manifest::ManifestError;
use privet::model::ModelError;
use privet::output::OutputError;
use privet::seal::SealError;
use privet::setup::SetupError;
use privet::split::SplitError;
use privet::{ConfigError, Error, NetError, ProtocolError};

use crate::show::printable;

/// Shown under `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    internal error, or the operating system failed
  2    wrong usage
  3    a model, input, configuration or state file is missing, wrong or not ready
  4    a peer could not be reached, failed, or refused; evidence is refused
  5    a deadline passed
  6    the private result differs from the cleartext result
  130  interrupted";

/// Exit codes, as in [`EXIT_CODES`]; clap exits with 2 by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Internal = 1,
    Usage = 2,
    Input = 3,
    Peer = 4,
    Deadline = 5,
    Mismatch = 6,
    Interrupted = 130,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// An error of the command itself, with its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// Empty where a child has said it already.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn error(code: Code, message: impl Into<String>) -> anyhow::Error {
        Self { code, message: message.into() }.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Code {
    /// The code of a child's exit status, `Internal` if it is none of ours.
    pub(crate) fn from_status(status: Option<i32>) -> Self {
        let all = [Self::Usage, Self::Input, Self::Peer, Self::Deadline, Self::Mismatch, Self::Interrupted];
        all.into_iter().find(|&c| Some(c as i32) == status).unwrap_or(Self::Internal)
    }

    /// The code that tells most about an error.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(Self::of_link).unwrap_or(Self::Internal)
    }

    fn of_link(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return Some(failure.code);
        }
        if let Some(error) = error.downcast_ref::<Error>() {
            return Some(Self::of_library(error));
        }
        if let Some(error) = error.downcast_ref::<ModelError>() {
            return Some(Self::of_model(error));
        }
        if error.is::<ConfigError>() || error.is::<InputError>() || error.is::<OutputError>() {
            return Some(Self::Input);
        }
        if let Some(error) = error.downcast_ref::<SplitError>() {
            return Some(Self::of_split(error));
        }
        if let Some(error) = error.downcast_ref::<AttestError>() {
            return Some(Self::of_attestation(error));
        }
        if let Some(error) = error.downcast_ref::<SealError>() {
            return Some(Self::of_seal(error));
        }
        if let Some(error) = error.downcast_ref::<ManifestError>() {
            return Some(match error {
                ManifestError::Options(_) => Self::Usage,
                _ => Self::Input,
            });
        }
        if let Some(error) = error.downcast_ref::<KeysError>() {
            return Some(Self::of_keys(error));
        }
        if let Some(error) = error.downcast_ref::<EnclaveError>() {
            return Some(Self::of_enclave(error));
        }
        match error.downcast_ref::<SetupError>() {
            Some(SetupError::Identity(_)) => Some(Self::Internal),
            Some(
                SetupError::Address { .. }
                | SetupError::SameAddress { .. }
                | SetupError::Name { .. }
                | SetupError::NoClient,
            ) => Some(Self::Usage),
            Some(_) => Some(Self::Input),
            None => None,
        }
    }

    fn of_library(error: &Error) -> Self {
        match error {
            Error::Net(error) | Error::Protocol(ProtocolError::Net(error)) => Self::of_net(error),
            Error::Model(error) => Self::of_model(error),
            Error::Config(_)
            | Error::Input(_)
            | Error::Output(_)
            | Error::Plan(_)
            | Error::Store(_)
            | Error::NotReady(_)
            | Error::Protocol(
                ProtocolError::Overflow(_) | ProtocolError::Material(_) | ProtocolError::Mismatch(_),
            ) => Self::Input,
            Error::Randomness(_) | Error::Protocol(ProtocolError::Randomness(_)) => Self::Internal,
            Error::Peer { .. } | Error::Protocol(_) => Self::Peer,
        }
    }

    fn of_model(error: &ModelError) -> Self {
        match error {
            ModelError::Options(_) => Self::Usage,
            _ => Self::Input,
        }
    }

    fn of_attestation(error: &AttestError) -> Self {
        match error {
            AttestError::Refused { .. } | AttestError::Appraisal(_) | AttestError::NoVerifier { .. } => {
                Self::Peer
            }
            AttestError::Attester { .. } | AttestError::Tls(_) => Self::Internal,
            _ => Self::Input,
        }
    }

    fn of_seal(error: &SealError) -> Self {
        match error {
            SealError::Interrupted => Self::Interrupted,
            SealError::Randomness | SealError::Crypto(_) | SealError::Memory { .. } => Self::Internal,
            _ => Self::Input,
        }
    }

    fn of_split(error: &SplitError) -> Self {
        match error {
            SplitError::Parts { .. } | SplitError::PartsInMemory { .. } | SplitError::Memory { .. } => {
                Self::Usage
            }
            SplitError::Kernel(_) => Self::Internal,
            SplitError::Interrupted => Self::Interrupted,
            SplitError::Seal(error) => Self::of_seal(error),
            _ => Self::Input,
        }
    }

    fn of_keys(error: &KeysError) -> Self {
        match error {
            KeysError::Refused { .. } | KeysError::Peer { .. } => Self::Peer,
            KeysError::Deadline { .. } => Self::Deadline,
            KeysError::Attest(_) | KeysError::Internal(_) | KeysError::Listen { .. } => Self::Internal,
            _ => Self::Input,
        }
    }

    fn of_enclave(error: &EnclaveError) -> Self {
        match error {
            EnclaveError::Attest(error) => Self::of_attestation(error),
            EnclaveError::Keys(error) => Self::of_keys(error),
            EnclaveError::Seal(error) => Self::of_seal(error),
            EnclaveError::Split(error) => Self::of_split(error),
            EnclaveError::Untrusted { .. }
            | EnclaveError::Refused { .. }
            | EnclaveError::Peer { .. }
            | EnclaveError::OtherModel { .. }
            | EnclaveError::KeyEnded(_) => Self::Peer,
            EnclaveError::Deadline { .. } => Self::Deadline,
            EnclaveError::Input { .. } | EnclaveError::Model(_) => Self::Input,
            _ => Self::Internal,
        }
    }

    fn of_net(error: &NetError) -> Self {
        match error {
            NetError::Timeout { .. } => Self::Deadline,
            NetError::Identity { .. } => Self::Input,
            NetError::Listen { .. } => Self::Internal,
            _ => Self::Peer,
        }
    }
}

/// `error: ..` and its causes, without repeating what an outer message already says.
pub(crate) fn message(error: &anyhow::Error) -> String {
    printable(&format!("error: {}", chain(error, "\n  caused by: ")))
}

/// An error and its causes as a part of another message.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    chain(error, ": ")
}

fn chain(error: &anyhow::Error, separator: &str) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(separator);
            text.push_str(&cause);
        }
    }
    text
}

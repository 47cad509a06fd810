//! Everything that can go wrong with stored, released and leased keys.

use std::io;
use std::path::{Path, PathBuf};

use privet_seal::{KeyId, SealError};

use crate::kbs::Problem;

/// Why a store, a policy, a server, a cache or a fetch failed. No variant ever holds a byte of a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// A file or directory cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was expected and found, and what to do.
        problem: String,
    },
    /// Another process has the store open.
    #[error(
        "{} is in use by another process; if that is not a `privet keyserver serve` of this directory, wait for it \
         or stop it",
        path.display()
    )]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// The database failed, or holds what it should not.
    #[error("{}: {problem}", path.display())]
    Store {
        /// The database.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The master key cannot be had.
    #[error("master key: {0}")]
    Master(String),
    /// A name or option that the caller gave.
    #[error("{0}")]
    Usage(String),
    /// There is no such key.
    #[error("no key {0}; `privet keyserver key list` names those that there are")]
    NoKey(KeyId),
    /// A key of this name is there already.
    #[error("there is a key {0} already; `key rotate` adds a version to it, a new name makes another key")]
    KeyExists(KeyId),
    /// An owner's key or release file cannot be used.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A policy file cannot be used.
    #[error("policy {name}: {problem}")]
    Policy {
        /// The file, or the model.
        name: String,
        /// What was expected and found.
        problem: String,
    },
    /// The audit log is not what was written.
    #[error("the audit log has been changed: {0}")]
    Audit(String),
    /// The other side refused.
    #[error("{peer} refused: {kind}: {detail}")]
    Refused {
        /// Who.
        peer: String,
        /// The last part of the error's type, as in [`crate::kbs::Problem`].
        kind: String,
        /// In words, from the other side.
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
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", advice(source))]
    Listen {
        /// Which.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// A wait ended without what was waited for.
    #[error("{peer} did not answer within {seconds} s")]
    Deadline {
        /// Who.
        peer: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Evidence could not be made here; the text says with what.
    #[error("{0}")]
    Attest(String),
    /// The operating system or the cryptographic library failed.
    #[error("{0}")]
    Internal(&'static str),
}

impl KeysError {
    /// Whether the other side has decided against it, rather than failed: asking again does not help.
    pub fn is_final(&self) -> bool {
        let names = [Problem::PolicyDeny.name(), Problem::InvalidRequestPath.name()];
        matches!(self, Self::Refused { kind, .. } if names.contains(&kind.as_str()))
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> KeysError + '_ {
        move |source| KeysError::Io { path: path.to_owned(), source }
    }

    /// As [`KeysError::io`]; a file that is not there is named with where it comes from.
    pub(crate) fn missing<'a>(path: &'a Path, advice: &'a str) -> impl FnOnce(io::Error) -> KeysError + 'a {
        move |source| match source.kind() {
            io::ErrorKind::NotFound => KeysError::file(path, format!("not found; {advice}")),
            _ => KeysError::Io { path: path.to_owned(), source },
        }
    }

    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> KeysError {
        KeysError::File { path: path.to_owned(), problem: problem.into() }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process listens there: stop it, or give another --listen",
        io::ErrorKind::AddrNotAvailable => "; this is not an address of this machine: give another --listen",
        io::ErrorKind::PermissionDenied => "; ports below 1024 take more rights: give another --listen",
        _ => "",
    }
}

/// An error of the cryptographic library, which says no more than that it failed.
pub(crate) fn unspecified<E>(what: &'static str) -> impl FnOnce(E) -> KeysError {
    move |_| KeysError::Internal(what)
}

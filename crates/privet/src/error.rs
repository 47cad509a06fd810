//! What the library can fail with; the command line maps it to exit codes.

use std::io::ErrorKind;
use std::path::PathBuf;

use privet_net::NetError;
use privet_plan::PlanError;
use privet_protocols::ProtocolError;

use crate::config::ConfigError;
use crate::input::InputError;
use crate::model::ModelError;
use crate::output::OutputError;

/// Any failure of a party or a front end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A party's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A model or its files.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An input file.
    #[error(transparent)]
    Input(#[from] InputError),
    /// An output file.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A plan from a file or a peer.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The peer or the connection.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The protocol engine.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// This party's stored state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The peer sent something that makes no sense at this point.
    #[error("{peer}: {problem}")]
    Peer {
        /// Who.
        peer: String,
        /// What was expected and found.
        problem: String,
    },
    /// There is nothing to run with.
    #[error("{0}")]
    NotReady(String),
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system: {0}")]
    Randomness(String),
}

/// What is wrong with a party's state directory.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system failed a call on a file.
    #[error("{}: {source}{}", path.display(), advice(source.kind()))]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The database of a state directory.
    #[error("{}: {problem}", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What it says, and what to do.
        problem: String,
    },
    /// A file of shares is not what it should be.
    #[error("{}: {problem}", path.display())]
    Share {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// A bundle file is not what it should be.
    #[error("{}: {problem}", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
}

/// What to do about a file that cannot be written, starting with a separator, or nothing.
fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; make room there and run the same command again: what is stored stays usable"
        }
        ErrorKind::FileTooLarge => {
            "; raise the limit on the size of files (ulimit -f) and run the same command again: what is stored stays usable"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; it has to be readable and writable for this user"
        }
        _ => "",
    }
}

impl StoreError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

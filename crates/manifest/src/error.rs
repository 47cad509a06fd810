//! Why a manifest could not be written or read.

use std::path::{Path, PathBuf};

/// What went wrong, with what was expected and found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// A file could not be read.
    #[error("cannot read {}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A program or library that Gramine could not run.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Program {
        /// Which.
        path: PathBuf,
        /// What would do.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A library that a program needs and that is nowhere.
    #[error("{} needs the library {library}, which is in none of {searched}; say where with --library-path", path.display())]
    Library {
        /// The program or library that needs it.
        path: PathBuf,
        /// Its name.
        library: String,
        /// Directories.
        searched: String,
    },
    /// Options that contradict each other or that no manifest can say.
    #[error("{0}")]
    Options(String),
    /// Not TOML, or too large.
    #[error("not a manifest: line {line}: {problem}")]
    Syntax {
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

pub(crate) fn io(path: &Path, error: std::io::Error) -> ManifestError {
    ManifestError::Io { path: path.to_owned(), error }
}

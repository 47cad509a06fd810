//! A party's durable state: which one-time material it holds, which it has used, and what it agreed with whom.
//!
//! Small facts live in an embedded database (every commit is synced to disk, or in a journal next to it), material in one file per
//! bundle. A bundle is burnt in the database before the first message that depends on it leaves, and never comes back.

mod bundle;
mod database;
mod journal;
mod material;
mod sessions;

use std::fs;
use std::path::{Path, PathBuf};

use privet_ring::prg::Seed;

use crate::error::{Error, StoreError};
use crate::files;

pub(crate) use bundle::{BundleHeader, BundleId, BundleReader, BundleWriter, EpochId, Prefetch};
pub(crate) use database::{Database, Transaction};
pub(crate) use material::{Material, Purpose, Status};
pub(crate) use sessions::{Rollback, Sessions};

/// Creates a directory (and its parents) that only its owner can enter.
pub(crate) fn private_dir(path: &Path) -> Result<(), StoreError> {
    files::private_dir(path).map_err(StoreError::io(path))
}

/// [`private_dir`], cleared of what a crash has left half written.
pub(crate) fn swept_dir(path: &Path) -> Result<(), StoreError> {
    private_dir(path)?;
    files::sweep(path).map_err(StoreError::io(path))
}

/// Writes a file that only its owner can read, durably and atomically.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    files::write(path, bytes, files::PRIVATE).map_err(StoreError::io(path))
}

/// Makes renames and removals in a directory durable.
fn sync_dir(path: &Path) -> Result<(), StoreError> {
    files::sync_dir(path).map_err(StoreError::io(path))
}

/// Where tests let the process die; nothing without the feature `audit`.
pub(crate) fn crash_point(name: &'static str) {
    #[cfg(feature = "audit")]
    privet_protocols::masked::audit::place(name);
    #[cfg(not(feature = "audit"))]
    let _ = name;
}

/// A fresh seed, or the reason why the system has none to give.
pub(crate) fn fresh_seed() -> Result<Seed, Error> {
    Seed::random().map_err(|e| Error::Randomness(e.to_string()))
}

/// The whole of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(StoreError::io(path))
}

/// Where a party's database lives.
pub(crate) fn database_path(state: &Path) -> PathBuf {
    state.join("state.redb")
}

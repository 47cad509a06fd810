//! Temporary directories with keys in them, which have to go even when their process was killed.
//!
//! A run holds a lock on its directory; the kernel lets go of it however the process ends. The next run removes directories
//! that nobody holds.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;
use nix::unistd::geteuid;
use tempfile::TempDir;

const PREFIX: &str = "privet-run-";

/// A temporary directory that goes when it is dropped, or at the next run.
pub(crate) struct Scratch {
    dir: TempDir,
    _lock: File,
}

impl Scratch {
    /// A new directory, after those of killed runs have been removed.
    pub(crate) fn new() -> anyhow::Result<Self> {
        sweep(&std::env::temp_dir());
        let make = || loop {
            let dir = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
            let lock = File::open(dir.path())?;
            lock.lock()?;
            // Between both calls another run may have taken it for a dead one's.
            if dir.path().exists() {
                return Ok(Self { dir, _lock: lock });
            }
        };
        let made: std::io::Result<Self> = make();
        made.context("cannot make a temporary directory")
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Removes it.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        self.dir.close().context("cannot remove the temporary directory")
    }
}

/// Removes what killed runs of this user have left in `dir`. Whatever cannot be removed stays: it is not this run's concern.
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        // Of a link this is the link's own metadata.
        let is_own = |m: fs::Metadata| m.is_dir() && m.uid() == geteuid().as_raw();
        if !is_ours || !entry.metadata().is_ok_and(is_own) {
            continue;
        }
        let Ok(lock) = File::open(entry.path()) else { continue };
        match lock.try_lock() {
            Ok(()) => drop(fs::remove_dir_all(entry.path())),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_swept_up() {
        let home = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = home.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("identity.key"), "secret").unwrap();
            path
        };
        let (dead, live, other) = (make("privet-run-dead"), make("privet-run-live"), make("private-run"));
        std::os::unix::fs::symlink(&other, home.path().join("privet-run-link")).unwrap();
        let held = File::open(&live).unwrap();
        held.lock().unwrap();
        sweep(home.path());
        assert!(!dead.exists() && live.join("identity.key").exists() && other.join("identity.key").exists());
        drop(held);
        sweep(home.path());
        assert!(!live.exists() && other.join("identity.key").exists());
    }
}

//! Files that appear whole or not at all, and key files that only their owner can read.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::SealError;

/// Mode of files that only their owner may read.
pub(crate) const PRIVATE: u32 = 0o600;
/// Mode of files that everyone may read.
pub(crate) const PUBLIC: u32 = 0o644;

/// Makes a directory that only its owner can enter; one that is there stays as it is.
pub(crate) fn private_dir(path: &Path) -> Result<(), SealError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(SealError::write(path))
}

/// An unfinished file next to `path`, which only its owner can read, and which is removed unless it is [`publish`]ed.
pub(crate) fn temporary(path: &Path) -> Result<NamedTempFile, SealError> {
    let dir = directory(path);
    if !dir.is_dir() {
        return Err(SealError::file(path, format!("there is no directory {}; make it first", dir.display())));
    }
    // Temporary files are created with mode 0600. Their name would say nothing to who reads the error.
    tempfile::Builder::new()
        .prefix(".privet-")
        .tempfile_in(dir)
        .map_err(|e| SealError::write(path)(e.kind().into()))
}

/// A file whose next write fails once `stop` is set.
pub(crate) struct Stoppable<'a, W> {
    pub(crate) file: &'a mut W,
    pub(crate) stop: &'a AtomicBool,
}

impl<W: Write> Write for Stoppable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Not `Interrupted`, after which `write_all` tries again.
        if self.stop.load(Ordering::SeqCst) { Err(ErrorKind::Other.into()) } else { self.file.write(bytes) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl<W: Seek> Seek for Stoppable<'_, W> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(to)
    }
}

/// Makes a file durable and gives it its own name and mode, in place of a file that has this name.
pub(crate) fn publish(file: NamedTempFile, path: &Path, mode: u32) -> Result<(), SealError> {
    let finish = || {
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(directory(path))?.sync_all()
    };
    finish().map_err(SealError::write(path))
}

/// Writes a new file whole; one that is there stays.
pub(crate) fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SealError> {
    let mut file = temporary(path)?;
    let finish = || {
        file.write_all(bytes)?;
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path)?;
        File::open(directory(path))?.sync_all()
    };
    finish().map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => SealError::Exists { path: path.to_owned() },
        _ => SealError::Write { path: path.to_owned(), source },
    })
}

/// Reads a file of at most so many bytes.
pub(crate) fn read_bounded(path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let file = File::open(path).map_err(SealError::read(path))?;
    // All at once, so that no copies are left where a vector has grown.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most as usize + 1));
    file.take(most + 1).read_to_end(&mut bytes).map_err(SealError::read(path))?;
    if bytes.len() as u64 > most {
        return Err(SealError::file(path, format!("expected at most {most} bytes, found more")));
    }
    Ok(bytes)
}

/// As [`read_bounded`], of a file that nobody else may be able to read.
pub(crate) fn read_secret(path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let mode = fs::metadata(path).map_err(SealError::read(path))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SealError::Mode { path: path.to_owned(), mode });
    }
    read_bounded(path, most)
}

/// The directory that a file is in.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

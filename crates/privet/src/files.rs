//! Files that appear whole or not at all, and directories that only their owner can enter.

use std::fs::{DirBuilder, File, Permissions, read_dir, remove_file, set_permissions};
use std::io::{ErrorKind, Result, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use tempfile::NamedTempFile;

/// Mode of files that only their owner may read.
pub(crate) const PRIVATE: u32 = 0o600;
/// Mode of files that everyone may read.
pub(crate) const PUBLIC: u32 = 0o644;

/// How the names of unfinished files begin.
const TEMPORARY: &str = ".privet-";

/// Creates a directory, and its parents, that only its owner can enter.
pub(crate) fn private_dir(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // It may have been there, open to others.
    set_permissions(path, Permissions::from_mode(0o700))
}

/// Removes what a crash has left of files that were being written in a directory that nobody else writes to.
pub(crate) fn sweep(dir: &Path) -> Result<()> {
    for entry in read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            match remove_file(entry.path()) {
                // Its owner was faster.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
    }
    Ok(())
}

/// An unfinished file next to `path`, which only its owner can read.
pub(crate) fn temporary(path: &Path) -> Result<NamedTempFile> {
    // Temporary files are created with mode 0600.
    tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(directory(path))
}

/// Writes a file under a temporary name, makes it durable, and gives it its own name with `mode`.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut file = temporary(path)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_dir(directory(path))
}

/// Makes renames and removals in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)?.sync_all()
}

/// The directory that a file is in.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

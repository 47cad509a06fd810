//! Files that appear whole or not at all, and directories that only their owner can enter.

use std::fs::{DirBuilder, File, Permissions, read_dir, remove_file, set_permissions};
use std::io::{Result, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

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
            remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Writes a file under a temporary name, makes it durable, and gives it its own name with `mode`.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let dir = directory(path);
    // Temporary files are created with mode 0600.
    let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_dir(dir)
}

/// Makes renames and removals in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)?.sync_all()
}

/// The directory that a file is in.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

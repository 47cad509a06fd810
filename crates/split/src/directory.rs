//! A directory that is written whole, or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use crate::SplitError;
use crate::error::io;

/// A new directory. Unless it is kept, the files that were announced, and the directory if it was not there, are removed.
pub(crate) struct NewDirectory {
    path: PathBuf,
    made: bool,
    files: Vec<PathBuf>,
}

impl NewDirectory {
    /// Makes `path`; an empty directory may be there.
    pub(crate) fn new(path: &Path) -> Result<Self, SplitError> {
        let made = !path.exists();
        fs::create_dir_all(path).map_err(|e| io(path, e))?;
        if fs::read_dir(path).map_err(|e| io(path, e))?.next().is_some() {
            let (expected, found) = ("an empty directory".to_owned(), "one with files".to_owned());
            return Err(SplitError::Index { path: path.to_owned(), expected, found });
        }
        Ok(Self { path: path.to_owned(), made, files: Vec::new() })
    }

    /// The place of a file that will be written.
    pub(crate) fn file(&mut self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        self.files.push(path.clone());
        path
    }

    /// Keeps what was written.
    pub(crate) fn keep(mut self) {
        self.files.clear();
        self.made = false;
    }
}

impl Drop for NewDirectory {
    fn drop(&mut self) {
        // What cannot be removed stays, and is refused the next time.
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        if self.made {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

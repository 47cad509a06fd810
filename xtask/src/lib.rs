//! Checks that take data or time, behind `cargo xtask`.

#![forbid(unsafe_code)]

pub mod architectures;
pub mod conformance;
pub mod engine;
pub mod fetch;
pub mod mutants;
pub mod predict;

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

/// Root of the workspace.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// A progress bar on stderr, hidden when that is no terminal.
fn progress(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("[{bar:30}] {pos}/{len} {wide_msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style.progress_chars("=> "))
}

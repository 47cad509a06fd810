//! Where the real models and the conformance cases are.

#![allow(dead_code, reason = "every test file uses its part")]

#[path = "../../../graph/tests/common/integers.rs"]
pub(crate) mod integers;

use std::path::PathBuf;

/// The shared test data next to the workspace, if it is there; says loudly when it is not.
pub(crate) fn data(test: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if root.is_dir() {
        return Some(root);
    }
    eprintln!("SKIPPED {test}: no test data at {}", root.display());
    None
}

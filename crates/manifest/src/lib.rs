//! Gramine manifests: what a program inside an enclave may load, read and be told.
//!
//! [`manifest`] writes one for a program of this project: every file that it needs is trusted by its SHA-256, nothing is merely
//! allowed, and nothing comes from the host's environment or command line. [`lint()`] explains what is unsafe in any manifest.
//!
//! The syntax is that of Gramine 1.9. Manifests are TOML; the same options and files give the same bytes.

#![forbid(unsafe_code)]

mod elf;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod lint;
mod size;
mod write;

pub use elf::{Loaded, loaded_files};
pub use error::ManifestError;
pub use lint::{Finding, MAX_MANIFEST_BYTES, lint};
pub use privet_lint::Severity;
pub use size::{Sizes, enclave_size};
pub use write::{ManifestOptions, TrustedFile, Written, manifest};

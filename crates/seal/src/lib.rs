//! Sealed models: weights and graph encrypted under their owner's key, signed by the owner, opened chunk by chunk.
//!
//! The owner of a model makes two keys ([`OwnerKeys`]): a [`ContentKey`], which opens the model and is released to
//! whoever may run it, and a [`SigningKey`], which never leaves the owner. What others need to check a sealed model is
//! public ([`Release`]).
//!
//! This crate knows nothing of protocols, networks or attestation.

#![forbid(unsafe_code)]

mod error;
mod files;
mod id;
mod key;
mod owner;
mod release;

pub use error::SealError;
pub use id::{KeyId, KeyVersion, ModelId, ModelVersion};
pub use key::{ContentKey, KEY_BYTES, KeyFingerprint, SigningKey, VerifyingKey};
pub use owner::{CONTENT_KEY_FILE, OwnerKeys, SIGNING_KEY_FILE, read_content};
pub use release::{RELEASE_FILE, Release};

//! Sealed models: weights and graph encrypted under their owner's key, signed by the owner, opened chunk by chunk.
//!
//! The owner of a model makes two keys ([`OwnerKeys`]): a [`ContentKey`], which opens the model and is released to
//! whoever may run it, and a [`SigningKey`], which never leaves the owner. What others need to check a sealed model is
//! public ([`Release`]).
//!
//! This crate knows nothing of protocols, networks or attestation.

#![forbid(unsafe_code)]

mod buffer;
mod chunk;
mod digest;
mod dtype;
mod error;
mod files;
#[doc(hidden)]
pub mod fuzzing;
mod header;
mod hex;
mod hollow;
mod id;
mod key;
mod onnx;
mod owner;
mod reader;
mod release;
mod state;
mod statement;
mod unseal;
mod wrap;
mod writer;

pub use buffer::{SecretBuffer, Swap};
pub use digest::SealDigest;
pub use dtype::DType;
pub use error::SealError;
pub use header::{Entry, Header, Kind, MAGIC, Part, SEAL_VERSION};
pub use id::{KeyId, KeyVersion, ModelId, ModelVersion};
pub use key::{ContentKey, KEY_BYTES, KeyFingerprint, SigningKey, VerifyingKey};
pub use owner::{CONTENT_KEY_FILE, OwnerKeys, SIGNING_KEY_FILE, read_content};
pub use reader::{Accepted, OpenedModel, ReadAt, SealedModel};
pub use release::{RELEASE_FILE, Release};
pub use state::{ModuleState, StateTensor, load_state, open_state, save_state, seal_state};
pub use statement::SIGNATURE_BYTES;
pub use unseal::{unseal_onnx, unseal_onnx_until};
pub use wrap::{WrappedKey, WrappingKey, unwrap_into};
pub use writer::{SealOptions, Sealed, seal_onnx, seal_onnx_from, seal_onnx_until};

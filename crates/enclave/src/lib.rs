//! Workers that run sealed models inside a trusted execution environment, and the clients that ask them.
//!
//! A worker proves what it runs ([`privet_attest`]), gets the model's key for it ([`privet_keys`]), opens the sealed model
//! chunk by chunk ([`privet_seal`]), and runs all of it in float ([`privet_split`]). A client verifies the worker's evidence,
//! fresh and bound to its own connection, before it sends an input. What crosses the host is encrypted to keys that are
//! made inside.
//!
//! This crate knows nothing of protocols between parties that do not trust each other's hardware.

#![forbid(unsafe_code)]

mod check;
mod client;
mod engine;
mod error;
mod freshness;
#[doc(hidden)]
pub mod fuzzing;
mod model;
mod next;
mod pin;
mod session;
mod stages;
mod tensor;
mod tenure;
mod wire;
mod worker;

pub use check::{SignedStages, check_sealed};
pub use client::{Answer, Asked, Connection, EVIDENCE_AGE};
pub use engine::{Halt, Program};
pub use error::EnclaveError;
pub use model::{Pinned, SealedProgram, Terms};
pub use next::NextSetting;
pub use pin::ModelPin;
pub use stages::{Crossing, PartProgram, StagedProgram, stages_text};
pub use tensor::{ElementType, TensorSpec};
pub use tenure::{KeySource, RemoteKey};
pub use wire::{Ending, MAX_TENSOR_BYTES, ModelInfo, PROTOCOL, RefusalKind, WIRE_VERSION};
pub use worker::{Tell, WorkerEvent, WorkerSetting, serve};

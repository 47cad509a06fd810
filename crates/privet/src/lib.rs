//! Private machine learning: the library behind the `privet` command.
//!
//! Between two companies, the *server* owns a model, the *client* an input, and a *dealer* prepares one-time material
//! beforehand without seeing either. In a cluster, three *parties* compute on shares of what others own ([`sharing`]). This
//! crate compiles models ([`model`]), sets parties up ([`setup`], [`config`]), runs them over pinned TLS ([`dealer`],
//! [`server`], [`client`]; [`party`]), says what a plan costs and opens
//! ([`explain`]), makes workloads for benchmarks ([`mod@bench`]), and turns files into inputs ([`input`]) and answers into labels
//! ([`postprocess`]) and files ([`output`]).

#![forbid(unsafe_code)]

pub mod bench;
pub mod client;
pub mod config;
pub mod dealer;
pub mod error;
pub mod events;
pub mod explain;
mod files;
#[doc(hidden)]
pub mod fuzzing;
pub mod input;
pub mod model;
pub mod output;
pub mod parameters;
pub mod party;
pub mod postprocess;
pub mod predict;
pub mod reference;
pub mod resources;
pub mod server;
mod session;
pub mod setup;
pub mod sharing;
pub mod status;
mod store;
mod supply;
mod wire;

pub use config::{ConfigError, PartyConfig, PartyRole, PeerConfig};
pub use error::Error;
pub use events::{Agreement, Event, Observer, Phase, PlanSummary, Report, Span, TensorSummary};
pub use privet_attest as attest;
pub use privet_enclave as enclave;
pub use privet_graph::nn;
pub use privet_keys as keys;
pub use privet_manifest as manifest;
pub use privet_net::{Emulated, NetError};
pub use privet_plan::{Plan, Preprocess};
pub use privet_protocols::ProtocolError;
pub use privet_protocols::masked::RevealTo;
pub use privet_seal as seal;
pub use privet_split as split;
pub use wire::PROTOCOL_VERSION;

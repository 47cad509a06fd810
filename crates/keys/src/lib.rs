//! Content keys of sealed models, released to those who can prove what they run.
//!
//! The owner of models keeps their keys in a [`Store`].

#![forbid(unsafe_code)]

mod admin;
pub mod audit;
pub mod cache;
mod clock;
mod error;
mod fetch;
pub mod kbs;
mod keeper;
mod master;
mod net;
mod policy;
mod process;
mod random;
mod resource;
mod secret;
pub mod server;
mod store;

pub use admin::{ADMIN_SOCKET, AdminReply, AdminRequest, OwnerKey, administer, administer_at};
pub use clock::{Clock, Elapsed, ManualClock, SteadyClock, SystemClock, Uptime};
pub use error::KeysError;
pub use fetch::{Endpoint, fetch_key};
pub use keeper::{Grant, Keeper, Lease, Peer, StoreKeeper};
pub use master::{MIN_PASSPHRASE, MasterSource};
pub use net::tls::{ServerTls, ServerTrust, TLS_CERTIFICATE_FILE, TLS_KEY_FILE, make_certificate};
pub use net::{Address, Handler, Incoming, Limits, Server};
pub use policy::{Finding, KEY_POLICY_VERSION, KeyPolicy, LeasePolicy};
pub use process::forbid_core_dumps;
pub use random::{Randomness, SeededRandomness, SystemRandomness};
pub use resource::{Kind, Resource};
pub use secret::MasterKey;
pub use store::{KeyInfo, KeyState, MAX_POLICY_BYTES, Store, VersionInfo};

//! Content keys of sealed models, released to those who can prove what they run.
//!
//! The owner of models keeps their keys in a [`Store`].

#![forbid(unsafe_code)]

pub mod audit;
mod clock;
mod error;
mod master;
mod process;
mod random;
mod secret;
mod store;

pub use clock::{Clock, Elapsed, ManualClock, SteadyClock, SystemClock, Uptime};
pub use error::KeysError;
pub use master::{MIN_PASSPHRASE, MasterSource};
pub use process::forbid_core_dumps;
pub use random::{Randomness, SeededRandomness, SystemRandomness};
pub use secret::MasterKey;
pub use store::{KeyInfo, KeyState, MAX_POLICY_BYTES, Store, VersionInfo};

//! What the parties of a Privet session use to talk to each other.
//!
//! A [`Channel`] carries numbered [`Frame`]s between two parties, blocking, with a deadline on every wait and a count
//! of what was sent. [`tls`] is the real one: TCP and TLS 1.3 with both certificates pinned. [`memory`] joins two
//! threads of one process, for tests. [`handshake`] is the first exchange on any channel: who runs which version, and
//! a refusal whose reason both sides get to see. [`identity`] holds a party's key and certificate. A connection can be made as
//! slow as a network that is not there ([`Emulated`]).
//!
//! Nothing here knows what a frame means.

#![forbid(unsafe_code)]

mod channel;
mod emulated;
mod error;
#[doc(hidden)]
pub mod fault;
mod fingerprint;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod handshake;
pub mod identity;
mod kind;
pub mod memory;
mod text;
pub mod tls;

pub use channel::{Channel, Deadlines, Peer, Traffic};
pub use emulated::Emulated;
pub use error::NetError;
pub use fingerprint::Fingerprint;
pub use frame::{Frame, HEADER_BYTES, WIRE_VERSION};
pub use identity::{Identity, PinnedPeer};
pub use kind::FrameKind;
pub use tls::{TlsChannel, TlsConnector, TlsListener};

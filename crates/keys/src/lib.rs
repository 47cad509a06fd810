//! Content keys of sealed models, released to those who can prove what they run.
//!
//! The owner of models keeps their keys in a [`Store`].

#![forbid(unsafe_code)]

mod admin;
pub mod audit;
pub mod cache;
mod clock;
mod development;
mod error;
mod fetch;
#[doc(hidden)]
pub mod fuzzing;
mod hpke;
pub mod kbs;
mod keeper;
mod master;
mod net;
mod policy;
mod quota;
mod random;
mod resource;
mod secret;
pub mod server;
mod store;

pub use admin::{ADMIN_SOCKET, AdminReply, AdminRequest, OwnerKey, administer, administer_at};
pub use clock::{Clock, Elapsed, ManualClock, SteadyClock, SystemClock, Uptime};
pub use development::{SAMPLE_BUILD, machine_attester, verifier};
pub use error::KeysError;
pub use fetch::{Endpoint, fetch_key};
pub use keeper::{Grant, Keeper, Lease, Peer, StoreKeeper, Tell};
pub use master::{MIN_PASSPHRASE, MasterSource};
pub use net::handshake::{Wanted, answer_problem, connect_problem, handshake_problem};
pub use net::tls::{
    LONGEST_SERVER, ServerTls, ServerTrust, TLS_CERTIFICATE_FILE, TLS_KEY_FILE, make_certificate,
};
pub use net::{Accepted, Address, Crowd, Handler, Incoming, Limits, Place, Server, Speaker, TooMany};
pub use policy::{KEY_POLICY_VERSION, KeyPolicy, LeasePolicy};
pub use random::{Randomness, SeededRandomness, SystemRandomness};
pub use resource::{Kind, Resource};
pub use secret::MasterKey;
pub use store::{KeyInfo, KeyState, MAX_POLICY_BYTES, Store, VersionInfo};

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Display};

    use static_assertions::assert_not_impl_any;

    use super::*;

    // What holds a key cannot be printed.
    assert_not_impl_any!(MasterKey: Debug, Display);
    assert_not_impl_any!(Grant: Debug, Display);
    assert_not_impl_any!(Lease: Debug, Display);
    assert_not_impl_any!(OwnerKey<'_>: Debug, Display);
    assert_not_impl_any!(AdminRequest<'_>: Debug, Display);
    assert_not_impl_any!(cache::SealingKey: Debug, Display);
    assert_not_impl_any!(cache::LeaseBook: Debug, Display);
    assert_not_impl_any!(Incoming: Debug, Display);
    assert_not_impl_any!(kbs::TeeSecret: Debug, Display);
    assert_not_impl_any!(keeper::Base64Secret: Debug, Display);
}

//! Attestation: proof of which software runs in which trusted execution environment.
//!
//! In the terms of RATS (RFC 9334): an [`Attester`] makes [`Evidence`]; a [`Verifier`] checks that it is authentic and current,
//! and turns it into [`Claims`]; [`appraise`] compares these with a [`Policy`] and gives a [`Verdict`], line by line. Evidence
//! is bound to a key and a nonce by its report data ([`binding`]), and carried in certificates of TLS ([`ratls`]).
//!
//! Nothing here reads a clock, opens a connection or knows a path by itself: time, collateral and directories are given.

#![forbid(unsafe_code)]

mod appraise;
pub mod attester;
pub mod binding;
pub mod claims;
mod clock;
mod error;
pub mod evidence;
#[doc(hidden)]
pub mod fuzzing;
pub mod policy;
pub mod ratls;
#[cfg(feature = "sample-attestation-insecure")]
pub mod sample;
mod tee;
mod verdict;
pub mod verifier;
mod x509;

pub use appraise::appraise;
pub use attester::Attester;
pub use binding::Binding;
pub use claims::Claims;
pub use clock::{parse_time, seconds_text, time_text};
pub use error::AttestError;
pub use evidence::{Collateral, Evidence, Tee};
pub use policy::Policy;
pub use verdict::{Line, Verdict};
pub use verifier::{Verifier, Verifiers, check_dcap_collateral};
pub use x509::{certificates, revocation_lists};

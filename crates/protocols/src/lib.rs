//! Engines that execute plans.
//!
//! [`cleartext`] is the specification: the plan as a program on integers, trapping on overflow. [`masked`] computes
//! exactly the same on masked values between two parties, with one-time material from a dealer; [`replicated`] does so
//! among three parties that hold shares of everything. Everything here works on plans and channels; files, configuration and
//! sessions live above.

#![forbid(unsafe_code)]

pub mod cleartext;
mod error;
mod inputs;
mod linear;
pub mod masked;
mod packed;
pub mod replicated;

pub use error::{Overflow, ProtocolError};

/// Told about every step; engines call it in plan order.
pub trait Progress {
    /// Step `done` of `total` is about to run; `name` is the model node it came from.
    fn step(&mut self, done: usize, total: usize, name: &str);
}

/// Reports to nobody.
pub struct Silent;

impl Progress for Silent {
    fn step(&mut self, _: usize, _: usize, _: &str) {}
}

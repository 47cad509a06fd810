//! Arithmetic modulo 2^l for 16 <= l <= 64.
//!
//! Elements live in `u64` lanes and are reduced lazily: additions, subtractions and products may leave garbage above
//! bit l, [`Ring::reduce`] removes it. Shifts, comparisons and bit slices need reduced lanes. This crate knows
//! no protocol and does no input or output.

pub mod blocks;
pub mod conv;
mod direct;
pub mod fixed;
pub mod gemm;
pub mod geometry;
mod kernel;
pub mod pack;
pub mod packed;
pub mod peak;
pub mod planes;
pub mod prg;
mod right;
mod ring;
mod threads;
pub mod wipe;

pub use kernel::{Kernel, Unavailable};
pub use ring::{Ring, RingError, packed_len};

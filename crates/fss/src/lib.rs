//! Function secret sharing between two parties: a dealer splits a secret function into two keys; each party evaluates its key at
//! a public point, and the two results are shares of the function's value. One key alone says nothing about the function.
//!
//! | file | function | key, for each party |
//! |---|---|---|
//! | [`Comparison`] | `[x < α]`, as one bit | 16 bytes for every bit of the domain but the last seven, and 16 |
//! | [`Dcf`] | `β·[x < α]` in a group Z_2^l, or two of them | 16 bytes and l or 2l bits for every bit of the domain, 16 bytes less |
//! | [`Select`] | `[m − α >= 0]·t` as ring elements, with t = m − α the ReLU | that of one `Dcf`, and two ring elements |
//! | [`Truncation`] | `floor((m − α) / 2^s)` as ring elements | that of one `Dcf` over s bits, and l + s bits |
//! | [`Intervals`] | `[low <= m − α <= high]` for any number of public intervals, as bits | that of one comparison |
//! | [`Table`] | `T[m − α]` up to a sign that is shared, for public tables of up to 2^16 entries | 16 bytes for every bit of the index but the last seven, and 16 |
//! | [`Spline`] | a polynomial of `m − α` for every public interval | that of one comparison, and dealt products |
//!
//! Keys are made and evaluated in batches: what is here are loops over a few hundred keys at one level of their trees
//! ([`struct@Hash`] has the levels), so that the cipher's pipeline is full and everything stays in the first-level cache. Keys lie in
//! memory in the order in which they are read: batch by batch, each level by level. Nothing here reads files or sends anything;
//! neither run time nor memory accesses depend on α, on a key or on a share (but see `ring/blocks.rs` on masked loads). The point at which keys are evaluated is public.

#![forbid(unsafe_code)]

mod comparison;
mod dcf;
mod interval;
mod select;
mod spline;
mod table;
#[cfg(test)]
mod testing;
mod tree;
mod truncation;

pub use comparison::Comparison;
pub use dcf::Dcf;
pub use interval::{Interval, Intervals};
pub use privet_ring::blocks::Hash;
pub use select::Select;
pub use spline::Spline;
pub use table::Table;
pub use tree::{Side, root};
pub use truncation::Truncation;

//! Function secret sharing between two parties: a dealer splits a secret function into two keys; each party evaluates its key at
//! a public point, and the two results are shares of the function's value. One key alone says nothing about the function.
//!
//! | file | function | key, for each party |
//! |---|---|---|
//! | [`Comparison`] | `[x < α]`, as one bit | 16 bytes for every bit of the domain but the last seven, and 16 |
//! | [`Point`] | `[x = α]` at all x at once, as bits | the same |
//!
//! Keys are made and evaluated in batches: what is here are loops over many keys at one level of their trees, so that the
//! cipher's pipeline is full. Nothing here reads files or sends anything; neither run time nor memory accesses depend on α, on a
//! key or on a share. The point x is public.

#![forbid(unsafe_code)]

mod comparison;
mod hash;
mod point;
mod tree;

pub use comparison::Comparison;
pub use hash::Hash;
pub use point::Point;
pub use tree::{Side, root};

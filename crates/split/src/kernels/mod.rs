//! Float kernels: convolutions and products on the matrix products of `rten-gemm`, and what runs in the place of its operand.

mod convolution;
mod elementwise;
mod pool;
mod product;

pub(crate) use convolution::{Convolution, convolve};
pub(crate) use elementwise::{Elementwise, in_place};
pub(crate) use pool::{Windows, max_pool};
pub(crate) use product::{Product, multiply};

use crate::SplitError;

/// Rows of a weight, seen as a matrix with one row per entry of its first axis.
pub(crate) trait Rows {
    /// Calls `f` with the first row and the values of one block of rows after another, in order.
    fn blocks(&mut self, f: &mut dyn FnMut(usize, &[f32])) -> Result<(), SplitError>;
}

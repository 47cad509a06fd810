//! Float kernels: convolutions and products on the matrix products of `rten-gemm`, and what runs in the place of its operand.

mod convolution;
mod elementwise;
mod pool;
mod product;

pub(crate) use convolution::{Convolution, convolve};
pub(crate) use elementwise::{Elementwise, in_place};
pub(crate) use pool::{Windows, max_pool};
pub(crate) use product::{Product, multiply};

use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::NdTensorView;

use crate::SplitError;

/// Rows of a weight, seen as a matrix with one row per entry of its first axis.
pub(crate) trait Rows {
    /// Calls `f` with the first row and the values of one block of rows after another, in order.
    fn blocks(&mut self, f: &mut dyn FnMut(usize, &[f32])) -> Result<(), SplitError>;
}

/// Has every thread make its packing buffers, which it keeps: as large as for any product.
pub(crate) fn warm_up() {
    const SIDE: usize = 1024;
    let (a, mut c) = (vec![0.0f32; SIDE * 64], vec![0.0f32; 64 * SIDE]);
    let b = vec![0.0f32; SIDE * SIDE];
    let (left, right) =
        (NdTensorView::from_data([64, SIDE], &*a), NdTensorView::from_data([SIDE, SIDE], &*b));
    let inputs = (GemmInputA::Unpacked(left), GemmInputB::Unpacked(right));
    // Whether it works shows where it matters.
    let _ = GemmExecutor::new().gemm(&mut c, inputs.0, inputs.1, GemmOptions::default());
}

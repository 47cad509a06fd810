//! Products with a constant matrix whose rows arrive block by block.

use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::NdTensorView;

use super::Rows;
use crate::SplitError;

/// Sizes of `x · w`, x being `[m, k]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product {
    pub(crate) m: usize,
    pub(crate) k: usize,
    pub(crate) n: usize,
    /// Whether x is stored as `[k, m]`.
    pub(crate) x_transposed: bool,
    /// Whether w is stored as `[n, k]`.
    pub(crate) w_transposed: bool,
    /// Factor.
    pub(crate) alpha: f32,
}

/// `alpha · x · w`, `[m, n]`.
pub(crate) fn multiply(
    gemm: &GemmExecutor,
    sizes: &Product,
    x: &[f32],
    w: &mut dyn Rows,
) -> Result<Vec<f32>, SplitError> {
    let Product { m, k, n, alpha, .. } = *sizes;
    let mut y = vec![0.0f32; m * n];
    if y.is_empty() || k == 0 {
        return Ok(y);
    }
    let x = if sizes.x_transposed {
        NdTensorView::from_data([k, m], x).transposed()
    } else {
        NdTensorView::from_data([m, k], x)
    };
    let mut failed = None;
    w.blocks(&mut |first, block| {
        let done = if sizes.w_transposed {
            let rows = block.len() / k;
            let b = GemmInputB::Unpacked(NdTensorView::from_data([rows, k], block).transposed());
            let options = GemmOptions { alpha, ..GemmOptions::default() };
            if m == 1 || rows == n {
                gemm.gemm(&mut y[first..first + m * rows], GemmInputA::Unpacked(x), b, options)
            } else {
                let mut part = vec![0.0; m * rows];
                let done = gemm.gemm(&mut part, GemmInputA::Unpacked(x), b, options);
                for (to, from) in y.chunks_exact_mut(n).zip(part.chunks_exact(rows)) {
                    to[first..first + rows].copy_from_slice(from);
                }
                done
            }
        } else {
            let rows = block.len() / n;
            let b = GemmInputB::Unpacked(NdTensorView::from_data([rows, n], block));
            let beta = if first == 0 { 0.0 } else { 1.0 };
            let options = GemmOptions { alpha, beta, ..GemmOptions::default() };
            let a = GemmInputA::Unpacked(x.slice((.., first..first + rows)));
            gemm.gemm(&mut y, a, b, options)
        };
        failed = failed.take().or(done.err());
    })?;
    match failed {
        None => Ok(y),
        Some(error) => Err(SplitError::Kernel(error.to_string())),
    }
}

//! Gemm and MatMul.

use privet_graph::ops::{Gemm, MatMul};

use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn gemm(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(if node.opset < 11 { 3 } else { 2 }, 3)?;
    let op = Gemm {
        alpha: node.float("alpha", 1.0)?,
        beta: node.float("beta", 1.0)?,
        // Any number but 0 transposes.
        trans_a: node.int("transA", 0)? != 0,
        trans_b: node.int("transB", 0)? != 0,
    };
    Ok(Parsed::plain(op, node))
}

pub(super) fn matmul(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    Ok(Parsed::plain(MatMul, node))
}

//! Elementwise arithmetic.

use privet_graph::ops::{Add, CumSum, Div, Mean, Mul, Neg, Pow, Sub, Sum};

use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn add(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    Ok(Parsed::plain(Add, node))
}

pub(super) fn sub(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    Ok(Parsed::plain(Sub, node))
}

pub(super) fn mul(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    Ok(Parsed::plain(Mul, node))
}

pub(super) fn div(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    Ok(Parsed::plain(Div, node))
}

pub(super) fn neg(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(Neg, node))
}

pub(super) fn sum(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    let all = node.input_count();
    node.expect_inputs(all.max(1), all.max(1))?;
    Ok(Parsed::plain(Sum, node))
}

pub(super) fn mean(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    let all = node.input_count();
    node.expect_inputs(all.max(1), all.max(1))?;
    Ok(Parsed::plain(Mean, node))
}

pub(super) fn cum_sum(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    let (exclusive, reverse) = (node.flag("exclusive", false)?, node.flag("reverse", false)?);
    Ok(Parsed::plain(CumSum { exclusive, reverse }, node))
}

pub(super) fn pow(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    Ok(Parsed::plain(Pow, node))
}

//! Elementwise functions of one value.

use privet_graph::ops::{
    Abs, Erf, Gelu, HardSigmoid, HardSwish, LeakyRelu, PRelu, Relu, Sigmoid, Sign, Sqrt, Tanh,
    ThresholdedRelu,
};

use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn abs(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(Abs, node))
}

pub(super) fn sqrt(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(Sqrt, node))
}

pub(super) fn erf(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(Erf, node))
}

pub(super) fn gelu(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let tanh = match node.string("approximate", "none")?.as_str() {
        "none" => false,
        "tanh" => true,
        other => return Err(node.refuse("approximate", &format!("is {other:?}"), "none, tanh")),
    };
    Ok(Parsed::plain(Gelu { tanh }, node))
}

pub(super) fn hard_sigmoid(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let (alpha, beta) = (node.float("alpha", 0.2)?, node.float("beta", 0.5)?);
    Ok(Parsed::plain(HardSigmoid { alpha, beta }, node))
}

pub(super) fn hard_swish(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(HardSwish, node))
}

pub(super) fn leaky_relu(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(LeakyRelu { alpha: node.float("alpha", 0.01)? }, node))
}

pub(super) fn prelu(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    Ok(Parsed::plain(PRelu, node))
}

pub(super) fn relu(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(Relu, node))
}

pub(super) fn sigmoid(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(Sigmoid, node))
}

pub(super) fn sign(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(Sign, node))
}

pub(super) fn tanh(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(Tanh, node))
}

pub(super) fn thresholded_relu(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(ThresholdedRelu { alpha: node.float("alpha", 1.0)? }, node))
}

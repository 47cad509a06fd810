//! Relu and Sigmoid.

use privet_graph::ops::{Relu, Sigmoid};

use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn relu(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(Relu, node))
}

pub(super) fn sigmoid(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(Sigmoid, node))
}

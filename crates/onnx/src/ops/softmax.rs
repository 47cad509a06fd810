//! Softmax and LogSoftmax: before opset 13 all axes from `axis` on are normalised together.

use privet_graph::ops::Softmax;

use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn softmax_7(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    parse(node, 1, true, false)
}

pub(super) fn softmax_13(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    parse(node, -1, false, false)
}

pub(super) fn log_softmax_7(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    parse(node, 1, true, true)
}

pub(super) fn log_softmax_13(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    parse(node, -1, false, true)
}

fn parse(node: &NodeReader<'_>, default_axis: i64, coerce: bool, log: bool) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(Softmax { axis: node.int("axis", default_axis)?, coerce, log }, node))
}

//! ReduceSum and ReduceMean: axes become an input in opset 13 and 18, with a flag that says what none of them means.

use privet_graph::Tensor;
use privet_graph::ops::Reduce;

use crate::OnnxError;
use crate::node::{NodeReader, Operand, Parsed};

pub(super) fn sum_7(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    by_attribute(node, false)
}

pub(super) fn sum_13(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    by_input(node, false)
}

pub(super) fn mean_7(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    by_attribute(node, true)
}

pub(super) fn mean_18(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    by_input(node, true)
}

fn by_attribute(node: &NodeReader<'_>, mean: bool) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let axes = node.ints("axes")?.map_or(Operand::Missing, |v| Operand::Constant(Tensor::from_ints(v)));
    let op = Reduce { mean, keep_dims: node.flag("keepdims", true)?, empty_is_none: false };
    Ok(Parsed::with(op, vec![Operand::Input(0), axes]))
}

fn by_input(node: &NodeReader<'_>, mean: bool) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 2)?;
    let (keep_dims, empty_is_none) =
        (node.flag("keepdims", true)?, node.flag("noop_with_empty_axes", false)?);
    Ok(Parsed::plain(Reduce { mean, keep_dims, empty_is_none }, node))
}

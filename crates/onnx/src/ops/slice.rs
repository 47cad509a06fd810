//! Slice: its lists are attributes before opset 10, inputs from then on.

use privet_graph::Tensor;
use privet_graph::ops::Slice;

use crate::OnnxError;
use crate::node::{NodeReader, Operand, Parsed};

pub(super) fn slice_7(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let list = |v| Operand::Constant(Tensor::from_ints(v));
    let (starts, ends) = (node.required_ints("starts")?, node.required_ints("ends")?);
    let axes = node.ints("axes")?.map_or(Operand::Missing, list);
    Ok(Parsed::with(Slice, vec![Operand::Input(0), list(starts), list(ends), axes]))
}

pub(super) fn slice_10(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(3, 5)?;
    Ok(Parsed::plain(Slice, node))
}

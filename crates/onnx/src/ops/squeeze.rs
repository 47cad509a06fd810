//! Squeeze and Unsqueeze: axes are an attribute before opset 13, an input from then on.

use privet_graph::Tensor;
use privet_graph::ops::{Squeeze, Unsqueeze};

use crate::OnnxError;
use crate::node::{NodeReader, Operand, Parsed};

pub(super) fn squeeze_7(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let axes = node.ints("axes")?.map_or(Operand::Missing, |v| Operand::Constant(Tensor::from_ints(v)));
    Ok(Parsed::with(Squeeze, vec![Operand::Input(0), axes]))
}

pub(super) fn squeeze_13(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 2)?;
    Ok(Parsed::plain(Squeeze, node))
}

pub(super) fn unsqueeze_7(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let axes = Operand::Constant(Tensor::from_ints(node.required_ints("axes")?));
    Ok(Parsed::with(Unsqueeze, vec![Operand::Input(0), axes]))
}

pub(super) fn unsqueeze_13(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    Ok(Parsed::plain(Unsqueeze, node))
}

//! Pad: pads and value are attributes before opset 11, inputs from then on.

use privet_graph::Tensor;
use privet_graph::ops::{Pad, PadMode};

use crate::OnnxError;
use crate::node::{NodeReader, Operand, Parsed};

pub(super) fn pad_7(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let pad = Pad { mode: mode(node)? };
    let (pads, value) = (node.required_ints("pads")?, node.optional_float("value")?.unwrap_or(0.0));
    let constant = |t| Operand::Constant(t);
    Ok(Parsed::with(
        pad,
        vec![Operand::Input(0), constant(Tensor::from_ints(pads)), constant(Tensor::from_scalar(value))],
    ))
}

pub(super) fn pad_11(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, if node.opset >= 18 { 4 } else { 3 })?;
    Ok(Parsed::plain(Pad { mode: mode(node)? }, node))
}

fn mode(node: &NodeReader<'_>) -> Result<PadMode, OnnxError> {
    let mut modes =
        vec![("constant", PadMode::Constant), ("reflect", PadMode::Reflect), ("edge", PadMode::Edge)];
    if node.opset >= 19 {
        modes.push(("wrap", PadMode::Wrap));
    }
    node.choice("mode", "constant", &modes)
}

//! Pad: pads and value are attributes before opset 11, inputs from then on.

use privet_graph::Tensor;
use privet_graph::ops::Pad;

use crate::OnnxError;
use crate::node::{NodeReader, Operand, Parsed};

pub(super) fn pad_7(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    constant_mode(node)?;
    let (pads, value) = (node.required_ints("pads")?, node.float("value", 0.0)?);
    let constant = |t| Operand::Constant(t);
    Ok(Parsed::with(
        Pad,
        vec![Operand::Input(0), constant(Tensor::from_ints(pads)), constant(Tensor::from_scalar(value))],
    ))
}

pub(super) fn pad_11(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, if node.opset >= 18 { 4 } else { 3 })?;
    constant_mode(node)?;
    Ok(Parsed::plain(Pad, node))
}

fn constant_mode(node: &NodeReader<'_>) -> Result<(), OnnxError> {
    match node.string("mode", "constant")?.as_str() {
        "constant" => Ok(()),
        other => Err(node.refuse("mode", &format!("is {other:?}"), "constant")),
    }
}

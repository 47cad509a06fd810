//! Clip: bounds are attributes before opset 11, inputs from then on.

use privet_graph::Tensor;
use privet_graph::ops::Clip;

use crate::OnnxError;
use crate::node::{NodeReader, Operand, Parsed};

pub(super) fn clip_7(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let bound =
        |value: Option<f32>| value.map_or(Operand::Missing, |v| Operand::Constant(Tensor::from_scalar(v)));
    let (min, max) = (node.optional_float("min")?, node.optional_float("max")?);
    Ok(Parsed::with(Clip, vec![Operand::Input(0), bound(min), bound(max)]))
}

pub(super) fn clip_11(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 3)?;
    Ok(Parsed::plain(Clip, node))
}

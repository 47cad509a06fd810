//! Cast.

use privet_graph::ops::Cast;

use crate::node::{NodeReader, Parsed};
use crate::{OnnxError, tensor};

pub(super) fn cast(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let to = node.required_int("to")?;
    // These speak of 8-bit floats only, which are refused anyway.
    if node.opset >= 19 {
        node.ignore("saturate");
    }
    if node.opset >= 25 {
        node.ignore("round_mode");
    }
    let what = format!("node {:?}, operator Cast: attribute to", node.name);
    let to = tensor::dtype(&what, i32::try_from(to).unwrap_or(-1))?;
    Ok(Parsed::plain(Cast { to }, node))
}

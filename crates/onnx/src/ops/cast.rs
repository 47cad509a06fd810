//! Cast and CastLike.

use privet_graph::ops::{Cast, CastLike};

use crate::node::{NodeReader, Parsed};
use crate::{OnnxError, tensor};

pub(super) fn cast(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let to = node.required_int("to")?;
    ignore_small_floats(node);
    let what = format!("node {:?}, operator Cast: attribute to", node.name);
    let to = tensor::dtype(&what, i32::try_from(to).unwrap_or(-1))?;
    Ok(Parsed::plain(Cast { to }, node))
}

pub(super) fn cast_like(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    ignore_small_floats(node);
    Ok(Parsed::plain(CastLike, node))
}

/// Accepts what speaks of 8-bit floats only, which are refused anyway.
fn ignore_small_floats(node: &NodeReader<'_>) {
    if node.opset >= 19 {
        node.ignore("saturate");
    }
    if node.opset >= 24 {
        node.ignore("round_mode");
    }
}

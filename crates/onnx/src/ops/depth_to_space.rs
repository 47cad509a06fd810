//! DepthToSpace.

use privet_graph::ops::DepthToSpace;

use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn depth_to_space(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let block = node.required_int("blocksize")?;
    let mode = if node.opset >= 11 { node.string("mode", "DCR")? } else { "DCR".to_owned() };
    let channel_first = match mode.as_str() {
        "DCR" => false,
        "CRD" => true,
        other => return Err(node.refuse("mode", &format!("is {other:?}"), "DCR, CRD")),
    };
    Ok(Parsed::plain(DepthToSpace { block, channel_first }, node))
}

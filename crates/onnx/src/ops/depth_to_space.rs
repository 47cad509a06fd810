//! DepthToSpace and SpaceToDepth.

use privet_graph::ops::{DepthToSpace, SpaceToDepth};

use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

/// Whether channels come before rows and columns of a block.
const ORDERS: [(&str, bool); 2] = [("DCR", false), ("CRD", true)];

pub(super) fn depth_to_space(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let block = node.required_int("blocksize")?;
    let channel_first = node.opset >= 11 && node.choice("mode", "DCR", &ORDERS)?;
    Ok(Parsed::plain(DepthToSpace { block, channel_first }, node))
}

pub(super) fn space_to_depth(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let block = node.required_int("blocksize")?;
    let channel_first = node.opset >= 28 && node.choice("mode", "DCR", &ORDERS)?;
    Ok(Parsed::plain(SpaceToDepth { block, channel_first }, node))
}

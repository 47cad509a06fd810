//! Conv and ConvTranspose.

use privet_graph::ops::{Conv, ConvTranspose};

use super::window::window;
use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn conv(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 3)?;
    Ok(Parsed::plain(Conv { groups: node.int("group", 1)?, window: window(node, true, false)? }, node))
}

pub(super) fn conv_transpose(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 3)?;
    let op = ConvTranspose {
        groups: node.int("group", 1)?,
        window: window(node, true, false)?,
        output_padding: node.ints("output_padding")?,
        output_shape: node.ints("output_shape")?,
    };
    Ok(Parsed::plain(op, node))
}

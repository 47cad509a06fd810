//! Conv.

use privet_graph::ops::Conv;

use super::window::window;
use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn conv(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 3)?;
    Ok(Parsed::plain(Conv { groups: node.int("group", 1)?, window: window(node, true, false)? }, node))
}

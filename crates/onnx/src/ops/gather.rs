//! Gather.

use privet_graph::ops::Gather;

use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn gather(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    Ok(Parsed::plain(Gather { axis: node.int("axis", 0)? }, node))
}

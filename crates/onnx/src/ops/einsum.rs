//! Einsum.

use privet_graph::ops::Einsum;

use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn einsum(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    let all = node.input_count();
    node.expect_inputs(all.max(1), all.max(1))?;
    Ok(Parsed::plain(Einsum { equation: node.string("equation", "")? }, node))
}

//! Operators that move, join or measure elements.

use privet_graph::ops::{Concat, Expand, Flatten, Identity, NonZero, Reshape, Shape, Size, Tile, Transpose};

use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn concat(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    let all = node.input_count();
    node.expect_inputs(all.max(1), all.max(1))?;
    Ok(Parsed::plain(Concat { axis: node.required_int("axis")? }, node))
}

pub(super) fn expand(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    Ok(Parsed::plain(Expand, node))
}

pub(super) fn flatten(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(Flatten { axis: node.int("axis", 1)? }, node))
}

pub(super) fn identity(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(Identity, node))
}

pub(super) fn reshape(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    let allow_zero = node.opset >= 14 && node.flag("allowzero", false)?;
    Ok(Parsed::plain(Reshape { allow_zero }, node))
}

pub(super) fn shape(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let (start, end) =
        if node.opset >= 15 { (node.int("start", 0)?, node.optional_int("end")?) } else { (0, None) };
    Ok(Parsed::plain(Shape { start, end }, node))
}

pub(super) fn transpose(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(Transpose { perm: node.ints("perm")? }, node))
}

pub(super) fn size(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(Size, node))
}

pub(super) fn non_zero(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(NonZero, node))
}

pub(super) fn tile(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    Ok(Parsed::plain(Tile, node))
}

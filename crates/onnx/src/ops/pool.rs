//! Pooling.

use privet_graph::ops::{AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool};

use super::window::window;
use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn max_pool(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    node.required_ints("kernel_shape")?;
    // The order of the indices that the second output would hold.
    if node.opset >= 8 && node.flag("storage_order", false)? {
        return Err(node.refuse("storage_order", "is 1", "0"));
    }
    Ok(Parsed::plain(MaxPool { window: window(node, node.opset >= 10, node.opset >= 10)? }, node))
}

pub(super) fn average_pool(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    node.required_ints("kernel_shape")?;
    let count_include_pad = node.flag("count_include_pad", false)?;
    Ok(Parsed::plain(
        AveragePool { window: window(node, node.opset >= 19, node.opset >= 10)?, count_include_pad },
        node,
    ))
}

pub(super) fn global_average_pool(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(GlobalAveragePool, node))
}

pub(super) fn global_max_pool(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(GlobalMaxPool, node))
}

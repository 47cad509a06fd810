//! ReduceMax and its relatives: axes are an attribute before opset 18, an input from then on.

use privet_graph::Tensor;
use privet_graph::ops::{ReduceMax, Reduction};

use crate::OnnxError;
use crate::node::{NodeReader, Operand, Parsed};

pub(super) fn reduce_max(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    parse(node, Reduction::Max)
}

pub(super) fn reduce_min(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    parse(node, Reduction::Min)
}

pub(super) fn reduce_l1(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    parse(node, Reduction::L1)
}

pub(super) fn reduce_sum_square(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    parse(node, Reduction::SumSquare)
}

fn parse(node: &NodeReader<'_>, reduction: Reduction) -> Result<Parsed, OnnxError> {
    let keep_dims = node.flag("keepdims", true)?;
    if node.opset >= 18 {
        node.expect_inputs(1, 2)?;
        let noop_with_empty_axes = node.flag("noop_with_empty_axes", false)?;
        return Ok(Parsed::plain(ReduceMax { reduction, keep_dims, noop_with_empty_axes }, node));
    }
    node.expect_inputs(1, 1)?;
    let axes = node.ints("axes")?.map_or(Operand::Missing, |v| Operand::Constant(Tensor::from_ints(v)));
    let op = ReduceMax { reduction, keep_dims, noop_with_empty_axes: false };
    Ok(Parsed::with(op, vec![Operand::Input(0), axes]))
}

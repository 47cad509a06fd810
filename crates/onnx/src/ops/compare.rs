//! Comparisons, connectives and choices.

use privet_graph::ops::{ArgMax, Compare, Connective, Logic, Max, Min, Not, Relation, Where};

use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn and(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    logic(node, Connective::And)
}

pub(super) fn arg_max(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    arg(node, false)
}

pub(super) fn arg_min(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    arg(node, true)
}

pub(super) fn equal(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    compare(node, Relation::Equal)
}

pub(super) fn greater(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    compare(node, Relation::Greater)
}

pub(super) fn greater_or_equal(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    compare(node, Relation::GreaterOrEqual)
}

pub(super) fn less(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    compare(node, Relation::Less)
}

pub(super) fn less_or_equal(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    compare(node, Relation::LessOrEqual)
}

pub(super) fn max(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    let all = node.input_count();
    node.expect_inputs(all.max(1), all.max(1))?;
    Ok(Parsed::plain(Max, node))
}

pub(super) fn min(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    let all = node.input_count();
    node.expect_inputs(all.max(1), all.max(1))?;
    Ok(Parsed::plain(Min, node))
}

pub(super) fn not(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    Ok(Parsed::plain(Not, node))
}

pub(super) fn or(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    logic(node, Connective::Or)
}

pub(super) fn where_(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(3, 3)?;
    Ok(Parsed::plain(Where, node))
}

pub(super) fn xor(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    logic(node, Connective::Xor)
}

fn arg(node: &NodeReader<'_>, smallest: bool) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let (axis, keep_dims) = (node.int("axis", 0)?, node.flag("keepdims", true)?);
    let last = node.opset >= 12 && node.flag("select_last_index", false)?;
    Ok(Parsed::plain(ArgMax { smallest, axis, keep_dims, last }, node))
}

fn compare(node: &NodeReader<'_>, relation: Relation) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    Ok(Parsed::plain(Compare { relation }, node))
}

fn logic(node: &NodeReader<'_>, connective: Connective) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    Ok(Parsed::plain(Logic { connective }, node))
}

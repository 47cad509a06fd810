//! If.

use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn branch(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let (then, otherwise) = (node.required_graph("then_branch")?, node.required_graph("else_branch")?);
    Ok(Parsed::Branches([then, otherwise]))
}

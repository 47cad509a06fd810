//! BatchNormalization, at inference only.

use privet_graph::ops::BatchNormalization;

use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn batch_normalization(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(5, 5)?;
    // More outputs than one mean training in every version.
    node.expect_one_output("training outputs")?;
    let epsilon = node.float("epsilon", 1e-5)?;
    // Weighs running statistics, in training only.
    node.ignore("momentum");
    if node.opset < 9 && !node.flag("spatial", true)? {
        return Err(node.refuse("spatial", "is 0", "1"));
    }
    if node.opset >= 14 && node.flag("training_mode", false)? {
        return Err(node.refuse("training_mode", "is 1", "0"));
    }
    Ok(Parsed::plain(BatchNormalization { epsilon }, node))
}

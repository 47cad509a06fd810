//! Dropout, which does nothing at inference.

use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};
use privet_graph::Tensor;
use privet_graph::ops::{ConstantOfShape, Identity, Shape};

use crate::OnnxError;
use crate::node::{NodeReader, Operand, Parsed};

pub(super) fn dropout(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    if node.opset < 12 {
        node.expect_inputs(1, 1)?;
        node.ignore("ratio");
    } else {
        node.expect_inputs(1, 3)?;
        node.ignore("seed");
        let off = |t: &Tensor| matches!(t, Tensor::Bool(flags) if all_false(flags));
        if node.has_input(2) && !node.constant(2).is_some_and(off) {
            return Err(node.operands("training_mode", "missing, or the constant false", "something else"));
        }
    }
    // What is kept: everything.
    let shape = Operand::computed(Shape { start: 0, end: None }, vec![Operand::Input(0)]);
    let kept = ArrayD::from_elem(IxDyn(&[1]), true);
    let mask = ConstantOfShape { value: kept.into() };
    Ok(Parsed::Each(vec![(Arc::new(Identity), vec![Operand::Input(0)]), (Arc::new(mask), vec![shape])]))
}

fn all_false(flags: &ArrayD<bool>) -> bool {
    flags.iter().all(|f| !f)
}

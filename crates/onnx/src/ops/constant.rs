//! Constant, ConstantOfShape and Range.

use ndarray::{ArrayD, IxDyn};
use privet_graph::Tensor;
use privet_graph::ops::{ConstantOfShape, Range};

use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn constant(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(0, 0)?;
    let mut forms = vec![node.tensor("value")?];
    if node.opset >= 12 {
        forms.push(node.optional_float("value_float")?.map(Tensor::from_scalar));
        forms.push(node.optional_int("value_int")?.map(|v| ArrayD::from_elem(IxDyn(&[]), v).into()));
        forms.push(node.ints("value_ints")?.map(Tensor::from_ints));
        let list =
            |v: Vec<f32>| ArrayD::from_shape_vec(IxDyn(&[v.len()]), v).expect("the shape is the length");
        forms.push(node.floats("value_floats")?.map(|v| list(v).into()));
    }
    // Whatever else the node says instead is refused by name first.
    node.finish()?;
    let mut given = forms.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(value), None) => Ok(Parsed::Constant(value)),
        _ => Err(node.refuse("value", "is not given exactly once", "one value")),
    }
}

pub(super) fn constant_of_shape(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let value = node.tensor("value")?.unwrap_or_else(|| Tensor::from_scalar(0.0));
    Ok(Parsed::plain(ConstantOfShape { value }, node))
}

pub(super) fn range(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(3, 3)?;
    Ok(Parsed::plain(Range, node))
}

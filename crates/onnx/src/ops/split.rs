//! Split: the lengths are an attribute before opset 13, an input from then on; opset 18 names the number of parts.

use privet_graph::Tensor;
use privet_graph::ops::Split;

use crate::OnnxError;
use crate::node::{NodeReader, Operand, Parsed};

pub(super) fn split_7(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let lengths = node.ints("split")?.map_or(Operand::Missing, |v| Operand::Constant(Tensor::from_ints(v)));
    let op = Split { axis: node.int("axis", 0)?, parts: node.output_count(), uneven: false };
    Ok(Parsed::results(op, vec![Operand::Input(0), lengths]))
}

pub(super) fn split_13(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 2)?;
    let (mut parts, mut uneven) = (node.output_count(), false);
    if node.opset >= 18 {
        let count = node.optional_int("num_outputs")?;
        if count.is_some() == node.has_input(1) {
            return Err(node.refuse(
                "num_outputs",
                if count.is_some() { "stands next to lengths" } else { "is missing, like lengths" },
                "one of the two",
            ));
        }
        if let Some(count) = count {
            // Trailing results may go without a name.
            let named = parts..=1 << 16;
            parts = usize::try_from(count)
                .ok()
                .filter(|p| named.contains(p))
                .ok_or_else(|| node.refuse("num_outputs", &format!("is {count}"), "the number of results"))?;
            uneven = true;
        }
    }
    let op = Split { axis: node.int("axis", 0)?, parts, uneven };
    Ok(Parsed::results(op, vec![Operand::Input(0), Operand::Input(1)]))
}

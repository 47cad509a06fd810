//! Sum, and what all sums share.

use ndarray::{ArrayD, IxDyn};
use privet_plan::WireId;

use crate::{Args, DType, Fact, Lowering, OpError, Operator, Tensor, broadcast};

/// Sum of all operands with broadcasting.
#[derive(Debug, Clone, Copy)]
pub struct Sum;

impl Operator for Sum {
    fn name(&self) -> &'static str {
        "Sum"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        inputs.float(0, "operands")?;
        elementwise_facts(inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let mut sum = inputs.get(0, "operands")?.clone();
        for operand in &inputs.all()?[1..] {
            sum = broadcast::zip(&sum, operand, |a, b| a + b, i64::checked_add)?;
        }
        Ok(vec![sum])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let signs = vec![1; ctx.operands().len()];
        Ok(vec![sum_of(ctx, &signs)?])
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        inputs.len() == 1
    }
}

/// Facts of an elementwise operator: one element type, broadcast shape.
pub(super) fn elementwise_facts(inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
    let all = inputs.all()?;
    let Some(first) = all.first() else { return Err(OpError::mismatch("operands", "at least one", 0)) };
    let mut shape = Vec::new();
    for fact in &all {
        if fact.dtype != first.dtype || fact.dtype == DType::Bool {
            return Err(OpError::mismatch(
                "element types",
                "all float32 or all int64",
                format!("{:?} and {:?}", first.dtype, fact.dtype),
            ));
        }
        shape = broadcast::shape(&shape, &fact.shape)?;
    }
    Ok(vec![Fact::new(first.dtype, shape)])
}

/// Lowers `Σ signs[i] · operand i`: one combination of all that depends on the inputs, and one private addend.
pub(super) fn sum_of(ctx: &mut Lowering<'_>, signs: &[i64]) -> Result<WireId, OpError> {
    let shape = ctx.shape().to_vec();
    let mut terms = Vec::new();
    let mut addend: Option<ArrayD<f64>> = None;
    for (i, &sign) in signs.iter().enumerate() {
        if let Some(constant) = ctx.numbers(i)? {
            let signed = constant * sign as f64;
            addend = Some(match addend {
                Some(sum) => sum + signed,
                None => signed,
            });
        } else {
            let wire = ctx.wire(i, "operand")?;
            terms.push((ctx.broadcast(wire, &shape)?, sign));
        }
    }
    let sum = match terms.as_slice() {
        [] => {
            return Err(OpError::unsupported(
                "a sum of constants",
                "a value that depends on the model's input",
            ));
        }
        [(wire, 1)] => *wire,
        _ => ctx.combine(&terms, 0)?,
    };
    match addend {
        None => Ok(sum),
        Some(values) => {
            debug_assert!(values.broadcast(IxDyn(&shape)).is_some(), "the facts broadcast every operand");
            ctx.add_param(sum, "addend", &values)
        }
    }
}

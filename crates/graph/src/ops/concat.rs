//! Concat.

use ndarray::{ArrayD, ArrayViewD, Axis};
use privet_plan::WireId;

use crate::tensor::axis;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// Joins operands along an axis.
#[derive(Debug, Clone, Copy)]
pub struct Concat {
    /// The axis; negative ones count from the end.
    pub axis: i64,
}

impl Operator for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let all = inputs.all()?;
        let first = inputs.get(0, "operands")?;
        let axis = axis("axis", self.axis, first.shape.len())?;
        let mut shape = first.shape.clone();
        shape[axis] = 0;
        for fact in all {
            let fits = fact.shape.len() == shape.len()
                && (0..shape.len()).all(|a| a == axis || fact.shape[a] == shape[a])
                && fact.dtype == first.dtype;
            if !fits {
                return Err(OpError::mismatch(
                    "operands",
                    format!("{:?} {:?} but for axis {axis}", first.dtype, first.shape),
                    format!("{:?} {:?}", fact.dtype, fact.shape),
                ));
            }
            shape[axis] = shape[axis].saturating_add(fact.shape[axis]);
        }
        Ok(vec![Fact::new(first.dtype, shape)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let all = inputs.all()?;
        let first = inputs.get(0, "operands")?;
        let axis = axis("axis", self.axis, first.shape().len())?;
        Ok(vec![match first {
            Tensor::F32(_) => join(axis, all.iter().map(|t| t.floats("operands")).collect::<Result<_, _>>()?)?.into(),
            Tensor::I64(_) => join(axis, all.iter().filter_map(|t| ints(t)).collect())?.into(),
            Tensor::Bool(_) => join(axis, all.iter().filter_map(|t| bools(t)).collect())?.into(),
        }])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let axis = axis("axis", self.axis, ctx.shape().len())?;
        let operands = ctx.operands().len();
        let wires = (0..operands).map(|i| ctx.wire(i, "operand")).collect::<Result<Vec<_>, _>>()?;
        Ok(vec![ctx.concat(&wires, axis)?])
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        inputs.len() == 1
    }
}

fn ints(t: &Tensor) -> Option<&ArrayD<i64>> {
    if let Tensor::I64(a) = t { Some(a) } else { None }
}

fn bools(t: &Tensor) -> Option<&ArrayD<bool>> {
    if let Tensor::Bool(a) = t { Some(a) } else { None }
}

fn join<T: Clone>(axis: usize, parts: Vec<&ArrayD<T>>) -> Result<ArrayD<T>, OpError> {
    let views: Vec<ArrayViewD<'_, T>> = parts.into_iter().map(|a| a.view()).collect();
    let joined = ndarray::concatenate(Axis(axis), &views);
    let joined = joined.map_err(|e| OpError::mismatch("operands", "shapes that join", e))?;
    Ok(joined.as_standard_layout().into_owned())
}

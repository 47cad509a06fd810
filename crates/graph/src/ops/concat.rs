//! Concat.

use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, Slice};
use privet_plan::{Op, WireId};

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
            Tensor::F32(_) => {
                join(axis, all.iter().map(|t| t.floats("operands")).collect::<Result<_, _>>()?)?.into()
            }
            Tensor::I64(_) => join(axis, all.iter().filter_map(|t| ints(t)).collect())?.into(),
            Tensor::Bool(_) => join(axis, all.iter().filter_map(|t| bools(t)).collect())?.into(),
        }])
    }

    /// A constant operand becomes padding of its neighbour and a private addend.
    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let axis = axis("axis", self.axis, ctx.shape().len())?;
        let mut wires: Vec<WireId> = Vec::new();
        let mut zeros_before = 0;
        let mut addend = ArrayD::<f64>::zeros(IxDyn(ctx.shape()));
        let mut at = 0;
        for i in 0..ctx.operands().len() {
            let length = ctx.operands().get(i, "operands")?.shape[axis];
            if let Some(constant) = ctx.numbers(i)? {
                addend.slice_axis_mut(Axis(axis), Slice::from(at..at + length)).assign(&constant);
                match wires.last_mut() {
                    Some(last) => *last = padded(ctx, *last, axis, 0, length),
                    None => zeros_before += length,
                }
            } else {
                let wire = ctx.wire(i, "operand")?;
                wires.push(padded(ctx, wire, axis, std::mem::take(&mut zeros_before), 0));
            }
            at += length;
        }
        let joined = ctx.concat(&wires, axis)?;
        if addend.iter().all(|&v| v == 0.0) {
            return Ok(vec![joined]);
        }
        Ok(vec![ctx.add_param(joined, "constant", &addend)?])
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        inputs.len() == 1
    }
}

fn padded(ctx: &mut Lowering<'_>, wire: WireId, axis: usize, before: usize, after: usize) -> WireId {
    if before + after == 0 {
        return wire;
    }
    let mut shape = ctx.shape_of(wire).to_vec();
    let mut begin = vec![0; shape.len()];
    begin[axis] = before as u32;
    shape[axis] += before + after;
    ctx.layout(Op::Pad { before: begin }, wire, shape)
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

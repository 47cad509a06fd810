//! Where.

use ndarray::{ArrayD, IxDyn, Zip};
use privet_plan::{Op, WireId};

use super::logic::{bools, expect_bool};
use crate::{Args, DType, Fact, Lowering, OpError, Operator, Tensor, broadcast};

/// Elements of operand 1 where operand 0 is true, else of operand 2, with broadcasting.
#[derive(Debug, Clone, Copy)]
pub struct Where;

impl Operator for Where {
    fn name(&self) -> &'static str {
        "Where"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let (condition, x, y) = (inputs.get(0, "condition")?, inputs.get(1, "X")?, inputs.get(2, "Y")?);
        expect_bool(condition, "condition")?;
        if x.dtype != y.dtype {
            return Err(OpError::mismatch("Y", format!("{:?}", x.dtype), format!("{:?}", y.dtype)));
        }
        let shape = broadcast::shape(&broadcast::shape(&condition.shape, &x.shape)?, &y.shape)?;
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let condition = bools(inputs.get(0, "condition")?, "condition")?;
        Ok(vec![match (inputs.get(1, "X")?, inputs.get(2, "Y")?) {
            (Tensor::F32(x), Tensor::F32(y)) => choose(condition, x, y)?.into(),
            (Tensor::I64(x), Tensor::I64(y)) => choose(condition, x, y)?.into(),
            (Tensor::Bool(x), Tensor::Bool(y)) => choose(condition, x, y)?.into(),
            (x, y) => {
                return Err(OpError::mismatch("Y", format!("{:?}", x.dtype()), format!("{:?}", y.dtype())));
            }
        }])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let y = match ctx.numbers(0)? {
            Some(mask) => by_constant(ctx, &mask)?,
            None => by_wire(ctx)?,
        };
        Ok(vec![y])
    }
}

/// `y + c·(x - y)`, exact at any scale.
fn by_wire(ctx: &mut Lowering<'_>) -> Result<WireId, OpError> {
    let shape = ctx.shape();
    let condition = ctx.wire(0, "condition")?;
    let condition = ctx.broadcast(condition, shape)?;
    match (ctx.numbers(1)?, ctx.numbers(2)?) {
        (Some(x), Some(y)) => {
            // The difference of what is encoded, so that both values come out as they would alone.
            let frac_bits = if ctx.operands().get(1, "X")?.dtype == DType::F32 { ctx.base() } else { 0 };
            let one = f64::from(frac_bits).exp2();
            let rounded = |v: f64| (v * one).round() / one;
            let difference = broadcast::zip_arrays_of(&x, &y, |x, y| rounded(x) - rounded(y))?;
            let factor = ctx.param("difference", &difference, frac_bits)?;
            let chosen = ctx.emit(Op::Scale { factor }, &[condition], shape.to_vec(), frac_bits);
            ctx.add_param(chosen, "otherwise", &y)
        }
        (None, Some(y)) => {
            let x = ctx.wire(1, "X")?;
            let x = ctx.broadcast(x, shape)?;
            let difference = ctx.add_param(x, "difference", &y.mapv(|v| -v))?;
            let chosen = ctx.masked_by(condition, difference);
            ctx.add_param(chosen, "otherwise", &y)
        }
        (x, None) => {
            let y = ctx.wire(2, "Y")?;
            let y = ctx.broadcast(y, shape)?;
            let difference = match x {
                Some(x) => {
                    let negative = ctx.negate(y)?;
                    ctx.add_param(negative, "difference", &x)?
                }
                None => {
                    let x = ctx.wire(1, "X")?;
                    let x = ctx.broadcast(x, shape)?;
                    ctx.combine(&[(x, 1), (y, -1)], 0)?
                }
            };
            let chosen = ctx.masked_by(condition, difference);
            ctx.combine(&[(y, 1), (chosen, 1)], 0)
        }
    }
}

/// Private factors of 0 and 1 without fractional bits, and what the constant branch adds.
fn by_constant(ctx: &mut Lowering<'_>, mask: &ArrayD<f64>) -> Result<WireId, OpError> {
    let shape = ctx.shape();
    let mut kept = Vec::new();
    let mut addend: Option<ArrayD<f64>> = None;
    for (i, what) in [(1, "X"), (2, "Y")] {
        let mask = if i == 1 { mask.clone() } else { mask.mapv(|v| 1.0 - v) };
        match ctx.numbers(i)? {
            Some(values) => {
                let chosen = |m: f64, v: f64| if m == 0.0 { 0.0 } else { v };
                addend = Some(broadcast::zip_arrays_of(&mask, &values, chosen)?);
            }
            None => {
                let wire = ctx.wire(i, what)?;
                let wire = ctx.broadcast(wire, shape)?;
                let factor = ctx.param(what, &mask, 0)?;
                kept.push((ctx.layout(Op::Scale { factor }, wire, shape.to_vec()), 1));
            }
        }
    }
    let sum = if let [(only, _)] = kept[..] { only } else { ctx.combine(&kept, 0)? };
    match addend {
        None => Ok(sum),
        Some(values) => ctx.add_param(sum, "otherwise", &values),
    }
}

fn choose<T: Copy>(condition: &ArrayD<bool>, x: &ArrayD<T>, y: &ArrayD<T>) -> Result<ArrayD<T>, OpError> {
    let shape = broadcast::shape(&broadcast::shape(condition.shape(), x.shape())?, y.shape())?;
    let wrong = || OpError::mismatch("operands", "shapes that broadcast", "others");
    let condition = condition.broadcast(IxDyn(&shape)).ok_or_else(wrong)?;
    let x = x.broadcast(IxDyn(&shape)).ok_or_else(wrong)?;
    let y = y.broadcast(IxDyn(&shape)).ok_or_else(wrong)?;
    Ok(Zip::from(condition).and(x).and(y).map_collect(|&c, &x, &y| if c { x } else { y }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn all_three_operands_broadcast() {
        let condition: Tensor = array(&[2, 1], vec![true, false]).into();
        let x: Tensor = array(&[2], vec![1.0f32, 2.0]).into();
        let y = Tensor::from_scalar(-1.0);
        let found = Where.eval(Args(&[Some(&condition), Some(&x), Some(&y)])).unwrap();
        assert_eq!(found[0], array(&[2, 2], vec![1.0f32, 2.0, -1.0, -1.0]).into());
    }
}

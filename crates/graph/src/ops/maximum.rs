//! Max and Min of several tensors.

use ndarray::ArrayD;
use privet_plan::WireId;

use super::relu::relu_shifted;
use super::sum::elementwise_facts;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor, broadcast};

/// The largest of the operands, with broadcasting.
#[derive(Debug, Clone, Copy)]
pub struct Max;

/// The smallest of the operands, with broadcasting.
#[derive(Debug, Clone, Copy)]
pub struct Min;

impl Operator for Max {
    fn name(&self) -> &'static str {
        "Max"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        elementwise_facts(inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        fold(inputs, |a, b| if a > b || a.is_nan() { a } else { b }, i64::max)
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        extreme(ctx, 1)
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        inputs.len() == 1
    }
}

impl Operator for Min {
    fn name(&self) -> &'static str {
        "Min"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        elementwise_facts(inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        fold(inputs, |a, b| if a < b || a.is_nan() { a } else { b }, i64::min)
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        extreme(ctx, -1)
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        inputs.len() == 1
    }
}

fn fold(
    inputs: Args<'_, Tensor>,
    f: impl Fn(f32, f32) -> f32,
    g: impl Fn(i64, i64) -> i64,
) -> Result<Vec<Tensor>, OpError> {
    let mut best = inputs.get(0, "operands")?.clone();
    for operand in &inputs.all()?[1..] {
        best = broadcast::zip(&best, operand, &f, |a, b| Some(g(a, b)))?;
    }
    Ok(vec![best])
}

/// `a + s·relu(s·(b - a))` with sign s, in a balanced tree with one step per level; all constants are folded to one.
fn extreme(ctx: &mut Lowering<'_>, sign: i64) -> Result<Vec<WireId>, OpError> {
    let shape = ctx.shape();
    let mut wires = Vec::new();
    let mut constant: Option<ArrayD<f64>> = None;
    for i in 0..ctx.operands().len() {
        if let Some(values) = ctx.numbers(i)? {
            constant = Some(match constant {
                None => values,
                Some(before) => {
                    let s = sign as f64;
                    broadcast::zip_arrays_of(&before, &values, |a, b| s * (s * a).max(s * b))?
                }
            });
        } else {
            let wire = ctx.wire(i, "operand")?;
            wires.push(ctx.broadcast(wire, shape)?);
        }
    }
    wires = ctx.at_common_scale(&wires)?;
    if wires.is_empty() {
        ctx.wire(0, "every operand")?;
    }
    while wires.len() > 1 || constant.is_some() {
        let mut differences = Vec::new();
        for pair in wires.chunks(2) {
            match (pair, constant.as_ref()) {
                (&[a, b], _) => differences.push(ctx.combine(&[(b, sign), (a, -sign)], 0)?),
                (&[a], Some(values)) => {
                    let difference = ctx.combine(&[(a, -sign)], 0)?;
                    let values = values * sign as f64;
                    differences.push(ctx.add_param(difference, "constant", &values)?);
                }
                _ => {}
            }
        }
        if !wires.len().is_multiple_of(2) {
            constant = None;
        }
        let above = ctx.joined(&differences, |ctx, d| relu_shifted(ctx, d, 0))?;
        let mut winners = Vec::with_capacity(wires.len().div_ceil(2));
        for (i, pair) in wires.chunks(2).enumerate() {
            winners.push(match above.get(i) {
                Some(&above) => ctx.combine(&[(pair[0], 1), (above, sign)], 0)?,
                None => pair[0],
            });
        }
        wires = winners;
    }
    Ok(wires)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn several_operands_of_either_type() {
        let a: Tensor = array(&[2], vec![1.0f32, -2.0]).into();
        let b: Tensor = array(&[2, 1], vec![0.0f32, 3.0]).into();
        let y = Max.eval(Args(&[Some(&a), Some(&b), Some(&a)])).unwrap();
        assert_eq!(y[0], array(&[2, 2], vec![1.0f32, 0.0, 3.0, 3.0]).into());
        let y = Min.eval(Args(&[Some(&a), Some(&b)])).unwrap();
        assert_eq!(y[0], array(&[2, 2], vec![0.0f32, -2.0, 1.0, -2.0]).into());
        let (a, b) = (Tensor::from_ints(vec![1]), Tensor::from_ints(vec![-1]));
        assert_eq!(Min.eval(Args(&[Some(&a), Some(&b)])).unwrap()[0], b);
    }
}

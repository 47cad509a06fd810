//! Linear: the normal form of Gemm and MatMul with a constant factor.

use ndarray::ArrayView2;
use privet_plan::{Op, WireId};

use crate::tensor::{array, contiguous};
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// x `[.., k]` times a constant w `[k, n]` plus an optional constant bias `[n]`.
#[derive(Debug, Clone, Copy)]
pub struct Linear;

impl Operator for Linear {
    fn name(&self) -> &'static str {
        "Linear"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let (x, w) = (inputs.float(0, "input")?, inputs.float(1, "weight")?);
        let (Some((last, rest)), &[k, n]) = (x.shape.split_last(), w.shape.as_slice()) else {
            return Err(OpError::mismatch(
                "operands",
                "[.., k] and [k, n]",
                format!("{:?} and {:?}", x.shape, w.shape),
            ));
        };
        if *last != k {
            return Err(OpError::mismatch(
                "operands",
                "[.., k] and [k, n]",
                format!("{:?} and {:?}", x.shape, w.shape),
            ));
        }
        Ok(vec![Fact::float(rest.iter().copied().chain([n]).collect())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?.floats("input")?;
        let w = inputs.get(1, "weight")?.floats("weight")?;
        let (&[k, n], Some((_, rest))) = (w.shape(), x.shape().split_last()) else {
            return Err(OpError::mismatch("weight", "[k, n]", format!("{:?}", w.shape())));
        };
        let (x_data, w_data) = (contiguous(x), contiguous(w));
        let rows: usize = rest.iter().product();
        let x2 = ArrayView2::from_shape((rows, k), &x_data).expect("facts fixed the shape");
        let w2 = ArrayView2::from_shape((k, n), &w_data).expect("facts fixed the shape");
        let mut y = x2.dot(&w2);
        if let Some(bias) = inputs.optional(2) {
            let bias = contiguous(bias.floats("bias")?).into_owned();
            y.rows_mut().into_iter().for_each(|mut row| row.iter_mut().zip(&bias).for_each(|(v, b)| *v += b));
        }
        let shape: Vec<usize> = rest.iter().copied().chain([n]).collect();
        Ok(vec![array(&shape, y.into_iter().collect()).into()])
    }

    fn work(&self, inputs: Args<'_, Fact>, results: &[Fact]) -> usize {
        let inner = inputs.optional(0).and_then(|x| x.shape.last().copied()).unwrap_or(1);
        results[0].len().saturating_mul(inner)
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        let w = ctx.weight(1, "weight")?;
        let bits = ctx.factor_bits(w);
        let x = ctx.operand(x, bits);
        // Row-major whatever transposition the weight went through.
        let weight = ctx.param("weight", w, bits)?;
        let pending = ctx.frac_bits(x) + bits;
        let bias = match ctx.operands().optional(2) {
            Some(_) => Some(ctx.param("bias", ctx.weight(2, "bias")?, pending)?),
            None => None,
        };
        Ok(vec![ctx.emit(Op::MatMul { weight, bias }, &[x], ctx.shape().to_vec(), pending)])
    }
}

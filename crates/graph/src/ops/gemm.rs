//! Gemm.

use ndarray::{ArrayD, IxDyn};
use privet_plan::WireId;

use super::product::{Factor, product};
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor, broadcast};

/// `alpha · A' · B' + beta · C`, A' and B' being A and B or their transposes.
#[derive(Debug, Clone, Copy)]
pub struct Gemm {
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of the addend.
    pub beta: f32,
    /// Whether A is transposed.
    pub trans_a: bool,
    /// Whether B is transposed.
    pub trans_b: bool,
}

impl Operator for Gemm {
    fn name(&self) -> &'static str {
        "Gemm"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (inputs.float(0, "A")?, inputs.float(1, "B")?);
        let (&[a0, a1], &[b0, b1]) = (a.shape.as_slice(), b.shape.as_slice()) else {
            return Err(OpError::mismatch("A and B", "matrices", format!("{:?} and {:?}", a.shape, b.shape)));
        };
        let (m, k) = if self.trans_a { (a1, a0) } else { (a0, a1) };
        let (k2, n) = if self.trans_b { (b1, b0) } else { (b0, b1) };
        if k != k2 {
            return Err(OpError::mismatch("B", format!("{k} as its inner dimension"), k2));
        }
        let shape = vec![m, n];
        if let Some(c) = inputs.optional(2) {
            c.expect_float("C")?;
            if broadcast::shape(&shape, &c.shape)? != shape {
                return Err(OpError::mismatch(
                    "C",
                    format!("a shape that broadcasts to {shape:?}"),
                    format!("{:?}", c.shape),
                ));
            }
        }
        Ok(vec![Fact::float(shape)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let matrix = |i: usize, what, transpose: bool| {
            let m = inputs.get(i, what)?.floats(what)?.view();
            let m = m.into_dimensionality::<ndarray::Ix2>();
            let m = m.map_err(|e| OpError::mismatch(what, "a matrix", e))?;
            Ok(if transpose { m.reversed_axes() } else { m })
        };
        let y = matrix(0, "A", self.trans_a)?.dot(&matrix(1, "B", self.trans_b)?) * self.alpha;
        let y = y.into_dyn();
        Ok(vec![match inputs.optional(2) {
            Some(c) => (y + c.floats("C")? * self.beta).into(),
            None => y.into(),
        }])
    }

    fn work(&self, inputs: Args<'_, Fact>, results: &[Fact]) -> usize {
        let axis = usize::from(!self.trans_a);
        let inner = inputs.optional(0).and_then(|a| a.shape.get(axis).copied()).unwrap_or(1);
        results[0].len().saturating_mul(inner)
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        // A product with one constant was brought to the form `Linear` before, unless C needs a factor.
        let swapped = |ctx: &mut Lowering<'_>, factor: Factor, swap: bool| {
            if swap { factor.swap_last(ctx) } else { factor }
        };
        let (a, b) = (Factor::operand(ctx, 0, "A")?, Factor::operand(ctx, 1, "B")?);
        let (a, b) = (swapped(ctx, a, self.trans_a), swapped(ctx, b, self.trans_b));
        let scaled = |w: ArrayD<f32>| Factor::Constant(w * self.alpha);
        let y = match (a, b) {
            (Factor::Constant(a), Factor::Constant(b)) => {
                let matrix = |m: ArrayD<f32>| m.into_dimensionality::<ndarray::Ix2>();
                let (Ok(a), Ok(b)) = (matrix(a), matrix(b)) else {
                    return Err(OpError::mismatch("A and B", "matrices", "others"));
                };
                let c = self.addend(ctx)?;
                return Ok(vec![ctx.add_param(c, "product", &(a.dot(&b) * self.alpha).into_dyn())?]);
            }
            (Factor::Constant(a), b) => product(ctx, scaled(a), b)?,
            (a, Factor::Constant(b)) => product(ctx, a, scaled(b))?,
            (a, b) => {
                let y = product(ctx, a, b)?;
                if self.alpha == 1.0 { y } else { ctx.scale(y, "alpha", &scalar(self.alpha))? }
            }
        };
        if ctx.operands().optional(2).is_none() || self.beta == 0.0 {
            return Ok(vec![y]);
        }
        if let Some(c) = ctx.constant(2) {
            return Ok(vec![ctx.add_param(y, "bias", &(c * self.beta))?]);
        }
        let c = self.addend(ctx)?;
        Ok(vec![ctx.combine(&[(y, 1), (c, 1)], 0)?])
    }
}

impl Gemm {
    /// The wire of `beta · C`, with the result's shape.
    fn addend(&self, ctx: &mut Lowering<'_>) -> Result<WireId, OpError> {
        let c = ctx.wire(2, "C")?;
        let c = if self.beta == 1.0 { c } else { ctx.scale(c, "beta", &scalar(self.beta))? };
        let shape = ctx.shape();
        ctx.broadcast(c, shape)
    }
}

fn scalar(value: f32) -> ArrayD<f32> {
    ArrayD::from_elem(IxDyn(&[]), value)
}

//! MatMul.

use ndarray::{ArrayView2, Axis};
use privet_plan::WireId;

use super::product::{Factor, product};
use crate::tensor::{array, contiguous};
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor, broadcast, element_count};

/// Matrix product with numpy's rules for vectors and batches.
#[derive(Debug, Clone, Copy)]
pub struct MatMul;

impl Operator for MatMul {
    fn name(&self) -> &'static str {
        "MatMul"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (inputs.float(0, "A")?, inputs.float(1, "B")?);
        Ok(vec![Fact::float(Geometry::of(&a.shape, &b.shape)?.result())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (inputs.get(0, "A")?.floats("A")?, inputs.get(1, "B")?.floats("B")?);
        let geometry = Geometry::of(a.shape(), b.shape())?;
        let Geometry { batch, m, k, n, .. } = &geometry;
        let a = if a.ndim() == 1 { a.view().insert_axis(Axis(0)) } else { a.view() };
        let b = if b.ndim() == 1 { b.view().insert_axis(Axis(1)) } else { b.view() };
        let (a_full, b_full) =
            ([batch.as_slice(), &[*m, *k]].concat(), [batch.as_slice(), &[*k, *n]].concat());
        element_count("broadcast A", &a_full)?;
        element_count("broadcast B", &b_full)?;
        let a = a.broadcast(a_full).map(|v| v.to_owned());
        let b = b.broadcast(b_full).map(|v| v.to_owned());
        let (Some(a), Some(b)) = (a, b) else {
            return Err(OpError::mismatch("operands", "batches that broadcast", "others"));
        };
        let (a, b) = (contiguous(&a), contiguous(&b));
        let mut y: Vec<f32> = Vec::with_capacity(geometry.result().iter().product());
        for i in 0..batch.iter().product() {
            let left = ArrayView2::from_shape((*m, *k), &a[i * m * k..(i + 1) * m * k]);
            let right = ArrayView2::from_shape((*k, *n), &b[i * k * n..(i + 1) * k * n]);
            let product =
                left.expect("the slice is one matrix").dot(&right.expect("the slice is one matrix"));
            y.extend(product.iter());
        }
        Ok(vec![array(&geometry.result(), y).into()])
    }

    fn work(&self, inputs: Args<'_, Fact>, results: &[Fact]) -> usize {
        let inner = inputs.optional(0).and_then(|a| a.shape.last().copied()).unwrap_or(1);
        results[0].len().saturating_mul(inner)
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        // Most products with a constant matrix were brought to the form `Linear` before.
        let (a, b) = (Factor::operand(ctx, 0, "A")?, Factor::operand(ctx, 1, "B")?);
        let as_matrix = |ctx: &mut Lowering<'_>, factor: Factor, row: bool| match factor.shape(ctx)[..] {
            [k] if row => factor.reshape(ctx, &[1, k]),
            [k] => factor.reshape(ctx, &[k, 1]),
            _ => factor,
        };
        let (a, b) = (as_matrix(ctx, a, true), as_matrix(ctx, b, false));
        let y = product(ctx, a, b)?;
        let shape = ctx.shape();
        Ok(vec![ctx.reshape(y, shape)])
    }
}

/// Dimensions of a matrix product.
struct Geometry {
    batch: Vec<usize>,
    m: usize,
    k: usize,
    n: usize,
    a_is_vector: bool,
    b_is_vector: bool,
}

impl Geometry {
    fn of(a: &[usize], b: &[usize]) -> Result<Self, OpError> {
        let wrong = || OpError::mismatch("operands", "[.., m, k] and [.., k, n]", format!("{a:?} and {b:?}"));
        let (a_batch, m, k) = match a {
            [] => return Err(wrong()),
            [k] => (&[][..], 1, *k),
            [batch @ .., m, k] => (batch, *m, *k),
        };
        let (b_batch, k2, n) = match b {
            [] => return Err(wrong()),
            [k] => (&[][..], *k, 1),
            [batch @ .., k, n] => (batch, *k, *n),
        };
        if k != k2 {
            return Err(wrong());
        }
        let batch = broadcast::shape(a_batch, b_batch)?;
        Ok(Self { batch, m, k, n, a_is_vector: a.len() == 1, b_is_vector: b.len() == 1 })
    }

    fn result(&self) -> Vec<usize> {
        let mut shape = self.batch.clone();
        if !self.a_is_vector {
            shape.push(self.m);
        }
        if !self.b_is_vector {
            shape.push(self.n);
        }
        shape
    }
}

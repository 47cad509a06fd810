//! Pow.

use ndarray::{ArrayD, IxDyn};
use privet_plan::WireId;

use crate::{Args, DType, Fact, Lowering, OpError, Operator, Tensor, broadcast};

/// `a ^ b` with broadcasting, of a's element type; lowers when b is a constant 1, 2, 3 or 4 throughout.
#[derive(Debug, Clone, Copy)]
pub struct Pow;

impl Operator for Pow {
    fn name(&self) -> &'static str {
        "Pow"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let (x, exponent) = (inputs.get(0, "X")?, inputs.get(1, "Y")?);
        if x.dtype == DType::Bool || exponent.dtype == DType::Bool {
            return Err(OpError::mismatch("element types", "numbers", "truth values"));
        }
        Ok(vec![Fact::new(x.dtype, broadcast::shape(&x.shape, &exponent.shape)?)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let (x, exponent) = (inputs.get(0, "X")?, inputs.get(1, "Y")?);
        let shape = broadcast::shape(x.shape(), exponent.shape())?;
        Ok(vec![match (x, exponent) {
            (Tensor::F32(a), Tensor::F32(b)) => zip(a, b, &shape, f32::powf).into(),
            (Tensor::F32(a), Tensor::I64(b)) => zip(a, b, &shape, |a, b| a.powf(b as f32)).into(),
            (Tensor::I64(a), Tensor::F32(b)) => {
                zip(a, b, &shape, |a, b| (a as f64).powf(f64::from(b)) as i64).into()
            }
            (Tensor::I64(a), Tensor::I64(b)) => {
                zip(a, b, &shape, |a, b| (a as f64).powf(b as f64) as i64).into()
            }
            _ => return Err(OpError::mismatch("element types", "numbers", "truth values")),
        }])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let supported = "constant exponents 1, 2, 3, 4, the same for all elements";
        let exponents: Vec<f64> = match ctx.operands().get(1, "Y")?.known("exponent")? {
            Tensor::F32(a) => a.iter().map(|&v| f64::from(v)).collect(),
            Tensor::I64(a) => a.iter().map(|&v| v as f64).collect(),
            Tensor::Bool(_) => return Err(OpError::mismatch("element types", "numbers", "truth values")),
        };
        let exponent = exponents.first().copied().filter(|e| exponents.iter().all(|o| o == e));
        let Some(exponent) = exponent else {
            return Err(OpError::unsupported("several exponents", supported));
        };
        let x = ctx.wire(0, "base")?;
        let y = match exponent {
            1.0 => x,
            2.0 => ctx.multiply(x, x),
            3.0 => {
                let square = ctx.multiply(x, x);
                ctx.multiply(square, x)
            }
            4.0 => {
                let square = ctx.multiply(x, x);
                ctx.multiply(square, square)
            }
            other => return Err(OpError::unsupported(format!("an exponent of {other}"), supported)),
        };
        let shape = ctx.shape();
        Ok(vec![ctx.broadcast(y, shape)?])
    }
}

fn zip<A: Copy, B: Copy>(a: &ArrayD<A>, b: &ArrayD<B>, to: &[usize], f: impl Fn(A, B) -> A) -> ArrayD<A> {
    let a = a.broadcast(IxDyn(to)).expect("the shapes broadcast");
    let b = b.broadcast(IxDyn(to)).expect("the shapes broadcast");
    ndarray::Zip::from(a).and(b).map_collect(|&a, &b| f(a, b))
}

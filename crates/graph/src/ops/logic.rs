//! Not, And, Or and Xor.

use ndarray::ArrayD;
use privet_plan::{Op, WireId};

use crate::{Args, DType, Fact, Lowering, OpError, Operator, Tensor, broadcast};

/// Negation of truth values.
#[derive(Debug, Clone, Copy)]
pub struct Not;

/// What [`Logic`] computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connective {
    /// Both.
    And,
    /// At least one.
    Or,
    /// Exactly one.
    Xor,
}

/// A connective of truth values, with broadcasting.
#[derive(Debug, Clone, Copy)]
pub struct Logic {
    /// The connective.
    pub connective: Connective,
}

impl Operator for Not {
    fn name(&self) -> &'static str {
        "Not"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "X")?;
        expect_bool(x, "X")?;
        Ok(vec![Fact::new(DType::Bool, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![bools(inputs.get(0, "X")?, "X")?.mapv(|v| !v).into()])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "X")?;
        Ok(vec![ctx.combine(&[(x, -1)], 1)?])
    }
}

impl Operator for Logic {
    fn name(&self) -> &'static str {
        match self.connective {
            Connective::And => "And",
            Connective::Or => "Or",
            Connective::Xor => "Xor",
        }
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (inputs.get(0, "A")?, inputs.get(1, "B")?);
        expect_bool(a, "A")?;
        expect_bool(b, "B")?;
        Ok(vec![Fact::new(DType::Bool, broadcast::shape(&a.shape, &b.shape)?)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (bools(inputs.get(0, "A")?, "A")?, bools(inputs.get(1, "B")?, "B")?);
        let f = |a: bool, b: bool| match self.connective {
            Connective::And => a & b,
            Connective::Or => a | b,
            Connective::Xor => a ^ b,
        };
        Ok(vec![broadcast::zip_arrays_of(a, b, f)?.into()])
    }

    /// `a + b - ab` and `a + b - 2ab`; with a constant c each is an affine map of the other operand.
    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let shape = ctx.shape();
        if let Some((other, constant)) = self.constant(ctx)? {
            let x = ctx.wire(other, "operand")?;
            let x = ctx.broadcast(x, shape)?;
            let factor = match self.connective {
                Connective::And => constant.clone(),
                Connective::Or => constant.mapv(|c| 1.0 - c),
                Connective::Xor => constant.mapv(|c| 1.0 - 2.0 * c),
            };
            let factor = ctx.param("factor", &factor, 0)?;
            let scaled = ctx.layout(Op::Scale { factor }, x, shape.to_vec());
            let addend = self.connective != Connective::And;
            return Ok(vec![if addend { ctx.add_param(scaled, "addend", &constant)? } else { scaled }]);
        }
        let (a, b) = (ctx.wire(0, "A")?, ctx.wire(1, "B")?);
        let (a, b) = (ctx.broadcast(a, shape)?, ctx.broadcast(b, shape)?);
        let both = ctx.masked_by(a, b);
        Ok(vec![match self.connective {
            Connective::And => both,
            Connective::Or => ctx.combine(&[(a, 1), (b, 1), (both, -1)], 0)?,
            Connective::Xor => ctx.combine(&[(a, 1), (b, 1), (both, -2)], 0)?,
        }])
    }
}

impl Logic {
    /// The constant operand, if there is one, and the index of the other.
    fn constant(&self, ctx: &Lowering<'_>) -> Result<Option<(usize, ArrayD<f64>)>, OpError> {
        for i in 0..2 {
            if let Some(constant) = ctx.numbers(i)? {
                return Ok(Some((1 - i, constant)));
            }
        }
        Ok(None)
    }
}

/// Errors unless the elements are truth values.
pub(super) fn expect_bool(fact: &Fact, what: &'static str) -> Result<(), OpError> {
    match fact.dtype {
        DType::Bool => Ok(()),
        other => Err(OpError::mismatch(what, "bool", format!("{other:?}"))),
    }
}

/// The truth values of a tensor.
pub(super) fn bools<'a>(tensor: &'a Tensor, what: &'static str) -> Result<&'a ArrayD<bool>, OpError> {
    match tensor {
        Tensor::Bool(a) => Ok(a),
        other => Err(OpError::mismatch(what, "bool", format!("{:?}", other.dtype()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn truth_tables() {
        let a: Tensor = array(&[4], vec![false, false, true, true]).into();
        let b: Tensor = array(&[4], vec![false, true, false, true]).into();
        let of = |connective| Logic { connective }.eval(Args(&[Some(&a), Some(&b)])).unwrap().remove(0);
        let expect = |v: [u8; 4]| Tensor::from(array(&[4], v.map(|v| v == 1).to_vec()));
        assert_eq!(of(Connective::And), expect([0, 0, 0, 1]));
        assert_eq!(of(Connective::Or), expect([0, 1, 1, 1]));
        assert_eq!(of(Connective::Xor), expect([0, 1, 1, 0]));
        assert_eq!(Not.eval(Args(&[Some(&a)])).unwrap()[0], expect([1, 1, 0, 0]));
    }
}

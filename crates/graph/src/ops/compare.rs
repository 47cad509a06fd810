//! Less, LessOrEqual, Greater, GreaterOrEqual and Equal.

use privet_plan::WireId;

use super::sum::sum_of;
use crate::{Args, DType, Fact, Lowering, OpError, Operator, Tensor, broadcast};

/// A relation between two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `a < b`.
    Less,
    /// `a <= b`.
    LessOrEqual,
    /// `a > b`.
    Greater,
    /// `a >= b`.
    GreaterOrEqual,
    /// `a == b`, also of truth values.
    Equal,
}

/// Truth values of a relation, with broadcasting. Private values are compared as the fixed-point numbers they are: exactly,
/// at the finer one of two scales.
#[derive(Debug, Clone, Copy)]
pub struct Compare {
    /// The relation.
    pub relation: Relation,
}

impl Operator for Compare {
    fn name(&self) -> &'static str {
        match self.relation {
            Relation::Less => "Less",
            Relation::LessOrEqual => "LessOrEqual",
            Relation::Greater => "Greater",
            Relation::GreaterOrEqual => "GreaterOrEqual",
            Relation::Equal => "Equal",
        }
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (inputs.get(0, "A")?, inputs.get(1, "B")?);
        if a.dtype != b.dtype || (a.dtype == DType::Bool && self.relation != Relation::Equal) {
            return Err(OpError::mismatch(
                "element types",
                "two float32 or two int64 (or two bool for Equal)",
                format!("{:?} and {:?}", a.dtype, b.dtype),
            ));
        }
        Ok(vec![Fact::new(DType::Bool, broadcast::shape(&a.shape, &b.shape)?)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![match (inputs.get(0, "A")?, inputs.get(1, "B")?) {
            (Tensor::F32(a), Tensor::F32(b)) => {
                broadcast::zip_arrays_of(a, b, |a, b| self.holds(a, b))?.into()
            }
            (Tensor::I64(a), Tensor::I64(b)) => {
                broadcast::zip_arrays_of(a, b, |a, b| self.holds(a, b))?.into()
            }
            (Tensor::Bool(a), Tensor::Bool(b)) => {
                broadcast::zip_arrays_of(a, b, |a, b| self.holds(a, b))?.into()
            }
            (a, b) => {
                return Err(OpError::mismatch(
                    "element types",
                    "two of a kind",
                    format!("{:?} and {:?}", a.dtype(), b.dtype()),
                ));
            }
        }])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let difference = sum_of(ctx, &[1, -1])?;
        Ok(vec![match self.relation {
            Relation::GreaterOrEqual => ctx.non_negative(difference),
            Relation::Less => {
                let not_less = ctx.non_negative(difference);
                ctx.combine(&[(not_less, -1)], 1)?
            }
            Relation::LessOrEqual | Relation::Greater => {
                let opposite = ctx.negate(difference)?;
                let not_greater = ctx.non_negative(opposite);
                let greater = self.relation == Relation::Greater;
                if greater { ctx.combine(&[(not_greater, -1)], 1)? } else { not_greater }
            }
            Relation::Equal => {
                let [not_less, not_greater] = ctx.signs(difference)?;
                ctx.combine(&[(not_less, 1), (not_greater, 1)], -1)?
            }
        }])
    }
}

impl Compare {
    fn holds<T: PartialOrd>(&self, a: T, b: T) -> bool {
        match self.relation {
            Relation::Less => a < b,
            Relation::LessOrEqual => a <= b,
            Relation::Greater => a > b,
            Relation::GreaterOrEqual => a >= b,
            Relation::Equal => a == b,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn relations_broadcast() {
        let a: Tensor = array(&[3], vec![1.0f32, 2.0, 3.0]).into();
        let b = Tensor::from_scalar(2.0);
        let of = |relation| Compare { relation }.eval(Args(&[Some(&a), Some(&b)])).unwrap().remove(0);
        let expect = |v: [bool; 3]| Tensor::from(array(&[3], v.to_vec()));
        assert_eq!(of(Relation::Less), expect([true, false, false]));
        assert_eq!(of(Relation::LessOrEqual), expect([true, true, false]));
        assert_eq!(of(Relation::Greater), expect([false, false, true]));
        assert_eq!(of(Relation::GreaterOrEqual), expect([false, true, true]));
        assert_eq!(of(Relation::Equal), expect([false, true, false]));
    }

    #[test]
    fn truth_values_are_only_equal_or_not() {
        let bools = Fact::new(DType::Bool, vec![2]);
        let facts = |relation| Compare { relation }.facts(Args(&[Some(&bools), Some(&bools)]));
        assert!(facts(Relation::Equal).is_ok() && facts(Relation::Less).is_err());
    }
}

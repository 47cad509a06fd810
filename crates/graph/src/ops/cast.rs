//! Cast and CastLike.

use privet_plan::WireId;

use super::relu::relu_shifted;
use crate::{Args, DType, Fact, Lowering, OpError, Operator, Tensor};

/// Converts the element type; floats become integers by dropping the fraction.
///
/// Private values are the fixed-point numbers they are: what lies closer to zero than half of the last fractional bit is
/// no different from zero.
#[derive(Debug, Clone, Copy)]
pub struct Cast {
    /// The result's element type.
    pub to: DType,
}

/// Converts to the element type of operand 1.
#[derive(Debug, Clone, Copy)]
pub struct CastLike;

impl Operator for Cast {
    fn name(&self) -> &'static str {
        "Cast"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::new(self.to, inputs.get(0, "input")?.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?;
        Ok(vec![match (x, self.to) {
            (Tensor::F32(a), DType::I64) => a.mapv(|v| v as i64).into(),
            (Tensor::F32(a), DType::Bool) => a.mapv(|v| v != 0.0).into(),
            (Tensor::I64(a), DType::F32) => a.mapv(|v| v as f32).into(),
            (Tensor::I64(a), DType::Bool) => a.mapv(|v| v != 0).into(),
            (Tensor::Bool(a), DType::F32) => a.mapv(|v| f32::from(u8::from(v))).into(),
            (Tensor::Bool(a), DType::I64) => a.mapv(i64::from).into(),
            (same, _) => same.clone(),
        }])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        Ok(vec![lower(ctx, self.to)?])
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        inputs.optional(0).is_some_and(|x| x.dtype == self.to)
    }
}

impl Operator for CastLike {
    fn name(&self) -> &'static str {
        "CastLike"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        Cast { to: inputs.get(1, "target_type")?.dtype }.facts(inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        Cast { to: inputs.get(1, "target_type")?.dtype() }.eval(inputs)
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let to = ctx.operands().get(1, "target_type")?.dtype;
        Ok(vec![lower(ctx, to)?])
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        inputs.optional(1).is_some_and(|like| Cast { to: like.dtype }.is_identity(inputs))
    }
}

/// The first operand with elements of type `to`.
fn lower(ctx: &mut Lowering<'_>, to: DType) -> Result<WireId, OpError> {
    let x = ctx.wire(0, "input")?;
    let from = ctx.operands().get(0, "input")?.dtype;
    Ok(match (from, to) {
        // Whole numbers scale up; truth values are 0 and 1.
        (_, DType::F32) => ctx.at_base(x),
        (DType::F32, DType::I64) => towards_zero(ctx, x)?,
        (DType::I64 | DType::Bool, DType::I64) | (DType::Bool, DType::Bool) => x,
        // Both signs hold of zero alone.
        (DType::F32 | DType::I64, DType::Bool) => {
            let [not_negative, not_positive] = ctx.signs(x)?;
            ctx.combine(&[(not_negative, -1), (not_positive, -1)], 2)?
        }
    })
}

/// `floor(relu(x)) - floor(relu(-x))`, both in one step.
fn towards_zero(ctx: &mut Lowering<'_>, x: WireId) -> Result<WireId, OpError> {
    let shift = ctx.frac_bits(x);
    let opposite = ctx.negate(x)?;
    let whole = ctx.joined(&[x, opposite], |ctx, x| relu_shifted(ctx, x, shift))?;
    ctx.combine(&[(whole[0], 1), (whole[1], -1)], 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn fractions_are_dropped_towards_zero() {
        let x: Tensor = array(&[3], vec![-1.75f32, 0.5, 2.0]).into();
        let to = |to| Cast { to }.eval(Args(&[Some(&x)])).unwrap().remove(0);
        assert_eq!(to(DType::I64), Tensor::from_ints(vec![-1, 0, 2]));
        assert_eq!(to(DType::Bool), array(&[3], vec![true; 3]).into());
    }
}

//! Cast.

use privet_plan::WireId;

use crate::{Args, DType, Fact, Lowering, OpError, Operator, Tensor};

/// Converts the element type; floats become integers by dropping the fraction.
#[derive(Debug, Clone, Copy)]
pub struct Cast {
    /// The result's element type.
    pub to: DType,
}

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

    fn lower(&self, _ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        Err(OpError::unsupported(
            format!("a cast to {:?} of a value that depends on the model's input", self.to),
            "casts of constants, and casts that change nothing",
        ))
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        inputs.optional(0).is_some_and(|x| x.dtype == self.to)
    }
}

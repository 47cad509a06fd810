//! Sqrt.

use privet_plan::WireId;

use super::sum::elementwise_facts;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// The square root, of constants and in float.
#[derive(Debug, Clone, Copy)]
pub struct Sqrt;

impl Operator for Sqrt {
    fn name(&self) -> &'static str {
        "Sqrt"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        inputs.float(0, "X")?;
        elementwise_facts(inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![inputs.get(0, "X")?.floats("X")?.mapv(f32::sqrt).into()])
    }

    fn lower(&self, _ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        Err(OpError::unsupported("Sqrt of a value that depends on the model's input", "Sqrt of a constant"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn roots_of_floats() {
        let x: Tensor = array(&[2], vec![2.25f32, 0.0]).into();
        assert_eq!(Sqrt.eval(Args(&[Some(&x)])).unwrap()[0], array(&[2], vec![1.5f32, 0.0]).into());
        assert!(Sqrt.facts(Args(&[Some(&Fact::constant(Tensor::from_ints(vec![4]).into()))])).is_err());
    }
}

//! Tanh, Erf and Gelu: smooth functions of one value that are constant, or their operand, far from 0.
//!
//! By public tables with linear interpolation, see `Lowering::bounded`. Largest errors, the resolution of the operand and of
//! the result apart: Tanh 2e-4, Erf 6e-5, Gelu 1.5e-4. No operand leads outside a table.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use privet_plan::WireId;

use crate::lower::Far;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// Hyperbolic tangent.
#[derive(Debug, Clone, Copy)]
pub struct Tanh;

/// The error function, `2/√π · ∫ exp(-t²)` from 0 to x.
#[derive(Debug, Clone, Copy)]
pub struct Erf;

/// `x/2 · (1 + erf(x/√2))`, or its approximation by a hyperbolic tangent.
#[derive(Debug, Clone, Copy)]
pub struct Gelu {
    /// Whether it is the approximation.
    pub tanh: bool,
}

impl Operator for Tanh {
    fn name(&self) -> &'static str {
        "Tanh"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        inputs.mapped_floats()
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        eval(inputs, f64::tanh)
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        Ok(vec![ctx.bounded(x, 3, f64::tanh, Far::Constant)?])
    }
}

impl Operator for Erf {
    fn name(&self) -> &'static str {
        "Erf"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        inputs.mapped_floats()
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        eval(inputs, libm::erf)
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        Ok(vec![ctx.bounded(x, 2, libm::erf, Far::Constant)?])
    }
}

impl Operator for Gelu {
    fn name(&self) -> &'static str {
        "Gelu"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        inputs.mapped_floats()
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        eval(inputs, |x| self.of(x))
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        Ok(vec![ctx.bounded(x, 2, |x| self.of(x), Far::Rectified)?])
    }
}

impl Gelu {
    fn of(self, x: f64) -> f64 {
        let s = if self.tanh {
            (FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * (x + 0.044715 * x.powi(3))).tanh()
        } else {
            libm::erf(x * FRAC_1_SQRT_2)
        };
        x / 2.0 * (1.0 + s)
    }
}

fn eval(inputs: Args<'_, Tensor>, f: impl Fn(f64) -> f64) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0, "input")?.floats("input")?;
    Ok(vec![x.mapv(|v| f(f64::from(v)) as f32).into()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn values_are_those_of_the_definitions() {
        let x: Tensor = array(&[4], vec![-1.0f32, 0.0, 0.5, 30.0]).into();
        let close = |op: &dyn Operator, expected: [f32; 4]| {
            let y = op.eval(Args(&[Some(&x)])).unwrap();
            let y = y[0].floats("y").unwrap();
            assert!(y.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{}: {y}", op.name());
        };
        close(&Tanh, [-0.761_594_2, 0.0, 0.462_117_16, 1.0]);
        close(&Erf, [-0.842_700_8, 0.0, 0.520_499_9, 1.0]);
        close(&Gelu { tanh: false }, [-0.158_655_25, 0.0, 0.345_731_23, 30.0]);
        close(&Gelu { tanh: true }, [-0.158_808, 0.0, 0.345_714, 30.0]);
    }
}

//! BatchNormalization at inference.

use ndarray::ArrayD;
use privet_plan::WireId;

use crate::tensor::array;
use crate::{Affine, Args, Channel, Fact, Lowering, OpError, Operator, Tensor};

/// `(x - mean) / sqrt(var + epsilon) * scale + bias` per channel; operands are x, scale, bias, mean, var.
#[derive(Debug, Clone, Copy)]
pub struct BatchNormalization {
    /// Added to the variance.
    pub epsilon: f32,
}

const NAMES: [&str; 5] = ["input", "scale", "B", "mean", "var"];

impl Operator for BatchNormalization {
    fn name(&self) -> &'static str {
        "BatchNormalization"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, NAMES[0])?;
        x.expect_float(NAMES[0])?;
        let channels = *x
            .shape
            .get(1)
            .ok_or_else(|| OpError::mismatch("input", "[N, C, ..]", format!("{:?}", x.shape)))?;
        for (i, &what) in NAMES.iter().enumerate().skip(1) {
            let fact = inputs.get(i, what)?;
            fact.expect_float(what)?;
            if fact.shape != [channels] {
                return Err(OpError::mismatch(what, format!("[{channels}]"), format!("{:?}", fact.shape)));
            }
        }
        Ok(vec![Fact::float(x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, NAMES[0])?.floats(NAMES[0])?;
        let stats: Vec<&ArrayD<f32>> =
            (1..5).map(|i| inputs.get(i, NAMES[i])?.floats(NAMES[i])).collect::<Result<_, _>>()?;
        let Affine { scale, shift } = self.affine_of(&stats);
        let (scale, shift) = (per_channel(&scale, x.ndim()), per_channel(&shift, x.ndim()));
        Ok(vec![(x * &scale + &shift).into()])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, NAMES[0])?;
        let stats: Vec<&ArrayD<f32>> = (1..5).map(|i| ctx.weight(i, NAMES[i])).collect::<Result<_, _>>()?;
        let Affine { scale, shift } = self.affine_of(&stats);
        let rank = ctx.shape().len();
        let y = ctx.scale(x, "scale", &per_channel(&scale, rank))?;
        Ok(vec![ctx.add_param(y, "shift", &per_channel(&shift, rank))?])
    }

    fn affine(&self, operand: usize, channel: Channel<'_>, inputs: Args<'_, Fact>) -> Option<Affine> {
        if operand != 0 || channel.axis != 1 {
            return None;
        }
        let stats: Option<Vec<&ArrayD<f32>>> =
            (1..5).map(|i| inputs.optional(i)?.value.as_deref()?.floats(NAMES[i]).ok()).collect();
        Some(self.affine_of(&stats?))
    }
}

impl BatchNormalization {
    fn affine_of(&self, stats: &[&ArrayD<f32>]) -> Affine {
        let channel = |c: usize| {
            let at = |i: usize| f64::from(stats[i][[c].as_slice()]);
            let scale = at(0) / (at(3) + f64::from(self.epsilon)).sqrt();
            (scale, at(1) - at(2) * scale)
        };
        let (scale, shift) = (0..stats[0].len()).map(channel).unzip();
        Affine { scale, shift }
    }
}

/// Values along axis 1 of a tensor of `rank` axes, ready to broadcast.
fn per_channel(values: &[f64], rank: usize) -> ArrayD<f32> {
    let mut shape = vec![1; rank - 1];
    shape[0] = values.len();
    array(&shape, values.iter().map(|&v| v as f32).collect())
}

#[cfg(test)]
mod tests {
    use ndarray::IxDyn;

    use super::*;

    #[test]
    fn normalises_per_channel() {
        let x: Tensor = array(&[1, 2, 1], vec![3.0f32, 5.0]).into();
        let of = |a, b| Tensor::from(ArrayD::from_shape_vec(IxDyn(&[2]), vec![a, b]).unwrap());
        let stats: [Tensor; 4] = [of(2.0, 1.0f32), of(1.0, 0.0), of(1.0, 1.0), of(3.0, 15.0)];
        let inputs: Vec<Option<&Tensor>> = [&x].into_iter().chain(&stats).map(Some).collect();
        let y = BatchNormalization { epsilon: 1.0 }.eval(Args(&inputs)).unwrap();
        let expected = [3.0f32, 1.0];
        assert_eq!(y[0], array(&[1, 2, 1], expected.to_vec()).into());
    }
}

//! Softmax and LogSoftmax, as final operators.

use ndarray::{ArrayViewMut1, Axis};
use privet_plan::{Post, WireId};

use crate::tensor::{array, axis};
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// Softmax or its logarithm; only as the model's last operator, computed by the receiver.
#[derive(Debug, Clone, Copy)]
pub struct Softmax {
    /// The axis; negative ones count from the end.
    pub axis: i64,
    /// Whether all axes from `axis` on are one (the meaning before opset 13).
    pub coerce: bool,
    /// Whether the logarithm is taken.
    pub log: bool,
}

impl Operator for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "LogSoftmax" } else { "Softmax" }
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.float(0, "input")?;
        axis("axis", self.axis, x.shape.len())?;
        Ok(vec![Fact::float(x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?.floats("input")?;
        let mut axis = axis("axis", self.axis, x.ndim())?;
        let mut y = x.as_standard_layout().into_owned();
        if self.coerce {
            let rows: usize = x.shape()[..axis].iter().product();
            y = array(&[rows, x.len().checked_div(rows).unwrap_or(0)], y.into_iter().collect());
            axis = 1;
        }
        y.lanes_mut(Axis(axis)).into_iter().for_each(|lane| self.normalise(lane));
        Ok(vec![array(x.shape(), y.into_iter().collect()).into()])
    }

    fn lower(&self, _ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        Err(OpError::unsupported(
            format!("{} inside the model", self.name()),
            "Softmax or LogSoftmax as the model's last operator",
        ))
    }

    fn post(&self, input: &Fact) -> Option<Result<Post, OpError>> {
        Some(self.single_axis(&input.shape).map(|axis| match self.log {
            true => Post::LogSoftmax { axis },
            false => Post::Softmax { axis },
        }))
    }
}

impl Softmax {
    fn normalise(&self, mut lane: ArrayViewMut1<'_, f32>) {
        let max = lane.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = lane.iter().map(|v| (v - max).exp()).sum();
        if self.log {
            let log_sum = sum.ln();
            lane.mapv_inplace(|v| v - max - log_sum);
        } else {
            lane.mapv_inplace(|v| (v - max).exp() / sum);
        }
    }

    /// The one axis that is normalised; coerced axes of length 1 do not matter.
    fn single_axis(&self, shape: &[usize]) -> Result<u32, OpError> {
        let first = axis("axis", self.axis, shape.len())?;
        if !self.coerce {
            return Ok(first as u32);
        }
        let long: Vec<usize> = (first..shape.len()).filter(|&a| shape[a] > 1).collect();
        match long.as_slice() {
            [] => Ok(first as u32),
            [only] => Ok(*only as u32),
            _ => Err(OpError::unsupported(
                format!("axis {} of shape {shape:?} before opset 13, which joins several axes", self.axis),
                "one axis longer than 1 from `axis` on",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coerced_softmax_normalises_all_trailing_axes() {
        let x: Tensor = array(&[1, 2, 2], vec![1.0f32; 4]).into();
        let y = |coerce| Softmax { axis: 1, coerce, log: false }.eval(Args(&[Some(&x)])).unwrap();
        assert_eq!(y(true)[0].floats("y").unwrap().first(), Some(&0.25));
        assert_eq!(y(false)[0].floats("y").unwrap().first(), Some(&0.5));
    }

    #[test]
    fn coerced_softmax_of_one_long_axis_is_final() {
        let op = Softmax { axis: 1, coerce: true, log: false };
        let post = |shape: &[usize]| op.post(&Fact::float(shape.to_vec())).unwrap();
        assert_eq!(post(&[1, 1, 5, 1]), Ok(Post::Softmax { axis: 2 }));
        assert!(post(&[1, 2, 5]).is_err());
    }
}

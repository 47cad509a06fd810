//! ArgMax and ArgMin.

use ndarray::{ArrayD, ArrayView1, Axis};
use privet_plan::WireId;

use crate::tensor::axis;
use crate::{Args, DType, Fact, Lowering, OpError, Operator, Tensor};

/// Position of the largest (or smallest) element along an axis.
#[derive(Debug, Clone, Copy)]
pub struct ArgMax {
    /// Whether the smallest element is meant: ArgMin.
    pub smallest: bool,
    /// The axis; negative ones count from the end.
    pub axis: i64,
    /// Whether the axis stays, with length 1.
    pub keep_dims: bool,
    /// Whether the last one of equal elements counts, not the first.
    pub last: bool,
}

impl Operator for ArgMax {
    fn name(&self) -> &'static str {
        if self.smallest { "ArgMin" } else { "ArgMax" }
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "data")?;
        if x.dtype == DType::Bool {
            return Err(OpError::mismatch("data", "numbers", format!("{:?}", x.dtype)));
        }
        let at = axis("axis", self.axis, x.shape.len())?;
        let mut shape = x.shape.clone();
        if shape[at] == 0 {
            return Err(OpError::mismatch("data", "an axis that is not empty", format!("{shape:?}")));
        }
        if self.keep_dims {
            shape[at] = 1;
        } else {
            shape.remove(at);
        }
        Ok(vec![Fact::new(DType::I64, shape)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "data")?;
        let at = axis("axis", self.axis, x.shape().len())?;
        let found = match x {
            Tensor::F32(a) => self.positions(a, at),
            Tensor::I64(a) => self.positions(a, at),
            Tensor::Bool(_) => return Err(OpError::mismatch("data", "numbers", "Bool")),
        };
        Ok(vec![if self.keep_dims { found.insert_axis(Axis(at)) } else { found }.into()])
    }

    /// A tournament. In round k, neighbours are the winners of blocks of 2^k elements, with their positions inside the
    /// block; one comparison chooses the element and the position together.
    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "data")?;
        let from = ctx.shape_of(x).to_vec();
        let at = axis("axis", self.axis, from.len())?;
        let perm: Vec<usize> = [at].into_iter().chain((0..from.len()).filter(|&a| a != at)).collect();
        let x = ctx.transpose(x, &perm);
        let rest = from.iter().product::<usize>() / from[at];
        let mut values = ctx.reshape(x, &[from[at], rest]);
        if self.smallest {
            values = ctx.negate(values)?;
        }
        let mut positions = ctx.integers(&[(values, 0)], 0, ctx.frac_bits(values));
        let (mut players, mut block) = (Some(values), 1);
        while let Some(values) = players.filter(|&values| ctx.shape_of(values)[0] > 1) {
            (players, positions) = self.round(ctx, values, positions, block)?;
            block *= 2;
        }
        let whole = ctx.integers(&[(positions, 1)], 0, 0);
        let shape = ctx.shape();
        Ok(vec![ctx.reshape(whole, shape)])
    }
}

impl ArgMax {
    /// One round of the tournament on `[n, ..]`. Positions are whole numbers under the scale of the values, so that both
    /// can be stacked. The last round chooses a position only.
    fn round(
        &self,
        ctx: &mut Lowering<'_>,
        values: WireId,
        positions: WireId,
        block: i64,
    ) -> Result<(Option<WireId>, WireId), OpError> {
        let [count, rest] = *ctx.shape_of(values) else { unreachable!("two axes") };
        let (pairs, frac_bits) = (count / 2, ctx.frac_bits(values));
        let pair = |ctx: &mut Lowering<'_>, wire| [0, 1].map(|side| ctx.slice_axis(wire, 0, side, 2, pairs));
        let ([left, right], [left_at, right_at]) = (pair(ctx, values), pair(ctx, positions));
        // Equal elements: the difference is 0, and whoever is named first below wins.
        let (winner, loser) = if self.last { (right, left) } else { (left, right) };
        let difference = ctx.combine(&[(winner, 1), (loser, -1)], 0)?;
        let step = if self.last { 1 } else { -1 };
        let moved = ctx.integers(&[(right_at, step), (left_at, -step)], step * block, frac_bits);
        let (loser_at, constant) = if self.last { (left_at, 0) } else { (right_at, block) };
        if count == 2 {
            let chosen = ctx.select(difference, moved);
            let at = ctx.integers(&[(loser_at, 1), (chosen, 1)], constant, frac_bits);
            return Ok((None, at));
        }
        let stacked: Vec<WireId> = [difference, moved].map(|w| ctx.reshape(w, &[1, pairs, rest])).to_vec();
        let stacked = ctx.concat(&stacked, 0)?;
        let chosen = ctx.select(difference, stacked);
        let [gain, shift] = [0, 1].map(|i| {
            let part = ctx.slice_axis(chosen, 0, i, 1, 1);
            ctx.reshape(part, &[pairs, rest])
        });
        let best = ctx.combine(&[(loser, 1), (gain, 1)], 0)?;
        let at = ctx.integers(&[(loser_at, 1), (shift, 1)], constant, frac_bits);
        if count.is_multiple_of(2) {
            return Ok((Some(best), at));
        }
        let tail = |ctx: &mut Lowering<'_>, wire| ctx.slice_axis(wire, 0, count - 1, 1, 1);
        let (value, position) = (tail(ctx, values), tail(ctx, positions));
        Ok((Some(ctx.concat(&[best, value], 0)?), ctx.concat(&[at, position], 0)?))
    }

    fn positions<T: PartialOrd + Copy>(&self, a: &ArrayD<T>, at: usize) -> ArrayD<i64> {
        let better = |a: T, b: T| match (self.smallest, self.last) {
            (false, false) => a > b,
            (false, true) => a >= b,
            (true, false) => a < b,
            (true, true) => a <= b,
        };
        a.map_axis(Axis(at), |lane: ArrayView1<'_, T>| {
            (1..lane.len()).fold(0, |best, i| if better(lane[i], lane[best]) { i } else { best }) as i64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn ties_go_to_the_first_or_the_last() {
        let x: Tensor = array(&[2, 3], vec![1.0f32, 3.0, 3.0, -1.0, -1.0, 2.0]).into();
        let of = |smallest, last| {
            let op = ArgMax { smallest, axis: -1, keep_dims: false, last };
            op.eval(Args(&[Some(&x)])).unwrap().remove(0).ints("y").unwrap()
        };
        assert_eq!(of(false, false), [1, 2]);
        assert_eq!(of(false, true), [2, 2]);
        assert_eq!(of(true, false), [0, 0]);
        assert_eq!(of(true, true), [0, 1]);
    }
}

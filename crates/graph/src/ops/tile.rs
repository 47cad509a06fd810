//! Tile.

use ndarray::{ArrayD, Axis};
use privet_plan::WireId;

use crate::lower::expect_terms;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor, element_count};

/// Repeats the whole tensor along every axis as often as operand 1 says.
#[derive(Debug, Clone, Copy)]
pub struct Tile;

impl Operator for Tile {
    fn name(&self) -> &'static str {
        "Tile"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "input")?;
        Ok(vec![Fact::new(x.dtype, tiled(&x.shape, inputs.get(1, "repeats")?.known("repeats")?)?)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?;
        let shape = tiled(x.shape(), inputs.get(1, "repeats")?)?;
        Ok(vec![match x {
            Tensor::F32(a) => tile(a, &shape).into(),
            Tensor::I64(a) => tile(a, &shape).into(),
            Tensor::Bool(a) => tile(a, &shape).into(),
        }])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let mut wire = ctx.wire(0, "input")?;
        for axis in 0..ctx.shape().len() {
            if ctx.shape_of(wire)[axis] == ctx.shape()[axis] {
                continue;
            }
            expect_terms(ctx.shape()[axis], ctx.shape()[axis])?;
            let positions = cycle(ctx.shape_of(wire)[axis], ctx.shape()[axis]);
            wire = ctx.gather(wire, axis, &positions)?;
        }
        Ok(vec![wire])
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        self.facts(inputs).is_ok_and(|facts| inputs.optional(0).is_some_and(|x| x.shape == facts[0].shape))
    }
}

fn tiled(from: &[usize], repeats: &Tensor) -> Result<Vec<usize>, OpError> {
    let repeats = repeats.ints("repeats")?;
    let wrong = || {
        OpError::mismatch("repeats", format!("{} numbers of at least 0", from.len()), format!("{repeats:?}"))
    };
    if repeats.len() != from.len() {
        return Err(wrong());
    }
    let along = |(&d, &r): (&usize, &i64)| Ok(d.saturating_mul(usize::try_from(r).map_err(|_| wrong())?));
    let shape = from.iter().zip(&repeats).map(along).collect::<Result<Vec<usize>, OpError>>()?;
    element_count("tiled result", &shape)?;
    Ok(shape)
}

/// Positions `0, 1, .., size - 1, 0, 1, ..`, `count` in all.
fn cycle(size: usize, count: usize) -> Vec<usize> {
    (0..size).cycle().take(count).collect()
}

fn tile<T: Clone>(a: &ArrayD<T>, shape: &[usize]) -> ArrayD<T> {
    let mut tiled = a.clone();
    for (axis, (&from, &to)) in a.shape().iter().zip(shape).enumerate() {
        if from != to {
            tiled = tiled.select(Axis(axis), &cycle(from, to));
        }
    }
    tiled.as_standard_layout().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn repeats_go_axis_by_axis() {
        let x: Tensor = array(&[2, 1], vec![1i64, 2]).into();
        let y = Tile.eval(Args(&[Some(&x), Some(&Tensor::from_ints(vec![2, 2]))])).unwrap();
        assert_eq!(y[0], array(&[4, 2], vec![1i64, 1, 2, 2, 1, 1, 2, 2]).into());
        let none = Tile.eval(Args(&[Some(&x), Some(&Tensor::from_ints(vec![0, 1]))])).unwrap();
        assert_eq!(none[0].shape(), [0, 1]);
    }

    #[test]
    fn repeats_are_bounded_and_complete() {
        for wrong in [vec![1], vec![-1, 1], vec![i64::MAX, 2], vec![1 << 30, 1]] {
            assert!(tiled(&[2, 3], &Tensor::from_ints(wrong)).is_err());
        }
    }
}

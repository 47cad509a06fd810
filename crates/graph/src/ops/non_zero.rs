//! NonZero, on constants.

use privet_plan::WireId;

use crate::tensor::array;
use crate::{Args, DType, Fact, Lowering, OpError, Operator, Tensor};

/// Positions of the elements that are not zero, one column each, in row-major order.
#[derive(Debug, Clone, Copy)]
pub struct NonZero;

impl Operator for NonZero {
    fn name(&self) -> &'static str {
        "NonZero"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "input")?;
        let count = positions(x.known("input")?).len();
        Ok(vec![Fact::new(DType::I64, vec![x.shape.len(), count])])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?;
        let positions = positions(x);
        let mut stride = x.len();
        let mut rows = Vec::with_capacity(positions.len() * x.shape().len());
        for &size in x.shape() {
            stride = stride.checked_div(size).unwrap_or(0);
            rows.extend(positions.iter().map(|&flat| (flat / stride % size) as i64));
        }
        Ok(vec![array(&[x.shape().len(), positions.len()], rows).into()])
    }

    fn lower(&self, _ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        Err(OpError::unsupported("a list of positions that was not folded", "constants"))
    }
}

/// Row-major positions of elements that are not zero.
fn positions(x: &Tensor) -> Vec<usize> {
    fn of<'a, T: 'a>(all: impl Iterator<Item = &'a T>, non_zero: impl Fn(&T) -> bool) -> Vec<usize> {
        all.enumerate().filter(|(_, v)| non_zero(v)).map(|(i, _)| i).collect()
    }
    match x {
        Tensor::F32(a) => of(a.iter(), |&v| v != 0.0),
        Tensor::I64(a) => of(a.iter(), |&v| v != 0),
        Tensor::Bool(a) => of(a.iter(), |&v| v),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_stand_in_columns() {
        let x: Tensor = array(&[2, 3], vec![0i64, 5, 0, 7, 0, 1]).into();
        let y = NonZero.eval(Args(&[Some(&x)])).unwrap();
        assert_eq!(y[0], array(&[2, 3], vec![0i64, 1, 1, 1, 0, 2]).into());
        let empty: Tensor = array(&[2, 0], Vec::<f32>::new()).into();
        assert_eq!(NonZero.eval(Args(&[Some(&empty)])).unwrap()[0].shape(), [2, 0]);
    }
}

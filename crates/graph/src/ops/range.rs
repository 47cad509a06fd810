//! Range, on constants.

use privet_plan::WireId;

use crate::tensor::array;
use crate::{Args, DType, Fact, Lowering, OpError, Operator, Tensor, element_count};

/// `start, start + delta, ..` up to but not including `limit`.
#[derive(Debug, Clone, Copy)]
pub struct Range;

impl Operator for Range {
    fn name(&self) -> &'static str {
        "Range"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let tensors: Vec<&Tensor> =
            inputs.all()?.into_iter().map(|f| f.known("operands")).collect::<Result<_, _>>()?;
        let (dtype, count) = count(&tensors)?;
        element_count("range", &[count])?;
        Ok(vec![Fact::new(dtype, vec![count])])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let tensors = inputs.all()?;
        let (dtype, count) = count(&tensors)?;
        Ok(vec![match dtype {
            DType::F32 => {
                let (start, delta) = (tensors[0].scalar("start")?, tensors[2].scalar("delta")?);
                array(&[count], (0..count).map(|i| start + i as f32 * delta).collect()).into()
            }
            _ => {
                let (start, delta) = (integer(tensors[0])?, integer(tensors[2])?);
                Tensor::from_ints(
                    (0..count as i64).map(|i| start.wrapping_add(i.wrapping_mul(delta))).collect(),
                )
            }
        }])
    }

    fn lower(&self, _ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        Err(OpError::unsupported("a range that was not folded", "constant bounds"))
    }
}

fn integer(tensor: &Tensor) -> Result<i64, OpError> {
    match tensor.ints("operands")?.as_slice() {
        [value] => Ok(*value),
        other => Err(OpError::mismatch("operands", "scalars", format!("{} elements", other.len()))),
    }
}

fn count(tensors: &[&Tensor]) -> Result<(DType, usize), OpError> {
    let &[start, limit, delta] = tensors else {
        return Err(OpError::mismatch("operands", "start, limit, delta", tensors.len()));
    };
    let steps = match start.dtype() {
        DType::F32 => {
            let (start, limit, delta) =
                (start.scalar("start")?, limit.scalar("limit")?, delta.scalar("delta")?);
            ((f64::from(limit) - f64::from(start)) / f64::from(delta)).ceil()
        }
        _ => {
            let (start, limit, delta) = (integer(start)?, integer(limit)?, integer(delta)?);
            ((i128::from(limit) - i128::from(start)) as f64 / delta as f64).ceil()
        }
    };
    if steps.is_nan() || steps.is_infinite() {
        return Err(OpError::mismatch("delta", "a step that reaches the limit", format!("{steps} steps")));
    }
    Ok((start.dtype(), steps.max(0.0) as usize))
}

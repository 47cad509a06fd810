//! Transpose.

use ndarray::ArrayD;
use privet_plan::WireId;

use crate::tensor::axis;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// Permutes axes: axis `i` of the result is axis `perm[i]` of the operand; all reversed by default.
#[derive(Debug, Clone)]
pub struct Transpose {
    /// The permutation.
    pub perm: Option<Vec<i64>>,
}

impl Operator for Transpose {
    fn name(&self) -> &'static str {
        "Transpose"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "data")?;
        let perm = self.permutation(x.shape.len())?;
        Ok(vec![Fact::new(x.dtype, perm.iter().map(|&a| x.shape[a]).collect())])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "data")?;
        Ok(vec![transposed(x, &self.permutation(x.shape().len())?)])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "data")?;
        let perm = self.permutation(ctx.shape().len())?;
        Ok(vec![ctx.transpose(x, &perm)])
    }

    fn is_identity(&self, inputs: Args<'_, Fact>) -> bool {
        let Some(x) = inputs.optional(0) else { return false };
        self.permutation(x.shape.len()).is_ok_and(|perm| perm.is_sorted())
    }
}

impl Transpose {
    fn permutation(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        let Some(perm) = &self.perm else { return Ok((0..rank).rev().collect()) };
        let found: Vec<usize> = perm.iter().map(|&a| axis("perm", a, rank)).collect::<Result<_, _>>()?;
        let mut sorted = found.clone();
        sorted.sort_unstable();
        if sorted.into_iter().eq(0..rank) {
            Ok(found)
        } else {
            Err(OpError::mismatch("perm", format!("a permutation of {rank} axes"), format!("{perm:?}")))
        }
    }
}

/// Permutes the axes of a tensor.
pub(super) fn transposed(x: &Tensor, perm: &[usize]) -> Tensor {
    match x {
        Tensor::F32(a) => permute(a, perm).into(),
        Tensor::I64(a) => permute(a, perm).into(),
        Tensor::Bool(a) => permute(a, perm).into(),
    }
}

fn permute<T: Clone>(a: &ArrayD<T>, perm: &[usize]) -> ArrayD<T> {
    a.view().permuted_axes(perm).as_standard_layout().into_owned()
}

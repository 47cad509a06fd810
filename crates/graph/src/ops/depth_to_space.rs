//! DepthToSpace.

use privet_plan::WireId;

use super::reshape::reshaped;
use super::transpose::transposed;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// Moves channels into blocks of the plane.
#[derive(Debug, Clone, Copy)]
pub struct DepthToSpace {
    /// Side of a block.
    pub block: i64,
    /// Whether the channel index is (channel, row, column) instead of (row, column, channel).
    pub channel_first: bool,
}

/// A reshape, a permutation and another reshape.
pub(super) struct Moves {
    pub(super) split: [usize; 6],
    pub(super) perm: [usize; 6],
    pub(super) result: Vec<usize>,
}

impl Moves {
    /// The moved elements.
    pub(super) fn apply(&self, x: &Tensor) -> Tensor {
        reshaped(&transposed(&reshaped(x, &self.split), &self.perm), &self.result)
    }

    /// The same as plan steps.
    pub(super) fn lower(&self, ctx: &mut Lowering<'_>, x: WireId) -> WireId {
        let x = ctx.reshape(x, &self.split);
        let x = ctx.transpose(x, &self.perm);
        ctx.reshape(x, &self.result)
    }
}

impl Operator for DepthToSpace {
    fn name(&self) -> &'static str {
        "DepthToSpace"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let x = inputs.get(0, "input")?;
        Ok(vec![Fact::new(x.dtype, self.moves(&x.shape)?.result)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0, "input")?;
        Ok(vec![self.moves(x.shape())?.apply(x)])
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        Ok(vec![self.moves(ctx.shape_of(x))?.lower(ctx, x)])
    }
}

impl DepthToSpace {
    fn moves(&self, x: &[usize]) -> Result<Moves, OpError> {
        let &[n, c, h, w] = x else {
            return Err(OpError::mismatch("input", "[N, C, H, W]", format!("{x:?}")));
        };
        let block = usize::try_from(self.block).ok().filter(|b| (1..1 << 12).contains(b));
        let Some(block) = block.filter(|b| c.is_multiple_of(b * b)) else {
            return Err(OpError::mismatch(
                "blocksize",
                format!("a positive b with b² dividing {c}"),
                self.block,
            ));
        };
        let depth = c / (block * block);
        let (split, perm) = if self.channel_first {
            ([n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3])
        } else {
            ([n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2])
        };
        Ok(Moves { split, perm, result: vec![n, depth, h * block, w * block] })
    }
}

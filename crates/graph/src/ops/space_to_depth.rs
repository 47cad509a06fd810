//! SpaceToDepth.

use privet_plan::WireId;

use super::depth_to_space::Moves;
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// Moves blocks of the plane into channels: the inverse of [`super::DepthToSpace`].
#[derive(Debug, Clone, Copy)]
pub struct SpaceToDepth {
    /// Side of a block.
    pub block: i64,
    /// Whether the channel index is (channel, row, column) instead of (row, column, channel).
    pub channel_first: bool,
}

impl Operator for SpaceToDepth {
    fn name(&self) -> &'static str {
        "SpaceToDepth"
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

impl SpaceToDepth {
    fn moves(&self, x: &[usize]) -> Result<Moves, OpError> {
        let &[n, c, h, w] = x else {
            return Err(OpError::mismatch("input", "[N, C, H, W]", format!("{x:?}")));
        };
        let block = usize::try_from(self.block).ok().filter(|b| (1..1 << 12).contains(b));
        let Some(block) = block.filter(|b| h.is_multiple_of(*b) && w.is_multiple_of(*b)) else {
            return Err(OpError::mismatch(
                "blocksize",
                format!("a positive divisor of {h} and {w}"),
                self.block,
            ));
        };
        let (rows, columns) = (h / block, w / block);
        let perm = if self.channel_first { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] };
        let result = vec![n, c * block * block, rows, columns];
        Ok(Moves { split: [n, c, rows, block, columns, block], perm, result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::DepthToSpace;
    use crate::tensor::array;

    #[test]
    fn depth_to_space_undoes_it_in_both_orders() {
        let x: Tensor = array(&[2, 3, 4, 6], (0..144).collect::<Vec<i64>>()).into();
        for channel_first in [false, true] {
            let y = SpaceToDepth { block: 2, channel_first }.eval(Args(&[Some(&x)])).unwrap();
            assert_eq!(y[0].shape(), [2, 12, 2, 3]);
            let z = DepthToSpace { block: 2, channel_first }.eval(Args(&[Some(&y[0])])).unwrap();
            assert_eq!(z[0], x);
        }
    }

    #[test]
    fn blocks_must_fit() {
        for (block, shape) in [(0, [1, 1, 2, 2]), (-1, [1, 1, 2, 2]), (2, [1, 1, 3, 2]), (3, [1, 1, 3, 2])] {
            assert!(SpaceToDepth { block, channel_first: false }.moves(&shape).is_err());
        }
    }
}

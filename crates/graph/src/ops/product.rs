//! Lowering of matrix products, whichever factors depend on the model's inputs.

use ndarray::{ArrayD, Axis};
use privet_plan::{Op, Window, WireId};

use crate::tensor::{array, contiguous};
use crate::{Lowering, OpError, broadcast};

/// One factor of a product.
#[derive(Debug, Clone)]
pub(super) enum Factor {
    /// A value that depends on the model's inputs.
    Wire(WireId),
    /// A weight.
    Constant(ArrayD<f32>),
}

impl Factor {
    /// Operand `i` of the node that is lowered.
    pub(super) fn operand(ctx: &Lowering<'_>, i: usize, what: &'static str) -> Result<Self, OpError> {
        match ctx.constant(i) {
            Some(values) => Ok(Self::Constant(values.clone())),
            None => ctx.wire(i, what).map(Self::Wire),
        }
    }

    pub(super) fn shape(&self, ctx: &Lowering<'_>) -> Vec<usize> {
        match self {
            Self::Wire(wire) => ctx.shape_of(*wire).to_vec(),
            Self::Constant(values) => values.shape().to_vec(),
        }
    }

    pub(super) fn reshape(self, ctx: &mut Lowering<'_>, shape: &[usize]) -> Self {
        match self {
            Self::Wire(wire) => Self::Wire(ctx.reshape(wire, shape)),
            Self::Constant(values) => Self::Constant(array(shape, contiguous(&values).into_owned())),
        }
    }

    pub(super) fn transpose(self, ctx: &mut Lowering<'_>, perm: &[usize]) -> Self {
        if perm.is_sorted() {
            return self;
        }
        match self {
            Self::Wire(wire) => Self::Wire(ctx.transpose(wire, perm)),
            Self::Constant(values) => Self::Constant(values.permuted_axes(perm)),
        }
    }

    /// With the last two axes swapped.
    pub(super) fn swap_last(self, ctx: &mut Lowering<'_>) -> Self {
        let rank = self.shape(ctx).len();
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(rank - 1, rank - 2);
        self.transpose(ctx, &perm)
    }
}

/// `[.., m, k] x [.., k, n]` with leading axes that broadcast; at least one factor is a wire. The result is pending.
pub(super) fn product(ctx: &mut Lowering<'_>, a: Factor, b: Factor) -> Result<WireId, OpError> {
    match (a, b) {
        (Factor::Wire(a), Factor::Wire(b)) => secret_product(ctx, a, b),
        (Factor::Wire(x), Factor::Constant(w)) => weighted(ctx, x, w),
        (a @ Factor::Constant(_), b @ Factor::Wire(_)) => {
            // A·B = (Bᵀ·Aᵀ)ᵀ.
            let (a, b) = (a.swap_last(ctx), b.swap_last(ctx));
            let y = Factor::Wire(product(ctx, b, a)?).swap_last(ctx);
            match y {
                Factor::Wire(y) => Ok(y),
                Factor::Constant(_) => unreachable!("a wire stays a wire"),
            }
        }
        (Factor::Constant(_), Factor::Constant(_)) => {
            Err(OpError::unsupported("a product of constants", "a value that depends on the model's input"))
        }
    }
}

fn secret_product(ctx: &mut Lowering<'_>, a: WireId, b: WireId) -> Result<WireId, OpError> {
    let (a, b) = (ctx.at_base(a), ctx.at_base(b));
    let (a_shape, b_shape) = (ctx.shape_of(a).to_vec(), ctx.shape_of(b).to_vec());
    let (a_batch, m, k) = matrix_of(&a_shape);
    let (b_batch, _, n) = matrix_of(&b_shape);
    let batch = broadcast::shape(a_batch, b_batch)?;
    let result = [batch.as_slice(), &[m, n]].concat();
    let frac_bits = 2 * ctx.base();
    // One matrix on the right is not repeated: the batch joins the rows instead.
    let y = if b_batch.iter().all(|&d| d == 1) && !batch.is_empty() {
        let rows: usize = a_batch.iter().product::<usize>() * m;
        let (a, b) = (ctx.reshape(a, &[rows, k]), ctx.reshape(b, &[k, n]));
        ctx.emit(Op::BatchMatMul, &[a, b], vec![rows, n], frac_bits)
    } else {
        let a = ctx.broadcast(a, &[batch.as_slice(), &[m, k]].concat())?;
        let b = ctx.broadcast(b, &[batch.as_slice(), &[k, n]].concat())?;
        ctx.emit(Op::BatchMatMul, &[a, b], result.clone(), frac_bits)
    };
    Ok(ctx.reshape(y, &result))
}

/// x `[.., m, k]` times private matrices w `[.., k, n]`. Several of them are the groups of a convolution: channel
/// (matrix, k) of position m.
fn weighted(ctx: &mut Lowering<'_>, x: WireId, w: ArrayD<f32>) -> Result<WireId, OpError> {
    let (x, base) = (ctx.at_base(x), ctx.base());
    let (x_shape, w_shape) = (ctx.shape_of(x).to_vec(), w.shape().to_vec());
    let (x_batch, m, k) = matrix_of(&x_shape);
    let (w_batch, _, n) = matrix_of(&w_shape);
    let batch = broadcast::shape(x_batch, w_batch)?;
    let result = [batch.as_slice(), &[m, n]].concat();
    let groups: usize = w_batch.iter().product();
    if groups == 1 {
        let weight = array(&[k, n], contiguous(&w).into_owned());
        let weight = ctx.param("weight", &weight, base)?;
        let shape = [x_batch, &[m, n]].concat();
        let y = ctx.emit(Op::MatMul { weight, bias: None }, &[x], shape, 2 * base);
        return Ok(ctx.reshape(y, &result));
    }
    // Every batch axis belongs to the matrices or, where they do not vary, to the batch of the convolution.
    let rank = batch.len();
    let varies = |a: usize| (a + w_batch.len()).checked_sub(rank).is_some_and(|a| w_batch[a] > 1);
    let mut full = vec![1; rank - x_batch.len()];
    full.extend(x_batch);
    (0..rank).filter(|&a| varies(a)).for_each(|a| full[a] = batch[a]);
    let x = ctx.broadcast(x, &[full.as_slice(), &[m, k]].concat())?;
    let mut perm: Vec<usize> = (0..rank).filter(|&a| !varies(a)).collect();
    perm.extend((0..rank).filter(|&a| varies(a)));
    perm.extend([rank + 1, rank]);
    let x = if perm.is_sorted() { x } else { ctx.transpose(x, &perm) };
    let outer = full.iter().product::<usize>() / groups;
    let x = ctx.reshape(x, &[outer, groups * k, m]);

    let kernels = array(&[groups, k, n], contiguous(&w).into_owned());
    let kernels = kernels.permuted_axes(vec![0, 2, 1]).as_standard_layout().into_owned();
    let kernels = array(&[groups * n, k], contiguous(&kernels).into_owned()).insert_axis(Axis(2));
    let weight = ctx.param("weight", &kernels, base)?;
    let op = Op::Conv { weight, bias: None, groups: groups as u32, window: Window::global(&[1]) };
    let y = ctx.emit(op, &[x], vec![outer, groups * n, m], 2 * base);

    let mut split: Vec<usize> = perm[..rank].iter().map(|&a| full[a]).collect();
    split.extend([n, m]);
    let y = ctx.reshape(y, &split);
    let mut back = vec![0; rank + 2];
    perm.iter().enumerate().for_each(|(from, &to)| back[to] = from);
    let y = if back.is_sorted() { y } else { ctx.transpose(y, &back) };
    Ok(ctx.reshape(y, &result))
}

/// Batch axes, rows and columns.
fn matrix_of(shape: &[usize]) -> (&[usize], usize, usize) {
    match shape {
        [batch @ .., m, n] => (batch, *m, *n),
        _ => unreachable!("factors have two axes at least"),
    }
}

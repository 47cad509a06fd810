//! GlobalAveragePool and GlobalMaxPool.

use privet_plan::{Window, WireId};

use super::average_pool::average_pool;
use super::max_pool::{max_pool, pool};
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor};

/// Average over all spatial axes.
#[derive(Debug, Clone, Copy)]
pub struct GlobalAveragePool;

/// Maximum over all spatial axes.
#[derive(Debug, Clone, Copy)]
pub struct GlobalMaxPool;

impl Operator for GlobalAveragePool {
    fn name(&self) -> &'static str {
        "GlobalAveragePool"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        facts(inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        eval(inputs, |window, _| {
            let (sum, count) =
                window.fold((0.0f64, 0usize), |(sum, count), v| (sum + f64::from(v), count + 1));
            (sum / count as f64) as f32
        })
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        let window = Window::global(&ctx.shape_of(x)[2..]);
        Ok(vec![average_pool(ctx, x, window, false)])
    }
}

impl Operator for GlobalMaxPool {
    fn name(&self) -> &'static str {
        "GlobalMaxPool"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        facts(inputs)
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        eval(inputs, |window, _| window.fold(f32::NEG_INFINITY, f32::max))
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let x = ctx.wire(0, "input")?;
        let window = Window::global(&ctx.shape_of(x)[2..]);
        Ok(vec![max_pool(ctx, x, window)])
    }
}

fn facts(inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
    let x = inputs.float(0, "input")?;
    if x.shape.len() < 3 || x.shape[2..].iter().any(|d| !(1..1 << 24).contains(d)) {
        return Err(OpError::mismatch(
            "input",
            "[N, C, spatial..], sizes below 2^24",
            format!("{:?}", x.shape),
        ));
    }
    let mut shape = x.shape.clone();
    shape[2..].fill(1);
    Ok(vec![Fact::float(shape)])
}

fn eval(
    inputs: Args<'_, Tensor>,
    f: impl Fn(&mut dyn Iterator<Item = f32>, usize) -> f32,
) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0, "input")?.floats("input")?;
    let spatial = &x.shape()[2..];
    Ok(vec![pool(x, &Window::global(spatial), &vec![1; spatial.len()], f)?.into()])
}

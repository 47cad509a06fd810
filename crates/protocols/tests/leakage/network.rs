//! A network whose frames are large enough to be tested one by one.

use privet_plan::{Op, Plan, Weights};
use privet_ring::prg::{Prg, Seed};

use crate::common::samples::Secrets;
use crate::common::{Builder, uniform, window};

/// Every kind of message, with element counts that fill whole bytes.
pub(crate) fn network() -> (Plan, Weights) {
    let mut b = Builder::new(64, 12);
    let x = b.input(&[1, 2, 16, 16]);
    let squared = b.step(Op::Multiply, &[x, x], &[1, 2, 16, 16], 24);
    let x = b.step(Op::Trunc { shift: 12 }, &[squared], &[1, 2, 16, 16], 12);
    let weight = b.param(&[8, 2, 3, 3], 12, 1 << 9);
    let same = window(&[3, 3], &[1, 1], &[1, 1], &[1, 1], &[1, 1]);
    let y = b.step(Op::Conv { weight, bias: None, groups: 1, window: same }, &[x], &[1, 8, 16, 16], 24);
    let pool = Op::MaxPool { window: window(&[2, 2], &[2, 2], &[1, 1], &[0, 0], &[0, 0]), width: 0 };
    let y = b.step(pool, &[y], &[1, 8, 8, 8], 24);
    let y = b.step(Op::Relu { shift: 12, width: 0 }, &[y], &[1, 8, 8, 8], 12);
    let square = b.step(Op::Multiply, &[y, y], &[1, 8, 8, 8], 24);
    let square = b.step(Op::Trunc { shift: 14 }, &[square], &[1, 8, 8, 8], 10);
    let centred = b.step(Op::Combine { coefficients: vec![1], constant: -99 }, &[square], &[1, 8, 8, 8], 10);
    let sign = b.step(Op::NonNegative { width: 0 }, &[centred], &[1, 8, 8, 8], 0);
    let index = b.step(Op::Combine { coefficients: vec![14], constant: 1 }, &[sign], &[1, 8, 8, 8], 0);
    let entries = (0..16).map(|i| i * 321 - 999).collect();
    let looked_up = b.step(Op::Table { entries }, &[index], &[1, 8, 8, 8], 12);
    let relu = b.step(Op::Select { width: 0 }, &[centred, centred], &[1, 8, 8, 8], 10);
    let relu = b.step(Op::Combine { coefficients: vec![4], constant: 0 }, &[relu], &[1, 8, 8, 8], 12);
    let pair = b.step(Op::Concat { axis: 0 }, &[relu, looked_up], &[2, 8, 8, 8], 12);
    let pair = b.step(Op::Reshape, &[pair], &[2, 1, 8, 8, 8], 12);
    let chosen = b.step(Op::Select { width: 0 }, &[centred, pair], &[2, 1, 8, 8, 8], 12);
    let slice = Op::Slice { starts: vec![1, 0, 0, 0, 0], steps: vec![1; 5] };
    let chosen = b.step(slice, &[chosen], &[1, 1, 8, 8, 8], 12);
    let chosen = b.step(Op::Reshape, &[chosen], &[1, 8, 8, 8], 12);
    let product = b.step(Op::BatchMatMul, &[y, chosen], &[1, 8, 8, 8], 24);
    let y = b.step(Op::Trunc { shift: 12 }, &[product], &[1, 8, 8, 8], 12);
    let y = b.step(Op::Reshape, &[y], &[1, 512], 12);
    let weight = b.param(&[512, 8], 12, 1 << 9);
    let y = b.step(Op::MatMul { weight, bias: None }, &[y], &[1, 8], 24);
    let y = b.step(Op::Trunc { shift: 12 }, &[y], &[1, 8], 12);
    b.output(y);
    b.finish()
}

/// Zeros, ones and random values; nearly no weights, and random ones.
pub(crate) fn secrets(plan: &Plan, weights: Weights) -> [Secrets; 3] {
    let elements = plan.inputs[0].shape.iter().product();
    let prg = Prg::new(&Seed::from_bytes([8; 16]));
    let mut zero = Weights::new(weights.tensors.iter().map(|t| vec![0; t.len()]).collect());
    zero.tensors[0][0] = 1;
    let same = || Weights::new(weights.tensors.clone());
    [
        (same(), uniform(&prg, 0, elements, 1 << 12)),
        (same(), vec![0; elements]),
        (zero, vec![1 << 12; elements]),
    ]
    .map(|(weights, x)| Secrets { weights, inputs: vec![x] })
}

//! One small plan for every kind of message that parties exchange.
//!
//! Numbers of elements are multiples of 8, so that no byte is padded. Rings and shifts are chosen so that every shape of
//! the comparison tree is met: a single leaf, leaves under a root, and an inner level; a split that is a single leaf, one that
//! is opened on the way, and one that is not.

use privet_plan::{Op, Plan, Weights, WireId};

use super::{Builder, window};

/// A plan and two choices of everything that is secret.
pub struct Sample {
    pub name: &'static str,
    pub plan: Plan,
    /// Zeros, and other values.
    pub secrets: [Secrets; 2],
}

/// What the server and the client own.
pub struct Secrets {
    pub weights: Weights,
    pub inputs: Vec<Vec<i64>>,
}

/// All samples.
pub fn samples() -> Vec<Sample> {
    let wide = |name, ring, shift| {
        sample(name, ring, &[8], move |b, x| b.step(Op::Relu { shift, width: 0 }, &[x], &[8], 8 - shift))
    };
    vec![
        sample("scale", 16, &[8], |b, x| {
            let factor = b.param(&[8], 2, 7);
            b.step(Op::Scale { factor }, &[x], &[8], 10)
        }),
        sample("open, add, trunc of a leaf", 16, &[8], |b, x| {
            let factor = b.param(&[8], 2, 7);
            let y = b.step(Op::Scale { factor }, &[x], &[8], 10);
            let param = b.param(&[8], 10, 7);
            let y = b.step(Op::AddParam { param }, &[y], &[8], 10);
            b.step(Op::Trunc { shift: 2 }, &[y], &[8], 8)
        }),
        sample("matmul, open, trunc", 16, &[4, 2], |b, x| {
            let (weight, bias) = (b.param(&[2, 2], 2, 7), b.param(&[2], 10, 7));
            let y = b.step(Op::MatMul { weight, bias: Some(bias) }, &[x], &[4, 2], 10);
            b.step(Op::Trunc { shift: 10 }, &[y], &[4, 2], 0)
        }),
        sample("conv, open, relu", 20, &[1, 2, 2, 2], |b, x| {
            let (weight, bias) = (b.param(&[8, 1, 2, 2], 2, 7), b.param(&[8], 10, 7));
            let kernel = window(&[2, 2], &[1, 1], &[1, 1], &[0, 0], &[0, 0]);
            let conv = Op::Conv { weight, bias: Some(bias), groups: 2, window: kernel };
            let y = b.step(conv, &[x], &[1, 8, 1, 1], 10);
            b.step(Op::Relu { shift: 2, width: 0 }, &[y], &[1, 8, 1, 1], 8)
        }),
        sample("multiply", 16, &[8], |b, x| b.step(Op::Multiply, &[x, x], &[8], 16)),
        sample("batch matmul, open, trunc", 16, &[2, 2, 2], |b, x| {
            let y = b.step(Op::BatchMatMul, &[x, x], &[2, 2, 2], 16);
            b.step(Op::Trunc { shift: 8 }, &[y], &[2, 2, 2], 8)
        }),
        wide("relu without truncation", 16, 0),
        wide("relu split inside the first leaf", 16, 3),
        wide("relu split between leaves", 16, 6),
        // Where comparisons take keys, two of more than the seven bits of a leaf.
        wide("relu split above the leaves", 16, 8),
        wide("relu under an inner level", 26, 4),
        wide("relu split at two leaves under an inner level", 26, 7),
        // Of up to six bits, where trees are flat.
        wide("relu of larger leaves", 32, 8),
        sample("comparison", 16, &[8], |b, x| b.step(Op::NonNegative { width: 0 }, &[x], &[8], 0)),
        sample("choice", 16, &[8], |b, x| {
            let pair = b.step(Op::Concat { axis: 0 }, &[x, x], &[16], 8);
            let pair = b.step(Op::Reshape, &[pair], &[2, 8], 8);
            b.step(Op::Select { width: 0 }, &[x, pair], &[2, 8], 8)
        }),
        sample("table", 16, &[8], |b, x| {
            let sign = b.step(Op::NonNegative { width: 0 }, &[x], &[8], 0);
            let index = b.step(Op::Combine { coefficients: vec![6], constant: 1 }, &[sign], &[8], 0);
            let entries = (0..8).map(|i| i * 321 - 999).collect();
            b.step(Op::Table { entries }, &[index], &[8], 0)
        }),
        // By keys, with an inner level.
        sample("wide table", 16, &[8], |b, x| {
            let sign = b.step(Op::NonNegative { width: 0 }, &[x], &[8], 0);
            let index = b.step(Op::Combine { coefficients: vec![300], constant: 1 }, &[sign], &[8], 0);
            let entries = (0..512).map(|i| i * 50 - 9999).collect();
            b.step(Op::Table { entries }, &[index], &[8], 0)
        }),
        sample("max pool", 16, &[1, 8, 1, 3], |b, x| {
            let window = window(&[1, 3], &[1, 1], &[1, 1], &[0, 0], &[0, 0]);
            b.step(Op::MaxPool { window, width: 0 }, &[x], &[1, 8, 1, 1], 8)
        }),
        // Of twice as many channels, for two lanes.
        sample("wide max pool", 16, &[1, 16, 1, 3], |b, x| {
            let window = window(&[1, 3], &[1, 1], &[1, 1], &[0, 0], &[0, 0]);
            b.step(Op::MaxPool { window, width: 0 }, &[x], &[1, 16, 1, 1], 8)
        }),
        // The input itself, what is linear in it, and the same product twice.
        sample("outputs made of the input", 16, &[8], |b, x| {
            b.output(x);
            let y = b.step(Op::Combine { coefficients: vec![3], constant: 5 }, &[x], &[8], 8);
            b.output(y);
            let factor = b.param(&[8], 2, 7);
            let z = b.step(Op::Scale { factor }, &[x], &[8], 10);
            b.output(z);
            b.step(Op::Scale { factor }, &[x], &[8], 10)
        }),
        sample("a chain", 16, &[8], |b, x| {
            let factor = b.param(&[8], 2, 7);
            let y = b.step(Op::Scale { factor }, &[x], &[8], 10);
            let y = b.step(Op::Relu { shift: 2, width: 0 }, &[y], &[8], 8);
            let factor = b.param(&[8], 0, 3);
            let y = b.step(Op::Scale { factor }, &[y], &[8], 8);
            let z = b.step(Op::Combine { coefficients: vec![1, -1], constant: 3 }, &[y, x], &[8], 8);
            let sign = b.step(Op::NonNegative { width: 0 }, &[z], &[8], 0);
            let square = b.step(Op::Multiply, &[z, sign], &[8], 8);
            b.step(Op::Trunc { shift: 3 }, &[square], &[8], 5)
        }),
    ]
}

/// A plan of one input with 8 fractional bits and one output, if `build` adds no others.
pub fn sample(
    name: &'static str,
    ring: u32,
    shape: &[usize],
    build: impl FnOnce(&mut Builder, WireId) -> WireId,
) -> Sample {
    let mut b = Builder::new(ring, 8);
    let input = b.input(shape);
    let output = build(&mut b, input);
    b.output(output);
    let (plan, weights) = b.finish();
    let elements = shape.iter().product::<usize>();
    let zero = Weights::new(weights.tensors.iter().map(|t| vec![0; t.len()]).collect());
    let values = (0..elements as i64).map(|i| [19, -77, 100, -1, -100, 50][i as usize % 6] - i % 5).collect();
    let secrets = [(zero, vec![0; elements]), (weights, values)];
    Sample { name, plan, secrets: secrets.map(|(weights, x)| Secrets { weights, inputs: vec![x] }) }
}

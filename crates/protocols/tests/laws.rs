//! Laws of the engines: every operation, bit-equal to the cleartext reference, at the declared cost.

mod common;

use common::{Builder, deal_with, law, reference, uniform, window};
use privet_plan::ranges::{Evidence, Ranges};
use privet_plan::{Op, Plan, Tap, Weights, WireId};
use privet_protocols::Silent;
use privet_protocols::masked::{RevealTo, Schedule};
use privet_ring::prg::{Prg, Seed};

/// Widths from both ends and around word boundaries, and LLAMA's default.
const RINGS: [u32; 8] = [24, 31, 32, 33, 40, 48, 52, 64];

fn inputs(plan: &Plan, magnitude: i64) -> Vec<Vec<i64>> {
    let prg = Prg::new(&Seed::from_bytes([4; 16]));
    let values = |(i, spec): (usize, &privet_plan::InputSpec)| {
        uniform(&prg, i as u64, spec.shape.iter().product(), magnitude)
    };
    plan.inputs.iter().enumerate().map(values).collect()
}

/// A small residual network that uses every operation.
fn every_operation(ring: u32, f: u8) -> (Plan, Weights) {
    let mut b = Builder::new(ring, f);
    let one = 1i64 << f;
    let x = b.input(&[1, 3, 9, 8]);
    let w = b.param(&[6, 3, 3, 3], f, one / 8);
    let bias = b.param(&[6], 2 * f, one * one / 4);
    let same = window(&[3, 3], &[1, 1], &[1, 1], &[1, 1], &[1, 1]);
    let conv = Op::Conv { weight: w, bias: Some(bias), groups: 1, window: same };
    let conv = b.step(conv, &[x], &[1, 6, 9, 8], 2 * f);
    let pool = Op::MaxPool { window: window(&[3, 3], &[2, 2], &[1, 1], &[1, 0], &[1, 1]), width: 0 };
    let pooled = b.step(pool, &[conv], &[1, 6, 5, 4], 2 * f);
    let y = b.step(Op::Relu { shift: f, width: 0 }, &[pooled], &[1, 6, 5, 4], f);
    let w = b.param(&[6, 1, 3, 2], f, one / 4);
    let depthwise = window(&[3, 2], &[1, 1], &[1, 1], &[1, 0], &[1, 1]);
    let z =
        b.step(Op::Conv { weight: w, bias: None, groups: 6, window: depthwise }, &[y], &[1, 6, 5, 4], 2 * f);
    let residual = b.step(
        Op::Combine { coefficients: vec![1, 1 << f], constant: -(1 << f) },
        &[z, y],
        &[1, 6, 5, 4],
        2 * f,
    );
    let r = b.step(Op::Relu { shift: f, width: 0 }, &[residual], &[1, 6, 5, 4], f);
    let joined = b.step(Op::Concat { axis: 1 }, &[r, y], &[1, 12, 5, 4], f);
    let average = Op::AveragePool {
        window: window(&[2, 3], &[2, 1], &[1, 1], &[1, 1], &[0, 0]),
        count_include_pad: false,
        reciprocal_bits: f,
    };
    let averaged = b.step(average, &[joined], &[1, 12, 3, 3], 2 * f);
    let averaged = b.step(Op::Trunc { shift: f }, &[averaged], &[1, 12, 3, 3], f);
    let slice = Op::Slice { starts: vec![0, 11, 0, 2], steps: vec![1, -2, 1, -1] };
    let sliced = b.step(slice, &[averaged], &[1, 6, 3, 3], f);
    let padded = b.step(Op::Pad { before: vec![0, 0, 1, 0] }, &[sliced], &[1, 6, 4, 4], f);
    let moved = b.step(Op::Transpose { perm: vec![0, 2, 3, 1] }, &[padded], &[1, 4, 4, 6], f);
    let factor = b.param(&[4, 1, 6], f, one);
    let scaled = b.step(Op::Scale { factor }, &[moved], &[1, 4, 4, 6], 2 * f);
    let param = b.param(&[6], 2 * f, one * one);
    let shifted = b.step(Op::AddParam { param }, &[scaled], &[1, 4, 4, 6], 2 * f);
    let cut = b.step(Op::Trunc { shift: f }, &[shifted], &[1, 4, 4, 6], f);
    let flat = b.step(Op::Reshape, &[cut], &[2, 48], f);
    let weight = b.param(&[48, 5], f, one / 8);
    let bias = b.param(&[5], 2 * f, one * one);
    let out = b.step(Op::MatMul { weight, bias: Some(bias) }, &[flat], &[2, 5], 2 * f);
    let out = b.step(Op::Trunc { shift: f }, &[out], &[2, 5], f);
    let plain = b.step(Op::Relu { shift: 0, width: 0 }, &[out], &[2, 5], f);
    b.output(out);
    b.output(plain);
    b.output(y);
    b.finish()
}

/// What a step between two wires, a sign test or a table can be part of, on small values.
fn wires_times_wires(ring: u32, f: u8) -> (Plan, Weights) {
    let mut b = Builder::new(ring, f);
    let x = b.input(&[2, 3, 4]);
    let y = b.input(&[2, 4, 5]);
    let product = b.step(Op::BatchMatMul, &[x, y], &[2, 3, 5], 2 * f);
    let rows = vec![
        vec![Tap { index: 0, coefficient: 3 }, Tap { index: 4, coefficient: -1 }],
        vec![],
        vec![Tap { index: 2, coefficient: 4 }],
    ];
    let mapped = Op::AxisMap { axis: 2, rows, coefficient_bits: 2 };
    let mapped = b.step(mapped, &[product], &[2, 3, 3], 2 * f + 2);
    let cut = b.step(Op::Trunc { shift: f + 2 }, &[mapped], &[2, 3, 3], f);
    let square = b.step(Op::Multiply, &[cut, cut], &[2, 3, 3], 2 * f);
    let sign = b.step(Op::NonNegative { width: 0 }, &[cut], &[2, 3, 3], 0);
    let kept = b.step(Op::Multiply, &[square, sign], &[2, 3, 3], 2 * f);
    let doubled = Op::Combine { coefficients: vec![2], constant: -3 };
    let doubled = b.step(doubled, &[cut], &[2, 3, 3], f);
    let pair = b.step(Op::Concat { axis: 0 }, &[cut, doubled], &[4, 3, 3], f);
    let pair = b.step(Op::Reshape, &[pair], &[2, 2, 3, 3], f);
    let chosen = b.step(Op::Select { width: 0 }, &[cut, pair], &[2, 2, 3, 3], f);
    let one = b.step(Op::Select { width: 0 }, &[doubled, cut], &[2, 3, 3], f);
    for k in [1, 3, 8] {
        let low = Op::Combine { coefficients: vec![(1 << k) - 1], constant: 0 };
        let index = b.step(low, &[sign], &[2, 3, 3], 0);
        let entries = (0..1 << k).map(|i| i * i * 7 - 1000).collect();
        let looked_up = b.step(Op::Table { entries }, &[index], &[2, 3, 3], f);
        b.output(looked_up);
    }
    [square, kept, chosen, one, sign].into_iter().for_each(|w| b.output(w));
    b.finish()
}

#[test]
fn products_of_wires_signs_choices_and_tables_are_bit_equal_at_the_declared_cost() {
    for ring in RINGS {
        let f = if ring < 40 { 5 } else { 12 };
        let (plan, weights) = wires_times_wires(ring, f);
        law(&plan, &weights, &inputs(&plan, 2 << f), RevealTo::Client);
        law(&plan, &weights, &inputs(&plan, 2 << f), RevealTo::Both);
    }
}

#[test]
fn a_network_of_every_operation_is_bit_equal_at_the_declared_cost() {
    for ring in RINGS {
        let f = if ring < 40 { 6 } else { 12 };
        let (plan, weights) = every_operation(ring, f);
        law(&plan, &weights, &inputs(&plan, 2 << f), RevealTo::Client);
    }
}

#[test]
fn outputs_go_to_whom_they_are_revealed() {
    let (plan, weights) = every_operation(32, 6);
    for reveal_to in [RevealTo::Client, RevealTo::Server, RevealTo::Both] {
        law(&plan, &weights, &inputs(&plan, 100), reveal_to);
    }
}

/// One gate on boundary values of its range, both signs, for every ring width.
#[test]
fn gates_are_exact_at_the_ends_of_their_range_for_every_ring() {
    for ring in 16..=64 {
        for (op, shift) in [
            (Op::Trunc { shift: 5 }, 5),
            (Op::Relu { shift: 5, width: 0 }, 5),
            (Op::Relu { shift: 0, width: 0 }, 0),
            (Op::Trunc { shift: ring as u8 - 2 }, ring as u8 - 2),
        ] {
            let f = ring as u8 / 3;
            let mut b = Builder::new(ring, f);
            let limit = 1i64 << (ring - 2);
            let edge = vec![-limit, -limit + 1, -33, -32, -31, -1, 0, 1, 31, 32, 33, limit - 2, limit - 1];
            let n = edge.len();
            let x = b.input(&[n]);
            // The same values at a scale that bears dropping as many bits.
            let raised = ring as u8 - 2 - f;
            let rows = (0..n as u32).map(|index| vec![Tap { index, coefficient: 1 }]).collect();
            let same = Op::AxisMap { axis: 0, rows, coefficient_bits: raised };
            let x = b.step(same, &[x], &[n], f + raised);
            let y = b.step(op, &[x], &[n], f + raised - shift);
            b.output(y);
            let (plan, weights) = b.finish();
            law(&plan, &weights, &[edge], RevealTo::Client);
        }
    }
}

#[test]
fn signs_and_choices_are_exact_at_the_ends_of_their_range_for_every_ring() {
    for ring in 16..=64 {
        let limit = 1i64 << (ring - 2);
        let edge = vec![-limit, -limit + 1, -33, -2, -1, 0, 1, 2, 33, limit - 2, limit - 1];
        let n = edge.len();
        let mut b = Builder::new(ring, 3);
        let (x, t) = (b.input(&[n]), b.input(&[2, n]));
        let bit = b.step(Op::NonNegative { width: 0 }, &[x], &[n], 0);
        let chosen = b.step(Op::Select { width: 0 }, &[x, t], &[2, n], 3);
        [bit, chosen].into_iter().for_each(|w| b.output(w));
        let (plan, weights) = b.finish();
        let values = edge.iter().rev().chain(&edge).copied().collect();
        law(&plan, &weights, &[edge, values], RevealTo::Client);
    }
}

#[test]
fn products_of_wires_are_exact_at_the_ends_of_their_range_for_every_ring() {
    for ring in 16..=64 {
        let mut b = Builder::new(ring, 3);
        let (x, y) = (b.input(&[1, 4]), b.input(&[4, 1]));
        let column = b.step(Op::Reshape, &[x], &[4, 1], 3);
        let square = b.step(Op::Multiply, &[column, y], &[4, 1], 6);
        let sum = b.step(Op::BatchMatMul, &[x, y], &[1, 1], 6);
        [square, sum].into_iter().for_each(|w| b.output(w));
        let (plan, weights) = b.finish();
        let limit = 1i64 << (ring - 2);
        let x = vec![limit - 1, -limit, 1 << (ring / 2 - 1), 0];
        law(&plan, &weights, &[x, vec![1, 1, -(1 << (ring / 2 - 3)), limit - 1]], RevealTo::Client);
    }
}

/// Whole words of bit planes, words and a tail, tails alone; comparisons narrower than the ring.
#[test]
fn every_number_of_elements_and_every_table_is_bit_equal() {
    for (ring, elements) in [(16, 1), (17, 63), (33, 64), (63, 65), (64, 130)] {
        let mut b = Builder::new(ring, 3);
        let (x, t) = (b.input(&[elements]), b.input(&[3, elements]));
        let bit = b.step(Op::NonNegative { width: 0 }, &[x], &[elements], 0);
        let relu = b.step(Op::Select { width: 0 }, &[x, x], &[elements], 3);
        let chosen = b.step(Op::Select { width: 0 }, &[x, t], &[3, elements], 3);
        [bit, relu, chosen].into_iter().for_each(|w| b.output(w));
        let limit = 1i64 << (ring - 2);
        // Beyond 2^8 entries by keys, in a narrow ring as far as it goes.
        for k in (1..=12).chain([16]).filter(|k| k + 3 < ring) {
            let index = Op::Combine { coefficients: vec![(1 << k) - 1], constant: 0 };
            let index = b.step(index, &[bit], &[elements], 0);
            let mut entries: Vec<i64> = (0..1 << k).map(|i| (i * 13 - 50) % limit).collect();
            (entries[0], entries[(1 << k) - 1]) = (-limit, limit - 1);
            let entry = b.step(Op::Table { entries }, &[index], &[elements], 3);
            b.output(entry);
        }
        let (mut plan, weights) = b.finish();
        let mut inputs = inputs(&plan, 100);
        inputs[0].iter_mut().step_by(3).for_each(|v| *v = 0);
        law(&plan, &weights, &inputs, RevealTo::Both);
        for step in &mut plan.steps {
            match &mut step.op {
                Op::Input { input: 0 } => step.range.bits = 8,
                Op::NonNegative { width } | Op::Select { width } => *width = 8,
                _ => {}
            }
        }
        plan.validate().unwrap();
        law(&plan, &weights, &inputs, RevealTo::Both);
    }
}

/// What LLAMA's implementation publishes for its truncation, by 13 bits in a ring of 21: `FSS/tests/truncatereduce` of
/// github.com/mpc-msri/EzPC. (Its sigmoid and tanh are splines of its own, rounded otherwise.)
#[test]
fn truncation_gives_the_published_results_of_llama() {
    let mut b = Builder::new(21, 13);
    let x = b.input(&[10]);
    let y = b.step(Op::Trunc { shift: 13 }, &[x], &[10], 0);
    b.output(y);
    let (plan, weights) = b.finish();
    let x = vec![0, 8192, 16384, 24576, 32768, 40960, -8192, -16384, -24576, -32768];
    let published = vec![vec![0, 1, 2, 3, 4, 5, -1, -2, -3, -4]];
    assert_eq!(reference(&plan, &weights, std::slice::from_ref(&x)), published);
    law(&plan, &weights, &[x], RevealTo::Client);
}

/// The reference does not wrap: a product of two wires beyond 64 bits is trapped, not reduced.
#[test]
fn overflow_of_products_of_wires_is_trapped() {
    for op in [Op::Multiply, Op::BatchMatMul] {
        let mut b = Builder::new(64, 3);
        let x = b.input(&[1, 1]);
        let y = b.step(op, &[x, x], &[1, 1], 6);
        b.output(y);
        let (plan, weights) = b.finish();
        let error = privet_protocols::cleartext::run(&plan, &weights, &[vec![1 << 32]], &mut Silent);
        assert!(error.unwrap_err().to_string().contains("overflow"));
    }
}

#[test]
fn the_first_maximum_and_ties_survive_pooling() {
    let mut b = Builder::new(64, 4);
    let x = b.input(&[1, 1, 2, 3]);
    let pool = Op::MaxPool { window: window(&[2, 2], &[1, 1], &[1, 1], &[0, 0], &[0, 0]), width: 0 };
    let y = b.step(pool, &[x], &[1, 1, 1, 2], 4);
    b.output(y);
    let (plan, weights) = b.finish();
    let limit = (1i64 << 61) - 1;
    for values in [vec![5, 5, -limit, 5, limit, -limit], vec![-1, -1, -1, -1, -1, -2], vec![-limit - 1; 6]] {
        law(&plan, &weights, &[values], RevealTo::Client);
    }
}

#[test]
fn one_and_three_spatial_axes_and_batches() {
    let mut b = Builder::new(48, 8);
    let x = b.input(&[2, 4, 10]);
    let weight = b.param(&[4, 2, 3], 8, 60);
    let w = window(&[3], &[2], &[2], &[1], &[3]);
    let y = b.step(Op::Conv { weight, bias: None, groups: 2, window: w }, &[x], &[2, 4, 5], 16);
    let y = b.step(Op::Trunc { shift: 8 }, &[y], &[2, 4, 5], 8);
    let volume = b.step(Op::Reshape, &[y], &[1, 2, 2, 2, 5], 8);
    let pool =
        Op::MaxPool { window: window(&[2, 1, 3], &[1, 1, 1], &[1, 1, 2], &[0, 0, 0], &[0, 0, 0]), width: 0 };
    let pooled = b.step(pool, &[volume], &[1, 2, 1, 2, 1], 8);
    b.output(pooled);
    let (plan, weights) = b.finish();
    law(&plan, &weights, &inputs(&plan, 1000), RevealTo::Client);
}

/// A pool that compares nothing needs no material, and a plan with operands in every order of forms stays exact.
#[test]
fn pools_of_one_element_are_free() {
    let mut b = Builder::new(32, 6);
    let x = b.input(&[1, 2, 3, 3]);
    let pool = Op::MaxPool { window: window(&[1, 1], &[2, 1], &[1, 1], &[0, 0], &[0, 0]), width: 0 };
    let pooled = b.step(pool, &[x], &[1, 2, 2, 3], 6);
    let y = b.step(Op::Relu { shift: 0, width: 0 }, &[pooled], &[1, 2, 2, 3], 6);
    b.output(y);
    let (plan, weights) = b.finish();
    law(&plan, &weights, &inputs(&plan, 1000), RevealTo::Client);
}

#[test]
fn overflow_is_trapped_and_named() {
    let mut b = Builder::new(24, 4);
    let x = b.input(&[2]);
    let sum = b.step(Op::Combine { coefficients: vec![3], constant: 0 }, &[x], &[2], 4);
    b.output(sum);
    let (plan, weights) = b.finish();
    let limit = (1i64 << 22) / 3;
    assert_eq!(reference(&plan, &weights, &[vec![limit, -limit]]), [[3 * limit, -3 * limit]]);
    let run = |v| {
        let inputs = [vec![0, v]];
        privet_protocols::cleartext::run(&plan, &weights, &inputs, &mut Silent)
    };
    let error = run(limit + 1).unwrap_err().to_string();
    assert!(error.contains("step1") && error.contains("24 bits") && error.contains("safe for 23"), "{error}");
}

/// Factors and operands so wide that one 64-bit product would wrap although the result fits: exact on both engines.
#[test]
fn wide_products_are_exact() {
    let mut b = Builder::new(64, 29);
    let x = b.input(&[1, 4]);
    let weight = b.param(&[4, 2], 29, 1 << 34);
    let y = b.step(Op::MatMul { weight, bias: None }, &[x], &[1, 2], 58);
    b.output(y);
    b.weights[0] = vec![1 << 34, -(1 << 34), -(1 << 34), 1 << 34, 1, 1, 0, 3];
    let (plan, weights) = b.finish();
    let x = vec![(1 << 40) + 5, (1 << 40) + 3, -7, 1 << 39];
    assert_eq!(
        reference(&plan, &weights, std::slice::from_ref(&x)),
        [[(2 << 34) - 7, -(2 << 34) - 7 + (3 << 39)]]
    );
    law(&plan, &weights, &[x], RevealTo::Client);
}

#[test]
fn calibrated_widths_stay_exact_and_cost_less() {
    let (mut plan, weights) = every_operation(64, 12);
    let inputs = inputs(&plan, 2 << 12);
    let full = Schedule::new(&plan, RevealTo::Client).total();
    let mut maxima = vec![0u64; plan.steps.len()];
    let observe = |i: usize, values: &[i64]| {
        maxima[i] = values.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0);
    };
    privet_protocols::cleartext::run_observed(&plan, &weights, &inputs, &mut Silent, observe).unwrap();
    let evidence = Evidence { declared: &[], maxima: Some(&maxima), margin: 4 };
    Ranges::derive(&plan, &weights, &evidence).assign(&mut plan).unwrap();
    plan.validate().unwrap();
    law(&plan, &weights, &inputs, RevealTo::Client);
    let narrow = Schedule::new(&plan, RevealTo::Client).total();
    assert!(narrow.server_sends < full.server_sends && narrow.dealt < full.dealt);
}

/// Wires nobody names stay private: the schedule's openings are masked, its reveals are the plan's outputs.
#[test]
fn only_outputs_are_revealed() {
    use privet_protocols::masked::Instruction;
    let (plan, _) = every_operation(64, 12);
    let schedule = Schedule::new(&plan, RevealTo::Client);
    let reveals: Vec<WireId> = schedule
        .instructions
        .iter()
        .filter_map(|(i, _)| if let Instruction::Reveal(o) = i { Some(plan.outputs[*o].wire) } else { None })
        .collect();
    assert_eq!(reveals, plan.outputs.iter().map(|o| o.wire).collect::<Vec<_>>());
}

/// Material is dealt long before it is used, and by another party: what is dealt and sent may not change while the versions
/// stay the same. Where this fails, change `PROTOCOL_VERSION` and the version of bundle files in crates/privet, docs/formats.md,
/// and then the digest here.
#[test]
fn what_is_dealt_and_sent_belongs_to_a_version() {
    let mut b = Builder::new(48, 10);
    let shape = [1, 3, 210, 210];
    let x = b.input(&shape);
    let x = b.step(Op::Trunc { shift: 4 }, &[x], &shape, 6);
    let factor = b.param(&[1], 4, 9);
    let scaled = b.step(Op::Scale { factor }, &[x], &shape, 10);
    let y = b.step(Op::Relu { shift: 4, width: 0 }, &[scaled], &shape, 6);
    let bit = b.step(Op::NonNegative { width: 0 }, &[y], &shape, 0);
    let y = b.step(Op::Table { entries: vec![3, -5] }, &[bit], &shape, 0);
    let product = b.step(Op::Multiply, &[x, y], &shape, 6);
    let halves = window(&[2, 2], &[2, 2], &[1, 1], &[0, 0], &[0, 0]);
    let pooled = b.step(Op::MaxPool { window: halves, width: 0 }, &[product], &[1, 3, 105, 105], 6);
    let chosen = b.step(Op::Select { width: 0 }, &[pooled, pooled], &[1, 3, 105, 105], 6);
    b.output(chosen);
    let halves_of_rows = window(&[1, 2], &[1, 2], &[1, 1], &[0, 0], &[0, 0]);
    // Few comparisons of few bits, which take flat trees.
    let mut few = Builder::new(40, 10);
    let x = few.input(&[1, 3, 16, 8]);
    let pooled = few.step(Op::MaxPool { window: halves_of_rows, width: 0 }, &[x], &[1, 3, 16, 4], 10);
    let y = few.step(Op::Relu { shift: 5, width: 0 }, &[pooled], &[1, 3, 16, 4], 5);
    few.output(y);
    let mut bytes = Vec::new();
    for (plan, weights) in [b.finish(), few.finish()] {
        let schedule = Schedule::new(&plan, RevealTo::Client);
        let seeds = std::array::from_fn(|i| Seed::from_bytes([i as u8; 16]));
        let dealt = deal_with(&plan, &weights, &schedule, seeds);
        bytes.extend(dealt.masked_weights);
        for (k, (instruction, _)) in schedule.instructions.iter().enumerate() {
            bytes.extend(format!("{instruction:?}").bytes());
            bytes.extend(dealt.chunks.0.get(&k).into_iter().flatten());
            for opening in schedule.openings(&plan, k) {
                bytes.extend(format!("{opening:?}").bytes());
            }
        }
    }
    let digest = privet_plan::Digest::of("privet dealt", &bytes).to_string();
    assert_eq!(
        digest, "5562a55b224119c13825858bd7f11d6a925b3cd0c004c88db43b985a1bb2bb05",
        "version 8 of the protocol, 6 of bundle files"
    );
}

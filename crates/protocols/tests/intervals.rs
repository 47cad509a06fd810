//! Interval arithmetic against the reference: no value leaves what is proved, and proofs are not wider than they have to be.

mod common;

use common::{Builder, window};
use privet_plan::interval::{Interval, intervals};
use privet_plan::ranges::{Evidence, Ranges};
use privet_plan::{Op, Plan, RangeSource, Tap, Weights};
use privet_protocols::{Silent, cleartext};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Smallest and largest value of every wire over some inputs.
fn seen(plan: &Plan, weights: &Weights, samples: &[Vec<Vec<i64>>]) -> Vec<Interval> {
    let mut seen: Vec<Option<Interval>> = vec![None; plan.steps.len()];
    for inputs in samples {
        let observe = |i: usize, values: &[i64]| {
            let (low, high) = (*values.iter().min().unwrap(), *values.iter().max().unwrap());
            seen[i] = Some(match seen[i] {
                Some(old) => Interval { low: old.low.min(low), high: old.high.max(high) },
                None => Interval { low, high },
            });
        };
        cleartext::run_observed(plan, weights, inputs, &mut Silent, observe).unwrap();
    }
    seen.into_iter().map(Option::unwrap).collect()
}

/// Every operation on two inputs, with random factors.
fn everything(factors: &[i64], shift: u8, bound: i64) -> (Plan, Weights) {
    let mut b = Builder::new(60, 4);
    let mut factors = factors.iter().copied().cycle();
    let mut param = |b: &mut Builder, shape: &[usize], f: u8| {
        let id = b.param(shape, f, 1);
        b.weights[id.index()].iter_mut().for_each(|w| *w = factors.next().unwrap());
        id
    };
    let shape = [1, 2, 3, 4];
    let x = b.input(&shape);
    let y = b.input(&shape);
    let kernel = param(&mut b, &[2, 1, 2, 2], 4);
    let bias = Some(param(&mut b, &[2], 8));
    for pad in [0, 1] {
        let geometry = window(&[2, 2], &[1, 1], &[1, 1], &[pad, 0], &[0, pad]);
        let (height, width) = (2 + pad as usize, 3 + pad as usize);
        let conv = Op::Conv { weight: kernel, bias, groups: 2, window: geometry.clone() };
        b.step(conv, &[x], &[1, 2, height, width], 8);
        for count_include_pad in [false, true] {
            let pool = Op::AveragePool { window: geometry.clone(), count_include_pad, reciprocal_bits: 5 };
            b.step(pool, &[x], &[1, 2, height, width], 9);
        }
        b.step(Op::MaxPool { window: geometry, width: 0 }, &[x], &[1, 2, height, width], 4);
    }
    let matrix = param(&mut b, &[4, 3], 4);
    let bias = Some(param(&mut b, &[3], 8));
    b.step(Op::MatMul { weight: matrix, bias }, &[x], &[1, 2, 3, 3], 8);
    let factor = param(&mut b, &[3, 1], 4);
    b.step(Op::Scale { factor }, &[x], &shape, 8);
    let addend = param(&mut b, &[4], 4);
    b.step(Op::AddParam { param: addend }, &[x], &shape, 4);
    let z = b.step(Op::Combine { coefficients: vec![3, -2], constant: bound }, &[x, y], &shape, 4);
    b.step(Op::Multiply, &[x, y], &shape, 8);
    b.step(Op::Multiply, &[z, z], &shape, 8);
    let turned = b.step(Op::Transpose { perm: vec![0, 1, 3, 2] }, &[y], &[1, 2, 4, 3], 4);
    b.step(Op::BatchMatMul, &[x, turned], &[1, 2, 3, 3], 8);
    let taps = |k: i64| vec![Tap { index: 0, coefficient: k }, Tap { index: 2, coefficient: -2 }];
    let rows = vec![taps(bound), vec![], taps(-1)];
    b.step(Op::AxisMap { axis: 2, rows, coefficient_bits: 0 }, &[x], &shape, 4);
    b.step(Op::Trunc { shift: 4 }, &[z], &shape, 0);
    b.step(Op::Relu { shift: 2, width: 0 }, &[z], &shape, 2);
    let sign = b.step(Op::NonNegative { width: 0 }, &[z], &shape, 0);
    b.step(Op::Table { entries: vec![bound, -5] }, &[sign], &shape, 0);
    b.step(Op::Select { width: 0 }, &[z, x], &shape, 4);
    b.step(Op::Reshape, &[x], &[24], 4);
    b.step(Op::Slice { starts: vec![0, 1, 0, 3], steps: vec![1, -1, 2, -1] }, &[x], &[1, 2, 2, 2], 4);
    b.step(Op::Pad { before: vec![0, 0, 1, 0] }, &[x], &[1, 2, 5, 4], 4);
    b.step(Op::Concat { axis: 1 }, &[x, y], &[1, 4, 3, 4], 4);
    // Clips as models lower them: both bounds, then the upper one only, with a truncation and without.
    let (low, high) = (-bound.abs() << shift, bound.abs() << shift);
    let scale = 4 - shift;
    let above = |b: &mut Builder, limit: i64| {
        let moved = b.step(Op::Combine { coefficients: vec![1], constant: -limit }, &[z], &shape, 4);
        b.step(Op::Relu { shift, width: 0 }, &[moved], &shape, scale)
    };
    let (over_low, over_high) = (above(&mut b, low), above(&mut b, high));
    let difference = |constant| Op::Combine { coefficients: vec![1, -1], constant };
    b.step(difference(low >> shift), &[over_low, over_high], &shape, scale);
    let cut = if shift == 0 { z } else { b.step(Op::Trunc { shift }, &[z], &shape, scale) };
    b.step(difference(0), &[cut, over_high], &shape, scale);
    b.output(x);
    b.finish()
}

fn interval() -> impl Strategy<Value = Interval> {
    (-60i64..60, -60i64..60).prop_map(|(a, b)| Interval { low: a.min(b), high: a.max(b) })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, rng_seed: RngSeed::Fixed(5), ..ProptestConfig::default() })]

    #[test]
    fn no_value_leaves_its_interval(
        ranges in [interval(), interval()],
        factors in proptest::collection::vec(-50i64..50, 1..20),
        shift in 0u8..4,
        bound in -30i64..30,
        draws in proptest::collection::vec(any::<u64>(), 48..200),
    ) {
        let (plan, weights) = everything(&factors, shift, bound);
        let proved = intervals(&plan, &weights, &ranges);
        // A third of the values at either end.
        let value = |range: Interval, draw: u64| match draw % 3 {
            0 => range.low,
            1 => range.high,
            _ => range.low + ((draw >> 2) % (range.high - range.low + 1) as u64) as i64,
        };
        let tensor = |range, from: usize| (0..24).map(|i| value(range, draws[(from + i) % draws.len()])).collect();
        let samples: Vec<Vec<Vec<i64>>> =
            (0..4).map(|k| vec![tensor(ranges[0], 50 * k), tensor(ranges[1], 50 * k + 24)]).collect();
        for (i, (proved, seen)) in proved.iter().zip(seen(&plan, &weights, &samples)).enumerate() {
            let step = &plan.steps[i];
            prop_assert!(
                proved.contains(seen.low) && proved.contains(seen.high),
                "{} {}: {seen:?} is not in {proved:?}", i, step.op.name()
            );
        }
    }

    /// The inputs that a linear layer responds to most strongly reach the proved bounds.
    #[test]
    fn bounds_of_linear_layers_are_reached(range in interval(), factors in proptest::collection::vec(-50i64..50, 4), bias in -9i64..9) {
        let mut b = Builder::new(60, 4);
        let x = b.input(&[1, 4]);
        let weight = b.param(&[4, 1], 4, 1);
        let shift = b.param(&[1], 8, 1);
        b.weights = vec![factors.clone(), vec![bias]];
        let y = b.step(Op::MatMul { weight, bias: Some(shift) }, &[x], &[1, 1], 8);
        b.output(y);
        let (plan, weights) = b.finish();
        let proved = intervals(&plan, &weights, &[range])[1];
        let ends = [true, false].map(|up| {
            let end = |&w: &i64| if (w >= 0) == up { range.high } else { range.low };
            vec![factors.iter().map(end).collect()]
        });
        prop_assert_eq!(proved, seen(&plan, &weights, &ends)[1]);
    }
}

/// A value clipped to [-3, 5] is known to be small however wide it was, by either of both lowerings.
#[test]
fn clips_bound_what_was_unbounded() {
    let (plan, weights) = everything(&[i64::from(i32::MAX)], 3, 5);
    let wide = Interval { low: -(1 << 50), high: 1 << 50 };
    let proved = intervals(&plan, &weights, &[wide, wide]);
    let [.., clipped, _, capped] = proved[..] else { unreachable!() };
    assert_eq!(clipped, Interval { low: -5, high: 5 });
    assert!(capped.low < -(1 << 40) && capped.high == 5, "{capped:?}");
}

#[test]
fn ranges_are_the_narrower_and_say_where_they_come_from() {
    let mut b = Builder::new(64, 4);
    let x = b.input(&[4]);
    let factor = b.param(&[], 4, 1);
    b.weights[0] = vec![100];
    let scaled = b.step(Op::Scale { factor }, &[x], &[4], 8);
    let y = b.step(Op::Relu { shift: 4, width: 0 }, &[scaled], &[4], 4);
    b.output(y);
    let (plan, weights) = b.finish();
    let derive = |declared: Option<Interval>, maxima: Option<&[u64]>| {
        let mut plan = plan.clone();
        let evidence = Evidence { declared: &[declared], maxima, margin: 4 };
        Ranges::derive(&plan, &weights, &evidence).assign(&mut plan).unwrap();
        plan.validate().unwrap();
        let Op::Relu { width, .. } = plan.steps[2].op else { unreachable!() };
        (plan.steps.iter().map(|s| (s.range.bits, s.range.source)).collect::<Vec<_>>(), width)
    };
    let (full, proved) = (RangeSource::FullWidth, RangeSource::Proved);
    let calibrated = |seen| RangeSource::Calibrated { seen };
    assert_eq!(derive(None, None), (vec![(63, full); 3], 63));
    let declared = Some(Interval { low: 0, high: 100 });
    // 100 takes 8 bits, 128 * 100 15 bits, an eighth of it 11.
    assert_eq!(derive(declared, None), (vec![(8, proved), (15, proved), (11, proved)], 15));
    let maxima = [90, 900, 90];
    assert_eq!(
        derive(declared, Some(&maxima)),
        (vec![(8, proved), (13, calibrated(11)), (10, calibrated(8))], 13)
    );
    assert_eq!(derive(None, Some(&maxima)).0[0], (10, calibrated(8)));
    // Proofs from the calibrated range of the input beat a margin over 51200, the largest magnitude they allow.
    assert_eq!(derive(None, Some(&[90, 51_200, 3200])).0[1..], [(17, proved), (13, proved)]);
}

#[test]
fn what_does_not_fit_is_named() {
    let mut b = Builder::new(20, 4);
    let x = b.input(&[4]);
    let y = b.step(Op::Combine { coefficients: vec![1000], constant: 0 }, &[x], &[4], 4);
    b.output(y);
    let (mut plan, weights) = b.finish();
    let mut refusal = |declared, maxima: Option<&[u64]>| {
        let evidence = Evidence { declared: &[declared], maxima, margin: 4 };
        Ranges::derive(&plan, &weights, &evidence).assign(&mut plan).unwrap_err().to_string()
    };
    let error = refusal(None, Some(&[200, 200_000]));
    assert!(
        error.contains("step1") && error.contains("needs 21 bits (largest magnitude 200000, margin 4)"),
        "{error}"
    );
    assert!(error.contains("a 20-bit ring holds 19; use --ring 22 or more"), "{error}");
    let error = refusal(Some(Interval { low: 0, high: 1 << 20 }), None);
    assert!(error.contains("step0") && error.contains("the range of the inputs needs 22 bits"), "{error}");
}

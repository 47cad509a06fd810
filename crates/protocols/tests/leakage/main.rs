//! What a party sees says nothing about what it does not own.
//!
//! For every kind of message a small plan ([`common::samples`]) runs some thousand times with fresh seeds, on zeros and on
//! other inputs and weights. All that a party gets to see ([`view`]) has to be jointly uniform: no sum modulo 2 of any of its
//! bits is constant (which finds every missing, halved, shortened or repeated mask of bits and of the lowest bits of ring
//! elements), every half byte is uniform, and so is what remains of opened values without the party's own masks; and
//! both choices of secrets give the same distribution. A larger network is run once for each of several secrets, and its
//! frames are tested one by one.
//!
//! False alarms: with independent uniform views, each test of a small plan fails once in 10^10 runs, that of the network once
//! in 10^10 (chi-square, corrected for the number of statistics); all together less than once in 10^8 runs. The dealer
//! is given nothing but the plan and seeds of its own, by the signature of `masked::deal`.

#[path = "../common/mod.rs"]
mod common;
mod statistics;
mod view;

use common::samples::{Sample, Secrets, samples};
use common::{Builder, uniform, window};
use privet_plan::{Op, Plan, Weights};
use privet_protocols::masked::{Content, RevealTo, Schedule};
use privet_ring::prg::{Prg, Seed};
use statistics::{Family, constant_sum};
use view::{View, run};

/// How often a test of a correct build fails.
const FALSE_ALARMS: f64 = 1e-10;

/// Runs beyond the number of bits in a view: a constant sum appears by chance with a probability of 2^-63.
const SPARE_RUNS: usize = 64;

fn find(name: &str) -> Sample {
    samples().into_iter().find(|s| s.name == name).unwrap_or_else(|| panic!("no sample {name}"))
}

/// Tests both parties' views of a sample.
#[track_caller]
fn views_are_uniform(name: &str) {
    let sample = find(name);
    let schedule = Schedule::new(&sample.plan, RevealTo::Client);
    views_by_schedule_are_uniform(sample, &schedule);
}

#[track_caller]
fn views_by_schedule_are_uniform(sample: Sample, schedule: &Schedule) {
    let Sample { name, plan, secrets } = sample;
    let bits =
        |view: &View| view.fields.iter().filter(|f| f.adds).map(|f| f.values.len() * f.width as usize).sum();
    let most: usize = run(&plan, schedule, &secrets[0]).iter().map(bits).max().unwrap();
    let runs = (most + SPARE_RUNS).max(1024);
    // Party, secrets, run.
    let mut views: [[Vec<View>; 2]; 2] = Default::default();
    for (choice, secrets) in secrets.iter().enumerate() {
        for _ in 0..runs {
            for (party, view) in run(&plan, schedule, secrets).into_iter().enumerate() {
                views[party][choice].push(view);
            }
        }
    }
    let mut family = Family::new(FALSE_ALARMS);
    for (party, choices) in ["server", "client"].iter().zip(&views) {
        for choice in choices {
            let (rows, names) = rows(choice);
            if let Some(sum) = constant_sum(&rows, runs) {
                let named: Vec<&String> = sum.iter().map(|&i| &names[i]).take(8).collect();
                panic!("{name}: {party}: a constant sum of {} bits: {named:#?}", sum.len());
            }
        }
        for (f, field) in choices[0][0].fields.iter().enumerate() {
            for i in 0..field.values.len() {
                let [zeros, others] = [0, 1].map(|choice| half_bytes(&choices[choice], f, i));
                for ((low, a), (_, b)) in zeros.zip(others) {
                    let name = |what| {
                        format!("{name}: {party}: {what} of value {i} from bit {low} of {}", field.name)
                    };
                    family.uniform(|| name("zeros"), &a);
                    family.uniform(|| name("others"), &b);
                    family.equal(|| name("difference"), &a, &b);
                }
            }
        }
    }
    family.check();
}

#[test]
fn scale() {
    views_are_uniform("scale");
}

#[test]
fn open_add_and_trunc_of_a_leaf() {
    views_are_uniform("open, add, trunc of a leaf");
}

#[test]
fn matmul() {
    views_are_uniform("matmul, open, trunc");
}

#[test]
fn conv() {
    views_are_uniform("conv, open, relu");
}

#[test]
fn multiply() {
    views_are_uniform("multiply");
}

#[test]
fn batch_matmul() {
    views_are_uniform("batch matmul, open, trunc");
}

#[test]
fn relu_without_truncation() {
    views_are_uniform("relu without truncation");
}

#[test]
fn relu_split_inside_the_first_leaf() {
    views_are_uniform("relu split inside the first leaf");
}

#[test]
fn relu_split_between_leaves() {
    views_are_uniform("relu split between leaves");
}

#[test]
fn relu_under_an_inner_level() {
    views_are_uniform("relu under an inner level");
}

#[test]
fn relu_split_at_two_leaves() {
    views_are_uniform("relu split at two leaves under an inner level");
}

#[test]
fn comparison() {
    views_are_uniform("comparison");
}

#[test]
fn choice() {
    views_are_uniform("choice");
}

#[test]
fn table() {
    views_are_uniform("table");
}

#[test]
fn max_pool() {
    views_are_uniform("max pool");
}

#[test]
fn max_pool_in_lanes() {
    let sample = find("wide max pool");
    let schedule = Schedule::with_lanes(&sample.plan, RevealTo::Client, 8 * 3);
    let lanes = (0..schedule.instructions.len()).flat_map(|k| schedule.openings(&sample.plan, k));
    assert_eq!(lanes.map(|o| o.lane).max(), Some(1), "two lanes");
    views_by_schedule_are_uniform(sample, &schedule);
}

#[test]
fn a_chain() {
    views_are_uniform("a chain");
}

#[test]
fn every_sample_is_tested() {
    let source = include_str!("main.rs");
    for sample in samples() {
        assert!(
            source.contains(&format!("= find(\"{0}\")", sample.name))
                || source.contains(&format!("views_are_uniform(\"{0}\")", sample.name)),
            "{}",
            sample.name
        );
    }
}

/// Every kind of message, with element counts that fill whole bytes.
fn network() -> (Plan, Weights) {
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
fn secrets(plan: &Plan, weights: Weights) -> [Secrets; 3] {
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

#[test]
fn every_frame_of_a_network_is_uniform_and_of_equal_size_for_any_input_and_weights() {
    let (plan, weights) = network();
    let schedule = Schedule::new(&plan, RevealTo::Client);
    let runs = secrets(&plan, weights).map(|secrets| run(&plan, &schedule, &secrets));
    let mut family = Family::new(FALSE_ALARMS);
    for party in 0..2 {
        let sizes = |run: &[View; 2]| -> Vec<(String, usize)> {
            run[party].fields.iter().map(|f| (f.name.clone(), f.values.len())).collect()
        };
        assert!(runs.iter().all(|r| sizes(r) == sizes(&runs[0])));
        for (i, run) in runs.iter().enumerate() {
            for field in &run[party].fields {
                let bytes = field.bytes();
                let name = || format!("run {i}, party {party}: {}", field.name);
                // At least five samples a cell; a frame of less than 40 bytes tells nothing by itself.
                if bytes.len() >= 5 * 256 {
                    let mut counts = [0; 256];
                    bytes.iter().for_each(|&b| counts[usize::from(b)] += 1);
                    family.uniform(name, &counts);
                } else if bytes.len() >= 40 {
                    let mut counts = [0; 16];
                    bytes.iter().flat_map(|&b| [b & 15, b >> 4]).for_each(|b| counts[usize::from(b)] += 1);
                    family.uniform(name, &counts);
                }
            }
        }
    }
    assert!(family.len() > 600, "only {} frames and other parts of a view", family.len());
    family.check();
}

/// How many bytes agree: nearly none of two independent uniform strings do.
#[track_caller]
fn unrelated(what: &str, a: &[u8], b: &[u8]) {
    let equal = a.iter().zip(b).filter(|(a, b)| a == b).count();
    // Of 16 bytes, 10 agree once in 10^20 times.
    assert!(equal * 8 < a.len() + 64, "{what}: {equal} of {} bytes agree", a.len());
}

#[test]
fn nothing_repeats_when_the_same_inference_runs_twice() {
    let (plan, weights) = network();
    let schedule = Schedule::new(&plan, RevealTo::Client);
    let [secrets, ..] = secrets(&plan, weights);
    let (first, second) = (run(&plan, &schedule, &secrets), run(&plan, &schedule, &secrets));
    for (a, b) in first.iter().zip(&second) {
        assert!(a.fields.len() > 100, "{} parts of a view", a.fields.len());
        for (a, b) in a.fields.iter().zip(&b.fields).filter(|(a, _)| a.bytes().len() >= 16) {
            unrelated(&a.name, &a.bytes(), &b.bytes());
        }
    }
}

/// The frames of every choice of receivers are those that the schedule lists; [`run`] compares them one by one.
#[test]
fn frames_are_those_of_the_schedule_whoever_learns_the_output() {
    for Sample { plan, secrets, .. } in samples() {
        for reveal_to in [RevealTo::Client, RevealTo::Server, RevealTo::Both] {
            let schedule = Schedule::new(&plan, reveal_to);
            run(&plan, &schedule, &secrets[1]);
            let openings: Vec<_> =
                (0..schedule.instructions.len()).flat_map(|k| schedule.openings(&plan, k)).collect();
            let values: Vec<_> = openings.iter().filter(|o| o.what == Content::Value).collect();
            assert_eq!(values.len(), 1, "nothing but the output is revealed");
            assert_eq!(values[0].to, reveal_to);
            assert_eq!(openings.len() as u64, schedule.total().rounds);
        }
    }
}

/// What the tests take for a party's own masks are its own masks: with both halves off, values remain.
#[test]
fn masks_are_drawn_from_the_documented_streams() {
    let Sample { plan, secrets, .. } = find("open, add, trunc of a leaf");
    let schedule = Schedule::new(&plan, RevealTo::Client);
    let [server, client] = run(&plan, &schedule, &secrets[1]);
    let part = |view: &View, part: &str| {
        view.fields
            .iter()
            .find(|f| f.name.starts_with(part))
            .unwrap_or_else(|| panic!("no {part}"))
            .values
            .clone()
    };
    let (opened, ours, theirs) = (
        part(&server, "opening 0 of instruction 3"),
        part(&server, "own mask 0 of instruction 3"),
        part(&client, "own mask 0 of instruction 3"),
    );
    let w = &secrets[1].weights.tensors;
    for i in 0..8 {
        let value = opened[i].wrapping_sub(ours[i]).wrapping_sub(theirs[i]);
        let expected = secrets[1].inputs[0][i] * w[0][i] + w[1][i];
        assert_eq!(plan.ring.to_signed(value), expected, "element {i}");
    }
    // The borrow of the low two bits under the mask of the opened wire.
    let bits = |part: Vec<u64>| part[0];
    let opened = bits(part(&server, "opening 0 of instruction 4"));
    let masks = bits(part(&server, "own mask 0 of instruction 4"))
        ^ bits(part(&client, "own mask 0 of instruction 4"));
    for i in 0..8 {
        let lambda = ours[i].wrapping_add(theirs[i]) & 3;
        let masked = part(&server, "opening 0 of instruction 3")[i] & 3;
        assert_eq!((opened ^ masks) >> i & 1, u64::from(masked < lambda), "element {i}");
    }
}

/// The bits of all runs' views that add something, one row for each position; and where each comes from.
fn rows(views: &[View]) -> (Vec<Vec<u64>>, Vec<String>) {
    let words = views.len().div_ceil(64);
    let fields = views[0].fields.iter().enumerate().filter(|(_, field)| field.adds);
    let (mut rows, mut names) = (Vec::new(), Vec::new());
    for (f, field) in fields {
        for i in 0..field.values.len() {
            for bit in 0..field.width {
                let mut row = vec![0; words];
                for (run, view) in views.iter().enumerate() {
                    row[run / 64] |= (view.fields[f].values[i] >> bit & 1) << (run % 64);
                }
                rows.push(row);
                names.push(format!("bit {bit} of value {i} of {}", field.name));
            }
        }
    }
    (rows, names)
}

/// Counts of every half byte of a value over all runs; the topmost one may overlap with the one below.
fn half_bytes(views: &[View], field: usize, value: usize) -> impl Iterator<Item = (u32, [u64; 16])> + '_ {
    let width = views[0].fields[field].width;
    (0..width.div_ceil(4)).map(move |i| {
        let low = (4 * i).min(width - 4);
        let mut counts = [0; 16];
        views.iter().for_each(|v| counts[(v.fields[field].values[value] >> low) as usize & 15] += 1);
        (low, counts)
    })
}

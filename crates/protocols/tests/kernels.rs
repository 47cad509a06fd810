//! The engines on every instruction set that this CPU has, each forced in turn: equal to the reference, which takes portable code.

mod common;

use std::time::Duration;

use common::three_party::{reconstruct, ring_of_channels, share};
use common::{Builder, law, offline, online, reference, uniform, window};
use privet_plan::{Op, Plan, Weights};
use privet_protocols::Silent;
use privet_protocols::masked::{RevealTo, Schedule, ServerWeights};
use privet_protocols::replicated::{self, Links, PARTIES, Position, SharedWeights};
use privet_ring::prg::{Prg, Seed};
use privet_ring::{Kernel, Ring};

/// Products large enough for every kernel's own loops, of values small enough for the narrowest ring.
fn products(ring: u32) -> (Plan, Weights) {
    let f = 1;
    let mut b = Builder::new(ring, f);
    let x = b.input(&[1, 32, 12, 12]);
    let same = || window(&[3, 3], &[1, 1], &[1, 1], &[1, 1], &[1, 1]);
    let weight = b.param(&[64, 32, 3, 3], f, 3);
    let conv = Op::Conv { weight, bias: None, groups: 1, window: same() };
    let conv = b.step(conv, &[x], &[1, 64, 12, 12], 2 * f);
    b.output(conv);
    for stride in [1, 2] {
        let weight = b.param(&[32, 1, 3, 3], f, 3);
        let side = 12 / stride as usize;
        let sliding = window(&[3, 3], &[stride, stride], &[1, 1], &[1, 1], &[1, 1]);
        let depthwise = Op::Conv { weight, bias: None, groups: 32, window: sliding };
        let depthwise = b.step(depthwise, &[x], &[1, 32, side, side], 2 * f);
        b.output(depthwise);
    }
    for rows in [1, 72] {
        let columns = 32 * 144 / rows;
        let flat = b.step(Op::Reshape, &[x], &[rows, columns], f);
        let weight = b.param(&[columns, 50], f, 1);
        let product = b.step(Op::MatMul { weight, bias: None }, &[flat], &[rows, 50], 2 * f);
        b.output(product);
    }
    b.finish()
}

#[test]
fn every_kernel_gives_the_reference() {
    for bits in [16, 32, 33, 48, 52, 53, 64] {
        let (plan, weights) = products(bits);
        let prg = Prg::new(&Seed::from_bytes([5; 16]));
        let inputs: Vec<[Vec<i64>; 1]> = (0..3).map(|i| [uniform(&prg, i, 32 * 144, 2)]).collect();
        Kernel::force(Some("portable"));
        let references =
            || inputs.iter().map(|inputs| reference(&plan, &weights, inputs)).collect::<Vec<_>>();
        let expected = references();
        for kernel in Kernel::available(Ring::new(bits).unwrap()) {
            Kernel::force(Some(kernel.name()));
            assert_eq!(Kernel::best(plan.ring), kernel, "{bits} bits");
            assert_eq!(references(), expected, "{kernel:?}, {bits} bits");
            law(&plan, &weights, &inputs[0], RevealTo::Client);
            sessions(&plan, &weights, &inputs, &expected);
            turns(&plan, &weights, &inputs, &expected);
        }
        Kernel::force(None);
    }
}

/// A server's sessions at the same time, with weights that are packed once.
fn sessions(plan: &Plan, weights: &Weights, inputs: &[[Vec<i64>; 1]], expected: &[Vec<Vec<i64>>]) {
    let schedule = Schedule::new(plan, RevealTo::Client);
    let server = ServerWeights::new(weights);
    let (schedule, server) = (&schedule, &server);
    std::thread::scope(|scope| {
        let mut sessions = Vec::new();
        for inputs in inputs {
            let half = offline(plan, weights, schedule);
            sessions.push(scope.spawn(move || online(plan, schedule, half, server, inputs).client));
        }
        for (session, expected) in sessions.into_iter().zip(expected) {
            assert!(session.join().unwrap().as_ref() == Some(expected), "{:?}", Kernel::best(plan.ring));
        }
    });
}

/// Parties that take every position in turn, with shares of weights that are packed once.
fn turns(plan: &Plan, weights: &Weights, inputs: &[[Vec<i64>; 1]], expected: &[Vec<Vec<i64>>]) {
    let schedule = Schedule::three_party(plan);
    let shares = share(&weights.tensors, plan.ring);
    let parties: [_; PARTIES] = std::array::from_fn(|party| SharedWeights::new(&shares[party]));
    for (n, (inputs, expected)) in inputs.iter().zip(expected).enumerate() {
        let inputs = share(inputs, plan.ring);
        let channels = ring_of_channels(Duration::from_secs(60), |_, _| Vec::new());
        let outputs = std::thread::scope(|scope| {
            let (schedule, parties, inputs) = (&schedule, &parties, &inputs);
            let threads: Vec<_> = channels
                .into_iter()
                .enumerate()
                .map(|(i, (mut next, mut previous))| {
                    scope.spawn(move || {
                        let links = Links { next: &mut next, previous: &mut previous };
                        let position = Position::of(i, n as u64);
                        let (weights, inputs) = (&parties[i], &inputs[i]);
                        replicated::infer(plan, schedule, position, weights, inputs, links, &mut Silent)
                            .unwrap()
                    })
                })
                .collect();
            let mut threads = threads.into_iter();
            std::array::from_fn(|_| threads.next().unwrap().join().unwrap())
        });
        assert!(
            reconstruct(&outputs, plan.ring) == *expected,
            "{:?}, inference {n}",
            Kernel::best(plan.ring)
        );
    }
}

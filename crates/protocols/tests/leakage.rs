//! What a party sees says nothing: frames of equal size and count, uniform bytes, never the same mask twice, and no opened
//! value without a mask. A received frame alone is uniform even if a mask is missing, for it is a share; what counts then
//! is the sum of what was sent and received.

mod common;

use std::time::Duration;

use common::{Builder, offline, uniform, window};
use privet_net::memory::MemoryChannel;
use privet_net::{Channel, Frame, NetError, Peer, Traffic};
use privet_plan::{Op, Plan, Weights};
use privet_protocols::Silent;
use privet_protocols::masked::{self, Online, RevealTo, Schedule};
use privet_ring::prg::{Prg, Seed};

/// A channel that keeps what arrives, and what is opened by sending and receiving as much.
struct Recorder {
    inner: MemoryChannel,
    received: Vec<Vec<u8>>,
    sent: Option<Vec<u8>>,
    opened: Vec<Opening>,
}

impl Recorder {
    fn new(inner: MemoryChannel) -> Self {
        Self { inner, received: Vec::new(), sent: None, opened: Vec::new() }
    }
}

/// What a party sent and received in one exchange.
struct Opening {
    own: Vec<u8>,
    theirs: Vec<u8>,
}

impl Opening {
    /// The opened bits, if bits were opened.
    fn bits(&self) -> Vec<u8> {
        self.own.iter().zip(&self.theirs).map(|(a, b)| a ^ b).collect()
    }

    /// The opened ring elements, if 64-bit ring elements were opened.
    fn elements(&self) -> Vec<u8> {
        let lanes = |bytes: &[u8]| -> Vec<u64> {
            bytes.chunks_exact(8).map(|lane| u64::from_le_bytes(lane.try_into().unwrap())).collect()
        };
        let sums = lanes(&self.own).into_iter().zip(lanes(&self.theirs));
        sums.flat_map(|(a, b)| a.wrapping_add(b).to_le_bytes()).collect()
    }
}

impl Channel for Recorder {
    fn send(&mut self, frame: Frame) -> Result<(), NetError> {
        self.sent = Some(frame.payload.clone());
        self.inner.send(frame)
    }
    fn recv(&mut self, max_len: usize) -> Result<Frame, NetError> {
        let frame = self.inner.recv(max_len)?;
        let theirs = frame.payload.clone();
        if let Some(own) = self.sent.take().filter(|own| own.len() == theirs.len()) {
            self.opened.push(Opening { own, theirs: theirs.clone() });
        }
        self.received.push(theirs);
        Ok(frame)
    }
    fn traffic(&self) -> Traffic {
        self.inner.traffic()
    }
    fn peer(&self) -> &Peer {
        self.inner.peer()
    }
    fn set_deadline(&mut self, per_wait: Duration) {
        self.inner.set_deadline(per_wait);
    }
    fn count_round(&mut self) {
        self.inner.count_round();
    }
    fn flush(&mut self) -> Result<(), NetError> {
        self.inner.flush()
    }
    fn shutdown(&mut self) -> Result<(), NetError> {
        self.inner.shutdown()
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

/// What server and client see in one run with fresh material.
fn run(plan: &Plan, weights: &Weights, inputs: &[Vec<i64>]) -> [Recorder; 2] {
    let schedule = Schedule::new(plan, RevealTo::Client);
    let (server, client) = offline(plan, weights, &schedule);
    let (a, b) = privet_net::memory::pair(Duration::from_secs(60));
    let (mut a, mut b) = (Recorder::new(a), Recorder::new(b));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let own = Online::Client(inputs);
            masked::online(plan, &schedule, own, client, &mut b, &mut Silent).unwrap()
        });
        let own = Online::Server(weights);
        masked::online(plan, &schedule, own, server, &mut a, &mut Silent).unwrap()
    });
    [a, b]
}

/// Chi-square statistic of byte frequencies, 255 degrees of freedom.
fn chi_square<'a>(bytes: impl Iterator<Item = &'a u8>) -> f64 {
    let mut counts = [0u64; 256];
    bytes.for_each(|&b| counts[usize::from(b)] += 1);
    let expected = counts.iter().sum::<u64>() as f64 / 256.0;
    counts.iter().map(|&c| (c as f64 - expected).powi(2) / expected).sum()
}

#[test]
fn frames_are_uniform_and_equal_in_number_and_size_for_any_input_and_weights() {
    let (plan, weights) = network();
    let elements = plan.inputs[0].shape.iter().product();
    let prg = Prg::new(&Seed::from_bytes([8; 16]));
    let mut zero = Weights::new(weights.tensors.iter().map(|t| vec![0; t.len()]).collect());
    zero.tensors[0][0] = 1;
    let random = uniform(&prg, 0, elements, 1 << 12);
    let runs = [(&weights, random), (&weights, vec![0; elements]), (&zero, vec![1 << 12; elements])]
        .map(|(w, x)| run(&plan, w, &[x]));
    for party in 0..2 {
        let sizes = |run: &[Recorder; 2]| run[party].received.iter().map(Vec::len).collect::<Vec<_>>();
        assert!(runs.iter().all(|r| sizes(r) == sizes(&runs[0])));
        for run in &runs {
            // The last frame the client gets is the server's share of the output: uniform as well, but it is few bytes.
            let chi = chi_square(run[party].received.iter().flatten());
            // 255 degrees of freedom: mean 255, deviation 22.6; 400 is passed by chance once in 10^8 runs.
            assert!(chi < 400.0, "party {party}: chi-square {chi}");
        }
    }
}

/// How many bytes agree: nearly none of two independent uniform strings do.
#[track_caller]
fn unrelated(what: &str, a: &[u8], b: &[u8]) {
    let equal = a.iter().zip(b).filter(|(a, b)| a == b).count();
    assert!(equal * 16 < a.len() + 64, "{what}: {equal} of {} bytes agree", a.len());
}

#[test]
fn no_frame_and_no_opened_value_repeats_when_the_same_inference_runs_twice() {
    let (plan, weights) = network();
    let x = vec![vec![77; plan.inputs[0].shape.iter().product()]];
    let (first, second) = (run(&plan, &weights, &x), run(&plan, &weights, &x));
    for (a, b) in first.iter().zip(&second) {
        for (i, (a, b)) in a.received.iter().zip(&b.received).enumerate().filter(|(_, (a, _))| a.len() >= 16)
        {
            unrelated(&format!("frame {i}"), a, b);
        }
        assert!(a.opened.len() > 30, "{} openings", a.opened.len());
        for (i, (a, b)) in a.opened.iter().zip(&b.opened).enumerate() {
            unrelated(&format!("bits of opening {i}"), &a.bits(), &b.bits());
            unrelated(&format!("elements of opening {i}"), &a.elements(), &b.elements());
        }
    }
}

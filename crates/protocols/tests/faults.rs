//! Every fault at every frame, in both directions, between parties on a channel in memory.
//!
//! What is lost, repeated, reordered, cut short or made by a broken peer ends both sides with a typed error; nobody ever
//! takes a wrong result for a right one. A changed byte of a share is another matter: shares have no redundancy, so no
//! engine without authentication can see it, and the channel in memory has no checksum. It takes TLS below, which
//! `crates/privet/tests/faults.rs` shows.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Builder, Chunks, offline, reference, uniform, window};
use privet_net::fault::Fault;
use privet_net::memory::{MemoryChannel, faulty_pair};
use privet_net::{Channel, Frame, FrameKind, NetError};
use privet_plan::{Op, Plan, Weights};
use privet_protocols::masked::{self, Bundle, Online, RevealTo, Role, Schedule, Source};
use privet_protocols::{ProtocolError, Silent};
use privet_ring::prg::{Prg, Seed};

/// Where a wait ends only because of a fault: it is waited for.
const SHORT: Duration = Duration::from_millis(250);
/// Where nothing may be waited for.
const AMPLE: Duration = Duration::from_secs(60);
/// Cases at a time; they wait more than they compute.
const WORKERS: usize = 16;

/// Every kind of message, few elements.
fn network() -> (Plan, Weights) {
    let mut b = Builder::new(48, 10);
    let x = b.input(&[1, 2, 4, 4]);
    let squared = b.step(Op::Multiply, &[x, x], &[1, 2, 4, 4], 20);
    let x = b.step(Op::Trunc { shift: 10 }, &[squared], &[1, 2, 4, 4], 10);
    let weight = b.param(&[2, 2, 3, 3], 10, 1 << 8);
    let same = window(&[3, 3], &[1, 1], &[1, 1], &[1, 1], &[1, 1]);
    let y = b.step(Op::Conv { weight, bias: None, groups: 1, window: same }, &[x], &[1, 2, 4, 4], 20);
    let pool = Op::MaxPool { window: window(&[2, 2], &[2, 2], &[1, 1], &[0, 0], &[0, 0]), width: 0 };
    let y = b.step(pool, &[y], &[1, 2, 2, 2], 20);
    let y = b.step(Op::Relu { shift: 10, width: 0 }, &[y], &[1, 2, 2, 2], 10);
    let centred = b.step(Op::Combine { coefficients: vec![1], constant: -99 }, &[y], &[1, 2, 2, 2], 10);
    let sign = b.step(Op::NonNegative { width: 0 }, &[centred], &[1, 2, 2, 2], 0);
    let index = b.step(Op::Combine { coefficients: vec![14], constant: 1 }, &[sign], &[1, 2, 2, 2], 0);
    let entries = (0..16).map(|i| i * 21 - 99).collect();
    let looked_up = b.step(Op::Table { entries }, &[index], &[1, 2, 2, 2], 10);
    let chosen = b.step(Op::Select { width: 0 }, &[centred, looked_up], &[1, 2, 2, 2], 10);
    let product = b.step(Op::BatchMatMul, &[y, chosen], &[1, 2, 2, 2], 20);
    let y = b.step(Op::Trunc { shift: 10 }, &[product], &[1, 2, 2, 2], 10);
    let y = b.step(Op::Reshape, &[y], &[1, 8], 10);
    let weight = b.param(&[8, 3], 10, 1 << 8);
    let y = b.step(Op::MatMul { weight, bias: None }, &[y], &[1, 3], 20);
    let y = b.step(Op::Trunc { shift: 10 }, &[y], &[1, 3], 10);
    b.output(y);
    b.finish()
}

/// A model with its input and right answer.
struct Case {
    plan: Plan,
    weights: Weights,
    schedule: Schedule,
    inputs: Vec<Vec<i64>>,
    expected: Vec<Vec<i64>>,
}

impl Case {
    fn new() -> Self {
        let (plan, weights) = network();
        let inputs = vec![uniform(&Prg::new(&Seed::from_bytes([5; 16])), 0, 32, 1 << 11)];
        let expected = reference(&plan, &weights, &inputs);
        // In the smallest lanes: the max pool has two.
        let schedule = Schedule::with_lanes(&plan, RevealTo::Both, 1);
        Self { plan, weights, schedule, inputs, expected }
    }

    /// One inference over a bad network.
    fn infer(&self, deadline: Duration, server_sends: Vec<Fault>, client_sends: Vec<Fault>) -> [Ended; 2] {
        let (server, client) = offline(&self.plan, &self.weights, &self.schedule);
        let (a, b) = faulty_pair(deadline, server_sends, client_sends);
        let party = |own, half: Bundle<Chunks>, mut channel: MemoryChannel| {
            let run = || masked::online(&self.plan, &self.schedule, own, half, &mut channel, &mut Silent);
            let outcome = catch_unwind(AssertUnwindSafe(run)).expect("no panic");
            Ended { outcome, sent: channel.traffic().frames_sent as u32 }
        };
        std::thread::scope(|scope| {
            let client = scope.spawn(|| party(Online::Client(&self.inputs), client, b));
            let server = party(Online::Server(&self.weights), server, a);
            [server, client.join().expect("no panic")]
        })
    }

    /// How a party ended: with an error, or with the right result; anything else is the worst that can happen.
    #[track_caller]
    fn failed(&self, ended: &Ended, what: &str) -> bool {
        match &ended.outcome {
            Ok(Some(outputs)) => {
                assert_eq!(*outputs, self.expected, "{what}: a wrong result was taken for a right one");
                false
            }
            Ok(None) => panic!("{what}: both learn the result"),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                true
            }
        }
    }
}

/// A party after an inference.
struct Ended {
    outcome: Result<Option<Vec<Vec<i64>>>, ProtocolError>,
    sent: u32,
}

/// Runs `check` on 0..count, several at a time.
fn each(count: u32, check: impl Fn(u32) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) =
                    Some(next.fetch_add(1, Ordering::Relaxed) as u32).filter(|&n| n < count)
                {
                    check(case);
                }
            });
        }
    });
}

/// Puts a fault at every frame of each direction; `check` gets the fault, the party that does not get the frame, the
/// other one, and whether the frame is the last of its direction.
fn everywhere(
    case: &Case,
    deadline: Duration,
    fault: fn(u32) -> Fault,
    check: impl Fn(&str, &Ended, &Ended, bool) + Sync,
) {
    let clean = case.infer(AMPLE, Vec::new(), Vec::new());
    let [server, client] = [0, 1].map(|party| {
        assert!(!case.failed(&clean[party], "without a fault"));
        clean[party].sent
    });
    assert!(server > 15 && client > 15, "{server} and {client} frames");
    each(server + client, |n| {
        let (from_server, at) = if n < server { (true, n) } else { (false, n - server) };
        let what = format!("{:?} from the {}", fault(at), if from_server { "server" } else { "client" });
        if from_server {
            let [server_end, client_end] = case.infer(deadline, vec![fault(at)], Vec::new());
            check(&what, &client_end, &server_end, at + 1 == server);
        } else {
            let [server_end, client_end] = case.infer(deadline, Vec::new(), vec![fault(at)]);
            check(&what, &server_end, &client_end, at + 1 == client);
        }
    });
}

/// Whoever misses a frame fails, and so does its peer, unless it needs nothing more.
fn both_fail(deadline: Duration, fault: fn(u32) -> Fault) {
    let case = Case::new();
    everywhere(&case, deadline, fault, |what, receiver, sender, is_last| {
        assert!(case.failed(receiver, what), "{what}: the receiver did not notice");
        assert!(case.failed(sender, what) || is_last, "{what}: the sender did not notice");
    });
}

#[test]
fn a_lost_frame_ends_both_sides() {
    both_fail(SHORT, Fault::Drop);
}

#[test]
fn a_reordered_frame_ends_both_sides() {
    both_fail(SHORT, Fault::Swap);
}

#[test]
fn a_cut_ends_both_sides_at_once() {
    both_fail(AMPLE, Fault::Cut);
}

#[test]
fn a_truncated_frame_ends_both_sides_at_once() {
    both_fail(AMPLE, Fault::Truncate);
}

#[test]
fn frames_of_a_broken_peer_end_both_sides_at_once() {
    for fault in [Fault::Shorten, Fault::Lengthen, Fault::Relabel] {
        both_fail(AMPLE, fault);
    }
}

#[test]
fn a_repeated_frame_ends_both_sides_unless_it_is_the_last() {
    let case = Case::new();
    everywhere(&case, AMPLE, Fault::Duplicate, |what, receiver, sender, is_last| {
        assert_eq!(case.failed(receiver, what), !is_last, "{what}");
        // It may have all that it needs when the repetition shows.
        let _ = case.failed(sender, what);
    });
}

#[test]
fn a_delay_below_the_deadline_changes_nothing() {
    let case = Case::new();
    everywhere(
        &case,
        AMPLE,
        |at| Fault::Delay(at, Duration::from_millis(3)),
        |what, receiver, sender, _| {
            assert!(!case.failed(receiver, what) && !case.failed(sender, what), "{what}");
        },
    );
}

#[test]
fn a_delay_beyond_the_deadline_is_a_timeout() {
    let case = Case::new();
    let late = |at| Fault::Delay(at, SHORT * 4);
    everywhere(&case, SHORT, late, |what, receiver, sender, _| {
        assert!(case.failed(receiver, what), "{what}");
        let is_timeout = matches!(
            receiver.outcome,
            Err(ProtocolError::Net(NetError::Timeout { .. } | NetError::Closed { .. }))
        );
        assert!(is_timeout, "{what}: {:?}", receiver.outcome);
        let _ = case.failed(sender, what);
    });
}

/// The truth about a changed byte: below TLS it may give a wrong result, unnoticed. It still never panics.
#[test]
fn a_corrupt_share_is_not_noticed_below_tls() {
    let case = Case::new();
    let (wrong, errors) = (AtomicUsize::new(0), AtomicUsize::new(0));
    everywhere(&case, AMPLE, Fault::Corrupt, |_, receiver, sender, _| {
        for ended in [receiver, sender] {
            match &ended.outcome {
                Ok(outputs) if outputs.as_ref() != Some(&case.expected) => {
                    wrong.fetch_add(1, Ordering::Relaxed)
                }
                Ok(_) => 0,
                Err(_) => errors.fetch_add(1, Ordering::Relaxed),
            };
        }
    });
    let (wrong, errors) = (wrong.into_inner(), errors.into_inner());
    eprintln!("corrupt shares: {wrong} wrong results, {errors} errors");
    assert!(wrong > 0, "if this is noticed now, SECURITY.md may say so");
    assert_eq!(errors, 0, "frames with the right sizes have nothing to stumble over");
}

const CHUNK: FrameKind = FrameKind::new(0x101);
const STORED: FrameKind = FrameKind::new(0x102);

/// Dealt chunks from a channel.
struct Dealt<'a>(&'a mut MemoryChannel);

impl Source for Dealt<'_> {
    fn chunk(&mut self, instruction: usize, len: usize) -> Result<Vec<u8>, ProtocolError> {
        let bytes = self.0.recv_kind(CHUNK, len)?;
        if bytes.len() == len {
            return Ok(bytes);
        }
        Err(ProtocolError::Size { what: instruction.to_string(), expected: len, found: bytes.len() })
    }
}

/// Dealing and preparing over a bad network: whether dealer and server failed, and what the dealer sent.
fn deal(case: &Case, deadline: Duration, faults: Vec<Fault>) -> (bool, bool, u32) {
    let Case { plan, weights, schedule, .. } = case;
    let seeds: [Seed; 3] = std::array::from_fn(|_| Seed::random().unwrap());
    let [server, client, weight_seed] = &seeds;
    let (mut a, mut b) = faulty_pair(deadline, faults, Vec::new());
    std::thread::scope(|scope| {
        let prepared = scope.spawn(move || -> Result<(), ProtocolError> {
            let masked = masked::mask_weights(plan, weights, weight_seed);
            let mut stored = |_: usize, _: Vec<u8>| Ok(());
            let mut dealt = Dealt(&mut b);
            let own = Some(weights);
            masked::prepare(
                plan,
                schedule,
                Role::Server,
                server,
                &masked,
                own,
                &mut dealt,
                &mut stored,
                &mut Silent,
            )?;
            Ok(b.send(Frame::new(STORED, Vec::new()))?)
        });
        let mut sink = |_: usize, bytes: Vec<u8>| Ok(a.send(Frame::new(CHUNK, bytes))?);
        let dealt =
            masked::deal(plan, schedule, Role::Server, server, client, weight_seed, &mut sink, &mut Silent);
        let dealt = dealt.and_then(|()| Ok(a.recv_kind(STORED, 0)?));
        let sent = a.traffic().frames_sent as u32;
        drop(a);
        (dealt.is_err(), prepared.join().expect("no panic").is_err(), sent)
    })
}

#[test]
fn dealing_fails_on_both_sides_at_every_frame() {
    let case = Case::new();
    let (_, failed, chunks) = deal(&case, AMPLE, Vec::new());
    assert!(!failed && chunks > 5, "{chunks} chunks");
    let faults: [fn(u32) -> Fault; 7] = [
        Fault::Drop,
        Fault::Swap,
        Fault::Cut,
        Fault::Truncate,
        Fault::Shorten,
        Fault::Lengthen,
        Fault::Relabel,
    ];
    each(chunks * faults.len() as u32, |n| {
        let fault = faults[(n / chunks) as usize](n % chunks);
        let (dealer, server, _) = deal(&case, SHORT * 4, vec![fault]);
        assert!(dealer && server, "{fault:?}: dealer {dealer}, server {server}");
    });
    each(chunks, |at| {
        let (dealer, server, _) = deal(&case, AMPLE, vec![Fault::Delay(at, Duration::from_millis(3))]);
        assert!(!dealer && !server, "delay of chunk {at}");
        let (dealer, server, _) = deal(&case, AMPLE, vec![Fault::Duplicate(at)]);
        assert_eq!((dealer, server), (at + 1 < chunks, at + 1 < chunks), "chunk {at} twice");
    });
}

//! Every fault at every frame, on every link between parties on channels in memory, of every engine of [`engines::ENGINES`].
//!
//! What is lost, repeated, reordered, cut short or made by a broken peer ends all parties that need more with a typed error;
//! nobody ever takes a wrong result for a right one. A changed byte of a share is another matter: shares have no redundancy, so no
//! engine without authentication can see it, and the channel in memory has no checksum. It takes TLS below, which
//! `crates/privet/tests/faults.rs` shows.

#[path = "../common/mod.rs"]
mod common;
mod dealing;
mod engines;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Builder, reference, uniform, window};
use engines::{ENGINES, Ended, Engine};
use privet_net::NetError;
use privet_net::fault::Fault;
use privet_plan::{Op, Plan, Weights};
use privet_protocols::ProtocolError;
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
    // By keys, with every engine.
    let index = b.step(Op::Combine { coefficients: vec![270], constant: 1 }, &[sign], &[1, 2, 2, 2], 0);
    let entries = (0..512).map(|i| i * 3 - 99).collect();
    let wide = b.step(Op::Table { entries }, &[index], &[1, 2, 2, 2], 10);
    let looked_up =
        b.step(Op::Combine { coefficients: vec![1, -1], constant: 0 }, &[looked_up, wide], &[1, 2, 2, 2], 10);
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
    inputs: Vec<Vec<i64>>,
    expected: Vec<Vec<i64>>,
}

impl Case {
    fn new() -> Self {
        let (plan, weights) = network();
        let inputs = vec![uniform(&Prg::new(&Seed::from_bytes([5; 16])), 0, 32, 1 << 11)];
        let expected = reference(&plan, &weights, &inputs);
        Self { plan, weights, inputs, expected }
    }

    /// As an engine's form of the plan.
    fn with_plan(&self, plan: fn(&Plan) -> Plan) -> Self {
        let Self { weights, inputs, expected, .. } = self;
        let weights = Weights::new(weights.tensors.clone());
        Self { plan: plan(&self.plan), weights, inputs: inputs.clone(), expected: expected.clone() }
    }

    /// A party ends with an error or with the right result; anything else is the worst that can happen.
    #[track_caller]
    fn nothing_is_wrong(&self, ended: &Ended, what: &str) {
        for result in &ended.results {
            assert!(
                result.as_ref() == Some(&self.expected),
                "{what}: a wrong result was taken for a right one"
            );
        }
        for error in ended.parties.iter().filter_map(|party| party.as_ref().err()) {
            assert!(!error.to_string().is_empty());
        }
    }
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

/// An inference with a fault in it.
struct Faulty<'a> {
    engine: &'a Engine,
    /// In the engine's form.
    case: &'a Case,
    link: usize,
    /// The frame on this link.
    at: u32,
    /// What was done to which frame.
    what: String,
    /// Who does not get the frame.
    receiver: usize,
    sender: usize,
    /// Whether the frame is the last one on its link.
    is_last: bool,
    ended: Ended,
}

impl<'a> Faulty<'a> {
    fn new(
        engine: &'a Engine,
        case: &'a Case,
        link: usize,
        at: u32,
        is_last: bool,
        deadline: Duration,
        fault: Fault,
    ) -> Self {
        let (sender, receiver) = engine.links[link];
        let [from, to] = [sender, receiver].map(|party| engine.parties[party]);
        let what = format!("{}: {fault:?} from {from} to {to}", engine.name);
        let ended = (engine.infer)(case, deadline, link, vec![fault]);
        Self { engine, case, link, at, what, receiver, sender, is_last, ended }
    }

    /// Another fault in the same frame.
    fn again(&self, deadline: Duration, fault: Fault) -> Self {
        let Self { engine, case, link, at, is_last, .. } = *self;
        Self::new(engine, case, link, at, is_last, deadline, fault)
    }

    fn has_failed(&self, party: usize) -> bool {
        self.ended.parties[party].is_err()
    }

    /// Without the frame its receiver fails, and without the receiver all that wait for it, unless they need nothing more.
    #[track_caller]
    fn everyone_notices(&self) {
        for (party, name) in self.engine.parties.iter().enumerate() {
            let never_waits = |party| self.engine.never_waits == Some(party);
            let has_all = if never_waits(self.sender) { never_waits(party) } else { self.is_last };
            let may_succeed = party != self.receiver && (has_all || never_waits(party));
            assert!(self.has_failed(party) || may_succeed, "{}: the {name} did not notice", self.what);
        }
    }
}

/// Puts a fault at every frame of every link of every engine.
fn everywhere(case: &Case, deadline: Duration, fault: fn(u32) -> Fault, check: impl Fn(&Faulty) + Sync) {
    for engine in &ENGINES {
        let case = &case.with_plan(engine.plan);
        let clean = (engine.infer)(case, AMPLE, 0, Vec::new());
        case.nothing_is_wrong(&clean, "without a fault");
        assert!(clean.parties.iter().all(Result::is_ok), "{}, without a fault", engine.name);
        assert!(clean.sent.iter().sum::<u32>() > 30, "{}: {:?} frames", engine.name, clean.sent);
        each(clean.sent.iter().sum(), |n| {
            let (mut link, mut at) = (0, n);
            while at >= clean.sent[link] {
                at -= clean.sent[link];
                link += 1;
            }
            let is_last = at + 1 == clean.sent[link];
            check(&Faulty::new(engine, case, link, at, is_last, deadline, fault(at)));
        });
    }
}

/// All that need more fail, and nobody has a wrong result.
fn all_fail(deadline: Duration, fault: fn(u32) -> Fault) {
    let case = Case::new();
    everywhere(&case, deadline, fault, |faulty| {
        case.nothing_is_wrong(&faulty.ended, &faulty.what);
        faulty.everyone_notices();
    });
}

#[test]
fn a_lost_frame_ends_all_sides() {
    all_fail(SHORT, Fault::Drop);
}

#[test]
fn a_reordered_frame_ends_all_sides() {
    all_fail(SHORT, Fault::Swap);
}

#[test]
fn a_cut_ends_all_sides_at_once() {
    all_fail(AMPLE, Fault::Cut);
}

#[test]
fn a_truncated_frame_ends_all_sides_at_once() {
    all_fail(AMPLE, Fault::Truncate);
}

#[test]
fn frames_of_a_broken_peer_end_all_sides_at_once() {
    for fault in [Fault::Shorten, Fault::Lengthen, Fault::Relabel] {
        all_fail(AMPLE, fault);
    }
}

#[test]
fn a_repeated_frame_ends_all_sides_unless_it_is_the_last() {
    let case = Case::new();
    everywhere(&case, AMPLE, Fault::Duplicate, |faulty| {
        // The sender may have all that it needs when the repetition shows.
        case.nothing_is_wrong(&faulty.ended, &faulty.what);
        assert_eq!(faulty.has_failed(faulty.receiver), !faulty.is_last, "{}", faulty.what);
    });
}

#[test]
fn a_delay_below_the_deadline_changes_nothing() {
    let case = Case::new();
    let soon = |at| Fault::Delay(at, Duration::from_millis(3));
    everywhere(&case, AMPLE, soon, |faulty| {
        case.nothing_is_wrong(&faulty.ended, &faulty.what);
        assert!(faulty.ended.parties.iter().all(Result::is_ok), "{}", faulty.what);
    });
}

#[test]
fn a_delay_beyond_the_deadline_is_a_timeout() {
    let case = Case::new();
    let is_late = |faulty: &Faulty| {
        case.nothing_is_wrong(&faulty.ended, &faulty.what);
        let outcome = &faulty.ended.parties[faulty.receiver];
        matches!(outcome, Err(ProtocolError::Net(NetError::Timeout { .. } | NetError::Closed { .. })))
    };
    let late = |at| Fault::Delay(at, SHORT * 4);
    everywhere(&case, SHORT, late, |faulty| {
        // A receiver that the machine has held up for as long has not waited: once more, with a delay that no machine does that for.
        if !is_late(faulty) {
            let again = faulty.again(SHORT, Fault::Delay(faulty.at, SHORT * 60));
            let outcome = &again.ended.parties[again.receiver];
            assert!(is_late(&again), "{}: {outcome:?}", again.what);
        }
    });
}

/// The truth about a changed byte: below TLS it may give a wrong result, unnoticed. It still never panics.
#[test]
fn a_corrupt_share_is_not_noticed_below_tls() {
    let case = Case::new();
    let counts = ENGINES.each_ref().map(|engine| (engine.name, AtomicUsize::new(0), AtomicUsize::new(0)));
    everywhere(&case, AMPLE, Fault::Corrupt, |Faulty { engine, ended, .. }| {
        let (_, wrong, errors) = counts.iter().find(|(name, ..)| *name == engine.name).unwrap();
        let is_wrong = ended.results.iter().any(|result| result.as_ref() != Some(&case.expected));
        wrong.fetch_add(usize::from(is_wrong), Ordering::Relaxed);
        errors.fetch_add(ended.parties.iter().filter(|p| p.is_err()).count(), Ordering::Relaxed);
    });
    for (engine, wrong, errors) in counts {
        let (wrong, errors) = (wrong.into_inner(), errors.into_inner());
        eprintln!("{engine}, corrupt shares: {wrong} wrong results, {errors} errors");
        assert!(wrong > 0, "{engine}: if this is noticed now, SECURITY.md may say so");
        assert_eq!(errors, 0, "{engine}: frames with the right sizes have nothing to stumble over");
    }
}

//! The views of dealer, first and second party in `3pc`: two components of everything that is shared, seeds, what the first
//! one is dealt, and what the two others open to each other. The dealer gets nothing, so it never sees a masked value.

use std::sync::Arc;
use std::time::Duration;

use privet_net::FrameKind;
use privet_net::memory::MemoryChannel;
use privet_plan::{Plan, WireId};
use privet_protocols::masked::{Instruction, Role, Schedule};
use privet_protocols::replicated::{PARTIES, Position, Share};
use privet_ring::prg::Seed;

use crate::common::samples::Secrets;
use crate::common::three_party::{self, reconstruct, ring_of_channels, share};
use crate::common::{Chunks, reference};
use crate::keys::see_keys;
use crate::view::{Now, Part, Recorder, Seen, View, WRONG, see};

const SEED: FrameKind = FrameKind::new(0x201);
const DEALT: FrameKind = FrameKind::new(0x202);

/// What each party holds before an inference.
struct Shares {
    weights: [Vec<Share>; PARTIES],
    inputs: [Vec<Share>; PARTIES],
}

impl Shares {
    fn new(plan: &Plan, secrets: &Secrets) -> Self {
        Self {
            weights: share(&secrets.weights.tensors, plan.ring),
            inputs: share(&secrets.inputs, plan.ring),
        }
    }

    /// What a party has of them.
    fn view(&self, plan: &Plan, party: usize) -> View {
        let mut view = View::default();
        for (what, shares) in [("weights", &self.weights[party]), ("input", &self.inputs[party])] {
            for (i, share) in shares.iter().enumerate() {
                add_share(&mut view, plan, &format!("{what} {i}"), share);
            }
        }
        view
    }
}

fn add_share(view: &mut View, plan: &Plan, of: &str, share: &Share) {
    for (component, values) in [("own", &share.own), ("next", &share.next)] {
        view.add(format!("{component} component of {of}"), plan.ring.bits(), values.clone(), Part::Adds);
    }
}

/// One inference with fresh shares: the views of dealer, first and second party.
pub(crate) fn run(plan: &Plan, schedule: &Schedule, secrets: &Secrets) -> Vec<View> {
    let shares = Shares::new(plan, secrets);
    let mut views: Vec<View> = (0..PARTIES).map(|party| shares.view(plan, party)).collect();
    infer(plan, schedule, secrets, &shares, 0, &mut views);
    views
}

/// Three inferences with the same shares of weights and inputs, in which the parties take turns as dealer: the views of party
/// 0, 1 and 2.
pub(crate) fn run_in_turns(plan: &Plan, schedule: &Schedule, secrets: &Secrets) -> Vec<View> {
    let shares = Shares::new(plan, secrets);
    let mut views: Vec<View> = (0..PARTIES).map(|party| shares.view(plan, party)).collect();
    (0..PARTIES as u64).for_each(|inference| infer(plan, schedule, secrets, &shares, inference, &mut views));
    views
}

/// One inference. Checks the result, and every frame against the schedule; adds to the parties' views.
fn infer(
    plan: &Plan,
    schedule: &Schedule,
    secrets: &Secrets,
    shares: &Shares,
    inference: u64,
    views: &mut [View],
) {
    let channels = ring_of_channels(Duration::from_secs(60), |_, _| Vec::new());
    let mut channels = channels.map(Some);
    let mut run = |position: Position| {
        let i = (0..PARTIES).find(|&i| Position::of(i, inference) == position).unwrap();
        let (next, previous) = channels[i].take().expect("every party runs once");
        let own = [&shares.weights[i][..], &shares.inputs[i]];
        move || Party::run(plan, schedule, position, own, next, previous)
    };
    // The dealer waits for nobody, so it may as well come first.
    let dealer = run(Position::Dealer)();
    let (first, second) = (run(Position::First), run(Position::Second));
    let [first, second] = std::thread::scope(|scope| {
        let second = scope.spawn(second);
        [first(), second.join().unwrap()]
    });
    let mut parties = [dealer, first, second];
    // From positions to parties.
    parties.rotate_right(inference as usize % PARTIES);
    let outputs = std::array::from_fn(|i| parties[i].outputs.clone());
    let expected = reference(plan, &secrets.weights, &secrets.inputs);
    assert!(reconstruct(&outputs, plan.ring) == expected, "{WRONG}");
    parties.iter().zip(views).for_each(|(party, view)| party.see(plan, schedule, view));
}

/// A party after an inference.
struct Party {
    position: Position,
    /// To the next and to the previous party; open until all have ended.
    channels: [Recorder; 2],
    outputs: Vec<Share>,
}

impl Party {
    fn run(
        plan: &Plan,
        schedule: &Schedule,
        position: Position,
        own: [&[Share]; 2],
        next: MemoryChannel,
        previous: MemoryChannel,
    ) -> Self {
        let mut now = Now::default();
        let [mut next, mut previous] = [next, previous].map(|c| Recorder::new(c, Arc::clone(&now.0)));
        let ended = three_party::party(plan, schedule, position, own, &mut next, &mut previous, &mut now);
        let outputs = ended.outputs.unwrap_or_else(|error| panic!("{WRONG}: {error}"));
        Self { position, channels: [next, previous], outputs }
    }

    fn see(&self, plan: &Plan, schedule: &Schedule, view: &mut View) {
        let [next, previous] = self.channels.each_ref().map(|channel| &channel.frames[..]);
        let role = match self.position {
            Position::Dealer => {
                assert!(next.iter().chain(previous).all(|frame| frame.sent), "the dealer is sent something");
                for (party, frames) in [("first", next), ("second", previous)] {
                    view.add_bytes(format!("seed of the {party} party"), &frames[0].payload);
                }
                return self.see_outputs(plan, view);
            }
            // Cost and openings of three parties have the first one in the server's place.
            Position::First => Role::Server,
            Position::Second => Role::Client,
        };
        let (dealer, peer) = if role == Role::Server { (previous, next) } else { (next, previous) };
        let (seed, dealt) = see_dealt(plan, schedule, self.position, dealer, view);
        let before = view.fields.len();
        see(plan, schedule, role, &seed, peer, view);
        self.outputs_are_what_was_opened_last(plan, schedule, &mut view.fields[before..]);
        see_keys(plan, schedule, role, &seed, &dealt, view);
        self.see_outputs(plan, view);
    }

    fn see_outputs(&self, plan: &Plan, view: &mut View) {
        for (spec, share) in plan.outputs.iter().zip(&self.outputs) {
            add_share(view, plan, &spec.name, share);
        }
    }

    /// A party's shares of the outputs are the masked values of the last opening, and its own half of their masks. Those
    /// fields add nothing, then.
    fn outputs_are_what_was_opened_last(
        &self,
        plan: &Plan,
        schedule: &Schedule,
        fields: &mut [crate::view::Field],
    ) {
        let is_open = |(instruction, _): &(Instruction, _)| matches!(instruction, Instruction::Open(_));
        let last = schedule.instructions.iter().rposition(is_open).expect("outputs are opened");
        let Instruction::Open(wires) = &schedule.instructions[last].0 else { unreachable!("just found") };
        let [mut opened, mut masks] = [Vec::<u64>::new(), Vec::new()];
        for field in fields.iter_mut().filter(|f| f.name.contains(&format!("of instruction {last},"))) {
            field.part = Part::Follows;
            match field.name.split(' ').next() {
                Some("opening") => opened.extend(&field.values),
                Some("own") => masks.extend(&field.values),
                _ => {}
            }
        }
        let share = |wire: &WireId| {
            let output =
                plan.outputs.iter().position(|o| o.wire == *wire).expect("nothing else is opened last");
            &self.outputs[output]
        };
        let component = |masked: bool| -> Vec<u64> {
            let is_own = masked == (self.position == Position::Second);
            wires.iter().map(share).flat_map(|s| if is_own { &s.own } else { &s.next }).copied().collect()
        };
        let negated: Vec<u64> = masks.iter().map(|m| plan.ring.reduce(m.wrapping_neg())).collect();
        assert!(component(true) == opened && component(false) == negated, "outputs are under other masks");
    }
}

/// What the dealer sent, which is what the schedule says; and that it was sent nothing.
fn see_dealt(
    plan: &Plan,
    schedule: &Schedule,
    position: Position,
    frames: &[Seen],
    view: &mut View,
) -> (Seed, Chunks) {
    assert!(frames.iter().all(|frame| !frame.sent), "the dealer is sent something");
    let (seed, mut dealt) = frames.split_first().expect("a seed from the dealer");
    assert_eq!((seed.kind, seed.instruction), (SEED, 0));
    let mut all = Chunks::default();
    view.add_bytes(format!("seed of the {} party", position.name()), &seed.payload);
    for (k, (_, cost)) in schedule.instructions.iter().enumerate() {
        let expected = if position == Position::First { cost.dealt } else { cost.dealt_client };
        if expected == 0 {
            continue;
        }
        let role = if position == Position::First { Role::Server } else { Role::Client };
        let chunks = schedule.chunks(plan, k, role);
        let (own, rest) = dealt.split_at_checked(chunks.len()).expect("a frame for every chunk");
        assert!(own.iter().all(|frame| frame.kind == DEALT && frame.instruction == k), "dealt for {k}");
        assert!(chunks.iter().eq(&own.iter().map(|f| f.payload.len()).collect::<Vec<_>>()), "dealt for {k}");
        assert_eq!(chunks.iter().sum::<usize>(), expected, "dealt for {k}");
        for (chunk, frame) in own.iter().enumerate() {
            view.add_bytes(format!("dealt chunk {chunk} of {k}"), &frame.payload);
            all.0.entry(k).or_default().extend(&frame.payload);
        }
        dealt = rest;
    }
    assert!(dealt.is_empty(), "{position:?}: more is dealt than the schedule lists");
    (Seed::from_bytes(seed.payload[..].try_into().expect("a seed of 16 bytes")), all)
}

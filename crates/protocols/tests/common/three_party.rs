//! `3pc` among three threads.

use std::time::Duration;

use privet_net::memory::{MemoryChannel, faulty_pair};
use privet_net::{Channel, Traffic};
use privet_plan::{Plan, Weights};
use privet_protocols::masked::Schedule;
use privet_protocols::replicated::{self, Links, PARTIES, Position, Share, SharedWeights, components, join};
use privet_protocols::{Progress, ProtocolError, Silent};
use privet_ring::Ring;
use privet_ring::prg::Seed;

use super::{frames, payload, reference};

/// The seed that the dealer sends each of the others.
const SEED_BYTES: usize = 16;

/// Every party's shares of some tensors.
pub fn share(tensors: &[Vec<i64>], ring: Ring) -> [Vec<Share>; PARTIES] {
    let seeds = std::array::from_fn(|_| Seed::random().unwrap());
    let mut parties: [Vec<Share>; PARTIES] = Default::default();
    for (i, values) in tensors.iter().enumerate() {
        let x = components(values, i, ring, &seeds);
        for (party, shares) in parties.iter_mut().enumerate() {
            shares.push(Share { own: x[party].clone(), next: x[(party + 1) % PARTIES].clone() });
        }
    }
    parties
}

/// The values that the parties' shares stand for; the two that hold a component have to agree on it.
pub fn reconstruct(parties: &[Vec<Share>; PARTIES], ring: Ring) -> Vec<Vec<i64>> {
    let value = |i: usize| {
        let shares = parties.each_ref().map(|shares| &shares[i]);
        for (party, share) in shares.iter().enumerate() {
            assert!(share.next == shares[(party + 1) % PARTIES].own, "component {}", (party + 1) % PARTIES);
            assert!(share.own.iter().all(|&x| x == ring.reduce(x)), "reduced");
        }
        join(shares.map(|share| &share.own[..]), ring)
    };
    (0..parties[0].len()).map(value).collect()
}

/// Channels to the next and the previous party, of each of the three.
pub fn ring_of_channels(
    deadline: Duration,
    mut faults: impl FnMut(usize, usize) -> Vec<privet_net::fault::Fault>,
) -> [(MemoryChannel, MemoryChannel); PARTIES] {
    let mut pair = |a: usize, b: usize| faulty_pair(deadline, faults(a, b), faults(b, a));
    let [(a0, a1), (b1, b2), (c2, c0)] = [pair(0, 1), pair(1, 2), pair(2, 0)];
    [(a0, c0), (b1, a1), (c2, b2)]
}

/// What a party ended with.
pub struct Ended {
    pub outputs: Result<Vec<Share>, ProtocolError>,
    /// To the next and the previous party.
    pub traffic: [Traffic; 2],
}

/// Runs one party.
pub fn party(
    plan: &Plan,
    schedule: &Schedule,
    position: Position,
    [weights, inputs]: [&[Share]; 2],
    next: &mut dyn Channel,
    previous: &mut dyn Channel,
    progress: &mut dyn Progress,
) -> Ended {
    let links = Links { next, previous };
    let outputs =
        replicated::infer(plan, schedule, position, &SharedWeights::once(weights), inputs, links, progress);
    Ended { outputs, traffic: [next.traffic(), previous.traffic()] }
}

/// The inference of this number among three threads.
pub fn three_party(
    plan: &Plan,
    schedule: &Schedule,
    inference: u64,
    weights: &Weights,
    inputs: &[Vec<i64>],
) -> [Ended; PARTIES] {
    let channels = ring_of_channels(Duration::from_secs(60), |_, _| Vec::new());
    let (weights, inputs) = (share(&weights.tensors, plan.ring), share(inputs, plan.ring));
    std::thread::scope(|scope| {
        let (weights, inputs) = (&weights, &inputs);
        let spawn = |(i, (mut next, mut previous)): (usize, (MemoryChannel, MemoryChannel))| {
            scope.spawn(move || {
                let position = Position::of(i, inference);
                let own = [&weights[i][..], &inputs[i]];
                party(plan, schedule, position, own, &mut next, &mut previous, &mut Silent)
            })
        };
        let mut threads = channels.into_iter().enumerate().map(spawn).collect::<Vec<_>>().into_iter();
        std::array::from_fn(|_| threads.next().unwrap().join().unwrap())
    })
}

/// Bit-equal, at the declared cost, whoever deals; whole, and cut into the smallest lanes.
pub fn law(plan: &Plan, weights: &Weights, inputs: &[Vec<i64>]) {
    let expected = reference(plan, weights, inputs);
    let l = plan.ring.bits();
    // Every party deals in some law.
    let inference = plan.steps.len() as u64 + u64::from(l);
    for (sizes, inference) in super::SIZES.into_iter().zip(inference..) {
        let schedule = Schedule::three_party_with_sizes(plan, sizes);
        let ended = three_party(plan, &schedule, inference, weights, inputs);
        let traffic = ended.each_ref().map(|ended| ended.traffic);
        let outputs = ended.map(|ended| ended.outputs.unwrap());
        assert_eq!(reconstruct(&outputs, plan.ring), expected, "l={l}, inference {inference}");
        let total = schedule.total();
        let openings: Vec<_> =
            (0..schedule.instructions.len()).flat_map(|k| schedule.openings(plan, k)).collect();
        for (party, [next, previous]) in traffic.into_iter().enumerate() {
            let position = Position::of(party, inference);
            let (opened, dealt) = match position {
                Position::Dealer => {
                    assert_eq!(payload(next), total.dealt + SEED_BYTES, "dealt bytes, l={l}");
                    assert_eq!(payload(previous), total.dealt_client + SEED_BYTES, "keys of tables, l={l}");
                    assert_eq!([next, previous].map(|t| (t.frames_received, t.rounds)), [(0, 0); 2]);
                    continue;
                }
                Position::First => (next, previous),
                Position::Second => (previous, next),
            };
            let sends = if position == Position::First { total.server_sends } else { total.client_sends };
            assert_eq!(payload(opened), sends, "{position:?} bytes, l={l}");
            assert_eq!(opened.frames_sent, frames(&openings), "{position:?} frames, l={l}");
            assert_eq!(opened.rounds, total.rounds, "{position:?} rounds, l={l}");
            assert_eq!((dealt.bytes_sent, dealt.rounds), (0, 0), "nobody sends to the dealer");
        }
    }
}

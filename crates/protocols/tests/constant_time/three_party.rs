//! An inference of `3pc` on record: all that it takes to run the three parties again, one after the other on one thread.

use std::time::Duration;

use privet_net::memory::MemoryChannel;
use privet_net::{Frame, FrameKind};
use privet_plan::Plan;
use privet_protocols::Silent;
use privet_protocols::masked::{Role, Schedule};
use privet_protocols::replicated::{PARTIES, Position, Share};

use crate::common::samples::Secrets;
use crate::common::three_party::{party, ring_of_channels, share};
use crate::tape::{OPENING, Tape};

const SEED: FrameKind = FrameKind::new(0x201);
const DEALT: FrameKind = FrameKind::new(0x202);

/// Shares, and what each party received from the next and the previous one. The dealer draws its seeds afresh whenever it runs.
pub(crate) struct Recording {
    /// Of weights and inputs.
    shares: [[Vec<Share>; 2]; PARTIES],
    received: [[Vec<Frame>; 2]; PARTIES],
}

impl Recording {
    /// Runs an inference with fresh seeds, in which party 0 deals. No gate may be in lanes.
    pub(crate) fn new(plan: &Plan, schedule: &Schedule, secrets: &Secrets) -> Self {
        let [weights, inputs] = [&secrets.weights.tensors, &secrets.inputs].map(|t| share(t, plan.ring));
        let mut shares = weights.into_iter().zip(inputs).map(|(weights, inputs)| [weights, inputs]);
        let shares: [_; PARTIES] = std::array::from_fn(|_| shares.next().unwrap());
        let channels = ring_of_channels(Duration::from_secs(60), |_, _| Vec::new());
        let received = std::thread::scope(|scope| {
            let spawn = |(i, (next, previous)): (usize, (MemoryChannel, MemoryChannel))| {
                let shares = &shares[i];
                scope.spawn(move || {
                    let mut tapes = [next, previous].map(Tape::live);
                    run(plan, schedule, i, shares, &mut tapes);
                    tapes.map(Tape::into_frames)
                })
            };
            let mut threads = channels.into_iter().enumerate().map(spawn).collect::<Vec<_>>().into_iter();
            std::array::from_fn(|_| threads.next().unwrap().join().unwrap())
        });
        Self { shares, received }
    }

    /// What a party received from the next and the previous one.
    pub(crate) fn tapes(&self, party: usize) -> [Tape; 2] {
        self.received[party].each_ref().map(|frames| Tape::played(frames))
    }

    /// A party's part once more; its shares of the outputs are dropped.
    pub(crate) fn replay(&self, plan: &Plan, schedule: &Schedule, party: usize, tapes: &mut [Tape; 2]) {
        run(plan, schedule, party, &self.shares[party], tapes);
    }

    /// Fixed-width fields in an order that follows from the plan.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let shares = self.shares.iter().flatten().flatten();
        let values = shares.flat_map(|share| share.own.iter().chain(&share.next));
        let mut bytes: Vec<u8> = values.flat_map(|v| v.to_le_bytes()).collect();
        let frames = self.received.iter().flatten().flatten();
        frames.for_each(|frame| bytes.extend(&frame.payload));
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote; nothing but the plan decides what is read where.
    pub(crate) fn from_bytes(plan: &Plan, schedule: &Schedule, mut bytes: &[u8]) -> Self {
        let mut take = |len: usize| {
            let (own, rest) = bytes.split_at(len);
            bytes = rest;
            own
        };
        let mut values = |shape: &[usize]| -> Vec<u64> {
            let lanes = take(8 * shape.iter().product::<usize>());
            lanes.chunks_exact(8).map(|lane| u64::from_le_bytes(lane.try_into().unwrap())).collect()
        };
        let mut share = |shape: &[usize]| Share { own: values(shape), next: values(shape) };
        let shares = std::array::from_fn(|_| {
            [
                plan.params.iter().map(|spec| share(&spec.shape)).collect(),
                plan.inputs.iter().map(|spec| share(&spec.shape)).collect(),
            ]
        });
        let openings = (0..schedule.instructions.len()).flat_map(|k| schedule.openings(plan, k));
        let opened: Vec<_> = openings.map(|opening| (OPENING, opening.bytes())).collect();
        // The seed, and chunk by chunk what is dealt. Costs have the first party in the server's place.
        let dealt = |role| -> Vec<(FrameKind, usize)> {
            let chunks = (0..schedule.instructions.len()).flat_map(|k| schedule.chunks(plan, k, role));
            std::iter::once((SEED, 16)).chain(chunks.map(|len| (DEALT, len))).collect()
        };
        let mut frames = |lens: &[(FrameKind, usize)]| -> Vec<Frame> {
            lens.iter().map(|&(kind, len)| Frame::new(kind, take(len).to_vec())).collect()
        };
        let first = [frames(&opened), frames(&dealt(Role::Server))];
        let second = [frames(&dealt(Role::Client)), frames(&opened)];
        let received = [[Vec::new(), Vec::new()], first, second];
        Self { shares, received }
    }
}

fn run(
    plan: &Plan,
    schedule: &Schedule,
    i: usize,
    [weights, inputs]: &[Vec<Share>; 2],
    tapes: &mut [Tape; 2],
) {
    let [next, previous] = tapes;
    let own = [&weights[..], inputs];
    party(plan, schedule, Position::of(i, 0), own, next, previous, &mut Silent).outputs.unwrap();
}

//! An inference of `2pc` on record: all that it takes to run dealer and parties again, one after the other on one thread.

use std::time::Duration;

use privet_net::Frame;
use privet_plan::{Plan, Weights};
use privet_protocols::Silent;
use privet_protocols::masked::{self, Bundle, Online, Role, Schedule, ServerWeights};
use privet_ring::prg::Seed;

use crate::common::samples::Secrets;
use crate::common::{Chunks, deal_with, prepared};
use crate::tape::{OPENING, Tape};

/// Seeds, secrets and what each party received.
pub(crate) struct Recording {
    seeds: [Seed; 3],
    secrets: Secrets,
    /// Of server and client.
    received: [Vec<Frame>; 2],
}

impl Recording {
    /// Runs an inference with fresh seeds.
    pub(crate) fn new(plan: &Plan, schedule: &Schedule, secrets: &Secrets) -> Self {
        let seeds: [Seed; 3] = std::array::from_fn(|_| Seed::random().unwrap());
        let secrets = Secrets {
            weights: Weights::new(secrets.weights.tensors.clone()),
            inputs: secrets.inputs.clone(),
        };
        let [server, client] = halves(plan, schedule, &secrets, &seeds);
        let (a, b) = privet_net::memory::pair(Duration::from_secs(60));
        let weights = ServerWeights::new(&secrets.weights);
        let run = |own, half: Bundle<Chunks>, channel| {
            let mut tape = Tape::live(channel);
            online(plan, schedule, own, half, &mut tape);
            tape.into_frames()
        };
        let received = std::thread::scope(|scope| {
            let client = scope.spawn(|| run(Online::Client(&secrets.inputs), client, b));
            [run(Online::Server(&weights), server, a), client.join().unwrap()]
        });
        Self { seeds, secrets, received }
    }

    /// The halves of the bundle, dealt and prepared once more.
    pub(crate) fn halves(&self, plan: &Plan, schedule: &Schedule) -> [Bundle<Chunks>; 2] {
        halves(plan, schedule, &self.secrets, &self.seeds)
    }

    /// What a party received.
    pub(crate) fn tape(&self, role: Role) -> Tape {
        Tape::played(&self.received[usize::from(role == Role::Client)])
    }

    /// A party's online phase once more; its result is dropped.
    pub(crate) fn replay(
        &self,
        plan: &Plan,
        schedule: &Schedule,
        role: Role,
        half: Bundle<Chunks>,
        tape: &mut Tape,
    ) {
        let weights = ServerWeights::new(&self.secrets.weights);
        let own = match role {
            Role::Server => Online::Server(&weights),
            Role::Client => Online::Client(&self.secrets.inputs),
        };
        online(plan, schedule, own, half, tape);
    }

    /// Fixed-width fields in an order that follows from the plan.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.seeds.iter().flat_map(|s| *s.expose()).collect();
        let values = self.secrets.weights.tensors.iter().chain(&self.secrets.inputs).flatten();
        values.for_each(|v| bytes.extend(v.to_le_bytes()));
        self.received.iter().flatten().for_each(|frame| bytes.extend(&frame.payload));
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote; nothing but the plan decides what is read where.
    pub(crate) fn from_bytes(plan: &Plan, schedule: &Schedule, mut bytes: &[u8]) -> Self {
        let mut take = |len: usize| {
            let (own, rest) = bytes.split_at(len);
            bytes = rest;
            own
        };
        let seeds = std::array::from_fn(|_| Seed::from_bytes(take(16).try_into().unwrap()));
        let mut values = |shape: &[usize]| -> Vec<i64> {
            let lanes = take(8 * shape.iter().product::<usize>());
            lanes.chunks_exact(8).map(|lane| i64::from_le_bytes(lane.try_into().unwrap())).collect()
        };
        let tensors = plan.params.iter().map(|spec| values(&spec.shape)).collect();
        let inputs = plan.inputs.iter().map(|spec| values(&spec.shape)).collect();
        let openings = (0..schedule.instructions.len()).flat_map(|k| schedule.openings(plan, k));
        let openings: Vec<_> = openings.collect();
        let received = [Role::Server, Role::Client].map(|role| {
            let own = openings.iter().filter(|o| o.to.includes(role));
            own.map(|o| Frame::new(OPENING, take(o.bytes()).to_vec())).collect()
        });
        Self { seeds, secrets: Secrets { weights: Weights::new(tensors), inputs }, received }
    }
}

fn halves(plan: &Plan, schedule: &Schedule, secrets: &Secrets, seeds: &[Seed; 3]) -> [Bundle<Chunks>; 2] {
    let dealt = deal_with(plan, &secrets.weights, schedule, seeds.clone());
    let (server, client) = prepared(plan, &secrets.weights, schedule, dealt);
    [server, client]
}

fn online(plan: &Plan, schedule: &Schedule, own: Online, half: Bundle<Chunks>, tape: &mut Tape) {
    masked::online(plan, schedule, own, half, tape, &mut Silent).unwrap();
}

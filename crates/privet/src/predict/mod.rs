//! How long an inference will take over a network, from what its plan declares and a short calibration of this machine.
//!
//! Online, every instruction of the schedule is played through on a clock and a line (`timeline.rs`): a lane of it computes, its
//! frame leaves at the network's rate and arrives half a round trip later, and the next lane computes meanwhile. What an
//! instruction computes for comes from a run of one of its kind, in this process and scaled to its size ([`Machine`]).
//! Offline, dealer, server and client work side by side: what takes longest counts, the transfer of dealt bytes included.
//!
//! The prediction is for `privet run` and `privet bench`, where all parties share this machine. It leaves out that threads of
//! one party hinder each other, what the system does besides, and the data that no longer fits a cache.

mod choose;
mod machine;
mod probe;
mod timeline;

use std::fmt;
use std::ops::{Add, Mul};

use privet_net::Emulated;
use privet_plan::{Plan, WireId};
use privet_protocols::masked::{Instruction, Opening, RevealTo, Schedule};
use serde::Serialize;

pub use choose::{Alternative, Choice, Chosen, DEFAULT_MAX_KEY_BYTES, Gate, Total, choose};
use machine::Costs;
pub use machine::{Machine, Summary};
use timeline::{Network, Timeline};

/// Round trips of the offline phase that are made once, whatever the number of inferences: the server's two sessions with the
/// dealer (connecting three, greeting one, leaving one each, and one for the first offer), the server's look at what the
/// client holds (a third session), and the client's goodbye.
const ROUND_TRIPS_ONCE: f64 = 18.0;
/// Round trips for each inference: an offer is taken, what is stored is acknowledged.
const ROUND_TRIPS_EACH: f64 = 2.0;
/// Connections, one after the other, that the offline phase waits for.
const CONNECTIONS: f64 = 5.0;
/// Notes in the journal, or as much work on the disk, that an agreement waits for: both sides, one after the other, mark their
/// material as used and take its file away.
const NOTES_ONLINE: f64 = 4.0;
/// Round trips of an agreement: connecting three, greeting one.
const ROUND_TRIPS_AGREEMENT: f64 = 4.0;
/// Writes to disk for each bundle, by the dealer and by its owner.
const SYNCS_OFFLINE: f64 = 6.0;
/// Seconds until the client's process has started and connected, and a server that waits for it looks again.
const START: f64 = 0.04;

/// Seconds, and what they go to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Time {
    /// In all.
    pub seconds: f64,
    /// Of them what is left on a network without limits: arithmetic, encryption, disk.
    pub compute: f64,
    /// What the network's rate adds.
    pub bytes: f64,
    /// What its round trips add.
    pub rounds: f64,
}

impl Time {
    fn new(compute: f64, bytes: f64, rounds: f64) -> Self {
        Self { seconds: compute + bytes + rounds, compute, bytes, rounds }
    }
}

impl Add for Time {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self::new(self.compute + other.compute, self.bytes + other.bytes, self.rounds + other.rounds)
    }
}

impl Mul<f64> for Time {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        Self::new(self.compute * factor, self.bytes * factor, self.rounds * factor)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, compute, bytes, rounds } = self;
        write!(f, "{seconds:.3} s (compute {compute:.3}, bytes {bytes:.3}, rounds {rounds:.3})")
    }
}

/// Predicted wall times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// From the input to the output.
    pub online: Time,
    /// What is agreed on before there is an input, connecting included; behind an inference on the same connection it takes less.
    pub agreement: Time,
    /// Material of one inference.
    pub offline: Time,
    /// What the offline phase takes besides, once, for all inferences that it prepares.
    pub offline_once: Time,
    /// The machine that this is for.
    pub machine: Summary,
    /// What the steps of the online phase take, those that take nothing left out.
    pub steps: Vec<StepTime>,
}

/// An instruction's share of the online phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepTime {
    /// The model's layer or output.
    pub layer: String,
    /// The operation, `open` or `reveal`.
    pub op: &'static str,
    /// Seconds.
    pub seconds: f64,
}

impl Prediction {
    /// The offline phase of `count` inferences, for each of them.
    pub fn offline_of(&self, count: u64) -> Time {
        self.offline + self.offline_once * (1.0 / count.max(1) as f64)
    }
}

/// Predicts the phases of an inference over `link`, or over the loopback interface.
pub fn predict(plan: &Plan, reveal_to: RevealTo, machine: &Machine, link: Option<Emulated>) -> Prediction {
    let schedule = Schedule::new(plan, reveal_to);
    let network = Network::new(link, machine);
    let (online, steps) = online(plan, &schedule, machine, network);
    let (offline, offline_once) = offline(plan, &schedule, machine, network);
    let agreement = agreement(machine, network);
    Prediction { online, agreement, offline, offline_once, machine: machine.summary(), steps }
}

/// Connection, hello and answer, for which the server makes the schedule; each side in turn marks its material as used.
fn agreement(machine: &Machine, network: Network) -> Time {
    let own = machine.connect + NOTES_ONLINE * machine.note + machine.schedule;
    let hops = 2.0 * (network.hop - machine.hop);
    Time::new(own + 2.0 * machine.hop, 0.0, ROUND_TRIPS_AGREEMENT * 2.0 * network.way + hops)
}

/// An instruction, as both parties play it.
struct Played {
    compute: f64,
    rounds: usize,
    frames: Vec<Opening>,
}

impl Played {
    fn of(plan: &Plan, schedule: &Schedule, k: usize, machine: &Machine) -> Self {
        let (instruction, cost) = &schedule.instructions[k];
        let stored = (cost.server_stores + cost.client_stores) as f64;
        let compute = costs(plan, instruction, machine).online + stored * machine.read / machine.cores;
        // What is on its way together with something else is sent all the same.
        Self { compute, rounds: cost.rounds.max(1) as usize, frames: schedule.openings(plan, k) }
    }

    fn on(&self, timeline: &mut Timeline) {
        timeline.play(self.compute, self.rounds, &self.frames);
    }
}

fn online(plan: &Plan, schedule: &Schedule, machine: &Machine, network: Network) -> (Time, Vec<StepTime>) {
    let mut whole = Timeline::new(network);
    let mut no_rate = Timeline::new(Network { byte: 0.0, ..network });
    let mut nothing = Timeline::new(Network::new(None, machine));
    let mut steps = Vec::new();
    for (k, (instruction, _)) in schedule.instructions.iter().enumerate() {
        let played = Played::of(plan, schedule, k, machine);
        let before = whole.now();
        [&mut whole, &mut no_rate, &mut nothing].into_iter().for_each(|timeline| played.on(timeline));
        if whole.now() > before {
            let op = match instruction {
                Instruction::Open(_) => "open",
                Instruction::Step(i) => plan.steps[*i].op.name(),
                Instruction::Reveal(_) => "reveal",
            };
            let layer = schedule.name(plan, k).to_owned();
            steps.push(StepTime { layer, op, seconds: whole.now() - before });
        }
    }
    let time = Time::new(nothing.now(), whole.now() - no_rate.now(), no_rate.now() - nothing.now());
    (time, steps)
}

/// One inference, and what comes once.
fn offline(plan: &Plan, schedule: &Schedule, machine: &Machine, network: Network) -> (Time, Time) {
    let (mut sum, mut dealt, mut stored) = (Costs::default(), 0.0, [0.0; 2]);
    for (instruction, cost) in &schedule.instructions {
        let own = costs(plan, instruction, machine);
        sum =
            Costs { deal: sum.deal + own.deal, serve: sum.serve + own.serve, ask: sum.ask + own.ask, ..sum };
        dealt += (cost.dealt + cost.dealt_client) as f64;
        stored[0] += cost.server_stores as f64 * machine.write;
        stored[1] += cost.client_stores as f64 * machine.write;
    }
    let (server, client, tls) = (sum.serve + stored[0], sum.ask + stored[1], dealt * machine.tls);
    let busiest = sum.deal.max(server).max(client);
    let compute = busiest.max((sum.deal + server + client + tls) / machine.cores);
    let transfer = (dealt * network.byte - compute).max(0.0);
    let round_trip = 2.0 * network.way;
    let each = Time::new(compute + SYNCS_OFFLINE * machine.sync, transfer, ROUND_TRIPS_EACH * round_trip);
    // The server masks its weights when it takes the first bundle; the client reads its own copy.
    let masks = parameters(plan) * (machine.mask + machine.unpack);
    (each, Time::new(START + CONNECTIONS * machine.connect + masks, 0.0, ROUND_TRIPS_ONCE * round_trip))
}

/// Private values of the model.
fn parameters(plan: &Plan) -> f64 {
    plan.params.iter().map(|p| p.shape.iter().product::<usize>()).sum::<usize>() as f64
}

/// What an instruction computes for.
fn costs(plan: &Plan, instruction: &Instruction, machine: &Machine) -> Costs {
    match instruction {
        Instruction::Open(wires) => machine.open * wires.iter().map(|&w| plan.len(w)).sum::<usize>() as f64,
        Instruction::Step(i) => machine.step(plan, *i),
        Instruction::Reveal(o) => machine.element * plan.len(plan.outputs[*o].wire) as f64,
    }
}

/// Elements that a step reads or writes, whichever are more.
fn elements(plan: &Plan, index: usize) -> usize {
    let step = &plan.steps[index];
    let read = step.inputs.iter().map(|&w| plan.len(w)).max().unwrap_or(0);
    read.max(plan.len(WireId(index as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Options, Subject, Workload};

    /// Times themselves depend on the machine; how they depend on the network does not.
    #[test]
    fn networks_add_what_they_are_slow_at() {
        let subject = Subject::find("lenet").unwrap();
        let options = Options {
            inputs: 0,
            seed: 1,
            calibrate: false,
            ring: None,
            frac_bits: None,
            average_pooling: false,
        };
        let plan = Workload::new(&subject, &options).unwrap().model.plan;
        let machine = Machine::calibrate(&plan).unwrap();
        let on = |link| predict(&plan, RevealTo::Client, &machine, link);
        let [loopback, lan, wan] = [None, Some(Emulated::LAN), Some(Emulated::WAN)].map(on);
        let total = Schedule::new(&plan, RevealTo::Client).total();
        for (prediction, way, rate) in [(&lan, 0.5e-3, 1e9), (&wan, 20e-3, 1e8)] {
            let Time { seconds, compute, bytes, rounds } = prediction.online;
            assert!((seconds - compute - bytes - rounds).abs() < 1e-9);
            assert_eq!(compute, loopback.online.compute);
            assert!(rounds >= total.rounds as f64 * way, "{rounds}");
            assert!(bytes <= 1.1 * 8.0 * (total.server_sends + total.client_sends) as f64 / rate, "{bytes}");
            assert!(prediction.offline.seconds >= total.dealt as f64 * 8.0 / rate);
            let steps: f64 = prediction.steps.iter().map(|s| s.seconds).sum();
            assert!(steps > 0.0 && (steps - seconds).abs() < 1e-9, "{steps} of {seconds}");
            let [one, three] = [1, 3].map(|n| prediction.offline_of(n).seconds);
            assert!((one - three - prediction.offline_once.seconds * 2.0 / 3.0).abs() < 1e-9);
        }
        assert!(loopback.agreement.seconds > 0.0);
        for (prediction, round_trip) in [(&lan, 1e-3), (&wan, 40e-3)] {
            let Time { seconds, compute, rounds, .. } = prediction.agreement;
            assert!(rounds >= 4.0 * round_trip && (seconds - compute - rounds).abs() < 1e-9);
        }
        assert!(loopback.online.bytes == 0.0 && loopback.online.seconds < lan.online.seconds);
        assert!(lan.online.seconds < wan.online.seconds && lan.offline.seconds < wan.offline.seconds);
    }
}

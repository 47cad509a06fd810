//! Which steps of a plan take keys of function secret sharing, and which trees of masked bits: what is predicted to be faster
//! online.
//!
//! Both ways of every step are played through on the same clock and line as a prediction. First every step takes what is
//! faster for it alone; then groups of equal steps are changed as long as that makes the whole faster. Keys are ten times
//! the material, so a step takes them only if they save at least a fiftieth of its time: that is all the weight that the
//! offline phase has. The result is never predicted to be slower than the faster of both engines that fits the limit.
//!
//! The choice is a function of plan, receiver, network, limit and calibration, and nothing else.

use privet_net::Emulated;
use privet_plan::{Plan, WireId};
use privet_protocols::masked::{Cost, Instruction, RevealTo, Schedule};
use serde::Serialize;

use super::timeline::{Network, Timeline};
use super::{Machine, Played, predict};

/// Bytes of keys that each party may have to store for an inference, if nothing else is said.
pub const DEFAULT_MAX_KEY_BYTES: u64 = 4_000_000_000;

/// What keys have to save of a step's time, at least.
const GAIN: f64 = 0.02;

/// How a step compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// By trees of masked bits.
    Tree,
    /// By keys.
    Keys,
}

/// One way to do a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Alternative {
    /// Online rounds.
    pub rounds: u64,
    /// Online bytes, both ways.
    pub bytes: u64,
    /// Bytes of keys that each party stores.
    pub key_bytes: u64,
    /// Bytes that the dealer sends to both.
    pub dealt_bytes: u64,
    /// Predicted seconds online.
    pub seconds: f64,
}

/// What was chosen for a step that compares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chosen {
    /// Index of the step.
    pub step: usize,
    /// The model's layer.
    pub layer: String,
    /// The operation.
    pub op: &'static str,
    /// Elements of the first operand.
    pub elements: usize,
    /// How it compares.
    pub chosen: Gate,
    /// Why.
    pub reason: String,
    /// By a tree.
    pub tree: Alternative,
    /// By keys.
    pub keys: Alternative,
}

/// A whole inference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Total {
    /// `2pc` (no keys), `fss` (keys for all comparisons) or `auto` (as chosen).
    pub engine: &'static str,
    /// Online rounds.
    pub rounds: u64,
    /// Online bytes, both ways.
    pub bytes: u64,
    /// Bytes of keys that each party stores.
    pub key_bytes: u64,
    /// Bytes that the dealer sends to both.
    pub dealt_bytes: u64,
    /// Predicted seconds online.
    pub online_seconds: f64,
    /// Predicted seconds of the offline phase for one inference.
    pub offline_seconds: f64,
}

/// A plan with its choices.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// The plan, with the steps that take keys.
    #[serde(skip)]
    pub plan: Plan,
    /// The limit.
    pub max_key_bytes: u64,
    /// `2pc`, `fss` and `auto`.
    pub totals: [Total; 3],
    /// All steps that compare.
    pub steps: Vec<Chosen>,
}

/// Chooses for every step of a validated plan that compares, whatever its list says so far, over `link` or the loopback
/// interface, with at most `max_key_bytes` of keys for each party and inference. `machine` has to be
/// [calibrated for both ways](Machine::calibrate_to_choose).
pub fn choose(
    plan: &Plan,
    reveal_to: RevealTo,
    machine: &Machine,
    link: Option<Emulated>,
    max_key_bytes: u64,
) -> Choice {
    let plain = Plan { fss: Vec::new(), ..plan.clone() };
    let search = Search::new(&plain, reveal_to, machine, link, max_key_bytes);
    let (takes_keys, limited) = search.run();
    let with = |takes: &[bool]| Plan { fss: search.wires(takes), ..plain.clone() };
    let all = vec![true; search.steps.len()];
    let chosen = with(&takes_keys);
    let total = |engine, plan: &Plan, takes: &[bool]| {
        let prediction = predict(plan, reveal_to, machine, link);
        let cost = Schedule::new(plan, reveal_to).total();
        Total {
            engine,
            rounds: cost.rounds,
            bytes: (cost.server_sends + cost.client_sends) as u64,
            key_bytes: search.key_bytes(takes),
            dealt_bytes: (cost.dealt + cost.dealt_client) as u64,
            online_seconds: prediction.online.seconds,
            offline_seconds: prediction.offline.seconds,
        }
    };
    let totals = [
        total("2pc", &plain, &vec![false; search.steps.len()]),
        total("fss", &with(&all), &all),
        total("auto", &chosen, &takes_keys),
    ];
    let steps = search.steps.iter().zip(takes_keys.iter().zip(limited));
    let steps = steps.map(|(step, (&keys, limited))| step.explained(plan, keys, limited)).collect();
    Choice { plan: chosen, max_key_bytes, totals, steps }
}

/// A step that compares, both ways.
struct Candidate {
    /// Index of the step, and of its instruction.
    step: usize,
    instruction: usize,
    elements: usize,
    /// By a tree, by keys.
    ways: [Alternative; 2],
    /// Equal steps have equal kinds.
    kind: String,
}

impl Candidate {
    /// Seconds that keys save; less than nothing if they take longer.
    fn saves(&self) -> f64 {
        self.ways[0].seconds - self.ways[1].seconds
    }

    /// Whether keys are worth their bytes.
    fn gains(&self) -> bool {
        self.saves() > GAIN * self.ways[0].seconds
    }

    fn explained(&self, plan: &Plan, keys: bool, limited: bool) -> Chosen {
        let [tree, by_keys] = self.ways;
        let saved = tree.rounds.saturating_sub(by_keys.rounds);
        let milliseconds = |seconds: f64| format!("{:.3} ms", seconds * 1e3);
        let reason = match (keys, self.saves()) {
            (true, s) if self.gains() => format!("{saved} rounds fewer, {} saved", milliseconds(s)),
            (true, _) => "all steps with keys are faster together".to_owned(),
            (false, s) if limited && s > 0.0 => {
                format!("keys would save {}, but do not fit the limit", milliseconds(s))
            }
            (false, s) if s <= 0.0 => {
                format!("keys would take {} longer for {saved} rounds fewer", milliseconds(-s))
            }
            (false, s) if self.gains() => {
                format!("keys would save {} here, but nothing in the whole", milliseconds(s))
            }
            (false, s) => format!("keys would save {} only", milliseconds(s)),
        };
        let step = &plan.steps[self.step];
        Chosen {
            step: self.step,
            layer: step.name.clone(),
            op: step.op.name(),
            elements: self.elements,
            chosen: if keys { Gate::Keys } else { Gate::Tree },
            reason,
            tree,
            keys: by_keys,
        }
    }
}

/// Everything that is needed to see what choices take.
struct Search {
    steps: Vec<Candidate>,
    /// All instructions without keys, and with keys for all comparisons.
    played: [Vec<Played>; 2],
    network: Network,
    max_key_bytes: u64,
}

impl Search {
    fn new(
        plain: &Plan,
        reveal_to: RevealTo,
        machine: &Machine,
        link: Option<Emulated>,
        max_key_bytes: u64,
    ) -> Self {
        let network = Network::new(link, machine);
        let with_keys = plain.with_fss();
        let plans = [plain, &with_keys];
        // Both have the same instructions: what is opened when does not depend on how is compared.
        let schedules = plans.map(|plan| Schedule::new(plan, reveal_to));
        let count = schedules[0].instructions.len();
        let played = [0, 1].map(|way| -> Vec<Played> {
            (0..count).map(|k| Played::of(plans[way], &schedules[way], k, machine)).collect()
        });
        let mut steps = Vec::new();
        for (k, (instruction, _)) in schedules[0].instructions.iter().enumerate() {
            let Instruction::Step(step) = *instruction else { continue };
            if !with_keys.uses_fss(step) {
                continue;
            }
            let ways = [0, 1].map(|way| {
                let cost = schedules[way].instructions[k].1;
                let mut alone = Timeline::new(network);
                played[way][k].on(&mut alone);
                alternative(&cost, alone.now())
            });
            let operand = &plain.steps[step].inputs[0];
            let elements = plain.len(*operand);
            let kind = format!("{:?} {:?}", plain.steps[step].op, plain.shape(*operand));
            steps.push(Candidate { step, instruction: k, elements, ways, kind });
        }
        Self { steps, played, network, max_key_bytes }
    }

    /// Which candidates take keys, and which would but for the limit.
    fn run(&self) -> (Vec<bool>, Vec<bool>) {
        let mut best: Vec<bool> = self.steps.iter().map(Candidate::gains).collect();
        let mut limited = vec![false; best.len()];
        // The least saved for a byte goes first.
        let mut order: Vec<usize> = (0..best.len()).filter(|&i| best[i]).collect();
        let per_byte = |i: &usize| self.steps[*i].saves() / self.steps[*i].ways[1].key_bytes.max(1) as f64;
        order.sort_by(|a, b| per_byte(a).total_cmp(&per_byte(b)));
        for i in order {
            if self.key_bytes(&best) <= self.max_key_bytes {
                break;
            }
            (best[i], limited[i]) = (false, true);
        }
        let mut seconds = self.seconds(&best);
        let mut kinds: Vec<&str> = self.steps.iter().map(|s| &*s.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut changed = true;
        while changed {
            changed = false;
            for kind in &kinds {
                let of_kind = |i: &usize| self.steps[*i].kind == *kind;
                for keys in [false, true] {
                    let mut other = best.clone();
                    (0..other.len()).filter(of_kind).for_each(|i| other[i] = keys);
                    changed |= self.take_if_faster(other, &mut best, &mut seconds);
                }
            }
        }
        for all in [false, true] {
            self.take_if_faster(vec![all; best.len()], &mut best, &mut seconds);
        }
        (best, limited)
    }

    /// Takes `other` if it fits and is faster; with more keys, if it is worth them.
    fn take_if_faster(&self, other: Vec<bool>, best: &mut Vec<bool>, seconds: &mut f64) -> bool {
        if other == *best || self.key_bytes(&other) > self.max_key_bytes {
            return false;
        }
        let others = self.seconds(&other);
        let changed: f64 = (self.steps.iter().zip(&other).zip(best.iter()))
            .filter(|((_, other), best)| other != best)
            .map(|((step, _), _)| step.ways[0].seconds)
            .sum();
        let has_more = self.key_bytes(&other) > self.key_bytes(best);
        let worth = if has_more { GAIN * changed } else { 0.0 };
        let is_faster = others + worth < *seconds;
        if is_faster {
            (*best, *seconds) = (other, others);
        }
        is_faster
    }

    /// What the instructions take, greetings left out.
    fn seconds(&self, takes_keys: &[bool]) -> f64 {
        let mut ways = vec![0; self.played[0].len()];
        self.steps
            .iter()
            .zip(takes_keys)
            .for_each(|(step, &keys)| ways[step.instruction] = usize::from(keys));
        let mut timeline = Timeline::new(self.network);
        ways.iter().enumerate().for_each(|(k, &way)| self.played[way][k].on(&mut timeline));
        timeline.now()
    }

    fn key_bytes(&self, takes_keys: &[bool]) -> u64 {
        self.steps.iter().zip(takes_keys).filter(|(_, keys)| **keys).map(|(s, _)| s.ways[1].key_bytes).sum()
    }

    fn wires(&self, takes_keys: &[bool]) -> Vec<WireId> {
        let takers = self.steps.iter().zip(takes_keys).filter(|(_, keys)| **keys);
        takers.map(|(step, _)| WireId(step.step as u32)).collect()
    }
}

fn alternative(cost: &Cost, seconds: f64) -> Alternative {
    Alternative {
        rounds: cost.rounds,
        bytes: (cost.server_sends + cost.client_sends) as u64,
        // The client stores nothing else for a comparison.
        key_bytes: cost.client_stores as u64,
        dealt_bytes: (cost.dealt + cost.dealt_client) as u64,
        seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Options, Subject, Workload};

    fn lenet() -> Plan {
        let options = Options {
            inputs: 0,
            seed: 1,
            calibrate: true,
            ring: None,
            frac_bits: None,
            average_pooling: false,
        };
        Workload::new(&Subject::find("lenet").unwrap(), &options).unwrap().model.plan
    }

    /// Times depend on the machine; that two rounds of 40 ms cost more than LeNet's keys does not.
    #[test]
    fn slow_links_take_keys_and_limits_and_calibrations_decide_alone() {
        let plan = lenet();
        let machine = Machine::calibrate_to_choose(&plan).unwrap();
        let on = |plan: &Plan, link, limit| choose(plan, RevealTo::Client, &machine, link, limit);
        let wan = on(&plan, Some(Emulated::WAN), DEFAULT_MAX_KEY_BYTES);
        assert_eq!(wan.plan.fss, plan.with_fss().fss);
        assert!(wan.steps.iter().all(|step| step.chosen == Gate::Keys && step.reason.contains("saved")));
        let [two_party, fss, auto] = &wan.totals;
        assert_eq!(fss.rounds, auto.rounds);
        assert!(auto.rounds < two_party.rounds && auto.online_seconds < two_party.online_seconds);
        assert_eq!((two_party.key_bytes, auto.key_bytes), (0, fss.key_bytes));
        assert!(auto.key_bytes > 1 << 20 && auto.dealt_bytes > 2 * auto.key_bytes);
        wan.plan.validate().unwrap();
        // The same again, also from a plan that has choices already.
        assert_eq!(on(&wan.plan, Some(Emulated::WAN), DEFAULT_MAX_KEY_BYTES), wan);

        let none = on(&plan, Some(Emulated::WAN), 0);
        assert_eq!(none.plan.digest(), plan.digest());
        assert!(none.steps.iter().all(|step| step.chosen == Gate::Tree && step.reason.contains("limit")));
        // Half of it: what fits, and what saves most for a byte.
        let half = on(&plan, Some(Emulated::WAN), auto.key_bytes / 2);
        let [_, _, chosen] = &half.totals;
        assert!(chosen.key_bytes > 0 && chosen.key_bytes <= auto.key_bytes / 2);
        assert!(chosen.online_seconds < two_party.online_seconds);
        for link in [None, Some(Emulated::LAN), Some(Emulated::WAN)] {
            let [two_party, fss, auto] = on(&plan, link, DEFAULT_MAX_KEY_BYTES).totals;
            let best = two_party.online_seconds.min(fss.online_seconds);
            assert!(auto.online_seconds <= (1.0 + GAIN) * best, "{auto:?} {best}");
        }
    }
}

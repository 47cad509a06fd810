//! Which steps of a plan take keys of function secret sharing, of which kind, and which trees of masked bits: what is predicted to
//! be faster online.
//!
//! All ways of every step are played through on the same clock and line as a prediction. First every step takes what is
//! fastest for it alone; then groups of equal steps are changed as long as that makes the whole faster. Keys are ten times
//! the material and more, so a step takes them only if they save at least a fiftieth of its time: that is all the weight that the
//! offline phase has. At last the mix that came of it is compared with both engines, `2pc` and `fss`: predictions err, and those of
//! a mix can only err against it, because it was sought as the best of many. So a mix has to be predicted to be faster than the
//! better engine by more than predictions have erred.
//!
//! The choice is a function of plan, receiver, network, limit and calibration, and nothing else.

use privet_net::Emulated;
use privet_plan::{Keyed, Keys, Plan, WireId};
use privet_protocols::masked::{Cost, Instruction, RevealTo, Schedule};
use serde::Serialize;

use super::timeline::{Network, Timeline};
use super::{Machine, Played, predict};

/// Bytes of keys that each party may have to store for an inference, if nothing else is said.
pub const DEFAULT_MAX_KEY_BYTES: u64 = 4_000_000_000;

/// What keys have to save of a step's time, at least.
const GAIN: f64 = 0.02;

/// What a mix of ways has to save of the better engine's time, at least: 9 % is the most that a mix was seen to be slower, next to the
/// better engine, than predicted (VGG16 for CIFAR over loopback; docs/performance.md).
const GAIN_OF_A_MIX: f64 = 0.1;

/// How a step compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// By trees of masked bits.
    Tree,
    /// By keys, whose bits are opened.
    Keys,
    /// By keys that carry products, so that nothing is opened.
    Products,
}

impl Gate {
    /// In the order of [`Chosen::ways`].
    const ALL: [Self; 3] = [Self::Tree, Self::Keys, Self::Products];

    fn keys(self) -> Option<Keys> {
        match self {
            Self::Tree => None,
            Self::Keys => Some(Keys::Bits),
            Self::Products => Some(Keys::Products),
        }
    }
}

/// One way to do a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Alternative {
    /// How it compares.
    pub gate: Gate,
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
    /// All ways there are: by a tree, by keys, and by keys that carry products if it can have these.
    pub ways: Vec<Alternative>,
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
    /// Predicted seconds online of a mix that was faster than both engines, but by too little to be trusted.
    pub refused_mix_seconds: Option<f64>,
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
    let Found { ways, limited, refused } = search.run();
    let with = |ways: &[usize]| Plan { fss: search.keyed(ways), ..plain.clone() };
    let [two_party, fss] = search.engines();
    let chosen = with(&ways);
    let total = |engine, plan: &Plan, ways: &[usize]| {
        let prediction = predict(plan, reveal_to, machine, link);
        let cost = Schedule::new(plan, reveal_to).total();
        Total {
            engine,
            rounds: cost.rounds,
            bytes: (cost.server_sends + cost.client_sends) as u64,
            key_bytes: search.key_bytes(ways),
            dealt_bytes: (cost.dealt + cost.dealt_client) as u64,
            online_seconds: prediction.online.seconds,
            offline_seconds: prediction.offline.seconds,
        }
    };
    let totals = [
        total("2pc", &plain, &two_party),
        total("fss", &plain.with_fss(), &fss),
        total("auto", &chosen, &ways),
    ];
    let steps = search.steps.iter().zip(ways.iter().zip(limited));
    let steps = steps.map(|(step, (&way, limited))| step.explained(plan, way, limited)).collect();
    Choice { plan: chosen, max_key_bytes, totals, refused_mix_seconds: refused, steps }
}

/// A step that compares, all ways.
struct Candidate {
    /// Index of the step, and of its instruction.
    step: usize,
    instruction: usize,
    elements: usize,
    /// See [`Chosen::ways`].
    ways: Vec<Alternative>,
    /// Which of them `fss` takes.
    fss: usize,
    /// Equal steps have equal kinds.
    kind: String,
}

impl Candidate {
    /// Seconds that a way saves; less than nothing if it takes longer.
    fn saves(&self, way: usize) -> f64 {
        self.ways[0].seconds - self.ways[way].seconds
    }

    /// Whether keys are worth their bytes.
    fn gains(&self, way: usize) -> bool {
        self.saves(way) > GAIN * self.ways[0].seconds
    }

    /// The fastest way with keys.
    fn by_keys(&self) -> usize {
        let faster = |a: &usize, b: &usize| self.ways[*a].seconds.total_cmp(&self.ways[*b].seconds);
        (1..self.ways.len()).min_by(faster).unwrap_or(1)
    }

    /// The fastest way that is worth its bytes.
    fn alone(&self) -> usize {
        let way = self.by_keys();
        if self.gains(way) { way } else { 0 }
    }

    fn explained(&self, plan: &Plan, way: usize, limited: bool) -> Chosen {
        // With keys or with the best that could be had of them.
        let with = if way > 0 { way } else { self.by_keys() };
        let saved = self.ways[0].rounds.saturating_sub(self.ways[with].rounds);
        let milliseconds = |seconds: f64| format!("{:.3} ms", seconds * 1e3);
        let reason = match (way > 0, self.saves(with)) {
            (true, s) if self.gains(with) => format!("{saved} rounds fewer, {} saved", milliseconds(s)),
            (true, _) => "all steps with keys are faster together".to_owned(),
            (false, s) if limited && s > 0.0 => {
                format!("keys would save {}, but do not fit the limit", milliseconds(s))
            }
            (false, s) if s <= 0.0 => {
                format!("keys would take {} longer for {saved} rounds fewer", milliseconds(-s))
            }
            (false, s) if self.gains(with) => {
                format!("keys would save {} here, but too little in the whole", milliseconds(s))
            }
            (false, s) => format!("keys would save {} only", milliseconds(s)),
        };
        let step = &plan.steps[self.step];
        Chosen {
            step: self.step,
            layer: step.name.clone(),
            op: step.op.name(),
            elements: self.elements,
            chosen: self.ways[way].gate,
            reason,
            ways: self.ways.clone(),
        }
    }
}

/// Everything that is needed to see what choices take.
struct Search {
    steps: Vec<Candidate>,
    /// All instructions without keys, with keys for all comparisons, and with those that carry products.
    played: [Vec<Played>; 3],
    network: Network,
    max_key_bytes: u64,
}

/// What a search came to.
struct Found {
    /// The way of every candidate, see [`Chosen::ways`].
    ways: Vec<usize>,
    /// Which would take keys but for the limit.
    limited: Vec<bool>,
    /// See [`Choice::refused_mix_seconds`].
    refused: Option<f64>,
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
        let plans = [plain.clone(), plain.with_keys(|_| Keys::Bits), plain.with_keys(|_| Keys::Products)];
        // All have the same instructions: what is opened when does not depend on how is compared.
        let schedules = plans.each_ref().map(|plan| Schedule::new(plan, reveal_to));
        let count = schedules[0].instructions.len();
        let played = [0, 1, 2].map(|way: usize| -> Vec<Played> {
            (0..count).map(|k| Played::of(&plans[way], &schedules[way], k, machine)).collect()
        });
        let fss = plain.with_fss();
        let mut steps = Vec::new();
        for (k, (instruction, _)) in schedules[0].instructions.iter().enumerate() {
            let Instruction::Step(step) = *instruction else { continue };
            let Some(keys) = fss.keys(step) else { continue };
            let own = if plain.can_carry_products(step) { &Gate::ALL[..] } else { &Gate::ALL[..2] };
            let alternative = |(way, gate): (usize, &Gate)| {
                let mut alone = Timeline::new(network);
                played[way][k].on(&mut alone);
                alternative(*gate, &schedules[way].instructions[k].1, alone.now())
            };
            let ways = own.iter().enumerate().map(alternative).collect();
            let operand = &plain.steps[step].inputs[0];
            steps.push(Candidate {
                step,
                instruction: k,
                elements: plain.len(*operand),
                ways,
                fss: if keys == Keys::Products { 2 } else { 1 },
                kind: format!("{:?} {:?}", plain.steps[step].op, plain.shape(*operand)),
            });
        }
        Self { steps, played, network, max_key_bytes }
    }

    /// The ways of `2pc` and of `fss`.
    fn engines(&self) -> [Vec<usize>; 2] {
        [vec![0; self.steps.len()], self.steps.iter().map(|step| step.fss).collect()]
    }

    fn run(&self) -> Found {
        let mut best: Vec<usize> = self.steps.iter().map(Candidate::alone).collect();
        let mut limited = vec![false; best.len()];
        // The least saved for a byte goes first.
        let mut order: Vec<usize> = (0..best.len()).filter(|&i| best[i] > 0).collect();
        let per_byte = |i: &usize| {
            let (step, way) = (&self.steps[*i], best[*i]);
            step.saves(way) / step.ways[way].key_bytes.max(1) as f64
        };
        order.sort_by(|a, b| per_byte(a).total_cmp(&per_byte(b)));
        for i in order {
            if self.key_bytes(&best) <= self.max_key_bytes {
                break;
            }
            (best[i], limited[i]) = (0, true);
        }
        let mut seconds = self.seconds(&best);
        let mut kinds: Vec<&str> = self.steps.iter().map(|s| &*s.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut changed = true;
        while changed {
            changed = false;
            for kind in &kinds {
                for way in 0..Gate::ALL.len() {
                    let mut other = best.clone();
                    let steps = self.steps.iter().zip(&mut other).filter(|(step, _)| step.kind == *kind);
                    steps.for_each(|(step, own)| *own = way.min(step.ways.len() - 1));
                    changed |= self.take_if_faster(other, &mut best, &mut seconds);
                }
            }
        }
        let [two_party, fss] = self.engines();
        let (mut pure, mut pure_seconds) = (two_party.clone(), self.seconds(&two_party));
        self.take_if_faster(fss, &mut pure, &mut pure_seconds);
        if best == pure || pure_seconds - seconds > GAIN_OF_A_MIX * pure_seconds {
            return Found { ways: best, limited, refused: None };
        }
        let refused = (seconds < pure_seconds).then_some(seconds);
        Found { ways: pure, limited, refused }
    }

    /// Takes `other` if it fits and is faster; with more keys, if it is worth them.
    fn take_if_faster(&self, other: Vec<usize>, best: &mut Vec<usize>, seconds: &mut f64) -> bool {
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

    /// What the instructions take.
    fn seconds(&self, ways: &[usize]) -> f64 {
        let mut by_instruction = vec![0; self.played[0].len()];
        self.steps.iter().zip(ways).for_each(|(step, &way)| by_instruction[step.instruction] = way);
        let mut timeline = Timeline::new(self.network);
        by_instruction.iter().enumerate().for_each(|(k, &way)| self.played[way][k].on(&mut timeline));
        timeline.now()
    }

    fn key_bytes(&self, ways: &[usize]) -> u64 {
        self.steps.iter().zip(ways).map(|(step, &way)| step.ways[way].key_bytes).sum()
    }

    fn keyed(&self, ways: &[usize]) -> Vec<Keyed> {
        let keyed = |(step, &way): (&Candidate, &usize)| {
            let keys = step.ways[way].gate.keys()?;
            Some(Keyed { step: WireId(step.step as u32), keys })
        };
        self.steps.iter().zip(ways).filter_map(keyed).collect()
    }
}

fn alternative(gate: Gate, cost: &Cost, seconds: f64) -> Alternative {
    Alternative {
        gate,
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
        assert!(wan.steps.iter().all(|step| step.chosen != Gate::Tree && step.reason.contains("saved")));
        assert!(wan.steps.iter().any(|step| step.chosen == Gate::Products));
        let [two_party, fss, auto] = &wan.totals;
        assert!(fss.rounds >= auto.rounds);
        assert!(auto.rounds < two_party.rounds && auto.online_seconds < two_party.online_seconds);
        assert_eq!(two_party.key_bytes, 0);
        assert!(fss.key_bytes > 1 << 20);
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
            let choice = on(&plan, link, DEFAULT_MAX_KEY_BYTES);
            let [two_party, fss, auto] = &choice.totals;
            let best = two_party.online_seconds.min(fss.online_seconds);
            assert!(auto.online_seconds <= (1.0 + GAIN) * best, "{auto:?} {best}");
            // One engine does all, or the mix is faster by more than predictions err.
            let pure = [two_party, fss].iter().any(|t| {
                (t.key_bytes, t.rounds, t.online_seconds)
                    == (auto.key_bytes, auto.rounds, auto.online_seconds)
            });
            assert!(pure || auto.online_seconds <= (1.0 - GAIN_OF_A_MIX) * best + 1e-9, "{auto:?} {best}");
            assert!(choice.refused_mix_seconds.is_none_or(|mix| pure && mix < best));
        }
    }
}

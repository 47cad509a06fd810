//! What the masked engine does with a plan, instruction by instruction, and what each instruction costs.
//!
//! Products, comparisons and truncations need masked operands and give additive shares; public linear steps take either.
//! A wire held as shares is opened (masked) when something first needs it masked: the branches of a residual block
//! are added before, so they cost one opening. A wire that public linear steps make of one other, no larger one is not
//! opened itself: the other one is, as soon as it is there, and all that is made of it needs no opening. So repeats,
//! and several comparisons of one value, cost one opening of few elements.
//!
//! Between two parties, the client needs m of no wire that only products with private tensors need: its part of these is
//! prepared. Such a wire is opened to the server alone, and the client goes on without waiting: what it sends next, its
//! share of the product, is on its way together with this.

use std::collections::BTreeSet;
use std::ops::Range;

use privet_plan::{Keys, Op, Plan, WireId};

use super::cost::{Cost, GateCost, Opening};
use super::lanes::{self, LANE};
use super::step::{FLAT, GateStep};
use super::{RevealTo, Role};
use crate::linear;

/// How a wire is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// m = v + λ is known to both parties, λ is shared.
    Masked,
    /// v is shared additively.
    Shared,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Mask shared wires with fresh masks and open them, all in one round.
    Open(Vec<WireId>),
    /// Execute a step of the plan.
    Step(usize),
    /// Reveal an output.
    Reveal(usize),
}

/// Who the parties are, as far as instructions and costs depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    /// Server and client, with material that a dealer made before.
    TwoParty(RevealTo),
    /// Two parties with a third that deals to them meanwhile. Inputs and outputs are shared among the three.
    ThreeParty,
}

impl Setting {
    /// Which keys a step's comparisons take: among three parties none.
    fn keys(self, plan: &Plan, index: usize) -> Option<Keys> {
        if self == Setting::ThreeParty { None } else { plan.keys(index) }
    }
}

/// Where instructions are cut, and which trees are flat. All parties of a session have to have the same.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Elements of a lane, about.
    pub lane: usize,
    /// Comparisons that are made at once, from which on their trees are not flat.
    pub flat: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { lane: LANE, flat: FLAT }
    }
}

/// The instructions of a plan with their costs.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// In execution order.
    pub instructions: Vec<(Instruction, Cost)>,
    /// Who learns the outputs.
    pub reveal_to: RevealTo,
    setting: Setting,
    sizes: Sizes,
    /// By instruction, who learns what it opens, if it is an `Open`.
    receivers: Vec<RevealTo>,
}

impl Schedule {
    /// The schedule of a validated plan.
    pub fn new(plan: &Plan, reveal_to: RevealTo) -> Self {
        Self::with_sizes(plan, reveal_to, Sizes::default())
    }

    /// [`Schedule::new`] with other sizes, for tests.
    #[doc(hidden)]
    pub fn with_sizes(plan: &Plan, reveal_to: RevealTo, sizes: Sizes) -> Self {
        Self::of(plan, Setting::TwoParty(reveal_to), sizes)
    }

    /// The schedule of a validated plan among three parties, see [`replicated`](crate::replicated): inputs come shared, and
    /// all outputs are opened under fresh masks at the end, in one round.
    pub fn three_party(plan: &Plan) -> Self {
        Self::three_party_with_sizes(plan, Sizes::default())
    }

    /// [`Schedule::three_party`] with other sizes, for tests.
    #[doc(hidden)]
    pub fn three_party_with_sizes(plan: &Plan, sizes: Sizes) -> Self {
        Self::of(plan, Setting::ThreeParty, sizes)
    }

    fn of(plan: &Plan, setting: Setting, sizes: Sizes) -> Self {
        let early = early(plan);
        let mut forms: Vec<Form> = Vec::with_capacity(plan.steps.len());
        // Which wires are masked because all that they are made of is.
        let mut follows = vec![false; plan.steps.len()];
        let mut instructions = Vec::new();
        for (i, step) in plan.steps.iter().enumerate() {
            let mut shared = Vec::new();
            for &wire in &step.inputs[..masked_operands(&step.op)] {
                if std::mem::replace(&mut forms[wire.index()], Form::Masked) == Form::Shared {
                    shared.push(wire);
                }
            }
            if !shared.is_empty() {
                instructions.push(Instruction::Open(shared));
            }
            let all_masked = step.inputs.iter().all(|w| forms[w.index()] == Form::Masked);
            follows[i] = linear::is_public_linear(&step.op) && all_masked;
            forms.push(match &step.op {
                Op::Input { .. } => Form::Masked,
                _ if follows[i] => Form::Masked,
                _ => Form::Shared,
            });
            instructions.push(Instruction::Step(i));
            if early[i] && forms[i] == Form::Shared {
                let wire = WireId(i as u32);
                instructions.push(Instruction::Open(vec![wire]));
                forms[i] = Form::Masked;
            }
        }
        let reveal_to = match setting {
            Setting::TwoParty(reveal_to) => reveal_to,
            Setting::ThreeParty => {
                let wires: BTreeSet<WireId> = plan.outputs.iter().map(|o| o.wire).collect();
                instructions.push(Instruction::Open(wires.into_iter().collect()));
                RevealTo::Both
            }
        };
        instructions.extend((0..plan.outputs.len()).map(Instruction::Reveal));
        let needed = needed_by_both(plan, &follows);
        let receiver = |instruction: &Instruction| match instruction {
            Instruction::Open(wires)
                if setting != Setting::ThreeParty && wires.iter().all(|w| !needed[w.index()]) =>
            {
                RevealTo::Server
            }
            _ => RevealTo::Both,
        };
        let receivers: Vec<RevealTo> = instructions.iter().map(receiver).collect();
        let mut clocks = Clocks::default();
        let with_cost = |(i, to): (Instruction, &RevealTo)| {
            let opened = opened(plan, &i, *to, setting, sizes);
            let cost = Cost { rounds: clocks.play(&opened), ..cost(plan, &i, &opened, setting) };
            (i, cost)
        };
        let instructions = instructions.into_iter().zip(&receivers).map(with_cost).collect();
        Self { instructions, reveal_to, setting, sizes, receivers }
    }

    /// Sum over all instructions.
    pub fn total(&self) -> Cost {
        let mut total = Cost::default();
        self.instructions.iter().for_each(|(_, cost)| total += *cost);
        total
    }

    /// All that the parties send online, frame by frame: the openings of the instruction of this index, in order.
    pub fn openings(&self, plan: &Plan, index: usize) -> Vec<Opening> {
        self.opened(plan, index).openings
    }

    /// Lengths of the chunks of material that `role` is dealt for the instruction of this index or stores, in order.
    pub fn chunks(&self, plan: &Plan, index: usize, role: Role) -> Vec<usize> {
        let (instruction, cost) = &self.instructions[index];
        let lens = match instruction {
            Instruction::Step(i) if linear::factor(&plan.steps[*i].op).is_some() => {
                vec![cost.stores(role).max(cost.dealt_to(role))]
            }
            _ => {
                let own = usize::from(role == Role::Client);
                self.opened(plan, index).chunks().map(|chunk| chunk[own]).collect()
            }
        };
        lens.into_iter().filter(|&len| len > 0).collect()
    }

    fn opened(&self, plan: &Plan, index: usize) -> GateCost {
        opened(plan, &self.instructions[index].0, self.receivers[index], self.setting, self.sizes)
    }

    /// Who learns the masked values that the `Open` of this index opens.
    pub(super) fn receiver(&self, index: usize) -> RevealTo {
        self.receivers[index]
    }

    /// The step of this index as a gate, if it is one.
    pub(super) fn gate<'p>(&self, plan: &'p Plan, index: usize) -> Option<GateStep<'p>> {
        GateStep::of(plan, index, self.setting.keys(plan, index), self.sizes.flat)
    }

    /// The lanes of a gate with so many elements in its first operand.
    pub(super) fn lanes(&self, gate: &GateStep, elements: usize) -> Vec<Range<usize>> {
        gate.lanes(elements, self.sizes.lane)
    }

    /// The pieces of an opening of so many elements, a frame each.
    pub(super) fn pieces(&self, elements: usize) -> Vec<Range<usize>> {
        lanes::cut(elements, 1, self.sizes.lane)
    }

    /// Name of an instruction, for people.
    pub fn name<'a>(&self, plan: &'a Plan, index: usize) -> &'a str {
        match &self.instructions[index].0 {
            Instruction::Open(wires) => &plan.steps[wires[0].index()].name,
            Instruction::Step(i) => &plan.steps[*i].name,
            Instruction::Reveal(i) => &plan.outputs[*i].name,
        }
    }
}

/// Which wires are opened as soon as they are there, so that wires made of them need no opening: where that is less.
fn early(plan: &Plan) -> Vec<bool> {
    // For every wire, those made of it that are needed masked.
    let mut needed: Vec<BTreeSet<WireId>> = vec![BTreeSet::new(); plan.steps.len()];
    // What to open instead of each wire; itself, if there is nothing better, and nothing if it is masked anyway.
    let mut sources: Vec<Option<WireId>> = Vec::with_capacity(plan.steps.len());
    for (i, step) in plan.steps.iter().enumerate() {
        for wire in &step.inputs[..masked_operands(&step.op)] {
            if let Some(source) = sources[wire.index()] {
                needed[source.index()].insert(*wire);
            }
        }
        let own = WireId(i as u32);
        let mut shared = step.inputs.iter().filter_map(|w| sources[w.index()]);
        sources.push(match &step.op {
            Op::Input { .. } => None,
            op if linear::is_public_linear(op) => match shared.next() {
                None => None,
                Some(first) if shared.all(|s| s == first) && plan.len(first) <= plan.len(own) => Some(first),
                Some(_) => Some(own),
            },
            _ => Some(own),
        });
    }
    let len = |w: &WireId| plan.len(*w);
    let pays = |(i, needed): (usize, &BTreeSet<WireId>)| {
        needed.iter().map(len).sum::<usize>() > len(&WireId(i as u32))
    };
    needed.iter().enumerate().map(pays).collect()
}

/// How many of its operands, the first ones, a step needs masked.
pub fn masked_operands(op: &Op) -> usize {
    match op {
        Op::Multiply | Op::BatchMatMul | Op::Select { .. } => 2,
        Op::Trunc { .. }
        | Op::Relu { .. }
        | Op::MaxPool { .. }
        | Op::NonNegative { .. }
        | Op::Table { .. } => 1,
        op => usize::from(linear::factor(op).is_some()),
    }
}

/// Of which wires both parties need m, given which are masked because all that they are made of is.
fn needed_by_both(plan: &Plan, follows: &[bool]) -> Vec<bool> {
    let mut needed = vec![false; plan.steps.len()];
    for (i, step) in plan.steps.iter().enumerate().rev() {
        let operands = match &step.op {
            op if linear::factor(op).is_some() => 0,
            op if linear::is_public_linear(op) && follows[i] && needed[i] => step.inputs.len(),
            op if linear::is_public_linear(op) => 0,
            op => masked_operands(op),
        };
        step.inputs[..operands].iter().for_each(|wire| needed[wire.index()] = true);
    }
    needed
}

/// How many messages, each sent when the one before has arrived, have led to what server and client are at.
#[derive(Default)]
struct Clocks {
    server: u64,
    client: u64,
}

impl Clocks {
    /// An instruction. Returns by how much it makes the longest chain of messages longer.
    fn play(&mut self, opened: &GateCost) -> u64 {
        let before = self.server.max(self.client);
        let lanes = opened.openings.len().checked_div(opened.rounds).unwrap_or(1);
        for opening in opened.openings.iter().step_by(lanes) {
            let Self { server, client } = *self;
            if opening.to.includes(Role::Server) {
                self.server = server.max(client + 1);
            }
            if opening.to.includes(Role::Client) {
                self.client = client.max(server + 1);
            }
        }
        self.server.max(self.client) - before
    }
}

fn cost(plan: &Plan, instruction: &Instruction, opened: &GateCost, setting: Setting) -> Cost {
    let cost = match instruction {
        Instruction::Step(i) if linear::factor(&plan.steps[*i].op).is_some() => {
            let bytes = plan.ring.packed_len(plan.len(WireId(*i as u32)));
            Cost { dealt: bytes, server_stores: bytes, client_stores: bytes, ..Cost::default() }
        }
        _ => opened.into(),
    };
    match setting {
        Setting::TwoParty(_) => cost,
        Setting::ThreeParty => Cost { server_stores: 0, client_stores: 0, ..cost },
    }
}

/// What an instruction opens, and what is dealt for it unless it is a product with a private tensor.
fn opened(plan: &Plan, instruction: &Instruction, to: RevealTo, setting: Setting, sizes: Sizes) -> GateCost {
    let ring = plan.ring;
    let index = match instruction {
        Instruction::Step(index) => *index,
        Instruction::Open(wires) => {
            let elements = wires.iter().map(|&w| plan.len(w)).sum();
            let piece = |piece: Range<usize>| Opening::masked(ring, piece.len(), to);
            return GateCost::round(lanes::cut(elements, 1, sizes.lane).into_iter().map(piece).collect());
        }
        Instruction::Reveal(i) => {
            return match setting {
                Setting::TwoParty(to) => {
                    GateCost::round(vec![Opening::value(ring, plan.len(plan.outputs[*i].wire), to)])
                }
                Setting::ThreeParty => GateCost::default(),
            };
        }
    };
    let step = &plan.steps[index];
    let elements = step.shape.iter().product();
    match &step.op {
        Op::Input { .. } if setting == Setting::ThreeParty => GateCost::default(),
        Op::Input { .. } => GateCost::round(vec![Opening::masked(ring, elements, RevealTo::Server)]),
        Op::Multiply | Op::BatchMatMul => GateCost::new(Vec::new(), vec![[ring.packed_len(elements), 0]]),
        _ => GateStep::of(plan, index, setting.keys(plan, index), sizes.flat)
            .map_or_else(GateCost::default, |gate| gate.cost(ring, plan.len(step.inputs[0]), sizes.lane)),
    }
}

#[cfg(test)]
mod tests {
    use privet_plan::{InputSpec, OutputSpec, Post, Preprocess, Range, RangeSource, Step};
    use privet_ring::Ring;

    use super::*;

    /// A shared wire of 4 elements (the truncated input), then `rest`; the elements of all openings.
    fn opened(rest: &[(Op, Vec<u32>, usize)]) -> Vec<usize> {
        let step = |op: Op, inputs: &[u32], elements, frac_bits| Step {
            name: "step".to_owned(),
            op,
            inputs: inputs.iter().map(|&w| WireId(w)).collect(),
            shape: vec![elements],
            frac_bits,
            range: Range { bits: 31, source: RangeSource::FullWidth },
        };
        let mut steps =
            vec![step(Op::Input { input: 0 }, &[], 4, 8), step(Op::Trunc { shift: 4 }, &[0], 4, 4)];
        steps.extend(rest.iter().map(|(op, inputs, elements)| step(op.clone(), inputs, *elements, 4)));
        let last = WireId(steps.len() as u32 - 1);
        let plan = Plan {
            model: "test".to_owned(),
            ring: Ring::new(32).unwrap(),
            frac_bits: 8,
            inputs: vec![InputSpec {
                name: "x".to_owned(),
                shape: vec![4],
                preprocess: Preprocess::default(),
            }],
            params: Vec::new(),
            steps,
            outputs: vec![OutputSpec { name: "y".to_owned(), wire: last, post: Post::None }],
            labels: Vec::new(),
            fss: Vec::new(),
        };
        plan.validate().unwrap();
        let elements = |(instruction, _): &(Instruction, Cost)| match instruction {
            Instruction::Open(wires) => Some(wires.iter().map(|&w| plan.len(w)).sum()),
            _ => None,
        };
        Schedule::new(&plan, RevealTo::Client).instructions.iter().filter_map(elements).collect()
    }

    #[test]
    fn what_is_made_of_one_wire_needs_one_opening_of_it() {
        let combine = |constant| Op::Combine { coefficients: vec![1], constant };
        let relu = || Op::Relu { shift: 0, width: 31 };
        let both = [
            (combine(-3), vec![1], 4),
            (combine(5), vec![1], 4),
            (Op::Concat { axis: 0 }, vec![2, 3], 8),
            (relu(), vec![4], 8),
        ];
        assert_eq!(opened(&both), [4], "joined");
        let apart =
            [(combine(-3), vec![1], 4), (relu(), vec![2], 4), (combine(5), vec![1], 4), (relu(), vec![4], 4)];
        assert_eq!(opened(&apart), [4], "one after the other");
    }

    #[test]
    fn a_smaller_wire_or_a_sum_of_several_is_opened_itself() {
        let relu = || Op::Relu { shift: 0, width: 31 };
        let part = [(Op::Slice { starts: vec![0], steps: vec![1] }, vec![1], 2), (relu(), vec![2], 2)];
        assert_eq!(opened(&part), [2]);
        let sum = [
            (Op::Relu { shift: 4, width: 31 }, vec![0], 4),
            (Op::Combine { coefficients: vec![1, 1], constant: 0 }, vec![1, 2], 4),
            (relu(), vec![3], 4),
        ];
        assert_eq!(opened(&sum), [4]);
    }
}

//! Probes: plans of one step of another plan, cut down, that are run to see how long the step takes.

use std::ops::Mul;
use std::time::{Duration, Instant};

use privet_plan::{
    InputSpec, Keyed, Keys, Op, OutputSpec, ParamId, ParamSpec, Plan, Post, Preprocess, Range, RangeSource,
    Step, Weights, WireId,
};
use privet_protocols::masked::{
    self, Bundle, Instruction, Online, RevealTo, Role, Schedule, ServerWeights, Source,
};
use privet_protocols::{Progress, ProtocolError};
use privet_ring::Ring;
use privet_ring::prg::Seed;

/// Multiplications of a probe at most, about.
const MULTIPLICATIONS: usize = 1 << 25;
/// Elements of a probe at most; with keys that carry products, which are a kilobyte each.
const ELEMENTS: usize = 1 << 17;
const PRODUCT_ELEMENTS: usize = 1 << 14;

/// Seconds of an instruction, by who computes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Costs {
    /// The dealer.
    pub(super) deal: f64,
    /// The server, offline.
    pub(super) serve: f64,
    /// The client, offline.
    pub(super) ask: f64,
    /// Both online: the server's time, while the client computes what it has to.
    pub(super) online: f64,
}

impl Costs {
    /// The smaller of each.
    pub(super) fn min(self, other: Self) -> Self {
        Self {
            deal: self.deal.min(other.deal),
            serve: self.serve.min(other.serve),
            ask: self.ask.min(other.ask),
            online: self.online.min(other.online),
        }
    }
}

impl Mul<f64> for Costs {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        let Self { deal, serve, ask, online } = self;
        Self { deal: deal * factor, serve: serve * factor, ask: ask * factor, online: online * factor }
    }
}

/// What a step is like, and how much of it there is: multiplications of a product, elements of anything else. No kind for
/// steps that only move and add.
pub(super) fn kind(plan: &Plan, index: usize) -> (Option<String>, f64) {
    let (kind, units) = op_kind(plan, index);
    let by = match plan.keys(index) {
        None => "",
        Some(Keys::Bits) => KEYS,
        Some(Keys::Products) => PRODUCTS,
    };
    (kind.map(|kind| format!("{by}{kind}")), units)
}

/// Begin the kinds of steps that take keys, and those that carry products.
const KEYS: &str = "keys, ";
const PRODUCTS: &str = "products, ";

/// Whether a kind is one without keys (0), with them (1) or with products (2).
pub(super) fn class(kind: &str) -> usize {
    usize::from(kind.starts_with(KEYS)) + 2 * usize::from(kind.starts_with(PRODUCTS))
}

fn op_kind(plan: &Plan, index: usize) -> (Option<String>, f64) {
    let step = &plan.steps[index];
    let operand = step.inputs.first().map_or(&[][..], |&w| plan.shape(w));
    match &step.op {
        Op::Conv { groups, window, weight, .. } => {
            let weights = &plan.params[weight.index()].shape;
            let units = step.shape.iter().product::<usize>() * weights[1..].iter().product::<usize>();
            (Some(format!("conv {groups} {window:?} {operand:?} {:?}", step.shape)), units as f64)
        }
        Op::MatMul { weight, .. } => {
            let weights = &plan.params[weight.index()].shape;
            let units = step.shape.iter().product::<usize>() * weights[0];
            (Some(format!("matmul {operand:?} {weights:?}")), units as f64)
        }
        Op::MaxPool { .. } => {
            (Some(format!("{:?} {:?}", step.op, &operand[2..])), operand.iter().product::<usize>() as f64)
        }
        Op::Trunc { .. }
        | Op::Relu { .. }
        | Op::NonNegative { .. }
        | Op::Select { .. }
        | Op::Table { .. } => (Some(format!("{:?}", step.op)), operand.iter().product::<usize>() as f64),
        _ => (None, super::elements(plan, index) as f64),
    }
}

/// A plan to run, and the step of it to look at.
pub(super) struct Probe {
    plan: Plan,
    weights: Weights,
    /// Index of the step.
    step: usize,
}

impl Probe {
    fn new(ring: Ring, inputs: &[Vec<usize>]) -> Self {
        let plan = Plan {
            model: "probe".to_owned(),
            ring,
            frac_bits: 1,
            inputs: Vec::new(),
            params: Vec::new(),
            steps: Vec::new(),
            outputs: Vec::new(),
            labels: Vec::new(),
            fss: Vec::new(),
        };
        let mut probe = Self { plan, weights: Weights::new(Vec::new()), step: 0 };
        for (i, shape) in inputs.iter().enumerate() {
            let (name, shape) = (format!("input {i}"), shape.clone());
            probe.plan.inputs.push(InputSpec {
                name,
                shape: shape.clone(),
                preprocess: Preprocess::default(),
            });
            probe.step(Op::Input { input: i as u32 }, &[], shape);
        }
        probe
    }

    fn step(&mut self, op: Op, inputs: &[usize], shape: Vec<usize>) {
        let inputs = inputs.iter().map(|&i| WireId(i as u32)).collect();
        let range = Range { bits: self.plan.ring.bits() as u8 - 1, source: RangeSource::FullWidth };
        let name = op.name().to_owned();
        self.step = self.plan.steps.len();
        self.plan.steps.push(Step { name, op, inputs, shape, frac_bits: 1, range });
        let wire = WireId(self.step as u32);
        self.plan.outputs = vec![OutputSpec { name: "y".to_owned(), wire, post: Post::None }];
    }

    /// Of a step of `plan`.
    pub(super) fn of(plan: &Plan, index: usize) -> Self {
        let keys = plan.keys(index);
        let most = if keys == Some(Keys::Products) { PRODUCT_ELEMENTS } else { ELEMENTS };
        let mut probe = Self::of_op(plan, index, most);
        probe.plan.fss =
            keys.map(|keys| Keyed { step: WireId(probe.step as u32), keys }).into_iter().collect();
        probe
    }

    /// Of at most `most` elements.
    fn of_op(plan: &Plan, index: usize, most: usize) -> Self {
        let step = &plan.steps[index];
        let operands: Vec<Vec<usize>> = step.inputs.iter().map(|&w| plan.shape(w).to_vec()).collect();
        let ring = plan.ring;
        match &step.op {
            Op::Conv { groups, window, weight, .. } => {
                let (mut weights, mut shape) =
                    (plan.params[weight.index()].shape.clone(), step.shape.clone());
                if *groups == 1 {
                    let each =
                        shape.iter().product::<usize>() / shape[1] * weights[1..].iter().product::<usize>();
                    let kept = shape[1].min((MULTIPLICATIONS / each.max(1)).max(16));
                    (weights[0], shape[1]) = (kept, kept);
                }
                let op = Op::Conv { weight: ParamId(0), bias: None, groups: *groups, window: window.clone() };
                Self::new(ring, &operands).with(weights, op, shape)
            }
            Op::MatMul { weight, .. } => {
                let (mut weights, mut shape) =
                    (plan.params[weight.index()].shape.clone(), step.shape.clone());
                let rows = operands[0].iter().product::<usize>() / weights[0];
                let kept = weights[1].min((MULTIPLICATIONS / 8 / (rows * weights[0]).max(1)).max(16));
                weights[1] = kept;
                if let Some(last) = shape.last_mut() {
                    *last = kept;
                }
                Self::new(ring, &operands).with(weights, Op::MatMul { weight: ParamId(0), bias: None }, shape)
            }
            Op::MaxPool { .. } => {
                let (mut from, mut to) = (operands[0].clone(), step.shape.clone());
                let area: usize = from[2..].iter().product();
                let channels = (most / area).clamp(1, from[1]);
                (from[0], to[0], from[1], to[1]) = (1, 1, channels, channels);
                let mut probe = Self::new(ring, &[from]);
                probe.step(step.op.clone(), &[0], to);
                probe
            }
            op => {
                let few = vec![operands[0].iter().product::<usize>().min(most)];
                let inputs: Vec<usize> = (0..operands.len()).collect();
                let mut probe = Self::new(ring, &vec![few.clone(); operands.len()]);
                probe.step(op.clone(), &inputs, few);
                probe
            }
        }
    }

    /// A model of this many private values.
    pub(super) fn values(ring: Ring, count: usize) -> (Plan, Weights) {
        let product = Op::MatMul { weight: ParamId(0), bias: None };
        let probe = Self::new(ring, &[vec![1, 1]]).with(vec![1, count], product, vec![1, count]);
        (probe.plan, probe.weights)
    }

    fn with(mut self, weights: Vec<usize>, op: Op, shape: Vec<usize>) -> Self {
        self.weights = Weights::new(vec![vec![1; weights.iter().product()]]);
        self.plan.params = vec![ParamSpec { name: "w".to_owned(), shape: weights, frac_bits: 1 }];
        self.step(op, &[0], shape);
        self
    }

    /// How much of its kind the step is.
    pub(super) fn units(&self) -> f64 {
        kind(&self.plan, self.step).1
    }

    /// Seconds of its step.
    pub(super) fn run(&self) -> Result<Costs, ProtocolError> {
        let is_step = |i: &Instruction| *i == Instruction::Step(self.step);
        self.run_all(is_step)
    }

    /// What opening an element takes, and adding two.
    pub(super) fn open_and_add(ring: Ring) -> Result<[Costs; 2], ProtocolError> {
        const FEW: usize = ELEMENTS / 2;
        let mut probe = Self::new(ring, &[vec![FEW]]);
        probe.step(Op::Trunc { shift: 1 }, &[0], vec![FEW]);
        probe.step(Op::Trunc { shift: 1 }, &[1], vec![FEW]);
        probe.step(Op::Combine { coefficients: vec![1, 1], constant: 0 }, &[2, 2], vec![FEW]);
        let open = probe.run_all(|i| matches!(i, Instruction::Open(_)))?;
        Ok([open, probe.run()?].map(|costs| costs * (1.0 / FEW as f64)))
    }

    fn run_all(&self, wanted: impl Fn(&Instruction) -> bool) -> Result<Costs, ProtocolError> {
        let (plan, weights) = (&self.plan, &self.weights);
        let schedule = Schedule::new(plan, RevealTo::Client);
        // Nothing here is secret: all values are zero or one.
        let [server, client, mask] = [1, 2, 3].map(|n| Seed::from_bytes([n; 16]));
        let masked = masked::mask_weights(plan, weights, &mask);
        let lap = |laps: &Laps| {
            let spans = schedule.instructions.iter().zip(laps.0.windows(2));
            spans.filter(|((i, _), _)| wanted(i)).map(|(_, lap)| (lap[1] - lap[0]).as_secs_f64()).sum::<f64>()
        };
        let dealt = |role| {
            let (mut chunks, mut laps) = (Vec::new(), Laps::default());
            let mut sink = |_: usize, bytes: Vec<u8>| {
                chunks.push(bytes);
                Ok(())
            };
            masked::deal(plan, &schedule, role, &server, &client, &mask, &mut sink, &mut laps)?;
            Ok::<_, ProtocolError>((Chunks(chunks.into_iter()), lap(&laps.ended())))
        };
        let ((for_server, deal), (for_client, deal_client)) = (dealt(Role::Server)?, dealt(Role::Client)?);
        let deal = deal + if schedule.total().dealt_client > 0 { deal_client } else { 0.0 };
        let prepare = |role, seed: &Seed, weights, mut dealt: Chunks| {
            let (mut stored, mut laps) = (Vec::new(), Laps::default());
            let mut sink = |_: usize, bytes: Vec<u8>| {
                stored.push(bytes);
                Ok(())
            };
            masked::prepare(plan, &schedule, role, seed, &masked, weights, &mut dealt, &mut sink, &mut laps)?;
            Ok::<_, ProtocolError>((Chunks(stored.into_iter()), lap(&laps.ended())))
        };
        let (held, serve) = prepare(Role::Server, &server, Some(weights), for_server)?;
        let (kept, ask) = prepare(Role::Client, &client, None, for_client)?;
        let inputs: Vec<Vec<i64>> = plan.inputs.iter().map(|i| vec![0; i.shape.iter().product()]).collect();
        let (mut left, mut right) = privet_net::memory::pair(Duration::from_secs(60));
        let online = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let own = Online::Client(&inputs);
                masked::online(
                    plan,
                    &schedule,
                    own,
                    Bundle::new(client.clone(), kept),
                    &mut right,
                    &mut Laps::default(),
                )
            });
            let (own, mut laps) = (Online::Server(&ServerWeights::once(weights)), Laps::default());
            let bundle = Bundle::new(server.clone(), held);
            let served = masked::online(plan, &schedule, own, bundle, &mut left, &mut laps);
            let asked = asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            served.and(asked).map(|_| lap(&laps.ended()))
        })?;
        Ok(Costs { deal, serve, ask, online })
    }
}

/// Notes when each instruction starts.
#[derive(Default)]
struct Laps(Vec<Instant>);

impl Laps {
    fn ended(mut self) -> Self {
        self.0.push(Instant::now());
        self
    }
}

impl Progress for Laps {
    fn step(&mut self, _: usize, _: usize, _: &str) {
        self.0.push(Instant::now());
    }
}

/// Chunks in memory, in order.
struct Chunks(std::vec::IntoIter<Vec<u8>>);

impl Source for Chunks {
    fn chunk(&mut self, instruction: usize, len: usize) -> Result<Vec<u8>, ProtocolError> {
        let what = || format!("material of instruction {instruction}");
        match self.0.next() {
            Some(bytes) if bytes.len() == len => Ok(bytes),
            other => {
                let found = other.map_or(0, |bytes| bytes.len());
                Err(ProtocolError::Size { what: what(), expected: len, found })
            }
        }
    }
}

//! The online phase of server and client.

use std::cell::RefCell;

use privet_net::Channel;
use privet_plan::{Plan, Step, Weights};
use privet_ring::pack;
use privet_ring::prg::Prg;

use super::evaluator::{Evaluator, Wire};
use super::lanes::alone;
use super::schedule::Schedule;
use super::walk::{Walker, walk};
use super::{Bundle, RevealTo, Role, Source};
use crate::inputs::check_inputs;
use crate::packed::Packed;
use crate::{Progress, ProtocolError, linear};

/// The server's weights.
pub struct ServerWeights<'a> {
    weights: &'a Weights,
    packed: Packed,
}

impl<'a> ServerWeights<'a> {
    /// For any number of inferences, also at the same time: each tensor is packed for the kernels when a product first needs it.
    pub fn new(weights: &'a Weights) -> Self {
        Self { weights, packed: Packed::new(weights.tensors.len()) }
    }

    /// Packs now what the first inference would have to. What does not fit the plan is left to it.
    pub fn pack(&self, plan: &Plan) {
        if self.weights.check_sizes(plan).is_err() {
            return;
        }
        for step in &plan.steps {
            if let Some(factor) = linear::factor(&step.op) {
                self.packed.packed(plan, step, linear::kernel(plan.ring), self.weights.elements(factor));
            }
        }
    }

    /// For one inference: packing would take more than it saves.
    pub fn once(weights: &'a Weights) -> Self {
        Self { weights, packed: Packed::never() }
    }
}

/// What a party brings to the online phase.
pub enum Online<'a> {
    /// The server's weights.
    Server(&'a ServerWeights<'a>),
    /// The client's inputs, one vector of fixed-point integers per plan input.
    Client(&'a [Vec<i64>]),
}

impl Online<'_> {
    fn role(&self) -> Role {
        match self {
            Online::Server(_) => Role::Server,
            Online::Client(_) => Role::Client,
        }
    }
}

/// Runs one inference, which uses up the bundle. Returns the outputs as signed integers, `None` for the party that learns nothing.
pub fn online(
    plan: &Plan,
    schedule: &Schedule,
    own: Online,
    bundle: Bundle<impl Source>,
    channel: &mut dyn Channel,
    progress: &mut dyn Progress,
) -> Result<Option<Vec<Vec<i64>>>, ProtocolError> {
    check(plan, &own)?;
    let role = own.role();
    let outputs = schedule.reveal_to.includes(role).then(Vec::new);
    let Bundle { seed, mut source } = bundle;
    let (prg, source) = (Prg::new(&seed), &mut source);
    let evaluator = Evaluator::new(plan, schedule, role.into(), prg, channel);
    let mut party = TwoParty { evaluator, own, source, outputs };
    walk(plan, schedule, &mut party, progress)?;
    party.evaluator.flush()?;
    Ok(party.outputs)
}

fn check(plan: &Plan, own: &Online) -> Result<(), ProtocolError> {
    match own {
        // A value beyond the ring is taken modulo 2^l.
        Online::Server(ServerWeights { weights, .. }) => {
            weights.check_sizes(plan).map_err(|e| ProtocolError::Mismatch(e.to_string()))
        }
        Online::Client(inputs) => check_inputs(plan, inputs),
    }
}

struct TwoParty<'a> {
    evaluator: Evaluator<'a>,
    own: Online<'a>,
    source: &'a mut dyn Source,
    outputs: Option<Vec<Vec<i64>>>,
}

impl TwoParty<'_> {
    /// This party's stored material of an instruction.
    fn stored(&mut self, k: usize) -> Result<Vec<u8>, ProtocolError> {
        let len = self.evaluator.schedule.instructions[k].1.stores(self.own.role());
        if len == 0 { Ok(Vec::new()) } else { self.source.chunk(k, len) }
    }
}

impl Walker for TwoParty<'_> {
    type Wire = Wire;

    fn input(&mut self, k: usize, input: usize, elements: usize) -> Result<Wire, ProtocolError> {
        let ring = self.evaluator.plan.ring;
        self.evaluator.count_one_way(k);
        let mut party = self.evaluator.party(k, &[]);
        let (m, lambda) = match &self.own {
            Online::Server(_) => (party.receive_ring(elements)?, vec![0; elements]),
            Online::Client(inputs) => {
                let lambda = self.evaluator.own_masks(k, elements);
                let masked = |(&v, &l): (&i64, &u64)| ring.reduce((v as u64).wrapping_add(l));
                let m: Vec<u64> = inputs[input].iter().zip(&lambda).map(masked).collect();
                party.send_ring(&m)?;
                (m, lambda)
            }
        };
        Ok(Wire::Masked { m, lambda })
    }

    fn open(&mut self, k: usize, wires: &[&Wire], lens: &[usize]) -> Result<Vec<Wire>, ProtocolError> {
        self.evaluator.open(k, wires, lens)
    }

    fn public_linear(&mut self, step: &Step, operands: &[&Wire]) -> Wire {
        self.evaluator.public_linear(step, operands)
    }

    fn product(&mut self, k: usize, step: &Step, operand: &Wire) -> Result<Wire, ProtocolError> {
        let plan = self.evaluator.plan;
        let prepared = self.stored(k)?;
        let mut share = pack::unpack(&prepared, plan.ring.bits(), step.shape.iter().product())?;
        if let Online::Server(ServerWeights { weights, packed }) = &self.own {
            let factor = linear::factor(&step.op).expect("a product has a factor");
            let (m, w) = (operand.masked().m, weights.elements(factor));
            let product = packed.multiply(plan, step, linear::kernel(plan.ring), m, w);
            share.iter_mut().zip(product).for_each(|(s, p)| *s = plan.ring.reduce(s.wrapping_add(p)));
        }
        Ok(Wire::Shared(share))
    }

    fn add_param(&mut self, step: &Step, operand: &Wire) -> Wire {
        let plan = self.evaluator.plan;
        let mut share = self.evaluator.share(operand).into_owned();
        if let (Online::Server(own), Some(param)) = (&self.own, linear::addend(&step.op)) {
            linear::add(plan, step, &mut share, own.weights.elements(param));
            plan.ring.reduce_all(&mut share);
        }
        Wire::Shared(share)
    }

    fn bilinear(&mut self, k: usize, step: &Step, operands: [&Wire; 2]) -> Result<Wire, ProtocolError> {
        let chunk = self.stored(k)?;
        self.evaluator.bilinear(k, step, operands, &chunk)
    }

    fn gate(&mut self, k: usize, index: usize, operands: &[&Wire]) -> Result<Wire, ProtocolError> {
        let source = RefCell::new(&mut *self.source);
        self.evaluator.gate(k, index, operands, &|len| source.borrow_mut().chunk(k, len))
    }

    fn reveal(&mut self, k: usize, _: usize, wire: &Wire) -> Result<(), ProtocolError> {
        let evaluator = &self.evaluator;
        let (ring, role, reveal_to) = (evaluator.plan.ring, self.own.role(), evaluator.schedule.reveal_to);
        let share = evaluator.share(wire).into_owned();
        let mut party = evaluator.party(k, &[]);
        let opened = match reveal_to {
            RevealTo::Both => {
                let elements = share.len();
                Some(alone(party.open_ring(share, std::slice::from_ref(&(0..elements))))?)
            }
            _ if !reveal_to.includes(role) => {
                evaluator.count_one_way(k);
                party.send_ring(&share)?;
                None
            }
            _ => {
                evaluator.count_one_way(k);
                let mut sum = party.receive_ring(share.len())?;
                sum.iter_mut().zip(share).for_each(|(a, b)| *a = ring.reduce(a.wrapping_add(b)));
                Some(sum)
            }
        };
        if let (Some(outputs), Some(values)) = (&mut self.outputs, opened) {
            outputs.push(values.into_iter().map(|v| ring.to_signed(v)).collect());
        }
        Ok(())
    }
}

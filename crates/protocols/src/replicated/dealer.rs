//! The dealer of one inference: knows λ of every wire, never m; sends to the first party, keys of tables to both, receives from
//! nobody.

use std::collections::BTreeMap;

use privet_net::{Channel, Frame};
use privet_plan::{Plan, Step, WireId};
use privet_ring::prg::{Prg, Seed};

use super::{DEALT, Links, SEED, Share, SharedWeights};
use crate::masked::correlate::{Correlator, Mask};
use crate::masked::gate::Half;
use crate::masked::walk::{Walker, walk};
use crate::masked::{Instruction, Schedule};
use crate::{Progress, ProtocolError, linear};

pub(super) fn deal(
    plan: &Plan,
    schedule: &Schedule,
    weights: &SharedWeights,
    inputs: &[Share],
    links: Links,
    progress: &mut dyn Progress,
) -> Result<Vec<Share>, ProtocolError> {
    let Links { next: first, previous: second } = links;
    let seed = |channel: &mut dyn Channel| {
        let seed = Seed::random().map_err(|e| ProtocolError::Randomness(e.to_string()))?;
        channel.send(Frame::new(SEED, seed.expose().to_vec()))?;
        channel.flush()?;
        Ok::<Prg, ProtocolError>(Prg::new(&seed))
    };
    let seeds = [seed(first)?, seed(second)?];
    let correlator = Correlator::new(plan, schedule, seeds, Half::First);
    let mut dealer =
        Dealer { correlator, weights, inputs, first, second, masks: BTreeMap::new(), outputs: Vec::new() };
    walk(plan, schedule, &mut dealer, progress)?;
    dealer.first.flush()?;
    dealer.second.flush()?;
    Ok(dealer.outputs)
}

struct Dealer<'a> {
    correlator: Correlator<'a>,
    weights: &'a SharedWeights<'a>,
    inputs: &'a [Share],
    first: &'a mut dyn Channel,
    /// Is sent keys of tables only.
    second: &'a mut dyn Channel,
    /// Shares of the outputs' wires.
    masks: BTreeMap<WireId, Share>,
    outputs: Vec<Share>,
}

impl Dealer<'_> {
    fn send(party: &mut dyn Channel, dealt: Vec<u8>) -> Result<(), ProtocolError> {
        if !dealt.is_empty() {
            party.send(Frame::new(DEALT, dealt))?;
        }
        Ok(())
    }

    fn negated(&self, mut values: Vec<u64>) -> Vec<u64> {
        let ring = self.correlator.plan.ring;
        values.iter_mut().for_each(|v| *v = ring.reduce(v.wrapping_neg()));
        values
    }
}

impl Walker for Dealer<'_> {
    type Wire = Mask;

    fn input(&mut self, _: usize, input: usize, _: usize) -> Result<Mask, ProtocolError> {
        Ok(Mask::Known(self.negated(self.inputs[input].sum(self.correlator.plan.ring))))
    }

    fn open(&mut self, k: usize, _: &[&Mask], lens: &[usize]) -> Result<Vec<Mask>, ProtocolError> {
        let instructions = &self.correlator.schedule.instructions;
        if let (Instruction::Open(wires), Some((Instruction::Reveal(_), _))) =
            (&instructions[k].0, instructions.get(k + 1))
        {
            let [first, second] = self.correlator.halves(k, lens);
            for ((wire, first), second) in wires.iter().zip(first).zip(second) {
                let share = Share { own: self.negated(second), next: self.negated(first) };
                self.masks.insert(*wire, share);
            }
        }
        Ok(self.correlator.open(k, lens))
    }

    fn public_linear(&mut self, step: &Step, operands: &[&Mask]) -> Mask {
        self.correlator.public_linear(step, operands)
    }

    fn product(&mut self, k: usize, step: &Step, operand: &Mask) -> Result<Mask, ProtocolError> {
        let plan = self.correlator.plan;
        let factor = linear::factor(&step.op).expect("a product has a factor");
        let negated_mask = self.weights.negated_mask(factor.index(), plan.ring);
        let kernel = linear::kernel(plan.ring);
        let gamma = linear::multiply(plan, step, kernel, operand.lambda(), &negated_mask);
        let dealt = self.correlator.product(k, &self.negated(gamma));
        Self::send(self.first, dealt)?;
        Ok(Mask::Shared)
    }

    fn add_param(&mut self, _: &Step, _: &Mask) -> Mask {
        Mask::Shared
    }

    fn bilinear(&mut self, k: usize, step: &Step, operands: [&Mask; 2]) -> Result<Mask, ProtocolError> {
        let dealt = self.correlator.bilinear(k, step, operands);
        Self::send(self.first, dealt)?;
        Ok(Mask::Shared)
    }

    fn gate(&mut self, k: usize, index: usize, operands: &[&Mask]) -> Result<Mask, ProtocolError> {
        // Lane by lane, so that neither side waits for the whole of a large layer.
        if self.correlator.schedule.instructions[k].1.dealt_client > 0 {
            self.correlator.gate_for_both(k, index, operands, |half, dealt| match half {
                Half::First => Self::send(self.first, dealt),
                Half::Second => {
                    Self::send(self.second, dealt)?;
                    // Both have to have theirs before either can go on.
                    Ok(self.second.flush()?)
                }
            })?;
            return Ok(Mask::Shared);
        }
        let send = |dealt: Vec<u8>| {
            let next = Vec::with_capacity(dealt.len());
            Self::send(self.first, dealt)?;
            Ok(next)
        };
        self.correlator.gate(k, index, operands, Vec::new(), send)?;
        Ok(Mask::Shared)
    }

    fn reveal(&mut self, k: usize, output: usize, _: &Mask) -> Result<(), ProtocolError> {
        debug_assert!(matches!(self.correlator.schedule.instructions[k].0, Instruction::Reveal(_)));
        let wire = self.correlator.plan.outputs[output].wire;
        let share = self.masks.get(&wire).cloned();
        self.outputs.push(share.expect("the schedule opens outputs first"));
        Ok(())
    }
}

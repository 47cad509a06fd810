//! The two parties that know masked values.

use std::borrow::Cow;
use std::cell::RefCell;

use privet_net::Channel;
use privet_plan::{Plan, Step};
use privet_ring::pack;
use privet_ring::prg::{Prg, Seed};

use super::{DEALT, Links, Position, SEED, Share, SharedWeights};
use crate::masked::Schedule;
use crate::masked::evaluator::{Evaluator, Wire};
use crate::masked::gate::Half;
use crate::masked::walk::{Walker, walk};
use crate::{Progress, ProtocolError, linear};

pub(super) fn evaluate(
    plan: &Plan,
    schedule: &Schedule,
    position: Position,
    weights: &SharedWeights,
    inputs: &[Share],
    links: Links,
    progress: &mut dyn Progress,
) -> Result<Vec<Share>, ProtocolError> {
    let (half, dealer, peer) = match position {
        Position::First => (Half::First, links.previous, links.next),
        _ => (Half::Second, links.next, links.previous),
    };
    let seed = seed(dealer)?;
    let evaluator = Evaluator::new(plan, schedule, half, Prg::new(&seed), peer);
    let dealer = RefCell::new(dealer);
    let mut party = Party { evaluator, weights, inputs, dealer, outputs: Vec::new() };
    walk(plan, schedule, &mut party, progress)?;
    party.evaluator.flush()?;
    Ok(party.outputs)
}

/// The seed this party shares with the dealer.
fn seed(dealer: &mut dyn Channel) -> Result<Seed, ProtocolError> {
    let bytes = receive(dealer, SEED, "seed from the dealer", 16)?;
    let bytes = bytes.try_into().map_err(|_| ProtocolError::Mismatch("seed from the dealer".to_owned()))?;
    Ok(Seed::from_bytes(bytes))
}

fn receive(
    dealer: &mut dyn Channel,
    kind: privet_net::FrameKind,
    what: &str,
    expected: usize,
) -> Result<Vec<u8>, ProtocolError> {
    let payload = dealer.recv_kind(kind, expected)?;
    if payload.len() == expected {
        return Ok(payload);
    }
    Err(ProtocolError::Size { what: what.to_owned(), expected, found: payload.len() })
}

struct Party<'a> {
    evaluator: Evaluator<'a>,
    weights: &'a SharedWeights<'a>,
    inputs: &'a [Share],
    dealer: RefCell<&'a mut dyn Channel>,
    outputs: Vec<Share>,
}

impl Party<'_> {
    /// What the dealer sends this party next.
    fn dealt(&self, len: usize) -> Result<Vec<u8>, ProtocolError> {
        if len == 0 {
            return Ok(Vec::new());
        }
        receive(&mut **self.dealer.borrow_mut(), DEALT, "dealt material", len)
    }

    /// What was dealt for an instruction that is not cut; the second party is sent nothing.
    fn dealt_for(&self, k: usize) -> Result<Vec<u8>, ProtocolError> {
        match self.evaluator.half {
            Half::First => self.dealt(self.evaluator.schedule.instructions[k].1.dealt),
            Half::Second => Ok(Vec::new()),
        }
    }

    /// Adds this party's additive share of a private addend: that of (m, λ), m by the first party.
    fn add_share(&self, step: &Step, share: &mut [u64]) {
        let Some(addend) = linear::addend(&step.op) else { return };
        let Share { own, next } = &self.weights.shares[addend.index()];
        linear::add(self.evaluator.plan, step, share, next);
        if self.evaluator.half == Half::First {
            linear::add(self.evaluator.plan, step, share, own);
        }
    }

    fn negated(&self, values: &[u64]) -> Vec<u64> {
        values.iter().map(|v| self.evaluator.plan.ring.reduce(v.wrapping_neg())).collect()
    }
}

impl Walker for Party<'_> {
    type Wire = Wire;

    fn input(&mut self, _: usize, input: usize, _: usize) -> Result<Wire, ProtocolError> {
        let Share { own, next } = &self.inputs[input];
        let (m, negated) = match self.evaluator.half {
            Half::First => (next, own),
            Half::Second => (own, next),
        };
        Ok(Wire::Masked { m: m.clone(), lambda: self.negated(negated) })
    }

    fn open(&mut self, k: usize, wires: &[&Wire], lens: &[usize]) -> Result<Vec<Wire>, ProtocolError> {
        self.evaluator.open(k, wires, lens)
    }

    fn public_linear(&mut self, step: &Step, operands: &[&Wire]) -> Wire {
        self.evaluator.public_linear(step, operands)
    }

    fn product(&mut self, k: usize, step: &Step, operand: &Wire) -> Result<Wire, ProtocolError> {
        let plan = self.evaluator.plan;
        let factor = linear::factor(&step.op).expect("a product has a factor");
        let Share { own, next } = &self.weights.shares[factor.index()];
        let x = operand.masked();
        let [packed_own, packed_next] = &self.weights.packed;
        let by_own = |x: &[u64]| packed_own.multiply(plan, step, linear::kernel(plan.ring), x, own);
        let by_next = |x: &[u64]| packed_next.multiply(plan, step, linear::kernel(plan.ring), x, next);
        let mut share = match self.evaluator.half {
            // m_w = next and λ_w1 = −own: m_x·(m_w − λ_w1) − λ_x1·m_w = m_x·own + (m_x − λ_x1)·next.
            Half::First => {
                let difference: Vec<u64> =
                    x.m.iter().zip(x.lambda).map(|(m, l)| plan.ring.reduce(m.wrapping_sub(*l))).collect();
                let mut share = by_next(&difference);
                share.iter_mut().zip(by_own(x.m)).for_each(|(s, p)| *s = s.wrapping_add(p));
                share
            }
            // m_w = own and λ_w2 = −next: −m_x·λ_w2 − λ_x2·m_w = m_x·next − λ_x2·own.
            Half::Second => {
                let mut share = by_next(x.m);
                share.iter_mut().zip(by_own(x.lambda)).for_each(|(s, p)| *s = s.wrapping_sub(p));
                share
            }
        };
        self.add_share(step, &mut share);
        // Waited for last: the dealer computes meanwhile.
        let dealt = self.dealt_for(k)?;
        let gamma = match self.evaluator.half {
            Half::First => pack::unpack(&dealt, plan.ring.bits(), share.len())?,
            Half::Second => self.evaluator.dealt(k, share.len(), &[])?,
        };
        share.iter_mut().zip(gamma).for_each(|(s, g)| *s = plan.ring.reduce(s.wrapping_add(g)));
        Ok(Wire::Shared(share))
    }

    fn add_param(&mut self, step: &Step, operand: &Wire) -> Wire {
        let mut share = self.evaluator.share(operand).into_owned();
        self.add_share(step, &mut share);
        self.evaluator.plan.ring.reduce_all(&mut share);
        Wire::Shared(share)
    }

    fn bilinear(&mut self, k: usize, step: &Step, operands: [&Wire; 2]) -> Result<Wire, ProtocolError> {
        let dealt = self.dealt_for(k)?;
        self.evaluator.bilinear(k, step, operands, &dealt)
    }

    fn gate(&mut self, k: usize, index: usize, operands: &[&Wire]) -> Result<Wire, ProtocolError> {
        self.evaluator.gate(k, index, operands, &|lane| Ok(Cow::Owned(self.dealt(lane.len())?)))
    }

    fn reveal(&mut self, _: usize, _: usize, wire: &Wire) -> Result<(), ProtocolError> {
        // Opened just before under fresh masks, which is a replicated sharing.
        let masked = wire.masked();
        let (m, negated) = (masked.m.to_vec(), self.negated(masked.lambda));
        self.outputs.push(match self.evaluator.half {
            Half::First => Share { own: negated, next: m },
            Half::Second => Share { own: m, next: negated },
        });
        Ok(())
    }
}

//! What the two parties that open wires to each other do alike, whoever owns inputs and weights: openings, public linear
//! steps, products of wires, gates.

use std::borrow::Cow;

use privet_net::Channel;
use privet_plan::{Plan, Step};
use privet_ring::prg::Prg;

use super::RevealTo;
use super::gate::{Chunks, Half, Lane, Party};
use super::lanes::{Link, Shared, alone, take_turns};
use super::schedule::Schedule;
use super::sign::Masked;
use super::walk::split;
use crate::{ProtocolError, linear};

/// A wire as a party holds it; all elements reduced.
pub(crate) enum Wire {
    /// m = v + λ, and the own half of λ.
    Masked { m: Vec<u64>, lambda: Vec<u64> },
    /// An additive share.
    Shared(Vec<u64>),
}

impl Default for Wire {
    fn default() -> Self {
        Wire::Shared(Vec::new())
    }
}

impl Wire {
    pub(crate) fn masked(&self) -> Masked<'_> {
        match self {
            Wire::Masked { m, lambda } => Masked { m, lambda },
            Wire::Shared(_) => unreachable!("the schedule opens operands first"),
        }
    }
}

/// One of the two parties of an inference.
pub(crate) struct Evaluator<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) schedule: &'a Schedule,
    pub(crate) half: Half,
    prg: Prg,
    link: Shared<'a>,
}

impl<'a> Evaluator<'a> {
    /// Draws its masks from `prg`.
    pub(crate) fn new(
        plan: &'a Plan,
        schedule: &'a Schedule,
        half: Half,
        prg: Prg,
        peer: &'a mut dyn Channel,
    ) -> Self {
        Self { plan, schedule, half, prg, link: Shared::new(peer) }
    }

    /// Waits until everything sent has been handed on.
    pub(crate) fn flush(self) -> Result<(), ProtocolError> {
        self.link.flush()
    }

    /// For an instruction that is not cut.
    pub(super) fn party<'b>(&'b self, k: usize, chunk: &'b [u8]) -> Party<'b> {
        self.lane(Lane::only(k), chunk, None)
    }

    fn lane<'b>(&'b self, lane: Lane, chunk: &'b [u8], to_come: Option<&'b Chunks<'b>>) -> Party<'b> {
        Party::new(self.plan.ring, self.half, &self.prg, lane, chunk, to_come, &self.link)
    }

    /// Counts the round of an instruction that sends one way, unless what it sends is on its way together with something else.
    pub(super) fn count_one_way(&self, k: usize) {
        if self.schedule.instructions[k].1.rounds > 0 {
            self.link.count_round();
        }
    }

    /// Own half of the masks of an instruction's wire.
    pub(super) fn own_masks(&self, k: usize, elements: usize) -> Vec<u64> {
        super::gate::own_masks(&self.prg, k, elements, self.plan.ring)
    }

    /// Own share of a wire in either form.
    pub(crate) fn share<'w>(&self, wire: &'w Wire) -> Cow<'w, [u64]> {
        match wire {
            Wire::Shared(share) => Cow::Borrowed(share),
            Wire::Masked { m, lambda } => {
                let first = self.half == Half::First;
                let share =
                    |(&m, &l): (&u64, &u64)| self.plan.ring.reduce(if first { m } else { 0 }.wrapping_sub(l));
                m.iter().zip(lambda).map(share).collect()
            }
        }
    }

    /// Masks wires of these numbers of elements with fresh masks and opens them, in one round.
    pub(crate) fn open(&self, k: usize, wires: &[&Wire], lens: &[usize]) -> Result<Vec<Wire>, ProtocolError> {
        let share = match wires {
            [only] => self.share(only),
            all => all.iter().map(|w| self.share(w)).collect::<Vec<_>>().concat().into(),
        };
        let pieces = self.schedule.pieces(share.len());
        let mut party = self.party(k, &[]);
        if self.schedule.receiver(k) == RevealTo::Server {
            party.tell_the_first(self.schedule.instructions[k].1.rounds > 0);
        }
        let (m, lambda) = alone(party.mask_and_open(&share, &pieces))?;
        let opened = split(m, lens).into_iter().zip(split(lambda, lens));
        Ok(opened.map(|(m, lambda)| Wire::Masked { m, lambda }).collect())
    }

    pub(crate) fn public_linear(&self, step: &Step, operands: &[&Wire]) -> Wire {
        let apply = |values: &[&[u64]], constant: bool| {
            let mut z = linear::apply(self.plan, step, values, constant);
            self.plan.ring.reduce_all(&mut z);
            z
        };
        if operands.iter().all(|w| matches!(w, Wire::Masked { .. })) {
            let ms: Vec<&[u64]> = operands.iter().map(|w| w.masked().m).collect();
            let lambdas: Vec<&[u64]> = operands.iter().map(|w| w.masked().lambda).collect();
            return Wire::Masked { m: apply(&ms, true), lambda: apply(&lambdas, false) };
        }
        let shares: Vec<Cow<[u64]>> = operands.iter().map(|w| self.share(w)).collect();
        let shares: Vec<&[u64]> = shares.iter().map(|share| &**share).collect();
        Wire::Shared(apply(&shares, self.half == Half::First))
    }

    /// Own share of what was dealt for a product; `chunk` is the first party's.
    pub(crate) fn dealt(&self, k: usize, elements: usize, chunk: &[u8]) -> Result<Vec<u64>, ProtocolError> {
        let mut party = self.party(k, chunk);
        let share = party.dealt_ring(elements, self.plan.ring.bits())?;
        party.finish()?;
        Ok(share)
    }

    /// A product of two wires; `chunk` is what the first party was dealt.
    pub(crate) fn bilinear(
        &self,
        k: usize,
        step: &Step,
        [x, y]: [&Wire; 2],
        chunk: &[u8],
    ) -> Result<Wire, ProtocolError> {
        let (plan, ring) = (self.plan, self.plan.ring);
        let (Masked { m: m_x, lambda: lambda_x }, Masked { m: m_y, lambda: lambda_y }) =
            (x.masked(), y.masked());
        let mut share = self.dealt(k, step.shape.iter().product(), chunk)?;
        // The first party's m_x·m_y − m_x·λ_y is m_x·(m_y − λ_y).
        let public = |m: u64| if self.half == Half::First { m } else { 0 };
        let y_share: Vec<u64> = m_y.iter().zip(lambda_y).map(|(&m, l)| public(m).wrapping_sub(*l)).collect();
        let kernel = linear::kernel(ring);
        let by_share = linear::bilinear(plan, step, kernel, m_x, &y_share);
        let by_mask = linear::bilinear(plan, step, kernel, lambda_x, m_y);
        for ((s, a), b) in share.iter_mut().zip(by_share).zip(by_mask) {
            *s = ring.reduce(s.wrapping_add(a).wrapping_sub(b));
        }
        Ok(Wire::Shared(share))
    }

    /// A gate. `material` gives the next chunk that this party was dealt, of so many bytes.
    pub(crate) fn gate(
        &self,
        k: usize,
        index: usize,
        operands: &[&Wire],
        material: &dyn Fn(usize) -> Result<Vec<u8>, ProtocolError>,
    ) -> Result<Wire, ProtocolError> {
        let gate = self.schedule.gate(self.plan, index).expect("walked as a gate");
        let x = operands[0].masked();
        let t = operands.get(1).map_or(Masked { m: &[], lambda: &[] }, |t| t.masked());
        let values = t.m.len() / x.m.len();
        let own = usize::from(self.half == Half::Second);
        let lanes = self.schedule.lanes(&gate, x.m.len()).into_iter().enumerate().map(|(lane, range)| {
            let cost = gate.lane_cost(self.plan.ring, range.len());
            let t = t.slice(values * range.start..values * range.end);
            let (gate, x) = (&gate, x.slice(range));
            async move {
                let chunks = Chunks::new(cost.chunks().map(|chunk| chunk[own]), material);
                let mut party = self.lane(Lane { instruction: k, lane }, &[], Some(&chunks));
                let share = gate.evaluate(x, t, &mut party).await?;
                party.finish()?;
                Ok(share)
            }
        });
        Ok(Wire::Shared(take_turns(lanes)?.concat()))
    }
}

//! The online phase of server and client.

use std::borrow::Cow;

use privet_net::Channel;
use privet_plan::{Plan, Step, Weights};
use privet_ring::pack;
use privet_ring::prg::Prg;

use super::gate::{Lane, Party, own_masks};
use super::lanes::{Shared, alone, take_turns};
use super::schedule::Schedule;
use super::sign::Masked;
use super::step::GateStep;
use super::walk::{Walker, split, walk};
use super::{Bundle, RevealTo, Role, Source};
use crate::inputs::check_inputs;
use crate::{Progress, ProtocolError, linear};

/// What a party brings to the online phase.
pub enum Online<'a> {
    /// The server's weights.
    Server(&'a Weights),
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
    let mut evaluator = Evaluator { plan, schedule, own, prg, source, link: Shared::new(channel), outputs };
    walk(plan, schedule, &mut evaluator, progress)?;
    evaluator.link.flush()?;
    Ok(evaluator.outputs)
}

fn check(plan: &Plan, own: &Online) -> Result<(), ProtocolError> {
    match own {
        // A value beyond the ring is taken modulo 2^l.
        Online::Server(weights) => {
            weights.check_sizes(plan).map_err(|e| ProtocolError::Mismatch(e.to_string()))
        }
        Online::Client(inputs) => check_inputs(plan, inputs),
    }
}

struct Evaluator<'a> {
    plan: &'a Plan,
    schedule: &'a Schedule,
    own: Online<'a>,
    prg: Prg,
    source: &'a mut dyn Source,
    link: Shared<'a>,
    outputs: Option<Vec<Vec<i64>>>,
}

/// A wire as a party holds it; all lanes reduced.
enum Wire {
    Masked { m: Vec<u64>, lambda: Vec<u64> },
    Shared(Vec<u64>),
}

impl Default for Wire {
    fn default() -> Self {
        Wire::Shared(Vec::new())
    }
}

impl Wire {
    fn masked(&self) -> Masked<'_> {
        match self {
            Wire::Masked { m, lambda } => Masked { m, lambda },
            Wire::Shared(_) => unreachable!("the schedule opens operands first"),
        }
    }
}

impl Evaluator<'_> {
    /// For an instruction that is not cut.
    fn party<'b>(&'b self, k: usize, chunk: &'b [u8]) -> Party<'b> {
        self.lane(Lane::only(k), chunk)
    }

    fn lane<'b>(&'b self, lane: Lane, chunk: &'b [u8]) -> Party<'b> {
        Party::new(self.plan.ring, self.own.role(), &self.prg, lane, chunk, &self.link)
    }

    /// This party's stored material of an instruction.
    fn stored(&mut self, k: usize) -> Result<Vec<u8>, ProtocolError> {
        let len = self.schedule.instructions[k].1.stores(self.own.role());
        if len == 0 { Ok(Vec::new()) } else { self.source.chunk(k, len) }
    }

    /// Own share of a wire in either form.
    fn share<'w>(&self, wire: &'w Wire) -> Cow<'w, [u64]> {
        match wire {
            Wire::Shared(share) => Cow::Borrowed(share),
            Wire::Masked { m, lambda } => {
                let first = self.own.role() == Role::Server;
                let share =
                    |(&m, &l): (&u64, &u64)| self.plan.ring.reduce(if first { m } else { 0 }.wrapping_sub(l));
                m.iter().zip(lambda).map(share).collect()
            }
        }
    }
}

impl Walker for Evaluator<'_> {
    type Wire = Wire;

    fn input(&mut self, k: usize, input: usize, elements: usize) -> Result<Wire, ProtocolError> {
        let ring = self.plan.ring;
        let own = match &self.own {
            Online::Server(_) => None,
            Online::Client(inputs) => {
                let lambda = own_masks(&self.prg, k, elements, ring);
                let masked = |(&v, &l): (&i64, &u64)| ring.reduce((v as u64).wrapping_add(l));
                Some((inputs[input].iter().zip(&lambda).map(masked).collect::<Vec<u64>>(), lambda))
            }
        };
        let mut party = self.party(k, &[]);
        let (m, lambda) = match own {
            Some((m, lambda)) => {
                party.send_ring(&m)?;
                (m, lambda)
            }
            None => (party.receive_ring(elements)?, vec![0; elements]),
        };
        Ok(Wire::Masked { m, lambda })
    }

    fn open(&mut self, k: usize, wires: &[&Wire], lens: &[usize]) -> Result<Vec<Wire>, ProtocolError> {
        let share = match wires {
            [only] => self.share(only),
            all => all.iter().map(|w| self.share(w)).collect::<Vec<_>>().concat().into(),
        };
        let pieces = self.schedule.pieces(share.len());
        let mut party = self.party(k, &[]);
        let (m, lambda) = alone(party.mask_and_open(&share, &pieces))?;
        let opened = split(m, lens).into_iter().zip(split(lambda, lens));
        Ok(opened.map(|(m, lambda)| Wire::Masked { m, lambda }).collect())
    }

    fn public_linear(&mut self, step: &Step, operands: &[&Wire]) -> Wire {
        let first = self.own.role() == Role::Server;
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
        Wire::Shared(apply(&shares, first))
    }

    fn product(&mut self, k: usize, step: &Step, operand: &Wire) -> Result<Wire, ProtocolError> {
        let ring = self.plan.ring;
        let prepared = self.stored(k)?;
        let mut share = pack::unpack(&prepared, ring.bits(), step.shape.iter().product())?;
        if let Online::Server(weights) = &self.own {
            let factor = linear::factor(&step.op).expect("a product has a factor");
            let product = linear::multiply(
                self.plan,
                step,
                linear::kernel(ring),
                operand.masked().m,
                weights.elements(factor),
            );
            share.iter_mut().zip(product).for_each(|(s, p)| *s = ring.reduce(s.wrapping_add(p)));
        }
        Ok(Wire::Shared(share))
    }

    fn add_param(&mut self, step: &Step, operand: &Wire) -> Wire {
        let mut share = self.share(operand).into_owned();
        if let (Online::Server(weights), Some(param)) = (&self.own, linear::addend(&step.op)) {
            linear::add(self.plan, step, &mut share, weights.elements(param));
            self.plan.ring.reduce_all(&mut share);
        }
        Wire::Shared(share)
    }

    fn bilinear(&mut self, k: usize, step: &Step, [x, y]: [&Wire; 2]) -> Result<Wire, ProtocolError> {
        let chunk = self.stored(k)?;
        let (plan, ring) = (self.plan, self.plan.ring);
        let (Masked { m: m_x, lambda: lambda_x }, Masked { m: m_y, lambda: lambda_y }) =
            (x.masked(), y.masked());
        let mut party = self.party(k, &chunk);
        let first = party.is_first();
        let mut share = party.dealt_ring(step.shape.iter().product(), ring.bits())?;
        party.finish()?;
        // The first party's m_x·m_y − m_x·λ_y is m_x·(m_y − λ_y).
        let public = |m: u64| if first { m } else { 0 };
        let y_share: Vec<u64> = m_y.iter().zip(lambda_y).map(|(&m, l)| public(m).wrapping_sub(*l)).collect();
        let kernel = linear::kernel(ring);
        let by_share = linear::bilinear(plan, step, kernel, m_x, &y_share);
        let by_mask = linear::bilinear(plan, step, kernel, lambda_x, m_y);
        for ((s, a), b) in share.iter_mut().zip(by_share).zip(by_mask) {
            *s = ring.reduce(s.wrapping_add(a).wrapping_sub(b));
        }
        Ok(Wire::Shared(share))
    }

    fn gate(&mut self, k: usize, index: usize, operands: &[&Wire]) -> Result<Wire, ProtocolError> {
        let chunk = self.stored(k)?;
        let gate = GateStep::of(self.plan, index).expect("walked as a gate");
        let x = operands[0].masked();
        let t = operands.get(1).map_or(Masked { m: &[], lambda: &[] }, |t| t.masked());
        let values = t.m.len() / x.m.len();
        let mut left = &chunk[..];
        let lanes = self.schedule.lanes(&gate, x.m.len()).into_iter().enumerate().map(|(lane, range)| {
            let own;
            // The server stores what was dealt, the client nothing.
            let dealt = gate.lane_cost(self.plan.ring, range.len()).dealt.min(left.len());
            (own, left) = left.split_at(dealt);
            let mut party = self.lane(Lane { instruction: k, lane }, own);
            let t = t.slice(values * range.start..values * range.end);
            let (gate, x) = (&gate, x.slice(range));
            async move {
                let share = gate.evaluate(x, t, &mut party).await?;
                party.finish()?;
                Ok(share)
            }
        });
        Ok(Wire::Shared(take_turns(lanes)?.concat()))
    }

    fn reveal(&mut self, k: usize, _: usize, wire: &Wire) -> Result<(), ProtocolError> {
        let (ring, role, reveal_to) = (self.plan.ring, self.own.role(), self.schedule.reveal_to);
        let share = self.share(wire).into_owned();
        let mut party = self.party(k, &[]);
        let opened = match reveal_to {
            RevealTo::Both => {
                let elements = share.len();
                Some(alone(party.open_ring(share, std::slice::from_ref(&(0..elements))))?)
            }
            _ if !reveal_to.includes(role) => {
                party.send_ring(&share)?;
                None
            }
            _ => {
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

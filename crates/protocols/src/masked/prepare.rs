//! Preparation: everything a party can compute before the input is known.
//!
//! For every product the party's share is a_i = γ_i − λ_{x,i}·m_W (the server's with the bias), so that online only
//! the server's m_x·W is left.

use privet_plan::{Plan, Step, Weights};
use privet_ring::pack;
use privet_ring::prg::{Prg, Seed};

use super::gate::{own_masks, second_dealt};
use super::schedule::Schedule;
use super::walk::{Walker, split, walk};
use super::{MaskedWeights, Role, Sink, Source};
use crate::{Progress, ProtocolError, linear};

/// Prepares one bundle for `role`: reads what was dealt from `dealt`, gives what is to be stored to `sink`.
///
/// The server passes its weights, for the biases; the client passes `None`, and reads keys of function secret sharing at most.
#[expect(clippy::too_many_arguments, reason = "two roles share one walk; grouping would only move the list")]
pub fn prepare(
    plan: &Plan,
    schedule: &Schedule,
    role: Role,
    seed: &Seed,
    masked: &MaskedWeights,
    weights: Option<&Weights>,
    dealt: &mut dyn Source,
    sink: &mut dyn Sink,
    progress: &mut dyn Progress,
) -> Result<(), ProtocolError> {
    let mut preparer = Preparer { plan, schedule, role, prg: Prg::new(seed), masked, weights, dealt, sink };
    walk(plan, schedule, &mut preparer, progress)
}

struct Preparer<'a> {
    plan: &'a Plan,
    schedule: &'a Schedule,
    role: Role,
    prg: Prg,
    masked: &'a MaskedWeights,
    weights: Option<&'a Weights>,
    dealt: &'a mut dyn Source,
    sink: &'a mut dyn Sink,
}

/// The own half of a wire's λ.
#[derive(Default)]
enum Lambda {
    /// A shared wire has none.
    #[default]
    None,
    /// Zero, whatever the seed: the server's half of the client's inputs and of what follows linearly from them.
    Zero(usize),
    Drawn(Vec<u64>),
}

impl Lambda {
    fn values(&self) -> Option<Vec<u64>> {
        match self {
            Lambda::None => None,
            Lambda::Zero(elements) => Some(vec![0; *elements]),
            Lambda::Drawn(values) => Some(values.clone()),
        }
    }
}

impl Preparer<'_> {
    /// What the dealer sent this party for a product.
    fn dealt(&mut self, k: usize) -> Result<Vec<u8>, ProtocolError> {
        let len = self.schedule.instructions[k].1.dealt_to(self.role);
        if len == 0 { Ok(Vec::new()) } else { self.dealt.chunk(k, len) }
    }

    /// Stores what was dealt as it is; nothing can be computed from it before the input is known.
    fn hand_on(&mut self, k: usize) -> Result<Lambda, ProtocolError> {
        for len in self.schedule.chunks(self.plan, k, self.role) {
            let chunk = self.dealt.chunk(k, len)?;
            self.sink.chunk(k, chunk)?;
        }
        Ok(Lambda::None)
    }
}

impl Walker for Preparer<'_> {
    type Wire = Lambda;

    fn input(&mut self, k: usize, _: usize, elements: usize) -> Result<Lambda, ProtocolError> {
        Ok(match self.role {
            Role::Server => Lambda::Zero(elements),
            Role::Client => Lambda::Drawn(own_masks(&self.prg, k, elements, self.plan.ring)),
        })
    }

    fn open(&mut self, k: usize, _: &[&Lambda], lens: &[usize]) -> Result<Vec<Lambda>, ProtocolError> {
        let lambda = own_masks(&self.prg, k, lens.iter().sum(), self.plan.ring);
        Ok(split(lambda, lens).into_iter().map(Lambda::Drawn).collect())
    }

    fn public_linear(&mut self, step: &Step, operands: &[&Lambda]) -> Lambda {
        if operands.iter().all(|w| matches!(w, Lambda::Zero(_))) {
            return Lambda::Zero(step.shape.iter().product());
        }
        let Some(lambdas) = operands.iter().map(|w| w.values()).collect::<Option<Vec<_>>>() else {
            return Lambda::None;
        };
        let lambdas: Vec<&[u64]> = lambdas.iter().map(Vec::as_slice).collect();
        let mut lambda = linear::apply(self.plan, step, &lambdas, false);
        self.plan.ring.reduce_all(&mut lambda);
        Lambda::Drawn(lambda)
    }

    fn product(&mut self, k: usize, step: &Step, operand: &Lambda) -> Result<Lambda, ProtocolError> {
        let ring = self.plan.ring;
        let elements = step.shape.iter().product();
        let mut share = match self.role {
            Role::Server => pack::unpack(&self.dealt(k)?, ring.bits(), elements)?,
            Role::Client => second_dealt(&self.prg, k, elements, ring),
        };
        let factor = linear::factor(&step.op).expect("a product has a factor");
        let m_w = self.masked[factor.index()].as_deref().expect("factors are masked");
        if let Lambda::Drawn(lambda) = operand {
            let product = linear::multiply(self.plan, step, linear::kernel(ring), lambda, m_w);
            share.iter_mut().zip(product).for_each(|(s, p)| *s = s.wrapping_sub(p));
        }
        if let (Some(weights), Some(bias)) = (self.weights, linear::addend(&step.op)) {
            linear::add(self.plan, step, &mut share, weights.elements(bias));
        }
        let mut bytes = Vec::new();
        pack::pack(&share, ring.bits(), &mut bytes);
        self.sink.chunk(k, bytes)?;
        Ok(Lambda::None)
    }

    fn add_param(&mut self, _: &Step, _: &Lambda) -> Lambda {
        Lambda::None
    }

    fn bilinear(&mut self, k: usize, _: &Step, _: [&Lambda; 2]) -> Result<Lambda, ProtocolError> {
        self.hand_on(k)
    }

    fn gate(&mut self, k: usize, _: usize, _: &[&Lambda]) -> Result<Lambda, ProtocolError> {
        self.hand_on(k)
    }

    fn reveal(&mut self, _: usize, _: usize, _: &Lambda) -> Result<(), ProtocolError> {
        Ok(())
    }
}

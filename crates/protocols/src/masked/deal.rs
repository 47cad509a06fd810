//! The dealer: everything the parties need for one inference, from their seeds and the weight masks' seed.

use privet_plan::{Plan, Step};
use privet_ring::prg::{Prg, Seed};

use super::correlate::{Correlator, Mask};
use super::gate::weight_masks;
use super::schedule::Schedule;
use super::walk::{Walker, walk};
use super::{Role, Sink};
use crate::{Progress, ProtocolError, linear};

/// Deals one half of a bundle: gives the chunks of `role` to `sink`. Where no step takes keys of function secret sharing
/// the client needs its seed only.
///
/// The dealer sees the plan and the seeds it made, never weights or inputs.
#[expect(
    clippy::too_many_arguments,
    reason = "three seeds of three owners; grouping would only move the list"
)]
pub fn deal(
    plan: &Plan,
    schedule: &Schedule,
    role: Role,
    server: &Seed,
    client: &Seed,
    weights: &Seed,
    sink: &mut dyn Sink,
    progress: &mut dyn Progress,
) -> Result<(), ProtocolError> {
    let correlator = Correlator::new(plan, schedule, [Prg::new(server), Prg::new(client)], role.into());
    walk(plan, schedule, &mut Dealer { correlator, role, weights, sink }, progress)
}

struct Dealer<'a> {
    correlator: Correlator<'a>,
    role: Role,
    weights: &'a Seed,
    sink: &'a mut dyn Sink,
}

impl Walker for Dealer<'_> {
    type Wire = Mask;

    fn input(&mut self, k: usize, _: usize, elements: usize) -> Result<Mask, ProtocolError> {
        Ok(self.correlator.input(k, elements))
    }

    fn open(&mut self, k: usize, _: &[&Mask], lens: &[usize]) -> Result<Vec<Mask>, ProtocolError> {
        Ok(self.correlator.open(k, lens))
    }

    fn public_linear(&mut self, step: &Step, operands: &[&Mask]) -> Mask {
        self.correlator.public_linear(step, operands)
    }

    fn product(&mut self, k: usize, step: &Step, operand: &Mask) -> Result<Mask, ProtocolError> {
        if self.role == Role::Client {
            return Ok(Mask::Shared);
        }
        let Correlator { plan, .. } = self.correlator;
        let factor = linear::factor(&step.op).expect("a product has a factor");
        let elements = plan.params[factor.index()].shape.iter().product();
        let lambda_w = weight_masks(self.weights, factor.index(), elements, plan.ring);
        let kernel = linear::kernel(plan.ring);
        let gamma = linear::multiply(plan, step, kernel, operand.lambda(), &lambda_w);
        self.correlator.product(k, &gamma, |chunk| self.sink.chunk(k, chunk))?;
        Ok(Mask::Shared)
    }

    fn add_param(&mut self, _: &Step, _: &Mask) -> Mask {
        Mask::Shared
    }

    fn bilinear(&mut self, k: usize, step: &Step, operands: [&Mask; 2]) -> Result<Mask, ProtocolError> {
        if self.role == Role::Client {
            return Ok(Mask::Shared);
        }
        self.correlator.bilinear(k, step, operands, |chunk| self.sink.chunk(k, chunk))?;
        Ok(Mask::Shared)
    }

    fn gate(&mut self, k: usize, index: usize, operands: &[&Mask]) -> Result<Mask, ProtocolError> {
        if self.correlator.schedule.instructions[k].1.dealt_to(self.role) > 0 {
            self.correlator.gate(k, index, operands, |chunk| self.sink.chunk(k, chunk))?;
        }
        Ok(Mask::Shared)
    }

    fn reveal(&mut self, _: usize, _: usize, _: &Mask) -> Result<(), ProtocolError> {
        Ok(())
    }
}

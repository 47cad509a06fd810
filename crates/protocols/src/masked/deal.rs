//! The dealer: everything the server needs for one inference, from the two parties' seeds and the weight masks' seed.

use privet_plan::{Plan, Step};
use privet_ring::prg::{Prg, Seed};

use super::Sink;
use super::correlate::{Correlator, Mask};
use super::gate::weight_masks;
use super::schedule::Schedule;
use super::walk::{Walker, walk};
use crate::{Progress, ProtocolError, linear};

/// Deals one bundle: gives the server's chunks to `sink`. The client needs its seed only.
///
/// The dealer sees the plan and the seeds it made, never weights or inputs.
pub fn deal(
    plan: &Plan,
    schedule: &Schedule,
    server: &Seed,
    client: &Seed,
    weights: &Seed,
    sink: &mut dyn Sink,
    progress: &mut dyn Progress,
) -> Result<(), ProtocolError> {
    let correlator = Correlator::new(plan, schedule, [Prg::new(server), Prg::new(client)]);
    walk(plan, schedule, &mut Dealer { correlator, weights, sink }, progress)
}

struct Dealer<'a> {
    correlator: Correlator<'a>,
    weights: &'a Seed,
    sink: &'a mut dyn Sink,
}

impl Dealer<'_> {
    /// Hands on what an instruction dealt; one that needs nothing has no chunk.
    fn hand_on(&mut self, k: usize, chunk: Vec<u8>) -> Result<Mask, ProtocolError> {
        if !chunk.is_empty() {
            self.sink.chunk(k, chunk)?;
        }
        Ok(Mask::Shared)
    }
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
        let Correlator { plan, .. } = self.correlator;
        let factor = linear::factor(&step.op).expect("a product has a factor");
        let elements = plan.params[factor.index()].shape.iter().product();
        let lambda_w = weight_masks(self.weights, factor.index(), elements, plan.ring);
        let kernel = linear::kernel(plan.ring);
        let gamma = linear::multiply(plan, step, kernel, operand.lambda(), &lambda_w);
        let chunk = self.correlator.product(k, &gamma);
        self.hand_on(k, chunk)
    }

    fn add_param(&mut self, _: &Step, _: &Mask) -> Mask {
        Mask::Shared
    }

    fn bilinear(&mut self, k: usize, step: &Step, operands: [&Mask; 2]) -> Result<Mask, ProtocolError> {
        let chunk = self.correlator.bilinear(k, step, operands);
        self.hand_on(k, chunk)
    }

    fn gate(&mut self, k: usize, index: usize, operands: &[&Mask]) -> Result<Mask, ProtocolError> {
        let whole = Vec::with_capacity(self.correlator.schedule.instructions[k].1.dealt);
        let chunk = self.correlator.gate(k, index, operands, whole, Ok)?;
        self.hand_on(k, chunk)
    }

    fn reveal(&mut self, _: usize, _: usize, _: &Mask) -> Result<(), ProtocolError> {
        Ok(())
    }
}

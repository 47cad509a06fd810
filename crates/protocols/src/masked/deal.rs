//! The dealer: everything the server needs for one inference, from the two parties' seeds and the weight masks' seed.

use privet_plan::{Plan, Step};
use privet_ring::prg::{Prg, Seed};

use super::Sink;
use super::gate::{Dealing, Lane, weight_masks};
use super::schedule::Schedule;
use super::step::GateStep;
use super::walk::{Walker, split, walk};
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
    let (server, client) = (Prg::new(server), Prg::new(client));
    let mut dealer = Dealer { plan, schedule, weights, server, client, sink };
    walk(plan, schedule, &mut dealer, progress)
}

struct Dealer<'a> {
    plan: &'a Plan,
    schedule: &'a Schedule,
    weights: &'a Seed,
    server: Prg,
    client: Prg,
    sink: &'a mut dyn Sink,
}

impl Dealer<'_> {
    /// Of an instruction that is not cut.
    fn dealing(&self, k: usize) -> Dealing<'_> {
        Dealing::new(self.plan.ring, &self.server, &self.client, Lane::only(k), Vec::new())
    }

    /// Hands on what an instruction dealt; one that needs nothing has no chunk.
    fn hand_on(&mut self, k: usize, chunk: Vec<u8>) -> Result<(), ProtocolError> {
        if chunk.is_empty() { Ok(()) } else { self.sink.chunk(k, chunk) }
    }
}

/// λ of a masked wire; the dealer knows nothing useful about a shared one.
#[derive(Default)]
enum Wire {
    Masked(Vec<u64>),
    #[default]
    Shared,
}

impl Wire {
    fn lambda(&self) -> &[u64] {
        match self {
            Wire::Masked(lambda) => lambda,
            Wire::Shared => unreachable!("the schedule opens operands first"),
        }
    }
}

impl Walker for Dealer<'_> {
    type Wire = Wire;

    fn input(&mut self, k: usize, _: usize, elements: usize) -> Result<Wire, ProtocolError> {
        Ok(Wire::Masked(self.dealing(k).mask_input(elements)))
    }

    fn open(&mut self, k: usize, _: &[&Wire], lens: &[usize]) -> Result<Vec<Wire>, ProtocolError> {
        let mut dealing = self.dealing(k);
        let lambda = dealing.mask_ring(lens.iter().sum());
        Ok(split(lambda, lens).into_iter().map(Wire::Masked).collect())
    }

    fn public_linear(&mut self, step: &Step, operands: &[&Wire]) -> Wire {
        if operands.iter().any(|w| matches!(w, Wire::Shared)) {
            return Wire::Shared;
        }
        let lambdas: Vec<&[u64]> = operands.iter().map(|w| w.lambda()).collect();
        let mut lambda = linear::apply(self.plan, step, &lambdas, false);
        self.plan.ring.reduce_all(&mut lambda);
        Wire::Masked(lambda)
    }

    fn product(&mut self, k: usize, step: &Step, operand: &Wire) -> Result<Wire, ProtocolError> {
        let factor = linear::factor(&step.op).expect("a product has a factor");
        let elements = self.plan.params[factor.index()].shape.iter().product();
        let lambda_w = weight_masks(self.weights, factor.index(), elements, self.plan.ring);
        let kernel = linear::kernel(self.plan.ring);
        let gamma = linear::multiply(self.plan, step, kernel, operand.lambda(), &lambda_w);
        let mut dealing = self.dealing(k);
        dealing.deal_ring(&gamma, self.plan.ring.bits());
        let chunk = dealing.into_chunk();
        self.hand_on(k, chunk)?;
        Ok(Wire::Shared)
    }

    fn add_param(&mut self, _: &Step, _: &Wire) -> Wire {
        Wire::Shared
    }

    fn bilinear(&mut self, k: usize, step: &Step, [x, y]: [&Wire; 2]) -> Result<Wire, ProtocolError> {
        let kernel = linear::kernel(self.plan.ring);
        let gamma = linear::bilinear(self.plan, step, kernel, x.lambda(), y.lambda());
        let mut dealing = self.dealing(k);
        dealing.deal_ring(&gamma, self.plan.ring.bits());
        let chunk = dealing.into_chunk();
        self.hand_on(k, chunk)?;
        Ok(Wire::Shared)
    }

    fn gate(&mut self, k: usize, index: usize, operands: &[&Wire]) -> Result<Wire, ProtocolError> {
        let gate = GateStep::of(self.plan, index).expect("walked as a gate");
        let r = operands[0].lambda();
        let t = operands.get(1).map_or(&[][..], |t| t.lambda());
        let values = t.len() / r.len();
        let mut chunk = Vec::with_capacity(self.schedule.instructions[k].1.dealt);
        for (lane, range) in self.schedule.lanes(&gate, r.len()).into_iter().enumerate() {
            let lane = Lane { instruction: k, lane };
            let mut dealing = Dealing::new(self.plan.ring, &self.server, &self.client, lane, chunk);
            gate.deal(&r[range.clone()], &t[values * range.start..values * range.end], &mut dealing);
            chunk = dealing.into_chunk();
        }
        self.hand_on(k, chunk)?;
        Ok(Wire::Shared)
    }

    fn reveal(&mut self, _: usize, _: usize, _: &Wire) -> Result<(), ProtocolError> {
        Ok(())
    }
}

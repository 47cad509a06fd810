//! The dealer: everything the server needs for one inference, from the two parties' seeds and the weight masks' seed.

use privet_plan::{Op, Plan, Step};
use privet_ring::Kernel;
use privet_ring::prg::{Prg, Seed};

use super::Sink;
use super::gate::{Dealing, weight_masks};
use super::schedule::{Schedule, gate, tournament};
use super::sign::Sign;
use super::table::Table;
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
    let mut dealer = Dealer { plan, weights, server: Prg::new(server), client: Prg::new(client), sink };
    walk(plan, schedule, &mut dealer, progress)
}

struct Dealer<'a> {
    plan: &'a Plan,
    weights: &'a Seed,
    server: Prg,
    client: Prg,
    sink: &'a mut dyn Sink,
}

impl Dealer<'_> {
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
        Ok(Wire::Masked(Dealing::new(self.plan.ring, &self.server, &self.client, k).mask_input(elements)))
    }

    fn open(&mut self, k: usize, _: &[&Wire], lens: &[usize]) -> Result<Vec<Wire>, ProtocolError> {
        let mut dealing = Dealing::new(self.plan.ring, &self.server, &self.client, k);
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
        let kernel = Kernel::best(self.plan.ring);
        let gamma = linear::multiply(self.plan, step, kernel, operand.lambda(), &lambda_w);
        let mut dealing = Dealing::new(self.plan.ring, &self.server, &self.client, k);
        dealing.deal_ring(&gamma, self.plan.ring.bits());
        let chunk = dealing.into_chunk();
        self.hand_on(k, chunk)?;
        Ok(Wire::Shared)
    }

    fn add_param(&mut self, _: &Step, _: &Wire) -> Wire {
        Wire::Shared
    }

    fn bilinear(&mut self, k: usize, step: &Step, [x, y]: [&Wire; 2]) -> Result<Wire, ProtocolError> {
        let kernel = Kernel::best(self.plan.ring);
        let gamma = linear::bilinear(self.plan, step, kernel, x.lambda(), y.lambda());
        let mut dealing = Dealing::new(self.plan.ring, &self.server, &self.client, k);
        dealing.deal_ring(&gamma, self.plan.ring.bits());
        let chunk = dealing.into_chunk();
        self.hand_on(k, chunk)?;
        Ok(Wire::Shared)
    }

    fn gate(&mut self, k: usize, index: usize, operands: &[&Wire]) -> Result<Wire, ProtocolError> {
        let operand = operands[0];
        let mut dealing = Dealing::new(self.plan.ring, &self.server, &self.client, k);
        match &self.plan.steps[index].op {
            Op::NonNegative { width } => {
                Sign { width: u32::from(*width) }.deal(operand.lambda(), &mut dealing);
            }
            Op::Select { width } => {
                let sign = Sign { width: u32::from(*width) };
                sign.deal_select(operand.lambda(), operands[1].lambda(), &mut dealing);
            }
            Op::Table { entries } => Table { entries }.deal(operand.lambda(), &mut dealing),
            Op::MaxPool { width, .. } => {
                tournament(self.plan, index).deal(operand.lambda(), u32::from(*width), &mut dealing);
            }
            op => gate(op).expect("a comparison").deal(operand.lambda(), &mut dealing),
        }
        let chunk = dealing.into_chunk();
        self.hand_on(k, chunk)?;
        Ok(Wire::Shared)
    }

    fn reveal(&mut self, _: usize, _: usize, _: &Wire) -> Result<(), ProtocolError> {
        Ok(())
    }
}

//! The dealer's part of an inference that is alike whoever owns inputs and weights: it knows λ of every masked wire, and
//! shares what gates and products need of it.

use privet_plan::{Plan, Step};
use privet_ring::prg::Prg;

use super::gate::{Dealing, Lane, own_masks};
use super::schedule::Schedule;
use super::step::GateStep;
use super::walk::split;
use crate::{ProtocolError, linear};

/// λ of a masked wire; the dealer knows nothing useful about a shared one.
#[derive(Default)]
pub(crate) enum Mask {
    Known(Vec<u64>),
    #[default]
    Shared,
}

impl Mask {
    pub(crate) fn lambda(&self) -> &[u64] {
        match self {
            Mask::Known(lambda) => lambda,
            Mask::Shared => unreachable!("the schedule opens operands first"),
        }
    }
}

/// Masks and correlations of one inference, from the seeds of the two parties that evaluate it.
pub(crate) struct Correlator<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) schedule: &'a Schedule,
    first: Prg,
    second: Prg,
}

impl<'a> Correlator<'a> {
    pub(crate) fn new(plan: &'a Plan, schedule: &'a Schedule, [first, second]: [Prg; 2]) -> Self {
        Self { plan, schedule, first, second }
    }

    /// Of an instruction that is not cut.
    fn dealing(&self, k: usize) -> Dealing<'_> {
        Dealing::new(self.plan.ring, &self.first, &self.second, Lane::only(k), Vec::new())
    }

    /// An input of the second party.
    pub(super) fn input(&self, k: usize, elements: usize) -> Mask {
        Mask::Known(self.dealing(k).mask_input(elements))
    }

    pub(crate) fn open(&self, k: usize, lens: &[usize]) -> Vec<Mask> {
        let lambda = self.dealing(k).mask_ring(lens.iter().sum());
        split(lambda, lens).into_iter().map(Mask::Known).collect()
    }

    /// The two halves of the masks of wires that are opened.
    pub(crate) fn halves(&self, k: usize, lens: &[usize]) -> [Vec<Vec<u64>>; 2] {
        let half = |prg| split(own_masks(prg, k, lens.iter().sum(), self.plan.ring), lens);
        [half(&self.first), half(&self.second)]
    }

    pub(crate) fn public_linear(&self, step: &Step, operands: &[&Mask]) -> Mask {
        if operands.iter().any(|w| matches!(w, Mask::Shared)) {
            return Mask::Shared;
        }
        let lambdas: Vec<&[u64]> = operands.iter().map(|w| w.lambda()).collect();
        let mut lambda = linear::apply(self.plan, step, &lambdas, false);
        self.plan.ring.reduce_all(&mut lambda);
        Mask::Known(lambda)
    }

    /// Shares γ, the product of two masks. Returns what the first party is sent.
    pub(crate) fn product(&self, k: usize, gamma: &[u64]) -> Vec<u8> {
        let mut dealing = self.dealing(k);
        dealing.deal_ring(gamma, self.plan.ring.bits());
        dealing.into_chunk()
    }

    /// A product of two wires. Returns what the first party is sent.
    pub(crate) fn bilinear(&self, k: usize, step: &Step, [x, y]: [&Mask; 2]) -> Vec<u8> {
        let kernel = linear::kernel(self.plan.ring);
        let gamma = linear::bilinear(self.plan, step, kernel, x.lambda(), y.lambda());
        self.product(k, &gamma)
    }

    /// A gate. `lane_done` is given what the first party is sent after each lane, and gives the buffer for the next one,
    /// or hands back what it was given to have it continued.
    pub(crate) fn gate(
        &self,
        k: usize,
        index: usize,
        operands: &[&Mask],
        mut chunk: Vec<u8>,
        mut lane_done: impl FnMut(Vec<u8>) -> Result<Vec<u8>, ProtocolError>,
    ) -> Result<Vec<u8>, ProtocolError> {
        let gate = GateStep::of(self.plan, index).expect("walked as a gate");
        let r = operands[0].lambda();
        let t = operands.get(1).map_or(&[][..], |t| t.lambda());
        let values = t.len() / r.len();
        for (lane, range) in self.schedule.lanes(&gate, r.len()).into_iter().enumerate() {
            let lane = Lane { instruction: k, lane };
            let mut dealing = Dealing::new(self.plan.ring, &self.first, &self.second, lane, chunk);
            gate.deal(&r[range.clone()], &t[values * range.start..values * range.end], &mut dealing);
            chunk = lane_done(dealing.into_chunk())?;
        }
        Ok(chunk)
    }
}

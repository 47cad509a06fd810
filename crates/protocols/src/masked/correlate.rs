//! The dealer's part of an inference that is alike whoever owns inputs and weights: it knows λ of every masked wire, and
//! shares what gates and products need of it.

use privet_plan::{Plan, Step};
use privet_ring::prg::Prg;

use super::gate::{Dealing, Half, Lane, own_masks};
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
    /// Whose half is made.
    wanted: Half,
}

impl<'a> Correlator<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        schedule: &'a Schedule,
        [first, second]: [Prg; 2],
        wanted: Half,
    ) -> Self {
        Self { plan, schedule, first, second, wanted }
    }

    /// Of an instruction that is not cut.
    fn dealing(&self, k: usize) -> Dealing<'_> {
        self.lane(Lane::only(k), Vec::new())
    }

    fn lane(&self, lane: Lane, chunk: Vec<u8>) -> Dealing<'_> {
        self.lane_for(self.wanted, lane, chunk)
    }

    fn lane_for(&self, wanted: Half, lane: Lane, chunk: Vec<u8>) -> Dealing<'_> {
        Dealing::new(self.plan.ring, [&self.first, &self.second], wanted, lane, chunk)
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

    /// Shares γ, the product of two masks. Returns what the party is sent.
    pub(crate) fn product(&self, k: usize, gamma: &[u64]) -> Vec<u8> {
        let mut dealing = self.dealing(k);
        dealing.deal_ring(gamma, self.plan.ring.bits());
        dealing.into_chunk()
    }

    /// A product of two wires. Returns what the party is sent.
    pub(crate) fn bilinear(&self, k: usize, step: &Step, [x, y]: [&Mask; 2]) -> Vec<u8> {
        let kernel = linear::kernel(self.plan.ring);
        let gamma = linear::bilinear(self.plan, step, kernel, x.lambda(), y.lambda());
        self.product(k, &gamma)
    }

    /// A gate. `lane_done` is given what the party is sent after each lane, and gives the buffer for the next one,
    /// or hands back what it was given to have it continued.
    pub(crate) fn gate(
        &self,
        k: usize,
        index: usize,
        operands: &[&Mask],
        mut chunk: Vec<u8>,
        mut lane_done: impl FnMut(Vec<u8>) -> Result<Vec<u8>, ProtocolError>,
    ) -> Result<Vec<u8>, ProtocolError> {
        self.each_lane(index, operands, |gate, lane, r, t| {
            let mut dealing = self.lane(Lane { instruction: k, lane }, std::mem::take(&mut chunk));
            gate.deal(r, t, &mut dealing);
            chunk = lane_done(dealing.into_chunk())?;
            Ok(())
        })?;
        Ok(chunk)
    }

    /// A gate that both parties are sent something for, as they need it: `lane_done` is given what each is sent for a lane before
    /// the next lane is begun.
    pub(crate) fn gate_for_both(
        &self,
        k: usize,
        index: usize,
        operands: &[&Mask],
        mut lane_done: impl FnMut(Half, Vec<u8>) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        self.each_lane(index, operands, |gate, lane, r, t| {
            [Half::First, Half::Second].into_iter().try_for_each(|half| {
                let mut dealing = self.lane_for(half, Lane { instruction: k, lane }, Vec::new());
                gate.deal(r, t, &mut dealing);
                lane_done(half, dealing.into_chunk())
            })
        })
    }

    /// Calls `deal` with a gate, the number of a lane and its operands' masks, for every lane.
    fn each_lane(
        &self,
        index: usize,
        operands: &[&Mask],
        mut deal: impl FnMut(&GateStep, usize, &[u64], &[u64]) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        let gate = self.schedule.gate(self.plan, index).expect("walked as a gate");
        let r = operands[0].lambda();
        let t = operands.get(1).map_or(&[][..], |t| t.lambda());
        let values = t.len() / r.len();
        let lanes = self.schedule.lanes(&gate, r.len()).into_iter().enumerate();
        lanes.into_iter().try_for_each(|(lane, range)| {
            deal(&gate, lane, &r[range.clone()], &t[values * range.start..values * range.end])
        })
    }
}

//! The dealer's part of an inference that is alike whoever owns inputs and weights: it knows λ of every masked wire, and
//! shares what gates and products need of it.

use std::cell::RefCell;

use privet_plan::{Plan, Step};
use privet_ring::prg::Prg;

use super::gate::{Dealing, Half, Lane, own_masks};
use super::lanes::take_turns;
use super::schedule::Schedule;
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

    fn lane<'b>(&'b self, lane: Lane, sink: &'b dyn Fn(Vec<u8>) -> Result<(), ProtocolError>) -> Dealing<'b> {
        Dealing::new(self.plan.ring, [&self.first, &self.second], self.wanted, lane, sink)
    }

    /// Of an instruction that is not cut, and deals nothing.
    fn dealing(&self, k: usize) -> Dealing<'_> {
        self.lane(Lane::only(k), &|_| Ok(()))
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

    /// Shares γ, the product of two masks. `sink` is given what the party is sent.
    pub(crate) fn product(
        &self,
        k: usize,
        gamma: &[u64],
        sink: impl FnMut(Vec<u8>) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        let sink = RefCell::new(sink);
        let sink = |chunk| (sink.borrow_mut())(chunk);
        let mut dealing = self.lane(Lane::only(k), &sink);
        dealing.deal_ring(gamma, self.plan.ring.bits());
        dealing.hand_on()
    }

    /// A product of two wires.
    pub(crate) fn bilinear(
        &self,
        k: usize,
        step: &Step,
        [x, y]: [&Mask; 2],
        sink: impl FnMut(Vec<u8>) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        let kernel = linear::kernel(self.plan.ring);
        let gamma = linear::bilinear(self.plan, step, kernel, x.lambda(), y.lambda());
        self.product(k, &gamma, sink)
    }

    /// A gate. `sink` is given what the party is sent, chunk by chunk.
    pub(crate) fn gate(
        &self,
        k: usize,
        index: usize,
        operands: &[&Mask],
        sink: impl FnMut(Vec<u8>) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        let sink = RefCell::new(sink);
        let sink = |chunk| (sink.borrow_mut())(chunk);
        let gate = self.schedule.gate(self.plan, index).expect("walked as a gate");
        let r = operands[0].lambda();
        let t = operands.get(1).map_or(&[][..], |t| t.lambda());
        let values = t.len() / r.len();
        let lanes = self.schedule.lanes(&gate, r.len()).into_iter().enumerate().map(|(lane, range)| {
            let dealing = self.lane(Lane { instruction: k, lane }, &sink);
            gate.deal(&r[range.clone()], &t[values * range.start..values * range.end], dealing)
        });
        take_turns(lanes).map(|_| ())
    }
}

//! One walk over a schedule, for dealer, preparation and online alike.

use privet_plan::{Op, Plan, Step, WireId};

use super::schedule::{Instruction, Schedule};
use crate::{Progress, ProtocolError, linear};

/// What a walker does at each instruction; `k` numbers instructions and separates pseudorandom streams.
pub(crate) trait Walker {
    /// A wire as this walker holds it. Empty by default, which is what wires nobody reads any more become.
    type Wire: Default;

    fn input(&mut self, k: usize, input: usize, elements: usize) -> Result<Self::Wire, ProtocolError>;
    /// Opens wires of these numbers of elements.
    fn open(
        &mut self,
        k: usize,
        wires: &[&Self::Wire],
        lens: &[usize],
    ) -> Result<Vec<Self::Wire>, ProtocolError>;
    fn public_linear(&mut self, step: &Step, operands: &[&Self::Wire]) -> Self::Wire;
    fn product(&mut self, k: usize, step: &Step, operand: &Self::Wire) -> Result<Self::Wire, ProtocolError>;
    fn add_param(&mut self, step: &Step, operand: &Self::Wire) -> Self::Wire;
    /// A product of two wires.
    fn bilinear(
        &mut self,
        k: usize,
        step: &Step,
        operands: [&Self::Wire; 2],
    ) -> Result<Self::Wire, ProtocolError>;
    /// A comparison, truncation, table or max pool; `index` is the step's.
    fn gate(&mut self, k: usize, index: usize, operands: &[&Self::Wire])
    -> Result<Self::Wire, ProtocolError>;
    fn reveal(&mut self, k: usize, output: usize, wire: &Self::Wire) -> Result<(), ProtocolError>;
}

/// Cuts a vector into pieces of these lengths.
pub(super) fn split(mut all: Vec<u64>, lens: &[usize]) -> Vec<Vec<u64>> {
    let mut pieces: Vec<Vec<u64>> =
        lens.iter().skip(1).rev().map(|&len| all.split_off(all.len() - len)).collect();
    pieces.push(all);
    pieces.reverse();
    pieces
}

/// Drives `walker` through all instructions, dropping wires after their last use.
pub(crate) fn walk<W: Walker>(
    plan: &Plan,
    schedule: &Schedule,
    walker: &mut W,
    progress: &mut dyn Progress,
) -> Result<(), ProtocolError> {
    let last_uses = plan.last_uses();
    let mut wires: Vec<W::Wire> = Vec::new();
    wires.resize_with(plan.steps.len(), Default::default);
    for (k, (instruction, _)) in schedule.instructions.iter().enumerate() {
        progress.step(k, schedule.instructions.len(), schedule.name(plan, k));
        match *instruction {
            Instruction::Open(ref shared) => {
                let held: Vec<&W::Wire> = shared.iter().map(|w| &wires[w.index()]).collect();
                let lens: Vec<usize> = shared.iter().map(|&w| plan.len(w)).collect();
                let opened = walker.open(k, &held, &lens)?;
                shared.iter().zip(opened).for_each(|(w, opened)| wires[w.index()] = opened);
            }
            Instruction::Step(i) => {
                let step = &plan.steps[i];
                let operands: Vec<&W::Wire> = step.inputs.iter().map(|w| &wires[w.index()]).collect();
                wires[i] = match &step.op {
                    Op::Input { input } => walker.input(k, *input as usize, plan.len(WireId(i as u32)))?,
                    Op::AddParam { .. } => walker.add_param(step, operands[0]),
                    op if linear::factor(op).is_some() => walker.product(k, step, operands[0])?,
                    op if linear::is_bilinear(op) => walker.bilinear(k, step, [operands[0], operands[1]])?,
                    op if linear::is_public_linear(op) => walker.public_linear(step, &operands),
                    _ => walker.gate(k, i, &operands)?,
                };
                for dead in &last_uses[i] {
                    wires[dead.index()] = W::Wire::default();
                }
            }
            Instruction::Reveal(output) => {
                walker.reveal(k, output, &wires[plan.outputs[output].wire.index()])?;
            }
        }
    }
    Ok(())
}

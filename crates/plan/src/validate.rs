//! Consistency of a plan, checked before anything runs: plans come from files and peers.

mod op;

use std::collections::HashSet;

use crate::{Keyed, Keys, Op, ParamId, Plan, PlanError, Post, RangeSource, Step};

/// Largest number of elements of one tensor.
pub const MAX_ELEMENTS: usize = 1 << 27;
/// Most operands of one step.
pub const MAX_OPERANDS: usize = 4096;
/// Most rows, and most terms in all rows, of a public map along an axis: what a plan's file can hold.
pub const MAX_TERMS: usize = 1 << 21;
/// Largest magnitude of a coefficient of such a map.
pub const MAX_COEFFICIENT: u64 = 1 << 48;
/// Largest number of elements of all operands, results and parameters together.
const MAX_TOTAL: usize = 1 << 30;
/// Largest number of multiply-accumulates of a plan: some minutes of work.
const MAX_WORK: u128 = 1 << 40;

impl Plan {
    /// Whether every step has the operands, parameters, shape, scale, range and widths that its operation asks for.
    pub fn validate(&self) -> Result<(), PlanError> {
        let invalid = |problem: String| Err(PlanError::Invalid(problem));
        if self.inputs.is_empty() || self.outputs.is_empty() {
            return invalid("a plan needs at least one input and one output".into());
        }
        if u32::from(self.frac_bits) > self.ring.bits() - 3 {
            return invalid(format!(
                "{} fractional bits do not fit a {}-bit ring",
                self.frac_bits,
                self.ring.bits()
            ));
        }
        for (shape, name) in (self.inputs.iter().map(|i| (&i.shape, &i.name)))
            .chain(self.params.iter().map(|p| (&p.shape, &p.name)))
        {
            if let Err(problem) = check_size(shape) {
                return invalid(format!("{name}: {problem}"));
            }
        }
        let compares = |k: &Keyed| self.steps.get(k.step.index()).is_some_and(|step| step.op.compares());
        if !self.fss.is_sorted_by(|a, b| a.step < b.step) || !self.fss.iter().all(compares) {
            return invalid("keys of function secret sharing: expected steps that compare, in order".into());
        }
        let mut names = HashSet::new();
        if let Some(twice) = self.inputs.iter().find(|i| !names.insert(&i.name)) {
            return invalid(format!("two inputs are named {:?}", twice.name));
        }
        names.clear();
        if let Some(twice) = self.outputs.iter().find(|o| !names.insert(&o.name)) {
            return invalid(format!("two outputs are named {:?}", twice.name));
        }
        let mut total: usize = self.params.iter().map(|p| p.shape.iter().product::<usize>()).sum();
        let mut work = 0u128;
        let mut inputs = HashSet::new();
        for (i, step) in self.steps.iter().enumerate() {
            let check = || -> Result<(), String> {
                check_size(&step.shape)?;
                self.check_operands(i, step)?;
                self.check_range(step)?;
                self.check_op(step)
            };
            check().map_err(|problem| PlanError::Step { step: i, name: step.name.clone(), problem })?;
            if let Op::Input { input } = step.op
                && !inputs.insert(input)
            {
                return invalid(format!("input {input} is read twice"));
            }
            let operands: usize = step.inputs.iter().map(|&w| self.len(w)).sum();
            total += operands + step.shape.iter().product::<usize>();
            work += self.work(step);
            if total > MAX_TOTAL || work > MAX_WORK {
                return invalid(format!(
                    "more than {MAX_TOTAL} elements or {MAX_WORK} multiplications in all"
                ));
            }
        }
        let carries = |k: &&Keyed| k.keys == Keys::Products && !self.can_carry_products(k.step.index());
        if let Some(keyed) = self.fss.iter().find(carries) {
            let name = &self.steps[keyed.step.index()].name;
            return invalid(format!("keys of {name}: its products do not fit a key, expected bits"));
        }
        for output in &self.outputs {
            let Some(step) = self.steps.get(output.wire.index()) else {
                return invalid(format!("output {}: no such wire", output.name));
            };
            if let Post::Softmax { axis } | Post::LogSoftmax { axis } = output.post
                && axis as usize >= step.shape.len()
            {
                return invalid(format!(
                    "output {}: softmax along axis {axis} of {:?}",
                    output.name, step.shape
                ));
            }
        }
        Ok(())
    }

    /// Multiplications with weights and of wires, of a validated plan.
    pub fn multiply_accumulates(&self) -> u128 {
        let multiplies = |step: &&Step| {
            matches!(
                step.op,
                Op::Conv { .. } | Op::MatMul { .. } | Op::Scale { .. } | Op::Multiply | Op::BatchMatMul
            )
        };
        self.steps.iter().filter(multiplies).map(|step| self.work(step)).sum()
    }

    /// Work of a validated step: multiply-accumulates, or whatever else it does.
    fn work(&self, step: &Step) -> u128 {
        let elements = step.shape.iter().product::<usize>() as u128;
        let per_row = |id: ParamId, rows: usize| {
            (self.params[id.index()].shape.iter().product::<usize>() / rows) as u128
        };
        match &step.op {
            Op::Conv { weight, .. } => elements * per_row(*weight, step.shape[1]),
            Op::MatMul { weight, .. } => elements * per_row(*weight, step.shape[step.shape.len() - 1]),
            Op::BatchMatMul => elements * *self.shape(step.inputs[0]).last().expect("a matrix") as u128,
            Op::AxisMap { axis, rows, .. } => {
                let taps: usize = rows.iter().map(Vec::len).sum();
                elements / step.shape[*axis as usize] as u128 * taps as u128
            }
            Op::Table { entries } => elements * entries.len() as u128,
            _ => elements,
        }
    }

    fn check_operands(&self, index: usize, step: &Step) -> Result<(), String> {
        let expected = match step.op {
            Op::Input { .. } => 0..=0,
            Op::Combine { .. } | Op::Concat { .. } => 1..=MAX_OPERANDS,
            Op::Multiply | Op::BatchMatMul | Op::Select { .. } => 2..=2,
            _ => 1..=1,
        };
        if !expected.contains(&step.inputs.len()) {
            return Err(format!("{} operands", step.inputs.len()));
        }
        match step.inputs.iter().find(|w| w.index() >= index) {
            Some(wire) => Err(format!("reads wire {} before it is defined", wire.0)),
            None => Ok(()),
        }
    }

    fn check_range(&self, step: &Step) -> Result<(), String> {
        let full = self.ring.bits() - 1;
        let bits = u32::from(step.range.bits);
        if bits < 2 || bits > full {
            return Err(format!("range of {bits} bits, 2 to {full} fit"));
        }
        match step.range.source {
            RangeSource::Calibrated { seen } if seen == 0 || u32::from(seen) > bits => {
                Err(format!("calibration saw {seen} bits, the range has {bits}"))
            }
            _ => Ok(()),
        }
    }
}

fn check_size(shape: &[usize]) -> Result<(), String> {
    match product(shape.iter().copied()) {
        Some(1..=MAX_ELEMENTS) if shape.len() <= 16 => Ok(()),
        _ => Err(format!("shape {shape:?}: 1 to {MAX_ELEMENTS} elements and at most 16 axes are supported")),
    }
}

/// `None` when the product does not fit.
fn product(mut sizes: impl Iterator<Item = usize>) -> Option<usize> {
    sizes.try_fold(1usize, |n, size| n.checked_mul(size))
}

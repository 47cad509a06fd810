//! Which values each wire is safe for, where that comes from, and with it the width of every comparison.
//!
//! Exact truncation needs -2^(l-2) <= x < 2^(l-2) (width l-1), a comparison of two elements one bit more than
//! the elements themselves. Without calibration or a declared range of the inputs every wire gets the widest range its readers
//! allow. Otherwise it gets the narrower of two: what interval arithmetic proves, and the largest magnitude that calibration
//! saw times a margin. Inputs that are m times as large make a product of d wires m^d times as large, so the margin of a
//! wire is raised to its degree in the inputs, up to the fourth. What the plan alone bounds, signs and entries of
//! tables, needs no margin. What a ReLU or a choice may pass on counts as seen: on these inputs it may have passed on nothing.

use crate::interval::{Interval, intervals, signed_bits};
use crate::{Op, Plan, PlanError, Range, RangeSource, Weights, WireId};

/// What is known about the inputs of a plan, and about its wires from running it.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// For every input the range that its owner promises, if any. Its wire is safe for the range rounded outwards to whole
    /// bits, and values outside are refused before an inference.
    pub declared: &'a [Option<Interval>],
    /// Largest magnitude that calibration saw on every wire.
    pub maxima: Option<&'a [u64]>,
    /// Factor over `maxima`, at least 1.
    pub margin: u32,
}

/// A range for every wire about which something is known, independent of the ring.
#[derive(Debug, Clone)]
pub struct Ranges {
    wires: Vec<Option<Range>>,
    maxima: Option<Vec<u64>>,
    /// Factor over the maximum of every wire.
    margins: Vec<u128>,
}

impl Ranges {
    /// Ranges from evidence. Proofs start at the inputs, so they need to know all of them: declared or calibrated.
    pub fn derive(plan: &Plan, weights: &Weights, evidence: &Evidence) -> Self {
        let Evidence { declared, maxima, margin } = *evidence;
        let margin = u128::from(margin.max(1));
        let margins: Vec<u128> =
            degrees(plan).into_iter().map(|degree| margin.saturating_pow(degree)).collect();
        let calibrated = |i: usize| {
            let max = maxima?[i];
            Some(Range {
                bits: needed_bits(max, margins[i]),
                source: RangeSource::Calibrated { seen: bits_of(max) },
            })
        };
        let known = |(i, step): (usize, &crate::Step)| match step.op {
            Op::Input { input } => match declared.get(input as usize).copied().flatten() {
                Some(range) => Some(Range { bits: range.bits().max(2) as u8, source: RangeSource::Proved }),
                None => calibrated(i),
            },
            _ => calibrated(i),
        };
        let mut wires: Vec<Option<Range>> = plan.steps.iter().enumerate().map(known).collect();
        let mut inputs = vec![None; plan.inputs.len()];
        for (step, range) in plan.steps.iter().zip(&wires) {
            if let (Op::Input { input }, Some(range)) = (&step.op, range) {
                inputs[*input as usize] = Some(Interval::of_bits(range.bits));
            }
        }
        if let Some(inputs) = inputs.into_iter().collect::<Option<Vec<_>>>() {
            let proofs = intervals(plan, weights, &inputs);
            for (i, step) in plan.steps.iter().enumerate() {
                let bits = proofs[i].bits().max(2) as u8;
                if let Some((whole, shift)) = chosen_from(plan, step, &proofs)
                    && let (Some(seen), Some(possible)) = (wires[i], wires[whole.index()])
                    && let bits = possible.bits.saturating_sub(shift).max(2)
                    && seen.bits < bits
                {
                    wires[i] = Some(Range { bits, source: seen.source });
                }
                // What calibration did not see of a table or a sign may still come.
                let is_bounded = matches!(step.op, Op::NonNegative { .. } | Op::Table { .. });
                let is_input = matches!(step.op, Op::Input { .. });
                if !is_input && (is_bounded || wires[i].is_none_or(|r| bits <= r.bits)) {
                    wires[i] = Some(Range { bits, source: RangeSource::Proved });
                }
            }
        }
        Self { wires, maxima: maxima.map(<[u64]>::to_vec), margins }
    }

    /// Gives every wire its range and every comparison its width, in the plan's ring. Without calibration, wires of which
    /// too little is known get the full width.
    ///
    /// # Errors
    /// A range does not fit the ring; the message names the layer and the width it needs.
    pub fn assign(&self, plan: &mut Plan) -> Result<(), PlanError> {
        let full = full_width(plan);
        for (i, (range, step)) in self.wires.iter().zip(&mut plan.steps).enumerate() {
            step.range = match *range {
                Some(range) if range.bits <= full => range,
                Some(range) if self.maxima.is_some() || matches!(step.op, Op::Input { .. }) => {
                    let (name, problem) = (step.name.clone(), self.misfit(i, range, plan.ring.bits()));
                    return Err(PlanError::Step { step: i, name, problem });
                }
                _ => Range { bits: full, source: RangeSource::FullWidth },
            };
        }
        for i in 0..plan.steps.len() {
            if !matches!(plan.steps[i].op, Op::MaxPool { .. }) {
                continue;
            }
            let operand = plan.steps[i].inputs[0].index();
            let range = &mut plan.steps[operand].range;
            if range.bits == full && (range.source == RangeSource::FullWidth || self.maxima.is_none()) {
                *range = Range { bits: full - 1, source: RangeSource::FullWidth };
            } else if range.bits >= full {
                let problem =
                    format!("max pooling needs one bit more than its operand: use --ring {}", full + 2);
                return Err(PlanError::Step { step: i, name: plan.steps[i].name.clone(), problem });
            }
        }
        assign_widths(plan);
        Ok(())
    }

    fn misfit(&self, wire: usize, range: Range, ring: u32) -> String {
        let bits = range.bits;
        let why = match self.maxima.as_ref().map(|maxima| maxima[wire]) {
            Some(max) if needed_bits(max, self.margins[wire]) == bits => {
                format!(
                    "calibration needs {bits} bits (largest magnitude {max}, margin {})",
                    self.margins[wire]
                )
            }
            _ => format!("the range of the inputs needs {bits} bits"),
        };
        let advice = match u32::from(bits) + 1 {
            wider @ ..=64 => format!("use --ring {wider} or more, or fewer --frac-bits"),
            _ => "use fewer --frac-bits".to_owned(),
        };
        format!("{why}, a {ring}-bit ring holds {}; {advice}", ring - 1)
    }
}

/// Gives every wire the widest range that its readers can handle, and every comparison the matching width.
pub fn assign_full_width(plan: &mut Plan) {
    let nothing = Ranges { wires: vec![None; plan.steps.len()], maxima: None, margins: Vec::new() };
    nothing.assign(plan).expect("the full width fits");
}

/// Largest width of a wire that is truncated or compared with zero: l - 1.
fn full_width(plan: &Plan) -> u8 {
    plan.ring.bits() as u8 - 1
}

/// Signed width of a magnitude of either sign.
fn bits_of(max: u64) -> u8 {
    (i64::try_from(max).map_or(65, signed_bits)) as u8
}

/// Signed width that holds `max` times `margin`, at least 2.
fn needed_bits(max: u64, margin: u128) -> u8 {
    let most = u128::from(max).saturating_mul(margin);
    (129 - most.leading_zeros()).max(2) as u8
}

/// The operand whose elements a step passes on or replaces by zeros, and how many bits it shifts them. If calibration never
/// saw one passed on, it may still happen, so the result needs the operand's range.
fn chosen_from(plan: &Plan, step: &crate::Step, proofs: &[Interval]) -> Option<(WireId, u8)> {
    let is_bit = |w: WireId| proofs[w.index()].bits() <= 2;
    match (&step.op, &step.inputs[..]) {
        (Op::Select { .. }, &[_, t]) => Some((t, 0)),
        (Op::Multiply, &[a, b]) if is_bit(a) != is_bit(b) => Some((if is_bit(a) { b } else { a }, 0)),
        (Op::Relu { shift, .. }, &[x]) => Some((x, *shift)),
        // Both bounds of a Clip are one comparison; of what lies beyond one of them little may have been seen.
        (Op::Slice { .. } | Op::Reshape, &[x]) if is_rectified(plan, x) => Some((x, 0)),
        _ => None,
    }
}

/// Whether a wire is a part of what a ReLU gives.
fn is_rectified(plan: &Plan, mut wire: WireId) -> bool {
    loop {
        let step = &plan.steps[wire.index()];
        match (&step.op, &step.inputs[..]) {
            (Op::Relu { .. }, _) => return true,
            (Op::Slice { .. } | Op::Reshape, &[x]) => wire = x,
            _ => return false,
        }
    }
}

/// Degree of every wire in the inputs, as far as products of wires make it; at most 4.
fn degrees(plan: &Plan) -> Vec<u32> {
    let mut degrees: Vec<u32> = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        let operands = step.inputs.iter().map(|w| degrees[w.index()]);
        let degree = match step.op {
            // Bounded, whatever it reads; what is made of it changes with the inputs all the same.
            Op::NonNegative { .. } => 0,
            Op::Input { .. } | Op::Table { .. } => 1,
            Op::Multiply | Op::BatchMatMul => operands.sum::<u32>().max(1),
            Op::Select { .. } => degrees[step.inputs[1].index()].max(1),
            _ => operands.max().unwrap_or(0).max(1),
        };
        degrees.push(degree.min(4));
    }
    degrees
}

/// Widths of comparisons follow from the ranges of their operands.
fn assign_widths(plan: &mut Plan) {
    let full = full_width(plan);
    for i in 0..plan.steps.len() {
        let Some(operand) = plan.steps[i].inputs.first().map(|w| w.index()) else { continue };
        let bits = plan.steps[operand].range.bits;
        match &mut plan.steps[i].op {
            // A fused truncation compares above the dropped bits at least.
            Op::Relu { shift, width } => *width = bits.max(*shift + 1).min(full),
            Op::NonNegative { width } | Op::Select { width } => *width = bits,
            Op::MaxPool { width, .. } => *width = (bits + 1).min(full),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InputSpec, OutputSpec, Post, Preprocess, Step};

    /// Calibration saw values of -103 to 20: little above the lower bound of a Clip, nothing above the upper one.
    #[test]
    fn what_a_relu_may_pass_on_counts_as_seen() {
        let step = |op: Op, inputs: &[u32], elements| Step {
            name: "step".to_owned(),
            op,
            inputs: inputs.iter().map(|&w| WireId(w)).collect(),
            shape: vec![elements],
            frac_bits: 4,
            range: Range { bits: 31, source: RangeSource::FullWidth },
        };
        let steps = vec![
            step(Op::Input { input: 0 }, &[], 4),
            step(Op::Combine { coefficients: vec![1], constant: -100 }, &[0], 4),
            step(Op::Concat { axis: 0 }, &[0, 1], 8),
            step(Op::Relu { shift: 2, width: 31 }, &[2], 8),
            step(Op::Slice { starts: vec![4], steps: vec![1] }, &[3], 4),
            step(Op::Reshape, &[4], 4),
        ];
        let plan = Plan {
            model: "test".to_owned(),
            ring: privet_ring::Ring::new(32).unwrap(),
            frac_bits: 4,
            inputs: vec![InputSpec {
                name: "x".to_owned(),
                shape: vec![4],
                preprocess: Preprocess::default(),
            }],
            params: Vec::new(),
            steps,
            outputs: vec![OutputSpec { name: "y".to_owned(), wire: WireId(5), post: Post::None }],
            labels: Vec::new(),
            fss: Vec::new(),
        };
        let maxima = Some(&[103, 203, 203, 5, 0, 0][..]);
        let evidence = Evidence { declared: &[None], maxima, margin: 4 };
        let mut calibrated = plan.clone();
        let weights = Weights { tensors: Vec::new() };
        Ranges::derive(&plan, &weights, &evidence).assign(&mut calibrated).unwrap();
        let bits: Vec<u8> = calibrated.steps.iter().map(|s| s.range.bits).collect();
        assert_eq!(bits[..3], [10, 11, 11]);
        assert_eq!(bits[3..], [8, 8, 8], "not 6, 2 and 2");
    }

    #[test]
    fn needed_bits_cover_both_signs() {
        assert_eq!(needed_bits(0, 4), 2);
        assert_eq!(needed_bits(1, 1), 2);
        assert_eq!(needed_bits(127, 1), 8);
        assert_eq!(needed_bits(128, 1), 9);
        assert_eq!(needed_bits(127, 4), 10);
        assert_eq!(needed_bits(u64::MAX, 4), 67);
        assert_eq!([0, 1, 127, 128, u64::MAX].map(bits_of), [1, 2, 8, 9, 65]);
    }
}

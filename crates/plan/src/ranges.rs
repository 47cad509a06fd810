//! Which values each wire is safe for, and with it the width of every comparison.
//!
//! Exact truncation needs -2^(l-2) <= x < 2^(l-2) (width l-1), a comparison of two elements one bit more than
//! the elements themselves. Without calibration every wire gets the widest range its readers allow.

use crate::{Op, Plan, PlanError, Range, RangeSource};

/// Largest width of a wire that is truncated or compared with zero: l - 1.
fn full_width(plan: &Plan) -> u8 {
    plan.ring.bits() as u8 - 1
}

/// Gives every wire the widest range that its readers can handle, and every comparison the matching width.
pub fn assign_full_width(plan: &mut Plan) {
    let full = full_width(plan);
    for step in &mut plan.steps {
        step.range = Range { bits: full, source: RangeSource::FullWidth };
    }
    for i in 0..plan.steps.len() {
        if matches!(plan.steps[i].op, Op::MaxPool { .. }) {
            let operand = plan.steps[i].inputs[0].index();
            plan.steps[operand].range.bits = full - 1;
        }
    }
    assign_widths(plan);
}

/// Narrows the ranges to what calibration saw: `maxima[i]` is the largest magnitude on wire `i`, `margin` the
/// factor of head room. Errors, naming the layer and the width it needs, when a range does not fit the ring.
pub fn assign_calibrated(plan: &mut Plan, maxima: &[u64], margin: u32) -> Result<(), PlanError> {
    let full = full_width(plan);
    for (i, (&max, step)) in maxima.iter().zip(&mut plan.steps).enumerate() {
        let bits = needed_bits(max, margin);
        if bits > u32::from(full) {
            let problem = format!(
                "calibration needs {bits} bits (largest magnitude {max}, margin {margin}), a {}-bit ring holds {full}; \
                 use --ring {} or fewer --frac-bits",
                plan.ring.bits(),
                bits + 2
            );
            return Err(PlanError::Step { step: i, name: step.name.clone(), problem });
        }
        step.range = Range { bits: bits as u8, source: RangeSource::Calibrated };
    }
    for (i, step) in plan.steps.iter().enumerate() {
        let operand = step.inputs.first().map(|w| w.index());
        if let (Op::MaxPool { .. }, Some(operand)) = (&step.op, operand)
            && plan.steps[operand].range.bits >= full
        {
            let problem = format!("max pooling needs one bit more than its operand: use --ring {}", full + 2);
            return Err(PlanError::Step { step: i, name: step.name.clone(), problem });
        }
    }
    assign_widths(plan);
    Ok(())
}

/// Signed width that holds `max` times `margin`, at least 2.
fn needed_bits(max: u64, margin: u32) -> u32 {
    let head_room = u128::from(max) * u128::from(margin.max(1)) + 1;
    (128 - head_room.leading_zeros() + 1).max(2)
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

    #[test]
    fn needed_bits_cover_both_signs() {
        assert_eq!(needed_bits(0, 4), 2);
        assert_eq!(needed_bits(1, 1), 3);
        assert_eq!(needed_bits(127, 1), 9);
        assert_eq!(needed_bits(126, 1), 8);
        assert_eq!(needed_bits(u64::MAX, 4), 67);
    }
}

//! Whether inputs belong to a plan, for all engines.

use privet_plan::{Op, Plan};

use crate::ProtocolError;

/// Whether there is one vector of the right length for every input.
pub(crate) fn check_lengths(plan: &Plan, inputs: &[Vec<i64>]) -> Result<(), ProtocolError> {
    if inputs.len() != plan.inputs.len() {
        let (expected, found) = (plan.inputs.len(), inputs.len());
        return Err(ProtocolError::Mismatch(format!("expected {expected} inputs, found {found}")));
    }
    for (spec, values) in plan.inputs.iter().zip(inputs) {
        let expected: usize = spec.shape.iter().product();
        if values.len() != expected {
            let (name, found) = (&spec.name, values.len());
            return Err(ProtocolError::Mismatch(format!(
                "input {name}: expected {expected} values, found {found}"
            )));
        }
    }
    Ok(())
}

/// Whether inputs have the plan's shapes and keep to the ranges it declares: on masked values nobody could notice later.
pub fn check_inputs(plan: &Plan, inputs: &[Vec<i64>]) -> Result<(), ProtocolError> {
    check_lengths(plan, inputs)?;
    for step in &plan.steps {
        let Op::Input { input } = step.op else { continue };
        let limit = 1i64 << (step.range.bits - 1);
        if inputs[input as usize].iter().any(|v| !(-limit..limit).contains(v)) {
            let (name, bits) = (&step.name, step.range.bits);
            return Err(ProtocolError::Mismatch(format!(
                "input {name}: a value does not fit its {bits} bits"
            )));
        }
    }
    Ok(())
}

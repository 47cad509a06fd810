//! Consistency of one step with its operands and parameters.

use privet_ring::geometry::Window;

use super::{MAX_COEFFICIENT, MAX_TERMS, product};
use crate::{MAX_ENTRIES, MAX_ENTRIES_WITHOUT_KEYS, Op, ParamId, Plan, Step, Tap};

/// Largest number of elements of a wire that is compared or truncated: its material fits one frame.
const MAX_COMPARED: usize = 1 << 24;
/// Largest number of entries of a table of window positions.
const MAX_TAPS: usize = 1 << 26;
/// Largest number of comparisons of one pooling step, with what they carry along.
const MAX_PLAYERS: usize = 1 << 25;
/// Largest number of elements of a looked up wire, times the entries of the table: without keys, whose material has a bit for
/// each, and with keys.
const MAX_LOOKED_UP: [usize; 2] = [1 << 31, 1 << 33];

impl Plan {
    fn param(&self, id: ParamId) -> Result<(&[usize], u8), String> {
        let spec = self.params.get(id.index()).ok_or_else(|| format!("no parameter {}", id.0))?;
        Ok((&spec.shape, spec.frac_bits))
    }

    pub(super) fn check_op(&self, step: &Step) -> Result<(), String> {
        let operand = |i: usize| &self.steps[step.inputs[i].index()];
        let same_shape = |i: usize| expect_shape(&step.shape, &operand(i).shape);
        let scale = |expected: u32| {
            let found = u32::from(step.frac_bits);
            if found == expected { Ok(()) } else { Err(format!("scale {found}, expected {expected}")) }
        };
        let operand_scale = || u32::from(operand(0).frac_bits);
        let width_ok = |width: u8| {
            let (full, width) = (self.ring.bits() - 1, u32::from(width));
            if width < 2 || width > full { Err(format!("width {width}, 2 to {full} fit")) } else { Ok(()) }
        };
        let sign_width = |width: u8| {
            width_ok(width)?;
            let bits = operand(0).range.bits;
            if width < bits { Err(format!("width {width} for {bits} bits")) } else { Ok(()) }
        };
        let shift_ok = |shift: u8| {
            let (most, shift) = (self.ring.bits() - 2, u32::from(shift));
            if shift > most { Err(format!("shift {shift}, at most {most} fits")) } else { Ok(()) }
        };
        match &step.op {
            Op::Input { input } => {
                let spec = self.inputs.get(*input as usize).ok_or_else(|| format!("no input {input}"))?;
                expect_shape(&step.shape, &spec.shape)?;
                scale(u32::from(self.frac_bits))
            }
            Op::Combine { coefficients, .. } => {
                if coefficients.len() != step.inputs.len() {
                    return Err(format!(
                        "{} coefficients for {} operands",
                        coefficients.len(),
                        step.inputs.len()
                    ));
                }
                (0..step.inputs.len()).try_for_each(same_shape)
            }
            Op::Conv { weight, bias, groups, window } => {
                let (w, w_scale) = self.param(*weight)?;
                let x = &operand(0).shape;
                let groups = *groups as usize;
                if x.len() < 3 || w.len() != x.len() || !window.is_well_formed(x.len() - 2) {
                    return Err(format!(
                        "kernel {w:?} or window {window:?} does not fit an operand of shape {x:?}"
                    ));
                }
                if groups == 0 || w[0] % groups != 0 || w[1] * groups != x[1] {
                    return Err(format!("{groups} groups of kernel {w:?} on {} channels", x[1]));
                }
                if w[2..].iter().zip(&window.kernel).any(|(&a, &b)| a != b as usize) {
                    return Err(format!("kernel {w:?} but window {:?}", window.kernel));
                }
                self.check_bias(*bias, w[0], step.frac_bits)?;
                let spatial =
                    window.output(&x[2..], false).ok_or("the kernel is larger than the padded operand")?;
                check_work(window, &x[2..], &spatial)?;
                let expected: Vec<usize> = [x[0], w[0]].into_iter().chain(spatial).collect();
                expect_shape(&step.shape, &expected)?;
                scale(operand_scale() + u32::from(w_scale))
            }
            Op::MatMul { weight, bias } => {
                let (w, w_scale) = self.param(*weight)?;
                let x = &operand(0).shape;
                if w.len() != 2 || x.is_empty() || x[x.len() - 1] != w[0] {
                    return Err(format!("matrix product of {x:?} and {w:?}"));
                }
                self.check_bias(*bias, w[1], step.frac_bits)?;
                let expected: Vec<usize> = x[..x.len() - 1].iter().copied().chain([w[1]]).collect();
                expect_shape(&step.shape, &expected)?;
                scale(operand_scale() + u32::from(w_scale))
            }
            Op::Scale { factor } => {
                let (w, w_scale) = self.param(*factor)?;
                expect_broadcast(w, &step.shape)?;
                same_shape(0)?;
                scale(operand_scale() + u32::from(w_scale))
            }
            Op::AddParam { param } => {
                let (w, w_scale) = self.param(*param)?;
                expect_broadcast(w, &step.shape)?;
                same_shape(0)?;
                scale(operand_scale())?;
                scale(u32::from(w_scale))
            }
            Op::Multiply => {
                (0..2).try_for_each(same_shape)?;
                scale(operand_scale() + u32::from(operand(1).frac_bits))
            }
            Op::BatchMatMul => {
                let (a, b) = (&operand(0).shape, &operand(1).shape);
                let (([batch_a @ .., m, k], [batch_b @ .., k_b, n]), true) =
                    ((&a[..], &b[..]), a.len() == b.len())
                else {
                    return Err(format!("matrix product of {a:?} and {b:?}"));
                };
                if batch_a != batch_b || k != k_b {
                    return Err(format!("matrix product of {a:?} and {b:?}"));
                }
                expect_shape(&step.shape, &[batch_a, &[*m, *n]].concat())?;
                scale(operand_scale() + u32::from(operand(1).frac_bits))
            }
            Op::AxisMap { axis, rows, coefficient_bits } => {
                let mut expected = operand(0).shape.clone();
                let Some(size) = expected.get_mut(*axis as usize) else {
                    return Err(format!("axis {axis} of {expected:?}"));
                };
                let wild = |tap: &&Tap| {
                    tap.index as usize >= *size || tap.coefficient.unsigned_abs() > MAX_COEFFICIENT
                };
                if let Some(tap) = rows.iter().flatten().find(wild) {
                    return Err(format!("{tap:?} on an axis of {size}"));
                }
                if rows.len().max(rows.iter().map(Vec::len).sum()) > MAX_TERMS {
                    return Err(format!("more than {MAX_TERMS} rows or terms"));
                }
                *size = rows.len();
                expect_shape(&step.shape, &expected)?;
                scale(operand_scale() + u32::from(*coefficient_bits))
            }
            Op::NonNegative { width } => {
                check_compared(&step.shape)?;
                same_shape(0)?;
                sign_width(*width)?;
                scale(0)
            }
            Op::Select { width } => {
                let (x, t) = (&operand(0).shape, &operand(1).shape);
                check_compared(t)?;
                if x != t && (t.is_empty() || t[1..] != x[..]) {
                    return Err(format!("chooses elements of {t:?} by {x:?}"));
                }
                expect_shape(&step.shape, t)?;
                sign_width(*width)?;
                scale(u32::from(operand(1).frac_bits))
            }
            Op::Table { entries } => {
                same_shape(0)?;
                if !entries.len().is_power_of_two() || !(2..=MAX_ENTRIES).contains(&entries.len()) {
                    return Err(format!(
                        "a table of {} entries, 2, 4, .. {MAX_ENTRIES} are supported",
                        entries.len()
                    ));
                }
                check_compared(&step.shape)?;
                if entries.len().ilog2() >= self.ring.bits() {
                    return Err(format!("{} entries in a {}-bit ring", entries.len(), self.ring.bits()));
                }
                let limit = 1i64 << (self.ring.bits() - 2);
                if entries.iter().any(|e| !(-limit..limit).contains(e)) {
                    return Err("an entry of the table does not fit the ring".to_owned());
                }
                if product([entries.len()].into_iter().chain(step.shape.iter().copied()))
                    .is_none_or(|n| n > MAX_LOOKED_UP[usize::from(entries.len() > MAX_ENTRIES_WITHOUT_KEYS)])
                {
                    return Err(format!("a table of {} entries for {:?}", entries.len(), step.shape));
                }
                Ok(())
            }
            Op::AveragePool { window, reciprocal_bits, .. } => {
                check_pool(window, &operand(0).shape, &step.shape)?;
                if *reciprocal_bits == 0 || u32::from(*reciprocal_bits) > self.ring.bits() - 2 {
                    return Err(format!("{reciprocal_bits} bits of reciprocal"));
                }
                scale(operand_scale() + u32::from(*reciprocal_bits))
            }
            Op::MaxPool { window, width } => {
                check_pool(window, &operand(0).shape, &step.shape)?;
                check_tournament(window, &operand(0).shape, &step.shape)?;
                width_ok(*width)?;
                if u32::from(*width) <= u32::from(operand(0).range.bits) {
                    return Err(format!("width {width} does not hold a difference of two operands"));
                }
                scale(operand_scale())
            }
            Op::Trunc { shift } => {
                check_compared(&step.shape)?;
                same_shape(0)?;
                shift_ok(*shift)?;
                if *shift == 0 {
                    return Err("truncates nothing".to_owned());
                }
                scale(operand_scale().checked_sub(u32::from(*shift)).ok_or("truncates below scale 0")?)
            }
            Op::Relu { shift, width } => {
                check_compared(&step.shape)?;
                same_shape(0)?;
                shift_ok(*shift)?;
                width_ok(*width)?;
                if shift >= width || *width < operand(0).range.bits {
                    return Err(format!(
                        "width {width} for shift {shift} and {} bits",
                        operand(0).range.bits
                    ));
                }
                scale(operand_scale().checked_sub(u32::from(*shift)).ok_or("truncates below scale 0")?)
            }
            Op::Reshape => {
                let expected: usize = operand(0).shape.iter().product();
                let found: usize = step.shape.iter().product();
                if expected != found {
                    return Err(format!("reshapes {expected} elements to {:?}", step.shape));
                }
                scale(operand_scale())
            }
            Op::Transpose { perm } => {
                let x = &operand(0).shape;
                let mut sorted = perm.clone();
                sorted.sort_unstable();
                if !sorted.iter().copied().eq(0..x.len() as u32) {
                    return Err(format!("{perm:?} does not permute {} axes", x.len()));
                }
                expect_shape(&step.shape, &perm.iter().map(|&a| x[a as usize]).collect::<Vec<_>>())?;
                scale(operand_scale())
            }
            Op::Slice { starts, steps } => {
                let x = &operand(0).shape;
                if [starts.len(), steps.len(), step.shape.len()].iter().any(|&n| n != x.len()) {
                    return Err(format!("slice of {} axes on {x:?}", starts.len()));
                }
                for axis in 0..x.len() {
                    let last =
                        i64::from(starts[axis]) + (step.shape[axis] as i64 - 1) * i64::from(steps[axis]);
                    if steps[axis] == 0
                        || starts[axis] as usize >= x[axis]
                        || last < 0
                        || last >= x[axis] as i64
                    {
                        return Err(format!("slice leaves axis {axis} of {x:?}"));
                    }
                }
                scale(operand_scale())
            }
            Op::Pad { before } => {
                let x = &operand(0).shape;
                let fits = |a: usize| before[a] as usize + x[a] <= step.shape[a];
                if before.len() != x.len() || step.shape.len() != x.len() || !(0..x.len()).all(fits) {
                    return Err(format!("padding {before:?} of {x:?} does not fit {:?}", step.shape));
                }
                scale(operand_scale())
            }
            Op::Concat { axis } => {
                let mut expected = operand(0).shape.clone();
                let axis = *axis as usize;
                if axis >= expected.len() {
                    return Err(format!("axis {axis} of {expected:?}"));
                }
                expected[axis] = 0;
                for i in 0..step.inputs.len() {
                    let shape = &operand(i).shape;
                    let fits = shape.len() == expected.len()
                        && (0..shape.len()).all(|a| a == axis || shape[a] == expected[a]);
                    if !fits || operand(i).frac_bits != step.frac_bits {
                        return Err(format!("operand {i} of shape {shape:?} does not join {expected:?}"));
                    }
                    expected[axis] += shape[axis];
                }
                expect_shape(&step.shape, &expected)
            }
        }
    }

    fn check_bias(&self, bias: Option<ParamId>, channels: usize, frac_bits: u8) -> Result<(), String> {
        let Some(id) = bias else { return Ok(()) };
        let (shape, scale) = self.param(id)?;
        if shape == [channels] && scale == frac_bits {
            return Ok(());
        }
        Err(format!("bias {shape:?} at scale {scale}, expected [{channels}] at scale {frac_bits}"))
    }
}

fn expect_shape(found: &[usize], expected: &[usize]) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("shape {found:?}, expected {expected:?}")) }
}

/// numpy's rule, one-sided: `from` must broadcast to exactly `to`.
fn expect_broadcast(from: &[usize], to: &[usize]) -> Result<(), String> {
    let fits =
        from.len() <= to.len() && from.iter().rev().zip(to.iter().rev()).all(|(&f, &t)| f == t || f == 1);
    if fits { Ok(()) } else { Err(format!("{from:?} does not broadcast to {to:?}")) }
}

/// Pool shapes, for either rounding of the last window; every window must see at least one element.
fn check_pool(window: &Window, x: &[usize], shape: &[usize]) -> Result<(), String> {
    if x.len() < 3 || !window.is_well_formed(x.len() - 2) {
        return Err(format!("window {window:?} does not fit an operand of shape {x:?}"));
    }
    let fits = |ceil| window.output(&x[2..], ceil).is_some_and(|s| shape[2..] == s);
    if shape.len() != x.len() || shape[..2] != x[..2] || !(fits(false) || fits(true)) {
        return Err(format!("shape {shape:?} from {x:?}"));
    }
    check_work(window, &x[2..], &shape[2..])?;
    for axis in 0..window.axes() {
        if (0..shape[axis + 2]).any(|out| !window.reads_input(axis, out, x[axis + 2])) {
            return Err(format!("a window of axis {axis} sees only padding"));
        }
    }
    Ok(())
}

fn check_compared(shape: &[usize]) -> Result<(), String> {
    let elements: usize = shape.iter().product();
    if elements <= MAX_COMPARED {
        Ok(())
    } else {
        Err(format!("compares {elements} elements, at most {MAX_COMPARED}"))
    }
}

/// Max pooling reduces one axis after the other, the last one first; every pass lists what it compares.
fn check_tournament(window: &Window, input: &[usize], output: &[usize]) -> Result<(), String> {
    let mut passes = (2..input.len()).map(|axis| {
        let sizes = input[..axis].iter().chain(&output[axis..]).copied();
        product(sizes.chain([window.kernel[axis - 2] as usize]))
    });
    let players = passes.try_fold(input.iter().product::<usize>(), |sum, n| sum.checked_add(n?));
    match players {
        Some(..=MAX_PLAYERS) => Ok(()),
        _ => Err(format!("pooling {input:?} by {:?} compares too many elements", window.kernel)),
    }
}

/// Engines tabulate windows; a hostile plan must not make those tables huge.
fn check_work(window: &Window, input: &[usize], output: &[usize]) -> Result<(), String> {
    let kernel = || window.kernel.iter().map(|&k| k as usize);
    let taps = product(output.iter().copied().chain(kernel()));
    let lists = product(input.iter().copied().chain(kernel().max()));
    if [taps, lists].iter().any(|n| n.is_none_or(|n| n > MAX_TAPS)) {
        return Err(format!("window {window:?} over {input:?} is too large"));
    }
    Ok(())
}

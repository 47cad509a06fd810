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
    pub(super) fn check_op(&self, step: &Step) -> Result<(), String> {
        Check { plan: self, step }.op()
    }
}

/// A step, next to what it refers to.
struct Check<'a> {
    plan: &'a Plan,
    step: &'a Step,
}

impl Check<'_> {
    fn op(&self) -> Result<(), String> {
        let Self { plan, step } = *self;
        match &step.op {
            Op::Input { input } => {
                let spec = plan.inputs.get(*input as usize).ok_or_else(|| format!("no input {input}"))?;
                expect_shape(&step.shape, &spec.shape)?;
                self.scale(u32::from(plan.frac_bits))
            }
            Op::Combine { coefficients, .. } => {
                let (found, operands) = (coefficients.len(), step.inputs.len());
                if found != operands {
                    return Err(format!("{found} coefficients for {operands} operands"));
                }
                (0..operands).try_for_each(|i| self.same_shape(i))
            }
            Op::Conv { weight, bias, groups, window } => self.conv(*weight, *bias, *groups as usize, window),
            Op::MatMul { weight, bias } => self.mat_mul(*weight, *bias),
            Op::Scale { factor } => {
                let (w, w_scale) = self.param(*factor)?;
                expect_broadcast(w, &step.shape)?;
                self.same_shape(0)?;
                self.scale(self.operand_scale() + u32::from(w_scale))
            }
            Op::AddParam { param } => {
                let (w, w_scale) = self.param(*param)?;
                expect_broadcast(w, &step.shape)?;
                self.same_shape(0)?;
                self.scale(self.operand_scale())?;
                self.scale(u32::from(w_scale))
            }
            Op::Multiply => {
                (0..2).try_for_each(|i| self.same_shape(i))?;
                self.scale(self.operand_scale() + u32::from(self.operand(1).frac_bits))
            }
            Op::BatchMatMul => self.batch_mat_mul(),
            Op::AxisMap { axis, rows, coefficient_bits } => {
                self.axis_map(*axis as usize, rows, *coefficient_bits)
            }
            Op::NonNegative { width } => {
                check_compared(&step.shape)?;
                self.same_shape(0)?;
                self.sign_width(*width)?;
                self.scale(0)
            }
            Op::Select { width } => {
                let (x, t) = (&self.operand(0).shape, &self.operand(1).shape);
                check_compared(t)?;
                if x != t && (t.is_empty() || t[1..] != x[..]) {
                    return Err(format!("chooses elements of {t:?} by {x:?}"));
                }
                expect_shape(&step.shape, t)?;
                self.sign_width(*width)?;
                self.scale(u32::from(self.operand(1).frac_bits))
            }
            Op::Table { entries } => self.table(entries),
            Op::AveragePool { window, reciprocal_bits, .. } => {
                check_pool(window, &self.operand(0).shape, &step.shape)?;
                if *reciprocal_bits == 0 || u32::from(*reciprocal_bits) > plan.ring.bits() - 2 {
                    return Err(format!("{reciprocal_bits} bits of reciprocal"));
                }
                self.scale(self.operand_scale() + u32::from(*reciprocal_bits))
            }
            Op::MaxPool { window, width } => {
                check_pool(window, &self.operand(0).shape, &step.shape)?;
                check_tournament(window, &self.operand(0).shape, &step.shape)?;
                self.width(*width)?;
                if u32::from(*width) <= u32::from(self.operand(0).range.bits) {
                    return Err(format!("width {width} does not hold a difference of two operands"));
                }
                self.scale(self.operand_scale())
            }
            Op::Trunc { shift } => {
                check_compared(&step.shape)?;
                self.same_shape(0)?;
                self.shift(*shift)?;
                if *shift == 0 {
                    return Err("truncates nothing".to_owned());
                }
                self.truncated_scale(*shift)
            }
            Op::Relu { shift, width } => {
                check_compared(&step.shape)?;
                self.same_shape(0)?;
                self.shift(*shift)?;
                self.width(*width)?;
                let bits = self.operand(0).range.bits;
                if shift >= width || *width < bits {
                    return Err(format!("width {width} for shift {shift} and {bits} bits"));
                }
                self.truncated_scale(*shift)
            }
            Op::Reshape => {
                let expected: usize = self.operand(0).shape.iter().product();
                let found: usize = step.shape.iter().product();
                if expected != found {
                    return Err(format!("reshapes {expected} elements to {:?}", step.shape));
                }
                self.scale(self.operand_scale())
            }
            Op::Transpose { perm } => {
                let x = &self.operand(0).shape;
                let mut sorted = perm.clone();
                sorted.sort_unstable();
                if !sorted.iter().copied().eq(0..x.len() as u32) {
                    return Err(format!("{perm:?} does not permute {} axes", x.len()));
                }
                expect_shape(&step.shape, &perm.iter().map(|&a| x[a as usize]).collect::<Vec<_>>())?;
                self.scale(self.operand_scale())
            }
            Op::Slice { starts, steps } => self.slice(starts, steps),
            Op::Pad { before } => {
                let x = &self.operand(0).shape;
                let fits = |a: usize| before[a] as usize + x[a] <= step.shape[a];
                if before.len() != x.len() || step.shape.len() != x.len() || !(0..x.len()).all(fits) {
                    return Err(format!("padding {before:?} of {x:?} does not fit {:?}", step.shape));
                }
                self.scale(self.operand_scale())
            }
            Op::Concat { axis } => self.concat(*axis as usize),
        }
    }

    fn conv(
        &self,
        weight: ParamId,
        bias: Option<ParamId>,
        groups: usize,
        window: &Window,
    ) -> Result<(), String> {
        let (w, w_scale) = self.param(weight)?;
        let x = &self.operand(0).shape;
        if x.len() < 3 || w.len() != x.len() || !window.is_well_formed(x.len() - 2) {
            return Err(format!("kernel {w:?} or window {window:?} does not fit an operand of shape {x:?}"));
        }
        if groups == 0 || w[0] % groups != 0 || w[1] * groups != x[1] {
            return Err(format!("{groups} groups of kernel {w:?} on {} channels", x[1]));
        }
        if w[2..].iter().zip(&window.kernel).any(|(&a, &b)| a != b as usize) {
            return Err(format!("kernel {w:?} but window {:?}", window.kernel));
        }
        self.bias(bias, w[0])?;
        let spatial = window.output(&x[2..], false).ok_or("the kernel is larger than the padded operand")?;
        check_work(window, &x[2..], &spatial)?;
        let expected: Vec<usize> = [x[0], w[0]].into_iter().chain(spatial).collect();
        expect_shape(&self.step.shape, &expected)?;
        self.scale(self.operand_scale() + u32::from(w_scale))
    }

    fn mat_mul(&self, weight: ParamId, bias: Option<ParamId>) -> Result<(), String> {
        let (w, w_scale) = self.param(weight)?;
        let x = &self.operand(0).shape;
        if w.len() != 2 || x.is_empty() || x[x.len() - 1] != w[0] {
            return Err(format!("matrix product of {x:?} and {w:?}"));
        }
        self.bias(bias, w[1])?;
        let expected: Vec<usize> = x[..x.len() - 1].iter().copied().chain([w[1]]).collect();
        expect_shape(&self.step.shape, &expected)?;
        self.scale(self.operand_scale() + u32::from(w_scale))
    }

    fn batch_mat_mul(&self) -> Result<(), String> {
        let (a, b) = (&self.operand(0).shape, &self.operand(1).shape);
        let (([batch_a @ .., m, k], [batch_b @ .., k_b, n]), true) = ((&a[..], &b[..]), a.len() == b.len())
        else {
            return Err(format!("matrix product of {a:?} and {b:?}"));
        };
        if batch_a != batch_b || k != k_b {
            return Err(format!("matrix product of {a:?} and {b:?}"));
        }
        expect_shape(&self.step.shape, &[batch_a, &[*m, *n]].concat())?;
        self.scale(self.operand_scale() + u32::from(self.operand(1).frac_bits))
    }

    fn axis_map(&self, axis: usize, rows: &[Vec<Tap>], coefficient_bits: u8) -> Result<(), String> {
        let mut expected = self.operand(0).shape.clone();
        let Some(size) = expected.get_mut(axis) else {
            return Err(format!("axis {axis} of {expected:?}"));
        };
        let wild =
            |tap: &&Tap| tap.index as usize >= *size || tap.coefficient.unsigned_abs() > MAX_COEFFICIENT;
        if let Some(tap) = rows.iter().flatten().find(wild) {
            return Err(format!("{tap:?} on an axis of {size}"));
        }
        if rows.len().max(rows.iter().map(Vec::len).sum()) > MAX_TERMS {
            return Err(format!("more than {MAX_TERMS} rows or terms"));
        }
        *size = rows.len();
        expect_shape(&self.step.shape, &expected)?;
        self.scale(self.operand_scale() + u32::from(coefficient_bits))
    }

    fn table(&self, entries: &[i64]) -> Result<(), String> {
        let (shape, bits, count) = (&self.step.shape, self.plan.ring.bits(), entries.len());
        self.same_shape(0)?;
        if !count.is_power_of_two() || !(2..=MAX_ENTRIES).contains(&count) {
            return Err(format!("a table of {count} entries, 2, 4, .. {MAX_ENTRIES} are supported"));
        }
        check_compared(shape)?;
        if count.ilog2() >= bits {
            return Err(format!("{count} entries in a {bits}-bit ring"));
        }
        let limit = 1i64 << (bits - 2);
        if entries.iter().any(|e| !(-limit..limit).contains(e)) {
            return Err("an entry of the table does not fit the ring".to_owned());
        }
        let most = MAX_LOOKED_UP[usize::from(count > MAX_ENTRIES_WITHOUT_KEYS)];
        if product([count].into_iter().chain(shape.iter().copied())).is_none_or(|n| n > most) {
            return Err(format!("a table of {count} entries for {shape:?}"));
        }
        Ok(())
    }

    fn slice(&self, starts: &[u32], steps: &[i32]) -> Result<(), String> {
        let (x, shape) = (&self.operand(0).shape, &self.step.shape);
        if [starts.len(), steps.len(), shape.len()].iter().any(|&n| n != x.len()) {
            return Err(format!("slice of {} axes on {x:?}", starts.len()));
        }
        for axis in 0..x.len() {
            let last = i64::from(starts[axis]) + (shape[axis] as i64 - 1) * i64::from(steps[axis]);
            if steps[axis] == 0 || starts[axis] as usize >= x[axis] || last < 0 || last >= x[axis] as i64 {
                return Err(format!("slice leaves axis {axis} of {x:?}"));
            }
        }
        self.scale(self.operand_scale())
    }

    fn concat(&self, axis: usize) -> Result<(), String> {
        let mut expected = self.operand(0).shape.clone();
        if axis >= expected.len() {
            return Err(format!("axis {axis} of {expected:?}"));
        }
        expected[axis] = 0;
        for i in 0..self.step.inputs.len() {
            let operand = self.operand(i);
            let shape = &operand.shape;
            let fits = shape.len() == expected.len()
                && (0..shape.len()).all(|a| a == axis || shape[a] == expected[a]);
            if !fits || operand.frac_bits != self.step.frac_bits {
                return Err(format!("operand {i} of shape {shape:?} does not join {expected:?}"));
            }
            expected[axis] += shape[axis];
        }
        expect_shape(&self.step.shape, &expected)
    }

    fn operand(&self, i: usize) -> &Step {
        &self.plan.steps[self.step.inputs[i].index()]
    }

    fn operand_scale(&self) -> u32 {
        u32::from(self.operand(0).frac_bits)
    }

    fn param(&self, id: ParamId) -> Result<(&[usize], u8), String> {
        let spec = self.plan.params.get(id.index()).ok_or_else(|| format!("no parameter {}", id.0))?;
        Ok((&spec.shape, spec.frac_bits))
    }

    fn bias(&self, bias: Option<ParamId>, channels: usize) -> Result<(), String> {
        let Some(id) = bias else { return Ok(()) };
        let ((shape, scale), expected) = (self.param(id)?, self.step.frac_bits);
        if shape == [channels] && scale == expected {
            return Ok(());
        }
        Err(format!("bias {shape:?} at scale {scale}, expected [{channels}] at scale {expected}"))
    }

    fn same_shape(&self, i: usize) -> Result<(), String> {
        expect_shape(&self.step.shape, &self.operand(i).shape)
    }

    fn scale(&self, expected: u32) -> Result<(), String> {
        let found = u32::from(self.step.frac_bits);
        if found == expected { Ok(()) } else { Err(format!("scale {found}, expected {expected}")) }
    }

    fn truncated_scale(&self, shift: u8) -> Result<(), String> {
        self.scale(self.operand_scale().checked_sub(u32::from(shift)).ok_or("truncates below scale 0")?)
    }

    fn width(&self, width: u8) -> Result<(), String> {
        let (full, width) = (self.plan.ring.bits() - 1, u32::from(width));
        if width < 2 || width > full { Err(format!("width {width}, 2 to {full} fit")) } else { Ok(()) }
    }

    fn sign_width(&self, width: u8) -> Result<(), String> {
        self.width(width)?;
        let bits = self.operand(0).range.bits;
        if width < bits { Err(format!("width {width} for {bits} bits")) } else { Ok(()) }
    }

    fn shift(&self, shift: u8) -> Result<(), String> {
        let (most, shift) = (self.plan.ring.bits() - 2, u32::from(shift));
        if shift > most { Err(format!("shift {shift}, at most {most} fits")) } else { Ok(()) }
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

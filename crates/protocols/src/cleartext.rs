//! The reference: a plan as a program on plain integers.
//!
//! Every value is computed exactly (or refused) and must stay in the range its wire declares, so that engines on
//! Z_2^l agree with it bit for bit.

use privet_plan::{Op, Plan, Step, Weights};
use privet_ring::{Kernel, Ring};

use crate::inputs::check_lengths;
use crate::{Overflow, Progress, ProtocolError, linear};

/// Runs `plan` on `inputs` (fixed-point integers, one vector per plan input). Returns one vector per plan output.
pub fn run(
    plan: &Plan,
    weights: &Weights,
    inputs: &[Vec<i64>],
    progress: &mut dyn Progress,
) -> Result<Vec<Vec<i64>>, ProtocolError> {
    run_observed(plan, weights, inputs, progress, |_, _| ())
}

/// Like [`run`], but calls `observe(step index, values)` on every wire; calibration looks at magnitudes this way.
pub fn run_observed(
    plan: &Plan,
    weights: &Weights,
    inputs: &[Vec<i64>],
    progress: &mut dyn Progress,
    mut observe: impl FnMut(usize, &[i64]),
) -> Result<Vec<Vec<i64>>, ProtocolError> {
    check_lengths(plan, inputs)?;
    let last_uses = plan.last_uses();
    let mut wires: Vec<Vec<i64>> = vec![Vec::new(); plan.steps.len()];
    for (i, step) in plan.steps.iter().enumerate() {
        progress.step(i, plan.steps.len(), &step.name);
        let operands: Vec<&[i64]> = step.inputs.iter().map(|w| wires[w.index()].as_slice()).collect();
        let context = Context { plan, weights, step, index: i };
        let result = match &step.op {
            Op::Input { input } => context.narrow(inputs[*input as usize].iter().map(|&v| i128::from(v)))?,
            op => context.evaluate(op, &operands)?,
        };
        observe(i, &result);
        wires[i] = result;
        for dead in &last_uses[i] {
            wires[dead.index()] = Vec::new();
        }
    }
    Ok(plan.outputs.iter().map(|o| wires[o.wire.index()].clone()).collect())
}

/// Products modulo 2^64 whatever the plan's ring is: these values are integers, not ring elements.
fn full_width() -> Kernel {
    linear::kernel(Ring::new(Ring::MAX_BITS).expect("the widest ring is one"))
}

struct Context<'a> {
    plan: &'a Plan,
    weights: &'a Weights,
    step: &'a Step,
    index: usize,
}

impl Context<'_> {
    fn evaluate(&self, op: &Op, operands: &[&[i64]]) -> Result<Vec<i64>, ProtocolError> {
        match op {
            Op::Input { .. } => unreachable!("inputs are read by the caller"),
            Op::Conv { .. } | Op::MatMul { .. } | Op::Scale { .. } => self.product(operands[0]),
            Op::AddParam { param } => {
                let mut z: Vec<i128> = operands[0].iter().map(|&v| i128::from(v)).collect();
                self.add_param(&mut z, &self.weights.tensors[param.index()]);
                self.narrow(z)
            }
            Op::Combine { coefficients, constant } => {
                let sum = |i: usize| -> i128 {
                    let terms = coefficients.iter().zip(operands);
                    let products = terms.map(|(&k, x)| i128::from(k) * i128::from(x[i]));
                    products.fold(i128::from(*constant), i128::saturating_add)
                };
                self.narrow((0..operands[0].len()).map(sum))
            }
            Op::Multiply => {
                let product = |(&a, &b): (&i64, &i64)| i128::from(a) * i128::from(b);
                self.narrow(operands[0].iter().zip(operands[1]).map(product))
            }
            Op::BatchMatMul => self.batch_product(operands[0], operands[1]),
            Op::AxisMap { .. } => {
                let add = |sum: i128, k: i64, v: i64| sum.saturating_add(i128::from(k) * i128::from(v));
                self.narrow(linear::axis_map(self.plan, self.step, operands[0], add))
            }
            Op::NonNegative { .. } => self.narrow(operands[0].iter().map(|&v| i128::from(v >= 0))),
            Op::Select { .. } => {
                let chosen = |(&t, &x): (&i64, &i64)| if x >= 0 { i128::from(t) } else { 0 };
                self.narrow(operands[1].iter().zip(operands[0].iter().cycle()).map(chosen))
            }
            Op::Table { entries } => {
                let outside = operands[0].iter().find(|&&v| !(0..entries.len() as i64).contains(&v));
                if let Some(&v) = outside {
                    let bits = entries.len().trailing_zeros() + 1;
                    let advice = "the operand of a table must be from 0 to the last entry";
                    return Err(Overflow { bits, advice, ..self.overflow(i128::from(v)) }.into());
                }
                self.narrow(operands[0].iter().map(|&v| i128::from(entries[v as usize])))
            }
            Op::AveragePool { window, .. } => {
                let wide: Vec<i128> = operands[0].iter().map(|&v| i128::from(v)).collect();
                let factors = linear::reciprocals(self.plan, self.step);
                let sums = linear::pool(self.plan, self.step, window, &wide, |sum, v| sum + v);
                self.narrow(sums.zip(factors.iter().cycle()).map(|(sum, &f)| sum * i128::from(f)))
            }
            Op::Trunc { shift } => self.narrow(operands[0].iter().map(|&v| i128::from(v >> shift))),
            Op::Relu { shift, .. } => self.narrow(operands[0].iter().map(|&v| i128::from(v.max(0) >> shift))),
            Op::MaxPool { window, .. } => {
                let present: Vec<Option<i64>> = operands[0].iter().map(|&v| Some(v)).collect();
                let maxima = linear::pool(self.plan, self.step, window, &present, Ord::max);
                self.narrow(maxima.map(|v| i128::from(v.expect("validated: no window sees only padding"))))
            }
            Op::Reshape | Op::Transpose { .. } | Op::Slice { .. } | Op::Pad { .. } | Op::Concat { .. } => {
                let moved = linear::movement(self.plan, self.step, operands);
                self.narrow(moved.into_iter().map(i128::from))
            }
        }
    }

    /// Operand times private tensor plus bias, exactly.
    fn product(&self, x: &[i64]) -> Result<Vec<i64>, ProtocolError> {
        let factor = linear::factor(&self.step.op).expect("called on products only");
        let w = &self.weights.tensors[factor.index()];
        let mut z = self.exact_product(x, w);
        if let Some(bias) = linear::addend(&self.step.op) {
            self.add_param(&mut z, &self.weights.tensors[bias.index()]);
        }
        self.narrow(z)
    }

    /// The kernels work modulo 2^64, which is exact while Σ|w|·max|x| < 2^63. Otherwise the wider of the two is cut into
    /// halves, until it is. Sums beyond 128 bits saturate, and are trapped with everything else that does not fit.
    fn exact_product(&self, x: &[i64], w: &[i64]) -> Vec<i128> {
        let largest = |values: &[i64]| values.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0);
        let (largest_x, largest_w) = (largest(x), largest(w));
        if u128::from(largest_x) * self.largest_row_norm(w) < 1 << 63 {
            let lanes = |values: &[i64]| -> Vec<u64> { values.iter().map(|&v| v as u64).collect() };
            let z = linear::multiply(self.plan, self.step, full_width(), &lanes(x), &lanes(w));
            return z.into_iter().map(|v| i128::from(v as i64)).collect();
        }
        let half = (64 - largest_x.max(largest_w).leading_zeros()) / 2;
        let low = |values: &[i64]| -> Vec<i64> { values.iter().map(|v| v & ((1 << half) - 1)).collect() };
        let high = |values: &[i64]| -> Vec<i64> { values.iter().map(|v| v >> half).collect() };
        let (low, high) = if largest_x >= largest_w {
            (self.exact_product(&low(x), w), self.exact_product(&high(x), w))
        } else {
            (self.exact_product(x, &low(w)), self.exact_product(x, &high(w)))
        };
        low.iter().zip(&high).map(|(l, h)| l.saturating_add(h.saturating_mul(1 << half))).collect()
    }

    /// Products of two wires' matrices, exactly: modulo 2^64 where no sum can reach 2^63, else term by term.
    fn batch_product(&self, x: &[i64], y: &[i64]) -> Result<Vec<i64>, ProtocolError> {
        let [.., m, k] = *self.plan.shape(self.step.inputs[0]) else { unreachable!("validated: a matrix") };
        let n = self.step.shape[self.step.shape.len() - 1];
        let largest = |v: &[i64]| v.iter().map(|v| u128::from(v.unsigned_abs())).max().unwrap_or(0);
        if largest(x) * largest(y) < (1 << 63) / k as u128 {
            let lanes = |values: &[i64]| -> Vec<u64> { values.iter().map(|&v| v as u64).collect() };
            let z = linear::bilinear(self.plan, self.step, full_width(), &lanes(x), &lanes(y));
            return self.narrow(z.into_iter().map(|v| i128::from(v as i64)));
        }
        let product = |i: usize| -> i128 {
            let (batch, row, column) = (i / (m * n), i / n % m, i % n);
            let (x, y) = (&x[(batch * m + row) * k..][..k], &y[batch * k * n..]);
            let products = (0..k).map(|j| i128::from(x[j]) * i128::from(y[j * n + column]));
            products.fold(0, i128::saturating_add)
        };
        self.narrow((0..self.step.shape.iter().product()).map(product))
    }

    /// Largest sum of magnitudes of the factors that one result may collect.
    fn largest_row_norm(&self, w: &[i64]) -> u128 {
        let norm =
            |row: &mut dyn Iterator<Item = &i64>| row.map(|v| u128::from(v.unsigned_abs())).sum::<u128>();
        match &self.step.op {
            Op::Conv { .. } => {
                w.chunks(w.len() / self.step.shape[1]).map(|r| norm(&mut r.iter())).max().unwrap_or(0)
            }
            Op::MatMul { .. } => {
                let columns = self.step.shape[self.step.shape.len() - 1];
                (0..columns).map(|j| norm(&mut w.iter().skip(j).step_by(columns))).max().unwrap_or(0)
            }
            _ => w.iter().map(|v| u128::from(v.unsigned_abs())).max().unwrap_or(0),
        }
    }

    fn add_param(&self, z: &mut [i128], values: &[i64]) {
        linear::for_each_addend(self.plan, self.step, |i, at| z[i] += i128::from(values[at]));
    }

    /// Checks the wire's range.
    fn narrow(&self, values: impl IntoIterator<Item = i128>) -> Result<Vec<i64>, ProtocolError> {
        let limit = 1i128 << (self.step.range.bits - 1);
        let fit =
            |v: i128| if (-limit..limit).contains(&v) { Ok(v as i64) } else { Err(self.overflow(v).into()) };
        values.into_iter().map(fit).collect()
    }

    fn overflow(&self, value: i128) -> Overflow {
        let magnitude = if value < 0 { !value } else { value };
        Overflow {
            step: self.index,
            name: self.step.name.clone(),
            value,
            needed: 129 - magnitude.leading_zeros(),
            bits: u32::from(self.step.range.bits),
            advice: "check that the input is in the range the model expects, then use calibration inputs that cover this input, a larger --margin, a wider --ring (at most 64) or fewer --frac-bits",
        }
    }
}

//! Interval arithmetic: which values the wires of a plan can take, given the range of every input.
//!
//! One interval per wire, closed on both sides. Linear layers are bounded per output channel: with a weight w, an operand in
//! [low, high] contributes w·low to w·high or the other way round. Bounds beyond 64 bits are cut to 64 bits, which loses
//! nothing: a value that no ring holds is trapped by the reference, and all other wires follow from values that are held.

use crate::{Op, Plan, Step, Weights, WireId};

/// All integers from `low` to `high`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// The smallest.
    pub low: i64,
    /// The largest, not below `low`.
    pub high: i64,
}

impl Interval {
    /// Every 64-bit integer: nothing is known.
    pub const EVERYTHING: Self = Self { low: i64::MIN, high: i64::MAX };
    const ZERO: Self = Self { low: 0, high: 0 };
    const BIT: Self = Self { low: 0, high: 1 };

    /// The integers of a signed width, from 1 to 64 bits.
    pub fn of_bits(bits: u8) -> Self {
        let high = i64::MAX >> (64 - u32::from(bits.clamp(1, 64)));
        Self { low: -high - 1, high }
    }

    /// Signed width that holds the interval, at least 1.
    pub fn bits(self) -> u32 {
        signed_bits(self.low).max(signed_bits(self.high))
    }

    /// Whether a value lies inside.
    pub fn contains(self, value: i64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// The smallest interval around both.
    fn join(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    /// What both allow. Both have to be true of the same values.
    fn meet(self, other: Self) -> Self {
        let (low, high) = (self.low.max(other.low), self.high.min(other.high));
        if low <= high { Self { low, high } } else { other }
    }

    fn shifted_right(self, shift: u8) -> Self {
        Self { low: self.low >> shift, high: self.high >> shift }
    }

    /// `max(x, 0)`.
    fn rectified(self) -> Self {
        Self { low: self.low.max(0), high: self.high.max(0) }
    }

    /// `k` times the interval.
    fn times(self, k: i64) -> Wide {
        let (a, b) = (i128::from(k) * i128::from(self.low), i128::from(k) * i128::from(self.high));
        Wide { low: a.min(b), high: a.max(b) }
    }

    /// Products of an element of each.
    fn product(self, other: Self) -> Wide {
        let (a, b) = (self.times(other.low), self.times(other.high));
        Wide { low: a.low.min(b.low), high: a.high.max(b.high) }
    }
}

/// Signed width of one value.
pub(crate) fn signed_bits(value: i64) -> u32 {
    65 - (if value < 0 { !value } else { value }).leading_zeros()
}

/// An interval on its way; sums that leave 128 bits are `None`.
#[derive(Debug, Clone, Copy)]
struct Wide {
    low: i128,
    high: i128,
}

impl Wide {
    const ZERO: Self = Self { low: 0, high: 0 };

    fn plus(self, other: Self) -> Option<Self> {
        Some(Self { low: self.low.checked_add(other.low)?, high: self.high.checked_add(other.high)? })
    }

    fn plus_constant(self, value: i64) -> Option<Self> {
        self.plus(Self { low: value.into(), high: value.into() })
    }

    fn scaled(self, factor: usize) -> Option<Self> {
        let factor = factor as i128;
        Some(Self { low: self.low.checked_mul(factor)?, high: self.high.checked_mul(factor)? })
    }

    fn cut(self) -> Interval {
        let cut = |v: i128| v.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Interval { low: cut(self.low), high: cut(self.high) }
    }
}

/// An interval for every wire of a validated plan: no value leaves it while the inputs keep to theirs, one for each of
/// `Plan::inputs`, and no wire leaves 64 bits.
pub fn intervals(plan: &Plan, weights: &Weights, inputs: &[Interval]) -> Vec<Interval> {
    let mut wires: Vec<Interval> = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        let context = Context { plan, weights, step, wires: &wires };
        let interval = match &step.op {
            Op::Input { input } => inputs[*input as usize],
            op => context.bound(op).unwrap_or(Interval::EVERYTHING),
        };
        wires.push(interval);
    }
    wires
}

struct Context<'a> {
    plan: &'a Plan,
    weights: &'a Weights,
    step: &'a Step,
    wires: &'a [Interval],
}

impl Context<'_> {
    fn operand(&self, i: usize) -> Interval {
        self.wires[self.step.inputs[i].index()]
    }

    fn bound(&self, op: &Op) -> Option<Interval> {
        let x = self.operand(0);
        Some(match op {
            Op::Input { .. } => unreachable!("inputs are read by the caller"),
            Op::Combine { coefficients, constant } => self.combine(coefficients, *constant)?,
            Op::Conv { weight, bias, window, .. } => {
                let is_padded = window.pad_begin.iter().chain(&window.pad_end).any(|&p| p > 0);
                let x = if is_padded { x.join(Interval::ZERO) } else { x };
                let (w, channels) = (&self.weights.tensors[weight.index()], self.step.shape[1]);
                let rows = w.chunks_exact(w.len() / channels).map(|row| row.iter().copied());
                self.rows(rows, x, bias.map(|b| &self.weights.tensors[b.index()][..]))?
            }
            Op::MatMul { weight, bias } => {
                let w = &self.weights.tensors[weight.index()];
                let columns = self.step.shape[self.step.shape.len() - 1];
                let rows = (0..columns).map(|j| w.iter().skip(j).step_by(columns).copied());
                self.rows(rows, x, bias.map(|b| &self.weights.tensors[b.index()][..]))?
            }
            Op::Scale { factor } => {
                let rows = self.weights.tensors[factor.index()].iter().map(|&w| std::iter::once(w));
                self.rows(rows, x, None)?
            }
            Op::AddParam { param } => {
                let values = &self.weights.tensors[param.index()];
                let low =
                    Wide { low: x.low.into(), high: x.low.into() }.plus_constant(*values.iter().min()?)?;
                let high =
                    Wide { low: x.high.into(), high: x.high.into() }.plus_constant(*values.iter().max()?)?;
                Wide { low: low.low, high: high.high }.cut()
            }
            // A square is no product of two independent values.
            Op::Multiply if self.step.inputs[0] == self.step.inputs[1] => {
                let square = x.product(x);
                let ends = [x.low, x.high].map(|v| i128::from(v) * i128::from(v));
                let low = if x.contains(0) { 0 } else { ends[0].min(ends[1]) };
                Wide { low, high: square.high }.cut()
            }
            Op::Multiply => x.product(self.operand(1)).cut(),
            Op::BatchMatMul => {
                let inner = *self.plan.shape(self.step.inputs[0]).last()?;
                x.product(self.operand(1)).scaled(inner)?.cut()
            }
            Op::AxisMap { rows, .. } => {
                let rows = rows.iter().map(|row| row.iter().map(|tap| tap.coefficient));
                self.rows(rows, x, None)?
            }
            Op::AveragePool { window, reciprocal_bits, .. } => {
                // A window of n elements times round(2^r / count), n <= count <= kernel: between 0 and 2^r + kernel/2.
                let total = (1i128 << reciprocal_bits) + window.kernel_len().div_ceil(2) as i128;
                let total = i64::try_from(total).ok()?;
                x.times(total).cut().join(Interval::ZERO)
            }
            Op::Trunc { shift } => x.shifted_right(*shift),
            Op::Relu { shift, .. } => x.rectified().shifted_right(*shift),
            Op::NonNegative { .. } if x.low >= 0 => Interval { low: 1, high: 1 },
            Op::NonNegative { .. } if x.high < 0 => Interval::ZERO,
            Op::NonNegative { .. } => Interval::BIT,
            Op::Select { .. } if x.low >= 0 => self.operand(1),
            Op::Select { .. } if x.high < 0 => Interval::ZERO,
            Op::Select { .. } => self.operand(1).join(Interval::ZERO),
            Op::Table { entries } => {
                let last = entries.len() as i64 - 1;
                let reach = x.low.clamp(0, last) as usize..=x.high.clamp(0, last) as usize;
                let entries = &entries[reach];
                Interval { low: *entries.iter().min()?, high: *entries.iter().max()? }
            }
            Op::MaxPool { .. } | Op::Reshape | Op::Transpose { .. } | Op::Slice { .. } => x,
            Op::Pad { .. } => x.join(Interval::ZERO),
            Op::Concat { .. } => {
                (0..self.step.inputs.len()).map(|i| self.operand(i)).reduce(Interval::join)?
            }
        })
    }

    /// Around all rows' sums of factors times an element of `x`, plus the row's bias.
    fn rows(
        &self,
        rows: impl Iterator<Item = impl Iterator<Item = i64>>,
        x: Interval,
        bias: Option<&[i64]>,
    ) -> Option<Interval> {
        let mut around: Option<Interval> = None;
        for (i, mut row) in rows.enumerate() {
            let sum = row.try_fold(Wide::ZERO, |sum, w| sum.plus(x.times(w)))?;
            let sum = sum.plus_constant(bias.map_or(0, |b| b[i]))?.cut();
            around = Some(around.map_or(sum, |a| a.join(sum)));
        }
        around
    }

    fn combine(&self, coefficients: &[i64], constant: i64) -> Option<Interval> {
        let mut terms = coefficients.iter().enumerate();
        let sum = terms.try_fold(Wide::ZERO, |sum, (i, &k)| sum.plus(self.operand(i).times(k)))?;
        let plain = sum.plus_constant(constant)?.cut();
        let clipped = if *coefficients == [1, -1] { self.clipped() } else { None };
        Some(match clipped {
            Some(clipped) => plain.meet(clipped.plus_constant(constant)?.cut()),
            None => plain,
        })
    }

    /// Bounds of the first operand minus the second where together they clip one value x. The two are far from
    /// independent; with `r_b = floor(max(x - b, 0) / 2^s)` and because floor(u + v) <= floor(u) + ceil(v),
    ///
    /// - `r_a - r_b` with a <= b lies between 0 and ceil((b - a) / 2^s);
    /// - `floor(x / 2^s) - r_b` lies between floor(min(x, b) / 2^s) and ceil(b / 2^s).
    fn clipped(&self) -> Option<Wide> {
        let [first, second] = self.step.inputs[..] else { return None };
        let upper = self.excess(second)?;
        let ceil = |v: i128| -((-v) >> upper.shift);
        if let Some(lower) = self.excess(first)
            && (lower.wire, lower.shift) == (upper.wire, upper.shift)
            && lower.bound <= upper.bound
        {
            return Some(Wide { low: 0, high: ceil(upper.bound - lower.bound) });
        }
        let (wire, shift) = match self.plan.steps[first.index()].op {
            Op::Trunc { shift } => (self.plan.steps[first.index()].inputs[0], shift),
            _ => (first, 0),
        };
        let low = i128::from(self.wires[upper.wire.index()].low).min(upper.bound) >> upper.shift;
        (wire == upper.wire && shift == upper.shift).then(|| Wide { low, high: ceil(upper.bound) })
    }

    /// `wire` as `floor(max(x - bound, 0) / 2^shift)`.
    fn excess(&self, wire: WireId) -> Option<Excess> {
        let step = &self.plan.steps[wire.index()];
        let Op::Relu { shift, .. } = step.op else { return None };
        let operand = step.inputs[0];
        let moved = &self.plan.steps[operand.index()];
        Some(match &moved.op {
            Op::Combine { coefficients, constant } if *coefficients == [1] => {
                Excess { wire: moved.inputs[0], bound: -i128::from(*constant), shift }
            }
            _ => Excess { wire: operand, bound: 0, shift },
        })
    }
}

/// See [`Context::excess`].
struct Excess {
    wire: WireId,
    bound: i128,
    shift: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(interval: Interval) -> impl Iterator<Item = i64> + Clone {
        interval.low..=interval.high
    }

    /// The smallest interval around some values.
    fn around(values: impl Iterator<Item = i64> + Clone) -> Interval {
        Interval { low: values.clone().min().unwrap(), high: values.max().unwrap() }
    }

    #[test]
    fn widths_hold_both_ends_and_no_more() {
        let cases = [(0, 0, 1), (-1, 0, 1), (0, 1, 2), (-2, 1, 2), (-3, 0, 3), (0, 127, 8), (-129, 5, 9)];
        for (low, high, bits) in cases {
            assert_eq!(Interval { low, high }.bits(), bits, "{low}..{high}");
        }
        assert_eq!(Interval::EVERYTHING.bits(), 64);
        for bits in 1..=64 {
            assert_eq!(Interval::of_bits(bits).bits(), u32::from(bits));
        }
        assert_eq!(Interval::of_bits(3), Interval { low: -4, high: 3 });
    }

    /// Products, shifts and rectification are as tight as can be, for all small intervals.
    #[test]
    fn elementary_bounds_are_exact() {
        let all: Vec<Interval> =
            (-4..4).flat_map(|low| (low..4).map(move |high| Interval { low, high })).collect();
        for &a in &all {
            for k in -3..=3 {
                assert_eq!(a.times(k).cut(), around(values(a).map(|v| k * v)));
            }
            for shift in 0..4 {
                assert_eq!(a.shifted_right(shift), around(values(a).map(|v| v >> shift)));
            }
            assert_eq!(a.rectified(), around(values(a).map(|v| v.max(0))));
            for &b in &all {
                let products = values(a).flat_map(|v| values(b).map(move |w| v * w));
                assert_eq!(a.product(b).cut(), around(products));
                assert_eq!(a.join(b), around(values(a).chain(values(b))));
            }
        }
    }

    #[test]
    fn what_leaves_128_bits_is_unknown_rather_than_wrong() {
        let huge = Interval::EVERYTHING.product(Interval::EVERYTHING);
        assert!(huge.plus(huge).is_none() && huge.scaled(3).is_none());
        assert_eq!(huge.cut(), Interval::EVERYTHING);
    }
}

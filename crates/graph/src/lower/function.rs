//! Smooth functions of a private value by public tables of 256 entries with linear interpolation.
//!
//! 256 entries are what all engines look up without keys; with interpolation they are as exact as 2^14 without. A spline with one
//! interval key for all its knots would be as exact with about sixty of them, each a walk down the key's tree.
//!
//! A table covers its domain with cells. `Lowering::bounded` has equal ones around 0. [`Lowering::companded`] makes them wider where the function is flatter: a
//! concave, piecewise-linear, exact map of the operand, clipped at the end of the domain, whose upper 8 bits are the
//! cell and whose lower bits are the place in it. [`Lowering::inverse_square_root`] normalises to one octave first, which
//! covers any domain but compares with each of its powers of two: for few values.
//!
//! No operand leads outside the table. Errors are declared with the functions and tested in `tests/functions.rs`.

use privet_plan::{Op, WireId};

use super::Lowering;
use super::steps::public_factor;
use crate::OpError;

/// Cells of a table, as bits.
const INDEX_BITS: u32 = 8;

/// Cells of equal width.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    /// How many.
    pub(crate) cells: u64,
    /// Width of each in units of the operand, as a power of two.
    pub(crate) width_bits: u32,
}

/// What a function is beyond its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Far {
    /// What it is at the table's ends.
    Constant,
    /// That, and max(x, 0): the table has the difference.
    Rectified,
}

impl Lowering<'_> {
    /// `f(x)` at the scale of inputs, by cells of equal width for -2^`domain_bits` <= x < 2^`domain_bits` and as `far` says
    /// beyond. With cells of width h the error is below h²/16 times the largest second derivative, the last bit apart.
    pub(crate) fn bounded(
        &mut self,
        x: WireId,
        domain_bits: u32,
        f: impl Fn(f64) -> f64,
        far: Far,
    ) -> Result<WireId, OpError> {
        let (x, base) = (self.at_base(x), u32::from(self.base()));
        // No cell is narrower than a unit of the operand.
        let half_bits = (domain_bits + base).max(INDEX_BITS - 1);
        self.expect_room("the domain of a function", half_bits + 2)?;
        let half = 1i64 << half_bits;
        let mut ramps = vec![self.integers(&[(x, 1)], half, 0), self.integers(&[(x, 1)], 1 - half, 0)];
        if far == Far::Rectified {
            ramps.push(self.integers(&[(x, 1)], 0, 0));
        }
        let ramps = self.joined(&ramps, |ctx, x| {
            let shape = ctx.shape_of(x).to_vec();
            // The width is settled for the whole plan at the end.
            ctx.emit(Op::Relu { shift: 0, width: ctx.ring_bits() as u8 - 1 }, &[x], shape, 0)
        })?;
        let place = self.integers(&[(ramps[0], 1), (ramps[1], -1)], 0, 0);
        let low_bits = half_bits + 1 - INDEX_BITS;
        let unit = (-f64::from(base)).exp2();
        let width = f64::from(low_bits).exp2() * unit;
        let start = -(half as f64) * unit;
        let at = |cell: f64| {
            let x = start + cell * width;
            if far == Far::Rectified { f(x) - x.max(0.0) } else { f(x) }
        };
        let y = self.interpolated(place, low_bits, at, base as u8)?;
        match ramps.get(2) {
            None => Ok(y),
            Some(&ramp) => {
                let ramp = self.integers(&[(ramp, 1)], 0, base as u8);
                self.combine(&[(y, 1), (ramp, 1)], 0)
            }
        }
    }

    /// `f(x)` with `frac_bits` fractional bits for a wire of integers x >= 0 (whatever its scale). The segments follow one
    /// another from 0, each with wider cells than the one before, and have 256 cells in all. What lies behind the last
    /// one counts as its end.
    pub(crate) fn companded(
        &mut self,
        x: WireId,
        segments: &[Segment],
        f: impl Fn(f64) -> f64,
        frac_bits: u8,
    ) -> Result<WireId, OpError> {
        debug_assert_eq!(segments.iter().map(|s| s.cells).sum::<u64>(), 1 << INDEX_BITS);
        let Some(low_bits) = segments.last().map(|s| s.width_bits) else {
            unreachable!("there are segments")
        };
        // Bends: where each segment ends and by how much the slope falls there; at the last one, to 0.
        let slope = |i: usize| segments.get(i).map_or(0, |s| 1i64 << (low_bits - s.width_bits));
        let mut end = 0;
        let mut knots = vec![0u64];
        let mut bends = Vec::with_capacity(segments.len());
        for (i, segment) in segments.iter().enumerate() {
            knots.extend((1..=segment.cells).map(|cell| end + (cell << segment.width_bits)));
            end += segment.cells << segment.width_bits;
            let last = u64::from(i + 1 == segments.len());
            bends.push(((end - last) as i64, slope(i) - slope(i + 1)));
        }
        self.expect_room(
            "the domain of a function",
            64 - (end << (low_bits - segments[0].width_bits)).leading_zeros(),
        )?;
        let mut above = Vec::with_capacity(bends.len());
        for &(bend, _) in &bends {
            above.push(self.integers(&[(x, 1)], -bend, 0));
        }
        let above = self.joined(&above, |ctx, x| {
            let shape = ctx.shape_of(x).to_vec();
            // The width is settled for the whole plan at the end.
            ctx.emit(Op::Relu { shift: 0, width: ctx.ring_bits() as u8 - 1 }, &[x], shape, 0)
        })?;
        let mut terms = vec![(x, slope(0))];
        terms.extend(above.into_iter().zip(&bends).map(|(wire, &(_, fall))| (wire, -fall)));
        let place = self.integers(&terms, 0, 0);
        // An operand was rounded down: it stands for what lies half a unit above.
        let at = |cell: f64| {
            let first = (cell.floor() as usize).min(knots.len() - 2);
            let (from, to) = (knots[first] as f64, knots[first + 1] as f64);
            f(from + (to - from) * (cell - first as f64) + 0.5)
        };
        self.interpolated(place, low_bits, at, frac_bits)
    }

    /// `factor / sqrt(x)` with `frac_bits` fractional bits for a wire of integers x, `least <= x < 2^most_bits`; larger ones
    /// count as the end of the domain. The relative error is below 1e-4, the resolution of the result apart.
    pub(crate) fn inverse_square_root(
        &mut self,
        x: WireId,
        least: i64,
        most_bits: u32,
        factor: f64,
        frac_bits: u8,
    ) -> Result<WireId, OpError> {
        self.expect_room("the domain of a square root", most_bits)?;
        let shape = self.shape_of(x).to_vec();
        let over = self.integers(&[(x, 1)], 1 - (1 << most_bits), 0);
        let over =
            self.emit(Op::Relu { shift: 0, width: self.ring_bits() as u8 - 1 }, &[over], shape.clone(), 0);
        let x = self.integers(&[(x, 1), (over, -1)], 0, 0);
        // Which powers of two it reaches.
        let first = least.ilog2();
        let mut reached = Vec::new();
        for power in first + 1..most_bits {
            reached.push(self.integers(&[(x, 1)], -(1 << power), 0));
        }
        let reached = self.joined(&reached, Self::non_negative)?;
        let by_power = |ctx: &mut Self, value: &dyn Fn(u32) -> i64, label: u8| {
            let steps = (first + 1..most_bits).map(|power| value(power) - value(power - 1));
            let terms: Vec<(WireId, i64)> = reached.iter().copied().zip(steps).collect();
            ctx.integers(&terms, value(first), label)
        };
        // x·2^(most_bits - 1 - power) has its highest bit at most_bits - 1, and what follows it chooses the cell.
        let shift = by_power(self, &|power| 1 << (most_bits - 1 - power), 0);
        let normal = self.masked_by(shift, x);
        let low_bits = (most_bits - 1 - INDEX_BITS).min(10);
        let normal = self.shifted_down(normal, most_bits - 1 - INDEX_BITS - low_bits);
        let place = self.integers(&[(normal, 1)], -(1 << (INDEX_BITS + low_bits)), 0);
        let cells = f64::from(INDEX_BITS).exp2();
        let table_bits = self.base() + 4;
        let mantissa =
            self.interpolated(place, low_bits, |cell| (1.0 + cell / cells).powf(-0.5), table_bits)?;
        let gain_bits = self.base() + 6;
        let gain =
            |power: u32| (factor * (f64::from(gain_bits) - f64::from(power) / 2.0).exp2()).round() as i64;
        self.expect_room(
            "a factor of the square root",
            64 - gain(first).leading_zeros() + u32::from(table_bits),
        )?;
        let gain = by_power(self, &gain, gain_bits);
        let root = self.emit(Op::Multiply, &[mantissa, gain], shape.clone(), table_bits + gain_bits);
        let drop = (table_bits + gain_bits).saturating_sub(frac_bits);
        Ok(if drop == 0 { root } else { self.emit(Op::Trunc { shift: drop }, &[root], shape, frac_bits) })
    }

    /// The function that takes the value `f(i)` at 2^low_bits·i for i from 0 to 256 and is linear in between.
    fn interpolated(
        &mut self,
        place: WireId,
        low_bits: u32,
        f: impl Fn(f64) -> f64,
        frac_bits: u8,
    ) -> Result<WireId, OpError> {
        let entry_bits = frac_bits + low_bits as u8;
        let one = f64::from(entry_bits).exp2();
        let largest = (0..=1 << INDEX_BITS).map(|i| f(f64::from(i)).abs()).fold(0.0, f64::max);
        self.expect_room("a function's values", (largest * one).log2().ceil().max(0.0) as u32 + 1)?;
        let shape = self.shape_of(place).to_vec();
        if low_bits == 0 {
            // A cell is one value.
            let entries = (0..1 << INDEX_BITS).map(|i| (f(f64::from(i)) * one).round() as i64).collect();
            return Ok(self.emit(Op::Table { entries }, &[place], shape, frac_bits));
        }
        let cell = self.shifted_down(place, low_bits);
        let low = self.integers(&[(place, 1), (cell, -(1 << low_bits))], 0, 0);
        let (mut values, mut slopes) = (Vec::new(), Vec::new());
        for i in (0..1 << INDEX_BITS).map(f64::from) {
            let (from, to) = (f(i), f(i + 1.0));
            // Half of the error in the middle, where it is largest.
            let bend = (f(i + 0.5) - (from + to) / 2.0) / 2.0;
            values.push(((from + bend) * one).round() as i64);
            slopes.push(((to - from) * one / f64::from(low_bits).exp2()).round() as i64);
        }
        let value = self.emit(Op::Table { entries: values }, &[cell], shape.clone(), entry_bits);
        let slope = self.emit(Op::Table { entries: slopes }, &[cell], shape.clone(), entry_bits);
        let rise = self.masked_by(low, slope);
        let sum = self.combine(&[(value, 1), (rise, 1)], 1 << (low_bits - 1))?;
        Ok(self.emit(Op::Trunc { shift: low_bits as u8 }, &[sum], shape, frac_bits))
    }

    /// `floor(x / 2^bits)` as whole numbers, whatever the scale.
    pub(crate) fn shifted_down(&mut self, x: WireId, bits: u32) -> WireId {
        let relabelled = self.integers(&[(x, 1)], 0, bits as u8);
        if bits == 0 {
            return relabelled;
        }
        let shape = self.shape_of(x).to_vec();
        self.emit(Op::Trunc { shift: bits as u8 }, &[relabelled], shape, 0)
    }

    /// Sum over `axis` divided by its length, at the scale of the operand, rounded to nearest; the axis stays with length 1.
    pub(crate) fn mean_axis(&mut self, x: WireId, axis: usize) -> Result<WireId, OpError> {
        let (count, frac_bits) = (self.shape_of(x)[axis], self.frac_bits(x));
        let sum = self.sum_axis(x, axis)?;
        if count == 1 {
            return Ok(sum);
        }
        let whole = (count as u64).ilog2();
        // A few bits more than the operand has, with room for sums of values up to 2^12.
        let taken = u32::from(self.base()) + whole + 12;
        let most =
            (self.ring_bits() - 3).saturating_sub(taken).clamp(8, (u32::from(self.base()) + 4).max(8)) as u8;
        let (factor, bits) = public_factor("1 / count", f64::from(whole).exp2() / count as f64, most)?;
        let drop = bits + whole as u8;
        let scaled = self.integers(&[(sum, factor)], 1 << (drop - 1), frac_bits + drop);
        let shape = self.shape_of(sum).to_vec();
        Ok(self.emit(Op::Trunc { shift: drop }, &[scaled], shape, frac_bits))
    }

    /// Refuses what does not fit the ring with a sign and one bit to spare.
    fn expect_room(&self, what: &str, bits: u32) -> Result<(), OpError> {
        if bits <= self.ring_bits() - 3 {
            return Ok(());
        }
        Err(OpError::unsupported(
            format!("{what} of {bits} bits in a {}-bit ring", self.ring_bits()),
            "a wider --ring, or fewer --frac-bits",
        ))
    }
}

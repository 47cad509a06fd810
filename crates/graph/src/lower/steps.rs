//! What several operators compose of plan steps.

use privet_plan::validate::MAX_COEFFICIENT;
use privet_plan::{Op, WireId};

use super::Lowering;
use super::context::power;
use crate::OpError;

impl Lowering<'_> {
    /// One step over several wires of one scale instead of one step each, which would cost as many rounds: joins them, applies
    /// `step`, which must keep the shape, and splits the result.
    pub(crate) fn joined(
        &mut self,
        wires: &[WireId],
        step: impl FnOnce(&mut Self, WireId) -> WireId,
    ) -> Result<Vec<WireId>, OpError> {
        if let [only] = wires {
            return Ok(vec![step(self, *only)]);
        }
        let shapes: Vec<Vec<usize>> = wires.iter().map(|&w| self.shape_of(w).to_vec()).collect();
        let flat: Vec<WireId> =
            wires.iter().map(|&w| self.reshape(w, &[self.shape_of(w).iter().product()])).collect();
        let joined = self.concat(&flat, 0)?;
        let result = step(self, joined);
        let mut start = 0;
        let mut parts = Vec::with_capacity(wires.len());
        for shape in shapes {
            let part = self.slice_axis(result, 0, start, 1, shape.iter().product());
            start += shape.iter().product::<usize>();
            parts.push(self.reshape(part, &shape));
        }
        Ok(parts)
    }

    /// `count` elements of an axis, from `start` on, every `step`-th.
    pub(crate) fn slice_axis(
        &mut self,
        wire: WireId,
        axis: usize,
        start: usize,
        step: i32,
        count: usize,
    ) -> WireId {
        let mut shape = self.shape_of(wire).to_vec();
        if (start, step, count) == (0, 1, shape[axis]) {
            return wire;
        }
        let (mut starts, mut steps) = (vec![0; shape.len()], vec![1; shape.len()]);
        (starts[axis], steps[axis]) = (start as u32, if count > 1 { step } else { 1 });
        shape[axis] = count;
        self.layout(Op::Slice { starts, steps }, wire, shape)
    }

    /// `-x`.
    pub(crate) fn negate(&mut self, x: WireId) -> Result<WireId, OpError> {
        self.combine(&[(x, -1)], 0)
    }

    /// Brings wires to the largest scale among them, exactly.
    pub(crate) fn at_common_scale(&mut self, wires: &[WireId]) -> Result<Vec<WireId>, OpError> {
        let most = wires.iter().map(|&w| self.frac_bits(w)).max().unwrap_or_default();
        wires.iter().map(|&w| self.scaled_up(w, most)).collect()
    }

    /// The same value with at least `frac_bits` fractional bits.
    pub(crate) fn scaled_up(&mut self, wire: WireId, frac_bits: u8) -> Result<WireId, OpError> {
        let own = self.frac_bits(wire);
        if own >= frac_bits {
            return Ok(wire);
        }
        let factor = power(frac_bits - own)?;
        Ok(self.integers(&[(wire, factor)], 0, frac_bits))
    }

    /// `Σ coefficient·wire + constant` of the wires' integers, whatever their scales; the result has `frac_bits`.
    pub(crate) fn integers(&mut self, terms: &[(WireId, i64)], constant: i64, frac_bits: u8) -> WireId {
        let (wires, coefficients): (Vec<WireId>, Vec<i64>) = terms.iter().copied().unzip();
        let shape = self.shape_of(wires[0]).to_vec();
        self.emit(Op::Combine { coefficients, constant }, &wires, shape, frac_bits)
    }

    /// Truth values of x >= 0 and of -x >= 0, without fractional bits, for the price of one round.
    pub(crate) fn signs(&mut self, x: WireId) -> Result<[WireId; 2], OpError> {
        let opposite = self.negate(x)?;
        let signs = self.joined(&[x, opposite], Self::non_negative)?;
        Ok([signs[0], signs[1]])
    }

    /// `bit · t` for a wire of zeros and ones; keeps the scale of `t`, pending or not.
    pub(crate) fn masked_by(&mut self, bit: WireId, t: WireId) -> WireId {
        let (shape, frac_bits) = (self.shape_of(t).to_vec(), self.frac_bits(t));
        self.emit(Op::Multiply, &[bit, t], shape, frac_bits)
    }
}

/// A public factor as `coefficient / 2^bits` with at most `most` bits, and no more than its value needs.
pub(crate) fn public_factor(what: &'static str, value: f64, most: u8) -> Result<(i64, u8), OpError> {
    let scaled = (value * f64::from(most).exp2()).round();
    if !scaled.is_finite() || scaled.abs() > MAX_COEFFICIENT as f64 {
        return Err(OpError::unsupported(
            format!("{what} = {value}"),
            "finite factors below 2^48 with their fractional bits",
        ));
    }
    let coefficient = scaled as i64;
    let spare = coefficient.trailing_zeros().min(u32::from(most));
    Ok((coefficient >> spare, most - spare as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_take_no_more_bits_than_they_need() {
        assert_eq!(public_factor("alpha", 0.25, 16), Ok((1, 2)));
        assert_eq!(public_factor("alpha", -3.0, 16), Ok((-3, 0)));
        assert_eq!(public_factor("alpha", 0.0, 16), Ok((0, 0)));
        assert_eq!(public_factor("alpha", 0.01, 16), Ok((655, 16)));
        assert!(public_factor("alpha", f64::NAN, 16).is_err());
        assert!(public_factor("alpha", 1e30, 16).is_err());
    }
}

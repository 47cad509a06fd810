//! What an operator sees while it is lowered.

use ndarray::ArrayD;
use privet_plan::validate::{MAX_COEFFICIENT, MAX_OPERANDS, MAX_TERMS};
use privet_plan::{Op, ParamId, ParamSpec, Tap, WireId};
use privet_ring::fixed;

use super::Builder;
use crate::tensor::contiguous;
use crate::{Args, Fact, Node, OpError, Tensor};

/// An operator's operands, and means to append steps.
#[derive(Debug)]
pub struct Lowering<'a> {
    pub(super) builder: &'a mut Builder,
    pub(super) node: &'a Node,
    pub(super) operands: &'a [Option<&'a Fact>],
    pub(super) results: &'a [&'a Fact],
    pub(super) wires: Vec<Option<WireId>>,
}

impl<'a> Lowering<'a> {
    /// Facts of the operands.
    pub fn operands(&self) -> Args<'a, Fact> {
        Args(self.operands)
    }

    /// Shape of the first result.
    pub fn shape(&self) -> &'a [usize] {
        &self.results[0].shape
    }

    /// The wire of operand `i`; refused when the operand is a constant.
    pub fn wire(&self, i: usize, what: &'static str) -> Result<WireId, OpError> {
        match self.wires.get(i).copied().flatten() {
            Some(wire) => Ok(wire),
            None => Err(OpError::unsupported(
                format!("a constant (or a function of the receiver's) as {what}"),
                "a value that depends on the model's input",
            )),
        }
    }

    /// The float constant of operand `i`; refused when it depends on the inputs.
    pub fn weight(&self, i: usize, what: &'static str) -> Result<&'a ArrayD<f32>, OpError> {
        self.operands().get(i, what)?.known(what)?.floats(what)
    }

    /// The float constant of operand `i`, if it is one.
    pub fn constant(&self, i: usize) -> Option<&'a ArrayD<f32>> {
        self.operands().optional(i)?.value.as_deref()?.floats("constant").ok()
    }

    /// The constant of operand `i`, if it is one, whatever its element type; truth values are 0 and 1.
    pub fn numbers(&self, i: usize) -> Result<Option<ArrayD<f64>>, OpError> {
        let Some(value) = self.operands().optional(i).and_then(|fact| fact.value.as_deref()) else {
            return Ok(None);
        };
        Ok(Some(match value {
            Tensor::F32(a) => a.mapv(f64::from),
            Tensor::Bool(a) => a.mapv(|v| f64::from(u8::from(v))),
            // Such integers fit no ring either.
            Tensor::I64(a) => match a.iter().find(|v| v.unsigned_abs() > 1 << 53) {
                None => a.mapv(|v| v as f64),
                Some(v) => {
                    return Err(OpError::unsupported(format!("the integer {v}"), "integers up to 2^53"));
                }
            },
        }))
    }

    /// Fractional bits f of inputs, weights and truncated wires.
    pub fn base(&self) -> u8 {
        self.builder.plan.frac_bits
    }

    /// Width of the ring.
    pub fn ring_bits(&self) -> u32 {
        self.builder.plan.ring.bits()
    }

    /// Fractional bits of a wire.
    pub fn frac_bits(&self, wire: WireId) -> u8 {
        self.builder.plan.steps[wire.index()].frac_bits
    }

    /// Shape of a wire.
    pub fn shape_of(&self, wire: WireId) -> &[usize] {
        self.builder.plan.shape(wire)
    }

    /// The same value with f fractional bits, truncated if it is pending.
    pub fn at_base(&mut self, wire: WireId) -> WireId {
        self.builder.at_base(&self.node.name, wire)
    }

    /// Appends a step.
    pub fn emit(&mut self, op: Op, inputs: &[WireId], shape: Vec<usize>, frac_bits: u8) -> WireId {
        self.builder.emit(&self.node.name, op, inputs, shape, frac_bits)
    }

    /// Appends a step that moves elements and keeps the scale of its only operand.
    pub fn layout(&mut self, op: Op, input: WireId, shape: Vec<usize>) -> WireId {
        let frac_bits = self.frac_bits(input);
        self.emit(op, &[input], shape, frac_bits)
    }

    /// The same elements under another shape.
    pub fn reshape(&mut self, wire: WireId, shape: &[usize]) -> WireId {
        if self.shape_of(wire) == shape { wire } else { self.layout(Op::Reshape, wire, shape.to_vec()) }
    }

    /// Permutes axes: axis `i` of the result is axis `perm[i]` of the operand.
    pub fn transpose(&mut self, wire: WireId, perm: &[usize]) -> WireId {
        let from = self.shape_of(wire);
        let shape = perm.iter().map(|&a| from[a]).collect();
        self.layout(Op::Transpose { perm: perm.iter().map(|&a| a as u32).collect() }, wire, shape)
    }

    /// Joins wires along an axis; pending ones are truncated first unless all carry the same scale.
    pub fn concat(&mut self, wires: &[WireId], axis: usize) -> Result<WireId, OpError> {
        expect_operands(wires.len())?;
        match wires {
            [] => {
                return Err(OpError::unsupported(
                    "constants alone",
                    "an operand that depends on the model's input",
                ));
            }
            [only] => return Ok(*only),
            _ => {}
        }
        let same = wires.iter().all(|&w| self.frac_bits(w) == self.frac_bits(wires[0]));
        let wires: Vec<WireId> = wires.iter().map(|&w| if same { w } else { self.at_base(w) }).collect();
        let mut shape = self.shape_of(wires[0]).to_vec();
        shape[axis] = wires.iter().map(|&w| self.shape_of(w)[axis]).sum();
        let frac_bits = self.frac_bits(wires[0]);
        Ok(self.emit(Op::Concat { axis: axis as u32 }, &wires, shape, frac_bits))
    }

    /// A public sparse matrix along an axis; `coefficient_bits` more fractional bits.
    pub fn axis_map(
        &mut self,
        wire: WireId,
        axis: usize,
        rows: Vec<Vec<Tap>>,
        coefficient_bits: u8,
    ) -> Result<WireId, OpError> {
        let terms = rows.iter().map(|row| row.len() + 1).sum();
        self.builder.terms = self.builder.terms.checked_sub(terms).ok_or_else(|| {
            OpError::unsupported(
                format!("a public map along an axis with {terms} rows and terms, after those before"),
                "at most 2^21 rows and terms in all",
            )
        })?;
        if let Some(tap) = rows.iter().flatten().find(|t| t.coefficient.unsigned_abs() > MAX_COEFFICIENT) {
            return Err(OpError::unsupported(
                format!("a public weight of {} with {coefficient_bits} fractional bits", tap.coefficient),
                "integers up to 2^48",
            ));
        }
        let mut shape = self.shape_of(wire).to_vec();
        shape[axis] = rows.len();
        let frac_bits = self.frac_bits(wire).saturating_add(coefficient_bits);
        self.expect_scale(u32::from(frac_bits))?;
        let op = Op::AxisMap { axis: axis as u32, rows, coefficient_bits };
        Ok(self.emit(op, &[wire], shape, frac_bits))
    }

    /// The operand of a product with a factor of `bits` fractional bits: the same wire if it has f fractional bits or a few more, such
    /// as the mean of four values has, else with f.
    pub fn operand(&mut self, wire: WireId, bits: u8) -> WireId {
        if self.frac_bits(wire) < self.base() { self.at_base(wire) } else { self.room_for(wire, bits) }
    }

    /// The same wire, or truncated to f fractional bits where `bits` more would be too many: a few bits beyond what a
    /// product carries cost less than a truncation.
    pub fn room_for(&mut self, wire: WireId, bits: u8) -> WireId {
        let base = u32::from(self.base());
        let limit = (2 * base + 4).min(self.ring_bits().saturating_sub(10)).max(2 * base);
        let own = self.frac_bits(wire);
        let fits = u32::from(own) + u32::from(bits) <= limit;
        if fits || own <= self.base() { wire } else { self.at_base(wire) }
    }

    /// Refuses a scale that leaves a value no bits of its own.
    pub(super) fn expect_scale(&self, frac_bits: u32) -> Result<(), OpError> {
        if frac_bits <= self.ring_bits() - 3 {
            return Ok(());
        }
        Err(OpError::unsupported(
            format!("a value with {frac_bits} fractional bits in a {}-bit ring", self.ring_bits()),
            "at most three bits less than the ring; try a wider --ring or fewer --frac-bits",
        ))
    }

    /// The elements of an axis at `positions`, in that order.
    pub fn gather(&mut self, wire: WireId, axis: usize, positions: &[usize]) -> Result<WireId, OpError> {
        if positions.iter().copied().eq(0..self.shape_of(wire)[axis]) {
            return Ok(wire);
        }
        expect_terms(positions.len(), positions.len())?;
        let row = |&p: &usize| vec![Tap { index: p as u32, coefficient: 1 }];
        self.axis_map(wire, axis, positions.iter().map(row).collect(), 0)
    }

    /// The only element of an axis `count` times.
    pub fn repeat(&mut self, wire: WireId, axis: usize, count: usize) -> Result<WireId, OpError> {
        expect_terms(count, count)?;
        self.gather(wire, axis, &vec![0; count])
    }

    /// Sums over an axis, which stays with length 1.
    pub fn sum_axis(&mut self, wire: WireId, axis: usize) -> Result<WireId, OpError> {
        let size = self.shape_of(wire)[axis];
        if size == 1 {
            return Ok(wire);
        }
        expect_terms(1, size)?;
        let all = (0..size).map(|i| Tap { index: i as u32, coefficient: 1 }).collect();
        self.axis_map(wire, axis, vec![all], 0)
    }

    /// Sums over an axis divided by `count`; the axis stays with length 1. A power of two only moves the binary point.
    pub fn sum_times_reciprocal(
        &mut self,
        wire: WireId,
        axis: usize,
        count: usize,
    ) -> Result<WireId, OpError> {
        let exact = count.is_power_of_two();
        let wire = if exact { self.room_for(wire, count.ilog2() as u8) } else { self.at_base(wire) };
        let bits = if exact {
            count.ilog2() as u8
        } else {
            reciprocal_bits(count, true, self.ring_bits(), self.base())
        };
        let coefficient = (f64::from(bits).exp2() / count as f64).round() as i64;
        let size = self.shape_of(wire)[axis];
        if bits == 0 && size == 1 {
            return Ok(wire);
        }
        expect_terms(1, size)?;
        let all = (0..size).map(|i| Tap { index: i as u32, coefficient }).collect();
        self.axis_map(wire, axis, vec![all], bits)
    }

    /// A public real matrix along an axis, one list of positions and weights per element of the result. Weights are
    /// exact where few fractional bits are enough, else they get f, and still add up to what they did.
    pub fn interpolate(
        &mut self,
        wire: WireId,
        axis: usize,
        rows: &[Vec<(usize, f64)>],
    ) -> Result<WireId, OpError> {
        expect_terms(rows.len(), rows.iter().map(Vec::len).sum())?;
        let positions: Option<Vec<usize>> =
            rows.iter().map(|row| if let [(p, 1.0)] = row[..] { Some(p) } else { None }).collect();
        if let Some(positions) = positions {
            return self.gather(wire, axis, &positions);
        }
        let base = self.base();
        let exact = |bits: &u8| {
            let whole = |w: f64| (w * f64::from(*bits).exp2()).fract() == 0.0;
            rows.iter().flatten().all(|&(_, w)| whole(w))
        };
        let bits = (0..=base).find(exact).unwrap_or(base);
        let rows = rows.iter().map(|row| fixed_weights(row, bits)).collect();
        let wire = self.room_for(wire, bits);
        self.axis_map(wire, axis, rows, bits)
    }

    /// Repeats elements until the wire has `shape` (numpy's rule).
    pub fn broadcast(&mut self, wire: WireId, shape: &[usize]) -> Result<WireId, OpError> {
        let from = self.shape_of(wire);
        let mut padded = vec![1; shape.len() - from.len()];
        padded.extend(from);
        let mut wire = self.reshape(wire, &padded);
        for axis in 0..shape.len() {
            if padded[axis] != shape[axis] {
                wire = self.repeat(wire, axis, shape[axis])?;
            }
        }
        Ok(wire)
    }

    /// Elementwise product of two wires of equal shape; f fractional bits each, unless they are whole.
    pub fn multiply(&mut self, a: WireId, b: WireId) -> WireId {
        let [a, b] = [a, b].map(|w| if self.frac_bits(w) == 0 { w } else { self.at_base(w) });
        let (shape, frac_bits) = (self.shape_of(a).to_vec(), self.frac_bits(a) + self.frac_bits(b));
        self.emit(Op::Multiply, &[a, b], shape, frac_bits)
    }

    /// Truth values of x >= 0, without fractional bits.
    pub fn non_negative(&mut self, x: WireId) -> WireId {
        let shape = self.shape_of(x).to_vec();
        // The width is settled for the whole plan at the end.
        self.emit(Op::NonNegative { width: 0 }, &[x], shape, 0)
    }

    /// `t` where x >= 0, else 0; t has the shape of x, or one more axis in front.
    pub fn select(&mut self, x: WireId, t: WireId) -> WireId {
        let (shape, frac_bits) = (self.shape_of(t).to_vec(), self.frac_bits(t));
        self.emit(Op::Select { width: 0 }, &[x, t], shape, frac_bits)
    }

    /// `Σ sign·wire + constant` at the largest scale of the operands; equal shapes. Scales are made equal by
    /// multiplying, which is exact and free, where truncating would cost a round.
    pub fn combine(&mut self, terms: &[(WireId, i64)], constant: i64) -> Result<WireId, OpError> {
        expect_operands(terms.len())?;
        let frac_bits = terms.iter().map(|&(w, _)| self.frac_bits(w)).max().unwrap_or(self.base());
        self.expect_scale(u32::from(frac_bits))?;
        let scaled = |&(w, sign): &(WireId, i64)| Ok(sign * power(frac_bits - self.frac_bits(w))?);
        let coefficients = terms.iter().map(scaled).collect::<Result<Vec<i64>, OpError>>()?;
        let wires: Vec<WireId> = terms.iter().map(|&(w, _)| w).collect();
        let shape = self.shape_of(wires[0]).to_vec();
        Ok(self.emit(Op::Combine { coefficients, constant }, &wires, shape, frac_bits))
    }

    /// Adds a private constant that broadcasts to the wire's shape.
    pub fn add_param<T: Copy + Into<f64>>(
        &mut self,
        wire: WireId,
        suffix: &str,
        values: &ArrayD<T>,
    ) -> Result<WireId, OpError> {
        let frac_bits = self.frac_bits(wire);
        let param = self.param(suffix, values, frac_bits)?;
        let shape = self.shape_of(wire).to_vec();
        Ok(self.emit(Op::AddParam { param }, &[wire], shape, frac_bits))
    }

    /// Multiplies with a private constant that broadcasts to the wire's shape.
    pub fn scale(&mut self, wire: WireId, suffix: &str, values: &ArrayD<f32>) -> Result<WireId, OpError> {
        let wire = self.at_base(wire);
        let bits = self.factor_bits(values);
        let factor = self.param(suffix, values, bits)?;
        let shape = self.shape_of(wire).to_vec();
        Ok(self.emit(Op::Scale { factor }, &[wire], shape, self.base() + bits))
    }

    /// Fractional bits of a private factor: f, and more where its largest value is below 2^-5, which f bits would leave few
    /// digits, as far as the ring has room.
    pub fn factor_bits(&self, values: &ArrayD<f32>) -> u8 {
        let base = u32::from(self.base());
        let room = self.ring_bits().saturating_sub(16 + 2 * base);
        let largest = values.iter().fold(0.0f64, |largest, &v| largest.max(f64::from(v).abs()));
        let missing = if largest > 0.0 { (-largest.log2()).floor() - 5.0 } else { 0.0 };
        (base + (missing.max(0.0) as u32).min(room)) as u8
    }

    /// Encodes a private tensor; refused, naming the width it needs, when it does not fit the ring.
    pub fn param<T: Copy + Into<f64>>(
        &mut self,
        suffix: &str,
        values: &ArrayD<T>,
        frac_bits: u8,
    ) -> Result<ParamId, OpError> {
        let name = format!("{}.{suffix}", self.node.name);
        self.builder.elements = self.builder.elements.checked_sub(values.len()).ok_or_else(|| {
            let made = format!("a private tensor {name:?} of shape {:?}, after those before", values.shape());
            OpError::unsupported(made, "2^22 elements, and two for each that the model holds")
        })?;
        let ring = self.ring_bits();
        let encode = |&v: &T| fixed::encode(v.into(), ring, u32::from(frac_bits));
        let Ok(integers) = contiguous(values).iter().map(encode).collect::<Result<Vec<i64>, _>>() else {
            let floats = values.iter().map(|&v| v.into());
            let largest = floats.max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or_default();
            if !largest.is_finite() {
                return Err(OpError::NotFinite { tensor: name });
            }
            let scaled = (largest.abs() * f64::from(frac_bits).exp2()).round();
            return Err(OpError::WeightRange {
                tensor: name,
                needed: if scaled.is_finite() { (scaled + 1.0).log2().ceil() as u32 + 1 } else { u32::MAX },
                frac_bits: u32::from(frac_bits),
                ring,
            });
        };
        let id = ParamId(self.builder.plan.params.len() as u32);
        self.builder.plan.params.push(ParamSpec { name, shape: values.shape().to_vec(), frac_bits });
        self.builder.weights.push(integers);
        Ok(id)
    }
}

/// Refuses more operands than a step takes.
fn expect_operands(count: usize) -> Result<(), OpError> {
    if count <= MAX_OPERANDS {
        return Ok(());
    }
    Err(OpError::unsupported(format!("{count} operands"), "at most 4096 operands"))
}

/// Most rows of a public map along an axis, each of which is a list.
const MAX_ROWS: usize = 1 << 19;

/// Refuses more rows or terms of a public matrix than a step takes; asked before they are made.
pub(crate) fn expect_terms(rows: usize, terms: usize) -> Result<(), OpError> {
    if rows <= MAX_ROWS && terms <= MAX_TERMS {
        return Ok(());
    }
    Err(OpError::unsupported(
        format!("a public map along an axis with {rows} rows and {terms} terms"),
        "at most 2^19 rows and 2^21 terms",
    ))
}

/// `2^bits` as a coefficient.
pub(super) fn power(bits: u8) -> Result<i64, OpError> {
    match 1u64.checked_shl(u32::from(bits)) {
        Some(one) if one <= MAX_COEFFICIENT => Ok(one as i64),
        _ => Err(OpError::unsupported(
            format!("operands whose scales are {bits} bits apart"),
            "at most 48 bits; try fewer --frac-bits",
        )),
    }
}

/// Fractional bits of 1/count: the fewest that keep its relative error within 2^-f, so that it does not matter next to the
/// rounding of weights, if the ring leaves at least ten bits for the value itself. Where every window is whole, luck
/// is taken: 1/64 is exact with 6 bits.
pub(crate) fn reciprocal_bits(count: usize, is_whole: bool, ring_bits: u32, base: u8) -> u8 {
    let room = ring_bits.saturating_sub(10 + u32::from(base));
    let enough = (u32::from(base) + count.next_power_of_two().ilog2()).saturating_sub(1);
    let most = enough.min(room).max(u32::from(base));
    let is_precise = |bits: &u32| {
        let one = f64::from(*bits).exp2();
        let reciprocal = (one / count as f64).round();
        (reciprocal * count as f64 / one - 1.0).abs() <= (-f64::from(base)).exp2()
    };
    if is_whole { (1..most).find(is_precise).unwrap_or(most) as u8 } else { most as u8 }
}

/// Weights with `bits` fractional bits; the largest one takes the rounding error of the sum.
fn fixed_weights(row: &[(usize, f64)], bits: u8) -> Vec<Tap> {
    let fixed = |w: f64| (w * f64::from(bits).exp2()).round() as i64;
    let mut taps: Vec<Tap> =
        row.iter().map(|&(p, w)| Tap { index: p as u32, coefficient: fixed(w) }).collect();
    let wanted = fixed(row.iter().map(|(_, w)| w).sum());
    let found = taps.iter().fold(0i64, |sum, t| sum.saturating_add(t.coefficient));
    if let Some(largest) = taps.iter_mut().max_by_key(|t| t.coefficient.unsigned_abs()) {
        largest.coefficient = largest.coefficient.saturating_add(wanted.saturating_sub(found));
    }
    taps
}

//! Random plans that are valid by construction.
//!
//! A plan is a list of small descriptors ([`Gene`]), each read modulo what exists at its place: every list gives a valid plan,
//! and a shorter list a smaller one, so that shrinking drops steps. An interval per wire keeps every value in range.

use privet_plan::{Op, Plan, Tap, Weights, Window, WireId};
use privet_ring::prg::{Prg, Seed};

use crate::common::{Builder, uniform};

/// Largest number of elements of a wire.
const MAX_ELEMENTS: usize = 96;
/// Largest number of fractional bits of a wire.
const MAX_SCALE: u8 = 60;

/// What a gene may ask for; the simplest first, because shrinking goes there.
pub(crate) const KINDS: [&str; 21] = [
    "reshape",
    "input",
    "combine",
    "trunc",
    "relu",
    "conv",
    "matmul",
    "scale",
    "add",
    "multiply",
    "batch-matmul",
    "axis-map",
    "average-pool",
    "non-negative",
    "select",
    "table",
    "max-pool",
    "transpose",
    "slice",
    "pad",
    "concat",
];

/// One step to be: its kind, which wires it reads, and its details.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gene {
    pub(crate) kind: u8,
    pub(crate) reads: [u8; 2],
    pub(crate) detail: u64,
}

/// A plan from genes, with inputs of the given seed. Every wire is an output, or only those that no step reads.
pub(crate) fn generate(
    ring: u32,
    genes: &[Gene],
    seed: u64,
    every_wire: bool,
) -> (Plan, Weights, Vec<Vec<i64>>) {
    let mut generator = Generator::new(ring);
    genes.iter().for_each(|gene| generator.step(gene));
    let Generator { mut b, .. } = generator;
    for i in 0..b.plan.steps.len() {
        let wire = WireId(i as u32);
        if every_wire || b.plan.steps.iter().all(|s| !s.inputs.contains(&wire)) {
            b.output(wire);
        }
    }
    let (plan, weights) = b.finish();
    let inputs = values(&plan, seed);
    (plan, weights, inputs)
}

/// Inputs up to the largest magnitude, every fourth value one of the edges.
fn values(plan: &Plan, seed: u64) -> Vec<Vec<i64>> {
    let mut bytes = [7; 16];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let prg = Prg::new(&Seed::from_bytes(bytes));
    let most = input_magnitude(plan.frac_bits);
    let edges = [0, -1, 1, most, -most];
    let own = |i: usize| {
        let count = plan.inputs[i].shape.iter().product();
        let choice = uniform(&prg, 2 * i as u64, count, 1 << 20);
        let inner = uniform(&prg, 2 * i as u64 + 1, count, most);
        let pick =
            |(c, v): (i64, i64)| if c & 3 == 0 { edges[(c >> 2).unsigned_abs() as usize % 5] } else { v };
        choice.into_iter().zip(inner).map(pick).collect()
    };
    (0..plan.inputs.len()).map(own).collect()
}

/// Largest magnitude of an input.
pub(crate) fn input_magnitude(frac_bits: u8) -> i64 {
    4 << frac_bits
}

/// Digits of a gene's detail in mixed radix.
struct Detail(u64);

impl Detail {
    /// A number below `n`.
    fn below(&mut self, n: usize) -> usize {
        let digit = self.0 % n as u64;
        self.0 /= n as u64;
        digit as usize
    }
}

/// Bounds of a wire's values, both included.
type Interval = (i128, i128);

fn magnitude((low, high): Interval) -> i128 {
    low.abs().max(high.abs())
}

fn hull(a: Interval, b: Interval) -> Interval {
    (a.0.min(b.0), a.1.max(b.1))
}

struct Generator {
    b: Builder,
    bounds: Vec<Interval>,
    /// Values v of a wire satisfy -limit <= v < limit.
    limit: i128,
}

impl Generator {
    fn new(ring: u32) -> Self {
        let f = ((ring - 10) / 2).min(12) as u8;
        let mut generator = Self { b: Builder::new(ring, f), bounds: Vec::new(), limit: 1 << (ring - 2) };
        generator.input(&[2, 3]);
        generator
    }

    fn step(&mut self, gene: &Gene) {
        let mut d = Detail(gene.detail);
        let [first, second] = gene.reads.map(usize::from);
        match KINDS[gene.kind as usize % KINDS.len()] {
            "reshape" => {
                let x = self.pick(first, |_, _| true);
                self.random_reshape(x, &mut d);
            }
            "input" => {
                let rank = 1 + d.below(4);
                let shape: Vec<usize> = (0..rank).map(|_| 1 + d.below(4)).collect();
                if shape.iter().product::<usize>() <= MAX_ELEMENTS && self.b.plan.inputs.len() < 4 {
                    self.input(&shape);
                }
            }
            "combine" => self.combine(first, second, &mut d),
            "trunc" => {
                let x = self.pick(first, |g, w| g.scale(w) > 0);
                let most = self.scale(x).min(self.b.plan.ring.bits() as u8 - 2);
                let shift = 1 + d.below(most as usize) as u8;
                self.trunc(x, shift);
            }
            "relu" => {
                let x = self.pick(first, |_, _| true);
                let most = self.scale(x).min(self.b.plan.ring.bits() as u8 - 2);
                let shift = d.below(most as usize + 1) as u8;
                let (low, high) = self.bounds[x.index()];
                let bounds = (low.max(0) >> shift, high.max(0) >> shift);
                let shape = self.shape(x);
                self.push(Op::Relu { shift, width: 0 }, &[x], &shape, self.scale(x) - shift, bounds);
            }
            "conv" => self.conv(first, &mut d),
            "matmul" => self.matmul(first, &mut d),
            "scale" => self.scaled(first, &mut d),
            "add" => self.add(first, &mut d),
            "multiply" => self.multiply(first, second),
            "batch-matmul" => self.batch_matmul(first, second, &mut d),
            "axis-map" => self.axis_map(first, &mut d),
            "average-pool" => self.average_pool(first, &mut d),
            "non-negative" => {
                let x = self.pick(first, |_, _| true);
                self.non_negative(x);
            }
            "select" => self.select(first, second, &mut d),
            "table" => self.table(first, &mut d),
            "max-pool" => self.max_pool(first, &mut d),
            "transpose" => {
                let x = self.pick(first, |_, _| true);
                let mut left: Vec<u32> = (0..self.shape(x).len() as u32).collect();
                let perm: Vec<u32> = (0..left.len()).map(|_| left.remove(d.below(left.len()))).collect();
                let shape: Vec<usize> = perm.iter().map(|&a| self.shape(x)[a as usize]).collect();
                self.push(Op::Transpose { perm }, &[x], &shape, self.scale(x), self.bounds[x.index()]);
            }
            "slice" => self.slice(first, &mut d),
            "pad" => self.pad(first, &mut d),
            "concat" => self.concat(first, second, &mut d),
            kind => unreachable!("{kind}"),
        }
    }

    fn combine(&mut self, first: usize, second: usize, d: &mut Detail) {
        let x = self.pick(first, |_, _| true);
        let y = self.pick_or(second, x, |g, w| g.shape(w) == g.shape(x));
        let operands = [x, y, x];
        let operands = &operands[..1 + d.below(3)];
        let mut room = self.limit - 1;
        let mut bounds = (0, 0);
        let mut coefficients = Vec::new();
        for w in operands {
            let own = self.bounds[w.index()];
            // A third of what is left, so that all have a share.
            let most = (room / 3 / magnitude(own).max(1)).min(1 << 20) as usize;
            let k = d.below(2 * most.min(1 << 12) + 1) as i128 - most.min(1 << 12) as i128;
            room -= k.abs() * magnitude(own);
            let product = if k < 0 { (k * own.1, k * own.0) } else { (k * own.0, k * own.1) };
            bounds = (bounds.0 + product.0, bounds.1 + product.1);
            coefficients.push(k as i64);
        }
        let constant = d.below(1000) as i128 % room.max(1) / 2;
        let bounds = (bounds.0 - constant, bounds.1 - constant);
        let shape = self.shape(x);
        let op = Op::Combine { coefficients, constant: -constant as i64 };
        self.push(op, operands, &shape, self.scale(x), bounds);
    }

    fn conv(&mut self, first: usize, d: &mut Detail) {
        let axes = 1 + d.below(3);
        let x = self.pick(first, |g, w| g.room(w, 27));
        let x = self.image(x, axes, d);
        let from = self.shape(x);
        let groups = if from[1].is_multiple_of(2) { 1 + d.below(2) } else { 1 };
        let window = window(&from[2..], d);
        let spatial = window.output(&from[2..], false).expect("the window fits");
        let per_group = 1 + d.below(3);
        let shape: Vec<usize> = [from[0], groups * per_group].into_iter().chain(spatial).collect();
        if shape.iter().product::<usize>() > MAX_ELEMENTS {
            return;
        }
        let kernel: Vec<usize> = [shape[1], from[1] / groups]
            .into_iter()
            .chain(window.kernel.iter().map(|&k| k as usize))
            .collect();
        let terms = kernel[1..].iter().product();
        let Some((weight, scale, mut bounds)) = self.factor(x, &kernel, terms, d) else { return };
        let bias = (d.below(2) == 1).then(|| self.addend(&[shape[1]], scale, &mut bounds));
        self.push(Op::Conv { weight, bias, groups: groups as u32, window }, &[x], &shape, scale, bounds);
    }

    fn matmul(&mut self, first: usize, d: &mut Detail) {
        let x = self.pick(first, |g, w| g.room(w, *g.shape(w).last().unwrap_or(&1)));
        let mut shape = self.shape(x);
        let k = *shape.last().expect("wires have axes");
        let n = 1 + d.below(4);
        *shape.last_mut().expect("wires have axes") = n;
        if shape.iter().product::<usize>() > MAX_ELEMENTS {
            return;
        }
        let Some((weight, scale, mut bounds)) = self.factor(x, &[k, n], k, d) else { return };
        let bias = (d.below(2) == 1).then(|| self.addend(&[n], scale, &mut bounds));
        self.push(Op::MatMul { weight, bias }, &[x], &shape, scale, bounds);
    }

    fn scaled(&mut self, first: usize, d: &mut Detail) {
        let x = self.pick(first, |g, w| g.room(w, 1));
        let shape = self.shape(x);
        let Some((factor, scale, bounds)) = self.factor(x, &narrower(&shape, d), 1, d) else { return };
        self.push(Op::Scale { factor }, &[x], &shape, scale, bounds);
    }

    fn add(&mut self, first: usize, d: &mut Detail) {
        let x = self.pick(first, |_, _| true);
        let (shape, mut bounds, scale) = (self.shape(x), self.bounds[x.index()], self.scale(x));
        let param = self.addend(&narrower(&shape, d), scale, &mut bounds);
        self.push(Op::AddParam { param }, &[x], &shape, scale, bounds);
    }

    fn multiply(&mut self, first: usize, second: usize) {
        let fits = |g: &Self, x: WireId, y: WireId| g.product(x, y) < g.limit && g.scales(x, y) <= MAX_SCALE;
        let x = self.pick(first, |g, w| fits(g, w, w));
        let y = self.pick_or(second, x, |g, w| g.shape(w) == g.shape(x) && fits(g, x, w));
        let (most, shape) = (self.product(x, y), self.shape(x));
        self.push(Op::Multiply, &[x, y], &shape, self.scales(x, y), (-most, most));
    }

    fn batch_matmul(&mut self, first: usize, second: usize, d: &mut Detail) {
        let fits = |g: &Self, x: WireId, y: WireId| {
            g.product(x, y) < g.limit / g.len(x) as i128 && g.scales(x, y) <= MAX_SCALE
        };
        let x = self.pick(first, |g, w| fits(g, w, w));
        let [batch, m, k] = factorise(self.len(x), d);
        let y = self.pick_or(second, x, |g, w| fits(g, x, w) && g.len(w).is_multiple_of(batch * k));
        let n = self.len(y) / (batch * k);
        if batch * m * n > MAX_ELEMENTS {
            return;
        }
        let (x, y) = (self.reshape(x, &[batch, m, k]), self.reshape(y, &[batch, k, n]));
        let most = self.product(x, y) * k as i128;
        self.push(Op::BatchMatMul, &[x, y], &[batch, m, n], self.scales(x, y), (-most, most));
    }

    fn axis_map(&mut self, first: usize, d: &mut Detail) {
        let x = self.pick(first, |g, w| g.room(w, 3));
        let mut shape = self.shape(x);
        let axis = d.below(shape.len());
        let own = self.bounds[x.index()];
        let most = (self.limit / 4 / magnitude(own).max(1)).clamp(1, 1 << 12) as usize;
        let tap = |d: &mut Detail, size: usize| Tap {
            index: d.below(size) as u32,
            coefficient: d.below(2 * most + 1) as i64 - most as i64,
        };
        let mut rows: Vec<Vec<Tap>> = Vec::new();
        for _ in 0..1 + d.below(3) {
            let count = d.below(4);
            // Later terms repeat digits of the first where the detail has run out: still valid.
            rows.push((0..count).map(|_| tap(d, shape[axis])).collect());
        }
        let norm = |row: &Vec<Tap>| row.iter().map(|t| i128::from(t.coefficient.abs())).sum::<i128>();
        let bound = rows.iter().map(norm).max().unwrap_or(0) * magnitude(own);
        shape[axis] = rows.len();
        let coefficient_bits = d.below(4) as u8;
        let scale = self.scale(x) + coefficient_bits;
        if bound < self.limit && shape.iter().product::<usize>() <= MAX_ELEMENTS {
            self.push(
                Op::AxisMap { axis: axis as u32, rows, coefficient_bits },
                &[x],
                &shape,
                scale,
                (-bound, bound),
            );
        }
    }

    fn average_pool(&mut self, first: usize, d: &mut Detail) {
        let x = self.pick(first, |g, w| g.room(w, 32));
        let axes = 1 + d.below(3);
        let x = self.image(x, axes, d);
        let (shape, window) = self.pooled(x, d);
        let most = (self.limit / 2 / magnitude(self.bounds[x.index()]).max(1)).ilog2().min(12);
        let reciprocal_bits = 1 + d.below(most.max(1) as usize) as u8;
        let bound = |count: i128| {
            count * magnitude(self.bounds[x.index()]) * (((1 << reciprocal_bits) + count / 2) / count)
        };
        let bound = (1..=window.kernel_len() as i128).map(bound).max().expect("a window has positions");
        if bound < self.limit {
            let op = Op::AveragePool { window, count_include_pad: d.below(2) == 1, reciprocal_bits };
            let scale = self.scale(x) + reciprocal_bits;
            self.push(op, &[x], &shape, scale, (-bound, bound));
        }
    }

    fn max_pool(&mut self, first: usize, d: &mut Detail) {
        // A difference of two elements needs one bit more than they do.
        let x = self.pick(first, |g, w| magnitude(g.bounds[w.index()]) < g.limit / 2);
        let axes = 1 + d.below(3);
        let x = self.image(x, axes, d);
        let (shape, window) = self.pooled(x, d);
        self.push(Op::MaxPool { window, width: 0 }, &[x], &shape, self.scale(x), self.bounds[x.index()]);
    }

    fn select(&mut self, first: usize, second: usize, d: &mut Detail) {
        let x = self.pick(first, |g, w| g.shape(w).len() < 6);
        let mut t = self.pick_or(second, x, |g, w| g.shape(w) == g.shape(x));
        let mut shape = self.shape(x);
        if d.below(2) == 1 && 2 * self.len(t) <= MAX_ELEMENTS {
            shape.insert(0, 1);
            let one = self.reshape(t, &shape);
            let other = self.push(
                Op::Combine { coefficients: vec![-1], constant: 0 },
                &[one],
                &shape,
                self.scale(one),
                (-self.bounds[one.index()].1, -self.bounds[one.index()].0),
            );
            shape[0] = 2;
            let bounds = hull(self.bounds[one.index()], self.bounds[other.index()]);
            t = self.push(Op::Concat { axis: 0 }, &[one, other], &shape, self.scale(one), bounds);
        }
        let bounds = hull(self.bounds[t.index()], (0, 0));
        self.push(Op::Select { width: 0 }, &[x, t], &shape, self.scale(t), bounds);
    }

    fn table(&mut self, first: usize, d: &mut Detail) {
        let x = self.pick(first, |_, _| true);
        let (low, high) = self.bounds[x.index()];
        let shape = self.shape(x);
        // Half of the tables take keys.
        let most_bits = if d.below(2) == 0 { 8 } else { 9 + d.below(3) as u32 };
        let excess = (128 - (high - low).leading_zeros()).saturating_sub(most_bits) as u8;
        let index = if low >= 0 && high < 1 << most_bits {
            x
        } else if (1..=self.scale(x)).contains(&excess) && high - low < self.limit {
            let op = Op::Combine { coefficients: vec![1], constant: -low as i64 };
            let raised = self.push(op, &[x], &shape, self.scale(x), (0, high - low));
            self.trunc(raised, excess)
        } else {
            let sign = self.non_negative(x);
            let most = (1i64 << (1 + d.below(most_bits as usize))) - 1;
            let op = Op::Combine { coefficients: vec![most], constant: 0 };
            self.push(op, &[sign], &shape, 0, (0, i128::from(most)))
        };
        let bits = (128 - self.bounds[index.index()].1.leading_zeros()).max(1);
        let span = (self.limit - 1).min(1 << 40);
        let entry = |i: i128| (i * i * 7919 * 7919 * 31 % span - span / 2) as i64;
        let entries: Vec<i64> = (0..1 << bits).map(entry).collect();
        let scale = self.b.plan.frac_bits;
        self.push(Op::Table { entries }, &[index], &shape, scale, (-span / 2, span / 2));
    }

    fn slice(&mut self, first: usize, d: &mut Detail) {
        let x = self.pick(first, |_, _| true);
        let (mut starts, mut steps, mut shape) = (Vec::new(), Vec::new(), Vec::new());
        for size in self.shape(x) {
            let start = d.below(size);
            let step = [1, -1, 2, -2][d.below(4)];
            let room = if step > 0 { size - 1 - start } else { start };
            shape.push(1 + d.below(room / i32::unsigned_abs(step) as usize + 1));
            starts.push(start as u32);
            steps.push(step);
        }
        self.push(Op::Slice { starts, steps }, &[x], &shape, self.scale(x), self.bounds[x.index()]);
    }

    fn pad(&mut self, first: usize, d: &mut Detail) {
        let x = self.pick(first, |g, w| g.len(w) < MAX_ELEMENTS / 2);
        let mut shape = self.shape(x);
        let mut before = vec![0; shape.len()];
        for axis in 0..shape.len() {
            let (front, back) = (d.below(3), d.below(2));
            let others = shape.iter().product::<usize>() / shape[axis];
            if others * (shape[axis] + front + back) <= MAX_ELEMENTS {
                shape[axis] += front + back;
                before[axis] = front as u32;
            }
        }
        let bounds = hull(self.bounds[x.index()], (0, 0));
        self.push(Op::Pad { before }, &[x], &shape, self.scale(x), bounds);
    }

    fn concat(&mut self, first: usize, second: usize, d: &mut Detail) {
        let x = self.pick(first, |g, w| 2 * g.len(w) <= MAX_ELEMENTS);
        let mut shape = self.shape(x);
        let axis = d.below(shape.len());
        let joins = |g: &Self, w: WireId| {
            let (a, b) = (g.shape(w), &shape);
            let same = a.len() == b.len() && (0..a.len()).all(|i| i == axis || a[i] == b[i]);
            same && g.scale(w) == g.scale(x) && g.len(w) + g.len(x) <= MAX_ELEMENTS
        };
        let y = self.pick_or(second, x, joins);
        shape[axis] += self.shape(y)[axis];
        let bounds = hull(self.bounds[x.index()], self.bounds[y.index()]);
        self.push(Op::Concat { axis: axis as u32 }, &[x, y], &shape, self.scale(x), bounds);
    }

    fn input(&mut self, shape: &[usize]) {
        self.b.input(shape);
        let most = i128::from(input_magnitude(self.b.plan.frac_bits));
        self.bounds.push((-most, most));
    }

    fn trunc(&mut self, x: WireId, shift: u8) -> WireId {
        let (low, high) = self.bounds[x.index()];
        let shape = self.shape(x);
        self.push(Op::Trunc { shift }, &[x], &shape, self.scale(x) - shift, (low >> shift, high >> shift))
    }

    fn non_negative(&mut self, x: WireId) -> WireId {
        let shape = self.shape(x);
        self.push(Op::NonNegative { width: 0 }, &[x], &shape, 0, (0, 1))
    }

    fn reshape(&mut self, x: WireId, shape: &[usize]) -> WireId {
        if self.shape(x) == shape {
            return x;
        }
        self.push(Op::Reshape, &[x], shape, self.scale(x), self.bounds[x.index()])
    }

    fn random_reshape(&mut self, x: WireId, d: &mut Detail) {
        let parts = factorise::<4>(self.len(x), d);
        let skip = parts.iter().take_while(|&&p| p == 1).count().min(d.below(4));
        self.push(Op::Reshape, &[x], &parts[skip..], self.scale(x), self.bounds[x.index()]);
    }

    /// The wire as `[N, C, spatial..]`.
    fn image(&mut self, x: WireId, axes: usize, d: &mut Detail) -> WireId {
        if self.shape(x).len() == axes + 2 {
            return x;
        }
        let [a, b, c] = factorise(self.len(x), d);
        let shape = match axes {
            1 => vec![1 + (a - 1) * usize::from(a == 2), if a == 2 { 1 } else { a }, b * c],
            2 => vec![1, a, b, c],
            _ => vec![1, 1, a, b, c],
        };
        self.reshape(x, &shape)
    }

    /// Shape and window of a pool over the wire.
    fn pooled(&self, x: WireId, d: &mut Detail) -> (Vec<usize>, Window) {
        let from = self.shape(x);
        let random = window(&from[2..], d);
        let plain = Window::global(&from[2..]);
        let ceil = d.below(2) == 1;
        for window in [random, plain] {
            let Some(spatial) = window.output(&from[2..], ceil) else { continue };
            let full = |a: usize| (0..spatial[a]).all(|o| window.reads_input(a, o, from[a + 2]));
            let shape: Vec<usize> = from[..2].iter().copied().chain(spatial.clone()).collect();
            if (0..window.axes()).all(full) && shape.iter().product::<usize>() <= MAX_ELEMENTS {
                return (shape, window);
            }
        }
        unreachable!("a global window always fits")
    }

    /// A private factor of a wire, with scale and bounds of sums of `terms` products.
    fn factor(
        &mut self,
        x: WireId,
        shape: &[usize],
        terms: usize,
        d: &mut Detail,
    ) -> Option<(privet_plan::ParamId, u8, Interval)> {
        let own = magnitude(self.bounds[x.index()]).max(1) * terms as i128;
        let widest = (self.limit - 1) / 2 / own;
        let f = self.b.plan.frac_bits.min(MAX_SCALE.saturating_sub(self.scale(x)));
        // As wide as the ring allows, or as weights are.
        let most = if d.below(2) == 1 { widest } else { widest.min(2 << f) };
        if most == 0 {
            return None;
        }
        let param = self.b.param(shape, f, most as i64);
        Some((param, self.scale(x) + f, (-own * most, own * most)))
    }

    /// A private addend that leaves the sum in range.
    fn addend(&mut self, shape: &[usize], scale: u8, bounds: &mut Interval) -> privet_plan::ParamId {
        let most = ((self.limit - 1 - magnitude(*bounds)) / 2).min(4 << self.b.plan.frac_bits).max(0);
        *bounds = (bounds.0 - most, bounds.1 + most);
        self.b.param(shape, scale, most as i64)
    }

    /// The wire that `n` names among those that fit; the first input always does.
    fn pick(&self, n: usize, fits: impl Fn(&Self, WireId) -> bool) -> WireId {
        let fitting = self.fitting(fits);
        assert!(!fitting.is_empty(), "the first input always fits");
        fitting[fitting.len() - 1 - n % fitting.len()]
    }

    fn pick_or(&self, n: usize, other: WireId, fits: impl Fn(&Self, WireId) -> bool) -> WireId {
        let fitting = self.fitting(fits);
        if fitting.is_empty() { other } else { fitting[n % fitting.len()] }
    }

    fn fitting(&self, fits: impl Fn(&Self, WireId) -> bool) -> Vec<WireId> {
        (0..self.bounds.len() as u32).map(WireId).filter(|&w| fits(self, w)).collect()
    }

    /// Whether sums of `terms` products with a factor of at least one fit, and their scale.
    fn room(&self, x: WireId, terms: usize) -> bool {
        let scale_fits = self.scale(x) + self.b.plan.frac_bits <= MAX_SCALE;
        scale_fits && 2 * magnitude(self.bounds[x.index()]) * (terms as i128) < self.limit - 1
    }

    fn product(&self, x: WireId, y: WireId) -> i128 {
        magnitude(self.bounds[x.index()]) * magnitude(self.bounds[y.index()])
    }

    fn scales(&self, x: WireId, y: WireId) -> u8 {
        self.scale(x) + self.scale(y)
    }

    fn shape(&self, w: WireId) -> Vec<usize> {
        self.b.plan.shape(w).to_vec()
    }

    fn len(&self, w: WireId) -> usize {
        self.b.plan.len(w)
    }

    fn scale(&self, w: WireId) -> u8 {
        self.b.plan.steps[w.index()].frac_bits
    }

    fn push(&mut self, op: Op, inputs: &[WireId], shape: &[usize], scale: u8, bounds: Interval) -> WireId {
        assert!(bounds.0 >= -self.limit && bounds.1 < self.limit, "{op:?}: {bounds:?} of {}", self.limit);
        self.bounds.push(bounds);
        self.b.step(op, inputs, shape, scale)
    }
}

/// `n` as a product.
fn factorise<const PARTS: usize>(n: usize, d: &mut Detail) -> [usize; PARTS] {
    let mut parts = [1; PARTS];
    let (mut left, mut prime) = (n, 2);
    while left > 1 {
        while left.is_multiple_of(prime) {
            parts[d.below(PARTS)] *= prime;
            left /= prime;
        }
        prime += 1;
    }
    parts
}

/// A shape that broadcasts to `shape`.
fn narrower(shape: &[usize], d: &mut Detail) -> Vec<usize> {
    let skip = d.below(shape.len() + 1);
    shape[skip..].iter().map(|&size| if d.below(3) == 1 { 1 } else { size }).collect()
}

/// A window whose kernel fits the padded operand.
fn window(spatial: &[usize], d: &mut Detail) -> Window {
    let mut window = Window::global(spatial);
    for (axis, &size) in spatial.iter().enumerate() {
        window.kernel[axis] = 1 + d.below(size.min(3)) as u32;
        window.stride[axis] = 1 + d.below(2) as u32;
        let dilation = 1 + d.below(2) as u32;
        let (begin, end) = (d.below(2) as u32, d.below(2) as u32);
        if (window.kernel[axis] - 1) * dilation < size as u32 + begin + end {
            (window.dilation[axis], window.pad_begin[axis], window.pad_end[axis]) = (dilation, begin, end);
        }
    }
    window
}

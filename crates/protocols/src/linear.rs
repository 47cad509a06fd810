//! Steps that are linear in their operands, shared by all engines: they act alike on plain values, masked values,
//! masks and shares, modulo 2^64.

use std::num::NonZero;
use std::sync::LazyLock;

use privet_plan::{Op, ParamId, Plan, Step, Window};
use privet_ring::conv::{Conv, Taps};
use privet_ring::gemm::{gemm, gemm_packed};
use privet_ring::packed::PackedWeights;
use privet_ring::{Kernel, Ring};

/// The private tensor that a step multiplies its operand by, if it is such a step.
pub(crate) fn factor(op: &Op) -> Option<ParamId> {
    match op {
        Op::Conv { weight, .. } | Op::MatMul { weight, .. } => Some(*weight),
        Op::Scale { factor } => Some(*factor),
        _ => None,
    }
}

/// The private tensor that a step adds, if any.
pub(crate) fn addend(op: &Op) -> Option<ParamId> {
    match op {
        Op::Conv { bias, .. } | Op::MatMul { bias, .. } => *bias,
        Op::AddParam { param } => Some(*param),
        _ => None,
    }
}

/// Whether a step only moves, adds and scales its operands by public integers.
pub(crate) fn is_public_linear(op: &Op) -> bool {
    matches!(op, Op::Combine { .. } | Op::AveragePool { .. } | Op::AxisMap { .. }) || is_movement(op)
}

fn is_movement(op: &Op) -> bool {
    matches!(op, Op::Reshape | Op::Transpose { .. } | Op::Slice { .. } | Op::Pad { .. } | Op::Concat { .. })
}

/// The kernel of a ring on all cores: online, whoever multiplies is waited for by its peer. Offline, parties on one machine
/// share its cores, which costs the start of threads.
pub(crate) fn kernel(ring: Ring) -> Kernel {
    static CORES: LazyLock<NonZero<usize>> =
        LazyLock::new(|| std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN));
    Kernel::best(ring).with_threads(*CORES)
}

/// The product of a step's operand with its private tensor, without bias, modulo the 2^l that `kernel` was chosen for.
pub(crate) fn multiply(plan: &Plan, step: &Step, kernel: Kernel, x: &[u64], w: &[u64]) -> Vec<u64> {
    match &step.op {
        Op::Conv { .. } => conv(plan, step).apply(kernel, x, w),
        Op::MatMul { .. } => {
            let [rows, k, n] = matrices(plan, step);
            let mut z = vec![0; rows * n];
            gemm(kernel, rows, n, k, x, w, &mut z);
            z
        }
        Op::Scale { factor } => {
            let spec = &plan.params[factor.index()];
            broadcast(&spec.shape, &step.shape).zip(x).map(|(at, v)| v.wrapping_mul(w[at])).collect()
        }
        op => unreachable!("not a product: {op:?}"),
    }
}

/// The same by a tensor that was packed for `kernel`.
pub(crate) fn multiply_packed(
    plan: &Plan,
    step: &Step,
    kernel: Kernel,
    x: &[u64],
    w: &PackedWeights,
) -> Vec<u64> {
    match &step.op {
        Op::Conv { .. } => conv(plan, step).apply_packed(kernel, x, w),
        Op::MatMul { .. } => {
            let [rows, _, n] = matrices(plan, step);
            let mut z = vec![0; rows * n];
            gemm_packed(kernel, rows, x, w, &mut z);
            z
        }
        op => unreachable!("not a product of packed weights: {op:?}"),
    }
}

/// Sizes of a convolution.
pub(crate) fn conv<'a>(plan: &'a Plan, step: &'a Step) -> Conv<'a> {
    let Op::Conv { groups, window, .. } = &step.op else { unreachable!("not a convolution") };
    let shape = plan.shape(step.inputs[0]);
    Conv {
        batch: shape[0],
        in_channels: shape[1],
        out_channels: step.shape[1],
        groups: *groups as usize,
        window,
        input: &shape[2..],
        output: &step.shape[2..],
    }
}

/// Rows, depth and columns of a product by a matrix.
pub(crate) fn matrices(plan: &Plan, step: &Step) -> [usize; 3] {
    let Op::MatMul { weight, .. } = &step.op else { unreachable!("not a product by a matrix") };
    let [k, n] = plan.params[weight.index()].shape[..] else { unreachable!("validated: a matrix") };
    [step.shape.iter().product::<usize>() / n, k, n]
}

/// Adds a step's private addend, broadcast to the result's shape, modulo 2^64.
pub(crate) fn add(plan: &Plan, step: &Step, z: &mut [u64], values: &[u64]) {
    for_each_addend(plan, step, |i, at| z[i] = z[i].wrapping_add(values[at]));
}

/// Calls `visit(element, index of its addend)` for every element of the result.
pub(crate) fn for_each_addend(plan: &Plan, step: &Step, mut visit: impl FnMut(usize, usize)) {
    match &step.op {
        Op::Conv { .. } => {
            let channels = step.shape[1];
            let area: usize = step.shape[2..].iter().product();
            (0..step.shape.iter().product()).for_each(|i| visit(i, i / area % channels));
        }
        Op::MatMul { .. } => {
            let columns = step.shape[step.shape.len() - 1];
            (0..step.shape.iter().product()).for_each(|i| visit(i, i % columns));
        }
        Op::AddParam { param } => {
            let spec = &plan.params[param.index()];
            broadcast(&spec.shape, &step.shape).enumerate().for_each(|(i, at)| visit(i, at));
        }
        op => unreachable!("adds nothing: {op:?}"),
    }
}

/// A public linear step modulo 2^64; `constant` says whether public constants are added (to one share only).
pub(crate) fn apply(plan: &Plan, step: &Step, operands: &[&[u64]], constant: bool) -> Vec<u64> {
    match &step.op {
        Op::Combine { coefficients, constant: value } => {
            let start = if constant { *value as u64 } else { 0 };
            let mut z = vec![start; operands[0].len()];
            for (&factor, x) in coefficients.iter().zip(operands) {
                z.iter_mut().zip(*x).for_each(|(z, v)| *z = z.wrapping_add(v.wrapping_mul(factor as u64)));
            }
            z
        }
        Op::AveragePool { window, .. } => {
            let factors = reciprocals(plan, step);
            let sums = pool(plan, step, window, operands[0], |sum: u64, v| sum.wrapping_add(v));
            sums.zip(factors.iter().cycle()).map(|(sum, f)| sum.wrapping_mul(*f as u64)).collect()
        }
        Op::AxisMap { .. } => axis_map(plan, step, operands[0], |sum: u64, coefficient, v| {
            sum.wrapping_add(v.wrapping_mul(coefficient as u64))
        }),
        _ => movement(plan, step, operands),
    }
}

/// A public sparse matrix along one axis; `add(sum, coefficient, element)` accumulates from the default value.
pub(crate) fn axis_map<T: Copy, S: Copy + Default>(
    plan: &Plan,
    step: &Step,
    x: &[T],
    add: impl Fn(S, i64, T) -> S,
) -> Vec<S> {
    let Op::AxisMap { axis, rows, .. } = &step.op else { unreachable!("not an axis map") };
    let from = plan.shape(step.inputs[0]);
    let inner: usize = from[*axis as usize + 1..].iter().product();
    let slab = from[*axis as usize] * inner;
    let mut z = vec![S::default(); step.shape.iter().product()];
    for (from, to) in x.chunks_exact(slab).zip(z.chunks_exact_mut(rows.len() * inner)) {
        for (row, to) in rows.iter().zip(to.chunks_exact_mut(inner)) {
            for tap in row {
                let from = &from[tap.index as usize * inner..][..inner];
                to.iter_mut().zip(from).for_each(|(sum, v)| *sum = add(*sum, tap.coefficient, *v));
            }
        }
    }
    z
}

/// Whether a step multiplies two wires.
pub(crate) fn is_bilinear(op: &Op) -> bool {
    matches!(op, Op::Multiply | Op::BatchMatMul)
}

/// The product of two operands of a step, modulo the 2^l that `kernel` was chosen for.
pub(crate) fn bilinear(plan: &Plan, step: &Step, kernel: Kernel, x: &[u64], y: &[u64]) -> Vec<u64> {
    match &step.op {
        Op::Multiply => x.iter().zip(y).map(|(a, b)| a.wrapping_mul(*b)).collect(),
        Op::BatchMatMul => {
            let (a, b) = (plan.shape(step.inputs[0]), plan.shape(step.inputs[1]));
            let ([.., m, k], [.., n]) = (a, b) else { unreachable!("validated: matrices") };
            let (m, k, n) = (*m, *k, *n);
            let mut z = vec![0; step.shape.iter().product()];
            for ((x, y), z) in x.chunks_exact(m * k).zip(y.chunks_exact(k * n)).zip(z.chunks_exact_mut(m * n))
            {
                gemm(kernel, m, n, k, x, y, z);
            }
            z
        }
        op => unreachable!("not a product of two wires: {op:?}"),
    }
}

/// round(2^bits / count) for every output position of an average pool.
pub(crate) fn reciprocals(plan: &Plan, step: &Step) -> Vec<i64> {
    let Op::AveragePool { window, count_include_pad, reciprocal_bits } = &step.op else {
        unreachable!("not an average pool")
    };
    let input = &plan.shape(step.inputs[0])[2..];
    let output = &step.shape[2..];
    let taps = Taps::new(window, input, output);
    (0..taps.positions())
        .map(|p| {
            let count =
                if *count_include_pad { padded_count(window, input, output, p) } else { taps.of(p).count() };
            (((1u64 << reciprocal_bits) + count as u64 / 2) / count as u64) as i64
        })
        .collect()
}

/// Kernel positions of an output position that lie in the input or its declared padding (not in a ceil_mode overhang).
fn padded_count(window: &Window, input: &[usize], output: &[usize], position: usize) -> usize {
    (0..window.axes())
        .map(|a| {
            let inner: usize = output[a + 1..].iter().product();
            let start = position / inner % output[a] * window.stride[a] as usize;
            let limit = input[a] + (window.pad_begin[a] + window.pad_end[a]) as usize;
            (0..window.kernel[a] as usize)
                .filter(|k| start + k * (window.dilation[a] as usize) < limit)
                .count()
        })
        .product()
}

/// Folds every window of `x` from the default value.
pub(crate) fn pool<'a, T: Copy + Default + 'a>(
    plan: &Plan,
    step: &Step,
    window: &Window,
    x: &'a [T],
    fold: impl Fn(T, T) -> T + Copy + 'a,
) -> impl Iterator<Item = T> + 'a {
    let input = &plan.shape(step.inputs[0])[2..];
    let area: usize = input.iter().product();
    let taps = Taps::new(window, input, &step.shape[2..]);
    x.chunks_exact(area).flat_map(move |channel| {
        let sums: Vec<T> = (0..taps.positions())
            .map(|p| taps.of(p).fold(T::default(), |sum, at| fold(sum, channel[at])))
            .collect();
        sums
    })
}

/// A step that only moves elements.
pub(crate) fn movement<T: Copy + Default>(plan: &Plan, step: &Step, operands: &[&[T]]) -> Vec<T> {
    let x = operands[0];
    let from = plan.shape(step.inputs[0]);
    let in_strides = strides(from);
    match &step.op {
        Op::Reshape => x.to_vec(),
        Op::Transpose { perm } => {
            let strides: Vec<isize> = perm.iter().map(|&a| in_strides[a as usize] as isize).collect();
            walk(&step.shape, 0, &strides).map(|at| x[at]).collect()
        }
        Op::Slice { starts, steps } => {
            let start: usize = starts.iter().zip(&in_strides).map(|(&s, stride)| s as usize * stride).sum();
            let strides: Vec<isize> =
                steps.iter().zip(&in_strides).map(|(&s, &stride)| s as isize * stride as isize).collect();
            walk(&step.shape, start, &strides).map(|at| x[at]).collect()
        }
        Op::Pad { before } => {
            let out_strides = strides(&step.shape);
            let start: usize = before.iter().zip(&out_strides).map(|(&b, stride)| b as usize * stride).sum();
            let mut z = vec![T::default(); step.shape.iter().product()];
            let steps: Vec<isize> = out_strides.iter().map(|&s| s as isize).collect();
            walk(from, start, &steps).zip(x).for_each(|(at, v)| z[at] = *v);
            z
        }
        Op::Concat { axis } => {
            let axis = *axis as usize;
            let outer: usize = step.shape[..axis].iter().product();
            let mut z = Vec::with_capacity(step.shape.iter().product());
            for o in 0..outer {
                for (&wire, x) in step.inputs.iter().zip(operands) {
                    let run: usize = plan.shape(wire)[axis..].iter().product();
                    z.extend_from_slice(&x[o * run..][..run]);
                }
            }
            z
        }
        op => unreachable!("not a movement: {op:?}"),
    }
}

/// Row-major strides.
fn strides(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|a| shape[a + 1..].iter().product()).collect()
}

/// Offsets of all index tuples of `shape` in row-major order, from `start` along signed `strides`.
fn walk(shape: &[usize], start: usize, strides: &[isize]) -> impl Iterator<Item = usize> + use<> {
    let total: usize = shape.iter().product();
    let mut index = vec![0usize; shape.len()];
    let (shape, strides) = (shape.to_vec(), strides.to_vec());
    let mut at = start as isize;
    (0..total).map(move |_| {
        let here = at as usize;
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis] as isize;
            index[axis] = 0;
        }
        here
    })
}

/// Index into a tensor of shape `from` for every element of `to` (numpy's broadcasting).
fn broadcast(from: &[usize], to: &[usize]) -> impl Iterator<Item = usize> + use<> {
    let own = strides(from);
    let missing = to.len() - from.len();
    let strides: Vec<isize> = (0..to.len())
        .map(|a| if a < missing || from[a - missing] == 1 { 0 } else { own[a - missing] as isize })
        .collect();
    walk(to, 0, &strides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walk_handles_negative_strides() {
        assert_eq!(walk(&[2, 3], 5, &[-3, -1]).collect::<Vec<_>>(), [5, 4, 3, 2, 1, 0]);
    }

    #[test]
    fn broadcasting_repeats_axes_of_one() {
        assert_eq!(broadcast(&[2, 1], &[1, 2, 3]).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);
        assert_eq!(broadcast(&[], &[2]).collect::<Vec<_>>(), [0, 0]);
    }

    #[test]
    fn ceil_overhang_is_not_counted_as_padding() {
        let window = Window {
            kernel: vec![3],
            stride: vec![2],
            dilation: vec![1],
            pad_begin: vec![1],
            pad_end: vec![0],
        };
        // Input of 4: positions -1, 0, .., 3; the third window starts at 3 and has one element.
        assert_eq!((0..3).map(|p| padded_count(&window, &[4], &[3], p)).collect::<Vec<_>>(), [3, 3, 1]);
    }
}

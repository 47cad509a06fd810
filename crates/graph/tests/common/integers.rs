//! The meaning of a plan, step by step on plain integers, as slowly and plainly as it can be said: an oracle for the
//! lowering that shares no code with the engines. Panics on overflow of the wire's range.

use privet_graph::Compiled;
use privet_plan::{Op, ParamId, Plan, Step, Window};
use privet_ring::fixed;

type Wire = Vec<i64>;

/// Runs a compiled model on float inputs; returns the float outputs before any final function.
pub(crate) fn run(compiled: &Compiled, inputs: &[Vec<f32>]) -> Vec<Vec<f64>> {
    let plan = &compiled.plan;
    let mut wires: Vec<Wire> = Vec::new();
    for step in &plan.steps {
        let wire = evaluate(compiled, &wires, step, inputs);
        let limit = 1i64 << (plan.ring.bits() - 2);
        assert_eq!(wire.len(), step.shape.iter().product::<usize>(), "{}", step.name);
        assert!(wire.iter().all(|v| (-limit..limit).contains(v)), "{} overflows", step.name);
        wires.push(wire);
    }
    let output = |wire: usize| -> Vec<f64> {
        let frac_bits = u32::from(plan.steps[wire].frac_bits);
        wires[wire].iter().map(|&v| fixed::decode(v, frac_bits)).collect()
    };
    plan.outputs.iter().map(|o| output(o.wire.index())).collect()
}

fn evaluate(compiled: &Compiled, wires: &[Wire], step: &Step, inputs: &[Vec<f32>]) -> Wire {
    let plan = &compiled.plan;
    let x = |i: usize| &wires[step.inputs[i].index()];
    let x_shape = || plan.shape(step.inputs[0]);
    let weight = |p: &ParamId| &compiled.weights.tensors[p.index()];
    match &step.op {
        Op::Input { input } => {
            let encode =
                |&v: &f32| fixed::encode(f64::from(v), plan.ring.bits(), u32::from(plan.frac_bits)).unwrap();
            inputs[*input as usize].iter().map(encode).collect()
        }
        Op::Combine { coefficients, constant } => (0..x(0).len())
            .map(|e| coefficients.iter().enumerate().map(|(j, c)| c * x(j)[e]).sum::<i64>() + constant)
            .collect(),
        Op::Conv { weight: w, bias, groups, window } => {
            let mut y = convolve(x(0), x_shape(), weight(w), *groups as usize, window, &step.shape);
            if let Some(bias) = bias {
                let plane: usize = step.shape[2..].iter().product();
                y.iter_mut().enumerate().for_each(|(i, v)| *v += weight(bias)[i / plane % step.shape[1]]);
            }
            y
        }
        Op::MatMul { weight: w, bias } => {
            let (k, n) = (*x_shape().last().unwrap(), *step.shape.last().unwrap());
            let product =
                |i: usize| (0..k).map(|j| x(0)[i / n * k + j] * weight(w)[j * n + i % n]).sum::<i64>();
            let addend = |i: usize| bias.as_ref().map_or(0, |b| weight(b)[i % n]);
            (0..step.shape.iter().product()).map(|i| product(i) + addend(i)).collect()
        }
        Op::Scale { factor } => broadcast(plan, *factor, step, |i, p| x(0)[i] * weight(factor)[p]),
        Op::AddParam { param } => broadcast(plan, *param, step, |i, p| x(0)[i] + weight(param)[p]),
        Op::AveragePool { window, count_include_pad, reciprocal_bits } => {
            let one = f64::from(*reciprocal_bits).exp2();
            windows(x(0), x_shape(), window, &step.shape, |elements, padded| {
                let count = if *count_include_pad { padded } else { elements.len() };
                elements.iter().sum::<i64>() * (one / count as f64).round() as i64
            })
        }
        Op::Multiply => x(0).iter().zip(x(1)).map(|(a, b)| a * b).collect(),
        Op::BatchMatMul => {
            let (from, n) = (x_shape(), *step.shape.last().unwrap());
            let (m, k) = (from[from.len() - 2], from[from.len() - 1]);
            let element = |i: usize| {
                let (batch, row, column) = (i / (m * n), i / n % m, i % n);
                (0..k).map(|j| x(0)[(batch * m + row) * k + j] * x(1)[(batch * k + j) * n + column]).sum()
            };
            (0..step.shape.iter().product()).map(element).collect()
        }
        Op::AxisMap { axis, rows, .. } => {
            let axis = *axis as usize;
            let element = |i: usize| {
                let to = position(i, &step.shape);
                let from = |index: u32| {
                    let at = to.iter().enumerate().map(|(a, &p)| if a == axis { index as usize } else { p });
                    at.zip(x_shape()).fold(0, |flat, (p, d)| flat * d + p)
                };
                rows[to[axis]].iter().map(|tap| tap.coefficient * x(0)[from(tap.index)]).sum()
            };
            (0..step.shape.iter().product()).map(element).collect()
        }
        Op::NonNegative { .. } => x(0).iter().map(|&v| i64::from(v >= 0)).collect(),
        Op::Select { .. } => {
            x(1).iter().enumerate().map(|(i, &t)| if x(0)[i % x(0).len()] >= 0 { t } else { 0 }).collect()
        }
        Op::Table { entries } => x(0).iter().map(|&v| entries[v as usize]).collect(),
        Op::MaxPool { window, .. } => {
            windows(x(0), x_shape(), window, &step.shape, |elements, _| *elements.iter().max().unwrap())
        }
        Op::Trunc { shift } => x(0).iter().map(|v| v >> shift).collect(),
        Op::Relu { shift, .. } => x(0).iter().map(|v| v.max(&0) >> shift).collect(),
        Op::Reshape => x(0).clone(),
        Op::Transpose { perm } => gather(x(0), x_shape(), &step.shape, |to, from| {
            perm.iter().zip(to).for_each(|(&p, &t)| from[p as usize] = t as i64);
        }),
        Op::Slice { starts, steps } => gather(x(0), x_shape(), &step.shape, |to, from| {
            (0..to.len()).for_each(|a| from[a] = i64::from(starts[a]) + to[a] as i64 * i64::from(steps[a]));
        }),
        Op::Pad { before } => gather(x(0), x_shape(), &step.shape, |to, from| {
            (0..to.len()).for_each(|a| from[a] = to[a] as i64 - i64::from(before[a]));
        }),
        Op::Concat { axis } => {
            let axis = *axis as usize;
            let rows: usize = step.shape[..axis].iter().product();
            let row = |i: usize| x(i).len() / rows;
            let part = |r: usize, i: usize| x(i)[r * row(i)..(r + 1) * row(i)].to_vec();
            (0..rows).flat_map(|r| (0..step.inputs.len()).flat_map(move |i| part(r, i))).collect()
        }
    }
}

fn position(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut at = vec![0; shape.len()];
    for axis in (0..shape.len()).rev() {
        at[axis] = flat % shape[axis];
        flat /= shape[axis];
    }
    at
}

/// Elements at the positions that `f` derives; 0 where they lie outside.
fn gather(x: &[i64], from: &[usize], to: &[usize], f: impl Fn(&[usize], &mut [i64])) -> Wire {
    let mut at = vec![0; from.len()];
    let element = |i: usize| {
        f(&position(i, to), &mut at);
        let inside = at.iter().zip(from).all(|(&p, &d)| (0..d as i64).contains(&p));
        if inside { x[at.iter().zip(from).fold(0, |flat, (&p, &d)| flat * d + p as usize)] } else { 0 }
    };
    (0..to.iter().product()).map(element).collect()
}

fn broadcast(plan: &Plan, param: ParamId, step: &Step, f: impl Fn(usize, usize) -> i64) -> Wire {
    let shape = &plan.params[param.index()].shape;
    let skip = step.shape.len() - shape.len();
    let source = |i: usize| {
        let at = position(i, &step.shape);
        shape.iter().zip(&at[skip..]).fold(0, |flat, (&d, &p)| flat * d + if d == 1 { 0 } else { p })
    };
    (0..step.shape.iter().product()).map(|i| f(i, source(i))).collect()
}

/// Every window's elements, and how many of its positions lie in the input or the declared padding.
fn windows(x: &[i64], from: &[usize], w: &Window, to: &[usize], f: impl Fn(&[i64], usize) -> i64) -> Wire {
    let (spatial, out) = (&from[2..], &to[2..]);
    let (in_len, out_len): (usize, usize) = (spatial.iter().product(), out.iter().product());
    let kernel: Vec<usize> = w.kernel.iter().map(|&k| k as usize).collect();
    let window = |i: usize| {
        let (plane, o) = (i / out_len * in_len, position(i % out_len, out));
        let (mut elements, mut padded) = (Vec::new(), 0);
        for k in 0..w.kernel_len() {
            let k = position(k, &kernel);
            let declared = |a: usize| {
                let end = spatial[a] + (w.pad_begin[a] + w.pad_end[a]) as usize;
                o[a] * w.stride[a] as usize + k[a] * (w.dilation[a] as usize) < end
            };
            padded += usize::from((0..k.len()).all(declared));
            let flat = (0..k.len()).try_fold(0, |flat, a| {
                Some(flat * spatial[a] + w.input_position(a, o[a], k[a], spatial[a])?)
            });
            elements.extend(flat.map(|flat| x[plane + flat]));
        }
        f(&elements, padded)
    };
    (0..to.iter().product()).map(window).collect()
}

fn convolve(x: &[i64], from: &[usize], weight: &[i64], groups: usize, w: &Window, to: &[usize]) -> Wire {
    let (spatial, out) = (&from[2..], &to[2..]);
    let (in_len, out_len): (usize, usize) = (spatial.iter().product(), out.iter().product());
    let (channels, filters, kernel) = (from[1] / groups, to[1], w.kernel_len());
    let sizes: Vec<usize> = w.kernel.iter().map(|&k| k as usize).collect();
    let mut y = vec![0i64; to.iter().product()];
    for k in 0..kernel {
        let at = position(k, &sizes);
        for o in 0..out_len {
            let out_at = position(o, out);
            let read = (0..at.len()).try_fold(0, |flat, a| {
                Some(flat * spatial[a] + w.input_position(a, out_at[a], at[a], spatial[a])?)
            });
            let Some(read) = read else { continue };
            for n in 0..from[0] {
                for filter in 0..filters {
                    let first = n * from[1] + filter / (filters / groups) * channels;
                    let sum = (0..channels)
                        .map(|c| {
                            x[(first + c) * in_len + read] * weight[(filter * channels + c) * kernel + k]
                        })
                        .sum::<i64>();
                    y[(n * filters + filter) * out_len + o] += sum;
                }
            }
        }
    }
    y
}

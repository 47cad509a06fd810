//! Worst-case errors of functions by tables, on whole domains and beyond.

mod common;

use common::integers;
use ndarray::{ArrayD, IxDyn};
use privet_graph::ops::{
    Erf, Gelu, Identity, InstanceNormalization, Lrn, MeanVarianceNormalization, Sigmoid, Tanh,
};
use privet_graph::{CompileOptions, Compiled, Dim, Graph, GraphError, Operator, ValueId, compile};
use privet_plan::Preprocess;
use privet_ring::Ring;

fn compiled(
    op: impl Operator,
    shape: &[usize],
    constants: &[ArrayD<f32>],
    (ring, frac_bits): (u32, u8),
) -> Result<Compiled, GraphError> {
    let mut graph = Graph::new("test");
    let x = graph.input("x", shape.iter().map(|&d| Dim::Fixed(d)).collect());
    let operands: Vec<ValueId> =
        [x].into_iter().chain(constants.iter().map(|c| graph.constant(c.clone()))).collect();
    let y = graph.node("node", op, &operands);
    graph.output("y", y);
    compile_graph(&graph, (ring, frac_bits))
}

fn compile_graph(graph: &Graph, (ring, frac_bits): (u32, u8)) -> Result<Compiled, GraphError> {
    let options = CompileOptions {
        ring: Ring::new(ring).unwrap(),
        frac_bits,
        input_shapes: Vec::new(),
        preprocess: Preprocess::default(),
        labels: Vec::new(),
    };
    compile(graph, &options)
}

/// Pairs of what the integer program computes and what it should.
fn run(compiled: &Compiled, x: &[f32]) -> Vec<(f64, f64)> {
    let shape = IxDyn(&compiled.plan.inputs[0].shape);
    let input = ArrayD::from_shape_vec(shape, x.to_vec()).unwrap();
    let float = compiled.float.run(std::slice::from_ref(&input)).unwrap();
    let found = integers::run(compiled, &[x.to_vec()]);
    found[0].iter().copied().zip(float[0].iter().map(|&v| f64::from(v))).collect()
}

/// From 0 to `end`, denser near 0; exact at 8 fractional bits.
fn sweep(count: usize, end: f32) -> Vec<f32> {
    let at = |i: usize| {
        let t = i as f32 / (count - 1) as f32;
        let x = end * (0.2 * t + 0.8 * t * t);
        (x * 256.0).floor() / 256.0
    };
    (0..count).map(at).collect()
}

/// The declared errors hold on the whole domain and far beyond, in every ring, with cells of many units, of one, and fewer units
/// than cells.
#[test]
fn smooth_functions_over_their_whole_domains_and_beyond() {
    fn worst(op: impl Operator + Copy, (ring, frac_bits): (u32, u8)) -> f64 {
        let last = (-f64::from(frac_bits)).exp2();
        // What the operand's own rounding makes, and the result's.
        let x: Vec<f32> = (-24_000..24_000)
            .map(|i| ((f64::from(i) * 0.000_917 / last).floor() * last) as f32)
            .chain([-4000.0, -40.0, 40.0, 4000.0])
            .collect();
        let mut graph = Graph::new("test");
        let input = graph.input("x", vec![Dim::Fixed(x.len())]);
        let y = graph.node("node", op, &[input]);
        // Not the last operator, which the receiver might compute.
        let y = graph.node("after", Identity, &[y]);
        let z = graph.node("sum", privet_graph::ops::Add, &[y, y]);
        graph.output("z", z);
        let compiled = compile_graph(&graph, (ring, frac_bits)).unwrap();
        let pairs = run(&compiled, &x);
        pairs.into_iter().map(|(a, b)| (a - b).abs() / 2.0 - 2.0 * last).fold(0.0, f64::max)
    }
    for options in [(64, 16), (48, 20), (40, 12), (32, 8), (28, 5), (24, 3)] {
        assert!(worst(Sigmoid, options) <= 1e-4, "Sigmoid at {options:?}: {}", worst(Sigmoid, options));
        assert!(worst(Tanh, options) <= 2e-4, "Tanh at {options:?}: {}", worst(Tanh, options));
        assert!(worst(Erf, options) <= 6e-5, "Erf at {options:?}: {}", worst(Erf, options));
        for tanh in [false, true] {
            let gelu = worst(Gelu { tanh }, options);
            assert!(gelu <= 1.5e-4, "Gelu at {options:?}, {tanh}: {gelu}");
        }
    }
    // The bounds are about what is reached: half of them is not enough.
    assert!(worst(Tanh, (64, 16)) > 1e-4 && worst(Sigmoid, (64, 16)) > 5e-5);
}

#[test]
fn the_factor_of_lrn_over_its_whole_domain() {
    let options = [(64, 16), (56, 16), (64, 20), (40, 10)];
    let models =
        [(1.0f32, 0.75f32, 1.0f32), (1.5, 0.75, 1.0), (2.9, 1.0, 2.0), (1.0, 0.5, 1.0), (0.02, 0.75, 1.0)];
    for (ring, frac_bits) in options {
        for (alpha, beta, bias) in models {
            let op = Lrn { alpha, beta, bias, size: 1 };
            let end = (54.0 * bias / alpha).sqrt();
            let x = sweep(4000, end);
            let compiled = compiled(op, &[1, 1, x.len()], &[], (ring, frac_bits)).unwrap();
            // The last fractional bits of the result and, relative to the operand, of the factor.
            let last = f64::from(-i32::from(frac_bits)).exp2();
            let (mut worst, mut near) = (0.0f64, 0.0f64);
            for ((found, expected), x) in run(&compiled, &x).into_iter().zip(&x) {
                let allowed = 1.5 * last + f64::from(*x) * last / 2.0;
                let error = ((found - expected).abs() - allowed).max(0.0) / expected.max(1e-9);
                worst = worst.max(error);
                if alpha / bias * x * x < 0.5 {
                    near = near.max(error);
                }
            }
            assert!(worst < 2e-3, "{alpha} {beta} {bias} at {ring}/{frac_bits}: {worst}");
            assert!(near < 3e-4, "{alpha} {beta} {bias} at {ring}/{frac_bits}, near 0: {near}");
        }
    }
}

#[test]
fn beyond_its_domain_lrn_stays_at_the_end() {
    let op = Lrn { alpha: 1.0, beta: 0.75, bias: 1.0, size: 1 };
    let compiled = compiled(op, &[1, 1, 3], &[], (64, 16)).unwrap();
    let y = run(&compiled, &[20.0, 200.0, 2000.0]);
    assert!(y.windows(2).all(|w| (w[1].0 / w[0].0 - 10.0).abs() < 1e-3), "{y:?}");
}

#[test]
fn lrn_sums_over_its_channels() {
    for size in [1, 2, 3, 4, 5, 9] {
        let op = Lrn { alpha: 0.1, beta: 0.75, bias: 1.0, size };
        let x: Vec<f32> = (0..2 * 7 * 6).map(|i| ((i * 37 + 11) % 101) as f32 / 16.0 - 3.0).collect();
        let compiled = compiled(op, &[2, 7, 2, 3], &[], (64, 16)).unwrap();
        for (found, expected) in run(&compiled, &x) {
            assert!((found - expected).abs() < 1e-3, "size {size}: {found} instead of {expected}");
        }
    }
}

#[test]
fn instance_normalisation_over_many_magnitudes() {
    let (scale, shift) = (
        ArrayD::from_shape_vec(IxDyn(&[1]), vec![1.5f32]).unwrap(),
        ArrayD::from_shape_vec(IxDyn(&[1]), vec![-0.25f32]).unwrap(),
    );
    for (ring, frac_bits, epsilon) in [(64, 16, 1e-5), (64, 20, 1e-5), (64, 16, 1e-3), (60, 14, 1e-3)] {
        for count in [2usize, 3, 7, 64, 100] {
            let op = InstanceNormalization { epsilon };
            let compiled =
                compiled(op, &[1, 1, count], &[scale.clone(), shift.clone()], (ring, frac_bits)).unwrap();
            // Standard deviations from 1/16 to 200, mean far from 0.
            for power in -4..8 {
                let factor = (power as f32).exp2();
                let x: Vec<f32> =
                    (0..count).map(|i| (((i * 37 + 11) % 101) as f32 / 32.0 - 1.0) * factor + 5.0).collect();
                for (found, expected) in run(&compiled, &x) {
                    let error = (found - expected).abs() / expected.abs().max(1.0);
                    assert!(error < 1e-3, "{count} values at 2^{power}: {found} instead of {expected}");
                }
            }
            // No variance at all.
            for (found, _) in run(&compiled, &vec![3.0; count]) {
                assert!((found + 0.25).abs() < 0.01, "{found}");
            }
        }
    }
}

#[test]
fn variances_beyond_the_domain_do_not_leave_the_table() {
    let one = ArrayD::from_shape_vec(IxDyn(&[1]), vec![1.0f32]).unwrap();
    let op = InstanceNormalization { epsilon: 1e-5 };
    let compiled = compiled(op, &[1, 1, 2], &[one.clone(), one], (64, 16)).unwrap();
    let y = run(&compiled, &[4096.0, -4096.0]);
    // A deviation of 4096 counts as 256.
    assert!((y[0].0 - 17.0).abs() < 0.02 && (y[1].0 + 15.0).abs() < 0.02, "{y:?}");
}

#[test]
fn mean_variance_normalisation_over_any_axes() {
    let x: Vec<f32> = (0..2 * 3 * 4 * 5).map(|i| ((i * 37 + 11) % 101) as f32 / 16.0 - 3.0).collect();
    for axes in [vec![0, 2, 3], vec![-1], vec![1, 0]] {
        let op = MeanVarianceNormalization { axes: axes.clone() };
        let compiled = compiled(op, &[2, 3, 4, 5], &[], (64, 16)).unwrap();
        for (found, expected) in run(&compiled, &x) {
            assert!((found - expected).abs() < 1e-3, "{axes:?}: {found} instead of {expected}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_with_advice() {
    let refusal = |op: Lrn, options| match compiled(op, &[1, 1, 1], &[], options) {
        Ok(_) => panic!("this must not compile"),
        Err(error) => error.to_string(),
    };
    let op = Lrn { alpha: 1.0, beta: 0.75, bias: 1.0, size: 1 };
    let message = refusal(op, (24, 10));
    assert!(message.contains("--ring") && message.contains("LRN"), "{message}");
    for op in [Lrn { alpha: -1.0, ..op }, Lrn { bias: 0.0, ..op }, Lrn { beta: f32::NAN, ..op }] {
        assert!(refusal(op, (64, 16)).contains("supported"));
    }
}

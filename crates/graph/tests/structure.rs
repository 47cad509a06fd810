//! Operators that move, repeat, sum and interpolate elements, lowered and run as integer programs against the float model.

mod common;

use common::integers;
use ndarray::{ArrayD, IxDyn};
use privet_graph::ops::{
    Add, Aspect, BatchNormalization, ConvTranspose, CumSum, Einsum, Gemm, MatMul, Mean, Mul, Pad, PadMode,
    Pow, Reduce, Relu, Resize, SpaceToDepth, Split, Tile,
};
use privet_graph::{
    CompileOptions, Compiled, Coordinates, Dim, Graph, Interpolation, Node, Operator, Rounding, Tensor,
    ValueId, WindowSpec, compile,
};
use privet_plan::{Op, Preprocess};
use privet_ring::Ring;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const FRAC_BITS: u8 = 16;

/// Values that follow no pattern the operators could exploit, exact at 8 fractional bits.
fn ramp(shape: &[usize]) -> ArrayD<f32> {
    let count = shape.iter().product();
    let value = |i: usize| ((i * 37 + 11) % 101) as f32 / 16.0 - 3.0;
    ArrayD::from_shape_vec(IxDyn(shape), (0..count).map(value).collect()).unwrap()
}

fn ints(graph: &mut Graph, values: &[i64]) -> ValueId {
    graph.constant(Tensor::from_ints(values.to_vec()))
}

/// Inputs of these shapes, a graph over them, both programs, compared.
fn check(shapes: &[&[usize]], build: impl Fn(&mut Graph, &[ValueId]) -> ValueId) -> Compiled {
    let mut graph = Graph::new("test");
    let dims = |s: &&[usize]| s.iter().map(|&d| Dim::Fixed(d)).collect();
    let inputs: Vec<ValueId> =
        shapes.iter().enumerate().map(|(i, s)| graph.input(format!("x{i}"), dims(s))).collect();
    let y = build(&mut graph, &inputs);
    graph.output("y", y);
    let options = CompileOptions {
        ring: Ring::new(64).unwrap(),
        frac_bits: FRAC_BITS,
        input_shapes: Vec::new(),
        preprocess: Preprocess::default(),
        labels: Vec::new(),
    };
    let compiled = compile(&graph, &options).unwrap();
    let values: Vec<ArrayD<f32>> = shapes.iter().map(|s| ramp(s)).collect();
    let float = compiled.float.run(&values).unwrap();
    let flat: Vec<Vec<f32>> = values.iter().map(|v| v.iter().copied().collect()).collect();
    let found = integers::run(&compiled, &flat);
    assert_eq!(found[0].len(), float[0].len());
    for (found, expected) in found[0].iter().zip(&float[0]) {
        let expected = f64::from(*expected);
        assert!((found - expected).abs() < 2e-3 * (1.0 + expected.abs()), "{found} instead of {expected}");
    }
    compiled
}

fn count(compiled: &Compiled, f: impl Fn(&Op) -> bool) -> usize {
    compiled.plan.steps.iter().filter(|s| f(&s.op)).count()
}

fn truncations(compiled: &Compiled) -> usize {
    count(compiled, |op| matches!(op, Op::Trunc { .. }))
}

/// A node with several results.
fn results(graph: &mut Graph, op: impl Operator, inputs: &[ValueId], count: usize) -> Vec<ValueId> {
    let outputs: Vec<ValueId> = (0..count).map(|_| graph.value()).collect();
    graph.nodes.push(Node {
        name: "parts".into(),
        op: std::sync::Arc::new(op),
        inputs: inputs.iter().copied().map(Some).collect(),
        outputs: outputs.clone(),
    });
    outputs
}

#[test]
fn parts_of_a_split_are_values_of_their_own() {
    let compiled = check(&[&[2, 7, 3]], |graph, x| {
        let parts = results(graph, Split { axis: 1, parts: 3, uneven: true }, x, 3);
        let sum = graph.node("sum", Add, &[parts[0], parts[1]]);
        graph.node("last", Add, &[sum, parts[2]])
    });
    assert_eq!(count(&compiled, |op| matches!(op, Op::Slice { .. })), 3);
    assert_eq!(truncations(&compiled), 0);
}

#[test]
fn empty_parts_matter_only_to_readers() {
    check(&[&[2, 3]], |graph, x| {
        let lengths = ints(graph, &[0, 3]);
        results(graph, Split { axis: 1, parts: 2, uneven: false }, &[x[0], lengths], 2)[1]
    });
}

#[test]
fn layouts_after_a_product_keep_it_pending() {
    let compiled = check(&[&[1, 2, 4, 6]], |graph, x| {
        let factor = graph.constant(ramp(&[2, 1, 1]));
        let scaled = graph.node("scale", Mul, &[x[0], factor]);
        let packed = graph.node("pack", SpaceToDepth { block: 2, channel_first: true }, &[scaled]);
        let pads = ints(graph, &[0, 0, 1, -1, 0, 0, 2, 3]);
        let padded = graph.node("pad", Pad { mode: PadMode::Reflect }, &[packed, pads]);
        let repeats = ints(graph, &[2, 1, 1, 2]);
        let tiled = graph.node("tile", Tile, &[padded, repeats]);
        let pads = ints(graph, &[0, 0, 0, 2, 0, -3, 1, 0]);
        let wrapped = graph.node("wrap", Pad { mode: PadMode::Wrap }, &[tiled, pads]);
        graph.node("relu", Relu, &[wrapped])
    });
    assert_eq!(truncations(&compiled), 0, "the ReLU takes the truncation in");
}

#[test]
fn sums_and_means_cost_one_public_matrix() {
    for (mean, bits) in [(false, 0), (true, 3)] {
        let compiled = check(&[&[4, 3, 2, 5]], |graph, x| {
            let axes = ints(graph, &[0, -2]);
            graph.node("reduce", Reduce { mean, keep_dims: false, empty_is_none: false }, &[x[0], axes])
        });
        // The mean of eight elements only moves the binary point.
        let exact = |op: &Op| match op {
            Op::AxisMap { rows, coefficient_bits, .. } => {
                *coefficient_bits == bits && rows[0].len() == 8 && rows[0].iter().all(|t| t.coefficient == 1)
            }
            _ => false,
        };
        assert_eq!(count(&compiled, exact), 1);
        assert_eq!(truncations(&compiled), usize::from(mean));
    }
    check(&[&[2, 3, 7]], |graph, x| {
        let mean = Reduce { mean: true, keep_dims: true, empty_is_none: false };
        graph.node("reduce", mean, x)
    });
}

#[test]
fn means_of_operands_broadcast_and_take_constants() {
    check(&[&[2, 3], &[3]], |graph, x| {
        let c = graph.constant(ramp(&[2, 1]));
        graph.node("mean", Mean, &[x[0], c, x[1]])
    });
    let compiled = check(&[&[2, 3], &[2, 3]], |graph, x| graph.node("mean", Mean, x));
    assert_eq!(truncations(&compiled), 1);
}

#[test]
fn doubling_an_image_is_exact_in_few_bits() {
    let resize = |interpolation| Resize {
        interpolation,
        coordinates: Coordinates::HalfPixel,
        antialias: false,
        exclude_outside: false,
        extrapolation: 0.0,
        aspect: Aspect::Stretch,
        axes: Some(vec![2, 3]),
    };
    let run = |interpolation| {
        check(&[&[1, 2, 3, 4]], |graph, x| {
            let sizes = ints(graph, &[6, 8]);
            let y = graph.node("resize", resize(interpolation), &[x[0]]);
            let node = graph.nodes.last_mut().unwrap();
            node.inputs.extend([None, None, Some(sizes)]);
            y
        })
    };
    let bits = |compiled: &Compiled| {
        let of = |op: &Op| {
            if let Op::AxisMap { coefficient_bits, .. } = op { Some(*coefficient_bits) } else { None }
        };
        compiled.plan.steps.iter().filter_map(|s| of(&s.op)).collect::<Vec<u8>>()
    };
    let nearest = run(Interpolation::Nearest(Rounding::PreferFloor));
    assert_eq!((bits(&nearest), truncations(&nearest)), (vec![0, 0], 0));
    let linear = run(Interpolation::Linear);
    assert_eq!((bits(&linear), truncations(&linear)), (vec![2, 2], 1));
    let cubic = run(Interpolation::Cubic(-0.75));
    assert_eq!((bits(&cubic), truncations(&cubic)), (vec![8, 8], 1));
}

#[test]
fn a_transposed_convolution_is_one_convolution_and_norm_and_relu_fold_into_it() {
    let compiled = check(&[&[2, 3, 4, 5]], |graph, x| {
        let w = graph.constant(ramp(&[3, 2, 4, 4]) * 0.25);
        let window =
            WindowSpec { strides: Some(vec![2, 2]), pads: Some(vec![1; 4]), ..WindowSpec::default() };
        let op = ConvTranspose { groups: 1, window, output_padding: None, output_shape: None };
        let y = graph.node("up", op, &[x[0], w]);
        let stats: Vec<ValueId> = [[0.5, 2.0], [0.1, -0.2], [0.3, -0.4], [1.5, 0.5]]
            .iter()
            .map(|v| graph.constant(ArrayD::from_shape_vec(IxDyn(&[2]), v.to_vec()).unwrap()))
            .collect();
        let norm = BatchNormalization { epsilon: 1e-3 };
        let y = graph.node("norm", norm, &[y, stats[0], stats[1], stats[2], stats[3]]);
        graph.node("relu", Relu, &[y])
    });
    // A kernel of 4 at stride 2 is four dense kernels of 2 by 2.
    let kernel = compiled.plan.params.iter().find(|p| p.shape.len() == 4).unwrap();
    assert_eq!(kernel.shape, [8, 3, 2, 2]);
    assert_eq!(count(&compiled, |op| matches!(op, Op::Conv { .. } | Op::Relu { shift: FRAC_BITS, .. })), 2);
    assert_eq!(truncations(&compiled) + count(&compiled, |op| matches!(op, Op::Scale { .. })), 0);
}

#[test]
fn batches_of_weights_are_groups_of_a_convolution() {
    for (x_shape, w_shape) in [
        (&[2, 3, 4][..], &[2, 4, 5][..]),
        (&[3, 4], &[2, 3, 4, 5]),
        (&[2, 1, 3, 4], &[3, 4, 2]),
        (&[1, 3, 2, 4], &[2, 1, 4, 1]),
        (&[2, 3, 2, 4], &[2, 1, 4, 3]),
    ] {
        let compiled = check(&[x_shape], |graph, x| {
            let w = graph.constant(ramp(w_shape));
            graph.node("right", MatMul, &[x[0], w])
        });
        assert_eq!(count(&compiled, |op| matches!(op, Op::Conv { .. })), 1);
        let compiled = check(&[x_shape], |graph, x| {
            let mut flipped = w_shape.to_vec();
            flipped[w_shape.len() - 2] = 2;
            flipped[w_shape.len() - 1] = x_shape[x_shape.len() - 2];
            let w = graph.constant(ramp(&flipped));
            graph.node("left", MatMul, &[w, x[0]])
        });
        assert_eq!(count(&compiled, |op| matches!(op, Op::BatchMatMul)), 0);
    }
}

#[test]
fn one_matrix_for_a_batch_of_secrets_is_not_repeated() {
    let compiled = check(&[&[2, 3, 4], &[4, 5]], |graph, x| graph.node("product", MatMul, x));
    let product = compiled.plan.steps.iter().find(|s| s.op == Op::BatchMatMul).unwrap();
    assert_eq!(product.shape, [6, 5]);
    check(&[&[2, 1, 3, 4], &[3, 4, 5]], |graph, x| graph.node("product", MatMul, x));
}

#[test]
fn gemms_of_whatever_depends_on_the_input() {
    let gemm = Gemm { alpha: 0.5, beta: 0.75, trans_a: true, trans_b: true };
    check(&[&[3, 2], &[4, 3], &[2, 1]], |graph, x| graph.node("secret", gemm, x));
    check(&[&[4]], |graph, x| {
        let (a, b) = (graph.constant(ramp(&[3, 2])), graph.constant(ramp(&[4, 3])));
        graph.node("addend", gemm, &[a, b, x[0]])
    });
    check(&[&[4, 3], &[1, 4]], |graph, x| {
        let a = graph.constant(ramp(&[3, 2]));
        graph.node("right", gemm, &[a, x[0], x[1]])
    });
}

#[test]
fn products_and_powers_of_secrets_broadcast() {
    check(&[&[2, 1, 3], &[4, 1]], |graph, x| graph.node("product", Mul, x));
    for exponent in [1.0, 2.0, 3.0, 4.0] {
        check(&[&[2, 3]], |graph, x| {
            let exponent = graph.constant(Tensor::from_scalar(exponent));
            graph.node("power", Pow, &[x[0], exponent])
        });
    }
}

#[test]
fn sums_of_products_by_equation() {
    for (equation, shapes) in [
        ("bhqd,bkhd->bhqk", [&[2, 3, 2, 4][..], &[2, 5, 3, 4][..]]),
        ("iij,jk->ki", [&[3, 3, 2], &[2, 4]]),
        ("...ij,...jk", [&[2, 1, 3, 2], &[4, 2, 2]]),
        ("abc,d->ca", [&[2, 3, 4], &[5]]),
    ] {
        let einsum = || Einsum { equation: equation.to_owned() };
        check(&shapes, |graph, x| graph.node("both", einsum(), x));
        check(&shapes[..1], |graph, x| {
            let w = graph.constant(ramp(shapes[1]));
            graph.node("right", einsum(), &[x[0], w])
        });
        check(&shapes[1..], |graph, x| {
            let w = graph.constant(ramp(shapes[0]));
            graph.node("left", einsum(), &[w, x[0]])
        });
    }
}

#[test]
fn running_sums() {
    for bits in 0..4 {
        check(&[&[2, 5]], |graph, x| {
            let axis = ints(graph, &[-1]);
            graph.node("sums", CumSum { exclusive: bits & 1 == 1, reverse: bits & 2 == 2 }, &[x[0], axis])
        });
    }
}

/// Size, kernel, stride, dilation, both pads and output padding of an axis.
type Along = (usize, usize, i64, i64, i64, i64, i64);

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    /// Phases are the transposed convolution, whatever strides, dilations and crops do to each other.
    #[test]
    fn phases_are_the_transposed_convolution(
        axes in proptest::collection::vec((1usize..5, 1usize..5, 1i64..4, 1i64..4, 0i64..4, 0i64..4, 0i64..3), 1..4),
        groups in 1usize..3,
        bias in any::<bool>(),
    ) {
        // Pads may crop everything.
        let full = |&(size, kernel, stride, dilation, before, after, extra): &Along| {
            stride * (size as i64 - 1) + dilation * (kernel as i64 - 1) + 1 + extra - before - after
        };
        prop_assume!(axes.iter().all(|a| full(a) > 0));
        // A result that lies behind the last product altogether is refused.
        prop_assume!(axes.iter().all(|a| a.4 <= a.2 * (a.0 as i64 - 1) + a.3 * (a.1 as i64 - 1)));
        let list = |f: &dyn Fn(&Along) -> i64| -> Vec<i64> { axes.iter().map(f).collect() };
        let window = WindowSpec {
            strides: Some(list(&|a| a.2)),
            dilations: Some(list(&|a| a.3)),
            pads: Some([list(&|a| a.4), list(&|a| a.5)].concat()),
            ..WindowSpec::default()
        };
        let op = ConvTranspose {
            groups: groups as i64,
            window,
            output_padding: Some(list(&|a| a.6)),
            output_shape: None,
        };
        let x: Vec<usize> = [2, 2 * groups].into_iter().chain(axes.iter().map(|a| a.0)).collect();
        let w: Vec<usize> = [2 * groups, 1].into_iter().chain(axes.iter().map(|a| a.1)).collect();
        check(&[&x], |graph, inputs| {
            let mut operands = vec![inputs[0], graph.constant(ramp(&w))];
            if bias {
                operands.push(graph.constant(ramp(&[groups])));
            }
            graph.node("up", op.clone(), &operands)
        });
    }
}

//! Small graphs lowered and run as integer programs, against exact expectations and against the float model.

mod common;

use common::integers;
use ndarray::{ArrayD, IxDyn};
use privet_graph::ops::{
    Add, AveragePool, BatchNormalization, Clip, Concat, Conv, Div, Gather, Gemm, GlobalMaxPool, MatMul,
    MaxPool, Mul, Pad, PadMode, Pow, Relu, Slice, Softmax, Sub, Transpose,
};
use privet_graph::{
    CompileOptions, Compiled, Dim, Graph, GraphError, OpError, Tensor, ValueId, WindowSpec, compile,
};
use privet_plan::{Op, Post, Preprocess};
use privet_ring::Ring;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn options(ring: u32, frac_bits: u8) -> CompileOptions {
    CompileOptions {
        ring: Ring::new(ring).unwrap(),
        frac_bits,
        input_shapes: Vec::new(),
        preprocess: Preprocess::default(),
        labels: Vec::new(),
    }
}

fn array(shape: &[usize], values: &[f32]) -> ArrayD<f32> {
    ArrayD::from_shape_vec(IxDyn(shape), values.to_vec()).unwrap()
}

/// Values that follow no pattern the operators could exploit, exact at 8 fractional bits.
fn ramp(shape: &[usize]) -> ArrayD<f32> {
    let count = shape.iter().product();
    let value = |i: usize| ((i * 37 + 11) % 101) as f32 / 16.0 - 3.0;
    ArrayD::from_shape_vec(IxDyn(shape), (0..count).map(value).collect()).unwrap()
}

/// A graph with one input of a fixed shape.
fn with_input(shape: &[usize]) -> (Graph, ValueId) {
    let mut graph = Graph::new("test");
    let x = graph.input("x", shape.iter().map(|&d| Dim::Fixed(d)).collect());
    (graph, x)
}

fn finish(mut graph: Graph, y: ValueId) -> Result<Compiled, GraphError> {
    graph.output("y", y);
    compile(&graph, &options(64, 16))
}

/// Compiles, runs both ways and compares; returns the kinds of steps.
fn check(graph: Graph, y: ValueId, x: &ArrayD<f32>) -> Compiled {
    let compiled = finish(graph, y).unwrap();
    let float = compiled.float.run(std::slice::from_ref(x)).unwrap();
    let found = integers::run(&compiled, &[x.iter().copied().collect()]);
    assert_eq!(found[0].len(), float[0].len());
    for (found, expected) in found[0].iter().zip(&float[0]) {
        assert!((found - f64::from(*expected)).abs() < 2e-3, "{found} instead of {expected}");
    }
    compiled
}

fn count(compiled: &Compiled, f: impl Fn(&Op) -> bool) -> usize {
    compiled.plan.steps.iter().filter(|s| f(&s.op)).count()
}

fn conv(kernel: usize) -> Conv {
    let pads = Some(vec![kernel as i64 / 2; 4]);
    Conv { groups: 1, window: WindowSpec { pads, ..WindowSpec::default() } }
}

#[test]
fn a_residual_block_costs_one_fused_relu_and_no_truncation_of_its_own() {
    let (mut graph, x) = with_input(&[1, 2, 5, 5]);
    let w = graph.constant(ramp(&[2, 2, 3, 3]));
    let a = graph.node("a", conv(3), &[x, w]);
    let sum = graph.node("sum", Add, &[x, a]);
    let y = graph.node("relu", Relu, &[sum]);
    let compiled = check(graph, y, &ramp(&[1, 2, 5, 5]));
    assert_eq!(count(&compiled, |op| matches!(op, Op::Trunc { .. })), 0);
    assert_eq!(count(&compiled, |op| matches!(op, Op::Relu { shift: 16, .. })), 1);
    let coefficients =
        |op: &Op| matches!(op, Op::Combine { coefficients, .. } if *coefficients == [1 << 16, 1]);
    assert_eq!(count(&compiled, coefficients), 1);
}

#[test]
fn readers_of_a_pending_wire_share_one_truncation() {
    let (mut graph, x) = with_input(&[1, 2, 5, 5]);
    let (w, v) = (graph.constant(ramp(&[2, 2, 3, 3])), graph.constant(ramp(&[2, 2, 1, 1])));
    let a = graph.node("a", conv(3), &[x, w]);
    let b = graph.node("b", conv(1), &[a, v]);
    let c = graph.node("c", conv(1), &[a, v]);
    let y = graph.node("sum", Sub, &[b, c]);
    let compiled = check(graph, y, &(ramp(&[1, 2, 5, 5]) * 0.1));
    assert_eq!(count(&compiled, |op| matches!(op, Op::Trunc { .. })), 2);
}

#[test]
fn batch_norm_and_bias_fold_into_the_layer_in_front() {
    let (mut graph, x) = with_input(&[1, 2, 4, 4]);
    let (w, b) = (graph.constant(ramp(&[2, 2, 3, 3])), graph.constant(ramp(&[2, 1, 1])));
    let stats: Vec<ValueId> = [[0.5, 2.0], [0.1, -0.2], [0.3, -0.4], [1.5, 0.5]]
        .iter()
        .map(|v| graph.constant(array(&[2], v)))
        .collect();
    let a = graph.node("conv", conv(3), &[x, w]);
    let a = graph.node("bias", Add, &[a, b]);
    let y = graph.node(
        "norm",
        BatchNormalization { epsilon: 1e-3 },
        &[a, stats[0], stats[1], stats[2], stats[3]],
    );
    let compiled = check(graph, y, &ramp(&[1, 2, 4, 4]));
    assert_eq!(compiled.plan.params.len(), 2, "one kernel, one bias");
}

#[test]
fn batch_norm_without_a_layer_in_front_is_a_scale_and_an_addend() {
    let (mut graph, x) = with_input(&[1, 2, 3]);
    let stats: Vec<ValueId> = [[0.5, 2.0], [0.1, -0.2], [0.3, -0.4], [1.5, 0.5]]
        .iter()
        .map(|v| graph.constant(array(&[2], v)))
        .collect();
    let norm = BatchNormalization { epsilon: 1e-3 };
    let y = graph.node("norm", norm, &[x, stats[0], stats[1], stats[2], stats[3]]);
    let compiled = check(graph, y, &ramp(&[1, 2, 3]));
    assert_eq!(count(&compiled, |op| matches!(op, Op::Scale { .. } | Op::AddParam { .. })), 2);
}

#[test]
fn max_pool_moves_before_relu_also_across_concat() {
    let (mut graph, x) = with_input(&[1, 2, 4, 4]);
    let (w, v) = (graph.constant(ramp(&[3, 2, 1, 1])), graph.constant(ramp(&[2, 2, 3, 3])));
    let a = graph.node("a", conv(1), &[x, w]);
    let a = graph.node("a.relu", Relu, &[a]);
    let b = graph.node("b", conv(3), &[x, v]);
    let b = graph.node("b.relu", Relu, &[b]);
    let joined = graph.node("join", Concat { axis: 1 }, &[a, b]);
    let window = WindowSpec { kernel: Some(vec![2, 2]), strides: Some(vec![2, 2]), ..WindowSpec::default() };
    let y = graph.node("pool", MaxPool { window }, &[joined]);
    let compiled = check(graph, y, &ramp(&[1, 2, 4, 4]));
    let relu = compiled.plan.steps.iter().find(|s| matches!(s.op, Op::Relu { .. })).unwrap();
    assert_eq!(relu.shape, [1, 5, 2, 2]);
    assert_eq!(count(&compiled, |op| matches!(op, Op::Relu { .. } | Op::Trunc { .. })), 1);
}

#[test]
fn products_with_constants_on_either_side() {
    let (mut graph, x) = with_input(&[3, 4]);
    let (w, c) = (graph.constant(ramp(&[5, 4])), graph.constant(ramp(&[1, 5])));
    let gemm = Gemm { alpha: 0.5, beta: 2.0, trans_a: false, trans_b: true };
    let a = graph.node("gemm", gemm, &[x, w, c]);
    let left = graph.constant(ramp(&[2, 3]));
    let y = graph.node("left", MatMul, &[left, a]);
    let compiled = check(graph, y, &(ramp(&[3, 4]) * 0.25));
    assert_eq!(compiled.plan.params.len(), 3, "two weights, one bias: {:?}", compiled.plan.params);
    let (mut graph, x) = with_input(&[3, 4]);
    let (a, c) = (graph.constant(ramp(&[3, 2])), graph.constant(ramp(&[2, 1])));
    let gemm = Gemm { alpha: 1.0, beta: 1.0, trans_a: true, trans_b: false };
    let y = graph.node("gemm", gemm, &[a, x, c]);
    check(graph, y, &ramp(&[3, 4]));
}

#[test]
fn layout_operators_move_the_right_elements() {
    let (mut graph, x) = with_input(&[2, 3, 4]);
    let ints = |graph: &mut Graph, v: &[i64]| graph.constant(Tensor::from_ints(v.to_vec()));
    let (starts, ends) = (ints(&mut graph, &[-1, 0]), ints(&mut graph, &[i64::MIN, 4]));
    let (axes, steps) = (ints(&mut graph, &[1, 2]), ints(&mut graph, &[-2, 3]));
    let a = graph.node("slice", Slice, &[x, starts, ends, axes, steps]);
    let a = graph.node("transpose", Transpose { perm: Some(vec![2, 0, 1]) }, &[a]);
    let pads = ints(&mut graph, &[0, 1, -1, 1, 0, 2]);
    let value = graph.constant(Tensor::from_scalar(0.75));
    let a = graph.node("pad", Pad { mode: PadMode::Constant }, &[a, pads, value]);
    let constant = graph.constant(ramp(&[3, 3, 1]));
    let a = graph.node("join", Concat { axis: 2 }, &[constant, a, constant]);
    let indices = ints(&mut graph, &[0, 2, 1, -1]);
    let y = graph.node("gather", Gather { axis: 1 }, &[a, indices]);
    check(graph, y, &ramp(&[2, 3, 4]));
}

#[test]
fn averages_and_maxima() {
    let (mut graph, x) = with_input(&[1, 2, 5, 5]);
    let window = WindowSpec {
        kernel: Some(vec![3, 2]),
        strides: Some(vec![2, 2]),
        pads: Some(vec![1, 0, 1, 1]),
        ceil_mode: true,
        ..WindowSpec::default()
    };
    let a = graph.node("average", AveragePool { window, count_include_pad: true }, &[x]);
    let y = graph.node("max", GlobalMaxPool, &[a]);
    check(graph, y, &ramp(&[1, 2, 5, 5]));
}

#[test]
fn final_functions_go_to_the_receiver() {
    let (mut graph, x) = with_input(&[1, 4]);
    let y = graph.node("softmax", Softmax { axis: -1, coerce: true, log: false }, &[x]);
    graph.output("logits", x);
    let compiled = finish(graph, y).unwrap();
    let posts: Vec<Post> = compiled.plan.outputs.iter().map(|o| o.post).collect();
    assert_eq!(posts, [Post::None, Post::Softmax { axis: 1 }]);
}

/// The error of a graph that does not compile.
fn refusal(graph: Graph, y: ValueId) -> GraphError {
    finish(graph, y).err().expect("this must not compile")
}

#[test]
fn what_has_no_lowering_is_refused_by_name() {
    let (mut graph, x) = with_input(&[1, 4]);
    let y = graph.node("quotient", Div, &[x, x]);
    let message = refusal(graph, y).to_string();
    assert!(message.contains("quotient") && message.contains("divisor that depends"), "{message}");

    let (mut graph, x) = with_input(&[1, 4]);
    let half = graph.constant(Tensor::from_scalar(0.5));
    let y = graph.node("root", Pow, &[x, half]);
    let message = refusal(graph, y).to_string();
    assert!(message.contains("root") && message.contains("exponent of 0.5"), "{message}");

    let (mut graph, x) = with_input(&[1, 4]);
    let a = graph.node("gate", Softmax { axis: 1, coerce: false, log: false }, &[x]);
    let y = graph.node("relu", Relu, &[a]);
    let message = refusal(graph, y).to_string();
    assert!(message.contains("gate") && message.contains("last operator"), "{message}");

    let (mut graph, x) = with_input(&[1, 1, 4, 4]);
    let y = graph.node("dynamic", conv(3), &[x, x]);
    assert!(matches!(refusal(graph, y), GraphError::Op { .. }));
}

#[test]
fn weights_that_do_not_fit_name_layer_and_width() {
    let (mut graph, x) = with_input(&[1, 1]);
    let w = graph.constant(array(&[1, 1], &[600.0]));
    let y = graph.node("fc", MatMul, &[x, w]);
    graph.output("y", y);
    let error = compile(&graph, &options(16, 6)).err().expect("600 at 6 bits needs 17 bits");
    let GraphError::Op { node, error: OpError::WeightRange { needed, .. }, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((node.as_str(), *needed), ("fc", 17));
    let mut narrow = options(16, 6);
    narrow.frac_bits = 5;
    assert!(compile(&graph, &narrow).is_ok());
    narrow.frac_bits = 7;
    assert!(matches!(compile(&graph, &narrow), Err(GraphError::Options(_))));
}

#[test]
fn shapes_come_from_options_and_are_checked() {
    let symbolic = |name: &str| Dim::Symbolic(name.to_owned());
    let mut graph = Graph::new("test");
    let x = graph.input("x", vec![symbolic("N"), Dim::Fixed(2), symbolic("T")]);
    let z = graph.input("z", vec![symbolic("N"), Dim::Fixed(2), symbolic("T")]);
    let y = graph.node("sum", Add, &[x, z]);
    graph.output("y", y);
    let message = compile(&graph, &options(64, 16)).err().unwrap().to_string();
    assert!(message.contains("--input-shape") && message.contains('T'), "{message}");
    let mut given = options(64, 16);
    given.input_shapes = vec![(Some("z".to_owned()), vec![3, 2, 5])];
    let compiled = compile(&graph, &given).unwrap();
    assert_eq!(compiled.plan.inputs[0].shape, [3, 2, 5], "the same names have the same sizes");
    for (name, shape) in
        [(Some("z"), vec![3, 9, 5]), (Some("z"), vec![3, 2]), (Some("q"), vec![1]), (None, vec![1])]
    {
        given.input_shapes = vec![(name.map(str::to_owned), shape)];
        assert!(compile(&graph, &given).is_err());
    }
    given.input_shapes = vec![(Some("z".to_owned()), vec![0, 2, 5])];
    assert!(compile(&graph, &given).is_err(), "empty tensors are refused");
}

#[test]
fn a_value_must_be_defined_before_it_is_used() {
    let (mut graph, _) = with_input(&[1]);
    let undefined = graph.value();
    let y = graph.node("relu", Relu, &[undefined]);
    assert!(matches!(refusal(graph, y), GraphError::Malformed(_)));
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(6), ..ProptestConfig::default() })]

    /// Clip of a pending wire is exactly floor(clip(x) / 2^f), whichever bounds are there and in whichever order.
    #[test]
    fn clip_is_exact(low in proptest::option::of(-4.0f32..4.0), high in proptest::option::of(-4.0f32..4.0),
                     x in proptest::collection::vec(-4.0f32..4.0, 8), factor in prop_oneof![-2.0f32..-0.1, 0.1f32..2.0]) {
        let (mut graph, input) = with_input(&[1, 8]);
        let w = graph.constant(array(&[], &[factor]));
        let pending = graph.node("scale", Mul, &[input, w]);
        let bound = |graph: &mut Graph, v: Option<f32>| v.map(|v| graph.constant(Tensor::from_scalar(v)));
        let (low_id, high_id) = (bound(&mut graph, low), bound(&mut graph, high));
        let y = graph.node("clip", Clip, &[pending]);
        graph.nodes[1].inputs.extend([low_id, high_id]);
        let compiled = finish(graph, y).unwrap();
        let fixed = |v: f32| (f64::from(v) * 65536.0).round() as i64;
        let found = integers::run(&compiled, std::slice::from_ref(&x));
        for (found, x) in found[0].iter().zip(&x) {
            let mut exact = fixed(*x) * fixed(factor);
            if let Some(low) = low {
                exact = exact.max(fixed(low) << 16);
            }
            if let Some(high) = high {
                exact = exact.min(fixed(high) << 16);
            }
            prop_assert_eq!((found * 65536.0) as i64, exact >> 16);
        }
    }
}

/// With 16 bits, 1/25600 would be 3/65536: a fifth too much.
#[test]
fn small_factors_keep_their_digits() {
    let large: Vec<f32> = ramp(&[1, 2, 3, 3]).iter().map(|v| v * 8000.0).collect();
    let x = array(&[1, 2, 3, 3], &large);
    let (mut graph, input) = with_input(&[1, 2, 3, 3]);
    let divisor = graph.constant(Tensor::from_scalar(25600.0));
    let quotient = graph.node("div", Div, &[input, divisor]);
    check(graph, quotient, &x);
    let (mut graph, input) = with_input(&[1, 2, 3, 3]);
    let kernel = graph.constant(ramp(&[2, 2, 3, 3]).mapv(|v| v / 3e4));
    let bias = graph.constant(array(&[2], &[0.75, -1.5]));
    let filtered = graph.node("conv", conv(3), &[input, kernel, bias]);
    let y = graph.node("relu", Relu, &[filtered]);
    check(graph, y, &x);
}

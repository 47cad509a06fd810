//! Comparisons, choices, extremes and piecewise linear functions of private values, lowered and run as integer programs.
//! Inputs are exact at 8 fractional bits, so that truth values and integers must come out as in float, ties included.

mod common;

use common::integers;
use ndarray::{ArrayD, IxDyn};
use privet_graph::ops::{
    Abs, Add, ArgMax, Cast, CastLike, Clip, Compare, Concat, Connective, Div, Gather, HardSigmoid, HardSwish,
    LeakyRelu, Logic, Max, Min, Mul, Neg, Not, PRelu, Pad, PadMode, ReduceMax, Reduction, Relation, Relu,
    Sign, Sub, Sum, ThresholdedRelu, Where,
};
use privet_graph::{
    CompileOptions, Compiled, DType, Dim, Graph, GraphError, OpError, Operator, Tensor, ValueId, compile,
};
use privet_plan::{Op, Preprocess};
use privet_ring::Ring;

/// A graph with one input, and what to do with it.
struct Case {
    graph: Graph,
    x: ValueId,
    shape: Vec<usize>,
}

impl Case {
    fn new(shape: &[usize]) -> Self {
        let mut graph = Graph::new("test");
        let x = graph.input("x", shape.iter().map(|&d| Dim::Fixed(d)).collect());
        Self { graph, x, shape: shape.to_vec() }
    }

    fn constant(&mut self, tensor: impl Into<Tensor>) -> ValueId {
        self.graph.constant(tensor)
    }

    fn node(&mut self, op: impl Operator, inputs: &[ValueId]) -> ValueId {
        let name = format!("node{}", self.graph.nodes.len());
        self.graph.node(name, op, inputs)
    }

    /// The input times a half, with twice as many fractional bits.
    fn pending(&mut self) -> ValueId {
        let half = self.constant(Tensor::from_scalar(0.5));
        self.node(Mul, &[self.x, half])
    }

    fn compile(&self, y: ValueId) -> Result<Compiled, GraphError> {
        let mut graph = self.graph.clone();
        graph.output("y", y);
        let options = CompileOptions {
            ring: Ring::new(64).unwrap(),
            frac_bits: 16,
            input_shapes: Vec::new(),
            preprocess: Preprocess::default(),
            labels: Vec::new(),
        };
        compile(&graph, &options)
    }

    /// Both programs agree up to `tolerance` on the ramp.
    fn check(&self, y: ValueId, tolerance: f64) -> Compiled {
        let compiled = self.compile(y).unwrap();
        let x = ramp(&self.shape);
        let float = compiled.float.run(std::slice::from_ref(&x)).unwrap();
        let found = integers::run(&compiled, &[x.iter().copied().collect()]);
        assert_eq!(found[0].len(), float[0].len());
        for (i, (found, expected)) in found[0].iter().zip(&float[0]).enumerate() {
            let close = (found - f64::from(*expected)).abs() <= tolerance;
            assert!(close, "element {i}: {found} instead of {expected}");
        }
        compiled
    }

    fn refusal(&self, y: ValueId) -> String {
        match self.compile(y) {
            Err(error @ GraphError::Op { error: OpError::Unsupported { .. }, .. }) => error.to_string(),
            Err(other) => panic!("not refused by name: {other}"),
            Ok(_) => panic!("this must not compile"),
        }
    }
}

/// Sixteenths from -3 to 3, 0 and repeated values among them.
fn ramp(shape: &[usize]) -> ArrayD<f32> {
    let value = |i: usize| ((i * 37 + 11) % 25) as f32 / 4.0 - 3.0;
    ArrayD::from_shape_vec(IxDyn(shape), (0..shape.iter().product()).map(value).collect()).unwrap()
}

fn floats(shape: &[usize], values: &[f32]) -> ArrayD<f32> {
    ArrayD::from_shape_vec(IxDyn(shape), values.to_vec()).unwrap()
}

fn bools(shape: &[usize], values: &[u8]) -> ArrayD<bool> {
    ArrayD::from_shape_vec(IxDyn(shape), values.iter().map(|&v| v == 1).collect()).unwrap()
}

fn count(compiled: &Compiled, f: impl Fn(&Op) -> bool) -> usize {
    compiled.plan.steps.iter().filter(|s| f(&s.op)).count()
}

fn is_compared(op: &Op) -> bool {
    matches!(op, Op::Relu { .. } | Op::NonNegative { .. } | Op::Select { .. } | Op::MaxPool { .. })
}

const LAST: f64 = 1.0 / 65536.0;

#[test]
fn piecewise_linear_functions_of_base_and_pending_values() {
    fn both(op: impl Operator + Clone, tolerance: f64, compared: usize) {
        for pending in [false, true] {
            let mut case = Case::new(&[2, 3, 5]);
            let x = if pending { case.pending() } else { case.x };
            let y = case.node(op.clone(), &[x]);
            let compiled = case.check(y, tolerance);
            assert_eq!(count(&compiled, is_compared), compared, "{}", op.name());
        }
    }
    both(Abs, 0.0, 1);
    both(Sign, 0.0, 1);
    both(LeakyRelu { alpha: 0.01 }, 3.0 * LAST, 1);
    both(LeakyRelu { alpha: 0.25 }, 0.0, 1);
    both(LeakyRelu { alpha: -1.5 }, 0.0, 1);
    both(ThresholdedRelu { alpha: 0.5 }, 0.0, 1);
    both(ThresholdedRelu { alpha: -0.3 }, 0.0, 1);
    both(HardSigmoid { alpha: 0.2, beta: 0.5 }, 4.0 * LAST, 1);
    both(HardSigmoid { alpha: 0.5, beta: -0.25 }, 0.0, 1);
    both(HardSwish, 8.0 * LAST, 1);
    let mut case = Case::new(&[1]);
    let y = case.node(ThresholdedRelu { alpha: f32::INFINITY }, &[case.x]);
    assert!(case.refusal(y).contains("alpha"));
    let y = case.node(LeakyRelu { alpha: f32::NAN }, &[case.x]);
    assert!(case.refusal(y).contains("alpha"));
}

#[test]
fn slopes_may_be_constant_or_private() {
    let mut case = Case::new(&[2, 3, 4]);
    let slope = case.constant(floats(&[3, 1], &[0.25, -1.0, 0.0]));
    let pending = case.pending();
    for x in [case.x, pending] {
        let y = case.node(PRelu, &[x, slope]);
        let compiled = case.check(y, 2.0 * LAST);
        assert_eq!(count(&compiled, is_compared), 1);
    }
    let slope = case.node(Abs, &[case.x]);
    let y = case.node(PRelu, &[pending, slope]);
    case.check(y, 2.0 * LAST);
}

#[test]
fn extremes_of_any_number_of_operands() {
    for operands in 1..7 {
        for constants in 0..3 {
            for largest in [true, false] {
                let mut case = Case::new(&[2, 3, 4]);
                let pending = case.pending();
                let mut inputs = Vec::new();
                for i in 0..operands {
                    let shift = case.constant(floats(&[4], &[1.0, -0.5, i as f32 / 4.0, 0.0]));
                    let from = if i % 2 == 0 { case.x } else { pending };
                    inputs.push(case.node(Sub, &[shift, from]));
                }
                for i in 0..constants {
                    inputs.insert(i, case.constant(floats(&[3, 1], &[0.5, i as f32 - 1.0, -0.25])));
                }
                let y = if largest { case.node(Max, &inputs) } else { case.node(Min, &inputs) };
                let compiled = case.check(y, 0.0);
                let players = operands + usize::from(constants > 0);
                let levels = players.next_power_of_two().ilog2() as usize;
                assert!(count(&compiled, is_compared) <= levels, "{operands} and {constants}");
            }
        }
    }
}

#[test]
fn operands_broadcast_against_each_other() {
    let mut case = Case::new(&[2, 1, 3]);
    let axes = case.constant(Tensor::from_ints(vec![2]));
    let largest = case.node(
        ReduceMax { reduction: Reduction::Max, keep_dims: false, noop_with_empty_axes: false },
        &[case.x, axes],
    );
    let wide = case.constant(floats(&[2, 1], &[0.0, -1.0]));
    let y = case.node(Min, &[case.x, largest, wide]);
    assert_eq!(case.check(y, 0.0).plan.outputs.len(), 1);
    let y = case.node(Compare { relation: Relation::Equal }, &[largest, case.x]);
    case.check(y, 0.0);
}

#[test]
fn reductions_over_any_axes() {
    for reduction in [Reduction::Max, Reduction::Min, Reduction::L1, Reduction::SumSquare] {
        for axes in [vec![0], vec![1], vec![-1], vec![2, 0], vec![1, 2], vec![0, 1, 2], vec![]] {
            for (keep_dims, noop_with_empty_axes) in [(true, false), (false, true)] {
                let mut case = Case::new(&[2, 3, 5]);
                let pending = case.pending();
                let axes = case.constant(Tensor::from_ints(axes.clone()));
                for x in [case.x, pending] {
                    let op = ReduceMax { reduction, keep_dims, noop_with_empty_axes };
                    let y = case.node(op, &[x, axes]);
                    case.check(y, 2.0 * LAST);
                }
            }
        }
    }
}

#[test]
fn relations_with_ties_on_either_side_and_at_either_scale() {
    use Relation::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
    for relation in [Less, LessOrEqual, Greater, GreaterOrEqual, Equal] {
        let mut case = Case::new(&[3, 5]);
        let pending = case.pending();
        let constant = case.constant(floats(&[5], &[0.25, -0.5, 0.0, 3.0, 1.0]));
        let same = case.node(Abs, &[case.x]);
        for (a, b) in
            [(case.x, constant), (constant, pending), (case.x, pending), (pending, case.x), (same, case.x)]
        {
            let y = case.node(Compare { relation }, &[a, b]);
            let compiled = case.check(y, 0.0);
            assert_eq!(compiled.plan.steps[compiled.plan.outputs[0].wire.index()].frac_bits, 0);
            assert_eq!(count(&compiled, |op| matches!(op, Op::NonNegative { .. })), 1);
        }
    }
}

#[test]
fn connectives_of_private_and_constant_truth_values() {
    for connective in [Connective::And, Connective::Or, Connective::Xor] {
        let mut case = Case::new(&[4, 3]);
        let zero = case.constant(Tensor::from_scalar(0.0));
        let one = case.constant(Tensor::from_scalar(1.0));
        let a = case.node(Compare { relation: Relation::Less }, &[case.x, zero]);
        let b = case.node(Compare { relation: Relation::Greater }, &[case.x, one]);
        let b = case.node(Not, &[b]);
        let constant = case.constant(bools(&[4, 1], &[1, 0, 1, 0]));
        for (a, b) in [(a, b), (a, constant), (constant, b)] {
            let y = case.node(Logic { connective }, &[a, b]);
            case.check(y, 0.0);
        }
        let y = case.node(Compare { relation: Relation::Equal }, &[a, b]);
        case.check(y, 0.0);
    }
}

#[test]
fn choices_by_private_and_constant_conditions() {
    let mut case = Case::new(&[3, 4]);
    let pending = case.pending();
    let zero = case.constant(Tensor::from_scalar(0.0));
    let private = case.node(Compare { relation: Relation::Less }, &[case.x, zero]);
    let constant = case.constant(bools(&[4], &[1, 0, 0, 1]));
    let (some, other) =
        (case.constant(floats(&[3, 1], &[0.1, -0.7, 5.0])), case.constant(Tensor::from_scalar(-100.3)));
    for condition in [private, constant] {
        for (x, y) in [
            (case.x, pending),
            (pending, case.x),
            (case.x, some),
            (some, pending),
            (some, other),
            (other, case.x),
        ] {
            if condition == constant && (x, y) == (some, other) {
                continue;
            }
            let y = case.node(Where, &[condition, x, y]);
            case.check(y, LAST);
        }
    }
    // Truth values and integers are chosen as such.
    let whole = case.node(Cast { to: DType::I64 }, &[case.x]);
    let (five, truth) = (case.constant(Tensor::from_ints(vec![5])), case.constant(bools(&[1], &[1])));
    for (x, y) in [(whole, five), (five, whole), (private, truth), (truth, private)] {
        let y = case.node(Where, &[private, x, y]);
        case.check(y, 0.0);
    }
}

#[test]
fn casts_between_all_types() {
    let mut case = Case::new(&[2, 9]);
    let pending = case.pending();
    for x in [case.x, pending] {
        let whole = case.node(Cast { to: DType::I64 }, &[x]);
        let compiled = case.check(whole, 0.0);
        assert_eq!(count(&compiled, is_compared), 1);
        let truth = case.node(Cast { to: DType::Bool }, &[x]);
        case.check(truth, 0.0);
        let back = case.node(Cast { to: DType::F32 }, &[whole]);
        let sum = case.node(Add, &[back, x]);
        case.check(sum, 0.0);
        let not_zero = case.node(Cast { to: DType::Bool }, &[whole]);
        case.check(not_zero, 0.0);
        let number = case.node(CastLike, &[not_zero, whole]);
        let doubled = case.node(Add, &[number, number]);
        case.check(doubled, 0.0);
        let float = case.node(CastLike, &[truth, x]);
        case.check(float, 0.0);
    }
}

#[test]
fn integers_stay_integers() {
    let mut case = Case::new(&[2, 6]);
    let seven = case.constant(Tensor::from_scalar(7.0));
    let scaled = case.node(Mul, &[case.x, seven]);
    let n = case.node(Cast { to: DType::I64 }, &[scaled]);
    let c = case.constant(Tensor::from_ints(vec![3, -1, 0, 1 << 20, 2, 7]));
    let negative = case.node(Neg, &[n]);
    let mut results = Vec::new();
    for (a, b) in [(n, c), (c, n), (n, negative)] {
        results.extend([case.node(Add, &[a, b]), case.node(Sub, &[a, b]), case.node(Mul, &[a, b])]);
        results.extend([case.node(Max, &[a, b]), case.node(Min, &[a, b]), case.node(Max, &[a, b, n])]);
        results.push(case.node(Compare { relation: Relation::Equal }, &[a, b]));
        results.push(case.node(Compare { relation: Relation::Less }, &[a, b]));
    }
    results.extend([case.node(Abs, &[n]), case.node(Sign, &[n]), case.node(Relu, &[n])]);
    let (low, high) = (case.constant(Tensor::from_ints(vec![-2])), case.constant(Tensor::from_ints(vec![5])));
    results.extend([case.node(Clip, &[n, low, high]), case.node(Clip, &[n, low])]);
    let row = case.constant(Tensor::I64(ArrayD::from_shape_vec(IxDyn(&[1, 6]), (1..7).collect()).unwrap()));
    results.push(case.node(Concat { axis: 0 }, &[row, n, row]));
    let (pads, value) =
        (case.constant(Tensor::from_ints(vec![0, 1, 0, 1])), case.constant(Tensor::from_ints(vec![9])));
    results.push(case.node(Pad { mode: PadMode::Constant }, &[n, pads, value]));
    let axes = case.constant(Tensor::from_ints(vec![1]));
    for reduction in [Reduction::Max, Reduction::Min, Reduction::L1, Reduction::SumSquare] {
        let op = ReduceMax { reduction, keep_dims: true, noop_with_empty_axes: false };
        results.push(case.node(op, &[n, axes]));
    }
    results.push(case.node(ArgMax { smallest: false, axis: 1, keep_dims: true, last: false }, &[n]));
    for y in results {
        let compiled = case.check(y, 0.0);
        let step = &compiled.plan.steps[compiled.plan.outputs[0].wire.index()];
        assert_eq!(step.frac_bits, 0, "{}", step.name);
    }
}

#[test]
fn positions_of_extremes() {
    for size in 1..10 {
        for (smallest, last) in [(false, false), (false, true), (true, false), (true, true)] {
            for (axis, keep_dims) in [(0, true), (1, false), (-1, true)] {
                let mut shape = vec![2, 3, 2];
                let at = if axis < 0 { 2 } else { axis as usize };
                shape[at] = size;
                let mut case = Case::new(&shape);
                // Few different values, so that there are ties.
                let whole = case.node(Cast { to: DType::I64 }, &[case.x]);
                let float = case.node(Cast { to: DType::F32 }, &[whole]);
                let pending = case.pending();
                for x in [case.x, whole, float, pending] {
                    let y = case.node(ArgMax { smallest, axis, keep_dims, last }, &[x]);
                    let compiled = case.check(y, 0.0);
                    let rounds = count(&compiled, |op| matches!(op, Op::Select { .. }));
                    assert_eq!(rounds, size.next_power_of_two().ilog2() as usize);
                }
            }
        }
    }
}

#[test]
fn all_equal_elements_are_a_tie() {
    for (last, expected) in [(false, 0.0), (true, 6.0)] {
        let mut case = Case::new(&[1, 7]);
        let y = case.node(ArgMax { smallest: false, axis: 1, keep_dims: false, last }, &[case.x]);
        let compiled = case.compile(y).unwrap();
        assert_eq!(integers::run(&compiled, &[vec![1.5; 7]]), [[expected]]);
    }
}

#[test]
fn what_depends_on_the_input_where_it_must_not_is_refused() {
    let mut case = Case::new(&[1]);
    let (zero, two) = (case.constant(Tensor::from_scalar(0.0)), case.constant(Tensor::from_ints(vec![2])));
    let bound = case.node(Abs, &[case.x]);
    let y = case.node(Clip, &[case.x, zero, bound]);
    assert!(case.refusal(y).contains("max"));
    let whole = case.node(Cast { to: DType::I64 }, &[case.x]);
    let y = case.node(Div, &[whole, two]);
    assert!(case.refusal(y).contains("integers"));
    // Beyond 2^53 a constant is no exact float any more.
    let huge = case.constant(Tensor::from_ints(vec![i64::MAX]));
    let y = case.node(Add, &[whole, huge]);
    assert!(case.refusal(y).contains("2^53"));

    // These are refused while shapes are settled, before anything is lowered.
    let mut case = Case::new(&[1]);
    let whole = case.node(Cast { to: DType::I64 }, &[case.x]);
    let y = case.node(Gather { axis: 0 }, &[case.x, whole]);
    assert!(case.refusal(y).contains("indices"));
    let mut case = Case::new(&[1]);
    let whole = case.node(Cast { to: DType::I64 }, &[case.x]);
    let y = case.node(Sum, &[whole]);
    let message = case.compile(y).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(message.contains("Sum") && message.contains("float32"), "{message}");
}

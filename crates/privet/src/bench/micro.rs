//! Single operations on private values, as plans: what `privet bench --exp micro` measures.
//!
//! A plan has the inputs (masked by their owner), a private addend that makes each a wire of shares, as it would be between
//! two layers, the operation, and an output.

use privet_graph::nn;
use privet_plan::{
    InputSpec, Op, OutputSpec, ParamId, ParamSpec, Plan, Post, Preprocess, Range, RangeSource, Step, Weights,
    Window, WireId, ranges,
};
use privet_ring::Ring;

use crate::model::ModelError;

/// Ring width unless another is asked for.
pub const RING: u32 = 48;
/// Elements unless another number is asked for.
pub const ELEMENTS: usize = 1_000_000;
/// Side of the matrices unless a number of elements is asked for.
pub const SIDE: usize = 1024;

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Micro {
    /// ReLU with the truncation that follows a product.
    Relu,
    /// Products of two private wires, element by element.
    Multiply,
    /// Comparisons with zero.
    Compare,
    /// Maxima of 2 x 2.
    MaxPool,
    /// A private wire times private weights, square.
    MatMul,
    /// Two private wires, square.
    WireMatMul,
}

impl Micro {
    /// All operations.
    pub const ALL: [Self; 6] =
        [Self::Relu, Self::Multiply, Self::Compare, Self::MaxPool, Self::MatMul, Self::WireMatMul];

    /// Its name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu-trunc",
            Self::Multiply => "multiply",
            Self::Compare => "compare",
            Self::MaxPool => "max-pool 2x2",
            Self::MatMul => "matmul",
            Self::WireMatMul => "matmul wires",
        }
    }

    fn inputs(self) -> usize {
        if matches!(self, Self::Multiply | Self::WireMatMul) { 2 } else { 1 }
    }

    /// Shapes of the operands and of the result.
    fn shapes(self, elements: Option<usize>) -> [Vec<usize>; 2] {
        let count = elements.unwrap_or(ELEMENTS).max(4);
        match self {
            Self::Relu | Self::Multiply | Self::Compare => [vec![count], vec![count]],
            Self::MaxPool => {
                // About as many, in 100 channels where that goes.
                let channels = (count / 4).min(100);
                let side = 2 * ((count as f64 / channels as f64).sqrt() / 2.0).round().max(1.0) as usize;
                [vec![1, channels, side, side], vec![1, channels, side / 2, side / 2]]
            }
            Self::MatMul | Self::WireMatMul => {
                let side = elements.map_or(SIDE, |n| (n as f64).sqrt().round().max(2.0) as usize);
                let shape = if self == Self::MatMul { vec![side, side] } else { vec![1, side, side] };
                [shape.clone(), shape]
            }
        }
    }
}

/// How a [`Program`] is made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Elements of an operand, about, instead of [`ELEMENTS`] and matrices of [`SIDE`].
    pub elements: Option<usize>,
    /// Ring width, instead of [`RING`].
    pub ring: Option<u32>,
    /// Fractional bits, instead of 16 or what leaves room for products in a narrow ring.
    pub frac_bits: Option<u32>,
    /// Number of inputs.
    pub inputs: usize,
    /// Decides weights and inputs.
    pub seed: u64,
}

/// A plan with one operation, its private tensors, and inputs.
pub struct Program {
    /// The plan.
    pub plan: Plan,
    /// Its private tensors.
    pub weights: Weights,
    /// Inputs to measure with, each in the order of the plan's.
    pub inputs: Vec<Vec<ndarray::ArrayD<f32>>>,
    /// Index of the step to measure.
    pub step: usize,
    /// Width of its comparison, if it has one.
    pub width: Option<u8>,
    /// Elements of an operand.
    pub elements: usize,
}

impl Program {
    /// Makes the plan and its inputs.
    ///
    /// # Errors
    /// A ring or fractional bits that leave no room for the operation.
    pub fn new(micro: Micro, options: &Options) -> Result<Self, ModelError> {
        let ring = Ring::new(options.ring.unwrap_or(RING))?;
        let frac_bits = options.frac_bits.unwrap_or(16.min((ring.bits() - 12) / 2)) as u8;
        let [operand, result] = micro.shapes(options.elements);
        let elements: usize = operand.iter().product();
        // As wide as calibration makes comparisons in rings that it chooses; full width in the widest.
        let width = if ring.bits() > RING { ring.bits() - 1 } else { ring.bits() - 8 } as u8;
        let window = Window {
            kernel: vec![2; 2],
            stride: vec![2; 2],
            dilation: vec![1; 2],
            pad_begin: vec![0; 2],
            pad_end: vec![0; 2],
        };
        let weight = ParamId(micro.inputs() as u32);
        let (op, scale) = match micro {
            Micro::Relu => (Op::Relu { shift: frac_bits, width }, 0),
            Micro::Multiply => (Op::Multiply, 2 * frac_bits),
            Micro::Compare => (Op::NonNegative { width }, 0),
            Micro::MaxPool => (Op::MaxPool { window, width }, frac_bits),
            Micro::MatMul => (Op::MatMul { weight, bias: None }, 2 * frac_bits),
            Micro::WireMatMul => (Op::BatchMatMul, 2 * frac_bits),
        };
        let inputs = micro.inputs() as u32;
        let step = |op, inputs: Vec<u32>, shape: &[usize], frac_bits| Step {
            name: micro.name().to_owned(),
            op,
            inputs: inputs.into_iter().map(WireId).collect(),
            shape: shape.to_vec(),
            frac_bits,
            range: Range { bits: 2, source: RangeSource::FullWidth },
        };
        let read = (0..inputs).map(|input| step(Op::Input { input }, Vec::new(), &operand, frac_bits));
        let add = (0..inputs).map(|i| step(Op::AddParam { param: ParamId(i) }, vec![i], &operand, frac_bits));
        let mut steps: Vec<Step> = read.chain(add).collect();
        let last = steps.len();
        steps.push(step(op.clone(), (inputs..2 * inputs).collect(), &result, scale));
        let param = |name: String, shape| ParamSpec { name, shape, frac_bits };
        let mut params: Vec<ParamSpec> = (0..inputs).map(|i| param(format!("addend {i}"), vec![1])).collect();
        let mut tensors: Vec<Vec<i64>> = (0..inputs).map(|i| vec![5 + i64::from(i)]).collect();
        if micro == Micro::MatMul {
            let drawn = nn::random_input(options.seed, u64::MAX, &operand);
            let unit = f32::from(frac_bits).exp2();
            params.push(param("weight".to_owned(), operand.clone()));
            tensors.push(drawn.iter().map(|v| (v * unit).round() as i64).collect());
        }
        let name = |i: u32| if i == 0 { "x".to_owned() } else { "y".to_owned() };
        let spec = |i| InputSpec { name: name(i), shape: operand.clone(), preprocess: Preprocess::default() };
        let mut plan = Plan {
            model: micro.name().to_owned(),
            ring,
            frac_bits,
            inputs: (0..inputs).map(spec).collect(),
            params,
            steps,
            outputs: vec![OutputSpec { name: "z".to_owned(), wire: WireId(last as u32), post: Post::None }],
            labels: Vec::new(),
        };
        ranges::assign_full_width(&mut plan);
        let compared = match &plan.steps[last].op {
            // Of a difference of two elements.
            Op::MaxPool { .. } => Some(width - 1),
            Op::Relu { .. } | Op::NonNegative { .. } => Some(width),
            _ => None,
        };
        if let Some(bits) = compared {
            plan.steps[last].op = op;
            plan.steps[0].range.bits = bits - 1;
            plan.steps[1].range.bits = bits;
        }
        plan.validate().map_err(|e| ModelError::Calibration(Box::new(e)))?;
        let draw = |number: usize| -> Vec<ndarray::ArrayD<f32>> {
            let tensor =
                |i: usize| nn::random_input(options.seed, (number * inputs as usize + i) as u64, &operand);
            (0..inputs as usize).map(tensor).collect()
        };
        let drawn = (0..options.inputs).map(draw).collect();
        let width = compared.map(|_| width);
        Ok(Self { plan, weights: Weights::new(tensors), inputs: drawn, step: last, width, elements })
    }
}

#[cfg(test)]
mod tests {
    use privet_protocols::{Silent, cleartext};

    use super::*;
    use crate::model::fixed_inputs;

    #[test]
    fn every_operation_runs_in_every_ring_and_means_what_it_says() {
        for ring in [16, 32, 48, 64] {
            for micro in Micro::ALL {
                let options =
                    Options { elements: Some(64), ring: Some(ring), frac_bits: None, inputs: 1, seed: 7 };
                let program = Program::new(micro, &options).unwrap();
                let plan = &program.plan;
                let inputs = fixed_inputs(plan, &program.inputs[0]).unwrap();
                let [found] = cleartext::run(plan, &program.weights, &inputs, &mut Silent)
                    .unwrap_or_else(|e| panic!("{} in {ring} bits: {e}", micro.name()))
                    .try_into()
                    .unwrap();
                let x: Vec<i64> = inputs[0].iter().map(|v| v + 5).collect();
                let y: Vec<i64> = inputs.get(1).into_iter().flatten().map(|v| v + 6).collect();
                let weight = || program.weights.tensors[1].clone();
                let product = |x: &[i64], y: &[i64]| -> Vec<i64> {
                    let at = |i: usize| (0..8).map(|k| x[i / 8 * 8 + k] * y[k * 8 + i % 8]).sum();
                    (0..64).map(at).collect()
                };
                let expected: Vec<i64> = match micro {
                    Micro::Relu => x.iter().map(|v| v.max(&0) >> plan.frac_bits).collect(),
                    Micro::Multiply => x.iter().zip(&y).map(|(x, y)| x * y).collect(),
                    Micro::Compare => x.iter().map(|v| i64::from(*v >= 0)).collect(),
                    Micro::MaxPool => x.chunks(4).map(|w| *w.iter().max().unwrap()).collect(),
                    Micro::MatMul => product(&x, &weight()),
                    Micro::WireMatMul => product(&x, &y),
                };
                assert_eq!(found, expected, "{} in {ring} bits", micro.name());
                assert_eq!(program.elements, 64);
            }
        }
    }
}

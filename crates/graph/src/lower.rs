//! Lowering a graph onto a plan.
//!
//! Inputs and weights carry f fractional bits, integers and truth values none. A linear layer's result carries 2f and stays so ("pending") as long as
//! its readers can use it that way: truncation happens inside a ReLU when there is one, else in front of the first
//! reader that needs f.

mod context;
mod function;
mod steps;

use std::cmp::Ordering;
use std::collections::HashMap;

use privet_plan::validate::MAX_TERMS;
use privet_plan::{
    InputSpec, Op, OutputSpec, Plan, Post, Preprocess, Range, RangeSource, Step, Weights, WireId, ranges,
};
use privet_ring::Ring;

pub use context::Lowering;
pub(crate) use context::{expect_terms, reciprocal_bits};
pub(crate) use function::{Far, Segment};
pub(crate) use steps::public_factor;

use crate::facts::{self, Facts};
use crate::{DType, Fact, FloatModel, Graph, GraphError, GraphOutput, Node, OpError, ValueId};

/// What a compilation needs besides the model.
#[derive(Debug, Clone)]
pub struct CompileOptions {
    /// The ring.
    pub ring: Ring,
    /// Fractional bits of inputs and weights.
    pub frac_bits: u8,
    /// Shapes of inputs, by name; `None` names the only input.
    pub input_shapes: Vec<(Option<String>, Vec<usize>)>,
    /// How an image becomes an input.
    pub preprocess: Preprocess,
    /// Class labels.
    pub labels: Vec<String>,
}

/// A compiled model.
pub struct Compiled {
    /// The public integer program.
    pub plan: Plan,
    /// The model owner's private integers.
    pub weights: Weights,
    /// The same model in float.
    pub float: FloatModel,
}

/// Lowers `graph` onto a plan with full-width ranges, and encodes its weights.
pub fn compile(graph: &Graph, options: &CompileOptions) -> Result<Compiled, GraphError> {
    let (ring_bits, frac_bits) = (options.ring.bits(), u32::from(options.frac_bits));
    if frac_bits == 0 || 2 * frac_bits > ring_bits - 3 {
        return Err(GraphError::Options(format!(
            "a {ring_bits}-bit ring takes from 1 to {} fractional bits (products carry twice as many), found {frac_bits}",
            (ring_bits - 3) / 2
        )));
    }
    let float = FloatModel::new(graph, &options.input_shapes)?;
    let mut builder = Builder::new(float.graph(), options)?;
    for node in &float.graph().nodes {
        builder.lower(float.graph(), float.facts(), node)?;
    }
    for output in &float.graph().outputs {
        builder.output(output)?;
    }
    let Builder { mut plan, weights, .. } = builder;
    ranges::assign_full_width(&mut plan);
    plan.validate()?;
    Ok(Compiled { plan, weights: Weights::new(weights), float })
}

/// Where a lowered value is: on a wire, perhaps up to a function that the receiver applies after the reveal.
#[derive(Debug, Clone, Copy)]
struct Place {
    wire: WireId,
    post: Post,
}

/// The plan under construction.
#[derive(Debug)]
struct Builder {
    plan: Plan,
    weights: Vec<Vec<i64>>,
    places: HashMap<ValueId, Place>,
    /// Twins with f fractional bits, so that several readers share one truncation.
    rescaled: HashMap<WireId, WireId>,
    uses: Vec<usize>,
    /// Elements of private tensors that may still be made: a constant becomes one wherever it is read.
    elements: usize,
    /// Rows and terms of public maps that may still be made.
    terms: usize,
}

impl Builder {
    fn new(graph: &Graph, options: &CompileOptions) -> Result<Self, GraphError> {
        let mut builder = Self {
            plan: Plan {
                model: graph.name.clone(),
                ring: options.ring,
                frac_bits: options.frac_bits,
                inputs: Vec::new(),
                params: Vec::new(),
                steps: Vec::new(),
                outputs: Vec::new(),
                labels: options.labels.clone(),
                fss: Vec::new(),
            },
            weights: Vec::new(),
            places: HashMap::new(),
            rescaled: HashMap::new(),
            uses: graph.uses(),
            elements: graph.constants.values().map(|c| 2 * c.len()).sum::<usize>() + graph.folding,
            terms: MAX_TERMS,
        };
        for (i, input) in graph.inputs.iter().enumerate() {
            let shape = facts::fixed_shape(input)?;
            if shape.contains(&0) {
                return Err(GraphError::InputShape {
                    input: input.name.clone(),
                    expected: "no empty dimension".to_owned(),
                    found: format!("{shape:?}"),
                });
            }
            let preprocess = options.preprocess.clone();
            builder.plan.inputs.push(InputSpec {
                name: input.name.clone(),
                shape: shape.clone(),
                preprocess,
            });
            let op = Op::Input { input: i as u32 };
            let wire = builder.emit(&input.name, op, &[], shape, options.frac_bits);
            builder.places.insert(input.value, Place { wire, post: Post::None });
        }
        Ok(builder)
    }

    fn lower(&mut self, graph: &Graph, facts: &Facts, node: &Node) -> Result<(), GraphError> {
        let operands = facts.operands(node)?;
        let at = |error| facts::at(node, error);
        let results: Vec<&Fact> = node.outputs.iter().map(|o| facts.get(*o)).collect::<Result<_, _>>()?;
        let read: Vec<bool> = node.outputs.iter().map(|o| self.uses[o.index()] > 0).collect();
        if let Some((empty, _)) = results.iter().zip(&read).find(|(r, read)| **read && r.shape.contains(&0)) {
            return Err(at(OpError::unsupported(
                format!("an empty result of shape {:?}", empty.shape),
                "at least one element",
            )));
        }
        let too_large = |r: &&&Fact| r.shape.iter().product::<usize>() > privet_plan::validate::MAX_ELEMENTS;
        if let Some(result) = results.iter().find(too_large) {
            let (shape, limit) = (result.shape.clone(), privet_plan::validate::MAX_ELEMENTS);
            return Err(at(OpError::TooLarge { what: "result", shape, limit }));
        }
        if self.is_final(graph, node)
            && let Some(Some(operand)) = operands.first()
            && let Some(post) = node.op.post(operand)
        {
            let post = post.map_err(at)?;
            let place = node.inputs[0].and_then(|v| self.places.get(&v).copied());
            if let Some(Place { wire, post: Post::None }) = place {
                self.places.insert(node.outputs[0], Place { wire, post });
                return Ok(());
            }
        }
        let mut wires = Vec::with_capacity(node.inputs.len());
        for input in &node.inputs {
            wires.push(input.and_then(|v| self.places.get(&v)).map(|place| place.wire));
        }
        let first = self.plan.steps.len();
        let mut ctx = Lowering { builder: self, node, operands: &operands, results: &results, wires };
        let wires = node.op.lower(&mut ctx).map_err(at)?;
        let most = ctx.builder.plan.steps[first..].iter().map(|s| s.frac_bits).max().unwrap_or_default();
        ctx.expect_scale(u32::from(most)).map_err(at)?;
        for (((output, fact), wire), _) in
            node.outputs.iter().zip(&results).zip(wires).zip(read).filter(|(_, read)| *read)
        {
            let step = &self.plan.steps[wire.index()];
            let is_whole = step.frac_bits == 0;
            if step.shape != fact.shape || is_whole != (fact.dtype != DType::F32) {
                return Err(at(OpError::mismatch(
                    "lowered result",
                    format!("{:?} {:?}", fact.dtype, fact.shape),
                    format!("{:?} with {} fractional bits", step.shape, step.frac_bits),
                )));
            }
            self.places.insert(*output, Place { wire, post: Post::None });
        }
        Ok(())
    }

    /// Whether only outputs of the model read the node's results.
    fn is_final(&self, graph: &Graph, node: &Node) -> bool {
        node.outputs.iter().all(|value| {
            let shown = graph.outputs.iter().filter(|o| o.value == *value).count();
            shown > 0 && self.uses[value.index()] == shown
        })
    }

    fn output(&mut self, output: &GraphOutput) -> Result<(), GraphError> {
        let Some(Place { wire, post }) = self.places.get(&output.value).copied() else {
            return Err(GraphError::Output {
                name: output.name.clone(),
                problem: "it does not depend on the model's inputs".to_owned(),
            });
        };
        let whole = self.plan.steps[wire.index()].frac_bits == 0;
        let wire = if whole { wire } else { self.at_base(&output.name, wire) };
        self.plan.outputs.push(OutputSpec { name: output.name.clone(), wire, post });
        Ok(())
    }

    fn emit(&mut self, name: &str, op: Op, inputs: &[WireId], shape: Vec<usize>, frac_bits: u8) -> WireId {
        let wire = WireId(self.plan.steps.len() as u32);
        // Ranges and widths are settled for the whole plan at the end.
        let range = Range { bits: self.plan.ring.bits() as u8 - 1, source: RangeSource::FullWidth };
        let (name, inputs) = (name.to_owned(), inputs.to_vec());
        self.plan.steps.push(Step { name, op, inputs, shape, frac_bits, range });
        wire
    }

    /// The same value with f fractional bits.
    fn at_base(&mut self, name: &str, wire: WireId) -> WireId {
        let step = &self.plan.steps[wire.index()];
        let base = self.plan.frac_bits;
        let op = match step.frac_bits.cmp(&base) {
            Ordering::Equal => return wire,
            Ordering::Greater => Op::Trunc { shift: step.frac_bits - base },
            Ordering::Less => Op::Combine { coefficients: vec![1 << (base - step.frac_bits)], constant: 0 },
        };
        if let Some(&done) = self.rescaled.get(&wire) {
            return done;
        }
        let shape = step.shape.clone();
        let done = self.emit(name, op, &[wire], shape, base);
        self.rescaled.insert(wire, done);
        done
    }
}

//! Lowering a graph onto a plan.
//!
//! Inputs and weights carry f fractional bits. A linear layer's result carries 2f and stays so ("pending") as long as
//! its readers can use it that way: truncation happens inside a ReLU when there is one, else in front of the first
//! reader that needs f.

use std::collections::HashMap;

use ndarray::ArrayD;
use privet_plan::{
    InputSpec, Op, OutputSpec, ParamId, ParamSpec, Plan, Post, Preprocess, Range, RangeSource, Step, Weights,
    WireId, ranges,
};
use privet_ring::{Ring, fixed};

use crate::facts::{self, Facts};
use crate::tensor::contiguous;
use crate::{Args, Fact, FloatModel, Graph, GraphError, GraphOutput, Node, OpError, ValueId};

/// Most copies that broadcasting one axis may make.
const MAX_COPIES: usize = 4096;

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
    /// Truncated twins of pending wires, so that several readers share one truncation.
    truncated: HashMap<WireId, WireId>,
    uses: Vec<usize>,
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
            },
            weights: Vec::new(),
            places: HashMap::new(),
            truncated: HashMap::new(),
            uses: graph.uses(),
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
        if let Some(empty) = results.iter().find(|r| r.shape.contains(&0)) {
            return Err(at(OpError::unsupported(
                format!("an empty result of shape {:?}", empty.shape),
                "at least one element",
            )));
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
        let mut ctx = Lowering { builder: self, node, operands: &operands, results: &results, wires };
        let wires = node.op.lower(&mut ctx).map_err(at)?;
        for ((output, fact), wire) in node.outputs.iter().zip(&results).zip(wires) {
            let found = &self.plan.steps[wire.index()].shape;
            if *found != fact.shape {
                return Err(at(OpError::mismatch(
                    "lowered result",
                    format!("{:?}", fact.shape),
                    format!("{found:?}"),
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
        let wire = self.at_base(&output.name, wire);
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
        let shift = step.frac_bits - self.plan.frac_bits;
        if shift == 0 {
            return wire;
        }
        if let Some(&done) = self.truncated.get(&wire) {
            return done;
        }
        let shape = step.shape.clone();
        let done = self.emit(name, Op::Trunc { shift }, &[wire], shape, self.plan.frac_bits);
        self.truncated.insert(wire, done);
        done
    }
}

/// What an operator sees while it is lowered: its operands, and means to append steps.
#[derive(Debug)]
pub struct Lowering<'a> {
    builder: &'a mut Builder,
    node: &'a Node,
    operands: &'a [Option<&'a Fact>],
    results: &'a [&'a Fact],
    wires: Vec<Option<WireId>>,
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
        if wires.len() > MAX_COPIES {
            return Err(OpError::unsupported(format!("{} operands", wires.len()), "at most 4096 operands"));
        }
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

    /// Repeats elements until the wire has `shape` (numpy's rule).
    pub fn broadcast(&mut self, wire: WireId, shape: &[usize]) -> Result<WireId, OpError> {
        let from = self.shape_of(wire);
        let mut padded = vec![1; shape.len() - from.len()];
        padded.extend(from);
        let mut wire = self.reshape(wire, &padded);
        for axis in 0..shape.len() {
            if padded[axis] != shape[axis] {
                wire = self.concat(&vec![wire; shape[axis]], axis)?;
            }
        }
        Ok(wire)
    }

    /// `Σ sign·wire + constant` at the largest scale of the operands; equal shapes. Scales are made equal by
    /// multiplying, which is exact and free, where truncating would cost a round.
    pub fn combine(&mut self, terms: &[(WireId, i64)], constant: i64) -> Result<WireId, OpError> {
        if terms.len() > MAX_COPIES {
            return Err(OpError::unsupported(format!("{} operands", terms.len()), "at most 4096 operands"));
        }
        let frac_bits = terms.iter().map(|&(w, _)| self.frac_bits(w)).max().unwrap_or(self.base());
        let coefficients = terms.iter().map(|&(w, sign)| sign << (frac_bits - self.frac_bits(w))).collect();
        let wires: Vec<WireId> = terms.iter().map(|&(w, _)| w).collect();
        let shape = self.shape_of(wires[0]).to_vec();
        Ok(self.emit(Op::Combine { coefficients, constant }, &wires, shape, frac_bits))
    }

    /// Adds a private constant that broadcasts to the wire's shape.
    pub fn add_param(&mut self, wire: WireId, suffix: &str, values: &ArrayD<f32>) -> Result<WireId, OpError> {
        let frac_bits = self.frac_bits(wire);
        let param = self.param(suffix, values, frac_bits)?;
        let shape = self.shape_of(wire).to_vec();
        Ok(self.emit(Op::AddParam { param }, &[wire], shape, frac_bits))
    }

    /// Multiplies with a private constant that broadcasts to the wire's shape.
    pub fn scale(&mut self, wire: WireId, suffix: &str, values: &ArrayD<f32>) -> Result<WireId, OpError> {
        let wire = self.at_base(wire);
        let factor = self.param(suffix, values, self.base())?;
        let shape = self.shape_of(wire).to_vec();
        Ok(self.emit(Op::Scale { factor }, &[wire], shape, 2 * self.base()))
    }

    /// Encodes a private tensor; refused, naming the width it needs, when it does not fit the ring.
    pub fn param(&mut self, suffix: &str, values: &ArrayD<f32>, frac_bits: u8) -> Result<ParamId, OpError> {
        let name = format!("{}.{suffix}", self.node.name);
        let ring = self.ring_bits();
        let encode = |&v: &f32| fixed::encode(f64::from(v), ring, u32::from(frac_bits));
        let Ok(integers) = contiguous(values).iter().map(encode).collect::<Result<Vec<i64>, _>>() else {
            let largest =
                values.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or_default();
            let scaled = (f64::from(largest).abs() * f64::from(frac_bits).exp2()).round();
            return Err(OpError::WeightRange {
                tensor: name,
                value: f64::from(largest),
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

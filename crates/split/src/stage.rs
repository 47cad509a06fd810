//! One stage in memory: a model, or a part of one, whose weights are there as a whole or come block by block.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::{ArrayD, IxDyn};
use privet_graph::{Args, Fact, FloatModel, Node, Tensor, ValueId, ops};
use privet_onnx::ModelFile;
use rten_gemm::GemmExecutor;

use crate::kernels::{self, Product, Rows};
use crate::memory::{self, Facts};
use crate::source::Memory;
use crate::{SplitError, WeightSource};

/// Rows of weights that are in memory at a time, for weights that are not resident.
pub type Blocks = BTreeMap<String, usize>;

/// A model that runs in float.
pub struct Stage<S> {
    model: FloatModel,
    source: S,
    /// Weights that are not in the graph, by their values.
    weights: HashMap<ValueId, Weight>,
    inputs: Vec<(String, ValueId)>,
    outputs: Vec<(String, ValueId)>,
    /// For every node, what nothing reads afterwards.
    last: Vec<Vec<ValueId>>,
    gemm: GemmExecutor,
    stop: Option<Arc<AtomicBool>>,
}

/// A weight outside of the graph.
struct Weight {
    name: String,
    shape: Vec<usize>,
    held: Held,
}

/// How much of a weight is in memory.
enum Held {
    /// All of it.
    Whole(Memory),
    /// As many rows at a time.
    Blocks(usize),
}

/// An output of a stage.
#[derive(Debug, Clone, Copy)]
pub struct OutputFact<'s> {
    /// Its name.
    pub name: &'s str,
    /// Element type and shape.
    pub fact: &'s Fact,
    /// The operator that gives it; none where it is an input or a constant.
    pub operator: Option<&'static str>,
}

/// Tensors by name.
pub type Tensors = HashMap<String, Tensor>;

impl Stage<ModelFile> {
    /// Opens an ONNX file. Weights in `blocks` stay there, the others are read.
    ///
    /// # Errors
    /// The file is no model that can be run, or cannot be read.
    pub fn open(path: &Path, blocks: &Blocks) -> Result<Self, SplitError> {
        let file = ModelFile::open(path)?;
        let graph = {
            let streamable = crate::weights::streamable(&file);
            let imported = file.graph(&streamable)?;
            (imported.graph, streamable.into_iter().map(str::to_owned).collect::<HashSet<_>>())
        };
        Self::new(&graph.0, &graph.1, file, blocks)
    }
}

impl<S: WeightSource> Stage<S> {
    /// A graph whose inputs in `weights` come from `source`: in blocks of as many rows as `blocks` says, or before the first
    /// run.
    ///
    /// # Errors
    /// Shapes that do not fit or stay open; weights that cannot be read.
    pub fn new(
        graph: &privet_graph::Graph,
        weights: &HashSet<String>,
        source: S,
        blocks: &Blocks,
    ) -> Result<Self, SplitError> {
        let model = FloatModel::settle(graph, &[])?;
        let mut stage = Self {
            inputs: Vec::new(),
            outputs: model.graph().outputs.iter().map(|o| (o.name.clone(), o.value)).collect(),
            last: model.last_reads(),
            model,
            source,
            weights: HashMap::new(),
            gemm: GemmExecutor::new(),
            stop: None,
        };
        for input in &stage.model.graph().inputs {
            if !weights.contains(&input.name) {
                stage.inputs.push((input.name.clone(), input.value));
                continue;
            }
            let shape = stage.model.fact(input.value)?.shape.clone();
            let held = match blocks.get(&input.name) {
                Some(&rows) => Held::Blocks(rows.max(1)),
                None => Held::Whole(stage.source.whole(&input.name, &shape)?),
            };
            stage.weights.insert(input.value, Weight { name: input.name.clone(), shape, held });
        }
        Ok(stage)
    }

    /// Ends a run before its next node once this flag is set, with [`SplitError::Interrupted`].
    pub fn stop_with(&mut self, stop: Arc<AtomicBool>) {
        self.stop = Some(stop);
    }

    /// Where its weights come from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Names of what it is given.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().map(|(name, _)| name.as_str())
    }

    /// Element type and shape of every input, in the order of [`Stage::inputs`].
    ///
    /// # Errors
    /// None for a stage that was made.
    pub fn input_facts(&self) -> Result<Vec<&Fact>, SplitError> {
        self.inputs.iter().map(|(_, value)| Ok(self.model.fact(*value)?)).collect()
    }

    /// Name, element type and shape of every output, and the operator that gives it, if one does.
    ///
    /// # Errors
    /// None for a stage that was made.
    pub fn output_facts<'s>(&'s self) -> Result<Vec<OutputFact<'s>>, SplitError> {
        let operator = |value: &ValueId| {
            self.model.graph().nodes.iter().find(|n| n.outputs.contains(value)).map(|n| n.op.name())
        };
        let fact = |(name, value): &'s (String, ValueId)| {
            Ok(OutputFact { name, fact: self.model.fact(*value)?, operator: operator(value) })
        };
        self.outputs.iter().map(fact).collect()
    }

    /// Computes the outputs. Takes the inputs out of `tensors`, but for those in `keep`, and puts the outputs in.
    ///
    /// # Errors
    /// Inputs that are missing or have another shape; weights that cannot be read; see [`Stage::stop_with`].
    pub fn run(&mut self, tensors: &mut Tensors, keep: &HashSet<&str>) -> Result<(), SplitError> {
        let mut values: Vec<Option<Tensor>> = vec![None; self.model.graph().value_count()];
        for (name, value) in &self.inputs {
            let fact = self.model.fact(*value)?;
            let expected = || format!("{:?} of shape {:?}", fact.dtype, fact.shape);
            let given =
                if keep.contains(name.as_str()) { tensors.get(name).cloned() } else { tensors.remove(name) };
            let given = given.ok_or_else(|| SplitError::Input {
                name: name.clone(),
                expected: expected(),
                found: "nothing".to_owned(),
            })?;
            if (given.dtype(), given.shape()) != (fact.dtype, fact.shape.as_slice()) {
                let found = format!("{:?} of shape {:?}", given.dtype(), given.shape());
                return Err(SplitError::Input { name: name.clone(), expected: expected(), found });
            }
            values[value.index()] = Some(standard(given));
        }
        let outputs: HashSet<ValueId> = self.outputs.iter().map(|(_, value)| *value).collect();
        for at in 0..self.model.graph().nodes.len() {
            if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::SeqCst)) {
                return Err(SplitError::Interrupted);
            }
            let results = self.node(at, &mut values, &outputs)?;
            let node = &self.model.graph().nodes[at];
            for (output, result) in node.outputs.iter().zip(results) {
                values[output.index()] = Some(result);
            }
            for dead in self.last[at].iter().filter(|dead| !outputs.contains(dead)) {
                values[dead.index()] = None;
            }
        }
        for (i, (name, value)) in self.outputs.iter().enumerate() {
            let again = self.outputs[i + 1..].iter().any(|(_, other)| other == value);
            let found = if again { values[value.index()].clone() } else { values[value.index()].take() };
            let found = found.or_else(|| self.model.graph().constants.get(value).map(|t| (**t).clone()));
            let found = found.ok_or_else(|| SplitError::Kernel(format!("nothing computes {name:?}")))?;
            tensors.insert(name.clone(), found);
        }
        Ok(())
    }

    /// The results of one node; may take operands out of `values` that nothing reads afterwards.
    fn node(
        &mut self,
        at: usize,
        values: &mut [Option<Tensor>],
        outputs: &HashSet<ValueId>,
    ) -> Result<Vec<Tensor>, SplitError> {
        let Self { model, source, weights, last, gemm, .. } = self;
        let node = &model.graph().nodes[at];
        let facts = Facts::of(model, node)?;
        let shape = facts.results[0].shape.as_slice();
        let dies = |&i: &usize| {
            let value = node.inputs[i].expect("reusable operands are there");
            let once = node.inputs.iter().filter(|other| **other == Some(value)).count() == 1;
            once && last[at].contains(&value) && !outputs.contains(&value)
        };
        let reused = memory::reusable(node, &facts).into_iter().find(dies);
        if let Some(i) = reused {
            let value = node.inputs[i].expect("reusable operands are there");
            let own = values[value.index()].take().ok_or_else(|| missing(node))?;
            let operands = operands(node, model, values);
            let made = kernels::in_place(node, shape, i, own, &operands);
            return Ok(vec![made.ok_or_else(|| missing(node))?]);
        }
        let weight = node.inputs.get(1).copied().flatten().and_then(|value| weights.get(&value));
        let operands = operands(node, model, values);
        let floats = |i: usize| match operands.get(i).copied().flatten() {
            Some(Tensor::F32(a)) => a.as_slice(),
            _ => None,
        };
        if memory::takes_blocks(node, &facts)
            && let Some(x) = floats(0)
        {
            let constant = operands.get(1).copied().flatten();
            let mut rows = match (weight, constant) {
                (Some(Weight { held: Held::Whole(values), .. }), _) => Stored::Whole(values),
                (None, Some(tensor)) => Stored::Whole(slice(tensor)?),
                (Some(Weight { name, shape, held: Held::Blocks(rows) }), _) => {
                    Stored::Blocks { source, name, shape, rows: *rows }
                }
                (None, None) => return Err(missing(node)),
            };
            if let Some(sizes) = memory::convolution(node, &facts) {
                let y = kernels::convolve(gemm, &sizes, x, &mut rows, floats(2))?;
                return Ok(vec![array(shape, y)]);
            }
            let (sizes, beta) = product(node, &facts);
            let y = kernels::multiply(gemm, &sizes, x, &mut rows)?;
            let Tensor::F32(mut y) = array(shape, y) else { unreachable!("made of floats") };
            if let Some(Some(Tensor::F32(c))) = operands.get(2)
                && beta != 0.0
            {
                let c = c.broadcast(IxDyn(shape)).ok_or_else(|| missing(node))?;
                y.zip_mut_with(&c, |y, c| *y += beta * c);
            }
            return Ok(vec![y.into()]);
        }
        if let (Some(sizes), Some(x)) = (memory::max_pool(node, &facts), floats(0)) {
            return Ok(vec![array(shape, kernels::max_pool(&sizes, x))]);
        }
        // Everything else is the graph's own evaluation, with weights as a whole.
        let mut loaded: Vec<(usize, Tensor)> = Vec::new();
        for (i, value) in node.inputs.iter().enumerate() {
            if let Some(Weight { name, shape, held }) = value.and_then(|v| weights.get(&v)) {
                let values = match held {
                    Held::Whole(values) => values.to_vec(),
                    Held::Blocks(_) => source.whole(name, shape)?.to_vec(),
                };
                loaded.push((i, array(shape, values)));
            }
        }
        let mut operands = operands;
        loaded.iter().for_each(|(i, tensor)| operands[*i] = Some(tensor));
        let results = node.op.eval(Args(&operands)).map_err(|error| privet_graph::GraphError::Op {
            node: node.name.clone(),
            op: node.op.name().to_owned(),
            error,
        })?;
        Ok(results.into_iter().map(standard).collect())
    }
}

/// The operands that the graph or a node before holds.
fn operands<'a>(node: &Node, model: &'a FloatModel, values: &'a [Option<Tensor>]) -> Vec<Option<&'a Tensor>> {
    let constants = &model.graph().constants;
    let value = |v: ValueId| values[v.index()].as_ref().or_else(|| constants.get(&v).map(AsRef::as_ref));
    node.inputs.iter().map(|input| input.and_then(value)).collect()
}

/// A product's sizes, and the factor of its addend.
fn product(node: &Node, facts: &Facts<'_>) -> (Product, f32) {
    let shape = |i: usize| facts.operands[i].map_or(&[][..], |fact| &fact.shape);
    let (x, w) = (shape(0), shape(1));
    if let Some(gemm) = node.is::<ops::Gemm>() {
        let (m, k) = if gemm.trans_a { (x[1], x[0]) } else { (x[0], x[1]) };
        let n = if gemm.trans_b { w[0] } else { w[1] };
        let (x_transposed, w_transposed) = (gemm.trans_a, gemm.trans_b);
        return (Product { m, k, n, x_transposed, w_transposed, alpha: gemm.alpha }, gemm.beta);
    }
    let m = x[..x.len() - 1].iter().product();
    let sizes = Product { m, k: w[0], n: w[1], x_transposed: false, w_transposed: false, alpha: 1.0 };
    (sizes, 1.0)
}

/// Rows of a weight, where it lies.
enum Stored<'a, S> {
    Whole(&'a [f32]),
    Blocks { source: &'a mut S, name: &'a str, shape: &'a [usize], rows: usize },
}

impl<S: WeightSource> Rows for Stored<'_, S> {
    fn blocks(&mut self, f: &mut dyn FnMut(usize, &[f32])) -> Result<(), SplitError> {
        match self {
            Self::Whole(values) => f(0, values),
            Self::Blocks { source, name, shape, rows } => {
                let row: usize = shape[1..].iter().product();
                let mut block = source.memory(row * (*rows).min(shape[0]))?;
                for first in (0..shape[0]).step_by(*rows) {
                    let end = (first + *rows).min(shape[0]);
                    let block = &mut block[..(end - first) * row];
                    source.rows(name, first..end, block)?;
                    f(first, block);
                }
            }
        }
        Ok(())
    }
}

fn array(shape: &[usize], values: Vec<f32>) -> Tensor {
    ArrayD::from_shape_vec(IxDyn(shape), values).expect("as many values as the shape says").into()
}

fn slice(tensor: &Tensor) -> Result<&[f32], SplitError> {
    let slice = match tensor {
        Tensor::F32(a) => a.as_slice(),
        _ => None,
    };
    slice.ok_or_else(|| SplitError::Kernel("a weight of floats in order was expected".to_owned()))
}

fn missing(node: &Node) -> SplitError {
    SplitError::Kernel(format!("node {:?}, operator {}", node.name, node.op.name()))
}

/// The same tensor, row-major.
fn standard(tensor: Tensor) -> Tensor {
    match tensor {
        Tensor::F32(a) if !a.is_standard_layout() => a.as_standard_layout().into_owned().into(),
        Tensor::I64(a) if !a.is_standard_layout() => a.as_standard_layout().into_owned().into(),
        Tensor::Bool(a) if !a.is_standard_layout() => a.as_standard_layout().into_owned().into(),
        tensor => tensor,
    }
}

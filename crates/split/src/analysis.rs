//! What the planner has to know about a model: what its nodes take, which tensors cross, which constants they read.
//!
//! A node whose results do not depend on the values of the inputs is no operation: it goes along with those that read it. Where
//! it needs only constants it is copied to every stage that reads it; where it needs the *shape* of something
//! else, its result is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use privet_graph::{DType, Fact, FloatModel, Graph, Node, Tensor, ops};
use privet_onnx::{Declared, Imported, ModelFile, Part};

use crate::memory::{self, Facts};
use crate::planner::{Operation, WeightSize, Workload};
use crate::{SplitError, weights};

/// Work of loading a byte of weights, in multiply-adds: some gigabytes a second against a hundred billion operations.
const WORK_PER_BYTE: u64 = 10;

/// A model ready to be cut.
#[derive(Debug)]
pub struct Analysis {
    /// For the planner.
    pub workload: Workload,
    /// The node of the file behind every operation.
    nodes: Vec<usize>,
    /// Values that depend on the inputs, by name.
    values: BTreeMap<String, Value>,
    /// Constants that nodes of the file compute, by name.
    folded: BTreeMap<String, Folded>,
    /// Name of every weight in the workload.
    pub weight_names: Vec<String>,
    /// Names of inputs and outputs of the model.
    pub inputs: Vec<Declared>,
    /// See [`Analysis::inputs`].
    pub outputs: Vec<Declared>,
}

/// A value that depends on the inputs.
#[derive(Debug)]
struct Value {
    declared: Declared,
    bytes: u64,
    /// The operation that makes it; none for inputs.
    made: Option<usize>,
    /// One behind the last operation that reads it; behind the last operation for outputs.
    until: usize,
}

/// A constant that a node computes.
#[derive(Debug)]
struct Folded {
    node: usize,
    value: Arc<Tensor>,
    /// Whether it follows from constants only.
    pure: bool,
}

impl Analysis {
    /// Looks at a model whose open dimensions have the sizes `input_shapes`, as in [`privet_graph::CompileOptions`].
    ///
    /// # Errors
    /// Operators that are not supported, shapes that stay open, outputs that do not depend on the input.
    pub fn new(file: &ModelFile, input_shapes: &[(Option<String>, Vec<usize>)]) -> Result<Self, SplitError> {
        let streamable = weights::streamable(file);
        let Imported { graph, values: names, nodes: ranges } = file.graph(&streamable)?;
        let model = FloatModel::settle(&graph, input_shapes)?;
        let fact = |name: &str| names.get(name).and_then(|value| model.fact(*value).ok());
        let mut this = Self {
            workload: Workload::default(),
            nodes: Vec::new(),
            values: BTreeMap::new(),
            folded: BTreeMap::new(),
            weight_names: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        for name in file.inputs() {
            if let Some(fact) = fact(name) {
                let declared = this.value(name, fact, None);
                this.inputs.push(declared);
            }
        }
        for (node, spec) in file.nodes().iter().enumerate() {
            let results: Vec<(&str, &Fact)> =
                spec.outputs.iter().filter_map(|name| Some((name.as_str(), fact(name)?))).collect();
            if results.iter().all(|(_, fact)| fact.value.is_some()) {
                let pure = spec.inputs.iter().all(|name| {
                    name.is_empty()
                        || file.tensors().contains_key(name)
                        || this.folded.get(name).is_some_and(|f| f.pure)
                });
                for (name, fact) in results {
                    let Some(value) = fact.value.clone() else { continue };
                    this.folded.insert(name.to_owned(), Folded { node, value, pure });
                }
                continue;
            }
            let operation = this.nodes.len();
            this.nodes.push(node);
            for (name, fact) in results {
                this.value(name, fact, Some(operation));
            }
            for name in &spec.inputs {
                if let Some(value) = this.values.get_mut(name) {
                    value.until = operation + 1;
                }
            }
        }
        if file.has_narrow_integers()
            && this.folded.values().any(|f| !f.pure && f.value.dtype() == DType::I64)
        {
            return Err(SplitError::Unsupported {
                what: "a model with integers narrower than 64 bits that computes with shapes".to_owned(),
                supported: "64-bit integers, or fixed shapes folded into constants",
            });
        }
        let count = this.nodes.len();
        for name in file.outputs() {
            let Some(value) = this.values.get_mut(name) else {
                return Err(SplitError::Unsupported {
                    what: format!("output {name:?}, which does not depend on the input"),
                    supported: "outputs that do",
                });
            };
            value.until = count + 1;
            this.outputs.push(value.declared.clone());
        }
        if count == 0 {
            return Err(SplitError::Unsupported {
                what: "a model without an operation on its inputs".to_owned(),
                supported: "models with at least one",
            });
        }
        this.operations(file, &graph, &model, &ranges, &streamable)?;
        Ok(this)
    }

    /// Number of stages that the model can be cut into.
    pub fn most_parts(&self) -> usize {
        1 + self.workload.operations.iter().skip(1).filter(|op| op.cut).count()
    }

    /// What goes into the stage of these operations.
    pub fn part(&self, file: &ModelFile, name: &str, stage: &Range<usize>) -> Part {
        let mut part = Part { name: name.to_owned(), ..Part::default() };
        let (mut nodes, mut stored) = (BTreeSet::new(), BTreeSet::new());
        let mut constants: BTreeMap<&str, Arc<Tensor>> = BTreeMap::new();
        let mut inputs = BTreeSet::new();
        let mut reads = Vec::new();
        for operation in stage.clone() {
            nodes.insert(self.nodes[operation]);
            reads.extend(&file.nodes()[self.nodes[operation]].inputs);
        }
        while let Some(read) = reads.pop() {
            if let Some(value) = self.values.get(read) {
                if value.made.is_none_or(|made| made < stage.start) {
                    inputs.insert(read.as_str());
                }
            } else if file.tensors().contains_key(read) {
                stored.insert(read.clone());
            } else if let Some(folded) = self.folded.get(read) {
                if folded.pure {
                    if nodes.insert(folded.node) {
                        reads.extend(&file.nodes()[folded.node].inputs);
                    }
                } else {
                    constants.insert(read, folded.value.clone());
                }
            }
        }
        part.nodes = nodes.into_iter().collect();
        part.initializers = stored.into_iter().collect();
        part.constants = constants.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        part.inputs = inputs.into_iter().map(|name| self.values[name].declared.clone()).collect();
        let made = |v: &&Value| v.made.is_some_and(|made| stage.contains(&made)) && v.until > stage.end;
        part.outputs = self.values.values().filter(made).map(|v| v.declared.clone()).collect();
        part
    }

    /// What crosses in front of an operation.
    pub fn crossing(&self, at: usize) -> impl Iterator<Item = &Declared> {
        self.alive(at).map(|value| &value.declared)
    }

    fn alive(&self, at: usize) -> impl Iterator<Item = &Value> {
        self.values.values().filter(move |v| v.made.is_none_or(|made| made < at) && v.until > at)
    }

    fn value(&mut self, name: &str, fact: &Fact, made: Option<usize>) -> Declared {
        let declared = Declared { name: name.to_owned(), dtype: fact.dtype, shape: fact.shape.clone() };
        let value = Value { declared: declared.clone(), bytes: memory::bytes(fact), made, until: 0 };
        self.values.insert(name.to_owned(), value);
        declared
    }

    /// Measures the operations.
    fn operations(
        &mut self,
        file: &ModelFile,
        graph: &Graph,
        model: &FloatModel,
        ranges: &[Range<usize>],
        streamable: &std::collections::HashSet<&str>,
    ) -> Result<(), SplitError> {
        let narrow = file.has_narrow_integers();
        let mut indices: HashMap<String, usize> = HashMap::new();
        for (operation, &node) in self.nodes.iter().enumerate() {
            let spec = &file.nodes()[node];
            let alive: u64 = self.alive(operation).map(|v| v.bytes).sum();
            let cut = !(narrow && self.alive(operation).any(|v| v.declared.dtype == DType::I64));
            let nodes = &graph.nodes[ranges[node].clone()];
            let dies = |name: &str| self.values.get(name).is_some_and(|v| v.until == operation + 1);
            let (mut made, mut workspace, mut work) = (0, 0, 0u64);
            for own in nodes {
                let facts = Facts::of(model, own)?;
                let reused = memory::reusable(own, &facts).into_iter().any(|i| {
                    let once = own.inputs.iter().filter(|other| **other == own.inputs[i]).count() == 1;
                    once && nodes.len() == 1 && spec.inputs.get(i).is_some_and(|name| dies(name))
                });
                let results: u64 = facts.results.iter().map(|f| memory::bytes(f)).sum();
                made += if reused { 0 } else { results };
                workspace = workspace.max(memory::workspace(own, &facts));
                work = work
                    .saturating_add(own.op.work(privet_graph::Args(&facts.operands), &owned(&facts)) as u64);
            }
            let read = self.constants(file, spec);
            let mut own = Vec::with_capacity(read.len());
            for (name, bytes) in read {
                work = work.saturating_add(bytes.saturating_mul(WORK_PER_BYTE));
                let next = self.workload.weights.len();
                let index = *indices.entry(name.clone()).or_insert(next);
                if index == next {
                    let shape = file.tensors().get(&name).map(|t| t.shape.as_slice()).unwrap_or_default();
                    let rows = shape.first().copied().unwrap_or(1).max(1) as u64;
                    let blocks = nodes.len() == 1 && blocks(&nodes[0], model)?;
                    let row = (streamable.contains(name.as_str()) && blocks).then_some(bytes / rows);
                    self.workload.weights.push(WeightSize { bytes, row });
                    self.weight_names.push(name);
                }
                own.push(index);
            }
            let name =
                if spec.name.is_empty() { spec.outputs.first().cloned() } else { Some(spec.name.clone()) };
            self.workload.operations.push(Operation {
                name: name.unwrap_or_default(),
                active: alive + made + workspace,
                weights: own,
                work,
                cut,
            });
        }
        Ok(())
    }

    /// Constants that a node reads, and those that they are made of, with their bytes in memory.
    fn constants(&self, file: &ModelFile, spec: &privet_onnx::FileNode) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        let mut reads: Vec<&String> = spec.inputs.iter().collect();
        while let Some(name) = reads.pop() {
            if let Some(stored) = file.tensors().get(name) {
                let element = match stored.dtype {
                    DType::F32 => 4,
                    DType::I64 => 8,
                    DType::Bool => 1,
                };
                found.insert(name.clone(), element * stored.len() as u64);
            } else if let Some(folded) = self.folded.get(name) {
                let fact = Fact::constant(folded.value.clone());
                if found.insert(name.clone(), memory::bytes(&fact)).is_none() && folded.pure {
                    reads.extend(&file.nodes()[folded.node].inputs);
                }
            }
        }
        found
    }
}

fn blocks(node: &Node, model: &FloatModel) -> Result<bool, SplitError> {
    let facts = Facts::of(model, node)?;
    Ok(memory::takes_blocks(node, &facts) && node.is::<ops::If>().is_none())
}

fn owned(facts: &Facts<'_>) -> Vec<Fact> {
    facts.results.iter().map(|&f| f.clone()).collect()
}

//! From the protobuf messages to the graph.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use privet_graph::ops::If;
use privet_graph::{Body, Dim, Graph, GraphInput, Node, Operator, Tensor, ValueId};

use crate::node::{NodeReader, Operand, Parsed};
use crate::ops::{NEWEST_OPSET, OLDEST_OPSET, Row, TABLE};
use crate::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use crate::{OnnxError, tensor};

/// Reads a model.
pub(crate) fn graph(model: ModelProto, name: &str, directory: Option<&Path>) -> Result<Graph, OnnxError> {
    Ok(named(model, name, directory, Vec::new(), Vec::new())?.graph)
}

/// Reads a model, and keeps what its values and nodes are called.
///
/// `given` are float tensors that the graph gets as inputs, in front of its own: initialisers that stay where they are.
/// `read` are initialisers that were read already.
pub(crate) fn named(
    model: ModelProto,
    name: &str,
    directory: Option<&Path>,
    given: Vec<(String, Vec<usize>)>,
    read: Vec<(String, Tensor)>,
) -> Result<Imported, OnnxError> {
    let opset = opset(&model)?;
    let proto = model.graph.ok_or_else(|| OnnxError::Malformed("there is no graph".to_owned()))?;
    let mut importer = Importer::new(name, opset, None);
    for (name, shape) in given {
        let value = importer.graph.input(name.clone(), shape.into_iter().map(Dim::Fixed).collect());
        importer.define(name.clone(), value)?;
        importer.given.insert(name);
    }
    for (name, tensor) in read {
        let value = importer.graph.constant(tensor);
        importer.define(name, value)?;
    }
    importer.read(proto, directory)?;
    let Importer { graph, values, ranges, .. } = importer;
    Ok(Imported { graph, values, nodes: ranges })
}

/// A graph, and what became of the names and nodes of its file.
#[derive(Debug)]
pub struct Imported {
    /// The graph.
    pub graph: Graph,
    /// The value of every name.
    pub values: HashMap<String, ValueId>,
    /// For every node of the file, the nodes of the graph that it became.
    pub nodes: Vec<Range<usize>>,
}

/// The version of the default operator set; other domains do not matter until a node uses them.
fn opset(model: &ModelProto) -> Result<i64, OnnxError> {
    let supported = format!("ai.onnx {OLDEST_OPSET} to {NEWEST_OPSET}");
    let mut found = model.opset_import.iter().filter(|o| is_default_domain(&o.domain));
    match (found.next(), found.next()) {
        (Some(one), None) if (OLDEST_OPSET..=NEWEST_OPSET).contains(&one.version) => Ok(one.version),
        (Some(one), None) => Err(OnnxError::Opset { found: format!("ai.onnx {}", one.version), supported }),
        (None, _) => Err(OnnxError::Opset { found: "(none given)".to_owned(), supported }),
        (Some(_), Some(_)) => {
            Err(OnnxError::Malformed("the default operator set is imported twice".to_owned()))
        }
    }
}

fn is_default_domain(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

struct Importer<'a> {
    graph: Graph,
    values: HashMap<String, ValueId>,
    opset: i64,
    /// Names that some node or output reads.
    used: HashSet<String>,
    /// The graph around this branch.
    outer: Option<&'a Importer<'a>>,
    /// Values of the graph around this branch that the branch reads, and the values here that stand for them.
    captured: Vec<(String, ValueId)>,
    /// Inputs of the graph that stand for initialisers.
    given: HashSet<String>,
    /// The nodes that every node of the file became.
    ranges: Vec<Range<usize>>,
}

impl<'a> Importer<'a> {
    fn new(name: &str, opset: i64, outer: Option<&'a Importer<'a>>) -> Self {
        let (values, used) = (HashMap::new(), HashSet::new());
        let (given, ranges) = (HashSet::new(), Vec::new());
        Self { graph: Graph::new(name), values, opset, used, outer, captured: Vec::new(), given, ranges }
    }

    fn read(&mut self, proto: GraphProto, directory: Option<&Path>) -> Result<(), OnnxError> {
        if !proto.sparse_initializer.is_empty() {
            return Err(OnnxError::Malformed(
                "sparse initializers are not supported; supported: dense ones".to_owned(),
            ));
        }
        collect_reads(&proto, &mut self.used);
        for initializer in proto.initializer {
            let name = initializer.name.clone();
            let value = self.graph.constant(tensor::read(initializer, directory)?);
            self.define(name, value)?;
        }
        for input in proto.input {
            self.input(input)?;
        }
        for (i, node) in proto.node.iter().enumerate() {
            let first = self.graph.nodes.len();
            self.node(i, node, directory)?;
            self.ranges.push(first..self.graph.nodes.len());
        }
        for output in proto.output {
            let value = self.value(&output.name, "the outputs")?;
            self.graph.output(output.name, value);
        }
        Ok(())
    }

    /// A branch of `If`; what keeps it from being read matters only if it is chosen.
    fn branch(&self, proto: GraphProto, directory: Option<&Path>) -> (Branch, Vec<String>) {
        let mut inner = Importer::new(&self.graph.name, self.opset, Some(self));
        let read = if proto.input.is_empty() {
            inner.read(proto, directory)
        } else {
            Err(OnnxError::Malformed("a branch of If has inputs".to_owned()))
        };
        match read {
            Ok(()) => {
                let (names, values) = inner.captured.into_iter().unzip();
                (Ok((inner.graph, values)), names)
            }
            Err(error) => (Err(error.to_string()), Vec::new()),
        }
    }

    fn define(&mut self, name: String, value: ValueId) -> Result<(), OnnxError> {
        if name.is_empty() {
            return Err(OnnxError::Malformed("a value without a name".to_owned()));
        }
        match self.values.insert(name.clone(), value) {
            None => Ok(()),
            Some(_) => Err(OnnxError::Malformed(format!("value {name:?} is defined twice"))),
        }
    }

    /// The value of this name, here or in the graph around.
    fn value(&mut self, name: &str, reader: &str) -> Result<ValueId, OnnxError> {
        if let Some(value) = self.values.get(name) {
            return Ok(*value);
        }
        let mut outer = self.outer;
        while let Some(scope) = outer {
            if let Some(value) = scope.values.get(name) {
                let here = match scope.graph.constants.get(value) {
                    Some(tensor) => self.graph.shared_constant(Arc::clone(tensor)),
                    None => {
                        let here = self.graph.value();
                        self.captured.push((name.to_owned(), here));
                        here
                    }
                };
                self.values.insert(name.to_owned(), here);
                return Ok(here);
            }
            outer = scope.outer;
        }
        Err(OnnxError::Malformed(format!("{reader:?} reads {name:?}, which nothing before it defines")))
    }

    /// Inputs with an initializer are constants; IR versions below 4 list every initializer as an input.
    fn input(&mut self, input: ValueInfoProto) -> Result<(), OnnxError> {
        let constant = |value: &ValueId| self.graph.constants.contains_key(value);
        if self.given.contains(&input.name) || self.values.get(&input.name).is_some_and(constant) {
            return Ok(());
        }
        let what = format!("input {:?}", input.name);
        let (elem_type, shape) = tensor::tensor_type(input.r#type).ok_or_else(|| OnnxError::ElementType {
            what: what.clone(),
            found: "(not a tensor)".to_owned(),
        })?;
        let dtype = tensor::dtype(&what, elem_type)?;
        let dims = shape.map(|shape| {
            let dim = |d: crate::proto::DimensionProto| match (d.dim_value.map(usize::try_from), d.dim_param)
            {
                // Some exporters write 0 or -1 for a dimension they leave open.
                (Some(Ok(size)), _) if size > 0 => Dim::Fixed(size),
                (_, name) => Dim::Symbolic(name.unwrap_or_default()),
            };
            shape.dim.into_iter().map(dim).collect()
        });
        let value = self.graph.value();
        self.define(input.name.clone(), value)?;
        self.graph.inputs.push(GraphInput { name: input.name, dtype, dims, value });
        Ok(())
    }

    fn node(&mut self, index: usize, proto: &NodeProto, directory: Option<&Path>) -> Result<(), OnnxError> {
        let name = match (proto.name.as_str(), proto.output.first()) {
            ("", Some(output)) if !output.is_empty() => output.clone(),
            ("", _) => format!("{}_{index}", proto.op_type),
            (name, _) => name.to_owned(),
        };
        let row = self.row(&name, proto)?;
        let mut inputs = Vec::with_capacity(proto.input.len());
        for input in &proto.input {
            inputs.push(if input.is_empty() { None } else { Some(self.value(input, &name)?) });
        }
        let constants = inputs.iter().map(|v| self.graph.constants.get(&(*v)?).cloned()).collect();
        let reader = NodeReader::new(proto, &name, self.opset, constants);
        let parsed = (row.parse)(&reader)?;
        reader.finish()?;
        let named = proto.output.iter().take(reader.output_count());
        let results: Vec<ValueId> = match parsed {
            Parsed::Constant(tensor) => vec![self.graph.constant(tensor)],
            Parsed::Node(op, operands) => vec![self.apply(&name, op, operands, &inputs)],
            Parsed::Each(nodes) => {
                // A result that nobody reads is not computed.
                let read = |i: usize| proto.output.get(i).is_some_and(|o| self.used.contains(o));
                let wanted: Vec<bool> = (0..nodes.len()).map(|i| i == 0 || read(i)).collect();
                let nodes = nodes.into_iter().zip(wanted).take_while(|(_, wanted)| *wanted);
                nodes.map(|((op, operands), _)| self.apply(&name, op, operands, &inputs)).collect()
            }
            Parsed::Results(op, operands) => {
                let results: Vec<ValueId> = named.clone().map(|_| self.graph.value()).collect();
                self.push(&name, op, operands, &inputs, results.clone());
                results
            }
            Parsed::Branches(branches) => {
                let results: Vec<ValueId> = named.clone().map(|_| self.graph.value()).collect();
                self.choice(&name, branches, inputs, results.clone(), directory)?;
                results
            }
        };
        let Some(output) = proto.output.first().filter(|_| named.len() > 0) else {
            return Err(reader.operands("outputs", "at least one", "none"));
        };
        if let Some(extra) =
            proto.output.iter().skip(results.len()).find(|o| self.used.contains(o.as_str()) && !o.is_empty())
        {
            let first = if results.len() == 1 { "only the first one" } else { "fewer of them" };
            return Err(reader.operands(
                "outputs",
                format!("{first} used"),
                format!("a reader of {extra:?}"),
            ));
        }
        if output.is_empty() && results.len() == 1 {
            return Err(reader.operands("outputs", "a name for the first one", "none"));
        }
        for (output, value) in proto.output.iter().zip(results).filter(|(output, _)| !output.is_empty()) {
            self.define(output.clone(), value)?;
        }
        Ok(())
    }

    /// Appends a node with one result.
    fn apply(
        &mut self,
        name: &str,
        op: Arc<dyn Operator>,
        operands: Vec<Operand>,
        inputs: &[Option<ValueId>],
    ) -> ValueId {
        let value = self.graph.value();
        self.push(name, op, operands, inputs, vec![value]);
        value
    }

    fn push(
        &mut self,
        name: &str,
        op: Arc<dyn Operator>,
        operands: Vec<Operand>,
        inputs: &[Option<ValueId>],
        outputs: Vec<ValueId>,
    ) {
        let mut resolved = Vec::with_capacity(operands.len());
        for operand in operands {
            resolved.push(match operand {
                Operand::Input(i) => inputs.get(i).copied().flatten(),
                Operand::Missing => None,
                Operand::Constant(tensor) => Some(self.graph.constant(tensor)),
                Operand::Computed(op, operands) => Some(self.apply(name, op, operands, inputs)),
            });
        }
        self.graph.nodes.push(Node { name: name.to_owned(), op, inputs: resolved, outputs });
    }

    /// Appends an `If`: its operands are the condition and what its branches read of this graph.
    fn choice(
        &mut self,
        name: &str,
        branches: [Box<GraphProto>; 2],
        mut inputs: Vec<Option<ValueId>>,
        outputs: Vec<ValueId>,
        directory: Option<&Path>,
    ) -> Result<(), OnnxError> {
        let mut chosen = Vec::with_capacity(2);
        for proto in branches {
            let (branch, names) = self.branch(*proto, directory);
            let first = inputs.len();
            for captured in names {
                inputs.push(Some(self.value(&captured, name)?));
            }
            chosen.push(branch.map(|(graph, captured)| {
                let captures = captured.into_iter().zip(first..).collect();
                Body { graph, captures }
            }));
        }
        let otherwise = chosen.pop().expect("two branches");
        let then = chosen.pop().expect("two branches");
        let op = Arc::new(If { then, otherwise });
        self.graph.nodes.push(Node { name: name.to_owned(), op, inputs, outputs });
        Ok(())
    }

    /// The newest meaning of the operator that the model's operator set knows.
    fn row(&self, name: &str, proto: &NodeProto) -> Result<&'static Row, OnnxError> {
        let default = is_default_domain(&proto.domain);
        let known =
            TABLE.iter().filter(|row| default && row.name == proto.op_type && row.since <= self.opset);
        known.max_by_key(|row| row.since).ok_or_else(|| {
            let mut supported: Vec<&str> =
                TABLE.iter().filter(|r| r.since <= self.opset).map(|r| r.name).collect();
            supported.dedup();
            let operator =
                if default { proto.op_type.clone() } else { format!("{}::{}", proto.domain, proto.op_type) };
            OnnxError::Operator {
                node: name.to_owned(),
                operator,
                opset: self.opset,
                supported: supported.join(", "),
            }
        })
    }
}

/// A branch with its own values for what it reads of the graph around it, or why it cannot be read.
type Branch = Result<(Graph, Vec<ValueId>), String>;

/// Names that the graph or a branch in it reads.
fn collect_reads(graph: &GraphProto, used: &mut HashSet<String>) {
    for node in &graph.node {
        used.extend(node.input.iter().cloned());
        for branch in node.attribute.iter().filter_map(|a| a.g.as_ref()) {
            collect_reads(branch, used);
        }
    }
    used.extend(graph.output.iter().map(|o| o.name.clone()));
}

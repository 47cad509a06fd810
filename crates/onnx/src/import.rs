//! From the protobuf messages to the graph.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use privet_graph::{Dim, Graph, GraphInput, Node, ValueId};

use crate::node::{NodeReader, Operand, Parsed};
use crate::ops::{NEWEST_OPSET, OLDEST_OPSET, Row, TABLE};
use crate::proto::{ModelProto, NodeProto, ValueInfoProto};
use crate::{OnnxError, tensor};

/// Reads a model.
pub(crate) fn graph(model: ModelProto, name: &str, directory: Option<&Path>) -> Result<Graph, OnnxError> {
    let opset = opset(&model)?;
    let proto = model.graph.ok_or_else(|| OnnxError::Malformed("there is no graph".to_owned()))?;
    if !proto.sparse_initializer.is_empty() {
        return Err(OnnxError::Malformed(
            "sparse initializers are not supported; supported: dense ones".to_owned(),
        ));
    }
    let mut importer =
        Importer { graph: Graph::new(name), values: HashMap::new(), opset, used: HashSet::new() };
    for initializer in proto.initializer {
        let name = initializer.name.clone();
        let value = importer.graph.constant(tensor::read(initializer, directory)?);
        importer.define(name, value)?;
    }
    for input in proto.input {
        importer.input(input)?;
    }
    importer.used = proto
        .node
        .iter()
        .flat_map(|n| &n.input)
        .chain(proto.output.iter().map(|o| &o.name))
        .cloned()
        .collect();
    for (i, node) in proto.node.iter().enumerate() {
        importer.node(i, node)?;
    }
    for output in proto.output {
        let value = importer.value(&output.name, "the model's outputs")?;
        importer.graph.output(output.name, value);
    }
    Ok(importer.graph)
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

struct Importer {
    graph: Graph,
    values: HashMap<String, ValueId>,
    opset: i64,
    /// Names that some node or output reads.
    used: HashSet<String>,
}

impl Importer {
    fn define(&mut self, name: String, value: ValueId) -> Result<(), OnnxError> {
        if name.is_empty() {
            return Err(OnnxError::Malformed("a value without a name".to_owned()));
        }
        match self.values.insert(name.clone(), value) {
            None => Ok(()),
            Some(_) => Err(OnnxError::Malformed(format!("value {name:?} is defined twice"))),
        }
    }

    fn value(&self, name: &str, reader: &str) -> Result<ValueId, OnnxError> {
        self.values.get(name).copied().ok_or_else(|| {
            OnnxError::Malformed(format!("{reader:?} reads {name:?}, which nothing before it defines"))
        })
    }

    /// Inputs with an initializer are constants; IR versions below 4 list every initializer as an input.
    fn input(&mut self, input: ValueInfoProto) -> Result<(), OnnxError> {
        if self.values.get(&input.name).is_some_and(|v| self.graph.constants.contains_key(v)) {
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

    fn node(&mut self, index: usize, proto: &NodeProto) -> Result<(), OnnxError> {
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
        let Some(output) = proto.output.first().filter(|o| !o.is_empty()) else {
            return Err(reader.operands("outputs", "at least one", "none"));
        };
        if let Some(extra) =
            proto.output.iter().skip(1).find(|o| self.used.contains(o.as_str()) && !o.is_empty())
        {
            return Err(reader.operands(
                "outputs",
                "only the first one used",
                format!("a reader of {extra:?}"),
            ));
        }
        let value = match parsed {
            Parsed::Constant(tensor) => self.graph.constant(tensor),
            Parsed::Node(op, operands) => {
                let mut resolved = Vec::with_capacity(operands.len());
                for operand in operands {
                    resolved.push(match operand {
                        Operand::Input(i) => inputs.get(i).copied().flatten(),
                        Operand::Missing => None,
                        Operand::Constant(tensor) => Some(self.graph.constant(tensor)),
                    });
                }
                let value = self.graph.value();
                let name = name.clone();
                self.graph.nodes.push(Node {
                    name,
                    op: Arc::clone(&op),
                    inputs: resolved,
                    outputs: vec![value],
                });
                value
            }
        };
        self.define(output.clone(), value)
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

//! The graph: nodes in execution order over named values.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{GraphError, Operator, Tensor};

/// Index of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub(crate) u32);

impl ValueId {
    /// As an index into per-value lists.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One dimension of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// Fixed by the model.
    Fixed(usize),
    /// Left open by the model, under a name that may be empty.
    Symbolic(String),
}

/// An input of the model.
#[derive(Debug, Clone)]
pub struct GraphInput {
    /// Name.
    pub name: String,
    /// Element type.
    pub dtype: crate::DType,
    /// Shape; `None` when the model does not even say how many axes there are.
    pub dims: Option<Vec<Dim>>,
    /// The value it defines.
    pub value: ValueId,
}

/// An output of the model.
#[derive(Debug, Clone)]
pub struct GraphOutput {
    /// Name.
    pub name: String,
    /// The value it shows.
    pub value: ValueId,
}

/// One application of an operator.
#[derive(Debug, Clone)]
pub struct Node {
    /// Name, for people.
    pub name: String,
    /// What is computed.
    pub op: Arc<dyn Operator>,
    /// Operands; `None` for an optional one that is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Results.
    pub outputs: Vec<ValueId>,
}

impl Node {
    /// The node's operator if it is a `T`.
    pub fn is<T: Operator>(&self) -> Option<&T> {
        let op: &dyn std::any::Any = self.op.as_ref();
        op.downcast_ref()
    }
}

/// A graph that can stand in the place of a node. Its graph has no inputs, and as many outputs as the node has results.
#[derive(Debug, Clone)]
pub struct Body {
    /// Nodes, constants and outputs.
    pub graph: Graph,
    /// Values of `graph` that nothing in it defines, with the operand of the node that each stands for.
    pub captures: Vec<(ValueId, usize)>,
}

/// What [`Graph::folding`] is at first: a mask of 2048 x 2048 fits.
const FOLDING: usize = 1 << 22;

/// A model: nodes in execution order, inputs, outputs and constants.
#[derive(Debug, Clone)]
pub struct Graph {
    /// Name of the model.
    pub name: String,
    /// Nodes; operands are defined before they are used.
    pub nodes: Vec<Node>,
    /// What the caller provides.
    pub inputs: Vec<GraphInput>,
    /// What the caller gets.
    pub outputs: Vec<GraphOutput>,
    /// Values that do not depend on the inputs.
    pub constants: BTreeMap<ValueId, Arc<Tensor>>,
    /// Elements of constants that may be computed besides a multiple of those in [`Graph::constants`], so that a small file
    /// cannot ask for much memory. More are needed by models that describe their weights instead of holding them.
    pub folding: usize,
    values: u32,
}

impl Default for Graph {
    fn default() -> Self {
        Self::new("")
    }
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            nodes: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            constants: BTreeMap::new(),
            folding: FOLDING,
            values: 0,
        }
    }

    /// A fresh value.
    pub fn value(&mut self) -> ValueId {
        self.values += 1;
        ValueId(self.values - 1)
    }

    /// Number of values ever made; every [`ValueId::index`] is below it.
    pub fn value_count(&self) -> usize {
        self.values as usize
    }

    /// A constant.
    pub fn constant(&mut self, tensor: impl Into<Tensor>) -> ValueId {
        self.shared_constant(Arc::new(tensor.into()))
    }

    /// A constant that another graph holds too.
    pub fn shared_constant(&mut self, tensor: Arc<Tensor>) -> ValueId {
        let value = self.value();
        self.constants.insert(value, tensor);
        value
    }

    /// A float input.
    pub fn input(&mut self, name: impl Into<String>, dims: Vec<Dim>) -> ValueId {
        let value = self.value();
        let dims = Some(dims);
        self.inputs.push(GraphInput { name: name.into(), dtype: crate::DType::F32, dims, value });
        value
    }

    /// Appends a node with one result.
    pub fn node(&mut self, name: impl Into<String>, op: impl Operator, inputs: &[ValueId]) -> ValueId {
        let output = self.value();
        self.nodes.push(Node {
            name: name.into(),
            op: Arc::new(op),
            inputs: inputs.iter().copied().map(Some).collect(),
            outputs: vec![output],
        });
        output
    }

    /// Declares an output.
    pub fn output(&mut self, name: impl Into<String>, value: ValueId) {
        self.outputs.push(GraphOutput { name: name.into(), value });
    }

    /// Turns the input `name` into a constant: model data that a file happens to leave to its caller.
    pub fn bind(&mut self, name: &str, tensor: Tensor) -> Result<(), GraphError> {
        let Some(at) = self.inputs.iter().position(|i| i.name == name) else {
            return Err(GraphError::NoSuchInput {
                expected: self.inputs.iter().map(|i| i.name.clone()).collect(),
                found: name.to_owned(),
            });
        };
        let input = &self.inputs[at];
        if input.dtype != tensor.dtype() {
            return Err(GraphError::Malformed(format!(
                "input {name:?}: expected elements of type {:?}, found {:?}",
                input.dtype,
                tensor.dtype()
            )));
        }
        let input = self.inputs.remove(at);
        self.constants.insert(input.value, Arc::new(tensor));
        Ok(())
    }

    /// For every value, how often nodes and outputs read it.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.value_count()];
        let read = self.nodes.iter().flat_map(|n| n.inputs.iter().flatten());
        for value in read.chain(self.outputs.iter().map(|o| &o.value)) {
            uses[value.index()] += 1;
        }
        uses
    }

    /// For every value, the node that defines it.
    pub fn producers(&self) -> Vec<Option<usize>> {
        let mut producers = vec![None; self.value_count()];
        for (i, node) in self.nodes.iter().enumerate() {
            for output in &node.outputs {
                producers[output.index()] = Some(i);
            }
        }
        producers
    }
}

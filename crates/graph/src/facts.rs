//! Shape inference and constant folding: one walk that settles every value's element type, shape and, where it does
//! not depend on the inputs, the value itself. Shape, Gather and Concat chains disappear here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{
    Args, Body, DType, Dim, Fact, Graph, GraphError, GraphInput, Node, OpError, Tensor, ValueId,
    element_count,
};

/// How often folding may rewrite all constants of the model: transposed, reshaped and scaled weights.
const FOLDING_REWRITES: usize = 8;
/// Operations that folding may take: some tenths of a second..
const FOLDING_WORK: usize = 1 << 28;
/// .. and these for every element that the model holds, as many as a product of two matrices of 4096 rows takes.
const FOLDING_WORK_PER_ELEMENT: usize = 1 << 12;

/// Facts of all values that are inputs, constants or results of remaining nodes.
#[derive(Debug, Clone)]
pub(crate) struct Facts(Vec<Option<Fact>>);

impl Facts {
    /// The fact of a value.
    pub(crate) fn get(&self, value: ValueId) -> Result<&Fact, GraphError> {
        self.0.get(value.index()).and_then(Option::as_ref).ok_or_else(|| {
            GraphError::Malformed(format!("value {} is used before it is defined", value.index()))
        })
    }

    /// The facts of a node's operands.
    pub(crate) fn operands(&self, node: &Node) -> Result<Vec<Option<&Fact>>, GraphError> {
        node.inputs.iter().map(|input| input.map(|v| self.get(v)).transpose()).collect()
    }
}

/// Fixes the shapes of all inputs. Given shapes come first; a symbolic dimension takes the size it has elsewhere under
/// the same name; a symbolic batch (axis 0) is otherwise 1; other symbolic dimensions are refused.
pub(crate) fn resolve_inputs(
    graph: &mut Graph,
    given: &[(Option<String>, Vec<usize>)],
) -> Result<(), GraphError> {
    let mut shapes: HashMap<usize, &Vec<usize>> = HashMap::new();
    for (name, shape) in given {
        let at = match name {
            Some(name) => graph.inputs.iter().position(|i| i.name == *name),
            None if graph.inputs.len() == 1 => Some(0),
            None => None,
        };
        let at = at.ok_or_else(|| GraphError::NoSuchInput {
            expected: graph.inputs.iter().map(|i| i.name.clone()).collect(),
            found: name.clone().unwrap_or_else(|| "(unnamed)".to_owned()),
        })?;
        if shapes.insert(at, shape).is_some() {
            return Err(GraphError::Options(format!(
                "the shape of input {:?} is given twice",
                graph.inputs[at].name
            )));
        }
    }
    let mut bound: HashMap<String, usize> = HashMap::new();
    for (&at, shape) in &shapes {
        bind_dims(&graph.inputs[at], shape, &mut bound)?;
    }
    for (at, input) in graph.inputs.iter_mut().enumerate() {
        let shape = match shapes.get(&at) {
            Some(shape) => (*shape).clone(),
            None => open_dims(input, &bound)?,
        };
        element_count("model input", &shape).map_err(|e| GraphError::Options(e.to_string()))?;
        input.dims = Some(shape.into_iter().map(Dim::Fixed).collect());
    }
    Ok(())
}

/// Infers facts in execution order; removes nodes whose results are known and nodes that do nothing.
pub(crate) fn infer(graph: &mut Graph) -> Result<Facts, GraphError> {
    let mut facts = Facts(vec![None; graph.value_count()]);
    for input in &graph.inputs {
        facts.0[input.value.index()] = Some(Fact::new(input.dtype, fixed_shape(input)?));
    }
    for (value, tensor) in &graph.constants {
        facts.0[value.index()] = Some(Fact::constant(tensor.clone()));
    }
    let mut alias: HashMap<ValueId, ValueId> = HashMap::new();
    let mut budget = Budget { elements: graph.folding, operations: FOLDING_WORK };
    budget.add(graph);
    let mut work: Vec<Work> = std::mem::take(&mut graph.nodes).into_iter().rev().map(Work::Node).collect();
    while let Some(next) = work.pop() {
        let mut node = match next {
            Work::Node(node) => node,
            Work::Alias(from, to) => {
                let to = alias.get(&to).copied().unwrap_or(to);
                facts.0[from.index()] = Some(facts.get(to)?.clone());
                alias.insert(from, to);
                continue;
            }
        };
        for input in node.inputs.iter_mut().flatten() {
            *input = alias.get(input).copied().unwrap_or(*input);
        }
        let operands = facts.operands(&node)?;
        if let Some(body) = node.op.inlined(Args(&operands), node.outputs.len()) {
            let body = body.map_err(|error| at(&node, error))?;
            budget.add(&body.graph);
            splice(graph, &mut facts, &node, body, &mut work)?;
            continue;
        }
        let results = results(&node, &operands, &mut budget).map_err(|error| at(&node, error))?;
        if node.op.is_identity(Args(&operands))
            && let Some(Some(operand)) = node.inputs.first()
        {
            let fact = facts.get(*operand)?.clone();
            facts.0[node.outputs[0].index()] = Some(fact);
            alias.insert(node.outputs[0], *operand);
            continue;
        }
        let known = results.iter().all(|r| r.value.is_some());
        for (output, fact) in node.outputs.iter().zip(results) {
            if let Some(value) = &fact.value {
                graph.constants.insert(*output, value.clone());
            }
            facts.0[output.index()] = Some(fact);
        }
        if !known {
            graph.nodes.push(node);
        }
    }
    for output in &mut graph.outputs {
        output.value = alias.get(&output.value).copied().unwrap_or(output.value);
        facts.get(output.value)?;
    }
    Ok(facts)
}

/// What folding may still do.
#[derive(Debug)]
struct Budget {
    elements: usize,
    operations: usize,
}

impl Budget {
    /// Allows what follows from the constants that a graph holds.
    fn add(&mut self, graph: &Graph) {
        let held: usize = graph.constants.values().map(|c| c.len()).sum();
        self.elements = self.elements.saturating_add(held.saturating_mul(FOLDING_REWRITES));
        self.operations = self.operations.saturating_add(held.saturating_mul(FOLDING_WORK_PER_ELEMENT));
    }
}

/// What inference has yet to do, the next thing last.
enum Work {
    Node(Node),
    /// The first value is the second one.
    Alias(ValueId, ValueId),
}

/// Puts the nodes of a branch in the place of `node`.
fn splice(
    graph: &mut Graph,
    facts: &mut Facts,
    node: &Node,
    body: &Body,
    work: &mut Vec<Work>,
) -> Result<(), GraphError> {
    let undefined = || at(node, OpError::mismatch("branch", "values that are defined", "others"));
    let mut here: HashMap<ValueId, ValueId> = HashMap::new();
    for &(value, operand) in &body.captures {
        let outside = node.inputs.get(operand).copied().flatten().ok_or_else(undefined)?;
        here.insert(value, outside);
    }
    for (value, tensor) in &body.graph.constants {
        let constant = graph.shared_constant(tensor.clone());
        here.insert(*value, constant);
        facts.0.resize(graph.value_count(), None);
        facts.0[constant.index()] = Some(Fact::constant(tensor.clone()));
    }
    let mut nodes = Vec::with_capacity(body.graph.nodes.len());
    for inner in &body.graph.nodes {
        let mut moved = inner.clone();
        for input in moved.inputs.iter_mut().flatten() {
            *input = *here.get(input).ok_or_else(undefined)?;
        }
        for output in &mut moved.outputs {
            let value = graph.value();
            here.insert(*output, value);
            *output = value;
        }
        nodes.push(moved);
    }
    facts.0.resize(graph.value_count(), None);
    for (result, output) in node.outputs.iter().zip(&body.graph.outputs) {
        work.push(Work::Alias(*result, *here.get(&output.value).ok_or_else(undefined)?));
    }
    work.extend(nodes.into_iter().rev().map(Work::Node));
    Ok(())
}

/// Attaches a node's name to an operator's error.
pub(crate) fn at(node: &Node, error: OpError) -> GraphError {
    GraphError::Op { node: node.name.clone(), op: node.op.name().to_owned(), error }
}

/// Shape of an input whose dimensions are all fixed.
pub(crate) fn fixed_shape(input: &GraphInput) -> Result<Vec<usize>, GraphError> {
    let fixed = |dim: &Dim| match dim {
        Dim::Fixed(d) => Some(*d),
        Dim::Symbolic(_) => None,
    };
    let shape = input.dims.as_ref().and_then(|dims| dims.iter().map(fixed).collect());
    shape
        .ok_or_else(|| GraphError::Malformed(format!("the shape of input {:?} was not resolved", input.name)))
}

fn results(node: &Node, operands: &[Option<&Fact>], budget: &mut Budget) -> Result<Vec<Fact>, OpError> {
    let results = node.op.facts(Args(operands))?;
    if results.len() < node.outputs.len() {
        return Err(OpError::mismatch("results", node.outputs.len(), results.len()));
    }
    for fact in &results {
        element_count("result", &fact.shape)?;
    }
    let values: Vec<Option<&Tensor>> = operands.iter().map(|f| f.and_then(|f| f.value.as_deref())).collect();
    let constant = operands.iter().zip(&values).all(|(f, v)| f.is_some() == v.is_some());
    if !constant || results.iter().all(|r| r.value.is_some()) {
        return Ok(results);
    }
    let cost: usize = results.iter().map(|r| r.shape.iter().product::<usize>()).sum();
    budget.elements = budget.elements.checked_sub(cost).ok_or_else(|| {
        OpError::unsupported(
            format!(
                "a constant of shape {:?} that the model computes, after everything before",
                results[0].shape
            ),
            "2^22 computed elements, and 8 for each that the model holds; store this one as an initializer",
        )
    })?;
    let operations = node.op.work(Args(operands), &results);
    budget.operations = budget.operations.checked_sub(operations).ok_or_else(|| {
        OpError::unsupported(
            format!("folding constants with {operations} operations after everything before"),
            "at most 2^28 operations on constants, and 2^12 for each element that the model holds",
        )
    })?;
    let tensors = node.op.eval(Args(&values))?;
    Ok(tensors.into_iter().map(|t| Fact::constant(Arc::new(t))).collect())
}

fn bind_dims(
    input: &GraphInput,
    shape: &[usize],
    bound: &mut HashMap<String, usize>,
) -> Result<(), GraphError> {
    let Some(dims) = &input.dims else { return Ok(()) };
    let contradiction = || GraphError::InputShape {
        input: input.name.clone(),
        expected: show(dims),
        found: format!("{shape:?}"),
    };
    if dims.len() != shape.len() {
        return Err(contradiction());
    }
    for (dim, &size) in dims.iter().zip(shape) {
        match dim {
            Dim::Fixed(d) if *d != size => return Err(contradiction()),
            Dim::Symbolic(name) if !name.is_empty() && *bound.entry(name.clone()).or_insert(size) != size => {
                return Err(contradiction());
            }
            _ => {}
        }
    }
    Ok(())
}

fn open_dims(input: &GraphInput, bound: &HashMap<String, usize>) -> Result<Vec<usize>, GraphError> {
    let symbolic = |axis: usize, dim: &str| GraphError::SymbolicDim {
        input: input.name.clone(),
        axis,
        dim: if dim.is_empty() { "unnamed".to_owned() } else { dim.to_owned() },
    };
    let dims = input.dims.as_ref().ok_or_else(|| symbolic(0, "number of axes unknown"))?;
    let size = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Fixed(d) => Ok(*d),
        Dim::Symbolic(name) => match bound.get(name) {
            Some(&size) => Ok(size),
            None if axis == 0 => Ok(1),
            None => Err(symbolic(axis, name)),
        },
    };
    dims.iter().enumerate().map(size).collect()
}

fn show(dims: &[Dim]) -> String {
    let one = |dim: &Dim| match dim {
        Dim::Fixed(d) => d.to_string(),
        Dim::Symbolic(name) if name.is_empty() => "?".to_owned(),
        Dim::Symbolic(name) => name.clone(),
    };
    format!("[{}]", dims.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// Errors unless an input is a float.
pub(crate) fn expect_float_inputs(graph: &Graph) -> Result<(), GraphError> {
    match graph.inputs.iter().find(|i| i.dtype != DType::F32) {
        None => Ok(()),
        Some(input) => Err(GraphError::Malformed(format!(
            "input {:?} has elements of type {:?}; model inputs are float32, others must be bound to constants",
            input.name, input.dtype
        ))),
    }
}

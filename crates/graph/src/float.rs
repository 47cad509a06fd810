//! The model in float: the reference for accuracy, and what folding and tests evaluate.

use ndarray::ArrayD;

use crate::facts::{self, Facts};
use crate::{Args, Graph, GraphError, Tensor, ValueId, passes};

/// A graph with settled shapes, folded and simplified, that runs in float.
#[derive(Debug, Clone)]
pub struct FloatModel {
    graph: Graph,
    facts: Facts,
}

impl FloatModel {
    /// Settles shapes and simplifies. `input_shapes` are as in [`crate::CompileOptions`].
    pub fn new(graph: &Graph, input_shapes: &[(Option<String>, Vec<usize>)]) -> Result<Self, GraphError> {
        let mut graph = graph.clone();
        facts::expect_float_inputs(&graph)?;
        facts::resolve_inputs(&mut graph, input_shapes)?;
        let facts = passes::simplify(&mut graph)?;
        Ok(Self { graph, facts })
    }

    /// Runs the model, final softmax included. Inputs and outputs are in the model's order.
    pub fn run(&self, inputs: &[ArrayD<f32>]) -> Result<Vec<ArrayD<f32>>, GraphError> {
        if inputs.len() != self.graph.inputs.len() {
            return Err(GraphError::InputCount { expected: self.graph.inputs.len(), found: inputs.len() });
        }
        let mut values: Vec<Option<Tensor>> = vec![None; self.graph.value_count()];
        for (spec, input) in self.graph.inputs.iter().zip(inputs) {
            let shape = facts::fixed_shape(spec)?;
            if shape != input.shape() {
                return Err(GraphError::InputShape {
                    input: spec.name.clone(),
                    expected: format!("{shape:?}"),
                    found: format!("{:?}", input.shape()),
                });
            }
            values[spec.value.index()] = Some(Tensor::F32(input.clone()));
        }
        let last = self.last_uses();
        for (i, node) in self.graph.nodes.iter().enumerate() {
            let operands: Vec<Option<&Tensor>> =
                node.inputs.iter().map(|input| input.and_then(|v| self.value(&values, v))).collect();
            let results = node.op.eval(Args(&operands)).map_err(|e| facts::at(node, e))?;
            for (output, result) in node.outputs.iter().zip(results) {
                values[output.index()] = Some(result);
            }
            for dead in &last[i] {
                values[dead.index()] = None;
            }
        }
        self.graph.outputs.iter().map(|output| self.output(&values, output)).collect()
    }

    /// The simplified graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    fn value<'a>(&'a self, values: &'a [Option<Tensor>], value: ValueId) -> Option<&'a Tensor> {
        values[value.index()].as_ref().or_else(|| self.graph.constants.get(&value).map(AsRef::as_ref))
    }

    fn output(
        &self,
        values: &[Option<Tensor>],
        output: &crate::GraphOutput,
    ) -> Result<ArrayD<f32>, GraphError> {
        match self.value(values, output.value) {
            Some(Tensor::F32(a)) => Ok(a.clone()),
            Some(Tensor::I64(a)) => Ok(a.mapv(|v| v as f32)),
            Some(Tensor::Bool(a)) => Ok(a.mapv(|v| f32::from(u8::from(v)))),
            None => Err(GraphError::Output {
                name: output.name.clone(),
                problem: "no node computes it".to_owned(),
            }),
        }
    }

    /// For every node, the values that nothing reads afterwards.
    fn last_uses(&self) -> Vec<Vec<ValueId>> {
        let mut last: Vec<Option<usize>> = vec![None; self.graph.value_count()];
        for (i, node) in self.graph.nodes.iter().enumerate() {
            for value in node.inputs.iter().flatten() {
                last[value.index()] = Some(i);
            }
        }
        for output in &self.graph.outputs {
            last[output.value.index()] = None;
        }
        let mut dead = vec![Vec::new(); self.graph.nodes.len()];
        for (value, at) in last.into_iter().enumerate() {
            if let Some(at) = at {
                dead[at].push(ValueId(value as u32));
            }
        }
        dead
    }
}

//! The model in float: the reference for accuracy, and what folding and tests evaluate.

use ndarray::ArrayD;
use privet_plan::{OutputSpec, Plan, Post};

use crate::facts::{self, Facts};
use crate::{Args, Fact, Graph, GraphError, GraphOutput, Tensor, ValueId, passes};

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

    /// Settles shapes and folds constants, and leaves every operator as it is. Inputs may have any element type.
    ///
    /// # Errors
    /// Shapes that contradict each other or stay open, and operators that cannot work on their operands.
    pub fn settle(graph: &Graph, input_shapes: &[(Option<String>, Vec<usize>)]) -> Result<Self, GraphError> {
        let mut graph = graph.clone();
        facts::resolve_inputs(&mut graph, input_shapes)?;
        let facts = facts::infer(&mut graph)?;
        Ok(Self { graph, facts })
    }

    /// What is known about a value: also about those that folding removed.
    ///
    /// # Errors
    /// Nothing defines the value.
    pub fn fact(&self, value: ValueId) -> Result<&Fact, GraphError> {
        self.facts.get(value)
    }

    /// Runs the model, final softmax included. Inputs and outputs are in the model's order.
    pub fn run(&self, inputs: &[ArrayD<f32>]) -> Result<Vec<ArrayD<f32>>, GraphError> {
        let wanted: Vec<ValueId> = self.graph.outputs.iter().map(|o| o.value).collect();
        self.evaluate(inputs, &wanted)
    }

    /// Runs the model up to what `plan`, which it was compiled to, reveals: final functions that the receiver computes
    /// are left out.
    pub fn run_revealed(&self, plan: &Plan, inputs: &[ArrayD<f32>]) -> Result<Vec<ArrayD<f32>>, GraphError> {
        let revealed = |(output, spec): (&GraphOutput, &OutputSpec)| match spec.post {
            Post::None => output.value,
            _ => {
                let mut nodes = self.graph.nodes.iter();
                let last = nodes.find(|n| n.outputs.contains(&output.value));
                last.and_then(|n| n.inputs[0]).unwrap_or(output.value)
            }
        };
        let wanted: Vec<ValueId> = self.graph.outputs.iter().zip(&plan.outputs).map(revealed).collect();
        self.evaluate(inputs, &wanted)
    }

    /// Computes the values `wanted`, one for each output.
    fn evaluate(&self, inputs: &[ArrayD<f32>], wanted: &[ValueId]) -> Result<Vec<ArrayD<f32>>, GraphError> {
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
        let last = self.last_uses(wanted);
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
        let outputs = self.graph.outputs.iter().zip(wanted);
        outputs.map(|(output, value)| self.output(&values, output, *value)).collect()
    }

    /// The simplified graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// For every node, the values that no node reads afterwards; results that nobody reads are their own node's.
    pub fn last_reads(&self) -> Vec<Vec<ValueId>> {
        let mut dead = self.last_uses(&[]);
        let uses = self.graph.uses();
        for (node, dead) in self.graph.nodes.iter().zip(&mut dead) {
            dead.extend(node.outputs.iter().filter(|output| uses[output.index()] == 0));
        }
        dead
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
        output: &GraphOutput,
        value: ValueId,
    ) -> Result<ArrayD<f32>, GraphError> {
        match self.value(values, value) {
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
    fn last_uses(&self, wanted: &[ValueId]) -> Vec<Vec<ValueId>> {
        let mut last: Vec<Option<usize>> = vec![None; self.graph.value_count()];
        for (i, node) in self.graph.nodes.iter().enumerate() {
            for value in node.inputs.iter().flatten() {
                last[value.index()] = Some(i);
            }
        }
        for value in wanted {
            last[value.index()] = None;
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

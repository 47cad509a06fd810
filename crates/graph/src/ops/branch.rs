//! If, with a condition that folds to a constant.

use privet_plan::WireId;

use crate::{Args, Body, Fact, Lowering, OpError, Operator, Tensor};

/// One of two graphs. Operand 0 is the condition, the others are what the branches read of the graph around them.
/// Inference puts the chosen branch in the place of the node.
#[derive(Debug, Clone)]
pub struct If {
    /// What counts when the condition is true.
    pub then: Result<Body, String>,
    /// What counts when the condition is false.
    pub otherwise: Result<Body, String>,
}

impl If {
    /// The branch that a known condition chooses.
    fn chosen(&self, condition: &Fact, results: usize) -> Result<&Body, OpError> {
        let chosen = match condition.known("condition")? {
            Tensor::Bool(flag) if flag.len() == 1 => flag.iter().all(|&flag| flag),
            other => {
                let found = format!("{:?} of shape {:?}", other.dtype(), other.shape());
                return Err(OpError::mismatch("condition", "one truth value", found));
            }
        };
        let (name, body) =
            if chosen { ("then_branch", &self.then) } else { ("else_branch", &self.otherwise) };
        let body = body.as_ref().map_err(|problem| {
            OpError::unsupported(format!("{name}, which is the chosen one: {problem}"), "other branches")
        })?;
        if body.graph.outputs.len() != results {
            return Err(OpError::mismatch("results", body.graph.outputs.len(), results));
        }
        Ok(body)
    }
}

impl Operator for If {
    fn name(&self) -> &'static str {
        "If"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        inputs.get(0, "condition")?.known("condition")?;
        Err(unresolved())
    }

    fn eval(&self, _inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        Err(unresolved())
    }

    fn lower(&self, _ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        Err(unresolved())
    }

    fn inlined(&self, inputs: Args<'_, Fact>, results: usize) -> Option<Result<&Body, OpError>> {
        Some(inputs.get(0, "condition").and_then(|condition| self.chosen(condition, results)))
    }
}

fn unresolved() -> OpError {
    OpError::unsupported("a branch that was not put in place", "a constant condition")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Neg, Relu};
    use crate::tensor::array;
    use crate::{Dim, FloatModel, Graph, Node};

    /// A branch that applies Neg to captured operand 1 `times` times.
    fn negations(times: usize) -> Body {
        let mut graph = Graph::new("branch");
        let captured = graph.value();
        let y = (0..times).fold(captured, |y, _| graph.node("neg", Neg, &[y]));
        graph.output("y", y);
        Body { graph, captures: vec![(captured, 1)] }
    }

    fn run(condition: Option<bool>, op: If) -> Result<Vec<f32>, String> {
        let mut graph = Graph::new("test");
        let x = graph.input("x", vec![Dim::Fixed(2)]);
        let flag = match condition {
            Some(flag) => graph.constant(array(&[], vec![flag])),
            None => x,
        };
        let (before, y) = (graph.node("relu", Relu, &[x]), graph.value());
        let inputs = vec![Some(flag), Some(before)];
        graph.nodes.push(Node { name: "if".into(), op: std::sync::Arc::new(op), inputs, outputs: vec![y] });
        let z = graph.node("after", Neg, &[y]);
        graph.output("z", z);
        let model = FloatModel::new(&graph, &[]).map_err(|e| e.to_string())?;
        let y = model.run(&[array(&[2], vec![-1.0f32, 2.0])]).map_err(|e| e.to_string())?;
        Ok(y[0].iter().copied().collect())
    }

    #[test]
    fn a_known_condition_puts_its_branch_in_place() {
        let op = || If { then: Ok(negations(1)), otherwise: Ok(negations(0)) };
        assert_eq!(run(Some(true), op()), Ok(vec![0.0, 2.0]));
        assert_eq!(run(Some(false), op()), Ok(vec![0.0, -2.0]));
        assert!(run(None, op()).is_err_and(|e| e.contains("condition that depends")));
    }

    #[test]
    fn only_the_chosen_branch_has_to_be_readable() {
        let op = || If { then: Ok(negations(1)), otherwise: Err("operator Fancy".to_owned()) };
        assert_eq!(run(Some(true), op()), Ok(vec![0.0, 2.0]));
        assert!(run(Some(false), op()).is_err_and(|e| e.contains("Fancy")));
    }

    #[test]
    fn branches_nest() {
        let mut graph = Graph::new("outer branch");
        let (captured, y) = (graph.value(), graph.value());
        let flag = graph.constant(array(&[], vec![false]));
        let op = If { then: Ok(negations(0)), otherwise: Ok(negations(1)) };
        let inputs = vec![Some(flag), Some(captured)];
        graph.nodes.push(Node {
            name: "inner".into(),
            op: std::sync::Arc::new(op),
            inputs,
            outputs: vec![y],
        });
        graph.output("y", y);
        let outer = Body { graph, captures: vec![(captured, 1)] };
        assert_eq!(run(Some(true), If { then: Ok(outer), otherwise: Ok(negations(0)) }), Ok(vec![0.0, 2.0]));
    }
}

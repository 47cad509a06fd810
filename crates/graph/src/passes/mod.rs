//! The few rewrites between a model as read and a model as lowered. Each is exact in real arithmetic.

mod affine;
mod dead;
mod linear;
mod sink;

use crate::facts::{self, Facts};
use crate::{Graph, GraphError};

/// Settles facts and simplifies: constants and identities fold; matrix products with a constant become
/// [`crate::ops::Linear`]; batch norm, bias and scaling fold into the layer in front; ReLU moves behind
/// concatenation and max pooling; what nobody reads goes.
pub(crate) fn simplify(graph: &mut Graph) -> Result<Facts, GraphError> {
    let facts = facts::infer(graph)?;
    linear::normalise(graph, &facts)?;
    let facts = facts::infer(graph)?;
    affine::fold(graph, &facts)?;
    sink::concat_before_relu(graph);
    sink::max_pool_before_relu(graph);
    dead::remove(graph);
    facts::infer(graph)
}

/// For every value that exactly one node reads, once, and that is no output: that node.
fn only_readers(graph: &Graph) -> Vec<Option<usize>> {
    let uses = graph.uses();
    let mut readers = vec![None; graph.value_count()];
    for (i, node) in graph.nodes.iter().enumerate() {
        for input in node.inputs.iter().flatten() {
            if uses[input.index()] == 1 {
                readers[input.index()] = Some(i);
            }
        }
    }
    readers
}

//! Removal of nodes and constants that no output depends on.

use crate::Graph;

/// Keeps what the outputs depend on. Inputs stay: they are the model's interface.
pub(super) fn remove(graph: &mut Graph) {
    let mut live = vec![false; graph.value_count()];
    for output in &graph.outputs {
        live[output.value.index()] = true;
    }
    let mut kept = Vec::with_capacity(graph.nodes.len());
    for node in std::mem::take(&mut graph.nodes).into_iter().rev() {
        if node.outputs.iter().any(|o| live[o.index()]) {
            for input in node.inputs.iter().flatten() {
                live[input.index()] = true;
            }
            kept.push(node);
        }
    }
    kept.reverse();
    graph.nodes = kept;
    graph.constants.retain(|value, _| live[value.index()]);
}

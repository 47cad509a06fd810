//! Moves ReLU and Clip behind Concat and MaxPool.
//!
//! Both are monotone and elementwise, so `MaxPool(Relu(x)) = Relu(MaxPool(x))` (padding never wins a max pool) and
//! `Concat(Relu(a), Relu(b)) = Relu(Concat(a, b))`, exactly. The first compares fewer elements, the second does in one
//! round what took two; together they let the ReLUs of a fire module cross the pooling behind it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ops::{Clip, Concat, GlobalMaxPool, MaxPool, Relu};
use crate::{Graph, Node, ValueId};

/// Rewrites every Concat whose operands are all ReLUs that nothing else reads.
pub(super) fn concat_before_relu(graph: &mut Graph) {
    let uses = graph.uses();
    let mut before_relu: HashMap<ValueId, ValueId> = HashMap::new();
    for mut node in std::mem::take(&mut graph.nodes) {
        if let (Some(_), Some(operand)) = (node.is::<Relu>(), node.inputs[0]) {
            before_relu.insert(node.outputs[0], operand);
        }
        let before = |value: &Option<ValueId>| {
            let value = (*value)?;
            before_relu.get(&value).copied().filter(|_| uses[value.index()] == 1)
        };
        let all: Option<Vec<ValueId>> = node.inputs.iter().map(before).collect();
        let (Some(_), Some(all)) = (node.is::<Concat>(), all) else {
            graph.nodes.push(node);
            continue;
        };
        let (joined, result) = (graph.value(), node.outputs[0]);
        before_relu.insert(result, joined);
        let relu = Node {
            name: node.name.clone(),
            op: Arc::new(Relu),
            inputs: vec![Some(joined)],
            outputs: node.outputs.clone(),
        };
        node.inputs = all.into_iter().map(Some).collect();
        node.outputs = vec![joined];
        graph.nodes.extend([node, relu]);
    }
    super::dead::remove(graph);
}

/// Rewrites every max pool of a ReLU or Clip that nothing else reads.
pub(super) fn max_pool_before_relu(graph: &mut Graph) {
    let uses = graph.uses();
    let mut monotone: HashMap<ValueId, usize> = HashMap::new();
    let mut done: Vec<Node> = Vec::with_capacity(graph.nodes.len());
    for mut pool in std::mem::take(&mut graph.nodes) {
        let is_pool = pool.is::<MaxPool>().is_some() || pool.is::<GlobalMaxPool>().is_some();
        let crossed = pool.inputs.first().copied().flatten().filter(|v| is_pool && uses[v.index()] == 1);
        if let Some(between) = crossed
            && let Some(at) = monotone.remove(&between)
        {
            let mut first = done[at].clone();
            monotone.insert(pool.outputs[0], done.len());
            pool.inputs[0] = first.inputs[0];
            first.inputs[0] = Some(between);
            first.outputs = std::mem::replace(&mut pool.outputs, vec![between]);
            done[at] = pool;
            done.push(first);
            continue;
        }
        if pool.is::<Relu>().is_some() || pool.is::<Clip>().is_some() {
            monotone.insert(pool.outputs[0], done.len());
        }
        done.push(pool);
    }
    graph.nodes = done;
}

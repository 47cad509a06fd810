//! Folds batch norm, bias and per-channel scaling into the convolution or matrix product in front.

use ndarray::{ArrayD, Axis};

use super::only_readers;
use crate::facts::Facts;
use crate::ops::{Conv, ConvTranspose, Linear};
use crate::tensor::array;
use crate::{Affine, Args, Channel, Graph, GraphError, Tensor};

/// Folds as long as the only reader of a layer is affine per channel.
pub(super) fn fold(graph: &mut Graph, facts: &Facts) -> Result<(), GraphError> {
    // Nodes keep their places and original values their readers while this pass runs.
    let readers = only_readers(graph);
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        let transposed = node.is::<ConvTranspose>();
        let (weight_axis, from_end) = if node.is::<Conv>().is_some() {
            (0, false)
        } else if node.is::<Linear>().is_some() {
            (1, true)
        } else if transposed.is_some_and(|op| op.groups == 1) {
            (1, false)
        } else {
            continue;
        };
        loop {
            let result = graph.nodes[at].outputs[0];
            let Some(reader) = readers[result.index()] else { break };
            let shape = &facts.get(result)?.shape;
            let channel = Channel { shape, axis: if from_end { shape.len() - 1 } else { 1 } };
            let node = &graph.nodes[reader];
            let Some(operand) = node.inputs.iter().position(|i| *i == Some(result)) else { break };
            let operands = facts.operands(node)?;
            if facts.get(node.outputs[0])?.shape != *shape {
                break;
            }
            let Some(affine) = node.op.affine(operand, channel, Args(&operands)) else { break };
            let output = node.outputs[0];
            if !apply(graph, at, weight_axis, &affine) {
                break;
            }
            graph.nodes[at].outputs[0] = output;
            graph.nodes[reader].inputs.clear();
            graph.nodes[reader].outputs.clear();
        }
    }
    graph.nodes.retain(|n| !n.outputs.is_empty());
    Ok(())
}

/// Replaces weight and bias of node `at`; false when they are not constant floats.
fn apply(graph: &mut Graph, at: usize, weight_axis: usize, affine: &Affine) -> bool {
    let inputs = &graph.nodes[at].inputs;
    let constant = |i: usize| -> Option<&ArrayD<f32>> {
        graph.constants.get(&(*inputs.get(i)?)?)?.floats("weight").ok()
    };
    let Some(weight) = constant(1) else { return false };
    if inputs.get(2).copied().flatten().is_some() && constant(2).is_none() {
        return false;
    }
    let mut scaled = weight.clone();
    for (mut channel, &scale) in scaled.axis_iter_mut(Axis(weight_axis)).zip(&affine.scale) {
        channel.mapv_inplace(|w| (f64::from(w) * scale) as f32);
    }
    let old = constant(2).map(|b| b.iter().copied().collect::<Vec<f32>>());
    let bias = |c: usize| old.as_ref().map_or(0.0, |b| f64::from(b[c]));
    let bias: Vec<f32> =
        (0..affine.scale.len()).map(|c| (bias(c) * affine.scale[c] + affine.shift[c]) as f32).collect();
    let bias = array(&[bias.len()], bias);
    let (weight, bias) = (graph.constant(scaled), graph.constant(Tensor::F32(bias)));
    let x = graph.nodes[at].inputs[0];
    graph.nodes[at].inputs = vec![x, Some(weight), Some(bias)];
    true
}

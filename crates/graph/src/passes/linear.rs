//! Brings matrix products with a constant factor to one normal form, [`Linear`].

use ndarray::{ArrayD, Axis};

use crate::facts::Facts;
use crate::ops::{Add, Gemm, Linear, MatMul, Reshape, Transpose};
use crate::{Fact, Graph, GraphError, Node, Tensor, ValueId};

/// Rewrites Gemm and MatMul nodes with one constant factor.
pub(super) fn normalise(graph: &mut Graph, facts: &Facts) -> Result<(), GraphError> {
    for node in std::mem::take(&mut graph.nodes) {
        let product = match (node.is::<Gemm>(), node.is::<MatMul>()) {
            (Some(gemm), _) => Product::of_gemm(&node, gemm, facts)?,
            (_, Some(_)) => Product::of_matmul(&node, facts)?,
            _ => None,
        };
        match product {
            Some(product) => product.rebuild(graph, &node, facts.get(node.outputs[0])?),
            None => graph.nodes.push(node),
        }
    }
    Ok(())
}

/// A matrix product with one constant factor: `x · w`, or `(xᵀ · w)ᵀ` when the constant stands on the left.
struct Product {
    x: ValueId,
    x_shape: Vec<usize>,
    /// Swap the last two axes of x first.
    transpose_x: bool,
    /// Swap the last two axes of the result.
    transpose_result: bool,
    /// `[k, n]`.
    weight: ArrayD<f32>,
    addend: Option<ValueId>,
}

impl Product {
    fn of_gemm(node: &Node, gemm: &Gemm, facts: &Facts) -> Result<Option<Self>, GraphError> {
        let (Some(a), Some(b)) = (node.inputs[0], node.inputs[1]) else { return Ok(None) };
        let (a_fact, b_fact) = (facts.get(a)?, facts.get(b)?);
        let addend = node.inputs.get(2).copied().flatten();
        // A beta other than 1 on an addend that depends on the inputs has no normal form.
        if let Some(c) = addend
            && gemm.beta != 1.0
            && facts.get(c)?.value.is_none()
        {
            return Ok(None);
        }
        Ok(match (constant(a_fact), constant(b_fact)) {
            (None, Some(w)) => Some(Self {
                x: a,
                x_shape: a_fact.shape.clone(),
                transpose_x: gemm.trans_a,
                transpose_result: false,
                weight: swapped(w, gemm.trans_b) * gemm.alpha,
                addend,
            }),
            // A·X = (Xᵀ·Aᵀ)ᵀ.
            (Some(w), None) => Some(Self {
                x: b,
                x_shape: b_fact.shape.clone(),
                transpose_x: !gemm.trans_b,
                transpose_result: true,
                weight: swapped(w, !gemm.trans_a) * gemm.alpha,
                addend,
            }),
            _ => None,
        })
    }

    fn of_matmul(node: &Node, facts: &Facts) -> Result<Option<Self>, GraphError> {
        let (Some(a), Some(b)) = (node.inputs[0], node.inputs[1]) else { return Ok(None) };
        let (a_fact, b_fact) = (facts.get(a)?, facts.get(b)?);
        Ok(match (constant(a_fact), constant(b_fact)) {
            (None, Some(w)) => matrix(w, Axis(1)).map(|weight| Self {
                x: a,
                x_shape: a_fact.shape.clone(),
                transpose_x: false,
                transpose_result: false,
                weight,
                addend: None,
            }),
            (Some(w), None) if w.ndim() == 2 && b_fact.shape.len() >= 2 => Some(Self {
                x: b,
                x_shape: b_fact.shape.clone(),
                transpose_x: true,
                transpose_result: true,
                weight: swapped(w, true),
                addend: None,
            }),
            _ => None,
        })
    }

    /// Appends the nodes that replace `node`.
    fn rebuild(self, graph: &mut Graph, node: &Node, result: &Fact) {
        let rank = self.x_shape.len();
        let mut shape = self.x_shape.clone();
        let mut x = self.x;
        if self.transpose_x {
            x = graph.node(&node.name, Transpose { perm: Some(swap_last(rank)) }, &[x]);
            shape.swap(rank - 1, rank - 2);
        }
        if rank == 1 {
            shape.insert(0, 1);
            x = reshaped(graph, node, x, &shape);
        }
        if let Some(last) = shape.last_mut() {
            *last = self.weight.shape()[1];
        }
        let weight = graph.constant(self.weight);
        let mut y = graph.node(&node.name, Linear, &[x, weight]);
        if self.transpose_result {
            let rank = shape.len();
            y = graph.node(&node.name, Transpose { perm: Some(swap_last(rank)) }, &[y]);
            shape.swap(rank - 1, rank - 2);
        }
        if shape != result.shape {
            y = reshaped(graph, node, y, &result.shape);
        }
        if let Some(addend) = self.addend {
            let addend = scaled_addend(graph, node, addend);
            y = graph.node(&node.name, Add, &[y, addend]);
        }
        // The last node takes over the name of the replaced result.
        if let Some(last) = graph.nodes.last_mut().filter(|last| last.outputs == [y]) {
            last.outputs = node.outputs.clone();
        }
    }
}

fn scaled_addend(graph: &mut Graph, node: &Node, addend: ValueId) -> ValueId {
    let beta = node.is::<Gemm>().map_or(1.0, |g| g.beta);
    match graph.constants.get(&addend).map(AsRef::as_ref) {
        Some(Tensor::F32(values)) if beta != 1.0 => {
            let scaled = values * beta;
            graph.constant(scaled)
        }
        _ => addend,
    }
}

fn reshaped(graph: &mut Graph, node: &Node, value: ValueId, shape: &[usize]) -> ValueId {
    let to = graph.constant(Tensor::from_ints(shape.iter().map(|&d| d as i64).collect()));
    graph.node(&node.name, Reshape { allow_zero: true }, &[value, to])
}

fn constant(fact: &Fact) -> Option<&ArrayD<f32>> {
    fact.value.as_deref()?.floats("factor").ok()
}

/// A constant factor as a matrix; a vector becomes one with `axis` of length 1, leading axes of length 1 go.
fn matrix(w: &ArrayD<f32>, axis: Axis) -> Option<ArrayD<f32>> {
    let mut w = w.clone();
    if w.ndim() == 1 {
        w = w.insert_axis(axis);
    }
    while w.ndim() > 2 && w.shape()[0] == 1 {
        w = w.remove_axis(Axis(0));
    }
    (w.ndim() == 2).then_some(w)
}

fn swapped(w: &ArrayD<f32>, swap: bool) -> ArrayD<f32> {
    let w = w.clone();
    if swap { w.reversed_axes() } else { w }
}

fn swap_last(rank: usize) -> Vec<i64> {
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    perm.swap(rank - 1, rank - 2);
    perm
}

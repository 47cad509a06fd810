//! What is computed in the place of an operand: activations, normalisation, sums.

use ndarray::{ArrayD, ArrayViewD, IxDyn};
use privet_graph::{Node, Tensor, ops};

/// A result that can take the place of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elementwise {
    /// The same values in another shape.
    Reshape,
    /// A function of every value of operand 0, and of constants.
    Map,
    /// A sum, difference or product of two operands.
    Combine,
}

impl Elementwise {
    /// What the node is, if its result can take an operand's place.
    pub(crate) fn of(node: &Node) -> Option<Self> {
        let combines = node.is::<ops::Add>().is_some()
            || node.is::<ops::Mul>().is_some()
            || node.is::<ops::Sub>().is_some()
            || node.is::<ops::Sum>().is_some() && node.inputs.len() == 2;
        let maps = node.is::<ops::Relu>().is_some()
            || node.is::<ops::LeakyRelu>().is_some()
            || node.is::<ops::Clip>().is_some()
            || node.is::<ops::Sigmoid>().is_some()
            || node.is::<ops::BatchNormalization>().is_some();
        let reshapes = node.is::<ops::Reshape>().is_some()
            || node.is::<ops::Flatten>().is_some()
            || node.is::<ops::Squeeze>().is_some()
            || node.is::<ops::Unsqueeze>().is_some();
        if reshapes {
            Some(Self::Reshape)
        } else if maps {
            Some(Self::Map)
        } else {
            combines.then_some(Self::Combine)
        }
    }
}

/// Computes the node's result of shape `shape` in the place of operand `at`, whose values are `own`; `None` where this has no kernel.
pub(crate) fn in_place(
    node: &Node,
    shape: &[usize],
    at: usize,
    own: Tensor,
    operands: &[Option<&Tensor>],
) -> Option<Tensor> {
    let kind = Elementwise::of(node)?;
    if kind == Elementwise::Reshape {
        return reshaped(own, shape);
    }
    let Tensor::F32(mut x) = own else { return None };
    let floats = |i: usize| match operands.get(i).copied().flatten() {
        Some(Tensor::F32(a)) => Some(a),
        _ => None,
    };
    if kind == Elementwise::Combine {
        let other = floats(1 - at)?.broadcast(IxDyn(shape))?;
        combine(node, &mut x, at, other);
        return Some(x.into());
    }
    if node.is::<ops::Relu>().is_some() {
        x.mapv_inplace(|v| v.max(0.0));
    } else if let Some(leaky) = node.is::<ops::LeakyRelu>() {
        x.mapv_inplace(|v| if v >= 0.0 { v } else { leaky.alpha * v });
    } else if node.is::<ops::Sigmoid>().is_some() {
        x.mapv_inplace(|v| 1.0 / (1.0 + (-v).exp()));
    } else if node.is::<ops::Clip>().is_some() {
        let bound = |i: usize| floats(i).and_then(|b| b.first().copied());
        let (low, high) = (bound(1).unwrap_or(f32::NEG_INFINITY), bound(2).unwrap_or(f32::INFINITY));
        x.mapv_inplace(|v| v.max(low).min(high));
    } else if let Some(norm) = node.is::<ops::BatchNormalization>() {
        let (scale, bias, mean, variance) = (floats(1)?, floats(2)?, floats(3)?, floats(4)?);
        let channels = shape[1];
        let plane = shape[2..].iter().product::<usize>().max(1);
        let values = x.as_slice_mut()?;
        for (i, plane) in values.chunks_exact_mut(plane).enumerate() {
            let c = i % channels;
            let factor = f64::from(scale[c]) / (f64::from(variance[c]) + f64::from(norm.epsilon)).sqrt();
            let shift = (f64::from(bias[c]) - f64::from(mean[c]) * factor) as f32;
            let factor = factor as f32;
            plane.iter_mut().for_each(|v| *v = *v * factor + shift);
        }
    } else {
        return None;
    }
    Some(x.into())
}

fn combine(node: &Node, x: &mut ArrayD<f32>, at: usize, other: ArrayViewD<'_, f32>) {
    if node.is::<ops::Mul>().is_some() {
        *x *= &other;
    } else if node.is::<ops::Sub>().is_some() {
        if at == 0 {
            *x -= &other;
        } else {
            x.zip_mut_with(&other, |x, o| *x = o - *x);
        }
    } else {
        *x += &other;
    }
}

fn reshaped(own: Tensor, shape: &[usize]) -> Option<Tensor> {
    let shape = IxDyn(shape);
    Some(match own {
        Tensor::F32(a) => a.into_shape_with_order(shape).ok()?.into(),
        Tensor::I64(a) => a.into_shape_with_order(shape).ok()?.into(),
        Tensor::Bool(a) => a.into_shape_with_order(shape).ok()?.into(),
    })
}

//! Normalisation by statistics of the input itself.

use privet_graph::ops::{InstanceNormalization, Lrn, MeanVarianceNormalization};

use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

pub(super) fn instance_normalization(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(3, 3)?;
    Ok(Parsed::plain(InstanceNormalization { epsilon: node.float("epsilon", 1e-5)? }, node))
}

pub(super) fn lrn(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let (alpha, beta) = (node.float("alpha", 1e-4)?, node.float("beta", 0.75)?);
    let (bias, size) = (node.float("bias", 1.0)?, node.required_int("size")?);
    Ok(Parsed::plain(Lrn { alpha, beta, bias, size }, node))
}

pub(super) fn mean_variance_normalization(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let axes = node.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    Ok(Parsed::plain(MeanVarianceNormalization { axes }, node))
}

//! The operators, by name and by the opset that gave them their meaning.

mod activation;
mod arithmetic;
mod batch_normalization;
mod branch;
mod cast;
mod clip;
mod compare;
mod constant;
mod conv;
mod depth_to_space;
mod dropout;
mod einsum;
mod gather;
mod gemm;
mod normalization;
mod pad;
mod pool;
mod reduce;
mod reduce_max;
mod resize;
mod shape;
mod slice;
mod softmax;
mod split;
mod squeeze;
mod window;

use crate::OnnxError;
use crate::node::{NodeReader, Parsed};

/// Oldest supported version of the default operator set.
pub(crate) const OLDEST_OPSET: i64 = 7;
/// Newest supported version; later ones may give a name another meaning.
pub(crate) const NEWEST_OPSET: i64 = 28;

/// One meaning of an operator's name.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// The opset from which on the name means this.
    pub(crate) since: i64,
    pub(crate) parse: fn(&NodeReader<'_>) -> Result<Parsed, OnnxError>,
}

const fn row(name: &'static str, since: i64, parse: fn(&NodeReader<'_>) -> Result<Parsed, OnnxError>) -> Row {
    Row { name, since, parse }
}

/// Every supported operator. Meanings older than opset 7 count as 7.
pub(crate) static TABLE: &[Row] = &[
    row("Abs", 7, activation::abs),
    row("Add", 7, arithmetic::add),
    row("And", 7, compare::and),
    row("ArgMax", 7, compare::arg_max),
    row("ArgMin", 7, compare::arg_min),
    row("AveragePool", 7, pool::average_pool),
    row("BatchNormalization", 7, batch_normalization::batch_normalization),
    row("Cast", 7, cast::cast),
    row("CastLike", 15, cast::cast_like),
    row("Clip", 7, clip::clip_7),
    row("Clip", 11, clip::clip_11),
    row("Concat", 7, shape::concat),
    row("Constant", 7, constant::constant),
    row("ConstantOfShape", 9, constant::constant_of_shape),
    row("Conv", 7, conv::conv),
    row("ConvTranspose", 7, conv::conv_transpose),
    row("CumSum", 11, arithmetic::cum_sum),
    row("DepthToSpace", 7, depth_to_space::depth_to_space),
    row("Div", 7, arithmetic::div),
    row("Dropout", 7, dropout::dropout),
    row("Einsum", 12, einsum::einsum),
    row("Equal", 7, compare::equal),
    row("Erf", 9, activation::erf),
    row("Expand", 8, shape::expand),
    row("Flatten", 7, shape::flatten),
    row("Gather", 7, gather::gather),
    row("Gelu", 20, activation::gelu),
    row("Gemm", 7, gemm::gemm),
    row("GlobalAveragePool", 7, pool::global_average_pool),
    row("GlobalMaxPool", 7, pool::global_max_pool),
    row("Greater", 7, compare::greater),
    row("GreaterOrEqual", 12, compare::greater_or_equal),
    row("HardSigmoid", 7, activation::hard_sigmoid),
    row("HardSwish", 14, activation::hard_swish),
    row("Identity", 7, shape::identity),
    row("If", 7, branch::branch),
    row("InstanceNormalization", 7, normalization::instance_normalization),
    row("LRN", 7, normalization::lrn),
    row("LeakyRelu", 7, activation::leaky_relu),
    row("Less", 7, compare::less),
    row("LessOrEqual", 12, compare::less_or_equal),
    row("LogSoftmax", 7, softmax::log_softmax_7),
    row("LogSoftmax", 13, softmax::log_softmax_13),
    row("MatMul", 7, gemm::matmul),
    row("Max", 7, compare::max),
    row("MaxPool", 7, pool::max_pool),
    row("Mean", 7, arithmetic::mean),
    row("MeanVarianceNormalization", 9, normalization::mean_variance_normalization),
    row("Min", 7, compare::min),
    row("Mul", 7, arithmetic::mul),
    row("Neg", 7, arithmetic::neg),
    row("NonZero", 9, shape::non_zero),
    row("Not", 7, compare::not),
    row("Or", 7, compare::or),
    row("PRelu", 7, activation::prelu),
    row("Pad", 7, pad::pad_7),
    row("Pad", 11, pad::pad_11),
    row("Pow", 7, arithmetic::pow),
    row("Range", 11, constant::range),
    row("ReduceL1", 7, reduce_max::reduce_l1),
    row("ReduceMax", 7, reduce_max::reduce_max),
    row("ReduceMean", 7, reduce::mean_7),
    row("ReduceMean", 18, reduce::mean_18),
    row("ReduceMin", 7, reduce_max::reduce_min),
    row("ReduceSum", 7, reduce::sum_7),
    row("ReduceSum", 13, reduce::sum_13),
    row("ReduceSumSquare", 7, reduce_max::reduce_sum_square),
    row("Relu", 7, activation::relu),
    row("Reshape", 7, shape::reshape),
    row("Resize", 10, resize::resize_10),
    row("Resize", 11, resize::resize_11),
    row("Shape", 7, shape::shape),
    row("Sigmoid", 7, activation::sigmoid),
    row("Sign", 9, activation::sign),
    row("Size", 7, shape::size),
    row("Slice", 7, slice::slice_7),
    row("Slice", 10, slice::slice_10),
    row("Softmax", 7, softmax::softmax_7),
    row("Softmax", 13, softmax::softmax_13),
    row("SpaceToDepth", 7, depth_to_space::space_to_depth),
    row("Split", 7, split::split_7),
    row("Split", 13, split::split_13),
    row("Sqrt", 7, activation::sqrt),
    row("Squeeze", 7, squeeze::squeeze_7),
    row("Squeeze", 13, squeeze::squeeze_13),
    row("Sub", 7, arithmetic::sub),
    row("Sum", 7, arithmetic::sum),
    row("Tanh", 7, activation::tanh),
    row("ThresholdedRelu", 10, activation::thresholded_relu),
    row("Tile", 7, shape::tile),
    row("Transpose", 7, shape::transpose),
    row("Unsqueeze", 7, squeeze::unsqueeze_7),
    row("Unsqueeze", 13, squeeze::unsqueeze_13),
    row("Upsample", 7, resize::upsample_7),
    row("Upsample", 9, resize::resize_10),
    row("Upsample", 10, resize::upsample_10),
    row("Where", 9, compare::where_),
    row("Xor", 7, compare::xor),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_free_of_duplicates() {
        assert!(TABLE.windows(2).all(|w| (w[0].name, w[0].since) < (w[1].name, w[1].since)));
        assert!(TABLE.iter().all(|r| (OLDEST_OPSET..=NEWEST_OPSET).contains(&r.since)));
    }
}

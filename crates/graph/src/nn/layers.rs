//! The layers, with PyTorch's names, arguments and defaults.

use super::{Kind, Module};

/// One layer, as declared.
#[derive(Debug, Clone)]
pub(super) enum Layer {
    Conv2d(Conv2d),
    ConvTranspose2d(ConvTranspose2d),
    Linear(Linear),
    BatchNorm2d(BatchNorm2d),
    InstanceNorm2d(InstanceNorm2d),
    Relu,
    Relu6,
    LeakyRelu(f32),
    Prelu(usize),
    HardSigmoid,
    HardSwish,
    MaxPool2d(MaxPool2d),
    AvgPool2d(AvgPool2d),
    AdaptiveAvgPool2d([usize; 2]),
    GlobalAvgPool,
    Flatten,
    Upsample {
        factor: [usize; 2],
        bilinear: bool,
    },
    Softmax {
        log: bool,
    },
    Sigmoid,
    /// Nothing at inference.
    Identity,
}

impl From<Conv2d> for Module {
    fn from(layer: Conv2d) -> Self {
        Module(Kind::Layer(Layer::Conv2d(layer)))
    }
}

impl From<ConvTranspose2d> for Module {
    fn from(layer: ConvTranspose2d) -> Self {
        Module(Kind::Layer(Layer::ConvTranspose2d(layer)))
    }
}

impl From<InstanceNorm2d> for Module {
    fn from(layer: InstanceNorm2d) -> Self {
        Module(Kind::Layer(Layer::InstanceNorm2d(layer)))
    }
}

impl From<Linear> for Module {
    fn from(layer: Linear) -> Self {
        Module(Kind::Layer(Layer::Linear(layer)))
    }
}

impl From<BatchNorm2d> for Module {
    fn from(layer: BatchNorm2d) -> Self {
        Module(Kind::Layer(Layer::BatchNorm2d(layer)))
    }
}

impl From<MaxPool2d> for Module {
    fn from(layer: MaxPool2d) -> Self {
        Module(Kind::Layer(Layer::MaxPool2d(layer)))
    }
}

impl From<AvgPool2d> for Module {
    fn from(layer: AvgPool2d) -> Self {
        Module(Kind::Layer(Layer::AvgPool2d(layer)))
    }
}

/// Height and width: one number for both, or a pair.
#[derive(Debug, Clone, Copy)]
pub struct Pair(pub(super) [usize; 2]);

impl From<usize> for Pair {
    fn from(both: usize) -> Self {
        Self([both; 2])
    }
}

impl From<[usize; 2]> for Pair {
    fn from(pair: [usize; 2]) -> Self {
        Self(pair)
    }
}

impl From<(usize, usize)> for Pair {
    fn from((height, width): (usize, usize)) -> Self {
        Self([height, width])
    }
}

/// See [`conv2d`].
#[derive(Debug, Clone)]
pub struct Conv2d {
    pub(super) channels: [usize; 2],
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) padding: [usize; 2],
    pub(super) dilation: [usize; 2],
    pub(super) groups: usize,
    pub(super) bias: bool,
}

/// Convolution of `[N, in_channels, H, W]` to `[N, out_channels, H', W']`; stride 1, no padding, with bias.
pub fn conv2d(in_channels: usize, out_channels: usize, kernel: impl Into<Pair>) -> Conv2d {
    Conv2d {
        channels: [in_channels, out_channels],
        kernel: kernel.into().0,
        stride: [1; 2],
        padding: [0; 2],
        dilation: [1; 2],
        groups: 1,
        bias: true,
    }
}

impl Conv2d {
    /// Step between positions.
    pub fn stride(self, stride: impl Into<Pair>) -> Self {
        Self { stride: stride.into().0, ..self }
    }

    /// Zeros on each side.
    pub fn padding(self, padding: impl Into<Pair>) -> Self {
        Self { padding: padding.into().0, ..self }
    }

    /// Step between kernel elements.
    pub fn dilation(self, dilation: impl Into<Pair>) -> Self {
        Self { dilation: dilation.into().0, ..self }
    }

    /// Channel groups.
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Whether there is a bias.
    pub fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }
}

/// See [`conv_transpose2d`].
#[derive(Debug, Clone)]
pub struct ConvTranspose2d {
    pub(super) conv: Conv2d,
    pub(super) output_padding: [usize; 2],
}

/// Transposed convolution of `[N, in_channels, H, W]` to `[N, out_channels, H', W']`; stride 1, no padding, with bias. The weight
/// is `[in_channels, out_channels / groups, ..]` as in PyTorch.
pub fn conv_transpose2d(in_channels: usize, out_channels: usize, kernel: impl Into<Pair>) -> ConvTranspose2d {
    ConvTranspose2d { conv: conv2d(in_channels, out_channels, kernel), output_padding: [0; 2] }
}

impl ConvTranspose2d {
    /// Step between positions of the result.
    pub fn stride(self, stride: impl Into<Pair>) -> Self {
        Self { conv: self.conv.stride(stride), ..self }
    }

    /// Elements of the result that are cut off on each side.
    pub fn padding(self, padding: impl Into<Pair>) -> Self {
        Self { conv: self.conv.padding(padding), ..self }
    }

    /// Elements of the result that are added at the end of each axis.
    pub fn output_padding(self, padding: impl Into<Pair>) -> Self {
        Self { output_padding: padding.into().0, ..self }
    }

    /// Step between kernel elements.
    pub fn dilation(self, dilation: impl Into<Pair>) -> Self {
        Self { conv: self.conv.dilation(dilation), ..self }
    }

    /// Channel groups.
    pub fn groups(self, groups: usize) -> Self {
        Self { conv: self.conv.groups(groups), ..self }
    }

    /// Whether there is a bias.
    pub fn bias(self, bias: bool) -> Self {
        Self { conv: self.conv.bias(bias), ..self }
    }
}

/// See [`linear`].
#[derive(Debug, Clone)]
pub struct Linear {
    pub(super) features: [usize; 2],
    pub(super) bias: bool,
}

/// `x·Wᵀ + b` over the last axis; W is `[out_features, in_features]` as in PyTorch.
pub fn linear(in_features: usize, out_features: usize) -> Linear {
    Linear { features: [in_features, out_features], bias: true }
}

impl Linear {
    /// Whether there is a bias.
    pub fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }
}

/// See [`batch_norm2d`].
#[derive(Debug, Clone)]
pub struct BatchNorm2d {
    pub(super) channels: usize,
    pub(super) epsilon: f32,
}

/// Batch normalisation with running statistics, epsilon 1e-5.
pub fn batch_norm2d(channels: usize) -> BatchNorm2d {
    BatchNorm2d { channels, epsilon: 1e-5 }
}

/// Batch normalisation of `[N, channels]`, behind a linear layer.
pub fn batch_norm1d(channels: usize) -> BatchNorm2d {
    batch_norm2d(channels)
}

impl BatchNorm2d {
    /// Added to the variance.
    pub fn epsilon(self, epsilon: f32) -> Self {
        Self { epsilon, ..self }
    }
}

/// See [`instance_norm2d`].
#[derive(Debug, Clone)]
pub struct InstanceNorm2d {
    pub(super) channels: usize,
    pub(super) epsilon: f32,
    pub(super) affine: bool,
}

/// Normalisation of every channel of every sample by its own mean and variance; epsilon 1e-5, without parameters.
pub fn instance_norm2d(channels: usize) -> InstanceNorm2d {
    InstanceNorm2d { channels, epsilon: 1e-5, affine: false }
}

impl InstanceNorm2d {
    /// Added to the variance.
    pub fn epsilon(self, epsilon: f32) -> Self {
        Self { epsilon, ..self }
    }

    /// Whether a factor and an addend per channel follow.
    pub fn affine(self, affine: bool) -> Self {
        Self { affine, ..self }
    }
}

/// See [`max_pool2d`].
#[derive(Debug, Clone)]
pub struct MaxPool2d {
    pub(super) kernel: [usize; 2],
    pub(super) stride: Option<[usize; 2]>,
    pub(super) padding: [usize; 2],
    pub(super) ceil_mode: bool,
}

/// Maximum over windows; the stride is the kernel size unless given.
pub fn max_pool2d(kernel: impl Into<Pair>) -> MaxPool2d {
    MaxPool2d { kernel: kernel.into().0, stride: None, padding: [0; 2], ceil_mode: false }
}

impl MaxPool2d {
    /// Step between positions.
    pub fn stride(self, stride: impl Into<Pair>) -> Self {
        Self { stride: Some(stride.into().0), ..self }
    }

    /// Padding on each side, which never wins.
    pub fn padding(self, padding: impl Into<Pair>) -> Self {
        Self { padding: padding.into().0, ..self }
    }

    /// Whether a last partial window counts.
    pub fn ceil_mode(self, ceil_mode: bool) -> Self {
        Self { ceil_mode, ..self }
    }
}

/// See [`avg_pool2d`].
#[derive(Debug, Clone)]
pub struct AvgPool2d {
    pub(super) kernel: [usize; 2],
    pub(super) stride: Option<[usize; 2]>,
    pub(super) padding: [usize; 2],
    pub(super) ceil_mode: bool,
    pub(super) count_include_pad: bool,
}

/// Mean over windows; the stride is the kernel size unless given; padding counts.
pub fn avg_pool2d(kernel: impl Into<Pair>) -> AvgPool2d {
    AvgPool2d {
        kernel: kernel.into().0,
        stride: None,
        padding: [0; 2],
        ceil_mode: false,
        count_include_pad: true,
    }
}

impl AvgPool2d {
    /// Step between positions.
    pub fn stride(self, stride: impl Into<Pair>) -> Self {
        Self { stride: Some(stride.into().0), ..self }
    }

    /// Zeros on each side.
    pub fn padding(self, padding: impl Into<Pair>) -> Self {
        Self { padding: padding.into().0, ..self }
    }

    /// Whether a last partial window counts.
    pub fn ceil_mode(self, ceil_mode: bool) -> Self {
        Self { ceil_mode, ..self }
    }

    /// Whether padding counts as elements.
    pub fn count_include_pad(self, count_include_pad: bool) -> Self {
        Self { count_include_pad, ..self }
    }
}

/// Mean over windows that give this height and width; the input's has to be a multiple.
pub fn adaptive_avg_pool2d(output: impl Into<Pair>) -> Module {
    Module(Kind::Layer(Layer::AdaptiveAvgPool2d(output.into().0)))
}

/// Mean over all positions of a channel, which stay as axes of length 1.
pub fn global_avg_pool() -> Module {
    Module(Kind::Layer(Layer::GlobalAvgPool))
}

/// `max(x, 0)`.
pub fn relu() -> Module {
    Module(Kind::Layer(Layer::Relu))
}

/// `min(max(x, 0), 6)`.
pub fn relu6() -> Module {
    Module(Kind::Layer(Layer::Relu6))
}

/// `x` where it is positive, else `negative_slope · x`. PyTorch's default slope is 0.01.
pub fn leaky_relu(negative_slope: f32) -> Module {
    Module(Kind::Layer(Layer::LeakyRelu(negative_slope)))
}

/// [`leaky_relu`] with a trained slope for each of `parameters` channels, or one for all.
pub fn prelu(parameters: usize) -> Module {
    Module(Kind::Layer(Layer::Prelu(parameters)))
}

/// `max(0, min(1, x/6 + 1/2))`.
pub fn hardsigmoid() -> Module {
    Module(Kind::Layer(Layer::HardSigmoid))
}

/// `x · hardsigmoid(x)`.
pub fn hardswish() -> Module {
    Module(Kind::Layer(Layer::HardSwish))
}

/// All axes but the first joined.
pub fn flatten() -> Module {
    Module(Kind::Layer(Layer::Flatten))
}

/// Height and width times these factors, every element repeated: `nn.Upsample(scale_factor=..)`.
pub fn upsample_nearest(factor: impl Into<Pair>) -> Module {
    Module(Kind::Layer(Layer::Upsample { factor: factor.into().0, bilinear: false }))
}

/// Height and width times these factors, interpolated: `nn.Upsample(scale_factor=.., mode="bilinear")`.
pub fn upsample_bilinear(factor: impl Into<Pair>) -> Module {
    Module(Kind::Layer(Layer::Upsample { factor: factor.into().0, bilinear: true }))
}

/// Softmax along the last axis, as the model's last layer: the receiver computes it.
pub fn softmax() -> Module {
    Module(Kind::Layer(Layer::Softmax { log: false }))
}

/// The logarithm of [`softmax`], as the model's last layer.
pub fn log_softmax() -> Module {
    Module(Kind::Layer(Layer::Softmax { log: true }))
}

/// `1 / (1 + exp(-x))`, as the model's last layer: the receiver computes it.
pub fn sigmoid() -> Module {
    Module(Kind::Layer(Layer::Sigmoid))
}

/// Nothing at inference; keeps its place, and with it the names of the layers behind it.
pub fn dropout(_probability: f32) -> Module {
    identity()
}

/// Nothing.
pub fn identity() -> Module {
    Module(Kind::Layer(Layer::Identity))
}

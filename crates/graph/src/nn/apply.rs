//! What each layer is made of: operators and parameters.

use ndarray::Axis;

use super::build::{Builder, NnError, Value, fails, moments, unit_variance};
use super::layers::{AvgPool2d, Conv2d, ConvTranspose2d, InstanceNorm2d, Layer, MaxPool2d};
use super::parameters::Source;
use crate::tensor::array;
use crate::{Coordinates, Interpolation, OpError, Operator, Rounding, Tensor, WindowSpec, ops};

impl Builder {
    pub(super) fn layer(&mut self, layer: &Layer, path: &str, x: Value) -> Result<Value, NnError> {
        match layer {
            Layer::Conv2d(conv) => self.conv(conv, path, &x),
            Layer::Linear(linear) => {
                let [from, to] = linear.features;
                let gemm = ops::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
                if x.shape().len() != 2 || x.shape()[1] != from {
                    let error =
                        OpError::mismatch("input", format!("[N, {from}]"), format!("{:?}", x.shape()));
                    return Err(fails(path, &x, error));
                }
                self.weighted(gemm, path, &x, &[to, from], linear.bias.then_some(to))
            }
            Layer::ConvTranspose2d(conv) => self.conv_transpose(conv, path, &x),
            Layer::BatchNorm2d(norm) => self.batch_norm(norm.channels, norm.epsilon, path, &x),
            Layer::InstanceNorm2d(norm) => self.instance_norm(norm, path, &x),
            Layer::Relu => self.apply(path, ops::Relu, &[&x]),
            Layer::Relu6 => {
                let [low, high] = [0.0, 6.0].map(|bound| self.constant(Tensor::from_scalar(bound)));
                self.apply(path, ops::Clip, &[&x, &low, &high])
            }
            Layer::LeakyRelu(alpha) => self.apply(path, ops::LeakyRelu { alpha: *alpha }, &[&x]),
            Layer::Prelu(count) => self.prelu(*count, path, &x),
            Layer::HardSigmoid => self.apply(path, ops::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }, &[&x]),
            Layer::HardSwish => self.apply(path, ops::HardSwish, &[&x]),
            Layer::MaxPool2d(MaxPool2d { kernel, stride, padding, ceil_mode }) => {
                let window = window(*kernel, stride.unwrap_or(*kernel), *padding, [1; 2], *ceil_mode);
                self.apply(path, ops::MaxPool { window }, &[&x])
            }
            Layer::AvgPool2d(AvgPool2d { kernel, stride, padding, ceil_mode, count_include_pad }) => {
                let window = window(*kernel, stride.unwrap_or(*kernel), *padding, [1; 2], *ceil_mode);
                let pool = ops::AveragePool { window, count_include_pad: *count_include_pad };
                self.apply(path, pool, &[&x])
            }
            Layer::AdaptiveAvgPool2d(output) => self.adaptive_pool(*output, path, &x),
            Layer::GlobalAvgPool => self.apply(path, ops::GlobalAveragePool, &[&x]),
            Layer::Flatten => self.apply(path, ops::Flatten { axis: 1 }, &[&x]),
            Layer::Upsample { factor, bilinear } => self.upsample(*factor, *bilinear, path, &x),
            Layer::Softmax { log } => {
                self.apply(path, ops::Softmax { axis: -1, coerce: false, log: *log }, &[&x])
            }
            Layer::Sigmoid => self.apply(path, ops::Sigmoid, &[&x]),
            Layer::Identity => Ok(x),
        }
    }

    fn conv(&mut self, conv: &Conv2d, path: &str, x: &Value) -> Result<Value, NnError> {
        let [from, to] = conv.channels;
        if x.shape().len() != 4 || x.channels() != Some(from) || conv.groups == 0 || from % conv.groups != 0 {
            let expected = format!("[N, {from}, H, W], channels divisible by {} groups", conv.groups);
            return Err(fails(path, x, OpError::mismatch("input", expected, format!("{:?}", x.shape()))));
        }
        let window = window(conv.kernel, conv.stride, conv.padding, conv.dilation, false);
        let shape = [to, from / conv.groups, conv.kernel[0], conv.kernel[1]];
        self.weighted(
            ops::Conv { groups: conv.groups as i64, window },
            path,
            x,
            &shape,
            conv.bias.then_some(to),
        )
    }

    fn conv_transpose(&mut self, conv: &ConvTranspose2d, path: &str, x: &Value) -> Result<Value, NnError> {
        let Conv2d { channels: [from, to], groups, .. } = conv.conv;
        let divisible = groups > 0 && from % groups == 0 && to % groups == 0;
        if x.shape().len() != 4 || x.channels() != Some(from) || !divisible {
            let expected = format!("[N, {from}, H, W], channels in and out divisible by {groups} groups");
            return Err(fails(path, x, OpError::mismatch("input", expected, format!("{:?}", x.shape()))));
        }
        let Conv2d { kernel, stride, padding, dilation, bias, .. } = conv.conv;
        let op = ops::ConvTranspose {
            groups: groups as i64,
            window: window(kernel, stride, padding, dilation, false),
            output_padding: Some(integers(&conv.output_padding)),
            output_shape: None,
        };
        self.weighted(op, path, x, &[from, to / groups, kernel[0], kernel[1]], bias.then_some(to))
    }

    /// A layer of a weight and, where it has as many outputs as `bias` says, of a bias.
    fn weighted(
        &mut self,
        op: impl Operator + Clone,
        path: &str,
        x: &Value,
        shape: &[usize],
        bias: Option<usize>,
    ) -> Result<Value, NnError> {
        let drawn = match &mut self.source {
            Source::Random(random) => {
                Some(unit_variance(random, &op, x, shape, bias).map_err(|e| fails(path, x, e))?)
            }
            Source::Named(_) | Source::Shapes => None,
        };
        let (weight, offset) = match drawn {
            Some((weight, offset)) => (Some(weight), Some(offset)),
            None => (None, None),
        };
        let weight = self.parameter(path, "weight", shape, weight)?;
        let Some(outputs) = bias else { return self.apply(path, op, &[x, &weight]) };
        let bias = self.parameter(path, "bias", &[outputs], offset)?;
        self.apply(path, op, &[x, &weight, &bias])
    }

    fn batch_norm(&mut self, channels: usize, epsilon: f32, path: &str, x: &Value) -> Result<Value, NnError> {
        if x.channels() != Some(channels) {
            let expected = format!("[N, {channels}, ..]");
            return Err(fails(path, x, OpError::mismatch("input", expected, format!("{:?}", x.shape()))));
        }
        let statistics = match &x.sample {
            Some(sample) => {
                let floats = sample.floats("input").map_err(|e| fails(path, x, e))?;
                // One value has no variance to normalise by.
                let variance = |v: &[f32]| if v.len() > 1 { moments(v).1 as f32 } else { 1.0 };
                let per_channel = |f: &dyn Fn(&[f32]) -> f32| {
                    let values = floats.axis_iter(Axis(1)).map(|c| f(&c.iter().copied().collect::<Vec<_>>()));
                    array(&[channels], values.collect())
                };
                [Some(per_channel(&|v| moments(v).0 as f32)), Some(per_channel(&variance))]
            }
            None => [None, None],
        };
        let constant = |value: f32| x.sample.as_ref().map(|_| array(&[channels], vec![value; channels]));
        let [mean, variance] = statistics;
        let parameters = [
            self.parameter(path, "weight", &[channels], constant(1.0))?,
            self.parameter(path, "bias", &[channels], constant(0.0))?,
            self.parameter(path, "running_mean", &[channels], mean)?,
            self.parameter(path, "running_var", &[channels], variance)?,
        ];
        let operands: Vec<&Value> = std::iter::once(x).chain(&parameters).collect();
        self.apply(path, ops::BatchNormalization { epsilon }, &operands)
    }

    fn instance_norm(&mut self, norm: &InstanceNorm2d, path: &str, x: &Value) -> Result<Value, NnError> {
        let channels = norm.channels;
        if x.shape().len() != 4 || x.channels() != Some(channels) {
            let expected = format!("[N, {channels}, H, W]");
            return Err(fails(path, x, OpError::mismatch("input", expected, format!("{:?}", x.shape()))));
        }
        let filled = |value: f32| array(&[channels], vec![value; channels]);
        let drawn = |value| x.sample.as_ref().map(|_| filled(value));
        let [scale, shift] = if norm.affine {
            [
                self.parameter(path, "weight", &[channels], drawn(1.0))?,
                self.parameter(path, "bias", &[channels], drawn(0.0))?,
            ]
        } else {
            [1.0, 0.0].map(|value| self.constant(filled(value).into()))
        };
        let op = ops::InstanceNormalization { epsilon: norm.epsilon };
        self.apply(path, op, &[x, &scale, &shift])
    }

    /// Slopes broadcast from behind, channels are the second axis: they get axes of length 1.
    fn prelu(&mut self, count: usize, path: &str, x: &Value) -> Result<Value, NnError> {
        if count != 1 && x.channels() != Some(count) {
            let expected = format!("[N, {count}, ..]");
            return Err(fails(path, x, OpError::mismatch("input", expected, format!("{:?}", x.shape()))));
        }
        let drawn = x.sample.as_ref().map(|_| array(&[count], vec![0.25; count]));
        let slope = self.parameter(path, "weight", &[count], drawn)?;
        let mut shape = vec![count as i64];
        shape.extend(vec![1; x.shape().len().saturating_sub(2)]);
        let shape = self.constant(Tensor::from_ints(shape));
        let slope = self.apply(path, ops::Reshape { allow_zero: false }, &[&slope, &shape])?;
        self.apply(path, ops::PRelu, &[x, &slope])
    }

    fn upsample(
        &mut self,
        factor: [usize; 2],
        bilinear: bool,
        path: &str,
        x: &Value,
    ) -> Result<Value, NnError> {
        let &[n, c, height, width] = x.shape() else {
            let error = OpError::mismatch("input", "[N, C, H, W]", format!("{:?}", x.shape()));
            return Err(fails(path, x, error));
        };
        let sizes = [n, c, height.saturating_mul(factor[0]), width.saturating_mul(factor[1])];
        let sizes = self.constant(Tensor::from_ints(integers(&sizes)));
        let (interpolation, coordinates) = if bilinear {
            (Interpolation::Linear, Coordinates::PytorchHalfPixel)
        } else {
            (Interpolation::Nearest(Rounding::Floor), Coordinates::Asymmetric)
        };
        let op = ops::Resize {
            interpolation,
            coordinates,
            antialias: false,
            exclude_outside: false,
            extrapolation: 0.0,
            aspect: ops::Aspect::Stretch,
            axes: None,
        };
        self.apply_some(path, op, &[Some(x), None, None, Some(&sizes)])
    }

    fn adaptive_pool(&mut self, output: [usize; 2], path: &str, x: &Value) -> Result<Value, NnError> {
        let &[_, _, height, width] = x.shape() else {
            let error = OpError::mismatch("input", "[N, C, H, W]", format!("{:?}", x.shape()));
            return Err(fails(path, x, error));
        };
        let [rows, columns] = output;
        if rows == 0 || columns == 0 || height % rows != 0 || width % columns != 0 {
            let expected = format!("height and width that are multiples of {output:?}");
            return Err(fails(path, x, OpError::mismatch("input", expected, format!("{:?}", x.shape()))));
        }
        let kernel = [height / rows, width / columns];
        let window = window(kernel, kernel, [0; 2], [1; 2], false);
        self.apply(path, ops::AveragePool { window, count_include_pad: false }, &[x])
    }
}

fn window(
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    ceil_mode: bool,
) -> WindowSpec {
    let list = |v: &[usize]| Some(integers(v));
    WindowSpec {
        kernel: list(&kernel),
        strides: list(&stride),
        dilations: list(&dilation),
        pads: list(&[padding, padding].concat()),
        ceil_mode,
        ..WindowSpec::default()
    }
}

fn integers(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|&v| i64::try_from(v).unwrap_or(i64::MAX)).collect()
}

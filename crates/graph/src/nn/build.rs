//! From layers to a graph: shapes, names and parameters, and for random ones a run on a sample.

use std::collections::BTreeMap;

use ndarray::{ArrayD, Axis};

use super::layers::{AvgPool2d, Conv2d, Layer, MaxPool2d};
use super::parameters::{Parameters, Random, Source};
use super::{Kind, Module};
use crate::tensor::array;
use crate::{Args, Dim, Fact, Graph, OpError, Operator, Tensor, ValueId, WindowSpec, ops};

/// Why layers do not make a model.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NnError {
    /// A layer does not fit what is in front of it.
    #[error("layer {layer:?} after a value of shape {shape:?}: {error}")]
    Layer {
        /// Path of the layer.
        layer: String,
        /// What it was given.
        shape: Vec<usize>,
        /// What was expected and found.
        error: OpError,
    },
    /// A parameter is missing.
    #[error("parameter {name:?} of shape {shape:?} is missing")]
    Missing {
        /// Its name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A parameter has another shape.
    #[error("parameter {name:?}: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// Its name.
        name: String,
        /// The shape that the layer asks for.
        expected: Vec<usize>,
        /// The shape given.
        found: Vec<usize>,
    },
    /// Parameters were given that the model does not have.
    #[error("the model has no parameters {0:?}")]
    Unknown(Vec<String>),
    /// Two layers have one name.
    #[error("two layers have a parameter {0:?}")]
    Twice(String),
}

/// A model and its parameters.
#[derive(Debug)]
pub struct Built {
    /// The model, ready for [`crate::compile`] and [`crate::FloatModel`].
    pub graph: Graph,
    /// Its parameters and running statistics, under the names of PyTorch's `state_dict`.
    pub parameters: BTreeMap<String, ArrayD<f32>>,
}

impl Built {
    /// Number of trained parameters, running statistics left out, as PyTorch counts them.
    pub fn parameter_count(&self) -> usize {
        let trained = |name: &str| !name.ends_with("running_mean") && !name.ends_with("running_var");
        self.parameters.iter().filter(|(name, _)| trained(name)).map(|(_, p)| p.len()).sum()
    }
}

impl Module {
    /// The model as a graph with the input `input` of this shape, batch included, and the output `output`.
    ///
    /// # Errors
    /// A layer that does not fit, and parameters that are missing, unknown or of another shape.
    pub fn build(&self, name: &str, input: &[usize], parameters: Parameters) -> Result<Built, NnError> {
        let builder = self.walk(name, input, parameters.0)?;
        if let Source::Named(left) = builder.source {
            let unknown = left.into_keys().filter(|name| !name.ends_with("num_batches_tracked"));
            match unknown.collect::<Vec<_>>() {
                none if none.is_empty() => {}
                unknown => return Err(NnError::Unknown(unknown)),
            }
        }
        Ok(Built { graph: builder.graph, parameters: builder.parameters })
    }

    /// Names and shapes of the parameters and running statistics, in the order of the layers.
    ///
    /// # Errors
    /// A layer that does not fit.
    pub fn parameters(&self, input: &[usize]) -> Result<Vec<(String, Vec<usize>)>, NnError> {
        Ok(self.walk("", input, Source::Shapes)?.shapes)
    }

    fn walk(&self, name: &str, input: &[usize], mut source: Source) -> Result<Builder, NnError> {
        let mut graph = Graph::new(name);
        let x = graph.input("input", input.iter().map(|&d| Dim::Fixed(d)).collect());
        let sample = match &mut source {
            Source::Random(random) => Some(Tensor::F32(random.normal(input))),
            Source::Named(_) | Source::Shapes => None,
        };
        let x = Value { id: x, fact: Fact::float(input.to_vec()), sample };
        let mut builder = Builder { graph, source, parameters: BTreeMap::new(), shapes: Vec::new() };
        let y = builder.module(self, "", x)?;
        builder.graph.output("output", y.id);
        Ok(builder)
    }
}

/// A value under construction.
#[derive(Clone)]
struct Value {
    id: ValueId,
    fact: Fact,
    /// The value on a random input, when parameters are random.
    sample: Option<Tensor>,
}

impl Value {
    fn shape(&self) -> &[usize] {
        &self.fact.shape
    }

    fn channels(&self) -> Option<usize> {
        self.shape().get(1).copied()
    }
}

struct Builder {
    graph: Graph,
    source: Source,
    parameters: BTreeMap<String, ArrayD<f32>>,
    shapes: Vec<(String, Vec<usize>)>,
}

impl Builder {
    fn module(&mut self, module: &Module, path: &str, x: Value) -> Result<Value, NnError> {
        match &module.0 {
            Kind::Layer(layer) => self.layer(layer, path, x),
            Kind::Sequence(children) => children.iter().try_fold(x, |x, (name, child)| match name {
                Some(name) => self.module(child, &join(path, name), x),
                None => self.module(child, path, x),
            }),
            Kind::Residual { main, shortcut } => {
                let aside = match shortcut {
                    Some((name, module)) => self.module(module, &join(path, name), x.clone())?,
                    None => x.clone(),
                };
                let y = self.module(main, path, x)?;
                if y.shape() != aside.shape() {
                    let expected = format!("the shape {:?} of the main branch", y.shape());
                    let error = OpError::mismatch("shortcut", expected, format!("{:?}", aside.shape()));
                    return Err(fails(path, &aside, error));
                }
                self.apply(path, ops::Add, &[&y, &aside])
            }
            Kind::Branches(modules) => {
                let results: Vec<Value> =
                    modules.iter().map(|m| self.module(m, path, x.clone())).collect::<Result<_, _>>()?;
                self.apply(path, ops::Concat { axis: 1 }, &results.iter().collect::<Vec<_>>())
            }
        }
    }

    fn layer(&mut self, layer: &Layer, path: &str, x: Value) -> Result<Value, NnError> {
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
                self.weighted(gemm, path, &x, &[to, from], linear.bias)
            }
            Layer::BatchNorm2d(norm) => self.batch_norm(norm.channels, norm.epsilon, path, &x),
            Layer::Relu => self.apply(path, ops::Relu, &[&x]),
            Layer::Relu6 => {
                let [low, high] = [0.0, 6.0].map(|bound| self.constant(Tensor::from_scalar(bound)));
                self.apply(path, ops::Clip, &[&x, &low, &high])
            }
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
            Layer::Softmax => self.apply(path, ops::Softmax { axis: -1, coerce: false, log: false }, &[&x]),
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
        self.weighted(ops::Conv { groups: conv.groups as i64, window }, path, x, &shape, conv.bias)
    }

    /// A layer of a weight, its outputs along the first axis, and a bias.
    fn weighted(
        &mut self,
        op: impl Operator + Clone,
        path: &str,
        x: &Value,
        shape: &[usize],
        bias: bool,
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
        if !bias {
            return self.apply(path, op, &[x, &weight]);
        }
        let bias = self.parameter(path, "bias", &shape[..1], offset)?;
        self.apply(path, op, &[x, &weight, &bias])
    }

    fn batch_norm(&mut self, channels: usize, epsilon: f32, path: &str, x: &Value) -> Result<Value, NnError> {
        if x.channels() != Some(channels) {
            let expected = format!("[N, {channels}, H, W]");
            return Err(fails(path, x, OpError::mismatch("input", expected, format!("{:?}", x.shape()))));
        }
        let statistics = match &x.sample {
            Some(sample) => {
                let floats = sample.floats("input").map_err(|e| fails(path, x, e))?;
                let per_channel = |f: &dyn Fn(&[f32]) -> f32| {
                    let values = floats.axis_iter(Axis(1)).map(|c| f(&c.iter().copied().collect::<Vec<_>>()));
                    array(&[channels], values.collect())
                };
                [Some(per_channel(&|v| moments(v).0 as f32)), Some(per_channel(&|v| moments(v).1 as f32))]
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

    /// The parameter `name` of the layer at `path`: drawn, or given.
    fn parameter(
        &mut self,
        path: &str,
        name: &str,
        shape: &[usize],
        drawn: Option<ArrayD<f32>>,
    ) -> Result<Value, NnError> {
        let name = join(path, name);
        if self.shapes.iter().any(|(earlier, _)| *earlier == name) {
            return Err(NnError::Twice(name));
        }
        self.shapes.push((name.clone(), shape.to_vec()));
        let tensor = match (&mut self.source, drawn) {
            (_, Some(drawn)) => drawn,
            (Source::Named(given), None) => {
                let missing = || NnError::Missing { name: name.clone(), shape: shape.to_vec() };
                given.remove(&name).ok_or_else(missing)?
            }
            (Source::Random(random), None) => random.normal(shape),
            (Source::Shapes, None) => {
                let fact = Fact::float(shape.to_vec());
                return Ok(Value { id: self.graph.value(), fact, sample: None });
            }
        };
        if tensor.shape() != shape {
            let found = tensor.shape().to_vec();
            return Err(NnError::Shape { name, expected: shape.to_vec(), found });
        }
        self.parameters.insert(name, tensor.clone());
        Ok(self.constant(tensor.into()))
    }

    fn constant(&mut self, tensor: Tensor) -> Value {
        let fact = Fact::new(tensor.dtype(), tensor.shape().to_vec());
        let sample = matches!(self.source, Source::Random(_)).then(|| tensor.clone());
        Value { id: self.graph.constant(tensor), fact, sample }
    }

    fn apply(&mut self, path: &str, op: impl Operator, operands: &[&Value]) -> Result<Value, NnError> {
        let fail = |error| fails(path, operands[0], error);
        let facts: Vec<Option<&Fact>> = operands.iter().map(|v| Some(&v.fact)).collect();
        let fact = op.facts(Args(&facts)).map_err(fail)?.swap_remove(0);
        let samples: Vec<Option<&Tensor>> = operands.iter().map(|v| v.sample.as_ref()).collect();
        let sample = if samples.iter().all(Option::is_some) {
            Some(op.eval(Args(&samples)).map_err(fail)?.swap_remove(0))
        } else {
            None
        };
        let inputs: Vec<ValueId> = operands.iter().map(|v| v.id).collect();
        let name = if path.is_empty() { op.name().to_owned() } else { path.to_owned() };
        Ok(Value { id: self.graph.node(name, op, &inputs), fact, sample })
    }
}

/// A random weight and bias with which the sample's outputs have unit variance (layer-sequential unit variance: Mishkin
/// and Matas, ICLR 2016).
fn unit_variance(
    random: &mut Random,
    op: &impl Operator,
    x: &Value,
    shape: &[usize],
    bias: bool,
) -> Result<(ArrayD<f32>, ArrayD<f32>), OpError> {
    let fan_in: usize = shape[1..].iter().product();
    let mut weight = random.normal(shape) / (fan_in as f32).sqrt();
    let mut offset = random.normal(&shape[..1]) * 0.1;
    let (w, b) = (Tensor::F32(weight.clone()), Tensor::F32(offset.clone()));
    let operands = [x.sample.as_ref(), Some(&w), bias.then_some(&b)];
    let y = op.eval(Args(&operands[..2 + usize::from(bias)]))?.swap_remove(0);
    let values: Vec<f32> = y.floats("output")?.iter().copied().collect();
    let deviation = moments(&values).1.sqrt() as f32;
    // An input that is zero everywhere (a dead layer in front) has nothing to scale by.
    if deviation > f32::EPSILON {
        weight /= deviation;
        offset /= deviation;
    }
    Ok((weight, offset))
}

/// Mean and variance.
fn moments(values: &[f32]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    (mean, values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n)
}

fn window(
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    ceil_mode: bool,
) -> WindowSpec {
    let list = |v: &[usize]| Some(v.iter().map(|&v| i64::try_from(v).unwrap_or(i64::MAX)).collect());
    WindowSpec {
        kernel: list(&kernel),
        strides: list(&stride),
        dilations: list(&dilation),
        pads: list(&[padding, padding].concat()),
        ceil_mode,
        ..WindowSpec::default()
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn fails(path: &str, x: &Value, error: OpError) -> NnError {
    NnError::Layer { layer: path.to_owned(), shape: x.shape().to_vec(), error }
}

//! From layers to a graph: shapes, names and parameters, and for random ones a run on a sample.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::ArrayD;

use super::parameters::{Parameters, Random, Source};
use super::{Kind, Module};
use crate::{Args, Dim, Fact, Graph, Node, OpError, Operator, Tensor, ValueId, ops};

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
    /// A parameter cannot be: NaN, infinity, a negative variance.
    #[error("parameter {name:?} holds {found}, expected {expected}")]
    Value {
        /// Its name.
        name: String,
        /// What it may hold.
        expected: &'static str,
        /// What it holds.
        found: &'static str,
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
pub(super) struct Value {
    id: ValueId,
    fact: Fact,
    /// The value on a random input, when parameters are random.
    pub(super) sample: Option<Tensor>,
}

impl Value {
    pub(super) fn shape(&self) -> &[usize] {
        &self.fact.shape
    }

    pub(super) fn channels(&self) -> Option<usize> {
        self.shape().get(1).copied()
    }
}

pub(super) struct Builder {
    graph: Graph,
    pub(super) source: Source,
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
            Kind::Gated(main) => {
                let gate = self.module(main, path, x.clone())?;
                let y = self.apply(path, ops::Mul, &[&x, &gate])?;
                if y.shape() != x.shape() {
                    let expected = format!("a shape that broadcasts to {:?}", x.shape());
                    let error = OpError::mismatch("gate", expected, format!("{:?}", gate.shape()));
                    return Err(fails(path, &gate, error));
                }
                Ok(y)
            }
            Kind::Branches(modules) => {
                let results: Vec<Value> =
                    modules.iter().map(|m| self.module(m, path, x.clone())).collect::<Result<_, _>>()?;
                self.apply(path, ops::Concat { axis: 1 }, &results.iter().collect::<Vec<_>>())
            }
        }
    }

    /// The parameter `name` of the layer at `path`: drawn, or given.
    pub(super) fn parameter(
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
        if !tensor.iter().all(|v| v.is_finite()) {
            return Err(NnError::Value { name, expected: "finite numbers", found: "NaN or infinity" });
        }
        if name.ends_with("running_var") && tensor.iter().any(|&v| v < 0.0) {
            return Err(NnError::Value { name, expected: "variances", found: "a negative number" });
        }
        self.parameters.insert(name, tensor.clone());
        Ok(self.constant(tensor.into()))
    }

    pub(super) fn constant(&mut self, tensor: Tensor) -> Value {
        let sample = matches!(self.source, Source::Random(_)).then(|| tensor.clone());
        let tensor = Arc::new(tensor);
        Value { fact: Fact::constant(tensor.clone()), id: self.graph.shared_constant(tensor), sample }
    }

    pub(super) fn apply(
        &mut self,
        path: &str,
        op: impl Operator,
        operands: &[&Value],
    ) -> Result<Value, NnError> {
        self.apply_some(path, op, &operands.iter().map(|&v| Some(v)).collect::<Vec<_>>())
    }

    /// [`Self::apply`], some operands left out; the first one is there.
    pub(super) fn apply_some(
        &mut self,
        path: &str,
        op: impl Operator,
        operands: &[Option<&Value>],
    ) -> Result<Value, NnError> {
        let fail = |error| match operands.first().copied().flatten() {
            Some(x) => fails(path, x, error),
            None => NnError::Layer { layer: path.to_owned(), shape: Vec::new(), error },
        };
        let facts: Vec<Option<&Fact>> = operands.iter().map(|v| v.map(|v| &v.fact)).collect();
        let mut fact = op.facts(Args(&facts)).map_err(fail)?.swap_remove(0);
        let samples: Vec<Option<&Tensor>> =
            operands.iter().map(|v| v.and_then(|v| v.sample.as_ref())).collect();
        let complete = operands.iter().zip(&samples).all(|(v, s)| v.is_some() == s.is_some());
        let sample =
            if complete { Some(op.eval(Args(&samples)).map_err(fail)?.swap_remove(0)) } else { None };
        // Folding settles values; here only shapes matter.
        fact.value = None;
        let name = if path.is_empty() { op.name().to_owned() } else { path.to_owned() };
        let inputs = operands.iter().map(|v| v.map(|v| v.id)).collect();
        let id = self.graph.value();
        self.graph.nodes.push(Node { name, op: Arc::new(op), inputs, outputs: vec![id] });
        Ok(Value { id, fact, sample })
    }
}

/// A random weight and bias with which the sample's outputs have unit variance (layer-sequential unit variance: Mishkin
/// and Matas, ICLR 2016).
pub(super) fn unit_variance(
    random: &mut Random,
    op: &impl Operator,
    x: &Value,
    shape: &[usize],
    bias: Option<usize>,
) -> Result<(ArrayD<f32>, ArrayD<f32>), OpError> {
    let fan_in: usize = shape[1..].iter().product();
    let mut weight = random.normal(shape) / (fan_in as f32).sqrt();
    let mut offset = random.normal(&[bias.unwrap_or(0)]) * 0.1;
    let (w, b) = (Tensor::F32(weight.clone()), Tensor::F32(offset.clone()));
    let operands = [x.sample.as_ref(), Some(&w), bias.map(|_| &b)];
    let y = op.eval(Args(&operands[..2 + usize::from(bias.is_some())]))?.swap_remove(0);
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
pub(super) fn moments(values: &[f32]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    (mean, values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

pub(super) fn fails(path: &str, x: &Value, error: OpError) -> NnError {
    NnError::Layer { layer: path.to_owned(), shape: x.shape().to_vec(), error }
}

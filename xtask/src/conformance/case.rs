//! One case: float evaluation, an independent oracle, the cleartext engine and a private one, in up to two modes.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::{Context, Result};
use ndarray::ArrayD;
use privet::model::fixed_inputs;
use privet::postprocess::decode;
use privet_graph::{CompileOptions, Compiled, FloatModel, Graph, GraphError, Tensor, compile};
use privet_plan::Preprocess;
use privet_protocols::{Silent, cleartext};
use privet_ring::Ring;
use prost::Message;

use super::{FLOAT_TOLERANCE, FRAC_BITS, Mode, RING, TOLERANCE, Verdict, oracle, scope};
use crate::engine::Engine;

/// Runs the case in `directory`.
pub(super) fn run(directory: &Path, engine: Engine) -> Verdict {
    let prepared = std::fs::read(directory.join("model.onnx"))
        .map_err(anyhow::Error::from)
        .and_then(|bytes| Ok(scope::Model::decode(&bytes[..])?));
    let model = match prepared {
        Ok(model) => model,
        Err(error) => return Verdict::Failed(format!("{error:#}")),
    };
    if let Some(reason) = scope::reason(&model) {
        return Verdict::OutOfScope(reason);
    }
    // The oracle and the engines' assertions panic; that is a failure of this case and no other.
    let outcome = catch_unwind(AssertUnwindSafe(|| check(directory, &scope::public_inputs(&model), engine)));
    match outcome {
        Ok(Ok(passed)) => passed,
        Ok(Err(error)) => Verdict::Failed(format!("{error:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Verdict::Failed(format!("panicked: {}", text.unwrap_or_default()))
        }
    }
}

fn check(directory: &Path, public: &[String], engine: Engine) -> Result<Verdict> {
    let graph = privet_onnx::load(&directory.join("model.onnx"))?;
    let (mut modes, mut error) = (Vec::new(), 0.0f64);
    let sets = (0..).map(|set| directory.join(format!("test_data_set_{set}")));
    for set in sets.take_while(|set| set.is_dir()) {
        let set = TestSet::read(&graph, &set, public)?;
        let (found, worst) = set.check(engine)?;
        if modes.is_empty() {
            modes = found;
        } else {
            modes.retain(|mode| found.contains(mode));
        }
        error = error.max(worst);
    }
    anyhow::ensure!(!modes.is_empty(), "no mode runs with every test set");
    Ok(Verdict::Passed { modes, error })
}

/// A graph whose public operands are bound, with the client's inputs and what has to come out.
struct TestSet {
    graph: Graph,
    inputs: Vec<(String, ArrayD<f32>)>,
    expected: BTreeMap<String, ArrayD<f64>>,
}

impl TestSet {
    fn read(graph: &Graph, set: &Path, public: &[String]) -> Result<Self> {
        let mut bound = graph.clone();
        let mut inputs = Vec::new();
        for (i, input) in graph.inputs.iter().enumerate() {
            match tensor(&set.join(format!("input_{i}.pb")))? {
                Tensor::F32(values) if !public.contains(&input.name) => {
                    inputs.push((input.name.clone(), values))
                }
                tensor => bound.bind(&input.name, tensor)?,
            }
        }
        let expected = graph.outputs.iter().enumerate().map(|(i, output)| {
            let values = match tensor(&set.join(format!("output_{i}.pb")))? {
                Tensor::F32(a) => a.mapv(f64::from),
                Tensor::I64(a) => a.mapv(|v| v as f64),
                Tensor::Bool(a) => a.mapv(|v| f64::from(u8::from(v))),
            };
            Ok((output.name.clone(), values))
        });
        Ok(Self { expected: expected.collect::<Result<_>>()?, graph: bound, inputs })
    }

    /// The modes that run, and the largest error of the engines.
    fn check(&self, engine: Engine) -> Result<(Vec<Mode>, f64)> {
        let everything: Vec<ArrayD<f32>> = self.inputs.iter().map(|(_, values)| values.clone()).collect();
        let float = FloatModel::new(&self.graph, &shapes(&self.inputs)).and_then(|m| m.run(&everything))?;
        for (output, found) in self.graph.outputs.iter().zip(&float) {
            let found = found.mapv(f64::from);
            compare(&found, &self.expected[&output.name], FLOAT_TOLERANCE).context("in float")?;
        }
        let mut refused = None;
        let (mut modes, mut error) = (Vec::new(), 0.0f64);
        for mode in [Mode::Inputs, Mode::Weights] {
            if mode == Mode::Weights && self.inputs.len() < 2 {
                continue;
            }
            match self.compile(mode)? {
                Ok(Some(compiled)) => {
                    let own = if mode == Mode::Inputs { &everything[..] } else { &everything[..1] };
                    let worst = self.engines(&compiled, own, engine);
                    error = error.max(worst.with_context(|| mode.to_string())?);
                    modes.push(mode);
                }
                // Float evaluation has given what is expected, and that is all there is to run.
                Ok(None) => modes.push(Mode::Constant),
                Err(error) => refused = Some(error),
            }
        }
        modes.dedup();
        match refused {
            Some(error) if modes.is_empty() => Err(error.into()),
            _ => Ok((modes, error)),
        }
    }

    /// The integer program; `None` when no output depends on the client's inputs, the inner error when it is refused.
    fn compile(&self, mode: Mode) -> Result<Result<Option<Compiled>, GraphError>> {
        let mut graph = self.graph.clone();
        let own = if mode == Mode::Inputs { self.inputs.len() } else { 1 };
        for (name, values) in &self.inputs[own.min(self.inputs.len())..] {
            graph.bind(name, values.clone().into())?;
        }
        let options = CompileOptions {
            ring: Ring::new(RING)?,
            frac_bits: FRAC_BITS,
            input_shapes: shapes(&self.inputs[..own.min(self.inputs.len())]),
            preprocess: Preprocess::default(),
            labels: Vec::new(),
        };
        loop {
            match compile(&graph, &options) {
                Err(GraphError::Output { name, problem }) if problem.contains("does not depend") => {
                    graph.outputs.retain(|output| output.name != name);
                    if graph.outputs.is_empty() {
                        return Ok(Ok(None));
                    }
                }
                other => return Ok(other.map(Some)),
            }
        }
    }

    /// Runs the oracle and the engines; returns the largest error.
    fn engines(&self, compiled: &Compiled, inputs: &[ArrayD<f32>], engine: Engine) -> Result<f64> {
        let (plan, weights) = (&compiled.plan, &compiled.weights);
        let fixed = fixed_inputs(plan, inputs)?;
        let clear = cleartext::run(plan, weights, &fixed, &mut Silent).context("cleartext engine")?;
        let mut worst = 0.0f64;
        for output in decode(plan, &clear).map_err(anyhow::Error::msg)? {
            let error = compare(&output.values.to_floats(), &self.expected[&output.name], TOLERANCE);
            worst = worst.max(error.context("cleartext engine")?);
        }
        let flat: Vec<Vec<f32>> = inputs.iter().map(|x| x.iter().copied().collect()).collect();
        let independent = oracle::run(compiled, &flat);
        for ((spec, clear), independent) in plan.outputs.iter().zip(&clear).zip(independent) {
            let scale = f64::from(plan.steps[spec.wire.index()].frac_bits).exp2();
            let same = clear.iter().zip(&independent).all(|(&a, &b)| a as f64 / scale == b);
            anyhow::ensure!(same && clear.len() == independent.len(), "cleartext differs from the oracle");
        }
        if let Some(private) = engine.run(plan, weights, &fixed).context("private engine")? {
            anyhow::ensure!(private.outputs == clear, "the private engine differs from the cleartext one");
        }
        Ok(worst)
    }
}

fn shapes(inputs: &[(String, ArrayD<f32>)]) -> Vec<(Option<String>, Vec<usize>)> {
    inputs.iter().map(|(name, values)| (Some(name.clone()), values.shape().to_vec())).collect()
}

fn tensor(path: &Path) -> Result<Tensor> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Ok(privet_onnx::parse_tensor(&bytes)?)
}

/// The largest error, in units of `1 + |expected|`; an error when it is above `tolerance`.
fn compare(found: &ArrayD<f64>, expected: &ArrayD<f64>, tolerance: f64) -> Result<f64> {
    anyhow::ensure!(
        found.shape() == expected.shape(),
        "shape {:?}, expected {:?}",
        found.shape(),
        expected.shape()
    );
    let mut worst = 0.0f64;
    for (&a, &b) in found.iter().zip(expected) {
        if a == b || (a.is_nan() && b.is_nan()) {
            continue;
        }
        let error = (a - b).abs() / (1.0 + b.abs());
        // An error that is no number is none that is small enough.
        anyhow::ensure!(error <= tolerance, "value {a}, expected {b}");
        worst = worst.max(error);
    }
    Ok(worst)
}

//! The ONNX backend cases whose operators are supported: in float against their expected outputs, and lowered, as
//! integer programs against the float ones: with all inputs but the first as weights, and with all as inputs.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::integers;
use ndarray::ArrayD;
use privet_graph::{
    CompileOptions, FloatModel, Graph, GraphError, GraphInput, OpError, Tensor, ValueId, compile,
};
use privet_onnx::OnnxError;
use privet_plan::{Post, Preprocess};
use privet_ring::Ring;

/// Fewest cases that must run in float; raise it when operators are added.
const MIN_RUN: usize = 308;
/// Fewest cases that must run as integer programs.
const MIN_LOWERED: usize = 271;
/// Fewest cases of several float inputs that must run as integer programs with all of them secret.
const MIN_SECRET: usize = 43;

/// Whether a case had several float inputs that could all be the caller's.
type Lowered = bool;

enum Outcome {
    /// Whether it ran as an integer program too, or why not.
    Run(Result<Lowered, String>),
    Refused(String),
    Failed(String),
}

#[test]
fn float_evaluation_matches_the_backend_tests() {
    let Some(data) = common::data("conformance") else { return };
    let root = data.join("conformance");
    let text = std::fs::read_to_string(root.join("ort_results.json")).unwrap();
    let results: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
    let (mut run, mut lowered, mut secret, mut failed) = (0, 0, 0, Vec::new());
    let (mut refused, mut not_lowered) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
    for case in results.iter().filter(|(_, result)| *result == "pass").map(|(case, _)| case) {
        let directory = root.join(case);
        if case.starts_with("onnx_light") || !directory.join("model.onnx").is_file() {
            continue;
        }
        match check(&directory) {
            Outcome::Run(integers) => {
                run += 1;
                match integers {
                    Ok(all_secret) => {
                        lowered += 1;
                        secret += usize::from(all_secret);
                    }
                    Err(reason) => *not_lowered.entry(reason).or_default() += 1,
                }
            }
            Outcome::Refused(reason) => *refused.entry(reason).or_default() += 1,
            Outcome::Failed(problem) => failed.push(format!("{case}: {problem}")),
        }
    }
    for (reason, count) in &refused {
        eprintln!("refused {count:4} {reason}");
    }
    for (reason, count) in &not_lowered {
        eprintln!("not lowered {count:4} {reason}");
    }
    eprintln!("conformance as integers: {lowered} run, {} refused by name", run - lowered);
    eprintln!("conformance as integers with several secret inputs: {secret} run");
    eprintln!(
        "conformance: {run} run, {} refused by name, {} failed",
        refused.values().sum::<usize>(),
        failed.len()
    );
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(run >= MIN_RUN, "only {run} cases ran, expected at least {MIN_RUN}");
    assert!(lowered >= MIN_LOWERED, "only {lowered} cases ran as integers, expected at least {MIN_LOWERED}");
    assert!(secret >= MIN_SECRET, "only {secret} cases ran with all inputs, expected at least {MIN_SECRET}");
}

fn check(directory: &Path) -> Outcome {
    let graph = match privet_onnx::load(&directory.join("model.onnx")) {
        Ok(graph) => graph,
        Err(OnnxError::Opset { found, .. }) => return Outcome::Refused(format!("opset {found}")),
        Err(OnnxError::Operator { operator, .. }) => return Outcome::Refused(format!("operator {operator}")),
        Err(OnnxError::Attribute { operator, attribute, problem, .. }) => {
            return Outcome::Refused(format!("{operator} attribute {attribute} {problem}"));
        }
        Err(OnnxError::ElementType { found, .. }) => {
            return Outcome::Refused(format!("element type {found}"));
        }
        Err(OnnxError::Operands { operator, what, found, .. }) => {
            return Outcome::Refused(format!("{operator} {what}: {found}"));
        }
        Err(other) => return Outcome::Failed(other.to_string()),
    };
    let mut integers = None;
    for set in (0..).map(|set| directory.join(format!("test_data_set_{set}"))).take_while(|set| set.is_dir())
    {
        match check_set(&graph, &set) {
            Outcome::Run(result) => integers = Some(result),
            other => return other,
        }
    }
    integers.map_or_else(|| Outcome::Failed("no test data".to_owned()), Outcome::Run)
}

fn check_set(graph: &Graph, set: &Path) -> Outcome {
    let mut graph = graph.clone();
    // Floats are the caller's; shapes, indices, axes and bounds are model data that the cases leave to their caller.
    let (mut inputs, mut shapes) = (Vec::new(), Vec::new());
    for (i, input) in graph.inputs.clone().into_iter().enumerate() {
        let path = set.join(format!("input_{i}.pb"));
        if !path.is_file() {
            return Outcome::Failed(format!("no {}", path.display()));
        }
        match privet_onnx::parse_tensor(&std::fs::read(&path).unwrap()) {
            Ok(Tensor::F32(values)) if !parameter(&graph, input.value) => {
                shapes.push((Some(input.name), values.shape().to_vec()));
                inputs.push(values);
            }
            Ok(tensor) => graph.bind(&input.name, tensor).unwrap(),
            Err(OnnxError::ElementType { found, .. }) => {
                return Outcome::Refused(format!("element type {found}"));
            }
            Err(other) => return Outcome::Failed(other.to_string()),
        }
    }
    let outputs = match FloatModel::new(&graph, &shapes).and_then(|model| model.run(&inputs)) {
        Ok(outputs) => outputs,
        Err(error) => {
            return refusal(&error).map_or_else(|| Outcome::Failed(error.to_string()), Outcome::Refused);
        }
    };
    for (i, output) in outputs.iter().enumerate() {
        let Ok(expected) =
            privet_onnx::parse_tensor(&std::fs::read(set.join(format!("output_{i}.pb"))).unwrap())
        else {
            return Outcome::Refused("element type of an output".to_owned());
        };
        if let Err(problem) = compare(output, &floats(expected), 1e-4) {
            return Outcome::Failed(problem);
        }
    }
    let Some(first) = inputs.first() else { return Outcome::Run(Err("no float input".to_owned())) };
    let all_secret = match check_integers(&graph, &inputs) {
        Ok(()) => inputs.len() > 1,
        Err(Outcome::Run(Err(_))) if inputs.len() > 1 => false,
        Err(other) => return other,
    };
    for (input, value) in graph.inputs.clone().iter().zip(&inputs).skip(1) {
        graph.bind(&input.name, value.clone().into()).unwrap();
    }
    match check_integers(&graph, std::slice::from_ref(first)) {
        Ok(()) => Outcome::Run(Ok(all_secret)),
        // What compiles only while nothing is a weight counts too.
        Err(Outcome::Run(Err(_))) if all_secret => Outcome::Run(Ok(true)),
        Err(other) => other,
    }
}

/// The graph's integer program against its float model; the refusal or failure otherwise.
fn check_integers(graph: &Graph, inputs: &[ArrayD<f32>]) -> Result<(), Outcome> {
    let shape =
        |(input, value): (&GraphInput, &ArrayD<f32>)| (Some(input.name.clone()), value.shape().to_vec());
    let options = CompileOptions {
        ring: Ring::new(64).unwrap(),
        frac_bits: 20,
        input_shapes: graph.inputs.iter().zip(inputs).map(shape).collect(),
        preprocess: Preprocess::default(),
        labels: Vec::new(),
    };
    let compiled = compile(graph, &options).map_err(|error| {
        refusal(&error).map_or_else(|| Outcome::Failed(error.to_string()), |r| Outcome::Run(Err(r)))
    })?;
    let expected = compiled.float.run(inputs).unwrap();
    let flat: Vec<Vec<f32>> = inputs.iter().map(|v| v.iter().copied().collect()).collect();
    let found = integers::run(&compiled, &flat);
    for ((found, expected), spec) in found.iter().zip(expected).zip(&compiled.plan.outputs) {
        if spec.post != Post::None {
            continue;
        }
        let shape = compiled.plan.shape(spec.wire);
        let found = found.iter().map(|&v| v as f32).collect();
        let found = ArrayD::from_shape_vec(shape, found).unwrap();
        if let Err(problem) = compare(&found, &expected, 1e-3) {
            return Err(Outcome::Failed(format!("as integers: {problem}")));
        }
    }
    Ok(())
}

/// A refusal that names what is not supported, as opposed to an error.
fn refusal(error: &GraphError) -> Option<String> {
    match error {
        GraphError::Op { op, error: OpError::Unsupported { what, .. }, .. } => Some(format!("{op}: {what}")),
        GraphError::Output { problem, .. } => Some(problem.clone()),
        GraphError::InputShape { expected, .. } => Some(expected.clone()),
        _ => None,
    }
}

/// Whether a value only ever serves as a bound or fill value, which compilation needs to know.
fn parameter(graph: &Graph, value: ValueId) -> bool {
    let mut readers = graph.nodes.iter().filter(|n| n.inputs.contains(&Some(value))).peekable();
    readers.peek().is_some()
        && readers.all(|n| match n.op.name() {
            "Clip" | "Range" => n.inputs[0] != Some(value) || n.op.name() == "Range",
            "Pad" | "Resize" => n.inputs[0] != Some(value),
            _ => false,
        })
}

fn floats(tensor: Tensor) -> ArrayD<f32> {
    match tensor {
        Tensor::F32(a) => a,
        Tensor::I64(a) => a.mapv(|v| v as f32),
        Tensor::Bool(a) => a.mapv(|v| f32::from(u8::from(v))),
    }
}

fn compare(found: &ArrayD<f32>, expected: &ArrayD<f32>, tolerance: f32) -> Result<(), String> {
    if found.shape() != expected.shape() {
        return Err(format!("shape {:?}, expected {:?}", found.shape(), expected.shape()));
    }
    let close = |(a, b): (&f32, &f32)| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * (1.0 + b.abs())
    };
    match found.iter().zip(expected).find(|&pair| !close(pair)) {
        None => Ok(()),
        Some((a, b)) => Err(format!("value {a}, expected {b}")),
    }
}

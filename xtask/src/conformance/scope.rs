//! Which cases are in scope: their operators are listed, their data is float32, and they are not about training.

use prost::Message;

/// Operators in scope. What is missing here is refused by name, or has not been asked for.
const LISTED: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "ArgMax",
    "ArgMin",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "CastLike",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "ConvTranspose",
    "CumSum",
    "DepthToSpace",
    "Div",
    "Dropout",
    "Einsum",
    "Equal",
    "Erf",
    "Expand",
    "Flatten",
    "Gather",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "If",
    "InstanceNormalization",
    "LRN",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "LogSoftmax",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "MeanVarianceNormalization",
    "Min",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pad",
    "Range",
    "ReduceL1",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Resize",
    "Shape",
    "Sigmoid",
    "Sign",
    "Size",
    "Slice",
    "Softmax",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "ThresholdedRelu",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Upsample",
    "Where",
    "Xor",
];

/// Operands that are shapes, indices, axes, bounds and fill values: public data of the model, whatever file they are in.
/// Positions from the second one on are all public.
const PUBLIC_OPERANDS: &[(&str, usize)] = &[
    ("BatchNormalization", 3),
    ("Clip", 1),
    ("ConstantOfShape", 0),
    ("CumSum", 1),
    ("Dropout", 1),
    ("Expand", 1),
    ("Gather", 1),
    ("Pad", 1),
    ("Range", 0),
    ("ReduceL1", 1),
    ("ReduceMax", 1),
    ("ReduceMean", 1),
    ("ReduceMin", 1),
    ("ReduceSum", 1),
    ("ReduceSumSquare", 1),
    ("Reshape", 1),
    ("Resize", 1),
    ("Slice", 1),
    ("Split", 1),
    ("Squeeze", 1),
    ("Tile", 1),
    ("Unsqueeze", 1),
    ("Upsample", 1),
];

/// Operators whose results are indices, sizes or truth values.
const WHOLE_RESULTS: &[&str] = &[
    "And",
    "ArgMax",
    "ArgMin",
    "Dropout",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Not",
    "Or",
    "Shape",
    "Size",
    "Xor",
];

/// Oldest operator set in scope.
const OLDEST_OPSET: i64 = 7;

/// As much of a model as decides about its scope.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opsets: Vec<Opset>,
}

#[derive(Clone, PartialEq, Message)]
struct Opset {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    initializers: Vec<Initializer>,
    #[prost(message, repeated, tag = "11")]
    inputs: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    outputs: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "4")]
    operator: String,
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
    #[prost(string, tag = "7")]
    domain: String,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    int: i64,
    #[prost(message, optional, tag = "6")]
    graph: Option<Graph>,
}

#[derive(Clone, PartialEq, Message)]
struct Initializer {
    #[prost(string, tag = "8")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    element: i32,
}

/// Why a model is out of scope; `None` when it is in scope.
pub(super) fn reason(model: &Model) -> Option<String> {
    let Some(graph) = &model.graph else { return Some("no graph".to_owned()) };
    if let Some(operator) = foreign_operator(graph) {
        return Some(format!("operator {operator}"));
    }
    let opset = model.opsets.iter().find(|o| o.domain.is_empty() || o.domain == "ai.onnx");
    let opset = opset.map_or(1, |o| o.version);
    if opset < OLDEST_OPSET {
        return Some(format!("operator set {opset}, from {OLDEST_OPSET} on are supported"));
    }
    if let Some(operator) = trains(graph) {
        return Some(format!("{operator} in training mode"));
    }
    let computed = |input: &&Value| graph.initializers.iter().all(|i| i.name != input.name);
    let foreign_input = |input: &Value| match element(input) {
        Element::Float => None,
        // A condition of booleans is chosen by the caller, like an index.
        Element::Whole(_) if is_public(graph, &input.name) || chooses(graph, &input.name) => None,
        other => Some(other),
    };
    let foreign_output = |output: &Value| match element(output) {
        Element::Float => None,
        Element::Whole(_) if defined_by(graph, &output.name, WHOLE_RESULTS) => None,
        Element::Whole(_) if defined_by(graph, &output.name, &["MaxPool"]) => {
            Some(Element::Other("indices of MaxPool".to_owned()))
        }
        other => Some(other),
    };
    let foreign = graph.inputs.iter().filter(computed).find_map(foreign_input);
    let foreign = foreign.or_else(|| graph.outputs.iter().find_map(foreign_output));
    foreign.map(|element| format!("element type {}", element.name()))
}

/// Inputs that only ever serve as public operands.
pub(super) fn public_inputs(model: &Model) -> Vec<String> {
    let Some(graph) = &model.graph else { return Vec::new() };
    let names = graph.inputs.iter().map(|i| i.name.clone());
    names.filter(|name| is_public(graph, name)).collect()
}

fn foreign_operator(graph: &Graph) -> Option<String> {
    graph.nodes.iter().find_map(|node| {
        if !node.domain.is_empty() && node.domain != "ai.onnx" {
            return Some(format!("{}.{}", node.domain, node.operator));
        }
        if !LISTED.contains(&node.operator.as_str()) {
            return Some(node.operator.clone());
        }
        node.attributes.iter().filter_map(|a| a.graph.as_ref()).find_map(foreign_operator)
    })
}

/// An operator that is asked to train. Dropout's flag is an operand that cases leave to the caller, and set.
fn trains(graph: &Graph) -> Option<&str> {
    let trains = |node: &&Node| match node.operator.as_str() {
        "BatchNormalization" => node.attributes.iter().any(|a| a.name == "training_mode" && a.int != 0),
        "Dropout" => node.inputs.len() > 2,
        _ => false,
    };
    graph.nodes.iter().find(trains).map(|node| node.operator.as_str())
}

enum Element {
    Float,
    Whole(String),
    Other(String),
}

impl Element {
    fn name(&self) -> &str {
        match self {
            Self::Float => "FLOAT",
            Self::Whole(name) | Self::Other(name) => name,
        }
    }
}

fn element(value: &Value) -> Element {
    let Some(tensor) = value.r#type.as_ref().and_then(|t| t.tensor.as_ref()) else {
        return Element::Other("sequence, map or optional".to_owned());
    };
    match tensor.element {
        1 => Element::Float,
        6 => Element::Whole("INT32".to_owned()),
        7 => Element::Whole("INT64".to_owned()),
        9 => Element::Whole("BOOL".to_owned()),
        other => {
            let names =
                [(2, "UINT8"), (3, "INT8"), (4, "UINT16"), (5, "INT16"), (8, "STRING"), (10, "FLOAT16")];
            let more = [(11, "DOUBLE"), (12, "UINT32"), (13, "UINT64"), (16, "BFLOAT16")];
            let name = names.iter().chain(&more).find(|(n, _)| *n == other);
            Element::Other(name.map_or_else(|| format!("number {other}"), |(_, name)| (*name).to_owned()))
        }
    }
}

fn is_public(graph: &Graph, name: &str) -> bool {
    let mut readers = graph.nodes.iter().filter(|n| n.inputs.iter().any(|i| i == name)).peekable();
    readers.peek().is_some()
        && readers.all(|node| {
            let first = PUBLIC_OPERANDS.iter().find(|(operator, _)| *operator == node.operator);
            first.is_some_and(|(_, first)| node.inputs.iter().take(*first).all(|i| i != name))
        })
}

fn chooses(graph: &Graph, name: &str) -> bool {
    graph
        .nodes
        .iter()
        .any(|n| matches!(n.operator.as_str(), "Where" | "If") && n.inputs.first().is_some_and(|i| i == name))
}

fn defined_by(graph: &Graph, name: &str, operators: &[&str]) -> bool {
    let node = graph.nodes.iter().find(|n| n.outputs.iter().any(|o| o == name));
    node.is_some_and(|n| operators.contains(&n.operator.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_sorted() {
        assert!(LISTED.is_sorted() && PUBLIC_OPERANDS.is_sorted());
        assert!(PUBLIC_OPERANDS.iter().all(|(name, _)| LISTED.contains(name)));
    }
}

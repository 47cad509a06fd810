//! Which weights may stay on disk.

use std::collections::HashSet;

use privet_onnx::ModelFile;

/// Operators whose operand 1 arrives in blocks.
const OPERATORS: [&str; 3] = ["Conv", "Gemm", "MatMul"];

/// Names of the initialisers that are nothing but weights of convolutions and products, and that can be read in blocks.
pub(crate) fn streamable(model: &ModelFile) -> HashSet<&str> {
    let shaped = |name: &str, operator: &str| {
        let rank = model.tensors().get(name).map_or(0, |t| t.shape.len());
        if operator == "Conv" { (3..=4).contains(&rank) } else { rank == 2 }
    };
    let mut names: HashSet<&str> =
        model.tensors().iter().filter(|(_, t)| t.is_streamable()).map(|(name, _)| name.as_str()).collect();
    for node in model.nodes() {
        for (i, input) in node.inputs.iter().enumerate() {
            let operator = node.operator.as_str();
            if i != 1 || !OPERATORS.contains(&operator) || !shaped(input, operator) {
                names.remove(input.as_str());
            }
        }
    }
    model.outputs().for_each(|output| {
        names.remove(output);
    });
    let used: HashSet<&str> = model.nodes().iter().flat_map(|n| &n.inputs).map(String::as_str).collect();
    names.retain(|name| used.contains(name));
    names
}

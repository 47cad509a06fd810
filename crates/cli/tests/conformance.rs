//! Cases of the ONNX backend suite by `privet run`: dealer, server and client as processes, all float inputs the client's.
//!
//! All cases run in one process by `cargo xtask conformance`; these show that files, programs and TLS in between change
//! nothing. Reads `../shared/data` next to the checkout or what `cargo xtask fetch-conformance` fetched; skipped loudly where
//! both are absent.

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{output, privet};
use ndarray::ArrayD;
use privet_graph::Tensor;
use serde_json::Value;

/// As `cargo xtask conformance`.
const FRAC_BITS: &str = "20";
const TOLERANCE: f64 = 1e-3;

/// One or more of every kind: linear, windows, comparisons, choices, products of inputs, movements, final functions.
const CASES: [&str; 30] = [
    "abs",
    "add_bcast",
    "argmax_keepdims_example",
    "argmin_default_axis_random_select_last_index",
    "averagepool_2d_pads_count_include_pad",
    "averagepool_3d_dilations_small",
    "concat_3d_axis_1",
    "depthtospace_crd_mode_example",
    "flatten_axis2",
    "gemm_all_attributes",
    "globalaveragepool",
    "greater_bcast",
    "hardswish",
    "leakyrelu",
    "logsoftmax_axis_1",
    "lrn",
    "matmul_3d",
    "max_example",
    "maxpool_2d_ceil",
    "maxpool_3d_dilations",
    "mean_example",
    "min_two_inputs",
    "mul_bcast",
    "prelu_broadcast",
    "relu",
    "sigmoid",
    "sign",
    "softmax_axis_2",
    "spacetodepth",
    "transpose_all_permutations_3",
];

fn data() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let places = ["../shared/data/conformance/onnx_node", "target/conformance/onnx_node"];
    let found = places.map(|p| root.join(p)).into_iter().find(|p| p.is_dir());
    if found.is_none() {
        eprintln!(
            "SKIPPED: neither ../shared/data nor what `cargo xtask fetch-conformance` fetches is there"
        );
    }
    found
}

fn tensor(path: &Path) -> Tensor {
    privet_onnx::parse_tensor(&std::fs::read(path).unwrap()).unwrap()
}

fn run(data: &Path, case: &str) {
    let home = tempfile::tempdir().unwrap();
    let directory = data.join(format!("test_{case}"));
    let model = directory.join("model.onnx");
    let graph = privet_onnx::load(&model).unwrap();
    let set = directory.join("test_data_set_0");
    let inputs: Vec<(String, ArrayD<f32>)> = (graph.inputs.iter().enumerate())
        .map(|(i, input)| match tensor(&set.join(format!("input_{i}.pb"))) {
            Tensor::F32(values) => (input.name.clone(), values),
            other => panic!("{case}: {other:?}"),
        })
        .collect();
    let file = home.path().join("inputs.npz");
    privet::output::write(&file, &inputs).unwrap();
    let mut command = privet(home.path());
    command.arg("run").arg("--model").arg(&model).arg("--input").arg(&file);
    let (code, stdout, stderr) = output(command.args(["--frac-bits", FRAC_BITS, "--json"]));
    assert_eq!(code, Some(0), "{case}: {stderr}");
    let result: Value = serde_json::from_str(&stdout).unwrap();
    for (i, spec) in graph.outputs.iter().enumerate() {
        let expected = match tensor(&set.join(format!("output_{i}.pb"))) {
            Tensor::F32(a) => a.mapv(f64::from),
            Tensor::I64(a) => a.mapv(|v| v as f64),
            Tensor::Bool(a) => a.mapv(|v| f64::from(u8::from(v))),
        };
        let found = &result["outputs"][&spec.name];
        let shape: Vec<usize> = serde_json::from_value(found["shape"].clone()).unwrap();
        assert_eq!(shape, expected.shape(), "{case}");
        let values = found["data"].as_array().unwrap();
        assert_eq!(values.len(), expected.len(), "{case}");
        for (value, &expected) in values.iter().zip(&expected) {
            let value = value.as_f64().unwrap();
            let error = (value - expected).abs() / (1.0 + expected.abs());
            assert!(error <= TOLERANCE, "{case}: {value}, expected {expected}");
        }
    }
}

#[test]
fn thirty_cases_through_real_processes() {
    let Some(data) = data() else { return };
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = CASES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run(&data, case);
                }
            });
        }
    });
    eprintln!("{} conformance cases ran as processes", CASES.len());
}

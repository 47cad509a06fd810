//! The nine architectures of the ONNX backend suite's light set, with seeded weights, in stages that ONNX Runtime runs.
//!
//! Needs Python with numpy, onnx and onnxruntime (the environment that `.ci/run` makes) and the shared test data.

use std::path::{Path, PathBuf};
use std::process::Command;

use privet_onnx::ModelFile;
use privet_split::{Analysis, SplitOptions, split};

const ARCHITECTURES: usize = 9;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("Python starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn onnx_runtime_chains_the_stages_of_nine_architectures() {
    let own = root().join("target/venv/bin/python");
    let python = if own.is_file() { own } else { PathBuf::from("python3") };
    let ready = Command::new(&python).args(["-c", "import numpy, onnx, onnxruntime"]).output();
    let light = root().join("../shared/data/conformance/onnx_light");
    if !ready.is_ok_and(|o| o.status.success()) || !light.is_dir() {
        eprintln!("SKIPPED: no Python with onnxruntime, or no {}", light.display());
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let script = |name: &str| {
        let mut command = Command::new(&python);
        command.arg(root().join("scripts").join(name));
        command
    };
    run(script("architectures.py").arg("--light").arg(&light).arg("--out").arg(home.path()));
    let mut models: Vec<PathBuf> =
        std::fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().path()).collect();
    models.retain(|path| path.extension().is_some_and(|e| e == "onnx"));
    models.sort();
    assert_eq!(models.len(), ARCHITECTURES);
    for model in models {
        let most = Analysis::new(&ModelFile::open(&model).unwrap(), &[]).unwrap().most_parts();
        assert!(most >= 12, "{}: {most}", model.display());
        let mut chain = script("chain_stages.py");
        chain.arg(&model);
        let out = tempfile::tempdir().unwrap();
        for parts in [2, 5, 12, most] {
            let directory = out.path().join(format!("in-{parts}"));
            let options = SplitOptions { parts: Some(parts), ..SplitOptions::default() };
            let index = split(&model, &options, &directory).unwrap();
            assert_eq!(index.stages.len(), parts);
            chain.arg(&directory);
        }
        eprint!("{}", run(&mut chain));
    }
}

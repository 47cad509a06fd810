//! `cargo xtask architectures --reduced`.

use xtask::architectures::{self, Size};
use xtask::engine::Engine;

#[test]
fn nine_architectures_run_at_a_reduced_size() {
    if let Err(error) = architectures::originals(None) {
        eprintln!("SKIPPED: {error}");
        return;
    }
    let python = architectures::python();
    if !architectures::is_ready(&python) {
        eprintln!("SKIPPED: {} has no numpy, onnx or onnxruntime", python.display());
        return;
    }
    let report =
        architectures::run(Size::Reduced, &[Engine::TwoParty, Engine::ThreeParty], None, &python, None)
            .unwrap();
    eprintln!("{}", report.text());
    assert_eq!(report.architectures.len(), 9);
    let refused = report.architectures.iter().filter(|a| a.original.starts_with("refused")).count();
    assert_eq!(refused, 6);
}

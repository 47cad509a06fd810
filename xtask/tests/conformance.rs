//! `cargo xtask conformance` with every private engine, and a number of cases that may only grow.

use xtask::conformance::{self, Mode, Options};
use xtask::engine::Engine;

/// Cases that pass; raise it when operators are added.
const PASSED: usize = 365;
/// Those that pass with all float inputs the client's.
const WITH_INPUTS: usize = 328;
/// Those that pass with all but the first float input as weights.
const WITH_WEIGHTS: usize = 79;

#[test]
fn every_case_in_scope_passes_or_is_a_listed_exception() {
    let Ok(data) = conformance::data(None) else {
        eprintln!("SKIPPED: no cases in ../shared/data; `cargo xtask fetch-conformance` downloads them");
        return;
    };
    for engine in [Engine::TwoParty, Engine::Fss, Engine::ThreeParty] {
        let options = Options { engine, data: data.clone(), filter: String::new() };
        let report = conformance::run(&options).unwrap();
        eprintln!("{}", report.text(false));
        assert!(report.holds(), "unexpected: {:?}, pass now: {:?}", report.unexpected, report.obsolete);
        for (found, least) in [
            (report.passed(), PASSED),
            (report.passed_as(Mode::Inputs), WITH_INPUTS),
            (report.passed_as(Mode::Weights), WITH_WEIGHTS),
        ] {
            assert!(found >= least, "{}: only {found} cases pass, expected at least {least}", engine.name());
        }
    }
}

/// Verdicts are about the engines: a case whose expected output is wrong fails.
#[test]
fn a_wrong_expectation_fails() {
    let Ok(data) = conformance::data(None) else {
        eprintln!("SKIPPED: no cases");
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("onnx_node/test_relu");
    let from = data.join("onnx_node/test_relu");
    std::fs::create_dir_all(to.join("test_data_set_0")).unwrap();
    for file in ["model.onnx", "test_data_set_0/input_0.pb"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    // What goes in is expected to come out.
    std::fs::copy(from.join("test_data_set_0/input_0.pb"), to.join("test_data_set_0/output_0.pb")).unwrap();
    let options = Options { engine: Engine::Cleartext, data: home.path().to_owned(), filter: String::new() };
    let report = conformance::run(&options).unwrap();
    assert!(!report.holds() && report.passed() == 0);
    assert_eq!(report.unexpected, ["onnx_node/test_relu"]);
    assert!(report.text(false).contains("FAILED"), "{}", report.text(false));
}

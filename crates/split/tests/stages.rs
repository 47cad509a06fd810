//! Models cut into stages give what they give as a whole.

mod common;

use std::collections::HashSet;
use std::path::Path;

use ndarray::ArrayD;
use privet_graph::{nn, ops};
use privet_onnx::ModelFile;
use privet_split::{Analysis, Index, SplitError, SplitOptions, Stage, Tensors, run_stages, split, to_floats};

use common::{Named, difference, inputs, network, reference, written};

/// Largest difference to the graph's own evaluation, relative to the largest output.
const TOLERANCE: f32 = 1e-5;
/// Real models of the shared test data that have to hold.
const FEWEST_MODELS: usize = 11;

/// Cuts into `parts` and runs the stages.
fn cut(model: &Path, options: &SplitOptions, inputs: &Named) -> (Index, Vec<ArrayD<f32>>) {
    let home = tempfile::tempdir().unwrap();
    let index = split(model, options, home.path()).unwrap();
    assert_eq!(Index::load(home.path()).unwrap(), index);
    index.check(home.path()).unwrap();
    let files = std::fs::read_dir(home.path()).unwrap().count();
    assert_eq!(files, index.stages.len() + 1);
    let (outputs, taken) = run_stages(home.path(), &index, inputs.clone()).unwrap();
    assert_eq!(taken.len(), index.stages.len());
    (index, outputs.iter().map(|(_, t)| to_floats(t)).collect())
}

/// Cuts at 2, 5, 12 and as many places as there are: all give the same bits, close to the graph's own evaluation.
fn holds(model: &Path) -> usize {
    let input_shapes = common::shapes(model);
    let most = Analysis::new(&ModelFile::open(model).unwrap(), &input_shapes).unwrap().most_parts();
    let in_parts = |parts| SplitOptions {
        parts: Some(parts),
        input_shapes: input_shapes.clone(),
        ..SplitOptions::default()
    };
    let inputs = inputs(model);
    let whole = cut(model, &in_parts(1), &inputs).1;
    let off = difference(&whole, &reference(model, &inputs));
    eprintln!("{}: off by {off:.1e}", model.display());
    assert!(off <= TOLERANCE, "{}: off by {off}", model.display());
    for parts in [2, 5, 12, most].into_iter().filter(|&parts| parts <= most) {
        let (index, found) = cut(model, &in_parts(parts), &inputs);
        assert_eq!(index.stages.len(), parts);
        assert_eq!(found, whole, "{} in {parts} parts", model.display());
    }
    let home = tempfile::tempdir().unwrap();
    let error = split(model, &in_parts(most + 1), home.path()).unwrap_err();
    assert!(matches!(error, SplitError::Parts { most: m, .. } if m == most), "{error}");
    most
}

#[test]
fn residuals_branches_groups_and_matrices_cross() {
    let home = tempfile::tempdir().unwrap();
    let model = written(home.path(), &network(), &[2, 3, 20, 18]);
    assert!(holds(&model) > 12);
}

#[test]
fn a_matrix_larger_than_the_memory_arrives_in_blocks() {
    let home = tempfile::tempdir().unwrap();
    let model = written(home.path(), &network(), &[2, 3, 20, 18]);
    let inputs = inputs(&model);
    let whole = reference(&model, &inputs);
    let memory = Some(200 << 10);
    let (index, found) = cut(&model, &SplitOptions { memory, ..SplitOptions::default() }, &inputs);
    assert!(index.stages.iter().any(|s| !s.blocks.is_empty()), "{index:?}");
    assert!(index.stages.iter().all(|s| s.peak <= 200 << 10));
    let off = difference(&found, &whole);
    assert!(off <= TOLERANCE, "off by {off}");

    let empty = tempfile::tempdir().unwrap();
    let options = SplitOptions { memory: Some(1 << 10), ..SplitOptions::default() };
    let error = split(&model, &options, empty.path()).unwrap_err();
    let SplitError::Memory { least, .. } = error else { panic!("{error}") };
    cut(&model, &SplitOptions { memory: Some(least), ..SplitOptions::default() }, &inputs);
    let options = SplitOptions { memory: Some(least - 1), ..SplitOptions::default() };
    assert!(matches!(split(&model, &options, empty.path()), Err(SplitError::Memory { .. })));
}

#[test]
fn resnet_50_is_close_to_its_own_evaluation() {
    let home = tempfile::tempdir().unwrap();
    let model = written(home.path(), &nn::zoo::resnet50(1000), &[1, 3, 224, 224]);
    let inputs = inputs(&model);
    let options = SplitOptions { memory: Some(64 << 20), ..SplitOptions::default() };
    let off = difference(&cut(&model, &options, &inputs).1, &reference(&model, &inputs));
    assert!(off <= TOLERANCE, "off by {off}");
}

#[test]
fn an_input_that_is_an_output_passes_by() {
    let mut graph = privet_graph::Graph::new("both");
    let dims = vec![privet_graph::Dim::Fixed(1), privet_graph::Dim::Fixed(4)];
    let x = graph.input("x", dims);
    let y = graph.node("first", ops::Relu, &[x]);
    let z = graph.node("second", ops::Add, &[y, x]);
    graph.output("x", x);
    graph.output("z", z);
    graph.output("y", y);
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("both.onnx");
    std::fs::write(&path, privet_onnx::export(&graph).unwrap()).unwrap();
    let inputs = vec![("x".to_owned(), nn::random_input(1, 0, &[1, 4]))];
    let (index, found) = cut(&path, &SplitOptions { parts: Some(2), ..SplitOptions::default() }, &inputs);
    assert_eq!(index.outputs.len(), 3);
    let (x, relu) = (&inputs[0].1, inputs[0].1.mapv(|v| v.max(0.0)));
    assert_eq!(found, [x.clone(), x + &relu, relu]);
}

#[test]
fn files_that_are_not_what_the_index_says_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let model = written(home.path(), &network(), &[1, 3, 20, 18]);
    let out = home.path().join("out");
    let options = SplitOptions { parts: Some(3), ..SplitOptions::default() };
    let index = split(&model, &options, &out).unwrap();
    let again = split(&model, &options, &out).unwrap_err().to_string();
    assert!(again.contains("an empty directory"), "{again}");

    let error = run_stages(&out, &index, Vec::new()).unwrap_err().to_string();
    assert!(error.contains("expected float32 of shape [1, 3, 20, 18], found nothing"), "{error}");
    let wrong = vec![(index.inputs[0].name.clone(), nn::random_input(1, 0, &[1, 3, 20, 19]))];
    assert!(run_stages(&out, &index, wrong).is_err());

    let stage = out.join("stage-02.onnx");
    let mut bytes = std::fs::read(&stage).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&stage, &bytes).unwrap();
    let error = index.check(&out).unwrap_err().to_string();
    assert!(error.contains("stage-02.onnx") && error.contains(&index.stages[1].digest), "{error}");

    let text = std::fs::read_to_string(out.join("stages.json")).unwrap();
    for (from, to, expected) in [
        ("\"version\": 1", "\"version\": 9", "expected version 1, found 9"),
        ("\"stage-01.onnx\"", "\"../stage-01.onnx\"", "names of files in the directory"),
    ] {
        std::fs::write(out.join("stages.json"), text.replace(from, to)).unwrap();
        let error = Index::load(&out).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn cut_off_and_damaged_models_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let model = written(home.path(), &network(), &[1, 3, 20, 18]);
    let bytes = std::fs::read(&model).unwrap();
    let path = home.path().join("damaged.onnx");
    for at in (0..bytes.len()).step_by(bytes.len() / 60) {
        std::fs::write(&path, &bytes[..at]).unwrap();
        let refused = ModelFile::open(&path).map_err(SplitError::from).and_then(|f| Analysis::new(&f, &[]));
        assert!(refused.is_err(), "cut off at {at}");
    }
    // Whatever happens, it is no panic.
    for at in 0..bytes.len().min(600) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        std::fs::write(&path, &damaged).unwrap();
        let _ = ModelFile::open(&path).map_err(SplitError::from).and_then(|f| Analysis::new(&f, &[]));
    }
}

#[test]
fn weights_come_from_any_source() {
    struct Counting(ModelFile, usize);
    impl privet_split::WeightSource for Counting {
        fn rows(
            &mut self,
            name: &str,
            rows: std::ops::Range<usize>,
            into: &mut [f32],
        ) -> Result<(), SplitError> {
            self.1 += into.len();
            self.0.rows(name, rows, into)
        }
    }
    let home = tempfile::tempdir().unwrap();
    let model = written(home.path(), &network(), &[1, 3, 20, 18]);
    let inputs = inputs(&model);
    let file = ModelFile::open(&model).unwrap();
    let name = file.tensors().iter().max_by_key(|(_, t)| t.len()).unwrap().0.clone();
    let imported = file.graph(&HashSet::from([name.as_str()])).unwrap();
    let weights = HashSet::from([name.clone()]);
    let blocks = [(name.clone(), 7)].into();
    let source = Counting(ModelFile::open(&model).unwrap(), 0);
    let mut stage = Stage::new(&imported.graph, &weights, source, &blocks).unwrap();
    let mut tensors: Tensors = inputs.iter().map(|(n, x)| (n.clone(), x.clone().into())).collect();
    stage.run(&mut tensors, &HashSet::new()).unwrap();
    let found = to_floats(tensors.values().next().unwrap());
    assert!(difference(&[found], &reference(&model, &inputs)) <= TOLERANCE);
    assert_eq!(stage.source().1, file.tensors()[&name].len());
}

#[test]
fn real_models_give_the_same_in_stages() {
    let Some(found) = common::real_models() else { return };
    let mut held = 0;
    for model in found {
        let most = holds(&model);
        held += 1;
        eprintln!("{}: up to {most} stages", model.display());
    }
    assert!(held >= FEWEST_MODELS, "{held} models, expected {FEWEST_MODELS}");
}

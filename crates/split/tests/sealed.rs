//! Sealed models give what the file that was sealed gives, bit for bit.

mod common;

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use privet_graph::Tensor;
use privet_onnx::ModelFile;
use privet_seal::{Accepted, ModelVersion, OpenedModel, ReadAt, SealOptions, SealedModel, Swap, seal_onnx};
use privet_split::{Blocks, Stage, Tensors};

use common::{Named, inputs, keys, network, written};

/// Larger models take too long for every run of the tests.
const LARGEST: u64 = 64 << 20;

/// Seals a model with small chunks.
fn sealed(home: &Path, model: &Path) -> PathBuf {
    let out = home.join("model.sealed");
    seal_onnx(model, &out, &keys(), &SealOptions { chunk_bits: 16, ..SealOptions::default() }).unwrap();
    out
}

fn opened<S: ReadAt>(source: S) -> OpenedModel<S> {
    let keys = keys();
    let accepted = Accepted::new(&keys.release, ModelVersion::FIRST);
    SealedModel::verify(source, "model", &accepted).unwrap().open(&keys.content).unwrap()
}

fn tensors(inputs: &Named) -> Tensors {
    inputs.iter().map(|(name, values)| (name.clone(), values.clone().into())).collect()
}

/// All weights that can be, so many rows at a time.
fn blocks(model: &Path, rows: usize) -> Blocks {
    let file = ModelFile::open(model).unwrap();
    file.tensors().iter().filter(|(_, t)| t.is_streamable()).map(|(name, _)| (name.clone(), rows)).collect()
}

fn bits(tensors: &Tensors) -> Vec<(String, Vec<u32>)> {
    let mut all: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| {
            let Tensor::F32(values) = tensor else { panic!("{name}: expected floats") };
            (name.clone(), values.iter().map(|v| v.to_bits()).collect())
        })
        .collect();
    all.sort();
    all
}

/// Runs the file and what is sealed of it, twice each.
fn same(model: &Path, blocks: &Blocks) {
    let home = tempfile::tempdir().unwrap();
    let inputs = inputs(model);
    let mut expected = tensors(&inputs);
    Stage::open(model, blocks).unwrap().run(&mut expected, &HashSet::new()).unwrap();
    let sealed = sealed(home.path(), model);
    let mut stage = Stage::open_sealed(opened(File::open(sealed).unwrap()), blocks, Swap::Allowed).unwrap();
    for _ in 0..2 {
        let mut found = tensors(&inputs);
        stage.run(&mut found, &HashSet::new()).unwrap();
        assert!(bits(&found) == bits(&expected), "{}", model.display());
    }
}

#[test]
fn a_sealed_model_gives_the_same_bits_held_and_in_blocks() {
    let home = tempfile::tempdir().unwrap();
    let model = written(home.path(), &network(), &[2, 3, 20, 18]);
    same(&model, &Blocks::new());
    for rows in [1, 7, 1000] {
        same(&model, &blocks(&model, rows));
    }
}

#[test]
fn real_models_give_the_same_bits() {
    let Some(models) = common::real_models() else { return };
    let mut held = 0;
    for model in models {
        let is_small = std::fs::metadata(&model).unwrap().len() <= LARGEST;
        if !is_small || Stage::open(&model, &Blocks::new()).is_err() {
            eprintln!("LEFT OUT: {}", model.display());
            continue;
        }
        same(&model, &Blocks::new());
        same(&model, &blocks(&model, 50));
        held += 1;
    }
    assert!(held >= 8, "{held} models, expected 8");
}

/// Counts what is read of a sealed model.
#[derive(Clone)]
struct Counting(Arc<Vec<u8>>, Arc<AtomicU64>);

impl ReadAt for Counting {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.1.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        (&self.0[..]).read_exact_at(bytes, offset)
    }
}

#[test]
fn no_chunk_is_opened_twice() {
    let home = tempfile::tempdir().unwrap();
    let model = written(home.path(), &network(), &[2, 3, 20, 18]);
    let bytes = std::fs::read(sealed(home.path(), &model)).unwrap();
    for rows in [1, 3, 64, 1000] {
        let source = Counting(Arc::new(bytes.clone()), Arc::default());
        let all = blocks(&model, rows);
        assert!(!all.is_empty());
        let opened = opened(source.clone());
        let tags = |e: &privet_seal::Entry| e.length + 16 * e.length.div_ceil(1 << 16);
        let weights: u64 = opened.entries().iter().filter(|e| all.contains_key(&e.name)).map(tags).sum();
        let mut stage = Stage::open_sealed(opened, &all, Swap::Locked).unwrap();
        for _ in 0..2 {
            source.1.store(0, Ordering::Relaxed);
            stage.run(&mut tensors(&inputs(&model)), &HashSet::new()).unwrap();
            assert_eq!(source.1.load(Ordering::Relaxed), weights, "{rows} rows at a time");
        }
    }
}

#[test]
fn a_chunk_that_was_exchanged_is_noticed_wherever_it_is() {
    let home = tempfile::tempdir().unwrap();
    let model = written(home.path(), &network(), &[1, 3, 20, 18]);
    let bytes = std::fs::read(sealed(home.path(), &model)).unwrap();
    let front = bytes.len() - opened(&bytes[..]).header().plain_bytes() as usize;
    let inputs = inputs(&model);
    for blocks in [Blocks::new(), blocks(&model, 3)] {
        for at in (front..bytes.len()).step_by(bytes.len() / 40) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let source = Counting(Arc::new(damaged), Arc::default());
            let stage = Stage::open_sealed(opened(source), &blocks, Swap::Allowed);
            let ran = stage.and_then(|mut s| s.run(&mut tensors(&inputs), &HashSet::new()));
            let error = ran.expect_err("a damaged chunk").to_string();
            assert!(error.contains("not what the owner sealed"), "{error}");
        }
    }
}

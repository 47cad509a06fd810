//! Sealed stages and their signed index: the same outputs, and everything that is refused.

mod common;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::ArrayD;
use privet_onnx::ModelFile;
use privet_seal::{Accepted, ContentKey, ModelVersion, OwnerKeys, SealError, Swap};
use privet_split::{
    Analysis, Blocks, SEALED_INDEX_FILE, SealedIndex, SealedStages, SplitError, SplitOptions, Stage, Taken,
    run_sealed_stages, run_stages, split, split_sealed, to_floats,
};

use common::{Named, inputs, keys, network, written};

/// Larger models take too long for every run of the tests.
const LARGEST: u64 = 16 << 20;

fn version(number: u64) -> ModelVersion {
    ModelVersion::new(number).unwrap()
}

fn accepted(keys: &OwnerKeys) -> Accepted {
    Accepted::new(&keys.release, ModelVersion::FIRST)
}

fn in_parts(parts: usize) -> SplitOptions {
    SplitOptions { parts: Some(parts), ..SplitOptions::default() }
}

/// Reads the index and runs the stages.
fn run(directory: &Path, inputs: &Named) -> Result<(Vec<ArrayD<f32>>, Vec<Taken>), SplitError> {
    let keys = keys();
    let accepted = accepted(&keys);
    let index = SealedIndex::load(directory, &accepted)?;
    let stages = SealedStages {
        directory,
        index: &index,
        accepted: &accepted,
        key: &keys.content,
        swap: Swap::Allowed,
        stop: None,
    };
    let (outputs, taken) = run_sealed_stages(&stages, inputs.clone())?;
    Ok((outputs.iter().map(|(_, t)| to_floats(t)).collect(), taken))
}

/// The stages in the clear and the sealed ones of a model give the same bits.
fn same(model: &Path, options: &SplitOptions) -> (SealedIndex, Vec<Taken>) {
    let home = tempfile::tempdir().unwrap();
    let inputs = inputs(model);
    let (clear, sealed) = (home.path().join("clear"), home.path().join("sealed"));
    let plain = split(model, options, &clear).unwrap();
    let expected = run_stages(&clear, &plain, inputs.clone()).unwrap().0;
    let expected: Vec<ArrayD<f32>> = expected.iter().map(|(_, t)| to_floats(t)).collect();
    let index = split_sealed(model, options, &keys(), version(3), &sealed).unwrap();
    assert_eq!(SealedIndex::load(&sealed, &accepted(&keys())).unwrap(), index);
    let (found, taken) = run(&sealed, &inputs).unwrap();
    // Blocks are smaller where there is less room, and then sums are in another order.
    let blocks = |stages: &[privet_split::StageEntry]| stages.iter().any(|s| !s.blocks.is_empty());
    if blocks(&plain.stages) || blocks(&index.stages) {
        assert!(common::difference(&found, &expected) <= 1e-5, "{}", model.display());
    } else {
        assert!(found == expected, "{}", model.display());
    }
    (index, taken)
}

#[test]
fn sealed_stages_give_what_stages_give() {
    let home = tempfile::tempdir().unwrap();
    let model = written(home.path(), &network(), &[2, 3, 20, 18]);
    let most = Analysis::new(&ModelFile::open(&model).unwrap(), &[]).unwrap().most_parts();
    for parts in [1, 2, 5, most] {
        let (index, taken) = same(&model, &in_parts(parts));
        assert_eq!((index.stages.len(), taken.len()), (parts, parts));
        assert!(parts == 1 || taken.iter().any(|t| t.ahead > 0), "{taken:?}");
        let room = index.stages.iter().map(|s| s.peak).max().unwrap();
        assert!(index.stages.iter().zip(&taken).all(|(s, t)| s.peak + t.ahead <= room), "{taken:?}");
    }
    // The largest matrix does not fit; what reading ahead takes is counted.
    let memory = Some(2 << 20);
    let (index, _) = same(&model, &SplitOptions { memory, ..SplitOptions::default() });
    assert!(index.stages.iter().all(|s| s.peak <= 2 << 20));
}

#[test]
fn real_models_give_the_same_in_sealed_stages() {
    let Some(models) = common::real_models() else { return };
    let mut held = 0;
    for model in models {
        let is_small = fs::metadata(&model).unwrap().len() <= LARGEST;
        if !is_small {
            continue;
        }
        let analysis = Analysis::new(&ModelFile::open(&model).unwrap(), &[]).unwrap();
        same(&model, &in_parts(analysis.most_parts().min(5)));
        held += 1;
    }
    assert!(held >= 5, "{held} models, expected 5");
}

#[test]
fn every_byte_of_an_index_counts() {
    let home = tempfile::tempdir().unwrap();
    let model = written(home.path(), &network(), &[1, 3, 20, 18]);
    let out = home.path().join("out");
    let index = split_sealed(&model, &in_parts(2), &keys(), version(3), &out).unwrap();
    let bytes = fs::read(out.join(SEALED_INDEX_FILE)).unwrap();
    let accepted = accepted(&keys());
    assert_eq!(SealedIndex::from_bytes(&bytes, &accepted).unwrap(), index);
    for at in 0..bytes.len() {
        for mask in [0x01, 0x80] {
            let mut changed = bytes.clone();
            changed[at] ^= mask;
            let error = SealedIndex::from_bytes(&changed, &accepted).expect_err("a changed byte");
            assert!(matches!(error, SplitError::Index { .. }), "{error}");
        }
    }
    for len in 0..bytes.len() {
        SealedIndex::from_bytes(&bytes[..len], &accepted).expect_err("cut off");
    }
    SealedIndex::from_bytes(&[&bytes[..], b" "].concat(), &accepted).expect_err("something appended");
}

#[test]
fn other_owners_models_keys_and_old_versions_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let model = written(home.path(), &network(), &[1, 3, 20, 18]);
    let out = home.path().join("out");
    split_sealed(&model, &in_parts(2), &keys(), version(3), &out).unwrap();
    let refused = |change: &dyn Fn(&mut Accepted), expected: &str| {
        let mut accepted = accepted(&keys());
        change(&mut accepted);
        let error = SealedIndex::load(&out, &accepted).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let other = OwnerKeys::generate("test".parse().unwrap(), keys().release.model_id).unwrap();
    refused(&|a| a.verifying_key = other.release.verifying_key, "the signature of the owner");
    refused(&|a| a.model_id = privet_seal::ModelId::from_bytes([9; 16]), "expected model 09090909");
    refused(&|a| a.key_id = "other".parse().unwrap(), "expected key other");
    refused(&|a| a.min_version = version(4), "at least version 4");
    let nowhere =
        SealedIndex::load(&home.path().join("nothere"), &accepted(&keys())).unwrap_err().to_string();
    assert!(nowhere.contains("found no such directory"), "{nowhere}");
    let empty = SealedIndex::load(home.path(), &accepted(&keys())).unwrap_err().to_string();
    assert!(empty.contains("no stages.signed in it"), "{empty}");

    let index = SealedIndex::load(&out, &accepted(&keys())).unwrap();
    let key = ContentKey::from_slice(&[9; 32]).unwrap();
    let opened = index.open_stage(&out, 0, &accepted(&keys()), &key).map(|_| ()).unwrap_err();
    assert!(opened.to_string().contains("another key"), "{opened}");
}

/// Every file of one directory in the place of every file of another.
#[test]
fn stages_in_another_place_of_another_version_or_of_another_cut_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let model = written(home.path(), &network(), &[1, 3, 20, 18]);
    let inputs = inputs(&model);
    let make = |name: &str, parts: usize, number: u64| {
        let out = home.path().join(name);
        split_sealed(&model, &in_parts(parts), &keys(), version(number), &out).unwrap();
        out
    };
    // The same again, another version, another way to cut.
    let (own, again, newer, finer) =
        (make("own", 3, 1), make("again", 3, 1), make("newer", 3, 2), make("finer", 4, 1));
    run(&own, &inputs).unwrap();
    let names = |out: &Path| {
        let mut names: Vec<_> = fs::read_dir(out).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        names
    };
    let mut refused = 0;
    for from in [&own, &again, &newer, &finer] {
        for given in names(from) {
            for place in names(&own) {
                if given == place {
                    continue;
                }
                let kept = fs::read(&place).unwrap();
                fs::copy(&given, &place).unwrap();
                run(&own, &inputs).expect_err(&format!("{} as {}", given.display(), place.display()));
                fs::write(&place, kept).unwrap();
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 4 * 3 + 4 * 4 * 2 + 4 * 5);
    // A stage that is missing, cut off, longer, or changed anywhere that counts.
    let stage = own.join("stage-02.sealed");
    let bytes = fs::read(&stage).unwrap();
    fs::remove_file(&stage).unwrap();
    assert!(run(&own, &inputs).unwrap_err().to_string().contains("stage-02.sealed"));
    for changed in [bytes[..bytes.len() - 1].to_vec(), [&bytes[..], &[0]].concat()] {
        fs::write(&stage, changed).unwrap();
        run(&own, &inputs).expect_err("another length");
    }
    for at in (0..bytes.len()).step_by(bytes.len() / 60) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&stage, changed).unwrap();
        run(&own, &inputs).expect_err("a changed byte");
    }
    fs::write(&stage, &bytes).unwrap();
    run(&own, &inputs).unwrap();
}

#[test]
fn no_weight_and_no_node_is_in_the_files() {
    let home = tempfile::tempdir().unwrap();
    let model = written(home.path(), &network(), &[1, 3, 20, 18]);
    let file = ModelFile::open(&model).unwrap();
    let out = home.path().join("out");
    split_sealed(&model, &in_parts(3), &keys(), version(1), &out).unwrap();
    let written: Vec<Vec<u8>> =
        fs::read_dir(&out).unwrap().map(|e| fs::read(e.unwrap().path()).unwrap()).collect();
    assert_eq!(written.len(), 4);
    let holds = |needle: &[u8]| {
        written.iter().any(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
    };
    assert!(holds(b"PRIVSEAL"), "the search finds what is there");
    for (name, tensor) in file.tensors().iter().filter(|(_, t)| t.is_streamable()) {
        let mut values = vec![0.0; 16.min(tensor.len())];
        file.read(name, 0, &mut values).unwrap();
        let needle: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert!(!holds(&needle), "{name}");
    }
    for operator in ["Conv", "BatchNormalization", "LeakyRelu"] {
        assert!(!holds(operator.as_bytes()), "{operator}");
    }
}

#[test]
fn what_is_interrupted_or_fails_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let model = written(home.path(), &network(), &[1, 3, 20, 18]);
    let out = home.path().join("out");
    let options = in_parts(3);
    let stopped = SplitOptions { stop: Arc::new(AtomicBool::new(true)), ..options.clone() };
    for made_before in [false, true] {
        if made_before {
            fs::create_dir(&out).unwrap();
        }
        let plain = split(&model, &stopped, &out).unwrap_err();
        let sealed = split_sealed(&model, &stopped, &keys(), version(1), &out).unwrap_err();
        for error in [plain, sealed] {
            assert!(matches!(error, SplitError::Interrupted), "{error}");
        }
        assert_eq!(out.exists(), made_before);
        assert!(!made_before || fs::read_dir(&out).unwrap().next().is_none());
    }
    split(&model, &options, &out).unwrap();
}

#[test]
fn runs_end_when_they_are_told_to() {
    let home = tempfile::tempdir().unwrap();
    let model = written(home.path(), &network(), &[1, 3, 20, 18]);
    let directory = home.path().join("out");
    let (keys, stop) = (keys(), Arc::new(AtomicBool::new(false)));
    let accepted = accepted(&keys);
    let index = split_sealed(&model, &in_parts(2), &keys, version(1), &directory).unwrap();
    let open = || index.open_stage(&directory, 0, &accepted, &keys.content).unwrap();
    let mut resident = Stage::open_sealed(open(), &Blocks::new(), Swap::Allowed).unwrap();
    resident.stop_with(stop.clone());
    let sealed = SealedStages {
        directory: &directory,
        index: &index,
        accepted: &accepted,
        key: &keys.content,
        swap: Swap::Allowed,
        stop: Some(&stop),
    };
    let inputs = inputs(&model);
    let mut run = || {
        let mut tensors = inputs.iter().map(|(name, x)| (name.clone(), x.clone().into())).collect();
        let opened = Stage::open_sealed(open().stop_with(stop.clone()), &Blocks::new(), Swap::Allowed);
        [
            opened.map(drop),
            resident.run(&mut tensors, &HashSet::new()),
            run_sealed_stages(&sealed, inputs.clone()).map(drop),
        ]
    };
    assert!(run().iter().all(Result::is_ok));
    stop.store(true, Ordering::SeqCst);
    for outcome in run() {
        let error = outcome.unwrap_err();
        let is_told = match &error {
            SplitError::Seal(error) => matches!(**error, SealError::Interrupted),
            error => matches!(error, SplitError::Interrupted),
        };
        assert!(is_told, "{error}");
    }
}

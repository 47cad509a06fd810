//! Every byte, every length, and chunks in the wrong place.

use std::fs;
use std::ops::Range;
use std::sync::LazyLock;

use privet_seal::{Accepted, SealDigest, SealError, SealOptions, SealedModel, seal_onnx};
use proptest::prelude::*;

use crate::onnx::{of_sizes, small};
use crate::{keys, open_all, options, other_keys, version};

/// Bytes of a sealed model of the tests.
pub(crate) fn sealed(model: &[u8], keys: &privet_seal::OwnerKeys, options: &SealOptions) -> Vec<u8> {
    let home = tempfile::tempdir().unwrap();
    let (file, out) = (home.path().join("m.onnx"), home.path().join("m.sealed"));
    fs::write(&file, model).unwrap();
    seal_onnx(&file, &out, keys, options).unwrap();
    fs::read(out).unwrap()
}

pub(crate) fn accepted(least: u64) -> Accepted {
    Accepted::new(&keys().release, version(least))
}

/// Where every chunk is, read from the header by hand: entries of the model whose tensors have these sizes.
pub(crate) fn chunks(sealed: &[u8]) -> Vec<Range<usize>> {
    let model = SealedModel::verify(sealed, "m", &accepted(1)).unwrap();
    let (header, mut chunks) = (model.header(), Vec::new());
    let sealed_bytes: u64 =
        header.entries.iter().map(|e| e.length + 16 * e.length.div_ceil(header.chunk_bytes())).sum();
    let begin = sealed.len() - sealed_bytes as usize;
    for entry in &header.entries {
        let (mut at, mut left) = (begin + entry.offset as usize, entry.length as usize);
        while left > 0 {
            let len = left.min(header.chunk_bytes() as usize);
            chunks.push(at..at + len + 16);
            (at, left) = (at + len + 16, left - len);
        }
    }
    chunks
}

#[test]
fn every_byte_of_a_small_model_counts() {
    let good = sealed(&small(), &keys(), &options(1));
    assert!(open_all(&good, &keys(), &accepted(1)).is_ok());
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            assert!(open_all(&changed, &keys(), &accepted(1)).is_err(), "bit {bit} of byte {at}");
        }
        for value in [0, 0xff] {
            let mut changed = good.clone();
            changed[at] = value;
            assert!(changed == good || open_all(&changed, &keys(), &accepted(1)).is_err(), "byte {at}");
        }
    }
}

#[test]
fn every_length_but_its_own_is_refused() {
    let good = sealed(&small(), &keys(), &options(1));
    for len in 0..good.len() {
        assert!(SealedModel::verify(&good[..len], "m", &accepted(1)).is_err(), "the first {len} bytes");
        let behind = &good[good.len() - len..];
        assert!(SealedModel::verify(behind, "m", &accepted(1)).is_err(), "the last {len} bytes");
        let mut without = good.clone();
        without.remove(len);
        assert!(open_all(&without, &keys(), &accepted(1)).is_err(), "without byte {len}");
        let mut doubled = good.clone();
        doubled.insert(len, good[len]);
        assert!(open_all(&doubled, &keys(), &accepted(1)).is_err(), "byte {len} twice");
    }
    for extra in [1, 16, 100] {
        let longer = [&good[..], &vec![0; extra]].concat();
        let error = SealedModel::verify(&longer[..], "m", &accepted(1)).unwrap_err().to_string();
        assert!(error.contains("appended"), "{error}");
    }
}

#[test]
fn other_keys_signers_models_and_old_versions_are_refused() {
    let good = sealed(&small(), &keys(), &options(5));
    let verify = |accepted: &Accepted| SealedModel::verify(&good[..], "m.sealed", accepted);
    let model = verify(&accepted(5)).unwrap();
    let digest = model.digest();
    let error = model.open(&other_keys(2).content).err().unwrap();
    assert!(matches!(error, SealError::WrongKey { .. }), "{error}");
    let signer = Accepted { verifying_key: other_keys(2).release.verifying_key, ..accepted(5) };
    let error = verify(&signer).unwrap_err().to_string();
    assert!(error.contains("not signed by the owner"), "{error}");
    assert!(matches!(verify(&accepted(6)), Err(SealError::RolledBack { minimum: 6, found: 5 })));
    let other_model = Accepted { model_id: privet_seal::ModelId::from_bytes([9; 16]), ..accepted(5) };
    assert!(matches!(verify(&other_model), Err(SealError::OtherModel { .. })));
    let other_id = Accepted { key_id: "other".parse().unwrap(), ..accepted(5) };
    assert!(matches!(verify(&other_id), Err(SealError::OtherKey { .. })));
    let rotated = Accepted { key_version: privet_seal::KeyVersion::new(2).unwrap(), ..accepted(5) };
    let error = verify(&rotated).unwrap_err().to_string();
    assert!(error.contains("expected key resnet version 2, found key resnet version 1"), "{error}");
    assert!(verify(&Accepted { digest: Some(digest), ..accepted(5) }).is_ok());
    let other: SealDigest = "00".repeat(32).parse().unwrap();
    assert!(verify(&Accepted { digest: Some(other), ..accepted(5) }).is_err());
    // Sealed again, it is another file.
    let again = sealed(&small(), &keys(), &options(5));
    assert_ne!(SealedModel::verify(&again[..], "m", &accepted(5)).unwrap().digest(), digest);
}

/// The same model twice, and a newer version of it, with tensors of one shape.
static LARGE: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let sizes = [200_000, 200_000, 65_536, 70_000, 1 << 20, 3];
    [1, 1, 2].map(|number| sealed(&of_sizes(&sizes), &keys(), &options(number)))
});

#[derive(Debug, Clone)]
enum Change {
    Flip { at: usize, bit: u8 },
    Overwrite { at: usize, with: Vec<u8> },
    Cut { at: usize, len: usize },
    Truncate { len: usize },
    Append { bytes: Vec<u8> },
    SwapChunks { one: usize, other: usize },
    ReplayChunk { from: usize, to: usize },
    ChunkOfFile { file: usize, from: usize, to: usize },
    FrontOfFile { file: usize },
}

fn change() -> impl Strategy<Value = Change> {
    let any = || any::<usize>();
    prop_oneof![
        (any(), 0..8u8).prop_map(|(at, bit)| Change::Flip { at, bit }),
        (any(), prop::collection::vec(prop::num::u8::ANY, 1..200))
            .prop_map(|(at, with)| Change::Overwrite { at, with }),
        (any(), 1..100_000usize).prop_map(|(at, len)| Change::Cut { at, len }),
        any().prop_map(|len| Change::Truncate { len }),
        prop::collection::vec(prop::num::u8::ANY, 1..100).prop_map(|bytes| Change::Append { bytes }),
        (any(), any()).prop_map(|(one, other)| Change::SwapChunks { one, other }),
        (any(), any()).prop_map(|(from, to)| Change::ReplayChunk { from, to }),
        (1..3usize, any(), any()).prop_map(|(file, from, to)| Change::ChunkOfFile { file, from, to }),
        (1..3usize).prop_map(|file| Change::FrontOfFile { file }),
    ]
}

/// The changed file.
fn apply(change: &Change) -> Vec<u8> {
    let own = &LARGE[0];
    let places = chunks(own);
    let mut bytes = own.clone();
    let put = |bytes: &mut Vec<u8>, to: usize, chunk: &[u8]| {
        drop(bytes.splice(places[to].clone(), chunk.iter().copied()))
    };
    match change {
        Change::Flip { at, bit } => bytes[at % own.len()] ^= 1 << bit,
        Change::Overwrite { at, with } => {
            let at = at % own.len();
            let len = with.len().min(own.len() - at);
            bytes[at..at + len].copy_from_slice(&with[..len]);
        }
        Change::Cut { at, len } => {
            let at = at % own.len();
            bytes.drain(at..(at + len).min(own.len()));
        }
        Change::Truncate { len } => bytes.truncate(len % own.len()),
        Change::Append { bytes: more } => bytes.extend(more),
        Change::SwapChunks { one, other } => {
            let (one, other) = (one % places.len(), other % places.len());
            let (low, high) = (one.min(other), one.max(other));
            put(&mut bytes, high, &own[places[low].clone()]);
            put(&mut bytes, low, &own[places[high].clone()]);
        }
        Change::ReplayChunk { from, to } => {
            put(&mut bytes, to % places.len(), &own[places[from % places.len()].clone()]);
        }
        Change::ChunkOfFile { file, from, to } => {
            let other = &LARGE[*file];
            let from = chunks(other)[from % places.len()].clone();
            put(&mut bytes, to % places.len(), &other[from]);
        }
        Change::FrontOfFile { file } => {
            let begin = places[0].start;
            bytes[..begin].copy_from_slice(&LARGE[*file][..begin]);
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(8), ..ProptestConfig::default() })]

    #[test]
    fn a_large_model_is_refused_after_any_change(change in change()) {
        let changed = apply(&change);
        if changed != LARGE[0] {
            prop_assert!(open_all(&changed, &keys(), &accepted(1)).is_err(), "{change:?}");
        }
    }
}

#[test]
fn every_chunk_in_every_other_place_is_refused() {
    let places = chunks(&LARGE[0]);
    assert!(places.len() > 25, "{}", places.len());
    for to in 0..places.len() {
        for from in 0..places.len() {
            for file in 0..3 {
                let source = &LARGE[file];
                let chunk = &source[chunks(source)[from].clone()];
                if chunk.len() != places[to].len() || (file == 0 && from == to) {
                    continue;
                }
                let mut changed = LARGE[0].clone();
                changed[places[to].clone()].copy_from_slice(chunk);
                let result = open_all(&changed, &keys(), &accepted(1));
                assert!(result.is_err(), "chunk {from} of file {file} at {to}");
            }
        }
    }
}

//! Entry points for hostile bytes, which `privet::fuzzing` and through it `fuzz/` call. For tests and fuzzing only.
//!
//! Each says whether it accepts the bytes, and works with what it accepts as the program would.

use std::io::{self, Write};

use privet_graph::nn;
use privet_onnx::ModelFile;
use privet_seal::{
    Accepted, ContentKey, KeyVersion, ModelId, ModelVersion, OwnerKeys, SealDigest, SealOptions, SealedModel,
    SigningKey,
};
use zeroize::Zeroizing;

use crate::planner::{self, Balance};
use crate::{Analysis, HopSession, SealedIndex, Shape, StageEntry, sealed_index};

/// A model whose weights stay where they are is cut in two only if it is this small.
const SMALL: usize = 64;

/// An ONNX file whose tensors stay in it, and one whose tensors are elsewhere: scanned, measured, cut, and scanned again.
pub fn scan(bytes: &[u8]) -> bool {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("a small file");
    let model = ModelFile::open(file.path());
    let whole = model.is_ok_and(|model| cuts(&model));
    let elsewhere = |location: &str, at: u64, into: &mut [u8]| {
        // Entries of many sizes.
        let number: Option<u64> = location.strip_prefix("entry ").and_then(|n| n.parse().ok());
        let len = number.ok_or(io::ErrorKind::NotFound)?.min(1 << 8) << 12;
        let fits = at.checked_add(into.len() as u64).is_some_and(|end| end <= len);
        into.fill(0);
        if fits { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    };
    let hollow = ModelFile::hollow(Zeroizing::new(bytes.to_vec()), "fuzzed", Box::new(elsewhere));
    let hollow = hollow.is_ok_and(|model| {
        let streamable = crate::weights::streamable(&model);
        model.graph(&streamable).is_ok()
    });
    whole | hollow
}

/// Bytes that [`scan`] accepts: a model with a weight that stays where it is, and the graph of the same when it was sealed.
pub fn scan_seeds() -> Vec<Vec<u8>> {
    let module = nn::seq().add(nn::linear(64, 24)).add(nn::relu()).add(nn::linear(24, 3));
    let built =
        nn::Module::from(module).build("model", &[1, 64], nn::Parameters::random(3)).expect("a model");
    let bytes = privet_onnx::export(&built.graph).expect("a model that can be written");
    let home = tempfile::tempdir().expect("a temporary directory");
    let out = home.path().join("sealed");
    let (keys, accepted) = keys();
    privet_seal::seal_onnx_from(&&bytes[..], home.path(), &out, &keys, &SealOptions::default())
        .expect("sealed");
    let model =
        SealedModel::verify_file(&out, &accepted).and_then(|m| m.open(&keys.content)).expect("its key");
    let graph = model.graph().expect("a graph").to_vec();
    vec![bytes, graph]
}

fn cuts(model: &ModelFile) -> bool {
    let Ok(analysis) = Analysis::new(model, &[]) else { return false };
    let parts = analysis.most_parts().min(2);
    let plan = planner::plan(&analysis.workload, Some(parts), None, Balance::Memory);
    let plan = plan.expect("as many stages as there can be");
    for stage in plan.stages.iter().filter(|_| model.nodes().len() <= SMALL) {
        let part = analysis.part(model, "part", stage);
        let mut written = tempfile::NamedTempFile::new().expect("a temporary file");
        let name = written.path().to_owned();
        let Ok(len) = model.write_part(&part, &mut written, &name) else { continue };
        let bytes = model.part_bytes(&part).expect("what was written can be read");
        assert_eq!(bytes.len(), len, "as many bytes");
        // What an odd model's parts are need not be a model again.
        let _ = ModelFile::open(&name).map(|again| Analysis::new(&again, &[]).is_ok());
    }
    true
}

/// The body of a signed index, as the owner would have signed it; the file itself; a message between stages.
pub fn stages(bytes: &[u8]) -> bool {
    let (keys, accepted) = keys();
    let signed = sealed_index::signed(bytes, &keys).expect("a small body");
    let index = SealedIndex::from_bytes(&signed, &accepted);
    let file = SealedIndex::from_bytes(bytes, &accepted);
    let session = HopSession::new([1; 32], [2; 16], &index_of(&keys));
    let message = session.opener(1).and_then(|mut opener| opener.open(&mut bytes.to_vec(), &[shape()]));
    index.is_ok() | file.is_ok() | message.is_ok()
}

/// Bytes that [`stages`] accepts.
pub fn stages_seeds() -> Vec<Vec<u8>> {
    let (keys, _) = keys();
    let index = index_of(&keys);
    let body = serde_json::to_vec(&index).expect("an index is JSON");
    let session = HopSession::new([1; 32], [2; 16], &index);
    let values = ndarray::ArrayD::from_elem(vec![2, 2], 1.0f32);
    let tensors = crate::Tensors::from([("x".to_owned(), values.into())]);
    let message = session.sealer(0).and_then(|mut sealer| sealer.seal(&["x"], &tensors));
    let file = sealed_index::signed(&body, &keys).expect("a small body");
    vec![body, file, message.expect("a small message")]
}

fn shape() -> Shape {
    Shape { name: "x".to_owned(), dtype: "float32".to_owned(), shape: vec![2, 2] }
}

fn index_of(keys: &OwnerKeys) -> SealedIndex {
    let digest: SealDigest = "ab".repeat(32).parse().expect("a digest");
    let stage = |number: u32| StageEntry {
        file: format!("stage-{number:02}.sealed"),
        digest: digest.to_string(),
        bytes: 1000,
        nodes: 3,
        peak: 4096,
        inputs: vec![shape()],
        outputs: vec![shape()],
        blocks: [("w".to_owned(), 7)].into(),
    };
    let stages = vec![stage(1), stage(2)];
    SealedIndex::example(&keys.release, vec![shape()], vec![shape()], stages)
}

fn keys() -> (OwnerKeys, Accepted) {
    let content = ContentKey::from_slice(&[1; 32]).expect("32 bytes");
    let signing = SigningKey::from_slice(&[2; 32]).expect("32 bytes");
    let (model_id, key_id) = (ModelId::from_bytes([7; 16]), "fuzz".parse().expect("a name"));
    let keys = OwnerKeys::new(content, signing, model_id, key_id, KeyVersion::FIRST).expect("keys");
    let accepted = Accepted::new(&keys.release, ModelVersion::FIRST);
    (keys, accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_the_corpus_are_accepted() {
        assert!(scan_seeds().iter().all(|bytes| scan(bytes)));
        assert!(stages_seeds().iter().all(|bytes| stages(bytes)));
        let corpus =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/stages/made-00");
        assert!(stages(&std::fs::read(corpus).unwrap()));
        assert!(!scan(b"no model") && !stages(b"{}"));
    }
}

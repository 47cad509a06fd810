//! Entry points for hostile bytes: the messages of both sides. For tests and fuzzing only.

use privet_graph::DType;

use crate::tensor::{self, TensorSpec};
use crate::wire::{self, Head, Kind, Refusal};

/// A message of the kind that the first byte says; whether it was taken.
pub fn message(bytes: &[u8]) -> bool {
    let Some((&kind, body)) = bytes.split_first() else { return false };
    match kind {
        1 => wire::read_hello(body).is_ok(),
        2 => wire::read_welcome(body).is_ok(),
        3 => {
            let specs = [TensorSpec::new("x", DType::F32, &[2, 2]), TensorSpec::new("b", DType::Bool, &[3])];
            tensor::read(&specs, body).is_ok()
        }
        4 => wire::decode::<Refusal>(body).is_ok(),
        5 => {
            let Some(head) = body.first_chunk() else { return false };
            Head::parse(*head, |kind| if kind == Kind::Infer { 1 << 20 } else { 64 }).is_ok()
        }
        6 => wire::read_answer(body).is_ok(),
        _ => false,
    }
}

/// What the writers of messages make.
pub fn message_seeds() -> Vec<Vec<u8>> {
    let nonce = [3; wire::NONCE_BYTES];
    let Ok(digest) = "5e".repeat(32).parse() else { return Vec::new() };
    let verifying_key = privet_seal::VerifyingKey::from_bytes([9; 32]);
    let model = wire::ModelInfo {
        verifying_key,
        id: privet_seal::ModelId::from_bytes([7; 16]),
        version: privet_seal::ModelVersion::FIRST,
        digest,
        inputs: vec![TensorSpec::new("x", DType::F32, &[1, 3, 4, 4])],
        outputs: vec![TensorSpec::new("y", DType::I64, &[1])],
        endings: vec![wire::Ending::Values],
    };
    let Ok(model) = wire::encode(&model) else { return Vec::new() };
    let welcome = wire::Welcome { version: wire::WIRE_VERSION, evidence: vec![1, 2, 3], model };
    let refusal = Refusal::new(wire::RefusalKind::Busy, "come back later");
    let with = |kind: u8, body: Vec<u8>| [vec![kind], body].concat();
    let encode = |encoded: Result<Vec<u8>, _>| encoded.unwrap_or_default();
    vec![
        with(1, wire::hello(&nonce)),
        with(2, encode(wire::encode(&welcome))),
        with(3, [vec![0; 16], vec![1, 0, 1]].concat()),
        with(4, encode(wire::encode(&refusal))),
        with(5, vec![3, 0, 1, 0, 0]),
        with(6, vec![0; wire::ANSWER_FRONT + 8]),
    ]
}

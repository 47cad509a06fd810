//! Entry points for hostile bytes, which `privet::fuzzing` and through it `fuzz/` call. For tests and fuzzing only.
//!
//! Each says whether it accepts the bytes, and works with what it accepts as the program would.

use std::io::{Cursor, Write};
use std::path::Path;

use crate::chunk;
use crate::header::{DIGEST_BYTES, Entry, Header, MAGIC, PREFIX_BYTES, SEAL_VERSION, TAG_BYTES};
use crate::statement::SIGNATURE_BYTES;
use crate::unseal::write_onnx;
use crate::writer::{blank, seal_file, write};
use crate::{
    Accepted, ContentKey, DType, Kind, ModelId, ModelVersion, OpenedModel, OwnerKeys, Release, SealDigest,
    SealOptions, SealedModel, SigningKey, WrappedKey, WrappingKey,
};

/// A sealed model: as it is, with a right signature and right digests, and as the header of one; a release file; a wrapped key.
pub fn sealed(bytes: &[u8]) -> bool {
    let keys = keys();
    let opened = opens(bytes, &keys);
    let mended = mended(bytes, &keys).is_some_and(|bytes| opens(&bytes, &keys));
    let release = std::str::from_utf8(bytes).is_ok_and(|text| {
        Release::from_toml(text).is_ok_and(|r| Release::from_toml(&r.to_toml()).is_ok_and(|again| again == r))
    });
    let wrapped = WrappedKey::from_bytes(bytes).is_ok_and(|wrapped| {
        assert_eq!(wrapped.to_bytes(), bytes, "a round trip");
        wrapped.unwrap(&kek()).is_some()
    });
    opened | mended | release | wrapped | header(bytes)
}

/// An ONNX file: sealed, opened, and the same again.
pub fn onnx(bytes: &[u8]) -> bool {
    let (mut file, name) = (tempfile::tempfile().expect("a temporary file"), Path::new("fuzzed"));
    file.write_all(bytes).expect("a small file");
    let keys = keys();
    let mut out = Cursor::new(Vec::new());
    if seal_file(&file, name, &mut out, name, &keys, &options()).is_err() {
        return false;
    }
    let accepted = Accepted::new(&keys.release, ModelVersion::FIRST);
    let out = out.into_inner();
    let model = SealedModel::verify(&out[..], "fuzzed", &accepted).expect("what was sealed is accepted");
    let model = model.open(&keys.content).expect("the key");
    let mut back = Vec::new();
    write_onnx(&model, &mut back, name).expect("what was sealed opens");
    assert!(back == bytes, "byte for byte");
    assert!(model.graph().is_ok(), "what was walked can be walked again");
    true
}

/// Bytes that [`sealed`] accepts: a model of a graph and two tensors, its header, a release file, a wrapped key.
pub fn seeds() -> Vec<Vec<u8>> {
    let keys = keys();
    let salt = [5; 32];
    let entry = |name: &str, dtype: Option<DType>, shape: &[u64], at: u64, length: u64| Entry {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        at,
        offset: 0,
        length,
    };
    let mut header = Header {
        salt,
        commitment: chunk::commitment(&keys.content, &salt),
        entries: vec![
            entry("", None, &[], 0, 10),
            entry("w", Some(DType::Float32), &[2, 2], 4, 16),
            entry("b", Some(DType::Float64), &[], 10, 8),
        ],
        ..blank(Kind::Onnx, &keys, &options()).expect("valid options")
    };
    let mut out = Cursor::new(Vec::new());
    write(header.clone(), &keys, &mut out, Path::new("seed"), |entry, _, chunk| {
        chunk.fill(entry as u8);
        Ok(())
    })
    .expect("a small model");
    header.lay_out();
    let body = header.to_bytes().expect("a small header")[PREFIX_BYTES..].to_vec();
    vec![out.into_inner(), body, keys.release.to_toml().into_bytes()]
}

fn keys() -> OwnerKeys {
    let key = |b| ContentKey::from_slice(&[b; 32]).expect("32 bytes");
    let signing = SigningKey::from_slice(&[2; 32]).expect("32 bytes");
    let id = "fuzzed".parse().expect("a name");
    OwnerKeys::new(key(1), signing, ModelId::from_bytes([3; 16]), id, crate::KeyVersion::FIRST).expect("keys")
}

fn kek() -> WrappingKey {
    WrappingKey::from_slice(&[4; 32]).expect("32 bytes")
}

fn options() -> SealOptions {
    SealOptions { chunk_bits: 16, ..SealOptions::default() }
}

fn opens(bytes: &[u8], keys: &OwnerKeys) -> bool {
    let accepted = Accepted::new(&keys.release, ModelVersion::FIRST);
    let Ok(model) = SealedModel::verify(bytes, "fuzzed", &accepted) else { return false };
    model.open(&keys.content).is_ok_and(|model| reads(&model))
}

/// Every chunk, through one buffer.
fn reads(model: &OpenedModel<&[u8]>) -> bool {
    let Ok(mut buffer) = model.buffer(crate::Swap::Allowed) else { return false };
    let mut is_whole = true;
    for entry in 0..model.entries().len() {
        for chunk in 0..model.chunks(entry) {
            is_whole &= model.chunk(entry, chunk, &mut buffer).is_ok();
        }
    }
    is_whole
}

/// The file with the digests and the signature that its owner would have made, if its header is one.
fn mended(bytes: &[u8], keys: &OwnerKeys) -> Option<Vec<u8>> {
    let length = u32::from_le_bytes(bytes.get(10..14)?.try_into().ok()?) as usize;
    let head = PREFIX_BYTES.checked_add(length)?;
    let header = Header::parse(bytes.get(PREFIX_BYTES..head)?).ok()?;
    let front = head + header.total_chunks() as usize * DIGEST_BYTES;
    let chunks = bytes.get(front + SIGNATURE_BYTES..)?;
    let mut mended = [&MAGIC[..], &SEAL_VERSION.to_le_bytes(), &bytes[10..14]].concat();
    mended.extend((header.total_chunks() as u32).to_le_bytes());
    mended.extend(&bytes[PREFIX_BYTES..head]);
    let mut rest = chunks;
    for entry in &header.entries {
        for chunk in 0..entry.chunks(header.chunk_bytes()) {
            let len = header.chunk_bytes().min(entry.length - chunk * header.chunk_bytes()) + TAG_BYTES;
            let (own, behind) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            mended.extend(blake3::hash(own).as_bytes());
            rest = behind;
        }
    }
    mended.extend(keys.signing.sign(&SealDigest::of(&mended).statement()).ok()?);
    mended.extend(chunks);
    Some(mended)
}

/// Every header has one form.
fn header(bytes: &[u8]) -> bool {
    let Ok(header) = Header::parse(bytes) else { return false };
    if let Ok(again) = header.to_bytes() {
        assert!(again[PREFIX_BYTES..] == *bytes, "a round trip");
    }
    true
}

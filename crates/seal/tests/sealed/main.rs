//! Sealed models: what comes back, and everything that is refused.

mod files;
mod forge;
mod golden;
mod onnx;
mod tamper;

use privet_seal::{
    Accepted, ContentKey, KeyVersion, ModelId, ModelVersion, OwnerKeys, SealError, SealOptions, SealedModel,
    SigningKey, Swap,
};

/// Keys that are the same in every run.
pub(crate) fn keys() -> OwnerKeys {
    other_keys(1)
}

pub(crate) fn other_keys(seed: u8) -> OwnerKeys {
    let content = ContentKey::from_slice(&[seed; 32]).unwrap();
    let signing = SigningKey::from_slice(&[seed + 100; 32]).unwrap();
    let (model_id, key_id) = (ModelId::from_bytes([7; 16]), "resnet".parse().unwrap());
    OwnerKeys::new(content, signing, model_id, key_id, KeyVersion::FIRST).unwrap()
}

pub(crate) fn version(number: u64) -> ModelVersion {
    ModelVersion::new(number).unwrap()
}

pub(crate) fn options(number: u64) -> SealOptions {
    SealOptions { version: version(number), chunk_bits: 16, ..SealOptions::default() }
}

/// Opens all of a sealed model: every chunk of every entry, in an order that is not that of the file.
pub(crate) fn open_all(
    sealed: &[u8],
    keys: &OwnerKeys,
    accepted: &Accepted,
) -> Result<Vec<Vec<u8>>, SealError> {
    let model = SealedModel::verify(sealed, "test", accepted)?.open(&keys.content)?;
    let mut buffer = model.buffer(Swap::Allowed)?;
    let mut entries: Vec<Vec<u8>> = model.entries().iter().map(|e| vec![0; e.length as usize]).collect();
    for (index, entry) in entries.iter_mut().enumerate().rev() {
        let chunk_bytes = model.header().chunk_bytes() as usize;
        for (chunk, part) in entry.chunks_mut(chunk_bytes).enumerate().rev() {
            part.copy_from_slice(model.chunk(index, chunk as u64, &mut buffer)?);
        }
    }
    Ok(entries)
}

//! A module's state, sealed: what `to_secure_mkldnn(key, model_id)` did for PyTorch with SGX, for every tensor of the state and
//! with names, types and shapes authenticated. There is no default key and no default model.
//!
//! A Python package would give its module's `state_dict()` as a map from names to type, shape and bytes, and take the sealed
//! bytes, which it may save; loading gives the same map back.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use zeroize::Zeroizing;

use crate::files::{self, PUBLIC};
use crate::header::{Entry, Kind};
use crate::reader::ReadAt;
use crate::writer::{blank, write};
use crate::{Accepted, ContentKey, DType, ModelId, OwnerKeys, SealError, SealOptions, SealedModel, Swap};

/// A tensor of a module's state. No `Debug`: its values are secret. They are wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct StateTensor {
    /// Type of the elements.
    pub dtype: DType,
    /// Its shape; empty for a scalar.
    pub shape: Vec<u64>,
    /// Its elements in C order, little-endian.
    pub data: Zeroizing<Vec<u8>>,
}

/// Parameters and buffers (running statistics included) by name.
pub type ModuleState = BTreeMap<String, StateTensor>;

/// Seals a module's state: the bytes of a sealed model, for a file or a message.
///
/// ```
/// use privet_seal::{Accepted, DType, ModelId, ModelVersion, ModuleState, OwnerKeys, SealOptions, StateTensor};
///
/// let model_id = ModelId::random()?;
/// let keys = OwnerKeys::generate("resnet".parse()?, model_id)?;
/// let weight = StateTensor { dtype: DType::Float32, shape: vec![2, 2], data: vec![0; 16].into() };
/// let state = ModuleState::from([("fc.weight".to_owned(), weight)]);
/// let sealed = privet_seal::seal_state(&state, &keys, model_id, &SealOptions::default())?;
/// let accepted = Accepted::new(&keys.release, ModelVersion::FIRST);
/// assert!(privet_seal::open_state(&sealed, &keys.content, &accepted)? == state);
/// # Ok::<(), privet_seal::SealError>(())
/// ```
///
/// # Errors
/// If the keys are another model's, or a tensor has not as many bytes as its type and shape say.
pub fn seal_state(
    state: &ModuleState,
    keys: &OwnerKeys,
    model_id: ModelId,
    options: &SealOptions,
) -> Result<Vec<u8>, SealError> {
    let mut sealed = Cursor::new(Vec::new());
    write_state(state, keys, model_id, options, &mut sealed, Path::new("memory"))?;
    Ok(sealed.into_inner())
}

/// As [`seal_state`], into a file, which is replaced whole if it exists.
///
/// # Errors
/// As [`seal_state`], and failures of the system.
pub fn save_state(
    path: &Path,
    state: &ModuleState,
    keys: &OwnerKeys,
    model_id: ModelId,
    options: &SealOptions,
) -> Result<(), SealError> {
    let mut file = files::temporary(path)?;
    write_state(state, keys, model_id, options, file.as_file_mut(), path)?;
    files::publish(file, path, PUBLIC)
}

/// The state in the bytes of a sealed model.
///
/// # Errors
/// As [`SealedModel::verify`] and [`SealedModel::open`], and if what was sealed is no state.
pub fn open_state(sealed: &[u8], key: &ContentKey, accepted: &Accepted) -> Result<ModuleState, SealError> {
    read_state(SealedModel::verify(sealed, "the sealed state", accepted)?, key)
}

/// The state in a sealed file.
///
/// # Errors
/// As [`open_state`], and failures of the system.
pub fn load_state(path: &Path, key: &ContentKey, accepted: &Accepted) -> Result<ModuleState, SealError> {
    read_state(SealedModel::verify_file(path, accepted)?, key)
}

fn write_state<W: std::io::Write + std::io::Seek>(
    state: &ModuleState,
    keys: &OwnerKeys,
    model_id: ModelId,
    options: &SealOptions,
    out: &mut W,
    path: &Path,
) -> Result<(), SealError> {
    if model_id != keys.release.model_id {
        let [expected, found] = [keys.release.model_id, model_id].map(|id| id.to_string());
        return Err(SealError::OtherModel { expected, found });
    }
    let mut header = blank(Kind::State, keys, options)?;
    for (name, tensor) in state {
        let length = tensor.data.len() as u64;
        if tensor.dtype.bytes(&tensor.shape) != Some(length) {
            let problem = format!(
                "tensor {name:?}: {length} bytes for {:?} of shape {:?}; check type and shape",
                tensor.dtype, tensor.shape
            );
            return Err(SealError::Format(problem));
        }
        let (dtype, shape) = (Some(tensor.dtype), tensor.shape.clone());
        header.entries.push(Entry { name: name.clone(), dtype, shape, at: 0, offset: 0, length });
    }
    let data: Vec<&[u8]> = state.values().map(|tensor| &tensor.data[..]).collect();
    write(header, keys, out, path, |entry, at, chunk| {
        let at = at as usize;
        chunk.copy_from_slice(&data[entry][at..at + chunk.len()]);
        Ok(())
    })?;
    Ok(())
}

fn read_state<S: ReadAt>(model: SealedModel<S>, key: &ContentKey) -> Result<ModuleState, SealError> {
    let model = model.open(key)?;
    let fail = |problem: String| SealError::Sealed { name: model.name().to_owned(), problem };
    if model.header().kind != Kind::State {
        return Err(fail("expected the sealed state of a module, found a sealed ONNX file".to_owned()));
    }
    let mut state = ModuleState::new();
    for (index, entry) in model.entries().iter().enumerate() {
        let Some(dtype) = entry.dtype else { return Err(fail(format!("entry {index} is no tensor"))) };
        let data = Zeroizing::new(model.entry(index, Swap::Allowed)?.to_vec());
        let tensor = StateTensor { dtype, shape: entry.shape.clone(), data };
        if state.insert(entry.name.clone(), tensor).is_some() {
            return Err(fail(format!("two tensors are named {:?}", entry.name)));
        }
    }
    Ok(state)
}

//! NumPy's `.npz`: a zip archive of `.npy` files.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;

use ndarray::ArrayD;
use zip::ZipArchive;

use super::{InputError, MAX_UNPACKED_BYTES, npy, read_file};

/// Most arrays in one file; a model has a handful of inputs.
const MAX_ARRAYS: usize = 4096;

/// Loads all arrays of a `.npz` file (stored or deflated) under their names, without checking shapes: pass each
/// through [`fit_to_shape`](super::fit_to_shape).
///
/// # Errors
/// The file cannot be read, is not a zip archive, holds anything but arrays of real numbers, or unpacks to more
/// than [`MAX_UNPACKED_BYTES`].
pub fn load_npz(path: &Path) -> Result<BTreeMap<String, ArrayD<f32>>, InputError> {
    decode(path, &read_file(path)?, MAX_UNPACKED_BYTES)
}

/// Name and array of a file with exactly one array.
pub(super) fn only_array(path: &Path, bytes: &[u8]) -> Result<(String, ArrayD<f32>), InputError> {
    let mut arrays = decode(path, bytes, MAX_UNPACKED_BYTES)?;
    match arrays.pop_first() {
        Some(only) if arrays.is_empty() => Ok(only),
        Some((first, _)) => {
            let names: Vec<_> = std::iter::once(first).chain(arrays.into_keys()).take(20).collect();
            let reason = format!("expected one array for one input, found several: {}", names.join(", "));
            Err(InputError::npz(path, reason))
        }
        None => Err(InputError::npz(path, "it holds no array")),
    }
}

/// All arrays of a file's bytes, which may unpack to `budget` bytes.
pub(crate) fn decode(
    path: &Path,
    bytes: &[u8],
    mut budget: u64,
) -> Result<BTreeMap<String, ArrayD<f32>>, InputError> {
    let refused = |reason: String| InputError::npz(path, reason);
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| refused(e.to_string()))?;
    if archive.len() > MAX_ARRAYS {
        return Err(refused(format!("{} arrays, expected at most {MAX_ARRAYS}", archive.len())));
    }
    let mut arrays = BTreeMap::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|e| refused(e.to_string()))?;
        let file = entry.name().map_err(|e| refused(e.to_string()))?.into_owned();
        let name = file.strip_suffix(".npy").ok_or_else(|| refused(format!("{file:?} is not an array")))?;
        let mut unpacked = Vec::new();
        // Not the size the archive declares: it may lie.
        entry
            .by_ref()
            .take(budget + 1)
            .read_to_end(&mut unpacked)
            .map_err(|e| refused(format!("{name}: {e}")))?;
        budget = budget
            .checked_sub(unpacked.len() as u64)
            .ok_or_else(|| refused(format!("the arrays unpack to more than {MAX_UNPACKED_BYTES} bytes")))?;
        let array = npy::decode(&unpacked).map_err(|reason| refused(format!("array {name:?}: {reason}")))?;
        if arrays.insert(name.to_owned(), array).is_some() {
            return Err(refused(format!("two arrays are called {name:?}")));
        }
    }
    Ok(arrays)
}

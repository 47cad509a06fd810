//! Inputs: a file on disk becomes the float tensor a model expects.
//!
//! | extension | what it holds | preprocessing |
//! |---|---|---|
//! | anything else | a JPEG or PNG picture, told apart by its first bytes | applied |
//! | `.npy` | one array of any real dtype, C or Fortran order | not applied |
//! | `.npz` | one array ([`load`]) or one array per named input ([`load_npz`]) | not applied |
//! | `.csv` | numbers: one flattened row per sample, or a matrix, in row-major order | not applied |
//!
//! Arrays are taken as they are: whoever wrote them has done the preprocessing. An array may lack a leading
//! batch dimension of 1; otherwise its shape is the model's. Every value must be finite as an `f32`.
//!
//! Nothing here trusts the file: sizes are checked before memory is reserved, a picture larger than its file
//! could possibly describe is refused before it is decoded, and every refusal is an [`InputError`] that names
//! the file and what to do.

mod csv;
mod error;
mod image;
mod jpeg;
pub(crate) mod labels;
pub(crate) mod npy;
pub(crate) mod npz;
pub(crate) mod preset;
mod resize;
mod tensor;

use std::io::Read;
use std::path::Path;

use ndarray::{ArrayD, Axis};
use privet_plan::Preprocess;

pub use self::error::InputError;
pub use self::labels::load_labels;
pub use self::npz::load_npz;
pub use self::preset::{check_preprocess, preprocess_from_str_or_file};

/// Largest input file that is read. Raise it and a mistyped path (a disk image, `/dev/zero`) costs that much
/// memory before it is refused; a batch of 400 pictures of 224 x 224 as `f32` fits.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

/// Largest total size of the arrays of one `.npz`, unpacked; the same trade as [`MAX_FILE_BYTES`].
pub const MAX_UNPACKED_BYTES: u64 = 512 << 20;

/// Largest picture that is decoded, in pixels: 2^26, enough for 64-megapixel photographs, 256 MiB as RGBA.
pub const MAX_PIXELS: u64 = 1 << 26;

/// Loads the file of one model input.
///
/// `shape` is the shape the model expects, every dimension known; the result has exactly that shape. How the
/// file is read follows from its extension (see the module's table); `preprocess` applies to pictures only.
///
/// # Errors
/// Every way the file can be missing, damaged, hostile, of another kind or of another shape.
pub fn load(path: &Path, preprocess: &Preprocess, shape: &[usize]) -> Result<ArrayD<f32>, InputError> {
    decode(path, &read_file(path)?, preprocess, shape)
}

/// [`load`], from the file's bytes; its path says how to read them.
pub(crate) fn decode(
    path: &Path,
    bytes: &[u8],
    preprocess: &Preprocess,
    shape: &[usize],
) -> Result<ArrayD<f32>, InputError> {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    match extension.as_deref() {
        Some("npy") => {
            let array = npy::decode(bytes).map_err(|reason| InputError::npy(path, reason))?;
            fit_to_shape(path.display().to_string(), array, shape)
        }
        Some("npz") => {
            let (name, array) = npz::only_array(path, bytes)?;
            fit_to_shape(format!("{}, array {name:?}", path.display()), array, shape)
        }
        Some("csv") => csv::decode(path, bytes, shape),
        _ => image::load(path, bytes, preprocess, shape),
    }
}

/// Checks that `array` has the `shape` that the model expects, after adding a leading batch dimension of 1
/// where only that is missing, and that all its values are finite. `origin` names the array in errors.
///
/// # Errors
/// [`InputError::Shape`] and [`InputError::NotFinite`].
pub fn fit_to_shape(
    origin: impl Into<String>,
    array: ArrayD<f32>,
    shape: &[usize],
) -> Result<ArrayD<f32>, InputError> {
    let lacks_batch = shape.split_first().is_some_and(|(&n, rest)| n == 1 && rest == array.shape());
    let array = if lacks_batch { array.insert_axis(Axis(0)) } else { array };
    if array.shape() != shape {
        let found = array.shape().to_vec();
        return Err(InputError::Shape { origin: origin.into(), expected: shape.to_vec(), found });
    }
    match array.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(InputError::NotFinite { origin: origin.into(), index }),
        None => Ok(array),
    }
}

/// The whole file, or a refusal once it proves longer than [`MAX_FILE_BYTES`]; `path` may be a pipe.
fn read_file(path: &Path) -> Result<Vec<u8>, InputError> {
    read_at_most(path, MAX_FILE_BYTES)
}

fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>, InputError> {
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes: Vec<u8> = read().map_err(|source| InputError::Read { path: path.into(), source })?;
    if bytes.len() as u64 > limit {
        return Err(InputError::FileTooLarge { path: path.into(), limit });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;

//! Files of a model's parameters, for models that [`crate::nn`] builds: `.safetensors` and `.npz`.
//!
//! Names and shapes are those of PyTorch's `state_dict`. There, `safetensors.torch.save_file(model.state_dict(), path)` writes
//! what [`load`] reads, and `model.load_state_dict(safetensors.torch.load_file(path))` reads what [`save`] writes.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use crate::files;
use crate::input::{InputError, npz};
use crate::output::{self, OutputError};

/// Largest file that is read, and most that the arrays of a `.npz` unpack to.
const MAX_BYTES: u64 = 4 << 30;

/// Why parameters cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParametersError {
    /// The extension names no format.
    #[error("cannot tell the format of {} by its extension: expected .safetensors or .npz", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The file is missing, too large, or not readable.
    #[error("cannot read {}: {problem}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says, or the limit.
        problem: String,
    },
    /// Not a `.safetensors` file, or a damaged one.
    #[error("{} is not a usable .safetensors file: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor's elements are no parameters.
    #[error(
        "{}: parameter {name:?} has elements of type {found}; expected F32, F64, F16 or BF16: convert it with .float()",
        path.display()
    )]
    ElementType {
        /// The file.
        path: PathBuf,
        /// The parameter.
        name: String,
        /// Its element type.
        found: String,
    },
    /// A `.npz` file that is none, or a damaged one.
    #[error(transparent)]
    Npz(#[from] InputError),
    /// A `.npz` file that cannot be written.
    #[error(transparent)]
    WriteNpz(#[from] OutputError),
    /// A `.safetensors` file that cannot be written.
    #[error("cannot write {}: {problem}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: String,
    },
}

/// Reads named tensors, as [`crate::nn::Parameters::named`] takes them, from a `.safetensors` or `.npz` file. Other floats
/// become 32-bit floats; PyTorch's counters of batches (`num_batches_tracked`) are left out.
///
/// # Errors
/// The file is missing, damaged, of another kind, or holds tensors of other element types.
pub fn load(path: &Path) -> Result<BTreeMap<String, ArrayD<f32>>, ParametersError> {
    let format = Format::of(path)?;
    let bytes = read(path)?;
    match format {
        Format::SafeTensors => decode(path, &bytes),
        Format::Npz => Ok(npz::decode(path, &bytes, MAX_BYTES)?),
    }
}

/// Writes named tensors, for instance [`crate::nn::Built::parameters`], to a `.safetensors` or `.npz` file. Only its owner may
/// read it; an older file is replaced.
///
/// # Errors
/// Unknown extension, and failures of the system.
pub fn save(path: &Path, parameters: &BTreeMap<String, ArrayD<f32>>) -> Result<(), ParametersError> {
    match Format::of(path)? {
        Format::Npz => {
            let named: Vec<_> = parameters.iter().map(|(name, p)| (name.clone(), p.clone())).collect();
            Ok(output::write(path, &named)?)
        }
        Format::SafeTensors => {
            let fail = |problem: String| ParametersError::Write { path: path.to_owned(), problem };
            let bytes = encode(parameters).map_err(|e| fail(e.to_string()))?;
            files::write(path, &bytes, files::PRIVATE).map_err(|e| fail(e.to_string()))
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Format {
    SafeTensors,
    Npz,
}

impl Format {
    fn of(path: &Path) -> Result<Self, ParametersError> {
        match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("safetensors") => Ok(Self::SafeTensors),
            Some("npz") => Ok(Self::Npz),
            _ => Err(ParametersError::UnknownFormat { path: path.to_owned() }),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ParametersError> {
    let fail = |problem: String| ParametersError::Read { path: path.to_owned(), problem };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| fail(e.to_string()))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| fail(e.to_string()))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(fail(format!("more than {MAX_BYTES} bytes, the most that is read as parameters")));
    }
    Ok(bytes)
}

/// The tensors in the bytes of a `.safetensors` file.
pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, ArrayD<f32>>, ParametersError> {
    let damaged = |problem: String| ParametersError::Damaged { path: path.to_owned(), problem };
    let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(e.to_string()))?;
    let mut parameters = BTreeMap::new();
    for (name, view) in file.tensors() {
        if name.ends_with("num_batches_tracked") {
            continue;
        }
        let Some(values) = floats(&view) else {
            let found = format!("{:?}", view.dtype());
            return Err(ParametersError::ElementType { path: path.to_owned(), name, found });
        };
        let shape = IxDyn(view.shape());
        let array =
            ArrayD::from_shape_vec(shape, values).map_err(|e| damaged(format!("parameter {name:?}: {e}")))?;
        parameters.insert(name, array);
    }
    Ok(parameters)
}

/// The elements, if they are floats.
fn floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let data = view.data();
    Some(match view.dtype() {
        Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        Dtype::F16 => data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => data.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        _ => return None,
    })
}

fn encode(parameters: &BTreeMap<String, ArrayD<f32>>) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let data: Vec<Vec<u8>> =
        parameters.values().map(|p| p.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = parameters.iter().zip(&data).map(|((name, p), bytes)| {
        Ok((name.clone(), TensorView::new(Dtype::F32, p.shape().to_vec(), bytes)?))
    });
    let views: Vec<_> = views.collect::<Result<_, safetensors::SafeTensorError>>()?;
    // What the Python library says of tensors of this origin.
    serialize(views, Some(HashMap::from([("format".to_owned(), "pt".to_owned())])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{self, Module, NnError, Parameters};
    use std::os::unix::fs::PermissionsExt;

    fn model() -> Module {
        nn::seq()
            .add(nn::conv2d(2, 3, 3))
            .add(nn::batch_norm2d(3))
            .add(nn::relu())
            .add(nn::flatten())
            .named("fc", nn::linear(12, 2))
            .into()
    }

    const INPUT: [usize; 4] = [1, 2, 4, 4];

    #[test]
    fn parameters_survive_both_formats() {
        let built = model().build("m", &INPUT, Parameters::random(1)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for name in ["m.safetensors", "m.npz"] {
            let path = dir.path().join(name);
            save(&path, &built.parameters).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let loaded = load(&path).unwrap();
            assert_eq!(loaded, built.parameters);
            let again = model().build("m", &INPUT, Parameters::named(loaded)).unwrap();
            assert_eq!(again.parameters, built.parameters);
        }
    }

    #[test]
    fn other_floats_are_converted_and_other_types_refused() {
        let file = |name: &str, dtype: Dtype, bytes: &[u8]| {
            let view = TensorView::new(dtype, vec![2], bytes).unwrap();
            decode(Path::new("m.safetensors"), &serialize([(name, view)], None).unwrap())
        };
        let doubles: Vec<u8> = [0.5f64, -3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let cases: [(Dtype, &[u8]); 3] = [
            (Dtype::F64, &doubles),
            (Dtype::F16, &[0x00, 0x38, 0x00, 0xc2]),
            (Dtype::BF16, &[0x00, 0x3f, 0x40, 0xc0]),
        ];
        for (dtype, bytes) in cases {
            assert_eq!(file("w", dtype, bytes).unwrap()["w"].as_slice().unwrap(), [0.5, -3.0], "{dtype:?}");
        }
        assert!(file("bn.num_batches_tracked", Dtype::I64, &[0; 16]).unwrap().is_empty());
        let error = file("w", Dtype::I64, &[0; 16]).unwrap_err().to_string();
        assert!(
            error.contains("m.safetensors") && error.contains("\"w\"") && error.contains("I64"),
            "{error}"
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        let mut parameters = model().build("m", &INPUT, Parameters::random(1)).unwrap().parameters;
        parameters.remove("1.running_var");
        save(&path, &parameters).unwrap();
        let error = model().build("m", &INPUT, Parameters::named(load(&path).unwrap())).unwrap_err();
        assert!(matches!(error, NnError::Missing { name, .. } if name == "1.running_var"));
        for (name, message) in [("m.pt", "expected .safetensors or .npz"), ("none.npz", "cannot read")] {
            let error = load(&dir.path().join(name)).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(message), "{error}");
        }
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            assert!(decode(&path, &bytes[..length]).is_err(), "cut to {length} bytes");
        }
        std::fs::write(&path, b"\xff\xff\xff\xff\xff\xff\xff\x7f{}").unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("not a usable .safetensors"));
    }
}

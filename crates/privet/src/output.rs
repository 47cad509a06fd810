//! Outputs: named tensors become a file.

use std::fmt::Display;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use thiserror::Error;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::files;
use crate::input::npy;

/// Writes named outputs to `path`, by its extension:
///
/// - `.npz`: every output under its name; `numpy.load` reads it;
/// - `.npy`: the only output;
/// - `.csv`: the only output, one line per index of its first axis (a vector is one line), numbers in the shortest
///   form that reads back the same.
///
/// The file appears whole or not at all: it is written beside its place under another name, synced, then renamed.
/// An older file is replaced. As an answer is private, only the owner may read the file (mode 0600 on Unix).
///
/// # Errors
/// Unknown extension, several outputs where only one fits, a missing directory, and failures of the system.
pub fn write<A: Array>(path: &Path, outputs: &[(String, A)]) -> Result<(), OutputError> {
    let bytes = encode(path, outputs)?;
    files::write(path, &bytes, files::PRIVATE)
        .map_err(|source| OutputError::Write { path: path.into(), source })
}

/// Checks, before hours of work, that [`write()`] with this many outputs would not be refused.
///
/// # Errors
/// Those of [`write()`], except failures of the system.
pub fn check_path(path: &Path, outputs: usize) -> Result<(), OutputError> {
    let format = Format::of(path)?;
    if format != Format::Npz && outputs != 1 {
        return Err(OutputError::Several { path: path.into(), outputs });
    }
    if path.is_dir() {
        return Err(OutputError::IsDirectory { path: path.into() });
    }
    let directory = files::directory(path);
    if directory.is_dir() {
        Ok(())
    } else {
        Err(OutputError::NoDirectory { path: path.into(), directory: directory.into() })
    }
}

/// Why outputs cannot be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The extension names no format.
    #[error("cannot tell the format of {} by its extension: expected .npz, .npy or .csv", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The format holds one array.
    #[error("{} holds one output, there are {outputs}; write to a file ending in .npz", path.display())]
    Several {
        /// The file.
        path: PathBuf,
        /// Number of outputs.
        outputs: usize,
    },
    /// Two outputs have one name.
    #[error("two outputs are called {name:?}")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// The directory does not exist.
    #[error("cannot write {}: {} is not a directory; create it first", path.display(), directory.display())]
    NoDirectory {
        /// The file.
        path: PathBuf,
        /// Where it would be.
        directory: PathBuf,
    },
    /// There is a directory of that name.
    #[error("cannot write {}: it is a directory", path.display())]
    IsDirectory {
        /// The file.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// An array that [`write()`] can write: of floats, of whole numbers, or [`Values`] of either.
pub trait Array: sealed::Sealed {
    #[doc(hidden)]
    fn to_npy(&self) -> Vec<u8>;
    #[doc(hidden)]
    fn to_csv(&self) -> String;
}

/// An array of floats or of whole numbers; the latter become `int64` in NumPy's formats.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Floats.
    Floats(ArrayD<f64>),
    /// Whole numbers: positions, counts, truth values.
    Whole(ArrayD<i64>),
}

impl Values {
    /// Length of every axis.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Floats(a) => a.shape(),
            Self::Whole(a) => a.shape(),
        }
    }

    /// As floats; whole numbers beyond 2^53 are rounded.
    pub fn to_floats(&self) -> ArrayD<f64> {
        match self {
            Self::Floats(a) => a.clone(),
            Self::Whole(a) => a.mapv(|v| v as f64),
        }
    }
}

impl<T: Element> Array for ArrayD<T> {
    fn to_npy(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(self.len() * size_of::<T>());
        self.iter().for_each(|value| value.append(&mut data));
        npy::encode(T::DESCR, self.shape(), &data)
    }

    fn to_csv(&self) -> String {
        let rows = if self.ndim() > 1 { self.shape()[0] } else { 1 };
        let values: Vec<String> = self.iter().map(T::to_string).collect();
        let columns = (values.len() / rows.max(1)).max(1);
        values.chunks(columns).map(|row| row.join(",") + "\n").collect()
    }
}

impl Array for Values {
    fn to_npy(&self) -> Vec<u8> {
        match self {
            Self::Floats(a) => a.to_npy(),
            Self::Whole(a) => a.to_npy(),
        }
    }

    fn to_csv(&self) -> String {
        match self {
            Self::Floats(a) => a.to_csv(),
            Self::Whole(a) => a.to_csv(),
        }
    }
}

/// An element type of outputs: `f32`, `f64` or `i64`.
pub trait Element: Copy + Display + sealed::Sealed {
    /// NumPy's name of the type.
    #[doc(hidden)]
    const DESCR: &'static str;
    #[doc(hidden)]
    fn append(self, bytes: &mut Vec<u8>);
}

impl Element for f32 {
    const DESCR: &'static str = "<f4";
    fn append(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_le_bytes());
    }
}

impl Element for f64 {
    const DESCR: &'static str = "<f8";
    fn append(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_le_bytes());
    }
}

impl Element for i64 {
    const DESCR: &'static str = "<i8";
    fn append(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_le_bytes());
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for i64 {}
    impl<T: super::Element> Sealed for ndarray::ArrayD<T> {}
    impl Sealed for super::Values {}
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Npz,
    Npy,
    Csv,
}

impl Format {
    fn of(path: &Path) -> Result<Self, OutputError> {
        match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("npz") => Ok(Self::Npz),
            Some("npy") => Ok(Self::Npy),
            Some("csv") => Ok(Self::Csv),
            _ => Err(OutputError::UnknownFormat { path: path.into() }),
        }
    }
}

fn encode<A: Array>(path: &Path, outputs: &[(String, A)]) -> Result<Vec<u8>, OutputError> {
    check_path(path, outputs.len())?;
    match (Format::of(path)?, outputs) {
        (Format::Npy, [(_, only)]) => Ok(only.to_npy()),
        (Format::Csv, [(_, only)]) => Ok(only.to_csv().into_bytes()),
        _ => {
            for (index, (name, _)) in outputs.iter().enumerate() {
                if outputs[..index].iter().any(|(earlier, _)| earlier == name) {
                    return Err(OutputError::Duplicate { name: name.clone() });
                }
            }
            to_npz(outputs).map_err(|source| OutputError::Write { path: path.into(), source })
        }
    }
}

fn to_npz<A: Array>(outputs: &[(String, A)]) -> Result<Vec<u8>, std::io::Error> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    // Stored, like numpy.savez: logits do not compress. No time stamp: equal outputs give equal files.
    let options = SimpleFileOptions::DEFAULT;
    for (name, array) in outputs {
        archive.start_file(format!("{name}.npy"), options)?;
        archive.write_all(&array.to_npy())?;
    }
    Ok(archive.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::load_npz;
    use ndarray::{IxDyn, arr0, arr2};

    fn named(values: &[f32], shape: &[usize]) -> (String, ArrayD<f32>) {
        ("probabilities".to_owned(), ArrayD::from_shape_vec(IxDyn(shape), values.to_vec()).unwrap())
    }

    #[test]
    fn npz_keeps_every_output_under_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("y.npz");
        let outputs = [named(&[0.5, -1.0, 3.25], &[1, 3]), ("a/b".to_owned(), arr0(7.0f32).into_dyn())];
        write(&path, &outputs).unwrap();
        let read = load_npz(&path).unwrap();
        assert_eq!(read.keys().collect::<Vec<_>>(), ["a/b", "probabilities"]);
        assert_eq!(read["probabilities"], outputs[0].1);
        assert_eq!(read["a/b"], outputs[1].1);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn npy_is_written_as_numpy_does() {
        let bytes = arr2(&[[1.0f64], [2.0]]).into_dyn().to_npy();
        let header = b"\x93NUMPY\x01\0\x76\0{'descr': '<f8', 'fortran_order': False, 'shape': (2, 1,), }";
        assert_eq!(&bytes[..header.len()], header);
        assert_eq!(bytes.len(), 128 + 16);
        assert_eq!(bytes[127], b'\n');
        assert_eq!(npy::decode(&bytes).unwrap(), arr2(&[[1.0f32], [2.0]]).into_dyn());
    }

    #[test]
    fn csv_has_a_line_per_sample_and_reads_back_the_same() {
        let one = named(&[0.1, 2.0, -3e-9, 4.0, 5.0, 16_777_216.0], &[2, 1, 3]);
        assert_eq!(one.1.to_csv(), "0.1,2,-0.000000003\n4,5,16777216\n");
        assert_eq!(named(&[1.0, 2.0], &[2]).1.to_csv(), "1,2\n");
        assert_eq!(named(&[], &[0, 3]).1.to_csv(), "");
        let path = tempfile::tempdir().unwrap().path().join("y.csv");
        assert!(matches!(write(&path, &[one]), Err(OutputError::NoDirectory { .. })));
    }

    #[test]
    fn whole_numbers_are_written_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("y.npz");
        let whole = Values::Whole(arr2(&[[3i64], [-7]]).into_dyn());
        let floats = Values::Floats(arr0(0.5).into_dyn());
        write(&path, &[("class".to_owned(), whole.clone()), ("score".to_owned(), floats)]).unwrap();
        let read = load_npz(&path).unwrap();
        assert_eq!(read["class"], arr2(&[[3.0f32], [-7.0]]).into_dyn());
        assert_eq!(read["score"], arr0(0.5f32).into_dyn());
        let bytes = whole.to_npy();
        assert!(bytes.windows(5).any(|w| w == b"'<i8'"));
        assert_eq!(bytes[bytes.len() - 8..], (-7i64).to_le_bytes());
        assert_eq!(whole.to_csv(), "3\n-7\n");
    }

    #[test]
    fn an_older_file_is_replaced_and_only_the_owner_reads_the_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("y.npy");
        std::fs::write(&path, "old").unwrap();
        write(&path, &[named(&[1.0], &[1])]).unwrap();
        assert_eq!(npy::decode(&std::fs::read(&path).unwrap()).unwrap().len(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let y = named(&[1.0], &[1]);
        std::fs::create_dir(at("d.npz")).unwrap();
        let cases = [
            (at("y.txt"), vec![y.clone()], "expected .npz, .npy or .csv"),
            (at("y.npy"), vec![y.clone(), y.clone()], "there are 2; write to a file ending in .npz"),
            (at("y.csv"), vec![], "there are 0"),
            (at("y.npz"), vec![y.clone(), y.clone()], "two outputs are called \"probabilities\""),
            (at("missing/y.npz"), vec![y.clone()], "is not a directory; create it first"),
            (at("d.npz"), vec![y], "it is a directory"),
        ];
        for (path, outputs, message) in cases {
            let error = write(&path, &outputs).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}

//! Tensors of an ONNX file: inline, or in a file next to the model.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use ndarray::{ArrayD, IxDyn};
use privet_graph::{DType, Tensor, element_count};

use crate::OnnxError;
use crate::proto::{TensorProto, TypeProto};

/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: i32 = 1;

/// Element types that are read, by their number in the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Float,
    Int32,
    Int64,
    Bool,
}

/// The graph's element type for an element type number; narrower integers widen.
pub(crate) fn dtype(what: &str, number: i32) -> Result<DType, OnnxError> {
    Ok(match element(what, number)? {
        Element::Float => DType::F32,
        Element::Int32 | Element::Int64 => DType::I64,
        Element::Bool => DType::Bool,
    })
}

/// The element type number and dimensions of an input; `None` for what is not a tensor.
pub(crate) fn tensor_type(ty: Option<TypeProto>) -> Option<(i32, Option<crate::proto::TensorShapeProto>)> {
    let tensor = ty?.tensor_type?;
    Some((tensor.elem_type, tensor.shape))
}

/// Reads a tensor; external data must lie in `directory`.
pub(crate) fn read(proto: TensorProto, directory: Option<&Path>) -> Result<Tensor, OnnxError> {
    let name = proto.name.clone();
    let kind = element(&format!("tensor {name:?}"), proto.data_type)?;
    if proto.segment.is_some() {
        return Err(wrong(&name, "segment", "a tensor in one piece", "a segment of one"));
    }
    let (shape, count) = shape(&proto)?;
    let data = if proto.data_location == EXTERNAL {
        Data::Raw(external(&proto, directory, count * kind.size())?)
    } else {
        match proto.raw_data {
            Some(raw) => Data::Raw(raw),
            None => match kind {
                Element::Float => Data::Floats(proto.float_data),
                Element::Int64 => Data::Ints(proto.int64_data),
                Element::Int32 | Element::Bool => {
                    Data::Ints(proto.int32_data.into_iter().map(i64::from).collect())
                }
            },
        }
    };
    data.check(&name, kind, count)?;
    Ok(match kind {
        Element::Float => array(&shape, data.floats()).into(),
        Element::Bool => array(&shape, data.ints(kind).into_iter().map(|v| v != 0).collect()).into(),
        Element::Int32 | Element::Int64 => array(&shape, data.ints(kind)).into(),
    })
}

/// Shape and number of elements.
fn shape(proto: &TensorProto) -> Result<(Vec<usize>, usize), OnnxError> {
    let name = &proto.name;
    let shape: Option<Vec<usize>> = proto.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let shape =
        shape.ok_or_else(|| wrong(name, "dims", "sizes of at least 0", &format!("{:?}", proto.dims)))?;
    let count =
        element_count("tensor", &shape).map_err(|e| wrong(name, "dims", "a bounded size", &e.to_string()))?;
    Ok((shape, count))
}

/// Bytes of a tensor's elements.
pub(crate) fn byte_count(proto: &TensorProto) -> Result<usize, OnnxError> {
    Ok(shape(proto)?.1 * element_size(proto)?)
}

impl Element {
    fn size(self) -> usize {
        match self {
            Self::Float | Self::Int32 => 4,
            Self::Int64 => 8,
            Self::Bool => 1,
        }
    }
}

/// The data of a tensor as the file holds it.
enum Data {
    Raw(Vec<u8>),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
}

impl Data {
    fn check(&self, name: &str, kind: Element, count: usize) -> Result<(), OnnxError> {
        let (what, expected, found) = match self {
            Self::Raw(raw) => ("bytes of raw or external data", count * kind.size(), raw.len()),
            Self::Floats(values) => ("elements of float_data", count, values.len()),
            Self::Ints(values) => ("elements of integer data", count, values.len()),
        };
        if expected == found {
            Ok(())
        } else {
            Err(wrong(name, what, &expected.to_string(), &found.to_string()))
        }
    }

    fn floats(self) -> Vec<f32> {
        match self {
            Self::Raw(raw) => raw.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Self::Floats(values) => values,
            Self::Ints(values) => values.into_iter().map(|v| v as f32).collect(),
        }
    }

    fn ints(self, kind: Element) -> Vec<i64> {
        match (self, kind) {
            (Self::Raw(raw), Element::Int64) => {
                raw.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
            }
            (Self::Raw(raw), Element::Bool) => raw.into_iter().map(i64::from).collect(),
            (Self::Raw(raw), _) => {
                raw.as_chunks::<4>().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect()
            }
            (Self::Ints(values), _) => values,
            (Self::Floats(values), _) => values.into_iter().map(|v| v as i64).collect(),
        }
    }
}

/// Bytes of one element.
pub(crate) fn element_size(proto: &TensorProto) -> Result<usize, OnnxError> {
    Ok(element(&format!("tensor {:?}", proto.name), proto.data_type)?.size())
}

/// Whether the data are in another file.
pub(crate) fn is_external(proto: &TensorProto) -> bool {
    proto.data_location == EXTERNAL
}

/// Reads `bytes` bytes of external data after checking that they are there.
fn external(proto: &TensorProto, directory: Option<&Path>, bytes: usize) -> Result<Vec<u8>, OnnxError> {
    let (path, offset) = place(proto, directory, bytes)?;
    let io = |source| OnnxError::Io { path: path.clone(), source };
    let mut file = File::open(&path).map_err(io)?;
    file.seek(SeekFrom::Start(offset)).map_err(io)?;
    let mut data = Vec::with_capacity(bytes);
    file.take(bytes as u64).read_to_end(&mut data).map_err(io)?;
    Ok(data)
}

/// The file and offset of `bytes` bytes of external data, which are there.
pub(crate) fn place(
    proto: &TensorProto,
    directory: Option<&Path>,
    bytes: usize,
) -> Result<(PathBuf, u64), OnnxError> {
    let name = &proto.name;
    let entry = |key: &str| proto.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let number = |key: &'static str| match entry(key) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| wrong(name, key, "a number", text)),
    };
    let directory = directory.ok_or_else(|| {
        wrong(name, "data_location", "data inside the model", "external data without a directory")
    })?;
    let location = entry("location").ok_or_else(|| wrong(name, "external_data", "a location", "none"))?;
    let path = inside(name, directory, location)?;
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    let io = |source| OnnxError::Io { path: path.clone(), source };
    let size = std::fs::metadata(&path).map_err(io)?.len();
    let available = length.unwrap_or(size.saturating_sub(offset));
    if available != bytes as u64 || offset.checked_add(available).is_none_or(|end| end > size) {
        return Err(wrong(
            name,
            "external data",
            &format!("{bytes} bytes at offset {offset}"),
            &format!("{available} bytes in a file of {size}"),
        ));
    }
    Ok((path, offset))
}

/// The file at `location` under `directory`; links that lead outside are followed before the check.
fn inside(name: &str, directory: &Path, location: &str) -> Result<PathBuf, OnnxError> {
    let outside = || wrong(name, "location", "a path inside the model's directory", location);
    let relative = Path::new(location);
    if location.is_empty()
        || !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
    {
        return Err(outside());
    }
    // An empty parent means the current directory.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let resolve =
        |path: &Path| path.canonicalize().map_err(|source| OnnxError::Io { path: path.to_owned(), source });
    let (root, path) = (resolve(directory)?, resolve(&directory.join(relative))?);
    if path.starts_with(&root) && path.is_file() { Ok(path) } else { Err(outside()) }
}

fn element(what: &str, number: i32) -> Result<Element, OnnxError> {
    const NAMES: [&str; 24] = [
        "UNDEFINED",
        "FLOAT",
        "UINT8",
        "INT8",
        "UINT16",
        "INT16",
        "INT32",
        "INT64",
        "STRING",
        "BOOL",
        "FLOAT16",
        "DOUBLE",
        "UINT32",
        "UINT64",
        "COMPLEX64",
        "COMPLEX128",
        "BFLOAT16",
        "FLOAT8E4M3FN",
        "FLOAT8E4M3FNUZ",
        "FLOAT8E5M2",
        "FLOAT8E5M2FNUZ",
        "UINT4",
        "INT4",
        "FLOAT4E2M1",
    ];
    match number {
        1 => Ok(Element::Float),
        6 => Ok(Element::Int32),
        7 => Ok(Element::Int64),
        9 => Ok(Element::Bool),
        other => {
            let found = usize::try_from(other).ok().and_then(|n| NAMES.get(n));
            let found = found.map_or_else(|| other.to_string(), |name| (*name).to_owned());
            Err(OnnxError::ElementType { what: what.to_owned(), found })
        }
    }
}

pub(crate) fn array<T>(shape: &[usize], values: Vec<T>) -> ArrayD<T> {
    ArrayD::from_shape_vec(IxDyn(shape), values).expect("the count was checked")
}

fn wrong(tensor: &str, what: &'static str, expected: &str, found: &str) -> OnnxError {
    OnnxError::Tensor {
        tensor: tensor.to_owned(),
        what,
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::StringStringEntryProto;

    fn floats(dims: Vec<i64>, float_data: Vec<f32>) -> TensorProto {
        TensorProto { dims, data_type: 1, float_data, ..TensorProto::default() }
    }

    #[test]
    fn the_size_is_checked_before_anything_is_made() {
        assert!(read(floats(vec![2], vec![1.0, 2.0]), None).is_ok());
        assert!(read(floats(vec![3], vec![1.0, 2.0]), None).is_err());
        assert!(read(floats(vec![i64::MAX, i64::MAX], vec![]), None).is_err());
        assert!(read(floats(vec![-1], vec![]), None).is_err());
        let raw = TensorProto {
            dims: vec![1 << 27],
            data_type: 1,
            raw_data: Some(vec![0; 4]),
            ..Default::default()
        };
        assert!(read(raw, None).is_err());
    }

    #[test]
    fn element_types_are_refused_by_name() {
        let half = TensorProto { data_type: 10, ..TensorProto::default() };
        assert!(read(half, None).unwrap_err().to_string().contains("FLOAT16"));
    }

    #[test]
    fn external_data_stays_inside_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("model")).unwrap();
        std::fs::write(directory.path().join("secret"), [0; 8]).unwrap();
        let inner = directory.path().join("model");
        std::fs::write(inner.join("weights"), [1.5f32.to_le_bytes(), 2.5f32.to_le_bytes()].concat()).unwrap();
        let tensor = |location: &str, offset: &str| TensorProto {
            dims: vec![1],
            data_type: 1,
            data_location: EXTERNAL,
            external_data: [("location", location), ("offset", offset), ("length", "4")]
                .map(|(key, value)| StringStringEntryProto { key: key.to_owned(), value: value.to_owned() })
                .to_vec(),
            ..TensorProto::default()
        };
        let value = read(tensor("./weights", "4"), Some(&inner)).unwrap();
        assert_eq!(value.scalar("value"), Ok(2.5));
        assert!(read(tensor("weights", "8"), Some(&inner)).is_err());
        assert!(read(tensor("weights", "18446744073709551615"), Some(&inner)).is_err());
        assert!(read(tensor("../secret", "0"), Some(&inner)).is_err());
        assert!(read(tensor(directory.path().join("secret").to_str().unwrap(), "0"), Some(&inner)).is_err());
        assert!(read(tensor("weights", "0"), None).is_err());
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(directory.path().join("secret"), inner.join("link")).unwrap();
            assert!(read(tensor("link", "0"), Some(&inner)).is_err());
        }
    }
}

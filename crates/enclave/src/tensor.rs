//! Tensors on the channel: their bytes one behind the other, in an order that both sides know.

use std::fmt;

use ndarray::{ArrayD, IxDyn};
use privet_graph::{DType, Tensor};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Most axes of a tensor.
pub(crate) const MAX_RANK: usize = 16;
/// Longest name of a tensor, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 1024;

/// What a tensor consists of. Encoded by its number: new ones go to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ElementType {
    /// IEEE 754, 4 bytes, little-endian.
    #[serde(rename = "float32")]
    Float32,
    /// 8 bytes, little-endian, two's complement.
    #[serde(rename = "int64")]
    Int64,
    /// One byte, 0 or 1.
    #[serde(rename = "bool")]
    Bool,
}

impl ElementType {
    fn bytes(self) -> u64 {
        match self {
            Self::Float32 => 4,
            Self::Int64 => 8,
            Self::Bool => 1,
        }
    }
}

impl From<DType> for ElementType {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self::Float32,
            DType::I64 => Self::Int64,
            DType::Bool => Self::Bool,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float32 => "float32",
            Self::Int64 => "int64",
            Self::Bool => "bool",
        })
    }
}

/// Name, element type and shape of an input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Name in the model.
    pub name: String,
    /// What it consists of.
    pub dtype: ElementType,
    /// Its axes.
    pub shape: Vec<u64>,
}

impl TensorSpec {
    /// Of a tensor of this name.
    pub fn new(name: &str, dtype: DType, shape: &[usize]) -> Self {
        Self {
            name: name.to_owned(),
            dtype: dtype.into(),
            shape: shape.iter().map(|&axis| axis as u64).collect(),
        }
    }

    /// The shape, as this machine counts.
    pub fn axes(&self) -> Vec<usize> {
        self.shape.iter().map(|&axis| usize::try_from(axis).unwrap_or(usize::MAX)).collect()
    }

    /// How many bytes it has on the channel; the largest number where it does not fit.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().fold(self.dtype.bytes(), |product, &axis| product.saturating_mul(axis))
    }

    /// Whether a tensor is of this type and shape.
    pub(crate) fn fits(&self, tensor: &Tensor) -> bool {
        self.dtype == tensor.dtype().into() && self.axes() == tensor.shape()
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of shape {:?}", self.dtype, self.shape)
    }
}

/// Bytes of tensors together.
pub(crate) fn total(specs: &[TensorSpec]) -> u64 {
    specs.iter().map(TensorSpec::bytes).fold(0, u64::saturating_add)
}

/// Appends a tensor's elements in row-major order.
pub(crate) fn append(bytes: &mut Vec<u8>, tensor: &Tensor) {
    match tensor {
        Tensor::F32(a) => a.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes())),
        Tensor::I64(a) => a.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes())),
        Tensor::Bool(a) => a.iter().for_each(|&v| bytes.push(u8::from(v))),
    }
}

/// Room for `front` bytes and these tensors, which does not grow and leave copies.
pub(crate) fn room(front: usize, tensors: &[Tensor]) -> Zeroizing<Vec<u8>> {
    let bytes = |t: &Tensor| t.len() as u64 * ElementType::from(t.dtype()).bytes();
    Zeroizing::new(Vec::with_capacity(front + tensors.iter().map(bytes).sum::<u64>() as usize))
}

/// Reads tensors that fill the bytes exactly.
///
/// # Errors
/// In words: other lengths, truth values that are neither 0 nor 1.
pub(crate) fn read(specs: &[TensorSpec], mut bytes: &[u8]) -> Result<Vec<Tensor>, String> {
    if bytes.len() as u64 != total(specs) {
        return Err(format!("expected tensors of {} bytes, found {}", total(specs), bytes.len()));
    }
    let mut tensors = Vec::with_capacity(specs.len());
    for spec in specs {
        // Their sum is the length of a slice.
        let (own, rest) = bytes.split_at(spec.bytes() as usize);
        bytes = rest;
        let shape = IxDyn(&spec.axes());
        let fail = |_| format!("tensor {:?}: impossible shape {:?}", spec.name, spec.shape);
        let tensor = match spec.dtype {
            ElementType::Float32 => {
                let (values, _) = own.as_chunks::<4>();
                let values = values.iter().map(|v| f32::from_le_bytes(*v)).collect();
                ArrayD::from_shape_vec(shape, values).map_err(fail)?.into()
            }
            ElementType::Int64 => {
                let (values, _) = own.as_chunks::<8>();
                let values = values.iter().map(|v| i64::from_le_bytes(*v)).collect();
                ArrayD::from_shape_vec(shape, values).map_err(fail)?.into()
            }
            ElementType::Bool => {
                if own.iter().any(|&v| v > 1) {
                    return Err(format!("tensor {:?}: truth values other than 0 and 1", spec.name));
                }
                let values = own.iter().map(|&v| v == 1).collect();
                ArrayD::from_shape_vec(shape, values).map_err(fail)?.into()
            }
        };
        tensors.push(tensor);
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_come_back_and_nothing_else_does() {
        let floats: Tensor = ArrayD::from_shape_fn(IxDyn(&[2, 3]), |i| (i[0] * 3 + i[1]) as f32 - 2.5).into();
        let ints: Tensor = ArrayD::from_shape_vec(IxDyn(&[2]), vec![i64::MIN, 7]).unwrap().into();
        let truths: Tensor = ArrayD::from_shape_vec(IxDyn(&[3]), vec![true, false, true]).unwrap().into();
        let tensors = [floats, ints, truths];
        let specs: Vec<TensorSpec> =
            tensors.iter().map(|t| TensorSpec::new("x", t.dtype(), t.shape())).collect();
        let mut bytes = room(0, &tensors);
        let capacity = bytes.capacity();
        tensors.iter().for_each(|t| append(&mut bytes, t));
        assert_eq!((bytes.len(), bytes.capacity()), (24 + 16 + 3, capacity));
        let back = read(&specs, &bytes).unwrap();
        for (found, expected) in back.iter().zip(&tensors) {
            let same = match (found, expected) {
                (Tensor::F32(a), Tensor::F32(b)) => a == b,
                (Tensor::I64(a), Tensor::I64(b)) => a == b,
                (Tensor::Bool(a), Tensor::Bool(b)) => a == b,
                _ => false,
            };
            assert!(same);
        }
        assert!(read(&specs, &bytes[1..]).unwrap_err().contains("43 bytes, found 42"));
        *bytes.last_mut().unwrap() = 2;
        assert!(read(&specs, &bytes).unwrap_err().contains("truth values"));
        let huge = TensorSpec { shape: vec![u64::MAX, 2], ..specs[0].clone() };
        assert!(read(&[huge], &bytes).is_err());
    }
}

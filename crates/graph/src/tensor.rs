//! Tensors of the three element types the graph knows.

use ndarray::{ArrayD, IxDyn};

use crate::OpError;

/// Most elements of one tensor; what a file or a shape chain asks for beyond that is refused before allocating.
pub const MAX_ELEMENTS: usize = 1 << 28;

/// Most axes of a tensor.
pub const MAX_RANK: usize = 12;

/// Element type. Narrower integers are held as `I64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 64-bit signed integer.
    I64,
    /// Boolean.
    Bool,
}

/// A dense tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Tensor {
    /// 32-bit floats.
    F32(ArrayD<f32>),
    /// 64-bit signed integers.
    I64(ArrayD<i64>),
    /// Booleans.
    Bool(ArrayD<bool>),
}

impl Tensor {
    /// Element type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::I64(_) => DType::I64,
            Self::Bool(_) => DType::Bool,
        }
    }

    /// Shape.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32(a) => a.shape(),
            Self::I64(a) => a.shape(),
            Self::Bool(a) => a.shape(),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The floats, or an error that names `what`.
    pub fn floats(&self, what: &'static str) -> Result<&ArrayD<f32>, OpError> {
        match self {
            Self::F32(a) => Ok(a),
            other => Err(OpError::mismatch(what, "float32", format!("{:?}", other.dtype()))),
        }
    }

    /// The integers in row-major order, or an error that names `what`.
    pub fn ints(&self, what: &'static str) -> Result<Vec<i64>, OpError> {
        match self {
            Self::I64(a) => Ok(a.iter().copied().collect()),
            other => Err(OpError::mismatch(what, "int64", format!("{:?}", other.dtype()))),
        }
    }

    /// The one float of a tensor with one element, or an error that names `what`.
    pub fn scalar(&self, what: &'static str) -> Result<f32, OpError> {
        let floats = self.floats(what)?;
        match (floats.len(), floats.first()) {
            (1, Some(&value)) => Ok(value),
            _ => Err(OpError::mismatch(what, "one element", format!("shape {:?}", floats.shape()))),
        }
    }

    /// A one-dimensional integer tensor.
    pub fn from_ints(values: Vec<i64>) -> Self {
        let shape = IxDyn(&[values.len()]);
        Self::I64(ArrayD::from_shape_vec(shape, values).expect("the shape is the length"))
    }

    /// A float tensor without axes.
    pub fn from_scalar(value: f32) -> Self {
        Self::F32(ArrayD::from_elem(IxDyn(&[]), value))
    }
}

impl From<ArrayD<f32>> for Tensor {
    fn from(a: ArrayD<f32>) -> Self {
        Self::F32(a)
    }
}

impl From<ArrayD<i64>> for Tensor {
    fn from(a: ArrayD<i64>) -> Self {
        Self::I64(a)
    }
}

impl From<ArrayD<bool>> for Tensor {
    fn from(a: ArrayD<bool>) -> Self {
        Self::Bool(a)
    }
}

/// Number of elements of a shape; refuses more than [`MAX_ELEMENTS`] elements and more than [`MAX_RANK`] axes.
pub fn element_count(what: &'static str, shape: &[usize]) -> Result<usize, OpError> {
    if shape.len() > MAX_RANK {
        return Err(OpError::unsupported(
            format!("{what} with {} axes", shape.len()),
            "tensors of at most 12 axes",
        ));
    }
    // Zeros are skipped so that the other dimensions of an empty tensor stay bounded too.
    let bounded = shape
        .iter()
        .filter(|&&d| d > 0)
        .try_fold(1usize, |n, &d| n.checked_mul(d).filter(|&n| n <= MAX_ELEMENTS));
    match bounded {
        Some(n) => Ok(if shape.contains(&0) { 0 } else { n }),
        None => Err(OpError::TooLarge { what, shape: shape.to_vec(), limit: MAX_ELEMENTS }),
    }
}

/// An array in row-major order, whatever the layout it came in.
pub(crate) fn contiguous<T: Clone>(a: &ArrayD<T>) -> std::borrow::Cow<'_, [T]> {
    match a.as_slice() {
        Some(slice) => slice.into(),
        None => a.iter().cloned().collect::<Vec<T>>().into(),
    }
}

/// An array of `shape` over row-major `values`, which are as many as the shape says.
pub(crate) fn array<T>(shape: &[usize], values: Vec<T>) -> ArrayD<T> {
    ArrayD::from_shape_vec(IxDyn(shape), values).expect("as many values as the shape says")
}

/// The axis that a possibly negative ONNX axis means, below `limit`.
pub(crate) fn axis(what: &'static str, axis: i64, limit: usize) -> Result<usize, OpError> {
    let wrapped = if axis < 0 { axis.checked_add(limit as i64) } else { Some(axis) };
    match wrapped.and_then(|a| usize::try_from(a).ok()).filter(|&a| a < limit) {
        Some(a) => Ok(a),
        None => Err(OpError::mismatch(what, format!("an axis in -{limit}..{limit}"), axis)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_count_is_bounded_even_when_a_dimension_is_zero() {
        assert_eq!(element_count("x", &[2, 3]), Ok(6));
        assert_eq!(element_count("x", &[0, 3]), Ok(0));
        assert!(element_count("x", &[usize::MAX, 2]).is_err());
        assert!(element_count("x", &[0, usize::MAX, 2]).is_err());
        assert!(element_count("x", &[1; 13]).is_err());
    }

    #[test]
    fn negative_axes_count_from_the_end() {
        assert_eq!(axis("axis", -1, 4), Ok(3));
        assert!(
            axis("axis", 4, 4).is_err() && axis("axis", -5, 4).is_err() && axis("axis", i64::MIN, 4).is_err()
        );
    }
}

//! Where weights come from, and the memory that they are in.

use std::ops::{Deref, DerefMut, Range};

use privet_onnx::ModelFile;
use privet_seal::SecretBuffer;

use crate::SplitError;

/// Weights in memory.
pub enum Memory {
    /// Ordinary memory.
    Plain(Vec<f32>),
    /// Pages that are wiped when they are dropped; a multiple of four bytes.
    Secret(SecretBuffer),
}

impl Deref for Memory {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Plain(values) => values,
            // Pages begin where floats may.
            Self::Secret(bytes) => bytemuck::cast_slice(bytes),
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Plain(values) => values,
            Self::Secret(bytes) => bytemuck::cast_slice_mut(bytes),
        }
    }
}

/// Gives weights tensor by tensor, row block by row block.
///
/// A *row* is what belongs to one index of a tensor's first axis: one filter of a convolution, one row of a matrix. What is
/// asked for lies in order: an implementation may read ahead.
pub trait WeightSource {
    /// Fills `into` with the rows `rows` of the tensor `name`, row-major.
    ///
    /// # Errors
    /// There is no such tensor, it has other rows, or they cannot be read.
    fn rows(&mut self, name: &str, rows: Range<usize>, into: &mut [f32]) -> Result<(), SplitError>;

    /// Memory for so many weights.
    ///
    /// # Errors
    /// If there is none.
    fn memory(&self, len: usize) -> Result<Memory, SplitError> {
        Ok(Memory::Plain(vec![0.0; len]))
    }

    /// The tensor `name` of shape `shape` as a whole.
    ///
    /// # Errors
    /// As [`WeightSource::rows`] and [`WeightSource::memory`].
    fn whole(&mut self, name: &str, shape: &[usize]) -> Result<Memory, SplitError> {
        let mut values = self.memory(shape.iter().product())?;
        self.rows(name, 0..shape.first().copied().unwrap_or(1), &mut values)?;
        Ok(values)
    }
}

/// Weights as they lie in an ONNX file.
impl WeightSource for ModelFile {
    fn rows(&mut self, name: &str, rows: Range<usize>, into: &mut [f32]) -> Result<(), SplitError> {
        let row = if rows.is_empty() { 0 } else { into.len() / rows.len() };
        Ok(self.read(name, rows.start * row, into)?)
    }
}

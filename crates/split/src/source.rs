//! Where weights come from.

use std::ops::Range;

use privet_onnx::ModelFile;

use crate::SplitError;

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
}

/// Weights as they lie in an ONNX file.
impl WeightSource for ModelFile {
    fn rows(&mut self, name: &str, rows: Range<usize>, into: &mut [f32]) -> Result<(), SplitError> {
        let row = if rows.is_empty() { 0 } else { into.len() / rows.len() };
        Ok(self.read(name, rows.start * row, into)?)
    }
}

//! Tables of numbers, separated by commas, without a header line.

use std::path::Path;

use ::csv::{ReaderBuilder, Trim};
use ndarray::{ArrayD, IxDyn};

use super::{InputError, fit_to_shape};

/// Reads the numbers in row-major order into `shape`: how they are broken into lines does not matter, as long as
/// all lines are equally long.
pub(super) fn decode(path: &Path, bytes: &[u8], shape: &[usize]) -> Result<ArrayD<f32>, InputError> {
    let expected = shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .ok_or_else(|| InputError::csv(path, format!("no table is as large as {shape:?}")))?;
    let count =
        |found, more| InputError::Count { path: path.into(), shape: shape.to_vec(), expected, found, more };
    let mut reader = ReaderBuilder::new().has_headers(false).trim(Trim::All).from_reader(bytes);
    let mut values = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| InputError::csv(path, e.to_string()))?;
        for (column, field) in record.iter().enumerate() {
            let value: f32 = field.parse().map_err(|_| {
                let line = record.position().map_or(0, ::csv::Position::line);
                let reason = format!("line {line}, column {}: not a number", column + 1);
                InputError::csv(path, reason)
            })?;
            if values.len() == expected {
                return Err(count(expected + 1, true));
            }
            values.push(value);
        }
    }
    let found = values.len();
    let array = ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|_| count(found, false))?;
    fit_to_shape(path.display().to_string(), array, shape)
}

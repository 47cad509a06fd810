//! Numpy broadcasting.

use ndarray::{ArrayD, IxDyn, Zip};

use crate::{Channel, OpError, Tensor, element_count};

/// The shape two operands broadcast to.
pub(crate) fn shape(a: &[usize], b: &[usize]) -> Result<Vec<usize>, OpError> {
    let rank = a.len().max(b.len());
    let dim = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |at| s[at]);
    let result: Vec<usize> = (0..rank)
        .map(|i| match (dim(a, i), dim(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(OpError::mismatch("operands", "shapes that broadcast", format!("{a:?} and {b:?}"))),
        })
        .collect::<Result<_, _>>()?;
    element_count("result", &result)?;
    Ok(result)
}

/// Applies `f` to floats or `g` to integers, elementwise with broadcasting.
pub(crate) fn zip(
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(f32, f32) -> f32,
    g: impl Fn(i64, i64) -> Option<i64>,
) -> Result<Tensor, OpError> {
    let to = shape(a.shape(), b.shape())?;
    match (a, b) {
        (Tensor::F32(a), Tensor::F32(b)) => Ok(zip_arrays(a, b, &to, f).into()),
        (Tensor::I64(a), Tensor::I64(b)) => {
            let results = zip_arrays(a, b, &to, g);
            if results.iter().any(Option::is_none) {
                // Without the operands: they may be somebody's input, and whoever reads this need not be the one whose it is.
                let found = "an overflow, or a division by zero";
                return Err(OpError::mismatch("integers", "a 64-bit result", found));
            }
            Ok(results.mapv(Option::unwrap_or_default).into())
        }
        _ => Err(OpError::mismatch(
            "element types",
            "two float32 or two int64",
            format!("{:?} and {:?}", a.dtype(), b.dtype()),
        )),
    }
}

/// The values of `constant`, one per channel, if adding it to (or multiplying it with) `channel.shape` treats all
/// elements of a channel alike and leaves the shape as it is.
pub(crate) fn per_channel(constant: &ArrayD<f32>, channel: Channel<'_>) -> Option<Vec<f64>> {
    let (rank, own) = (channel.shape.len(), constant.shape());
    let skip = rank.checked_sub(own.len())?;
    let channels = channel.shape[channel.axis];
    let fits = |(i, &d): (usize, &usize)| d == 1 || (i + skip == channel.axis && d == channels);
    if !own.iter().enumerate().all(fits) {
        return None;
    }
    let values = constant.iter().map(|&v| f64::from(v));
    match constant.len() {
        1 => Some(vec![values.last()?; channels]),
        n if n == channels => Some(values.collect()),
        _ => None,
    }
}

/// Applies `f` elementwise with broadcasting.
pub(crate) fn zip_arrays_of<T: Copy, R>(
    a: &ArrayD<T>,
    b: &ArrayD<T>,
    f: impl Fn(T, T) -> R,
) -> Result<ArrayD<R>, OpError> {
    Ok(zip_arrays(a, b, &shape(a.shape(), b.shape())?, f))
}

fn zip_arrays<T, R>(a: &ArrayD<T>, b: &ArrayD<T>, to: &[usize], f: impl Fn(T, T) -> R) -> ArrayD<R>
where
    T: Copy,
{
    let a = a.broadcast(IxDyn(to)).expect("the shapes broadcast");
    let b = b.broadcast(IxDyn(to)).expect("the shapes broadcast");
    Zip::from(a).and(b).map_collect(|&x, &y| f(x, y))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::array;

    #[test]
    fn shapes_broadcast_as_in_numpy() {
        assert_eq!(shape(&[2, 1, 4], &[3, 1]), Ok(vec![2, 3, 4]));
        assert_eq!(shape(&[], &[5]), Ok(vec![5]));
        assert!(shape(&[2], &[3]).is_err());
    }

    #[test]
    fn integer_overflow_is_an_error_that_does_not_quote_the_operands() {
        let a: Tensor = array(&[2], vec![1, i64::MAX]).into();
        let b: Tensor = array(&[2], vec![4711, 4711]).into();
        let error = zip(&a, &b, |x, _| x, i64::checked_add).unwrap_err().to_string();
        assert!(error.contains("overflow") && !error.contains("4711") && !error.contains("92233"), "{error}");
        let zero: Tensor = array(&[2], vec![1, 0]).into();
        let error = zip(&b, &zero, |x, _| x, i64::checked_div).unwrap_err().to_string();
        assert!(error.contains("division by zero") && !error.contains("4711"), "{error}");
    }

    #[test]
    fn per_channel_constants_are_recognised() {
        let of = |shape: &[usize]| array(shape, vec![1.0f32; shape.iter().product()]);
        let channel = Channel { shape: &[1, 3, 4, 4], axis: 1 };
        assert_eq!(per_channel(&of(&[3, 1, 1]), channel).map(|v| v.len()), Some(3));
        assert_eq!(per_channel(&of(&[]), channel).map(|v| v.len()), Some(3));
        assert!(per_channel(&of(&[4]), channel).is_none());
        assert!(per_channel(&of(&[1, 1, 3, 1, 1]), channel).is_none());
    }
}

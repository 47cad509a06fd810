//! What convolution and pooling declare about their windows, and the positions a window reads.

use privet_plan::Window;

use crate::{MAX_ELEMENTS, OpError, element_count};

/// How padding is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoPad {
    /// As declared.
    #[default]
    NotSet,
    /// As much as gives `ceil(input / stride)` positions; an odd element goes to the end.
    SameUpper,
    /// As much as gives `ceil(input / stride)` positions; an odd element goes to the beginning.
    SameLower,
    /// None.
    Valid,
}

/// A window as a model declares it; lists left out stand for ones (pads: zeros).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowSpec {
    /// Kernel size; convolution may take it from the weight.
    pub kernel: Option<Vec<i64>>,
    /// Step between positions.
    pub strides: Option<Vec<i64>>,
    /// Step between kernel elements.
    pub dilations: Option<Vec<i64>>,
    /// All beginnings, then all ends.
    pub pads: Option<Vec<i64>>,
    /// Who chooses the padding.
    pub auto_pad: AutoPad,
    /// Whether a last partial window counts.
    pub ceil_mode: bool,
}

impl WindowSpec {
    /// The window over `spatial` with kernel `kernel`, and the number of positions per axis.
    pub fn resolve(&self, kernel: &[usize], spatial: &[usize]) -> Result<(Window, Vec<usize>), OpError> {
        let axes = spatial.len();
        if axes == 0 || kernel.len() != axes {
            return Err(OpError::mismatch(
                "kernel_shape",
                "one size per spatial axis, at least one",
                format!("kernel {kernel:?} over {spatial:?}"),
            ));
        }
        if let Some(declared) = &self.kernel
            && !declared.iter().map(|&k| usize::try_from(k).ok()).eq(kernel.iter().map(|&k| Some(k)))
        {
            return Err(OpError::mismatch("kernel_shape", format!("{kernel:?}"), format!("{declared:?}")));
        }
        let ones = vec![1; axes];
        let mut window = Window {
            kernel: kernel.iter().map(|&k| u32::try_from(k).unwrap_or(u32::MAX)).collect(),
            stride: small("strides", self.strides.as_ref().unwrap_or(&ones), axes)?,
            dilation: small("dilations", self.dilations.as_ref().unwrap_or(&ones), axes)?,
            pad_begin: vec![0; axes],
            pad_end: vec![0; axes],
        };
        if let Some(pads) = &self.pads {
            let pads = small("pads (negative ones are not supported)", pads, 2 * axes)?;
            if self.auto_pad == AutoPad::NotSet {
                window.pad_begin = pads[..axes].to_vec();
                window.pad_end = pads[axes..].to_vec();
            } else if pads.iter().any(|&p| p != 0) {
                return Err(OpError::mismatch("pads", "none together with auto_pad", format!("{pads:?}")));
            }
        }
        if !window.is_well_formed(axes) || spatial.iter().any(|&s| s >= 1 << 24) {
            return Err(OpError::mismatch(
                "window",
                "positive sizes, strides and dilations below 2^24",
                format!("{window:?} over {spatial:?}"),
            ));
        }
        self.choose_padding(&mut window, spatial);
        let out = window.output(spatial, self.ceil_mode).ok_or_else(|| {
            OpError::mismatch(
                "window",
                "a kernel that fits the padded input",
                format!("{window:?} over {spatial:?}"),
            )
        })?;
        Ok((window, out))
    }

    fn choose_padding(&self, window: &mut Window, spatial: &[usize]) {
        let upper = match self.auto_pad {
            AutoPad::NotSet | AutoPad::Valid => return,
            AutoPad::SameUpper => true,
            AutoPad::SameLower => false,
        };
        for (axis, &size) in spatial.iter().enumerate() {
            let stride = window.stride[axis] as usize;
            let reach = (size.div_ceil(stride).max(1) - 1) * stride + window.extent(axis);
            let total = reach.saturating_sub(size) as u32;
            let (less, more) = (total / 2, total - total / 2);
            (window.pad_begin[axis], window.pad_end[axis]) = if upper { (less, more) } else { (more, less) };
        }
    }
}

/// Most entries of a position table: kernel elements times output positions of one plane.
const MAX_POSITIONS: usize = 1 << 26;

/// Marks a position in the padding.
pub(crate) const PADDING: u32 = u32::MAX;

/// For every kernel position (slow) and output position (fast) the flat input position that it reads.
pub(crate) fn positions(window: &Window, spatial: &[usize], out: &[usize]) -> Result<Vec<u32>, OpError> {
    element_count("input plane", spatial)?;
    let out_len = element_count("output plane", out)?;
    let shape = vec![window.kernel_len(), out_len];
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= MAX_POSITIONS);
    let Some(count) = count else {
        return Err(OpError::TooLarge { what: "window positions", shape, limit: MAX_POSITIONS });
    };
    let kernel: Vec<usize> = window.kernel.iter().map(|&k| k as usize).collect();
    let mut table = Vec::with_capacity(count);
    for k in 0..window.kernel_len() {
        let k = unravel(k, &kernel);
        for o in 0..out_len {
            let o = unravel(o, out);
            let flat = (0..spatial.len()).try_fold(0, |flat, axis| {
                let at = window.input_position(axis, o[axis], k[axis], spatial[axis])?;
                Some(flat * spatial[axis] + at)
            });
            table.push(flat.map_or(PADDING, |f| f as u32));
        }
    }
    debug_assert!(MAX_ELEMENTS < PADDING as usize, "flat positions fit below the mark");
    Ok(table)
}

/// Errors when some output position reads nothing but padding.
pub(crate) fn every_window_reads(window: &Window, spatial: &[usize], out: &[usize]) -> Result<(), OpError> {
    // The positions of a window are a product over axes, so it reads something iff it does so on every axis.
    let all =
        (0..spatial.len()).all(|axis| (0..out[axis]).all(|o| window.reads_input(axis, o, spatial[axis])));
    if all {
        Ok(())
    } else {
        Err(OpError::unsupported(format!("a window that covers only padding ({window:?})"), "smaller pads"))
    }
}

/// Most axes: enough for any tensor.
type Position = [usize; crate::MAX_RANK];

fn unravel(mut flat: usize, shape: &[usize]) -> Position {
    let mut position = [0; crate::MAX_RANK];
    for axis in (0..shape.len()).rev() {
        position[axis] = flat % shape[axis];
        flat /= shape[axis];
    }
    position
}

fn small(what: &'static str, list: &[i64], len: usize) -> Result<Vec<u32>, OpError> {
    let values: Option<Vec<u32>> =
        list.iter().map(|&v| u32::try_from(v).ok().filter(|&v| v < 1 << 24)).collect();
    match values.filter(|v| v.len() == len) {
        Some(values) => Ok(values),
        None => Err(OpError::mismatch(what, format!("{len} numbers from 0 to 2^24"), format!("{list:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_puts_the_odd_element_last_or_first() {
        let spec = |auto_pad| WindowSpec { strides: Some(vec![2]), auto_pad, ..WindowSpec::default() };
        let (upper, out) = spec(AutoPad::SameUpper).resolve(&[3], &[4]).unwrap();
        assert_eq!((upper.pad_begin[0], upper.pad_end[0], out[0]), (0, 1, 2));
        let (lower, out) = spec(AutoPad::SameLower).resolve(&[3], &[4]).unwrap();
        assert_eq!((lower.pad_begin[0], lower.pad_end[0], out[0]), (1, 0, 2));
        let (valid, out) = spec(AutoPad::Valid).resolve(&[3], &[4]).unwrap();
        assert_eq!((valid.pad_begin[0], out[0]), (0, 1));
    }

    #[test]
    fn contradictions_are_refused() {
        let pads = WindowSpec { pads: Some(vec![-1, 0]), ..WindowSpec::default() };
        assert!(pads.resolve(&[2], &[4]).is_err());
        let both =
            WindowSpec { pads: Some(vec![1, 1]), auto_pad: AutoPad::SameUpper, ..WindowSpec::default() };
        assert!(both.resolve(&[2], &[4]).is_err());
        let zero = WindowSpec { strides: Some(vec![0]), ..WindowSpec::default() };
        assert!(zero.resolve(&[2], &[4]).is_err());
        assert!(WindowSpec::default().resolve(&[5], &[4]).is_err());
    }

    #[test]
    fn positions_of_a_padded_window() {
        let spec = WindowSpec { pads: Some(vec![1, 0]), ..WindowSpec::default() };
        let (window, out) = spec.resolve(&[2], &[3]).unwrap();
        assert_eq!(positions(&window, &[3], &out).unwrap(), [PADDING, 0, 1, 0, 1, 2]);
    }
}

//! Sliding-window geometry of convolution and pooling, for any number of spatial axes.

use serde::{Deserialize, Serialize};

/// A sliding window over the spatial axes of a `[N, C, spatial..]` tensor, one entry per spatial axis.
///
/// Output position `o` and kernel position `k` of an axis read input position
/// `o * stride + k * dilation - pad_begin`; positions outside the input are padding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Kernel size.
    pub kernel: Vec<u32>,
    /// Step between output positions.
    pub stride: Vec<u32>,
    /// Step between kernel positions.
    pub dilation: Vec<u32>,
    /// Padding before the first element.
    pub pad_begin: Vec<u32>,
    /// Padding after the last element (what the model declares; `ceil_mode` overhang is not counted here).
    pub pad_end: Vec<u32>,
}

impl Window {
    /// A window that covers the whole of `spatial`, without padding: global pooling.
    pub fn global(spatial: &[usize]) -> Self {
        let n = spatial.len();
        Self {
            kernel: spatial.iter().map(|&s| s as u32).collect(),
            stride: vec![1; n],
            dilation: vec![1; n],
            pad_begin: vec![0; n],
            pad_end: vec![0; n],
        }
    }

    /// Number of spatial axes.
    pub fn axes(&self) -> usize {
        self.kernel.len()
    }

    /// Number of kernel positions.
    pub fn kernel_len(&self) -> usize {
        self.kernel.iter().map(|&k| k as usize).product()
    }

    /// Whether all lists have one entry per axis, sizes and steps are positive and everything stays below 2^24.
    pub fn is_well_formed(&self, axes: usize) -> bool {
        let lists = [&self.kernel, &self.stride, &self.dilation, &self.pad_begin, &self.pad_end];
        let small = |list: &Vec<u32>| list.iter().all(|&v| v < 1 << 24);
        lists.iter().all(|l| l.len() == axes && small(l))
            && [&self.kernel, &self.stride, &self.dilation].iter().all(|l| l.iter().all(|&v| v > 0))
    }

    /// Kernel extent of one axis in input positions, dilation included.
    pub fn extent(&self, axis: usize) -> usize {
        (self.kernel[axis] as usize - 1) * self.dilation[axis] as usize + 1
    }

    /// Output sizes for the given input sizes; `None` when the padded input is smaller than the kernel.
    ///
    /// With `ceil`, a last partial window counts if it starts inside the input or the leading padding (PyTorch's and ONNX's rule).
    pub fn output(&self, spatial: &[usize], ceil: bool) -> Option<Vec<usize>> {
        (0..self.axes())
            .map(|a| {
                let (begin, end) = (self.pad_begin[a] as usize, self.pad_end[a] as usize);
                let stride = self.stride[a] as usize;
                let room = (spatial[a] + begin + end).checked_sub(self.extent(a))?;
                let mut out = room / stride + 1;
                if ceil && !room.is_multiple_of(stride) && out * stride < spatial[a] + begin {
                    out += 1;
                }
                Some(out)
            })
            .collect()
    }

    /// Input position that output position `out` and kernel position `k` of `axis` read, if it is not padding.
    #[inline]
    pub fn input_position(&self, axis: usize, out: usize, k: usize, size: usize) -> Option<usize> {
        let padded = out * self.stride[axis] as usize + k * self.dilation[axis] as usize;
        padded.checked_sub(self.pad_begin[axis] as usize).filter(|&p| p < size)
    }

    /// Whether output position `out` of `axis` reads at least one element of an input of `size`, in constant time: looks
    /// only at the first kernel position behind the leading padding.
    pub fn reads_input(&self, axis: usize, out: usize, size: usize) -> bool {
        let padding = (self.pad_begin[axis] as usize).saturating_sub(out * self.stride[axis] as usize);
        let k = padding.div_ceil(self.dilation[axis] as usize);
        k < self.kernel[axis] as usize && self.input_position(axis, out, k, size).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(kernel: u32, stride: u32, dilation: u32, pads: (u32, u32)) -> Window {
        Window {
            kernel: vec![kernel],
            stride: vec![stride],
            dilation: vec![dilation],
            pad_begin: vec![pads.0],
            pad_end: vec![pads.1],
        }
    }

    #[test]
    fn output_sizes() {
        assert_eq!(window(3, 2, 1, (0, 0)).output(&[224], false), Some(vec![111]));
        assert_eq!(window(3, 2, 1, (0, 0)).output(&[6], true), Some(vec![3]));
        assert_eq!(window(2, 2, 1, (1, 0)).output(&[4], true), Some(vec![3]));
        assert_eq!(window(3, 1, 2, (1, 2)).output(&[7], false), Some(vec![6]));
        assert_eq!(window(3, 1, 1, (0, 0)).output(&[2], false), None);
    }

    #[test]
    fn padding_is_not_an_input_position() {
        let w = window(3, 2, 1, (1, 1));
        assert_eq!(w.input_position(0, 0, 0, 4), None);
        assert_eq!(w.input_position(0, 0, 1, 4), Some(0));
        assert_eq!(w.input_position(0, 2, 1, 4), None);
        assert!(
            (0..3).all(|o| w.reads_input(0, o, 4) == (0..3).any(|k| w.input_position(0, o, k, 4).is_some()))
        );
        assert!(!window(2, 1, 1, (3, 0)).reads_input(0, 0, 4));
    }
}

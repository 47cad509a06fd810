//! How a model is compiled, and what is chosen where nothing is said.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use ndarray::ArrayD;
pub(super) use privet_graph::Compiled as Lowered;

/// Fractional bits in a 64-bit ring without calibration, and the most that is chosen for a narrower one.
pub const DEFAULT_FRAC_BITS: u32 = 16;

/// Fractional bits that calibration chooses from.
pub const FRAC_BITS: RangeInclusive<u32> = 4..=24;

/// Error on the calibration inputs that fractional bits are chosen for, relative to the largest value of an output.
pub const DEFAULT_TOLERANCE: f64 = 1e-3;

/// Head room over the largest magnitude that calibration sees. Two bits wider rings; in return an input may be four
/// times as extreme as those seen before a wire overflows.
pub const MARGIN: u32 = 4;

/// How a model is compiled.
#[derive(Debug, Clone, Default)]
pub struct CompileOptions {
    /// Ring width in bits. Default: 64, or with calibration the smallest that fits.
    pub ring: Option<u32>,
    /// Fractional bits. Default: 16, in a narrower ring of l bits `min(16, (l - 10) / 2)`; with calibration the fewest
    /// that keep to the tolerance.
    pub frac_bits: Option<u32>,
    /// Typical inputs, each as [`super::load_inputs`] takes it; ranges follow from what the model does with them.
    pub calibrate: Vec<PathBuf>,
    /// More typical inputs, as arrays in the order of the model's inputs.
    pub samples: Vec<Vec<ArrayD<f32>>>,
    /// Head room over what calibration sees, at least 1. Default: [`MARGIN`].
    pub margin: Option<u32>,
    /// See [`DEFAULT_TOLERANCE`].
    pub tolerance: Option<f64>,
    /// Values that inputs may have: `0,1` for all, or `name=-2.5,2.5`. Others are refused before an inference.
    pub input_ranges: Vec<String>,
    /// `imagenet`, `mnist`, `none` or a TOML file. Default: `none`.
    pub preprocess: Option<String>,
    /// File with one label per line.
    pub labels: Option<PathBuf>,
    /// Shapes of inputs that the model leaves open: `1,3,224,224` for the only one, or `name=1,3,224,224`.
    pub input_shapes: Vec<String>,
}

impl CompileOptions {
    /// Whether there are inputs to calibrate with.
    pub fn is_calibrated(&self) -> bool {
        !self.calibrate.is_empty() || !self.samples.is_empty()
    }
}

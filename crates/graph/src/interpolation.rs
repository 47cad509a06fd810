//! How resizing computes each element of an axis from elements of the old axis: always the same few weights, whatever
//! the data is.
//!
//! Coordinates are computed in 32-bit floats, like ONNX Runtime does: which of two elements is nearest at a tie depends
//! on it.

/// How a coordinate of the result becomes one of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coordinates {
    /// Elements have a middle, which is what is scaled.
    HalfPixel,
    /// The same, with the data's middle in the result's when the scaled length was rounded.
    HalfPixelSymmetric,
    /// The same as half-pixel, but an axis of length 1 reads the first element.
    PytorchHalfPixel,
    /// Half-pixel without moving back by half an element.
    TfHalfPixelForNn,
    /// First elements and last elements coincide.
    AlignCorners,
    /// First elements coincide.
    Asymmetric,
    /// A region of the data is cut out and scaled.
    TfCropAndResize,
}

/// Which of the neighbours is nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// The nearer one, at a tie the left one.
    PreferFloor,
    /// The nearer one, at a tie the right one.
    PreferCeil,
    /// The left one.
    Floor,
    /// The right one.
    Ceil,
    /// The left one when the axis grows, the right one when it shrinks: resizing before opset 11.
    ByDirection,
}

/// The weights of neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Interpolation {
    /// One neighbour.
    Nearest(Rounding),
    /// Two neighbours.
    Linear,
    /// Four neighbours, with the kernel's free parameter a.
    Cubic(f32),
}

/// Resizing of one axis.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AxisResize {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) scale: f32,
    /// Beginning and end of the region that is cut out, as fractions of the axis.
    pub(crate) region: (f32, f32),
    pub(crate) interpolation: Interpolation,
    pub(crate) coordinates: Coordinates,
    /// Whether shrinking widens the kernel.
    pub(crate) antialias: bool,
    /// Whether neighbours outside the data count nothing, instead of as the nearest element inside.
    pub(crate) exclude_outside: bool,
}

/// Positions and weights of one element, or nothing if it lies outside the data.
pub(crate) type Weights = Option<Vec<(usize, f64)>>;

impl AxisResize {
    /// Whether every element stays what and where it is.
    pub(crate) fn is_identity(&self) -> bool {
        let crops = self.coordinates == Coordinates::TfCropAndResize;
        self.scale == 1.0 && self.from == self.to && !(crops && self.region != (0.0, 1.0))
    }

    /// No fewer than [`Self::weights`] holds in all.
    pub(crate) fn terms(&self) -> usize {
        if self.is_identity() {
            return self.to;
        }
        let reach = if matches!(self.interpolation, Interpolation::Cubic(_)) { 2.0 } else { 1.0 };
        (self.to as f64 * (2.0 * reach / self.stretch()).ceil()) as usize
    }

    /// By how much the kernel is compressed when an axis shrinks.
    fn stretch(&self) -> f64 {
        if self.antialias { f64::from(self.scale).min(1.0) } else { 1.0 }
    }

    /// The weights of every element of the result's axis.
    pub(crate) fn weights(&self) -> Vec<Weights> {
        let crops = self.coordinates == Coordinates::TfCropAndResize;
        if self.is_identity() {
            return (0..self.to).map(|o| Some(vec![(o, 1.0)])).collect();
        }
        let last = self.from as f32 - 1.0;
        let weights = |o: usize| {
            let at = self.coordinate(o as f32);
            let outside = crops && !(0.0..=last).contains(&at);
            if outside { None } else { Some(self.neighbours(at)) }
        };
        (0..self.to).map(weights).collect()
    }

    fn coordinate(&self, o: f32) -> f32 {
        let (from, to, scale) = (self.from as f32, self.to as f32, self.scale);
        match self.coordinates {
            Coordinates::HalfPixel => (o + 0.5) / scale - 0.5,
            Coordinates::HalfPixelSymmetric => {
                let offset = from / 2.0 * (1.0 - to / (scale * from));
                offset + (o + 0.5) / scale - 0.5
            }
            Coordinates::PytorchHalfPixel if self.to > 1 => (o + 0.5) / scale - 0.5,
            Coordinates::TfHalfPixelForNn => (o + 0.5) / scale,
            Coordinates::AlignCorners if self.to > 1 => o * (from - 1.0) / (to - 1.0),
            Coordinates::PytorchHalfPixel | Coordinates::AlignCorners => 0.0,
            Coordinates::Asymmetric => o / scale,
            Coordinates::TfCropAndResize => {
                let (start, end) = self.region;
                if self.to > 1 {
                    start * (from - 1.0) + o * (end - start) * (from - 1.0) / (to - 1.0)
                } else {
                    0.5 * (start + end) * (from - 1.0)
                }
            }
        }
    }

    fn neighbours(&self, at: f32) -> Vec<(usize, f64)> {
        let last = self.from as i64 - 1;
        if let Interpolation::Nearest(rounding) = self.interpolation {
            return vec![(self.nearest(rounding, at).clamp(0, last) as usize, 1.0)];
        }
        // The element left of the coordinate, never the one exactly at it.
        let base = (at.ceil() - 1.0).clamp(-(1 << 30) as f32, (1 << 30) as f32) as i64;
        let ratio = f64::from(at) - base as f64;
        let stretch = self.stretch();
        let reach = if self.interpolation == Interpolation::Linear { 1.0 } else { 2.0 };
        let first = (-reach / stretch).floor() as i64 + 1;
        let mut taps: Vec<(i64, f64)> =
            (first..2 - first).map(|i| (base + i, self.kernel(stretch * (i as f64 - ratio)))).collect();
        normalise(&mut taps, self.antialias);
        if self.exclude_outside {
            taps.retain(|&(p, _)| (0..=last).contains(&p));
            normalise(&mut taps, true);
        }
        let mut weights: Vec<(usize, f64)> = Vec::with_capacity(taps.len());
        for (position, weight) in taps {
            let position = position.clamp(0, last) as usize;
            match weights.last_mut() {
                Some((p, sum)) if *p == position => *sum += weight,
                _ => weights.push((position, weight)),
            }
        }
        weights.retain(|(_, weight)| weight.abs() > 1e-9);
        weights
    }

    fn nearest(&self, rounding: Rounding, at: f32) -> i64 {
        let nearest = match rounding {
            Rounding::PreferFloor => (at - 0.5).ceil(),
            Rounding::PreferCeil => (at + 0.5).floor(),
            Rounding::Floor => at.floor(),
            Rounding::Ceil => at.ceil(),
            Rounding::ByDirection if self.scale < 1.0 => at.ceil(),
            Rounding::ByDirection => at.floor(),
        };
        nearest as i64
    }

    fn kernel(&self, x: f64) -> f64 {
        let x = x.abs();
        match self.interpolation {
            Interpolation::Nearest(_) => 0.0,
            Interpolation::Linear => (1.0 - x).max(0.0),
            Interpolation::Cubic(a) => {
                let a = f64::from(a);
                if x <= 1.0 {
                    ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
                } else {
                    0.0
                }
            }
        }
    }
}

/// Makes the weights add up to 1, if asked and unless they vanish.
fn normalise(taps: &mut [(i64, f64)], wanted: bool) {
    let sum: f64 = taps.iter().map(|(_, w)| w).sum();
    if wanted && sum != 0.0 {
        taps.iter_mut().for_each(|(_, w)| *w /= sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resize(from: usize, to: usize, interpolation: Interpolation, coordinates: Coordinates) -> AxisResize {
        let (scale, region) = (to as f32 / from as f32, (0.0, 1.0));
        let (antialias, exclude_outside) = (false, false);
        AxisResize { from, to, scale, region, interpolation, coordinates, antialias, exclude_outside }
    }

    fn positions(resize: AxisResize) -> Vec<usize> {
        resize.weights().into_iter().map(|w| w.unwrap()[0].0).collect()
    }

    #[test]
    fn ties_go_where_the_rounding_says() {
        let doubled = |r| positions(resize(3, 6, Interpolation::Nearest(r), Coordinates::Asymmetric));
        assert_eq!(doubled(Rounding::PreferFloor), [0, 0, 1, 1, 2, 2]);
        assert_eq!(doubled(Rounding::PreferCeil), [0, 1, 1, 2, 2, 2]);
        assert_eq!(doubled(Rounding::Ceil), [0, 1, 1, 2, 2, 2]);
        assert_eq!(doubled(Rounding::ByDirection), [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn linear_weights_of_a_doubled_axis() {
        let weights = resize(2, 4, Interpolation::Linear, Coordinates::HalfPixel).weights();
        assert_eq!(weights[0], Some(vec![(0, 1.0)]));
        assert_eq!(weights[1], Some(vec![(0, 0.75), (1, 0.25)]));
        assert_eq!(weights[3], Some(vec![(1, 1.0)]));
    }

    #[test]
    fn weights_add_up_to_one_whatever_is_excluded() {
        for (from, to) in [(7, 3), (3, 7), (5, 1), (1, 4), (10, 9)] {
            for interpolation in [Interpolation::Linear, Interpolation::Cubic(-0.5)] {
                for bits in 0..4 {
                    let mut axis = resize(from, to, interpolation, Coordinates::HalfPixel);
                    (axis.antialias, axis.exclude_outside) = (bits & 1 == 1, bits & 2 == 2);
                    for weights in axis.weights() {
                        let sum: f64 = weights.unwrap().iter().map(|(_, w)| w).sum();
                        assert!((sum - 1.0).abs() < 1e-6, "{axis:?}: {sum}");
                    }
                }
            }
        }
    }

    #[test]
    fn regions_beyond_the_data_have_no_weights() {
        let mut axis = resize(4, 4, Interpolation::Linear, Coordinates::TfCropAndResize);
        axis.region = (0.5, 1.5);
        let inside: Vec<bool> = axis.weights().iter().map(Option::is_some).collect();
        assert_eq!(inside, [true, true, false, false]);
    }
}

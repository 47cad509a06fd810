//! Where the parameters of a model come from.

use std::collections::BTreeMap;

use ndarray::ArrayD;
use privet_ring::prg::{Prg, Seed};

use crate::tensor::array;

/// The source of a model's parameters.
#[derive(Debug)]
pub struct Parameters(pub(super) Source);

#[derive(Debug)]
pub(super) enum Source {
    Random(Box<Random>),
    Named(BTreeMap<String, ArrayD<f32>>),
    /// None: shapes alone are wanted.
    Shapes,
}

impl Parameters {
    /// Random parameters, the same for the same seed. Each layer is scaled so that its outputs have unit variance on a random
    /// input; batch normalisation has the statistics of that input. Random numbers of models are no secrets.
    pub fn random(seed: u64) -> Self {
        Self(Source::Random(Box::new(Random::new(seed, 0))))
    }

    /// Named tensors, as PyTorch's `state_dict` names and shapes them. Names that the model does not have are refused,
    /// except those that end in `num_batches_tracked`.
    pub fn named(tensors: impl IntoIterator<Item = (String, ArrayD<f32>)>) -> Self {
        Self(Source::Named(tensors.into_iter().collect()))
    }
}

/// Independent N(0, 1), the same for the same seed and number: inputs for models with random parameters. Different numbers
/// give independent tensors, also of the parameters of the same seed. They are no secrets.
pub fn random_input(seed: u64, number: u64, shape: &[usize]) -> ArrayD<f32> {
    Random::new(seed, number.wrapping_add(1)).normal(shape)
}

/// Normally distributed numbers from a seed.
pub(super) struct Random {
    prg: Prg,
    drawn: u64,
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Random").field("drawn", &self.drawn).finish_non_exhaustive()
    }
}

impl Random {
    fn new(seed: u64, purpose: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..].copy_from_slice(&purpose.to_le_bytes());
        Self { prg: Prg::new(&Seed::from_bytes(bytes)), drawn: 0 }
    }

    /// A tensor of independent N(0, 1).
    pub(super) fn normal(&mut self, shape: &[usize]) -> ArrayD<f32> {
        let count: usize = shape.iter().product();
        self.drawn += 1;
        let words = self.prg.stream(self.drawn).words(count.next_multiple_of(2), u64::MAX);
        // In (0, 1], so that the logarithm is finite.
        let uniform = |w: u64| ((w >> 11) + 1) as f64 * f64::exp2(-53.0);
        // Box and Muller (1958): two uniform numbers give two normal ones.
        let pairs = words.chunks_exact(2).flat_map(|pair| {
            let radius = (-2.0 * uniform(pair[0]).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * uniform(pair[1])).sin_cos();
            [(radius * cos) as f32, (radius * sin) as f32]
        });
        array(shape, pairs.take(count).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let Parameters(Source::Random(mut random)) = Parameters::random(1) else { unreachable!() };
        let x = random.normal(&[20_001]);
        let mean = x.mean().unwrap();
        let variance = x.mapv(|v| (v - mean).powi(2)).mean().unwrap();
        // Five standard deviations of each.
        assert!(mean.abs() < 0.036 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert_ne!(x, random.normal(&[20_001]));
        let inputs = [(1, 0), (1, 1), (2, 0)].map(|(seed, number)| random_input(seed, number, &[20_001]));
        assert_eq!(inputs[0], random_input(1, 0, &[20_001]));
        assert!(inputs[0] != inputs[1] && inputs[0] != inputs[2] && inputs.iter().all(|i| *i != x));
    }
}

//! Replicated shares: v = x_0 + x_1 + x_2 modulo 2^l, party i holds x_i and x_(i+1). Two components say nothing.

use privet_ring::Ring;
use privet_ring::prg::{Prg, Seed};
use zeroize::Zeroize;

use super::PARTIES;
use crate::ProtocolError;
use crate::packed::Packed;

/// One party's share of a tensor, elements reduced. Deliberately neither `Debug` nor `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Share {
    /// x_i of party i.
    pub own: Vec<u64>,
    /// x_(i+1) of party i.
    pub next: Vec<u64>,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.own.zeroize();
        self.next.zeroize();
    }
}

/// A party's shares of all private tensors.
pub struct SharedWeights<'a> {
    pub(super) shares: &'a [Share],
    /// Of `own` and `next` of each.
    pub(super) packed: [Packed; 2],
}

impl<'a> SharedWeights<'a> {
    /// For any number of inferences: both components of a tensor are packed for the kernels when this party first evaluates a
    /// product by it. It deals by their sum, which is not kept.
    pub fn new(shares: &'a [Share]) -> Self {
        Self { shares, packed: [Packed::new(shares.len()), Packed::new(shares.len())] }
    }

    /// For one inference: packing would take more than it saves.
    pub fn once(shares: &'a [Share]) -> Self {
        Self { shares, packed: [Packed::never(), Packed::never()] }
    }
}

/// Component 0 or 1 of the tensor of this index, as `seed` says.
pub fn drawn(seed: &Seed, tensor: usize, elements: usize, ring: Ring) -> Vec<u64> {
    Prg::new(seed).stream(tensor as u64).words(elements, ring.mask())
}

/// All three components of the tensor of this index: two are drawn from seeds, which nothing else may be shared with, the
/// third is the rest. A value beyond the ring is taken modulo 2^l.
pub fn components(values: &[i64], tensor: usize, ring: Ring, seeds: &[Seed; 2]) -> [Vec<u64>; PARTIES] {
    let [x_0, x_1] = seeds.each_ref().map(|seed| drawn(seed, tensor, values.len(), ring));
    let rest = |((&v, a), b): ((&i64, &u64), &u64)| ring.reduce((v as u64).wrapping_sub(*a).wrapping_sub(*b));
    let x_2 = values.iter().zip(&x_0).zip(&x_1).map(rest).collect();
    [x_0, x_1, x_2]
}

/// The signed values of three components.
pub fn join([x_0, x_1, x_2]: [&[u64]; PARTIES], ring: Ring) -> Vec<i64> {
    let sum = |((a, b), c): ((&u64, &u64), &u64)| ring.to_signed(a.wrapping_add(*b).wrapping_add(*c));
    x_0.iter().zip(x_1).zip(x_2).map(sum).collect()
}

/// Whether there is a share of the right length for every tensor.
pub(super) fn check<'a>(
    shares: &[Share],
    tensors: impl ExactSizeIterator<Item = (&'a String, &'a Vec<usize>)>,
) -> Result<(), ProtocolError> {
    if shares.len() != tensors.len() {
        let (expected, found) = (tensors.len(), shares.len());
        return Err(ProtocolError::Mismatch(format!("expected shares of {expected} tensors, found {found}")));
    }
    for (share, (name, shape)) in shares.iter().zip(tensors) {
        let expected: usize = shape.iter().product();
        for found in [share.own.len(), share.next.len()] {
            if found != expected {
                return Err(ProtocolError::Mismatch(format!(
                    "share of {name}: expected {expected} elements, found {found}"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_join_for_every_ring() {
        for bits in 16..=64 {
            let ring = Ring::new(bits).unwrap();
            let top = i64::MAX >> (64 - bits);
            let values = [0, 1, -1, top, -top - 1, top / 3, -top / 5];
            let seeds = std::array::from_fn(|_| Seed::random().unwrap());
            let shared = components(&values, 3, ring, &seeds);
            assert!(shared.iter().flatten().all(|&x| x == ring.reduce(x)), "reduced, l={bits}");
            assert_eq!(join(shared.each_ref().map(Vec::as_slice), ring), values, "l={bits}");
            assert_eq!(shared[1], drawn(&seeds[1], 3, values.len(), ring));
        }
    }
}

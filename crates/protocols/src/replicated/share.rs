//! Replicated shares: v = x_0 + x_1 + x_2 modulo 2^l, party i holds x_i and x_(i+1). Two components say nothing.

use std::borrow::Cow;
use std::sync::OnceLock;

use privet_ring::Ring;
use privet_ring::prg::{Prg, Seed};
use zeroize::{Zeroize, Zeroizing};

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

impl Share {
    /// The sum of both components, reduced.
    pub(super) fn sum(&self, ring: Ring) -> Vec<u64> {
        self.own.iter().zip(&self.next).map(|(a, b)| ring.reduce(a.wrapping_add(*b))).collect()
    }
}

/// Largest tensor whose sum of components a party keeps: of a small model, whose inference may take as long as adding.
const KEPT: usize = 1 << 20;

/// A party's shares of all private tensors.
pub struct SharedWeights<'a> {
    pub(super) shares: &'a [Share],
    /// Of `own` and `next` of each.
    pub(super) packed: [Packed; 2],
    /// Of `own` and `next` of small ones, by which this party deals; empty for one inference.
    sums: Vec<OnceLock<Zeroizing<Vec<u64>>>>,
}

impl<'a> SharedWeights<'a> {
    /// For any number of inferences: both components of a tensor are packed for the kernels when this party first evaluates a
    /// product by it, and the sum by which it deals is kept, if it is small.
    pub fn new(shares: &'a [Share]) -> Self {
        let sums = shares.iter().map(|_| OnceLock::new()).collect();
        Self { shares, packed: [Packed::new(shares.len()), Packed::new(shares.len())], sums }
    }

    /// For one inference: packing would take more than it saves.
    pub fn once(shares: &'a [Share]) -> Self {
        Self { shares, packed: [Packed::never(), Packed::never()], sums: Vec::new() }
    }

    /// −λ of the tensor of this index, if this party deals: the sum of its components.
    pub(super) fn negated_mask(&self, tensor: usize, ring: Ring) -> Cow<'_, [u64]> {
        let share = &self.shares[tensor];
        match self.sums.get(tensor).filter(|_| share.own.len() <= KEPT) {
            Some(sum) => Cow::Borrowed(sum.get_or_init(|| Zeroizing::new(share.sum(ring)))),
            None => Cow::Owned(share.sum(ring)),
        }
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

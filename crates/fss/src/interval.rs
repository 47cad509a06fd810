//! `[low <= x <= high]` for any number of public intervals at a secret `x = m − r mod 2^n`, from one key: m is public, r the
//! dealer's.
//!
//! `[x < p] = [m − p mod 2^n < r] ⊕ [m < r] ⊕ [m < p]`: how often m − p and m wrap. The first two are one comparison key with
//! α = r, evaluated at two points; the third is public. An interval is the difference of two of these.
//!
//! - Source: multiple interval containment of Boyle et al. (Eurocrypt 2021), section 4, as shares of bits. Deviates: with bits
//!   in the place of ring elements the dealer's corrections for wrapping cancel, so the key is one comparison key and nothing else.
//! - Adversary: as for [`Comparison`].
//! - Key: that of a comparison of n bits. Evaluation: a walk of the key for m, and one for every end that is not 0 or 2^n.
//! - Opened: nothing. Leaks: nothing.

use std::collections::BTreeMap;

use privet_ring::blocks::Hash;

use crate::Comparison;
use crate::tree::Side;

/// All x from `low` to `high`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// The smallest.
    pub low: u64,
    /// The largest.
    pub high: u64,
}

/// Public intervals of n-bit numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intervals {
    comparison: Comparison,
    intervals: Vec<Interval>,
}

impl Intervals {
    /// Over n bits; intervals may overlap.
    ///
    /// # Panics
    /// Unless 1 <= `bits` <= 62 and every interval has `low` <= `high` < 2^n.
    pub fn new(bits: u32, intervals: Vec<Interval>) -> Self {
        assert!(bits <= 62, "intervals of {bits} bits");
        assert!(
            intervals.iter().all(|i| i.low <= i.high && i.high < 1 << bits),
            "{intervals:?}, {bits} bits"
        );
        Self { comparison: Comparison::new(bits), intervals }
    }

    /// What the key is one of: the dealer makes it for α = r.
    pub fn comparison(&self) -> Comparison {
        self.comparison
    }

    /// Party: own shares of all intervals' bits for every element, interval by interval, each packed as by
    /// [`Comparison::evaluate`]; `words` are keys of [`Self::comparison`].
    pub fn evaluate(
        &self,
        hash: &Hash,
        side: Side,
        m: &[u64],
        roots: &[u128],
        words: &[u8],
    ) -> Vec<Vec<u64>> {
        let end = 1u64 << self.comparison.bits();
        let whole = self.comparison.evaluate(hash, m, roots, words);
        // Shares of [x < p] for every p that is an end of an interval.
        let mut below = BTreeMap::new();
        for p in self.intervals.iter().flat_map(|i| [i.low, i.high + 1]).filter(|p| (1..end).contains(p)) {
            below.entry(p).or_insert_with(|| {
                let shifted: Vec<u64> = m.iter().map(|m| m.wrapping_sub(p)).collect();
                let mut bits = self.comparison.evaluate(hash, &shifted, roots, words);
                for ((bits, whole), m) in bits.iter_mut().zip(&whole).zip(m.chunks(64)) {
                    let public = m.iter().rev().fold(0, |word, m| word << 1 | u64::from(m & (end - 1) < p));
                    *bits ^= whole ^ if side == Side::First { public } else { 0 };
                }
                bits
            });
        }
        let everything = || {
            let ones = if side == Side::First { u64::MAX } else { 0 };
            let word = |m: &[u64]| ones >> (64 - m.len());
            m.chunks(64).map(word).collect()
        };
        let contains = |interval: &Interval| {
            let mut bits = below.get(&(interval.high + 1)).cloned().unwrap_or_else(everything);
            if let Some(low) = below.get(&interval.low) {
                bits.iter_mut().zip(low).for_each(|(bits, low)| *bits ^= low);
            }
            bits
        };
        self.intervals.iter().map(contains).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Keys, expect_uniform};

    /// Every value under every mask, in intervals at both ends, of one element, overlapping and all of the domain.
    #[test]
    fn every_value_under_every_mask() {
        for bits in 1..=10 {
            let last = (1u64 << bits) - 1;
            let ends =
                [(0, 0), (last, last), (0, last), (0, last / 2), (last / 3, last / 2 + last % 2), (1, last)];
            let intervals: Vec<Interval> = ends.iter().map(|&(low, high)| Interval { low, high }).collect();
            let pairs = (0..=last).flat_map(|r| (0..=last).map(move |m| (r, m)));
            let (r, m): (Vec<u64>, Vec<u64>) = pairs.unzip();
            let gate = Intervals::new(bits, intervals.clone());
            let Keys { hash, roots, .. } = Keys::new(r.len());
            let mut words = Vec::new();
            gate.comparison().make(&hash, &r, [&roots[0], &roots[1]], &mut words);
            // Bits beyond the domain are not looked at.
            let dirty: Vec<u64> = m.iter().map(|m| m | !last).collect();
            let first = gate.evaluate(&hash, Side::First, &dirty, &roots[0], &words);
            let second = gate.evaluate(&hash, Side::Second, &m, &roots[1], &words);
            for (k, interval) in intervals.iter().enumerate() {
                for i in 0..r.len() {
                    let x = m[i].wrapping_sub(r[i]) & last;
                    let bit = (first[k][i / 64] ^ second[k][i / 64]) >> (i % 64) & 1;
                    let expected = (interval.low..=interval.high).contains(&x);
                    assert_eq!(bit == 1, expected, "{x} = {} - {} in {interval:?}, {bits} bits", m[i], r[i]);
                }
                let rest = r.len() % 64;
                assert!(rest == 0 || (first[k][r.len() / 64] | second[k][r.len() / 64]) >> rest == 0);
            }
        }
    }

    #[test]
    fn one_key_alone_is_uniform() {
        let intervals = vec![Interval { low: 0, high: 1000 }, Interval { low: 1001, high: 4095 }];
        let gate = Intervals::new(12, intervals);
        let n = 1 << 14;
        for r in [0, 1000, 4095] {
            let Keys { hash, roots, .. } = Keys::new(n);
            let mut words = Vec::new();
            gate.comparison().make(&hash, &vec![r; n], [&roots[0], &roots[1]], &mut words);
            expect_uniform(&words, &format!("r = {r}: words"));
            let shares = gate.evaluate(&hash, Side::Second, &vec![500; n], &roots[1], &words);
            for share in shares {
                let bytes: Vec<u8> = share.iter().flat_map(|s| s.to_le_bytes()).collect();
                expect_uniform(&bytes, &format!("r = {r}: shares"));
            }
        }
    }
}

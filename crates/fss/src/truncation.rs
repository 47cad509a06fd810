//! `floor(x / 2^s)` as shares of ring elements, for x = m − r with −2^(l−2) <= x < 2^(l−2): m is public, r the dealer's. Nothing is
//! opened.
//!
//! With c = m + 2^(l−2), `floor(x / 2^s) = (c≫s) − 2^(l−2−s) − (r≫s) − [c mod 2^s < r mod 2^s] + r_top·(1 − c_top)·2^(l−s)`: what the low
//! bits borrow, and what is lost where r wraps and c does not. The key carries the borrow; the dealer shares r≫s, and r_top in s bits, as
//! it is multiplied by 2^(l−s).
//!
//! - Source: the truncation of Boyle et al. (Eurocrypt 2021), section 6, with one comparison as in Orca (Jawalkar et al., S&P 2024);
//!   the sign's part is free because x is known to be short.
//! - Adversary: as for [`Comparison`](crate::Comparison).
//! - Key: that of a [`Dcf`] of s bits with one value, and l + s bits of shares.
//! - Opened: nothing. Leaks: nothing.

use privet_ring::Ring;

use crate::Dcf;
use crate::tree::Side;

/// Exact division by a power of two, rounding down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncation {
    shift: u32,
    ring: Ring,
}

impl Truncation {
    /// By 2^s.
    ///
    /// # Panics
    /// Unless 1 <= `shift` <= l − 2.
    pub fn new(shift: u32, ring: Ring) -> Self {
        assert!((1..=ring.bits() - 2).contains(&shift), "{shift} of {} bits", ring.bits());
        Self { shift, ring }
    }

    /// The key; the dealer makes it for α = r and β = 1, and parties evaluate it at m.
    pub fn key(self) -> Dcf<1> {
        Dcf::new(self.shift, self.ring)
    }

    /// Dealer: what is to be shared for masks `r`, reduced: r≫s in l bits and r_top in s bits.
    pub fn correlate(self, r: &[u64]) -> [Vec<u64>; 2] {
        [self.shift, self.ring.bits() - 1].map(|by| r.iter().map(|r| r >> by).collect())
    }

    /// Party: own shares of the results, from the own shares of the borrow and of what was dealt.
    pub fn evaluate(self, side: Side, m: &[u64], borrow: &[u64], dealt: [&[u64]; 2]) -> Vec<u64> {
        let (bits, shift) = (self.ring.bits(), self.shift);
        let first = 0u64.wrapping_sub(u64::from(side == Side::First));
        let [shifted, top] = dealt;
        let result = |(i, m): (usize, &u64)| {
            let c = self.ring.reduce(m.wrapping_add(1 << (bits - 2)));
            let public = (c >> shift).wrapping_sub(1 << (bits - 2 - shift));
            let carry = (1 - (c >> (bits - 1))) << (bits - shift);
            let own = shifted[i].wrapping_add(borrow[i]);
            self.ring.reduce((first & public).wrapping_sub(own).wrapping_add(carry.wrapping_mul(top[i])))
        };
        m.iter().enumerate().map(result).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Keys, share};

    #[test]
    fn every_value_under_every_mask() {
        for (bits, shift) in (4..=10).flat_map(|bits| (1..=bits - 2).map(move |shift| (bits, shift))) {
            let (ring, quarter) = (Ring::tiny(bits), 1i64 << (bits - 2));
            let gate = Truncation::new(shift, ring);
            let pairs = (-quarter..quarter).flat_map(|x| (0..1u64 << bits).map(move |r| (x, r)));
            let (x, r): (Vec<i64>, Vec<u64>) = pairs.unzip();
            let m: Vec<u64> =
                x.iter().zip(&r).map(|(x, r)| ring.reduce((*x as u64).wrapping_add(*r))).collect();
            let n = m.len();
            let Keys { hash, roots, prg } = Keys::new(n);
            let mut words = Vec::new();
            gate.key().make(&hash, &r, [&vec![1; n]], [&roots[0], &roots[1]], &mut words);
            let [shifted, top] = gate.correlate(&r);
            let shifted = share(&shifted, ring, &prg.stream(1).words(n, ring.mask()));
            // In s bits, whatever lies above.
            let top = share(&top, ring, &prg.stream(2).words(n, ring.mask()));
            let top = top.map(|top| top.iter().map(|top| top & ((1 << shift) - 1)).collect::<Vec<u64>>());
            let [a, b] = [Side::First, Side::Second].map(|side| {
                let own = side as usize;
                let [borrow] = gate.key().evaluate(&hash, side, &m, &roots[own], &words);
                gate.evaluate(side, &m, &borrow, [&shifted[own], &top[own]])
            });
            for i in 0..n {
                let found = ring.to_signed(ring.reduce(a[i].wrapping_add(b[i])));
                assert_eq!(found, x[i] >> shift, "x = {}, r = {}, {bits} bits by {shift}", x[i], r[i]);
            }
        }
    }
}

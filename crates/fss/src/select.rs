//! `[x >= 0]·t`, `[x >= 0]` and with t = x the ReLU, as shares of ring elements: x = m − r and t = m_t − λ_t, m and m_t are
//! public, r and λ_t the dealer's. Nothing is opened.
//!
//! For −2^(w−1) <= x < 2^(w−1) the sign is d = 1 ⊕ m_(w−1) ⊕ u with u = r_(w−1) ⊕ [m mod 2^(w−1) < r mod 2^(w−1)], which is
//! r_(w−1) plus (1 − 2·r_(w−1)) where m is below r: a comparison whose key carries that. With e = 1 ⊕ m_(w−1), public, and
//! σ = 1 − 2e, `d = e + σ·u` and `d·t = e·t + σ·(m_t·u − u·λ_t)`. So the key carries (1 − 2·r_(w−1)) times 1 and times λ_t, and the
//! dealer shares r_(w−1) and r_(w−1)·λ_t.
//!
//! - Source: the ReLU gate of Boyle et al. (Eurocrypt 2021), section 4, as in LLAMA (Gupta et al., PETS 2022). Deviates: the
//!   top bit of the mask is dealt instead of compared, and r itself is what the parties share already.
//! - Adversary: as for [`Comparison`](crate::Comparison).
//! - Key: that of a [`Dcf`] of w − 1 bits with one value, or two where something is chosen, and as many ring elements.
//! - Opened: nothing. Leaks: nothing.
//!
//! A ReLU that truncates is the product of two such comparisons and has no key of this kind.

use privet_ring::Ring;

use crate::Dcf;
use crate::tree::Side;

/// Signs of w-bit numbers in a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Select {
    width: u32,
    ring: Ring,
}

impl Select {
    /// Of numbers of `width` bits, sign included.
    ///
    /// # Panics
    /// Unless 2 <= `width` <= l.
    pub fn new(width: u32, ring: Ring) -> Self {
        assert!((2..=ring.bits()).contains(&width), "a sign of {width} bits in a ring of {}", ring.bits());
        Self { width, ring }
    }

    /// The key for a sign alone; the dealer makes it for α = r, with β from [`Self::correlate`], and parties evaluate it at m.
    pub fn sign_key(self) -> Dcf<1> {
        Dcf::new(self.width - 1, self.ring)
    }

    /// The key for a choice, likewise.
    pub fn choice_key(self) -> Dcf<2> {
        Dcf::new(self.width - 1, self.ring)
    }

    /// Dealer: β for masks `r`, and what is to be shared besides.
    pub fn correlate(self, r: &[u64]) -> (Vec<u64>, Vec<u64>) {
        let top = |r: &u64| r >> (self.width - 1) & 1;
        r.iter().map(|r| (self.ring.reduce(1u64.wrapping_sub(2 * top(r))), top(r))).unzip()
    }

    /// Dealer: the same for the product with t, whose masks these are; `beta` and `dealt` are those of [`Self::correlate`].
    pub fn correlate_choice(self, beta: &[u64], dealt: &[u64], lambda: &[u64]) -> (Vec<u64>, Vec<u64>) {
        let product = |(a, l): (&u64, &u64)| self.ring.reduce(a.wrapping_mul(*l));
        let times_lambda = |a: &[u64]| a.iter().zip(lambda).map(product).collect();
        (times_lambda(beta), times_lambda(dealt))
    }

    /// Party: own shares of d, from the own shares of u: what the key gave plus what was dealt.
    pub fn sign(self, side: Side, m: &[u64], u: impl Iterator<Item = u64>) -> Vec<u64> {
        let one = u64::from(side == Side::First);
        let share = |(m, u): (&u64, u64)| {
            let e = self.public(*m);
            self.ring.reduce((one & e).wrapping_add(1u64.wrapping_sub(2 * e).wrapping_mul(u)))
        };
        m.iter().zip(u).map(share).collect()
    }

    /// Party: own shares of d·t, from the own shares of (u, u·λ_t); t is m_t and the own share of λ_t.
    pub fn choice(
        self,
        side: Side,
        m: &[u64],
        t: [&[u64]; 2],
        u: impl Iterator<Item = [u64; 2]>,
    ) -> Vec<u64> {
        let one = 0u64.wrapping_sub(u64::from(side == Side::First));
        let share = |((m, (m_t, lambda)), [u, u_lambda]): ((&u64, (&u64, &u64)), [u64; 2])| {
            let e = self.public(*m);
            let own = (one & m_t).wrapping_sub(*lambda);
            let chosen = m_t.wrapping_mul(u).wrapping_sub(u_lambda);
            self.ring.reduce(e.wrapping_mul(own).wrapping_add(1u64.wrapping_sub(2 * e).wrapping_mul(chosen)))
        };
        m.iter().zip(t[0].iter().zip(t[1])).zip(u).map(share).collect()
    }

    /// e: the sign if the mask's part of it is 0.
    #[inline(always)]
    fn public(self, m: u64) -> u64 {
        !m >> (self.width - 1) & 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Keys, share};

    /// Every value under every mask: signs, ReLUs, and choices of a value under another mask.
    fn exhaust(bits: u32, width: u32) {
        let (ring, half) = (Ring::tiny(bits), 1i64 << (width - 1));
        let gate = Select::new(width, ring);
        let pairs = (-half..half).flat_map(|x| (0..1u64 << bits).map(move |r| (x, r)));
        let (x, r): (Vec<i64>, Vec<u64>) = pairs.unzip();
        let m: Vec<u64> = x.iter().zip(&r).map(|(x, r)| ring.reduce((*x as u64).wrapping_add(*r))).collect();
        let n = m.len();
        let Keys { hash, roots, prg } = Keys::new(n);
        let other = prg.stream(7).words(n, ring.mask());
        let other_mask = prg.stream(8).words(n, ring.mask());
        let (beta, dealt) = gate.correlate(&r);
        let sides = [Side::First, Side::Second];

        let mut words = Vec::new();
        gate.sign_key().make(&hash, &r, [&beta], [&roots[0], &roots[1]], &mut words);
        let tops = share(&dealt, ring, &prg.stream(9).words(n, ring.mask()));
        let [a, b] = sides.map(|side| {
            let [u] = gate.sign_key().evaluate(&hash, side, &m, &roots[side as usize], &words);
            gate.sign(side, &m, u.iter().zip(&tops[side as usize]).map(|(u, top)| u.wrapping_add(*top)))
        });
        for i in 0..n {
            let found = ring.reduce(a[i].wrapping_add(b[i]));
            assert_eq!(found, u64::from(x[i] >= 0), "x = {}, r = {}, {bits}, {width} bits", x[i], r[i]);
        }

        let shifted: Vec<u64> =
            other.iter().zip(&other_mask).map(|(t, l)| ring.reduce(t.wrapping_add(*l))).collect();
        let x_values: Vec<u64> = x.iter().map(|x| ring.reduce(*x as u64)).collect();
        for (t, m_t, lambda) in [(&x_values, &m, &r), (&other, &shifted, &other_mask)] {
            let (betas, products) = gate.correlate_choice(&beta, &dealt, lambda);
            let mut words = Vec::new();
            gate.choice_key().make(&hash, &r, [&beta, &betas], [&roots[0], &roots[1]], &mut words);
            let own = |values: &[u64], stream| share(values, ring, &prg.stream(stream).words(n, ring.mask()));
            let (tops, products, lambdas) = (own(&dealt, 10), own(&products, 11), own(lambda, 12));
            let [a, b] = sides.map(|side| {
                let own = side as usize;
                let [u, v] = gate.choice_key().evaluate(&hash, side, &m, &roots[own], &words);
                let u =
                    (0..n).map(|i| [u[i].wrapping_add(tops[own][i]), v[i].wrapping_add(products[own][i])]);
                gate.choice(side, &m, [m_t, &lambdas[own]], u)
            });
            for i in 0..n {
                let expected = if x[i] >= 0 { t[i] } else { 0 };
                let found = ring.reduce(a[i].wrapping_add(b[i]));
                assert_eq!(found, expected, "x = {}, t = {}, r = {}, {bits}, {width} bits", x[i], t[i], r[i]);
            }
        }
    }

    #[test]
    fn every_value_under_every_mask() {
        for bits in 4..=8 {
            (2..=bits).for_each(|width| exhaust(bits, width));
        }
        exhaust(9, 9);
        exhaust(10, 9);
        exhaust(10, 10);
    }

    #[test]
    fn keys_have_the_expected_size() {
        let ring = Ring::new(33).unwrap();
        // 31 words; and 32 levels' values, packed for 256 keys.
        assert_eq!(Select::new(33, ring).choice_key().key_bytes(256), 256 * (31 * 16 + 32 * 66 / 8));
        assert_eq!(Select::new(33, ring).sign_key().key_bytes(256), 256 * (31 * 16 + 32 * 33 / 8));
    }
}

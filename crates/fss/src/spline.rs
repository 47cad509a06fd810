//! Splines: `y = P_i(x)` for the piece i of a public partition that x lies in, with public polynomials, at a secret
//! `x = m − r`: m is public, r the dealer's.
//!
//! With b_i = [x >= p_i] for every knot p_i, `y = P_0(x) + Σ_i b_i·(P_i − P_(i−1))(x)`. All b_i come from one interval key, as
//! shared bits; the parties open them under masks μ_i. Then `b = m_b + (1 − 2·m_b)·μ` and `x^j = Σ_k C(j, k)·m^(j−k)·(−r)^k`
//! make y a sum of what the dealer shares, (−r)^k and μ_i·(−r)^k, with public factors.
//!
//! - Source: the spline gate of Boyle et al. (Eurocrypt 2021), section 5. Deviates: there the key's payload is all coefficients,
//!   (n + 1)·knots·(degree + 1) ring elements; here the key is one of a comparison, with degree + knots·(degree + 1) ring
//!   elements and one round in which a bit for every knot is opened.
//! - Adversary: as for [`Comparison`](crate::Comparison).
//! - Opened: one masked bit a knot. Leaks: nothing.

use privet_ring::Ring;
use privet_ring::blocks::Hash;

use crate::tree::Side;
use crate::{Comparison, Interval, Intervals};

/// A piecewise polynomial of n-bit signed numbers with values in a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spline {
    intervals: Intervals,
    ring: Ring,
    /// The first piece's polynomial, then by how much each piece's differs from the one before; the constant first.
    polynomials: Vec<Vec<u64>>,
}

impl Spline {
    /// `pieces[i]` from `knots[i − 1]` on and below `knots[i]`; coefficients from the constant up, as many in every piece.
    ///
    /// # Panics
    /// Unless `bits` is at most the ring's and 62, knots are ascending, above −2^(n−1) and below 2^(n−1), and there is one
    /// polynomial more than knots, all of the same degree, at most 3.
    pub fn new(bits: u32, ring: Ring, knots: &[i64], pieces: &[Vec<i64>]) -> Self {
        let half = 1i64 << (bits - 1);
        assert!(bits <= ring.bits(), "{bits} bits in a ring of {}", ring.bits());
        assert!(knots.is_sorted_by(|a, b| a < b) && knots.iter().all(|k| (1 - half..half).contains(k)));
        assert!(pieces.len() == knots.len() + 1 && (1..=4).contains(&pieces[0].len()));
        assert!(pieces.iter().all(|p| p.len() == pieces[0].len()), "polynomials of one degree");
        let from = |knot: &i64| Interval { low: (knot + half) as u64, high: (2 * half - 1) as u64 };
        let mut polynomials: Vec<Vec<u64>> =
            pieces.iter().map(|p| p.iter().map(|a| *a as u64).collect()).collect();
        for i in (1..polynomials.len()).rev() {
            let before = polynomials[i - 1].clone();
            polynomials[i].iter_mut().zip(before).for_each(|(a, b)| *a = a.wrapping_sub(b));
        }
        Self { intervals: Intervals::new(bits, knots.iter().map(from).collect()), ring, polynomials }
    }

    /// What the key is one of: the dealer makes it for α = r.
    pub fn comparison(&self) -> Comparison {
        self.intervals.comparison()
    }

    /// Knots: the bits that are opened for each element.
    pub fn knots(&self) -> usize {
        self.polynomials.len() - 1
    }

    /// Ring elements that are shared for each element.
    pub fn products(&self) -> usize {
        self.polynomials[0].len() * self.polynomials.len() - 1
    }

    /// Dealer: what is to be shared, in order, for masks `r` and the masks of the knots' bits, packed as by
    /// [`Comparison::evaluate`].
    pub fn correlate(&self, r: &[u64], masks: &[Vec<u64>]) -> Vec<Vec<u64>> {
        assert_eq!(masks.len(), self.knots(), "masks of every knot's bit");
        let power = |k: usize, r: &u64| (0..k).fold(1, |power: u64, _| power.wrapping_mul(r.wrapping_neg()));
        let degree = self.polynomials[0].len() - 1;
        let powers = (1..=degree).map(|k| r.iter().map(|r| self.ring.reduce(power(k, r))).collect());
        let masked = masks.iter().flat_map(|mask| {
            (0..=degree).map(move |k| {
                let value = |(i, r)| power(k, r).wrapping_mul(mask[i / 64] >> (i % 64) & 1);
                r.iter().enumerate().map(|(i, r)| self.ring.reduce(value((i, r)))).collect()
            })
        });
        powers.chain(masked).collect()
    }

    /// Party: own shares of the knots' bits, which are opened under masks next. `words` are keys of [`Self::comparison`].
    pub fn bits(&self, hash: &Hash, side: Side, m: &[u64], roots: &[u128], words: &[u8]) -> Vec<Vec<u64>> {
        let half = 1u64 << (self.comparison().bits() - 1);
        let shifted: Vec<u64> = m.iter().map(|m| m.wrapping_add(half)).collect();
        self.intervals.evaluate(hash, side, &shifted, roots, words)
    }

    /// Party: own shares of y, reduced, from the opened bits and the own shares of what [`Self::correlate`] made.
    pub fn evaluate(&self, side: Side, m: &[u64], opened: &[Vec<u64>], shares: &[Vec<u64>]) -> Vec<u64> {
        assert_eq!((opened.len(), shares.len()), (self.knots(), self.products()), "as many as are dealt");
        let degree = self.polynomials[0].len() - 1;
        let (powers, masked) = shares.split_at(degree);
        let result = |(i, m): (usize, &u64)| {
            let one = u64::from(side == Side::First);
            let share = |k: usize| if k == 0 { one } else { powers[k - 1][i] };
            let mut y = 0u64;
            let mut add = |factor: u64, share: u64| y = y.wrapping_add(factor.wrapping_mul(share));
            for (piece, polynomial) in self.polynomials.iter().enumerate() {
                for (k, factor) in expanded(polynomial, *m).into_iter().enumerate().take(degree + 1) {
                    match piece.checked_sub(1) {
                        None => add(factor, share(k)),
                        Some(knot) => {
                            let bit = opened[knot][i / 64] >> (i % 64) & 1;
                            add(bit.wrapping_mul(factor), share(k));
                            let sign = 1u64.wrapping_sub(2 * bit);
                            add(sign.wrapping_mul(factor), masked[knot * (degree + 1) + k][i]);
                        }
                    }
                }
            }
            self.ring.reduce(y)
        };
        m.iter().enumerate().map(result).collect()
    }
}

/// The polynomial of m − r as one of −r, with coefficients that depend on m: `Σ_j a_j·C(j, k)·m^(j−k)` for every k.
fn expanded(polynomial: &[u64], m: u64) -> [u64; 4] {
    /// C(j, k) for j in rows.
    const BINOMIALS: [[u64; 4]; 4] = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 2, 1, 0], [1, 3, 3, 1]];
    let mut factors = [0u64; 4];
    for (k, factor) in factors.iter_mut().enumerate().take(polynomial.len()) {
        // Horner's rule from the highest power of m down.
        for j in (k..polynomial.len()).rev() {
            let term = polynomial[j].wrapping_mul(BINOMIALS[j][k]);
            *factor = factor.wrapping_mul(m).wrapping_add(term);
        }
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Keys;

    /// Every value under every mask, opened bits and dealt shares as an engine has them.
    fn expect_values(bits: u32, ring: u32, knots: &[i64], pieces: &[Vec<i64>]) {
        let ring = Ring::new(ring).unwrap();
        let half = 1i64 << (bits - 1);
        // A mask of all of the ring, whose low bits are everything in turn.
        let high = Keys::new(1).prg.stream(0).words(1 << bits, u64::MAX << bits & ring.mask());
        let pairs = (0..1u64 << bits).flat_map(|r| (-half..half).map(move |x| (r, x)));
        let (r, x): (Vec<u64>, Vec<i64>) = pairs.map(|(r, x)| (r | high[r as usize], x)).unzip();
        let m: Vec<u64> = r.iter().zip(&x).map(|(r, x)| ring.reduce(r.wrapping_add(*x as u64))).collect();
        let n = m.len();
        let spline = Spline::new(bits, ring, knots, pieces);
        let Keys { hash, roots, prg } = Keys::new(n);
        let mut words = Vec::new();
        spline.comparison().make(&hash, &r, [&roots[0], &roots[1]], &mut words);
        let draw = |stream: u64, len, mask| prg.stream(stream).words(len, mask);
        let masks: Vec<Vec<u64>> =
            (0..knots.len()).map(|k| draw(k as u64, n.div_ceil(64), u64::MAX)).collect();
        let dealt = spline.correlate(&r, &masks);
        assert_eq!(dealt.len(), spline.products());
        let second: Vec<Vec<u64>> = (0..dealt.len()).map(|k| draw(100 + k as u64, n, ring.mask())).collect();
        let first: Vec<Vec<u64>> = dealt
            .iter()
            .zip(&second)
            .map(|(d, s)| d.iter().zip(s).map(|(d, s)| ring.reduce(d.wrapping_sub(*s))).collect())
            .collect();
        let shares = [Side::First, Side::Second]
            .map(|side| spline.bits(&hash, side, &m, &roots[side as usize], &words));
        let opened: Vec<Vec<u64>> = (0..knots.len())
            .map(|k| (0..n.div_ceil(64)).map(|w| shares[0][k][w] ^ shares[1][k][w] ^ masks[k][w]).collect())
            .collect();
        let own = spline.evaluate(Side::First, &m, &opened, &first);
        let others = spline.evaluate(Side::Second, &m, &opened, &second);
        for i in 0..n {
            let piece = knots.iter().filter(|k| x[i] >= **k).count();
            let y = pieces[piece].iter().rev().fold(0i64, |y, a| y.wrapping_mul(x[i]).wrapping_add(*a));
            let found = ring.reduce(own[i].wrapping_add(others[i]));
            assert_eq!(found, ring.reduce(y as u64), "x = {}, r = {}, {bits} bits, {knots:?}", x[i], r[i]);
        }
    }

    #[test]
    fn every_value_under_every_mask() {
        for (bits, ring) in [(1, 16), (2, 16), (3, 17), (4, 32), (5, 33), (6, 40), (7, 48), (8, 63), (9, 64)]
        {
            let half = 1i64 << (bits - 1);
            expect_values(bits, ring, &[], &[vec![3, -1]]);
            expect_values(bits, ring, &[0], &[vec![0, 0], vec![0, 1]]);
            let knots: Vec<i64> = (1 - half..half).step_by(1 + half as usize / 3).take(4).collect();
            for degree in 0..=3 {
                let pieces: Vec<Vec<i64>> = (0..=knots.len() as i64)
                    .map(|i| (0..=degree).map(|j| (i + 2) * (3 - 2 * j) - 7 * i * j).collect())
                    .collect();
                expect_values(bits, ring, &knots, &pieces);
            }
        }
        expect_values(10, 48, &[-511, 17], &[vec![1, 2], vec![-3, 4], vec![0, -6]]);
    }
}

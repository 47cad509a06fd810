//! Sign tests and what they choose: `[x >= 0]`, `[x >= 0]·t`, and with t = x the ReLU without truncation.
//!
//! d = [x >= 0] = 1 − msb(x) is opened as m_d = d ⊕ λ_d; then `d = m_d + (1 − 2·m_d)·λ_d` and
//! `d·t = m_d·t + (1 − 2·m_d)·[λ_d·t]` with `λ_d·t = m_t·λ_d − λ_d·λ_t`, so the dealer shares λ_d and λ_d·λ_t.
//!
//! λ_d is the sum of a bit that each party draws, of r_(m−1), the mask's part of the sign, and of what the borrow lacks ([`Lacking`]): the
//! parties open a share of d without the last two, under the bits they drew, and need no share of λ_d as a bit. It is as
//! uniform as those bits, which are used for nothing else.
//!
//! Adversary: semi-honest server or client, with a dealer that joins neither. Correlations: the bits of [`Tree`],
//! one ring element, and one more for every chosen value. Opened: masked tree bits and the masked sign; never a
//! result. Leaks: nothing. Source: PROTOCOLS.md of the design, section 2 (MSB, B2A, select).

use std::ops::Range;

use privet_ring::planes::to_bits;
use privet_ring::{Ring, packed_len};

use super::borrow::{Borrow, Way};
use super::cost::GateCost;
use super::gate::{Dealing, Party};
use super::tree::Lacking;
use crate::ProtocolError;

/// The sign of a masked wire, from its low `width` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sign {
    pub(super) width: u32,
    pub(super) way: Way,
}

/// A masked wire, as a party holds it.
#[derive(Clone, Copy)]
pub(crate) struct Masked<'a> {
    pub(crate) m: &'a [u64],
    pub(crate) lambda: &'a [u64],
}

impl<'a> Masked<'a> {
    /// Some of its elements.
    pub(super) fn slice(self, range: Range<usize>) -> Self {
        Masked { m: &self.m[range.clone()], lambda: self.lambda.get(range).unwrap_or_default() }
    }
}

impl Sign {
    fn borrow(self) -> Borrow {
        Borrow::new(self.width - 1, None, self.way)
    }

    /// What is opened, and bytes dealt, for the signs of `elements` elements and `chosen` values.
    pub(super) fn cost(self, ring: Ring, elements: usize, chosen: usize) -> GateCost {
        let borrow = self.borrow();
        let others = packed_len(ring.bits(), elements) + packed_len(ring.bits(), chosen);
        GateCost::new(borrow.openings(1, elements), borrow.chunks(elements, others))
    }

    /// Dealer: shares what the bit needs for masks `r`, reduced. Returns λ_d.
    fn deal_bit(self, r: &[u64], dealing: &mut Dealing) -> Result<Vec<u64>, ProtocolError> {
        let (n, bits) = (r.len(), dealing.ring().bits());
        let borrow = self.borrow();
        let r = borrow.bits(r, true);
        let lacking = borrow.deal(&r, dealing)?;
        let mask: Vec<u64> = to_bits(&sign_mask(&r.top, &lacking, n, dealing), n).collect();
        dealing.deal_ring(&mask, bits);
        Ok(mask)
    }

    /// Party: m_d, and the own share of λ_d.
    async fn open_bit(self, m: &[u64], party: &mut Party<'_>) -> Result<(Vec<u64>, Vec<u64>), ProtocolError> {
        let (n, first) = (m.len(), party.is_first());
        let borrow = self.borrow();
        let c = borrow.bits(m, true);
        let (borrow, _) = borrow.evaluate(&c, party).await?;
        let mask = party.mask_plane(n);
        let own = sign_share(borrow, &c.top, first).iter().zip(&mask).map(|(s, m)| s ^ m).collect();
        let opened = party.open_planes(own, n).await?;
        let mask = party.dealt_ring(n, party.ring().bits())?;
        Ok((to_bits(&opened, n).collect(), mask))
    }

    /// Dealer: the correlation of [`Self::bit`].
    pub(super) fn deal(self, r: &[u64], dealing: &mut Dealing) -> Result<(), ProtocolError> {
        self.deal_bit(r, dealing).map(|_| ())
    }

    /// Party: own shares of [x >= 0].
    pub(super) async fn bit(self, m: &[u64], party: &mut Party<'_>) -> Result<Vec<u64>, ProtocolError> {
        let (ring, first) = (party.ring(), party.is_first());
        let (bit, mask) = self.open_bit(m, party).await?;
        let share = |(&b, &l): (&u64, &u64)| {
            let public = if first { b } else { 0 };
            ring.reduce(public.wrapping_add(1u64.wrapping_sub(2 * b).wrapping_mul(l)))
        };
        Ok(bit.iter().zip(&mask).map(share).collect())
    }

    /// Dealer: the correlation of [`Self::select`] for t with masks `t`, a multiple of as many values as `r`.
    pub(super) fn deal_select(
        self,
        r: &[u64],
        t: &[u64],
        dealing: &mut Dealing,
    ) -> Result<(), ProtocolError> {
        let bits = dealing.ring().bits();
        let mask = self.deal_bit(r, dealing)?;
        let products: Vec<u64> = t.iter().zip(mask.iter().cycle()).map(|(t, d)| t.wrapping_mul(*d)).collect();
        dealing.deal_ring(&products, bits);
        Ok(())
    }

    /// Party: own shares of [x >= 0]·t; t holds one or several values for every x, x running fastest.
    pub(super) async fn select(
        self,
        x: &[u64],
        t: Masked<'_>,
        party: &mut Party<'_>,
    ) -> Result<Vec<u64>, ProtocolError> {
        let (ring, first) = (party.ring(), party.is_first());
        let (bit, mask) = self.open_bit(x, party).await?;
        let products = party.dealt_ring(t.m.len(), ring.bits())?;
        let share = |i: usize| {
            let sign = i % bit.len();
            let own = if first { t.m[i] } else { 0 }.wrapping_sub(t.lambda[i]);
            let masked = t.m[i].wrapping_mul(mask[sign]).wrapping_sub(products[i]);
            ring.reduce(select(bit[sign], own, masked))
        };
        Ok((0..t.m.len()).map(share).collect())
    }
}

/// Dealer: λ_d, from the plane of the sign's bits of the mask.
pub(super) fn sign_mask(
    r_top: &[u64],
    lacking: &Lacking,
    elements: usize,
    dealing: &mut Dealing,
) -> Vec<u64> {
    let mut mask = dealing.mask_plane(elements);
    mask.iter_mut().zip(r_top).zip(&lacking.whole).for_each(|((m, r), l)| *m ^= r ^ l);
    mask
}

/// Party: own share of d, but for what λ_d contains, from that of the borrow and the public plane of the sign's bits.
pub(super) fn sign_share(borrow: Vec<u64>, c_top: &[u64], first: bool) -> Vec<u64> {
    // d = 1 - msb; public terms are added by the first party only.
    if first { borrow.iter().zip(c_top).map(|(b, c)| b ^ !c).collect() } else { borrow }
}

/// Share of d·t for d = m_d ⊕ λ_d: `m_d·t + (1 − 2·m_d)·[λ_d·t]`.
pub(super) fn select(masked: u64, t: u64, lambda_t: u64) -> u64 {
    masked.wrapping_mul(t).wrapping_add(1u64.wrapping_sub(2 * masked).wrapping_mul(lambda_t))
}

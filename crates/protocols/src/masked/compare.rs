//! Exact truncation, and ReLU fused with it; without truncation see [`super::sign`].
//!
//! With m_x = x + λ_x public, r = λ_x and c = m_x + 2^(l-2), for -2^(l-2) <= x < 2^(l-2):
//!
//! `floor(x / 2^s) = (c≫s) − (r≫s) − B_s + r_top·(1 − c_top)·2^(l−s) − 2^(l−2−s)`, B_s = [c mod 2^s < r mod 2^s];
//!
//! `msb(x) = x_{m−1} = m_{x,m−1} ⊕ r_{m−1} ⊕ [m_x mod 2^(m−1) < r mod 2^(m−1)]` for -2^(m-1) <= x < 2^(m-1).
//!
//! Adversary: semi-honest server or client, with a dealer that joins neither. Correlations: the bits of [`Tree`] plus
//! 2 + s/l (truncation) or 5 + 2s/l (fused) ring elements per element. Opened: masked tree bits, the masked
//! sign and masked B_s; never a result. Leaks: nothing. Source: the masked evaluation of ABY2.0 and Turbospeedz with the
//! dealt products of this design; compare Escudero et al. (Crypto 2020) for edaBit truncation.

use privet_ring::planes::{from_values, plane_bytes, to_bits, words};
use privet_ring::{Ring, packed_len};

use super::cost::GateCost;
use super::gate::{Dealing, Party};
use super::sign::{Masked, Sign, select};
use super::tree::{Side, Tree};
use crate::ProtocolError;

/// What to compute from a masked wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// floor(x / 2^shift), shift >= 1.
    Trunc { shift: u32 },
    /// floor(max(x, 0) / 2^shift), sign from the low `width` bits.
    Relu { shift: u32, width: u32 },
}

impl Gate {
    fn tree(self) -> Tree {
        match self {
            Gate::Trunc { shift } => Tree::new(shift, None),
            Gate::Relu { shift, width } => Tree::new(width - 1, Some(shift)),
        }
    }

    fn shift(self) -> u32 {
        match self {
            Gate::Trunc { shift } | Gate::Relu { shift, .. } => shift,
        }
    }

    /// Low bits of the mask that the tree and the sign look at.
    fn planes(self) -> usize {
        match self {
            Gate::Trunc { shift } => shift as usize,
            Gate::Relu { width, .. } => width as usize,
        }
    }

    /// The sign gate of a ReLU that truncates nothing.
    fn plain_relu(self) -> Option<Sign> {
        match self {
            Gate::Relu { shift: 0, width } => Some(Sign { width }),
            _ => None,
        }
    }

    /// Bits opened in the last round.
    fn last_opened(self, tree: &Tree) -> usize {
        match self {
            Gate::Trunc { .. } => 1,
            Gate::Relu { .. } => 1 + usize::from(!tree.side_is_opened()),
        }
    }

    /// What is opened, and bytes dealt, for `elements` elements.
    pub(super) fn cost(self, ring: Ring, elements: usize) -> GateCost {
        if let Some(sign) = self.plain_relu() {
            return sign.cost(ring, elements, elements);
        }
        let (tree, bits) = (self.tree(), ring.bits());
        let (planes, wide, narrow) = match self {
            Gate::Trunc { .. } => (tree.dealt(), 2, 1),
            Gate::Relu { .. } => (tree.dealt() + 1, 5, 2),
        };
        GateCost {
            openings: tree.openings(self.last_opened(&tree), elements),
            dealt: planes * plane_bytes(elements)
                + wide * packed_len(bits, elements)
                + narrow * packed_len(self.shift(), elements),
        }
    }

    /// Dealer: shares the correlation for masks `r`, reduced.
    pub(super) fn deal(self, r: &[u64], dealing: &mut Dealing) {
        if let Some(sign) = self.plain_relu() {
            return sign.deal_select(r, r, dealing);
        }
        let (n, ring, shift) = (r.len(), dealing.ring(), self.shift());
        let (bits, tree) = (ring.bits(), self.tree());
        let planes = from_values(r, self.planes());
        let side_mask = tree.deal(&planes, n, dealing);
        let sign_mask = match self {
            Gate::Trunc { .. } => None,
            Gate::Relu { width, .. } => {
                dealing.deal_planes(&planes[(width as usize - 1) * words(n)..], n);
                Some(dealing.mask_plane(n))
            }
        };
        let product =
            |a: &[u64], b: &[u64]| -> Vec<u64> { a.iter().zip(b).map(|(a, b)| a.wrapping_mul(*b)).collect() };
        let sign: Option<Vec<u64>> = sign_mask.map(|mask| to_bits(&mask, n).collect());
        let borrow_mask = side_mask.unwrap_or_else(|| dealing.mask_plane(n));
        let borrow: Vec<u64> = to_bits(&borrow_mask, n).collect();
        let shifted: Vec<u64> = r.iter().map(|v| v >> shift).collect();
        let top: Vec<u64> = r.iter().map(|v| v >> (bits - 1)).collect();
        dealing.deal_ring(&shifted, bits);
        dealing.deal_ring(&borrow, bits);
        dealing.deal_ring(&top, shift);
        if let Some(sign) = sign {
            dealing.deal_ring(&sign, bits);
            dealing.deal_ring(&product(&sign, &shifted), bits);
            dealing.deal_ring(&product(&sign, &borrow), bits);
            dealing.deal_ring(&product(&sign, &top), shift);
        }
    }

    /// Party: own shares of the result, from the masked values `m` (reduced) and the own half of their masks.
    pub(super) fn evaluate(
        self,
        m: &[u64],
        lambda: &[u64],
        party: &mut Party,
    ) -> Result<Vec<u64>, ProtocolError> {
        if let Some(sign) = self.plain_relu() {
            return sign.select(m, Masked { m, lambda }, party);
        }
        let (n, ring, first) = (m.len(), party.ring(), party.is_first());
        let (bits, shift) = (ring.bits(), self.shift());
        let c = from_values(m, self.planes());
        let (low_borrow, side) = self.tree().evaluate(&c, n, party)?;
        let opened = match self {
            Gate::Trunc { .. } => Opened::new(vec![low_borrow], None, party, n)?,
            Gate::Relu { width, .. } => {
                let top = &c[(width as usize - 1) * words(n)..];
                let r_top = party.dealt_planes(1, n)?;
                // d = 1 - msb; public terms are added by the first party only.
                let flip = |w: usize| if first { !top[w] } else { 0 };
                let positive = (0..words(n)).map(|w| low_borrow[w] ^ r_top[w] ^ flip(w)).collect();
                match side {
                    Side::None => unreachable!("the tree is split at the shift"),
                    Side::Opened(masked) => Opened::new(vec![positive], Some(masked), party, n)?,
                    Side::Share(share) => Opened::new(vec![positive, share], None, party, n)?,
                }
            }
        };
        let public = |value: u64| if first { value } else { 0 };
        let shifted = party.dealt_ring(n, bits)?;
        let borrow = party.dealt_ring(n, bits)?;
        let wrap = party.dealt_ring(n, shift)?;
        let quarter = 1u64 << (bits - 2);
        // A: the public part. The borrow bit is m_c + (1 - 2 m_c) λ_c; a wrapped mask adds 2^(l-s) unless c wrapped too.
        let parts = |i: usize, masked_borrow: u64| {
            let c = ring.reduce(m[i].wrapping_add(quarter));
            let a = (c >> shift).wrapping_sub(1 << (bits - 2 - shift)).wrapping_sub(masked_borrow);
            let sign_of_borrow = 1u64.wrapping_sub(2 * masked_borrow);
            let carry = (1 - (c >> (bits - 1))) << (bits - shift);
            (a, sign_of_borrow, carry)
        };
        let linear = |parts: (u64, u64, u64), r: u64, b: u64, w: u64| {
            parts.2.wrapping_mul(w).wrapping_sub(r).wrapping_sub(parts.1.wrapping_mul(b))
        };
        if let Gate::Trunc { .. } = self {
            let y = (0..n).map(|i| {
                let p = parts(i, opened.bit(0, i));
                ring.reduce(public(p.0).wrapping_add(linear(p, shifted[i], borrow[i], wrap[i])))
            });
            return Ok(y.collect());
        }
        let sign = party.dealt_ring(n, bits)?;
        let sign_shifted = party.dealt_ring(n, bits)?;
        let sign_borrow = party.dealt_ring(n, bits)?;
        let sign_wrap = party.dealt_ring(n, shift)?;
        let y = (0..n).map(|i| {
            let p = parts(i, opened.bit(1, i));
            let t = public(p.0).wrapping_add(linear(p, shifted[i], borrow[i], wrap[i]));
            let t_sign = p.0.wrapping_mul(sign[i]).wrapping_add(linear(
                p,
                sign_shifted[i],
                sign_borrow[i],
                sign_wrap[i],
            ));
            ring.reduce(select(opened.bit(0, i), t, t_sign))
        });
        Ok(y.collect())
    }
}

/// The masked bits of the last round.
struct Opened {
    planes: Vec<u64>,
    stride: usize,
}

impl Opened {
    /// Masks and opens `shares` in one round; `known` is a plane opened before, appended.
    fn new(
        shares: Vec<Vec<u64>>,
        known: Option<Vec<u64>>,
        party: &mut Party,
        elements: usize,
    ) -> Result<Self, ProtocolError> {
        let mut own = Vec::new();
        for share in &shares {
            let mask = party.mask_plane(elements);
            own.extend(share.iter().zip(&mask).map(|(s, m)| s ^ m));
        }
        let mut planes = party.open_planes(&own, elements)?;
        planes.extend(known.into_iter().flatten());
        Ok(Self { planes, stride: words(elements) })
    }

    fn bit(&self, plane: usize, i: usize) -> u64 {
        (self.planes[plane * self.stride + i / 64] >> (i % 64)) & 1
    }
}

//! Exact truncation, and ReLU fused with it; without truncation see [`super::sign`].
//!
//! With m_x = x + λ_x public, r = λ_x and c = m_x + 2^(l-2), for -2^(l-2) <= x < 2^(l-2):
//!
//! `floor(x / 2^s) = (c≫s) − (r≫s) − B_s + r_top·(1 − c_top)·2^(l−s) − 2^(l−2−s)`, B_s = [c mod 2^s < r mod 2^s];
//!
//! `msb(x) = x_{m−1} = m_{x,m−1} ⊕ r_{m−1} ⊕ [m_x mod 2^(m−1) < r mod 2^(m−1)]` for -2^(m-1) <= x < 2^(m-1).
//!
//! With B_s opened as m_c = B_s ⊕ λ_c, `(r≫s) + B_s = m_c + V − 2·m_c·λ_c` for V = (r≫s) + λ_c: λ_c is only needed modulo
//! 2^(l−1), and so is its product with λ_d, the mask of the sign (see [`super::sign`]).
//!
//! Adversary: semi-honest server or client, with a dealer that joins neither. Correlations: the bits of [`Tree`] plus
//! 2l − 1 + s (truncation) or 5l − 2 + 2s (fused) bits of ring elements per element. Opened: masked tree bits, the masked
//! sign and masked B_s; never a result. Leaks: nothing. Source: the masked evaluation of ABY2.0 and Turbospeedz with the
//! dealt products of this design; compare Escudero et al. (Crypto 2020) for edaBit truncation.

use privet_ring::planes::words;
use privet_ring::{Ring, packed_len};

use super::borrow::{Borrow, Way};
use super::cost::GateCost;
use super::gate::{Dealing, PIECE, Party, Share};
use super::sign::{Masked, Sign, select, sign_mask, sign_share};
use super::tree::Side;
use crate::ProtocolError;

/// What to compute from a masked wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// floor(x / 2^shift), shift >= 1.
    Trunc { shift: u32, way: Way },
    /// floor(max(x, 0) / 2^shift), sign from the low `width` bits.
    Relu { shift: u32, width: u32, way: Way },
}

impl Gate {
    fn borrow(self) -> Borrow {
        match self {
            Gate::Trunc { shift, way } => Borrow::new(shift, None, way),
            Gate::Relu { shift, width, way } => Borrow::new(width - 1, Some(shift), way),
        }
    }

    fn shift(self) -> u32 {
        match self {
            Gate::Trunc { shift, .. } | Gate::Relu { shift, .. } => shift,
        }
    }

    /// The sign gate of a ReLU that truncates nothing.
    fn plain_relu(self) -> Option<Sign> {
        match self {
            Gate::Relu { shift: 0, width, way } => Some(Sign { width, way }),
            _ => None,
        }
    }

    /// Bits of what is dealt as ring elements, in order: V, λ_c and r_top, then for a ReLU λ_d and its products with the three.
    fn dealt_widths(self, ring: Ring) -> Vec<u32> {
        let (bits, shift) = (ring.bits(), self.shift());
        match self {
            Gate::Trunc { .. } => vec![bits, bits - 1, shift],
            Gate::Relu { .. } => vec![bits, bits - 1, shift, bits, bits, bits - 1, shift],
        }
    }

    /// Bits opened in the last round.
    fn last_opened(self, borrow: &Borrow) -> usize {
        match self {
            Gate::Trunc { .. } => 1,
            Gate::Relu { .. } => 1 + usize::from(!borrow.side_is_opened()),
        }
    }

    /// What is opened, and bytes dealt, for `elements` elements.
    pub(super) fn cost(self, ring: Ring, elements: usize) -> GateCost {
        if let Some(sign) = self.plain_relu() {
            return sign.cost(ring, elements, elements);
        }
        let borrow = self.borrow();
        let others = self.dealt_widths(ring).iter().map(|&w| packed_len(w, elements)).sum();
        let openings = borrow.openings(self.last_opened(&borrow), elements);
        GateCost::new(openings, borrow.chunks(elements, others))
    }

    /// Dealer: shares the correlation for masks `r`, reduced.
    pub(super) fn deal(self, r: &[u64], dealing: &mut Dealing) -> Result<(), ProtocolError> {
        if let Some(sign) = self.plain_relu() {
            return sign.deal_select(r, r, dealing);
        }
        let (n, ring, shift) = (r.len(), dealing.ring(), self.shift());
        let (bits, borrow) = (ring.bits(), self.borrow());
        let r_bits = borrow.bits(r, matches!(self, Gate::Relu { .. }));
        let lacking = borrow.deal(&r_bits, dealing)?;
        let sign_mask = match self {
            Gate::Trunc { .. } => None,
            Gate::Relu { .. } => Some(sign_mask(&r_bits.top, &lacking, n, dealing)),
        };
        let borrow_mask = lacking.opened.unwrap_or_else(|| {
            let lacking = if sign_mask.is_some() { &lacking.low } else { &lacking.whole };
            dealing.mask_plane(n).iter().zip(lacking).map(|(m, l)| m ^ l).collect()
        });
        let borrow = |i: usize| bit(&borrow_mask, i);
        let shifted = |i: usize| (r[i] >> shift) + borrow(i);
        let top = |i: usize| r[i] >> (bits - 1);
        dealing.deal_each(n, bits, shifted);
        dealing.deal_each(n, bits - 1, borrow);
        dealing.deal_each(n, shift, top);
        if let Some(mask) = sign_mask {
            let sign = |i: usize| bit(&mask, i);
            dealing.deal_each(n, bits, sign);
            dealing.deal_each(n, bits, |i| sign(i).wrapping_mul(shifted(i)));
            dealing.deal_each(n, bits - 1, |i| sign(i) & borrow(i));
            dealing.deal_each(n, shift, |i| sign(i) & top(i));
        }
        Ok(())
    }

    /// Party: own shares of the result, from the masked values `m` (reduced) and the own half of their masks.
    pub(super) async fn evaluate(
        self,
        m: &[u64],
        lambda: &[u64],
        party: &mut Party<'_>,
    ) -> Result<Vec<u64>, ProtocolError> {
        if let Some(sign) = self.plain_relu() {
            return sign.select(m, Masked { m, lambda }, party).await;
        }
        let (n, ring, first) = (m.len(), party.ring(), party.is_first());
        let shift = self.shift();
        let borrow = self.borrow();
        let c = borrow.bits(m, matches!(self, Gate::Relu { .. }));
        let (low_borrow, side) = borrow.evaluate(&c, party).await?;
        let opened = match self {
            Gate::Trunc { .. } => Opened::new(vec![low_borrow], None, party, n).await?,
            Gate::Relu { .. } => {
                let positive = sign_share(low_borrow, &c.top, first);
                match side {
                    Side::None => unreachable!("the tree is split at the shift"),
                    Side::Opened(masked) => Opened::new(vec![positive], Some(masked), party, n).await?,
                    Side::Share(share) => Opened::new(vec![positive, share], None, party, n).await?,
                }
            }
        };
        let mut dealt = Dealt::new(self, n, party)?;
        let mut y = vec![0; n];
        for (k, (y, m)) in y.chunks_mut(PIECE).zip(m.chunks(PIECE)).enumerate() {
            dealt.read(m.len())?;
            let opened = |plane: usize, i: usize| opened.bit(plane, k * PIECE + i);
            match self {
                Gate::Trunc { .. } => Truncation { ring, shift, first }.trunc(m, &dealt, opened, y),
                Gate::Relu { .. } => Truncation { ring, shift, first }.relu(m, &dealt, opened, y),
            }
        }
        Ok(y)
    }
}

/// What is dealt as ring elements, see [`Gate::dealt_widths`]. Read piece by piece.
struct Dealt<'a> {
    shares: Vec<Share<'a>>,
    pieces: Vec<[u64; PIECE]>,
}

impl<'a> Dealt<'a> {
    fn new(gate: Gate, elements: usize, party: &mut Party<'a>) -> Result<Self, ProtocolError> {
        let widths = gate.dealt_widths(party.ring());
        let shares = widths
            .into_iter()
            .map(|width| party.dealt_share(elements, width))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { pieces: vec![[0; PIECE]; shares.len()], shares })
    }

    /// Reads the next `len` elements.
    fn read(&mut self, len: usize) -> Result<(), ProtocolError> {
        self.shares
            .iter_mut()
            .zip(&mut self.pieces)
            .try_for_each(|(share, piece)| share.read(&mut piece[..len]))
    }
}

/// The arithmetic after the last round.
#[derive(Clone, Copy)]
struct Truncation {
    ring: Ring,
    shift: u32,
    first: bool,
}

/// What a party knows about one element in public: A, 2·m_c, and 2^(l-s) if c did not wrap.
#[derive(Clone, Copy)]
struct Public {
    a: u64,
    masked_borrow: u64,
    carry: u64,
}

impl Truncation {
    /// The borrow bit is m_c + λ_c - 2 m_c λ_c; a wrapped mask adds 2^(l-s) unless c wrapped too.
    #[inline(always)]
    fn public(self, m: u64, masked_borrow: u64) -> Public {
        let bits = self.ring.bits();
        let c = self.ring.reduce(m.wrapping_add(1 << (bits - 2)));
        Public {
            a: (c >> self.shift).wrapping_sub(1 << (bits - 2 - self.shift)).wrapping_sub(masked_borrow),
            masked_borrow: 2 * masked_borrow,
            carry: 1u64.wrapping_sub(c >> (bits - 1)) << (bits - self.shift),
        }
    }

    #[inline(always)]
    fn own(self, public: u64) -> u64 {
        public & 0u64.wrapping_sub(u64::from(self.first))
    }

    fn trunc(self, m: &[u64], dealt: &Dealt, opened: impl Fn(usize, usize) -> u64, y: &mut [u64]) {
        let [v, b, w] = std::array::from_fn(|k| &dealt.pieces[k][..m.len()]);
        for (i, (y, &m)) in y.iter_mut().zip(m).enumerate() {
            let p = self.public(m, opened(0, i));
            *y = self.ring.reduce(self.own(p.a).wrapping_add(p.linear(v[i], b[i], w[i])));
        }
    }

    fn relu(self, m: &[u64], dealt: &Dealt, opened: impl Fn(usize, usize) -> u64, y: &mut [u64]) {
        let [v, b, w, sign, sign_v, sign_b, sign_w] = std::array::from_fn(|k| &dealt.pieces[k][..m.len()]);
        for (i, (y, &m)) in y.iter_mut().zip(m).enumerate() {
            let p = self.public(m, opened(1, i));
            let t = self.own(p.a).wrapping_add(p.linear(v[i], b[i], w[i]));
            let t_sign = p.a.wrapping_mul(sign[i]).wrapping_add(p.linear(sign_v[i], sign_b[i], sign_w[i]));
            *y = self.ring.reduce(select(opened(0, i), t, t_sign));
        }
    }
}

impl Public {
    #[inline(always)]
    fn linear(self, v: u64, b: u64, w: u64) -> u64 {
        self.carry.wrapping_mul(w).wrapping_sub(v).wrapping_add(self.masked_borrow.wrapping_mul(b))
    }
}

/// The masked bits of the last round.
struct Opened {
    planes: Vec<u64>,
    stride: usize,
}

impl Opened {
    /// Masks and opens `shares` in one round; `known` is a plane opened before, appended.
    async fn new(
        shares: Vec<Vec<u64>>,
        known: Option<Vec<u64>>,
        party: &mut Party<'_>,
        elements: usize,
    ) -> Result<Self, ProtocolError> {
        let mut own = Vec::new();
        for share in &shares {
            let mask = party.mask_plane(elements);
            own.extend(share.iter().zip(&mask).map(|(s, m)| s ^ m));
        }
        let mut planes = party.open_planes(own, elements).await?;
        planes.extend(known.into_iter().flatten());
        Ok(Self { planes, stride: words(elements) })
    }

    fn bit(&self, plane: usize, i: usize) -> u64 {
        bit(&self.planes[plane * self.stride..], i)
    }
}

fn bit(plane: &[u64], i: usize) -> u64 {
    (plane[i / 64] >> (i % 64)) & 1
}

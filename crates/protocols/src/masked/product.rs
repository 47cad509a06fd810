//! Truncations, signs and what they choose by keys that carry products ([`privet_fss::Select`], [`privet_fss::Truncation`]):
//! shares come out of the keys, and nothing is opened.
//!
//! Adversary: semi-honest server or client, with a dealer that joins neither. Correlations: a key an element, and what its gate
//! says is shared. Opened: nothing. Rounds: none. Leaks: nothing; what a party has of an element is its key, whose words are pseudorandom
//! without the other's root, and its shares.

use privet_fss::{Dcf, Select, Truncation};
use privet_ring::{Ring, packed_len};

use super::compare::Gate;
use super::cost::GateCost;
use super::gate::{Dealing, Party, key_chunks};
use super::sign::Masked;
use crate::ProtocolError;

/// What to compute from a masked wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Product {
    /// floor(x / 2^shift), shift >= 1.
    Trunc { shift: u32 },
    /// max(x, 0), sign from the low `width` bits.
    Relu { width: u32 },
    /// [x >= 0].
    Sign { width: u32 },
    /// [x >= 0]·t.
    Select { width: u32 },
}

impl Product {
    /// What is dealt, for `elements` elements.
    pub(super) fn cost(self, ring: Ring, elements: usize) -> GateCost {
        let bits = ring.bits();
        match self {
            Self::Trunc { shift } => cost(Truncation::new(shift, ring).key(), &[bits, shift], elements),
            Self::Sign { width } => cost(Select::new(width, ring).sign_key(), &[bits], elements),
            Self::Relu { width } | Self::Select { width } => {
                cost(Select::new(width, ring).choice_key(), &[bits, bits], elements)
            }
        }
    }

    /// Dealer: shares the correlation for masks `r`, and those of t for a choice; reduced.
    pub(super) fn deal(self, r: &[u64], t: &[u64], dealing: &mut Dealing) -> Result<(), ProtocolError> {
        let ring = dealing.ring();
        let bits = ring.bits();
        match self {
            Self::Trunc { shift } => {
                let gate = Truncation::new(shift, ring);
                dealing.deal_products(gate.key(), r, [&vec![1; r.len()]])?;
                let [shifted, top] = gate.correlate(r);
                dealing.deal_ring(&shifted, bits);
                dealing.deal_ring(&top, shift);
            }
            Self::Sign { width } => {
                let gate = Select::new(width, ring);
                let (beta, top) = gate.correlate(r);
                dealing.deal_products(gate.sign_key(), r, [&beta])?;
                dealing.deal_ring(&top, bits);
            }
            Self::Relu { width } | Self::Select { width } => {
                let gate = Select::new(width, ring);
                let (beta, top) = gate.correlate(r);
                let lambda = if matches!(self, Self::Relu { .. }) { r } else { t };
                let (products, top_products) = gate.correlate_choice(&beta, &top, lambda);
                dealing.deal_products(gate.choice_key(), r, [&beta, &products])?;
                dealing.deal_ring(&top, bits);
                dealing.deal_ring(&top_products, bits);
            }
        }
        Ok(())
    }

    /// Party: own shares of the result, from masked values and the own half of their masks, and t for a choice.
    pub(super) fn evaluate(
        self,
        x: Masked<'_>,
        t: Masked<'_>,
        party: &mut Party<'_>,
    ) -> Result<Vec<u64>, ProtocolError> {
        let (ring, side, n) = (party.ring(), party.side(), x.m.len());
        let bits = ring.bits();
        match self {
            Self::Trunc { shift } => {
                let gate = Truncation::new(shift, ring);
                let [borrow] = party.products(gate.key(), x.m)?;
                let (shifted, top) = (party.dealt_ring(n, bits)?, party.dealt_ring(n, shift)?);
                Ok(gate.evaluate(side, x.m, &borrow, [&shifted, &top]))
            }
            Self::Sign { width } => {
                let gate = Select::new(width, ring);
                let [u] = party.products(gate.sign_key(), x.m)?;
                let top = party.dealt_ring(n, bits)?;
                Ok(gate.sign(side, x.m, sums(&u, &top)))
            }
            Self::Relu { width } | Self::Select { width } => {
                let gate = Select::new(width, ring);
                let [u, products] = party.products(gate.choice_key(), x.m)?;
                let (top, top_products) = (party.dealt_ring(n, bits)?, party.dealt_ring(n, bits)?);
                let u = sums(&u, &top).zip(sums(&products, &top_products)).map(|(u, v)| [u, v]);
                let t = if matches!(self, Self::Relu { .. }) { x } else { t };
                Ok(gate.choice(side, x.m, [t.m, t.lambda], u))
            }
        }
    }
}

/// Of keys, and of shares of so many bits each.
fn cost<const VALUES: usize>(dcf: Dcf<VALUES>, dealt: &[u32], elements: usize) -> GateCost {
    let keys = key_chunks(elements, move |n| dcf.key_bytes(n));
    let dealt = dealt.iter().map(|&bits| packed_len(bits, elements)).sum();
    GateCost::new(Vec::new(), keys.chain(std::iter::once([dealt, 0])).collect())
}

fn sums(a: &[u64], b: &[u64]) -> impl Iterator<Item = u64> {
    a.iter().zip(b).map(|(a, b)| a.wrapping_add(*b))
}

/// A gate of one masked wire, by a sign that is opened or by keys that carry products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Opened(Gate),
    Product(Product),
}

impl Compare {
    /// What is opened, and bytes dealt, for `elements` elements.
    pub(super) fn cost(self, ring: Ring, elements: usize) -> GateCost {
        match self {
            Self::Opened(gate) => gate.cost(ring, elements),
            Self::Product(product) => product.cost(ring, elements),
        }
    }

    /// Dealer: shares the correlation for masks `r`, reduced.
    pub(super) fn deal(self, r: &[u64], dealing: &mut Dealing) -> Result<(), ProtocolError> {
        match self {
            Self::Opened(gate) => gate.deal(r, dealing),
            Self::Product(product) => product.deal(r, &[], dealing),
        }
    }

    /// Party: own shares of the result, from a masked wire.
    pub(super) async fn evaluate(
        self,
        x: Masked<'_>,
        party: &mut Party<'_>,
    ) -> Result<Vec<u64>, ProtocolError> {
        match self {
            Self::Opened(gate) => gate.evaluate(x.m, x.lambda, party).await,
            Self::Product(product) => product.evaluate(x, Masked { m: &[], lambda: &[] }, party),
        }
    }
}

//! Shares of `[c mod 2^n < r mod 2^n]` from a public `c` and the dealer's `r`: by a tree of masked bits ([`Tree`]), or by keys of
//! function secret sharing ([`Comparison`]), which take no round and more material.

use privet_fss::Comparison;
use privet_ring::planes::{from_values, plane_bytes, words};

use super::cost::{Chunk, Opening};
use super::gate::{Dealing, Party, key_chunks};
use super::tree::{Lacking, Side, Tree};
use crate::ProtocolError;

/// Which of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// A flat tree takes a round less, and more material.
    Tree {
        flat: bool,
    },
    Keys,
}

/// How a borrow of n bits, and maybe that of its low bits, is found.
pub(super) enum Borrow {
    Tree { tree: Tree, bits: usize },
    Keys { whole: Comparison, low: Low },
}

/// The second borrow, by keys.
pub(super) enum Low {
    None,
    /// The same as the whole one.
    Whole,
    Keys(Comparison),
}

/// Values as far as a borrow looks at them, and the bit above.
pub(super) struct Bits<'a> {
    values: &'a [u64],
    /// Planes of the compared bits, for a tree only.
    planes: Vec<u64>,
    /// The plane above them, if it was asked for.
    pub(super) top: Vec<u64>,
}

impl Borrow {
    /// Over `bits` >= 1 bits; with `split` in 1..=bits also the borrow of the low `split` bits.
    pub(super) fn new(bits: u32, split: Option<u32>, way: Way) -> Self {
        if let Way::Tree { flat } = way {
            return Self::Tree { tree: Tree::new(bits, split, flat), bits: bits as usize };
        }
        let low = match split {
            None => Low::None,
            Some(split) if split == bits => Low::Whole,
            Some(split) => Low::Keys(Comparison::new(split)),
        };
        Self::Keys { whole: Comparison::new(bits), low }
    }

    /// The keys, in the order they are dealt.
    fn keys(&self) -> impl Iterator<Item = Comparison> {
        let keys = match self {
            Self::Tree { .. } => [None, None],
            Self::Keys { whole, low: Low::Keys(low) } => [Some(*whole), Some(*low)],
            Self::Keys { whole, .. } => [Some(*whole), None],
        };
        keys.into_iter().flatten()
    }

    /// Whether the low borrow is opened on the way, so that no further bit is needed for it.
    pub(super) fn side_is_opened(&self) -> bool {
        matches!(self, Self::Tree { tree, .. } if tree.side_is_opened())
    }

    /// What is opened, `last` planes in the last round.
    pub(super) fn openings(&self, last: usize, elements: usize) -> Vec<Opening> {
        match self {
            Self::Tree { tree, .. } => tree.openings(last, elements),
            Self::Keys { .. } => vec![Opening::planes(last, elements)],
        }
    }

    /// The chunks of material: keys, and what the first party is sent besides, of which `others` bytes are not for the borrow.
    pub(super) fn chunks(&self, elements: usize, others: usize) -> Vec<Chunk> {
        let rest = match self {
            Self::Tree { tree, .. } => tree.dealt() * plane_bytes(elements),
            Self::Keys { .. } => 0,
        };
        let keys = self.keys().flat_map(|keys| key_chunks(elements, move |n| keys.key_bytes(n)));
        keys.chain(std::iter::once([rest + others, 0])).collect()
    }

    /// What is needed of values: the compared bits, and with `top` the one above.
    pub(super) fn bits<'a>(&self, values: &'a [u64], top: bool) -> Bits<'a> {
        let (mut planes, mut above) = (Vec::new(), Vec::new());
        match self {
            Self::Tree { bits, .. } => {
                planes = from_values(values, bits + usize::from(top));
                above = planes.split_off(bits * words(values.len()));
            }
            Self::Keys { whole, .. } if top => {
                let shifted: Vec<u64> = values.iter().map(|v| v >> whole.bits()).collect();
                above = from_values(&shifted, 1);
            }
            Self::Keys { .. } => {}
        }
        Bits { values, planes, top: above }
    }

    /// Dealer: shares everything that is needed for `r`.
    pub(super) fn deal(&self, r: &Bits, dealing: &mut Dealing) -> Result<Lacking, ProtocolError> {
        if let Self::Tree { tree, .. } = self {
            return Ok(tree.deal(&r.planes, r.values.len(), dealing));
        }
        self.keys().try_for_each(|keys| dealing.deal_comparison(keys, r.values))?;
        Ok(Lacking::nothing(r.values.len()))
    }

    /// Party: own share of the borrow for the public `c`, and the low borrow, but for what they lack.
    pub(super) async fn evaluate(
        &self,
        c: &Bits<'_>,
        party: &mut Party<'_>,
    ) -> Result<(Vec<u64>, Side), ProtocolError> {
        match self {
            Self::Tree { tree, .. } => tree.evaluate(&c.planes, c.values.len(), party).await,
            Self::Keys { whole, low } => {
                let borrow = party.compare(*whole, c.values)?;
                let side = match low {
                    Low::None => Side::None,
                    Low::Whole => Side::Share(borrow.clone()),
                    Low::Keys(low) => Side::Share(party.compare(*low, c.values)?),
                };
                // What follows the keys is dealt before other lanes' keys, so it is read before they take their turns.
                party.read_ahead()?;
                Ok((borrow, side))
            }
        }
    }
}

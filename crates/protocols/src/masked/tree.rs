//! The comparison tree: shares of `[c mod 2^n < r mod 2^n]` from a public `c` and a dealt `r`, radix 4.
//!
//! Bit i generates a borrow when g_i = ¬c_i ∧ r_i and passes one on when p_i = ¬(c_i ⊕ r_i). A leaf covers up to four
//! bits; the dealer shares all products of its bits of r, so the leaf's (G, P) are sums of shares with public
//! coefficients. An inner node combines up to five children, G = G_3 ⊕ P_3·G_2 ⊕ P_3·P_2·G_1 ⊕ .., from their opened
//! masked values and dealt products of their masks. One round a level.
//!
//! Multiplied out, G has for every child one product of masks alone, λ_g of the child and λ_p of all above it, with
//! the coefficient one. Nobody needs these one by one: their sum is one dealt bit; at the root, whose G is opened under a
//! mask that only the dealer has to know, it is none: the parties leave the sum away, and the dealer adds it to what it
//! takes for the mask ([`Lacking`]). The mask stays as uniform as the bits that the parties draw for it.
//!
//! A flat tree has one level less, which saves a round: leaves of up to six bits, and a root that joins up to seven of them. It opens
//! fewer bits, and takes two to three times the dealt ones, so it is for steps of few elements, whose rounds cost more than
//! their bits ([`super::step`]).
//!
//! A second borrow, of the low `split` bits only, comes out of the same tree: groups never straddle the split, so it
//! is either an opened inner value already or one more bit at the root.
//!
//! Reference: PROTOCOLS.md of the design, section 2 (MSB); the prefix adder is Kogge and Stone's, radix 4. Bits opened,
//! dealt and rounds are counted by [`Tree::opened`] and [`Tree::dealt`] and tested against the paper counts; fewer are dealt than there.

use privet_ring::planes::words;

use super::cost::Opening;
use super::gate::{Dealing, Party};
use super::node::{FLAT_ARITY, FLAT_RADIX, Item, Node, RADIX, ROOT_ARITY, Shares, leaf_shares, node_shares};
use crate::ProtocolError;

/// Shape of the tree; the same for dealer and parties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    /// Ranges of compared bits, from the lowest.
    leaves: Vec<std::ops::Range<usize>>,
    /// Sizes of the groups that each inner level joins, from the lowest.
    levels: Vec<Vec<usize>>,
    /// Children of the root that lie below the split; 0 without a split.
    side: usize,
}

/// Masks of one range of bits, as the dealer knows them.
#[derive(Default, Clone)]
struct Masks {
    g: Vec<u64>,
    p: Vec<u64>,
}

/// What the parties' shares of borrows lack, so that it need not be dealt: the dealer adds it to the masks under which they
/// open them. As planes.
pub(super) struct Lacking {
    /// Of the whole borrow.
    pub(super) whole: Vec<u64>,
    /// Of the low borrow, where it is a share.
    pub(super) low: Vec<u64>,
    /// The mask of the low borrow, where it is opened on the way.
    pub(super) opened: Option<Vec<u64>>,
}

impl Lacking {
    pub(super) fn nothing(elements: usize) -> Self {
        let none = vec![0; words(elements)];
        Self { whole: none.clone(), low: none, opened: None }
    }
}

/// The low borrow, as a party gets it.
pub(super) enum Side {
    /// No split was asked for.
    None,
    /// Opened on the way: the masked bits.
    Opened(Vec<u64>),
    /// Own share, still to be masked and opened.
    Share(Vec<u64>),
}

impl Tree {
    /// A tree over `bits` >= 1 bits; with `split` in 1..=bits also the borrow of the low `split` bits. A `flat` one where that saves
    /// a round, and leaves and root are not too large.
    pub(super) fn new(bits: u32, split: Option<u32>, flat: bool) -> Self {
        let (bits, split) = (bits as usize, split.map_or(0, |s| s as usize));
        assert!(bits >= 1 && split <= bits, "a tree over {bits} bits split at {split}");
        let tree = Self::deep(bits, split);
        if !flat || tree.levels.is_empty() {
            return tree;
        }
        let parts = (split.div_ceil(FLAT_RADIX)..=split.min(FLAT_ARITY))
            .flat_map(|low| (0..=FLAT_ARITY - low).map(move |high| [low, high]))
            .filter(|[_, high]| ((bits - split).div_ceil(FLAT_RADIX)..=bits - split).contains(high));
        // What is dealt for so many leaves.
        let dealt = |&[low, high]: &[usize; 2]| {
            let leaves = even(split, low).chain(even(bits - split, high));
            leaves.map(|len| (1 << len) - 1).sum::<usize>() + Node::root(low + high).dealt()
        };
        parts
            .min_by_key(|parts| (dealt(parts), parts[0] + parts[1]))
            .map_or(tree, |p| Self::flat(p, bits, split))
    }

    /// With so many leaves below and above the split, which the root joins.
    pub(super) fn flat(parts: [usize; 2], bits: usize, split: usize) -> Self {
        let mut leaves = Vec::new();
        for (part, count) in [0..split, split..bits].into_iter().zip(parts) {
            let mut start = part.start;
            for len in even(part.len(), count) {
                leaves.push(start..start + len);
                start += len;
            }
        }
        Self { leaves, levels: Vec::new(), side: parts[0] }
    }

    /// Of leaves and groups of at most [`RADIX`], but for the root: as few as there can be.
    fn deep(bits: usize, split: usize) -> Self {
        let Self { leaves, side, .. } =
            Self::flat([split.div_ceil(RADIX), (bits - split).div_ceil(RADIX)], bits, split);
        let (mut items, mut side) = (leaves.len(), side);
        let mut levels = Vec::new();
        while items > ROOT_ARITY {
            let above = items - side;
            let groups: Vec<usize> =
                even(side, side.div_ceil(RADIX)).chain(even(above, above.div_ceil(RADIX))).collect();
            side = side.div_ceil(RADIX);
            items = groups.len();
            levels.push(groups);
        }
        Self { leaves, levels, side }
    }

    /// Whether the only leaf is the root.
    fn is_leaf(&self) -> bool {
        self.leaves.len() == 1
    }

    fn root_arity(&self) -> usize {
        self.levels.last().map_or(self.leaves.len(), Vec::len)
    }

    /// Whether the low borrow is an opened child of the root, so that no further bit is needed for it.
    pub(super) fn side_is_opened(&self) -> bool {
        self.side == 1 && !self.is_leaf()
    }

    /// What is opened, root's own bits included: `last` planes in the last round.
    pub(super) fn openings(&self, last: usize, elements: usize) -> Vec<Opening> {
        self.opened().into_iter().chain([last]).map(|count| Opening::planes(count, elements)).collect()
    }

    /// Bits per element that each party opens, root's own bits not counted; one entry a round.
    pub(super) fn opened(&self) -> Vec<usize> {
        if self.is_leaf() {
            return Vec::new();
        }
        let joined = |groups: &Vec<usize>| {
            groups.iter().enumerate().filter(|&(_, &n)| n > 1).map(|(i, _)| 1 + usize::from(i > 0)).sum()
        };
        std::iter::once(2 * self.leaves.len() - 1).chain(self.levels.iter().map(joined)).collect()
    }

    /// Bits per element that the dealer shares.
    pub(super) fn dealt(&self) -> usize {
        let leaves: usize = self.leaves.iter().map(|l| (1 << l.len()) - 1).sum();
        let node = |(i, &n): (usize, &usize)| if n > 1 { Node::inner(n, i > 0).dealt() } else { 0 };
        let levels: usize =
            self.levels.iter().map(|groups| groups.iter().enumerate().map(node).sum::<usize>()).sum();
        let root = if self.is_leaf() { 0 } else { Node::root(self.root_arity()).dealt() };
        leaves + levels + root
    }

    /// Dealer: shares everything the tree over `r` (bit planes) needs.
    pub(super) fn deal(&self, r: &[u64], elements: usize, dealing: &mut Dealing) -> Lacking {
        let stride = words(elements);
        let mut items: Vec<Masks> = Vec::new();
        for (i, leaf) in self.leaves.iter().enumerate() {
            let bits: Vec<&[u64]> = leaf.clone().map(|k| &r[k * stride..][..stride]).collect();
            for set in 1..1usize << leaf.len() {
                dealing.deal_planes(&and_all(set, &bits), elements);
            }
            if !self.is_leaf() {
                items.push(Masks::draw(i > 0, elements, dealing));
            }
        }
        for groups in &self.levels {
            let mut next = Vec::new();
            let mut rest = &items[..];
            for (i, &arity) in groups.iter().enumerate() {
                let (children, tail) = rest.split_at(arity);
                rest = tail;
                next.push(if arity == 1 {
                    children[0].clone()
                } else {
                    deal_products(Node::inner(arity, i > 0), children, elements, dealing);
                    dealing.deal_planes(&sum_of_products(children), elements);
                    Masks::draw(i > 0, elements, dealing)
                });
            }
            items = next;
        }
        let mut lacking = Lacking::nothing(elements);
        if !self.is_leaf() {
            deal_products(Node::root(items.len()), &items, elements, dealing);
            lacking.whole = sum_of_products(&items);
            if self.side == items.len() {
                lacking.low.clone_from(&lacking.whole);
            }
        }
        if self.side_is_opened() {
            lacking.opened = Some(items.swap_remove(0).g);
        }
        lacking
    }

    /// Party: evaluates the tree for the public bit planes `c`. Returns the own share of the borrow and the low borrow, but
    /// for what they lack.
    pub(super) async fn evaluate(
        &self,
        c: &[u64],
        elements: usize,
        party: &mut Party<'_>,
    ) -> Result<(Vec<u64>, Side), ProtocolError> {
        let stride = words(elements);
        let mut shares = Vec::new();
        for (i, leaf) in self.leaves.iter().enumerate() {
            let bits: Vec<&[u64]> = leaf.clone().map(|k| &c[k * stride..][..stride]).collect();
            let dealt = party.plane_shares((1 << leaf.len()) - 1, elements)?;
            shares.push(leaf_shares(&bits, dealt, i > 0, party.is_first()));
        }
        if self.is_leaf() {
            let (borrow, _) = shares.swap_remove(0);
            let side = if self.side == 1 { Side::Share(borrow.clone()) } else { Side::None };
            return Ok((borrow, side));
        }
        let mut items = open_items(shares, elements, party).await?;
        for groups in &self.levels {
            let mut joined = Vec::new();
            let mut next: Vec<Item> = Vec::new();
            let mut rest = &mut items[..];
            for (i, &arity) in groups.iter().enumerate() {
                let (children, tail) = rest.split_at_mut(arity);
                rest = tail;
                if arity == 1 {
                    next.push(std::mem::take(&mut children[0]));
                } else {
                    let node = Node::inner(arity, i > 0);
                    let dealt = party.plane_shares(node.dealt(), elements)?;
                    joined.extend(node_shares(node, children, dealt, &[arity], party.is_first()));
                    next.push(Item::default());
                }
            }
            let mut opened = open_items(joined, elements, party).await?.into_iter();
            for (item, _) in next.iter_mut().zip(groups).filter(|(_, arity)| **arity > 1) {
                *item = opened.next().expect("one opened item per joined group");
            }
            items = next;
        }
        let node = Node::root(items.len());
        let dealt = party.plane_shares(node.dealt(), elements)?;
        // The low borrow, where it is not opened yet, comes from the same dealt products.
        let low = Some(self.side).filter(|&n| n > 1);
        let arities: Vec<usize> = std::iter::once(items.len()).chain(low).collect();
        let mut borrows = node_shares(node, &items, dealt, &arities, party.is_first()).into_iter();
        let mut next = || borrows.next().expect("one borrow for each arity").0;
        let borrow = next();
        let side = match self.side {
            0 => Side::None,
            1 => Side::Opened(std::mem::take(&mut items[0].g)),
            _ => Side::Share(next()),
        };
        Ok((borrow, side))
    }
}

/// Splits `items` into groups of even sizes: the material grows as powers of them.
fn even(items: usize, groups: usize) -> impl Iterator<Item = usize> {
    (0..groups).map(move |k| (k + 1) * items / groups - k * items / groups)
}

/// AND of the planes selected by the bits of `set`, which is not empty.
fn and_all(set: usize, planes: &[&[u64]]) -> Vec<u64> {
    let mut chosen = planes.iter().enumerate().filter(|(k, _)| set >> k & 1 == 1).map(|(_, p)| p);
    let mut product = chosen.next().expect("a product has a factor").to_vec();
    for plane in chosen {
        product.iter_mut().zip(plane.iter()).for_each(|(a, b)| *a &= b);
    }
    product
}

impl Masks {
    fn draw(with_p: bool, elements: usize, dealing: &mut Dealing) -> Self {
        let g = dealing.mask_plane(elements);
        let p = if with_p { dealing.mask_plane(elements) } else { Vec::new() };
        Self { g, p }
    }
}

fn deal_products(node: Node, children: &[Masks], elements: usize, dealing: &mut Dealing) {
    for product in node.products() {
        let mut plane: Vec<u64> = match product.g {
            Some(j) => children[j].g.clone(),
            None => vec![u64::MAX; words(elements)],
        };
        for (_, child) in children.iter().enumerate().filter(|(k, _)| product.p >> k & 1 == 1) {
            plane.iter_mut().zip(&child.p).for_each(|(a, b)| *a &= b);
        }
        dealing.deal_planes(&plane, elements);
    }
}

/// The sum, over all children but the highest, of the mask of G times those of all P above it.
fn sum_of_products(children: &[Masks]) -> Vec<u64> {
    let (lowest, rest) = children.split_first().expect("a node has children");
    let (_, below) = rest.split_last().expect("a node has two children");
    // As the node itself: what is below passes, or this child adds its own.
    let mut sum = lowest.g.clone();
    for child in below {
        sum.iter_mut().zip(&child.p).zip(&child.g).for_each(|((sum, p), g)| *sum = *sum & p ^ g);
    }
    let highest = &children[children.len() - 1];
    sum.iter_mut().zip(&highest.p).for_each(|(sum, p)| *sum &= p);
    sum
}

/// Masks shares of (G, P) with fresh masks and opens them, all in one round.
async fn open_items(
    shares: Vec<Shares>,
    elements: usize,
    party: &mut Party<'_>,
) -> Result<Vec<Item>, ProtocolError> {
    if shares.is_empty() {
        return Ok(Vec::new());
    }
    let stride = words(elements);
    let mut flat = Vec::new();
    let mut masks = Vec::new();
    for (g, p) in &shares {
        for plane in std::iter::once(g).chain(p) {
            let mask = party.mask_plane(elements);
            flat.extend(plane.iter().zip(&mask).map(|(s, m)| s ^ m));
            masks.push(mask);
        }
    }
    let opened = party.open_planes(flat, elements).await?;
    let mut opened = opened.chunks_exact(stride).map(<[u64]>::to_vec).zip(masks);
    let mut take = || opened.next().expect("one plane per share");
    Ok(shares
        .iter()
        .map(|(_, p)| {
            let (g, g_mask) = take();
            let (p, p_mask) = if p.is_some() { take() } else { Default::default() };
            Item { g, p, g_mask, p_mask }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The counts of PROTOCOLS.md: (width m, bits opened by both parties with the result, rounds). It counts 68, 151 and 329
    /// dealt bits, with one for the sign, and with all products of masks.
    #[test]
    fn counts_equal_the_published_ones() {
        for (m, opened, rounds, dealt) in [(16, 16, 2, 64), (32, 38, 3, 145), (64, 78, 3, 317)] {
            let tree = Tree::new(m - 1, None, false);
            assert_eq!(2 * (tree.opened().iter().sum::<usize>() + 1), opened, "m={m}");
            assert_eq!(tree.opened().len() + 1, rounds, "m={m}");
            assert_eq!(tree.dealt(), dealt, "m={m}");
        }
    }

    /// No tree of these leaves and rounds that opens as little has less dealt: found by a search over all shapes.
    #[test]
    fn splits_share_even_leaves_and_groups() {
        for (bits, split, opened, dealt) in [(39, 16, 25, 172), (39, 15, 25, 172), (62, 16, 39, 309)] {
            let tree = Tree::new(bits, Some(split), false);
            assert_eq!(tree.opened().iter().sum::<usize>() + 1, opened, "{bits} split at {split}");
            assert_eq!(tree.dealt(), dealt, "{bits} split at {split}");
        }
    }

    #[test]
    fn no_tree_takes_more_than_three_rounds_and_a_split_costs_few_bits() {
        for bits in 1..=63 {
            let plain = Tree::new(bits, None, false);
            for split in 1..=bits {
                let tree = Tree::new(bits, Some(split), false);
                assert!(tree.opened().len() < 3, "{bits} split at {split}");
                let extra = tree.opened().iter().sum::<usize>() + usize::from(!tree.side_is_opened());
                assert!(
                    extra <= plain.opened().iter().sum::<usize>() + 6,
                    "{bits} split at {split}: {extra}"
                );
            }
        }
    }

    /// Up to 42 bits, or about as many with a split, take two rounds; never more rounds or opened bits than without.
    #[test]
    fn flat_trees_take_two_rounds_and_open_less() {
        for bits in 1..=63 {
            for split in 0..=bits {
                let split = Some(split).filter(|&s| s > 0);
                let [deep, flat] = [false, true].map(|flat| Tree::new(bits, split, flat));
                let opened =
                    |tree: &Tree| tree.opened().iter().sum::<usize>() + usize::from(!tree.side_is_opened());
                assert!(opened(&flat) <= opened(&deep), "{bits} split at {split:?}");
                assert!(flat.opened().len() <= deep.opened().len());
                let parts = [split.unwrap_or(0), bits - split.unwrap_or(0)];
                let fits = parts.iter().sum::<u32>() <= 42
                    && parts.iter().map(|part| part.div_ceil(6)).sum::<u32>() <= 7;
                assert_eq!(flat.opened().len() < 2, fits || deep.opened().len() < 2);
                assert_eq!(flat == deep, !fits || deep.opened().len() < 2, "{bits} split at {split:?}");
            }
        }
        // Bits that are dealt, and opened with the result.
        for (bits, split, dealt, opened) in
            [(31, None, 296, 12), (33, None, 356, 14), (33, Some(14), 356, 14), (39, Some(16), 516, 14)]
        {
            let tree = Tree::new(bits, split, true);
            assert_eq!((tree.dealt(), tree.opened()[0] + 1), (dealt, opened), "{bits} split at {split:?}");
        }
    }
}

//! What a party computes in a leaf and in an inner node of the comparison tree, see [`super::tree`]: sums of dealt shares
//! with public coefficients, many elements at a time. What is dealt is read in pieces that stay in the cache.

use super::gate::{PLANE_PIECE, PlaneShares};

/// Bits of a leaf and children of an inner node.
pub(super) const RADIX: usize = 4;
/// The root takes one child more when that saves a round.
pub(super) const ROOT_ARITY: usize = 5;
/// Bits of a leaf and leaves of a flat tree, whose root joins all of them, at most.
pub(super) const FLAT_RADIX: usize = 6;
pub(super) const FLAT_ARITY: usize = 7;

/// Masked (G, P) of one range of bits as a party holds them: opened values and own shares of the masks.
#[derive(Default)]
pub(super) struct Item {
    pub(super) g: Vec<u64>,
    pub(super) p: Vec<u64>,
    pub(super) g_mask: Vec<u64>,
    pub(super) p_mask: Vec<u64>,
}

/// Own shares of G, and of P if needed.
pub(super) type Shares = (Vec<u64>, Option<Vec<u64>>);

/// Own shares of a leaf's G and P. `c` are its public planes, `dealt` the shares of all products of its bits of r.
pub(super) fn leaf_shares(c: &[&[u64]], dealt: PlaneShares, with_p: bool, first: bool) -> Shares {
    if c.len() <= RADIX {
        leaf_shares_of::<{ 1 << RADIX }>(c, dealt, with_p, first)
    } else {
        leaf_shares_of::<{ 1 << FLAT_RADIX }>(c, dealt, with_p, first)
    }
}

/// [`leaf_shares`] of bits that have at most `SETS` sets.
fn leaf_shares_of<const SETS: usize>(
    c: &[&[u64]],
    mut dealt: PlaneShares,
    with_p: bool,
    first: bool,
) -> Shares {
    let (bits, stride) = (c.len(), c[0].len());
    let full = (1usize << bits) - 1;
    let mut g = Vec::with_capacity(stride);
    let mut p = Vec::with_capacity(if with_p { stride } else { 0 });
    let mut pieces = Pieces::new(full, stride);
    // not[U]: all bits of c in U are zero.
    let mut not = [[u64::MAX; LANES]; SETS];
    for start in (0..stride).step_by(pieces.len) {
        let len = pieces.len.min(stride - start);
        pieces.read(len, &mut dealt);
        for at in (0..len).step_by(LANES) {
            for set in 1..full + 1 {
                let c = lanes(c[set.trailing_zeros() as usize], start + at);
                not[set] = and(not[set & (set - 1)], xor(c, [u64::MAX; LANES]));
            }
            let (mut sum_g, mut sum_p) = ([0; LANES], if_first(first, not[full]));
            for set in 1..full + 1 {
                let share = lanes(pieces.plane(set - 1), at);
                // The lowest bit of the set generates, the higher ones pass: where r_k is not a factor, ¬c_k is.
                let lowest = set.trailing_zeros() as usize;
                let above = full & !((2 << lowest) - 1);
                sum_g = xor(sum_g, and(not[(1 << lowest) | (above & !set)], share));
                sum_p = xor(sum_p, and(not[full & !set], share));
            }
            let wanted = LANES.min(len - at);
            g.extend_from_slice(&sum_g[..wanted]);
            if with_p {
                p.extend_from_slice(&sum_p[..wanted]);
            }
        }
    }
    (g, with_p.then_some(p))
}

/// An inner node, or the root.
#[derive(Clone, Copy)]
pub(super) struct Node {
    arity: usize,
    with_p: bool,
    /// Its G is opened under a mask that only the dealer has to know.
    root: bool,
}

/// A product of masks that a node needs: `P_k` for the bits of `p`, times `G_j` if given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Product {
    pub(super) g: Option<usize>,
    pub(super) p: usize,
}

impl Node {
    /// A node whose G, and P if needed, are opened and joined with others.
    pub(super) fn inner(arity: usize, with_p: bool) -> Self {
        Self { arity, with_p, root: false }
    }

    pub(super) fn root(arity: usize) -> Self {
        Self { arity, with_p: false, root: true }
    }

    /// Planes that are dealt: the products, and the sum of those that are needed in this sum only, except for the root.
    pub(super) fn dealt(self) -> usize {
        // Of two P or more; of each G and some of the P above it, but for none and all of them.
        let passing = if self.with_p { self.arity } else { self.arity - 1 };
        let products = (1 << passing) - 1 - passing + (1 << self.arity) - 2 * self.arity;
        debug_assert_eq!(products, self.products().count());
        products + usize::from(!self.root)
    }

    /// All products of two or more masks that it needs one by one, in the order they are dealt: not those of a G with all P
    /// above it.
    pub(super) fn products(self) -> impl Iterator<Item = Product> {
        let (arity, lowest) = (self.arity, usize::from(!self.with_p));
        let p_sets =
            (0..1usize << arity).filter(move |set| set.count_ones() >= 2 && set & ((1 << lowest) - 1) == 0);
        let p_only = p_sets.map(|p| Product { g: None, p });
        let with_g = (0..arity).flat_map(move |j| {
            let above = (1usize << arity) - (2 << j);
            (1..above).filter(move |set| set & !above == 0).map(move |p| Product { g: Some(j), p })
        });
        p_only.chain(with_g)
    }
}

/// Shares of the products of masks that a node needs, for a piece of its planes.
struct Products<'a> {
    /// Of the P in a set.
    p: [&'a [u64]; 1 << FLAT_ARITY],
    /// Of one child's G and the P in a set.
    g: [[&'a [u64]; 1 << FLAT_ARITY]; FLAT_ARITY],
}

/// Own shares of G (and P) over the lowest children, as many as each of `arities` says, from what is dealt for all of
/// `children`. Those of the root's G lack the sum of products that is not dealt.
pub(super) fn node_shares(
    node: Node,
    children: &[Item],
    mut dealt: PlaneShares,
    arities: &[usize],
    first: bool,
) -> Vec<Shares> {
    let stride = children[0].g.len();
    let mut pieces = Pieces::new(node.dealt(), stride);
    let mut few = [[u64::MAX; LANES]; 1 << ROOT_ARITY];
    let mut many = [[u64::MAX; LANES]; 1 << FLAT_ARITY];
    let mut shares: Vec<Shares> =
        vec![(Vec::with_capacity(stride), node.with_p.then(Vec::new)); arities.len()];
    for start in (0..stride).step_by(pieces.len) {
        let len = pieces.len.min(stride - start);
        pieces.read(len, &mut dealt);
        // A share of a product is an own mask, or dealt. The lowest child may have no P.
        let mut products = Products { p: [&[]; 1 << FLAT_ARITY], g: [[&[]; 1 << FLAT_ARITY]; FLAT_ARITY] };
        for (k, child) in children.iter().enumerate() {
            products.p[1 << k] = child.p_mask.get(start..).unwrap_or_default();
            products.g[k][0] = &child.g_mask[start..];
        }
        for (product, plane) in node.products().zip(pieces.planes()) {
            match product.g {
                Some(j) => products.g[j][product.p] = plane,
                None => products.p[product.p] = plane,
            }
        }
        if !node.root {
            // The sum of all products of a G with every P above it stands for the lowest one.
            products.g[0][(1 << node.arity) - 2] = pieces.plane(node.dealt() - 1);
        }
        for (&arity, (g, p)) in arities.iter().zip(&mut shares) {
            for at in (0..len).step_by(LANES) {
                let wanted = LANES.min(len - at);
                let children = &children[..arity];
                let (sum_g, sum_p) = if arity <= ROOT_ARITY {
                    node_lanes(node, children, &products, &mut few, start + at, at, first)
                } else {
                    node_lanes(node, children, &products, &mut many, start + at, at, first)
                };
                g.extend_from_slice(&sum_g[..wanted]);
                p.iter_mut().for_each(|p| p.extend_from_slice(&sum_p[..wanted]));
            }
        }
    }
    shares
}

/// The shares of G, and of P if needed, at the words from `word` of opened planes and `at` of a piece, for children that
/// have at most `SETS` sets. `passes` is room for products, the first of which is all ones.
#[inline(always)]
fn node_lanes<const SETS: usize>(
    node: Node,
    children: &[Item],
    products: &Products,
    // passes[U]: product of the opened P in U.
    passes: &mut [Lanes; SETS],
    word: usize,
    at: usize,
    first: bool,
) -> (Lanes, Lanes) {
    let full = (1usize << children.len()) - 1;
    for set in 1..full + 1 {
        let lowest = &children[set.trailing_zeros() as usize];
        passes[set] = and(passes[set & (set - 1)], lanes(&lowest.p, word));
    }
    let mut sum_g = [0; LANES];
    for (j, child) in children.iter().enumerate() {
        let above = full & !((2 << j) - 1);
        let opened = lanes(&child.g, word);
        let own = xor(if_first(first, opened), lanes(products.g[j][0], at));
        sum_g = xor(sum_g, and(passes[above], own));
        let mut set = above;
        while set != 0 {
            let product = xor(and(opened, lanes(products.p[set], at)), lanes(products.g[j][set], at));
            sum_g = xor(sum_g, and(passes[above & !set], product));
            set = (set - 1) & above;
        }
    }
    let mut sum_p = if_first(first, passes[full]);
    for set in 1..if node.with_p { full + 1 } else { 1 } {
        sum_p = xor(sum_p, and(passes[full & !set], lanes(products.p[set], at)));
    }
    (sum_g, sum_p)
}

/// Words of a plane that are read at a time where planes are many: what is read stays in the cache.
const SHORT_PIECE: usize = 64;

/// Pieces of dealt planes. They lie close to each other, but not a power of two apart: they would share lines of the cache.
struct Pieces {
    words: Vec<u64>,
    /// Words of a piece, the last one of a plane left out.
    len: usize,
    stride: usize,
}

impl Pieces {
    /// Of so many planes of `len` words.
    fn new(planes: usize, len: usize) -> Self {
        let len = len.clamp(1, if planes > 1 << ROOT_ARITY { SHORT_PIECE } else { PLANE_PIECE });
        let stride = len.next_multiple_of(LANES) + LANES;
        Self { words: vec![0; planes * stride], len, stride }
    }

    /// Reads the next words of all planes.
    fn read(&mut self, len: usize, dealt: &mut PlaneShares) {
        dealt.read(len, &mut self.words, self.stride);
    }

    #[inline(always)]
    fn plane(&self, index: usize) -> &[u64] {
        &self.words[index * self.stride..][..self.stride]
    }

    fn planes(&self) -> impl Iterator<Item = &[u64]> {
        self.words.chunks_exact(self.stride)
    }
}

/// Words that are computed with side by side, so that the compiler uses vectors. Written out, as iterators stay calls in
/// builds with debug assertions.
const LANES: usize = 8;
type Lanes = [u64; LANES];

/// The lanes of a plane from word `at`; words that it does not have are zero.
#[inline(always)]
fn lanes(plane: &[u64], at: usize) -> Lanes {
    let rest = plane.get(at..).unwrap_or_default();
    if let Some(whole) = rest.first_chunk() {
        return *whole;
    }
    let mut some = [0; LANES];
    some[..rest.len()].copy_from_slice(rest);
    some
}

#[inline(always)]
fn and(a: Lanes, b: Lanes) -> Lanes {
    [a[0] & b[0], a[1] & b[1], a[2] & b[2], a[3] & b[3], a[4] & b[4], a[5] & b[5], a[6] & b[6], a[7] & b[7]]
}

#[inline(always)]
fn xor(a: Lanes, b: Lanes) -> Lanes {
    [a[0] ^ b[0], a[1] ^ b[1], a[2] ^ b[2], a[3] ^ b[3], a[4] ^ b[4], a[5] ^ b[5], a[6] ^ b[6], a[7] ^ b[7]]
}

#[inline(always)]
fn if_first(first: bool, public: Lanes) -> Lanes {
    if first { public } else { [0; LANES] }
}

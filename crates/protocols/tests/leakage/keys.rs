//! What a party has of comparisons and tables by function secret sharing: its roots, the key of their hash, and the words it was dealt.
//!
//! Words are the same for both parties and tested as part of what each was dealt. Here is what a party makes of them with what
//! it knows: words without the hash of its own root, and sums of the words of two sets of keys of one gate, which say something if
//! the two share a tree. Roots are drawn from the streams that docs/formats.md describes.

use privet_fss::{Comparison, Dcf, Hash, Side, root};
use privet_plan::{Keys as Shared, MAX_ENTRIES_WITHOUT_KEYS, Op, Plan};
use privet_protocols::masked::{Instruction, Role, Schedule};
use privet_ring::prg::{Prg, Seed};
use privet_ring::{Ring, pack, packed_len};

use crate::common::Chunks;
use crate::view::{Part, View};

/// Keys of at most so many elements are one set, with a hash of their own.
const SET: usize = 1 << 14;

/// So many keys of products lie together.
const PIECE: usize = 256;

/// Sets the hash of a node that makes a value apart from the one that makes its children.
const VALUE_TWEAK: u128 = 0x7661_6c75_6576_616c_7565_7661_6c75_6560;

/// One party's keys of a comparison or table for a set of an instruction's elements.
pub(crate) struct Keys {
    /// Of what is compared or looked up.
    pub(crate) bits: u32,
    /// How many products each carries, and where these are.
    products: Option<(usize, Ring)>,
    pub(crate) hash_key: Seed,
    pub(crate) roots: Vec<u128>,
    pub(crate) words: Vec<u8>,
}

impl Keys {
    /// The first correction words, and whether they are those of an inner level.
    fn first(&self) -> (Vec<u128>, bool) {
        if let Some((values, ring)) = self.products {
            // Behind the values of the first level, piece by piece.
            let word = |word: &[u8]| u128::from_le_bytes(word.try_into().unwrap());
            let words = self.pieces(values, ring).flat_map(|(n, piece)| {
                let before = values * packed_len(ring.bits(), n);
                piece[before..].chunks(16).take(n).map(word).collect::<Vec<u128>>()
            });
            return if self.bits > 1 { (words.collect(), true) } else { (Vec::new(), false) };
        }
        let bytes = self.words.len() / self.roots.len();
        // The leaves come last, level by level.
        let (len, is_inner) = if self.bits > 7 { (16, true) } else { (bytes, false) };
        let padded = |word: &[u8]| std::array::from_fn(|i| word.get(i).copied().unwrap_or(0));
        let words = self.words.chunks(len).take(self.roots.len());
        (words.map(|word| u128::from_le_bytes(padded(word))).collect(), is_inner)
    }

    /// The first level's k-th values of keys that carry products.
    fn values(&self, k: usize, values: usize, ring: Ring) -> Vec<u64> {
        let own = |(n, piece): (usize, &[u8])| {
            let len = packed_len(ring.bits(), n);
            pack::unpack(&piece[k * len..][..len], ring.bits(), n).unwrap()
        };
        self.pieces(values, ring).flat_map(own).collect()
    }

    /// Numbers of keys that lie together, and these.
    fn pieces(&self, values: usize, ring: Ring) -> impl Iterator<Item = (usize, &[u8])> {
        let mut rest = &self.words[..];
        self.roots.chunks(PIECE).map(move |roots| {
            let (own, others) = rest.split_at(product_bytes(self.bits, ring, values, roots.len()));
            rest = others;
            (roots.len(), own)
        })
    }
}

/// Bytes of so many keys that carry products.
fn product_bytes(bits: u32, ring: Ring, values: usize, keys: usize) -> usize {
    match values {
        1 => Dcf::<1>::new(bits, ring).key_bytes(keys),
        _ => Dcf::<2>::new(bits, ring).key_bytes(keys),
    }
}

/// Bits of what a step compares, or of the index of a table, whose keys look alike; a max pool, whose keys lie among other material, is left to the tests of what is dealt.
fn comparisons(op: &Op) -> Vec<u32> {
    match *op {
        Op::Trunc { shift } => vec![u32::from(shift)],
        Op::Relu { shift, width } => {
            let (low, whole) = (u32::from(shift), u32::from(width) - 1);
            if low == 0 || low == whole { vec![whole] } else { vec![whole, low] }
        }
        Op::NonNegative { width } | Op::Select { width } => vec![u32::from(width) - 1],
        Op::Table { ref entries } if entries.len() > MAX_ENTRIES_WITHOUT_KEYS => vec![entries.len().ilog2()],
        _ => Vec::new(),
    }
}

/// A party's keys of an instruction that is not cut into lanes.
pub(crate) fn keys(
    plan: &Plan,
    schedule: &Schedule,
    role: Role,
    seed: &Seed,
    dealt: &Chunks,
    k: usize,
) -> Vec<Keys> {
    let Instruction::Step(index) = schedule.instructions[k].0 else { return Vec::new() };
    let step = &plan.steps[index];
    let kinds = comparisons(&step.op);
    if kinds.is_empty() || !(plan.uses_fss(index) || matches!(step.op, Op::Table { .. })) {
        return Vec::new();
    }
    let elements: usize = plan.steps[step.inputs[0].index()].shape.iter().product();
    let prg = Prg::new(seed);
    let mut drawn = prg.stream(k as u64 * 2 + 1);
    let mut rest = &dealt.0[&k][..];
    let mut take = |len: usize| {
        let (own, others) = rest.split_at(len);
        rest = others;
        own.to_vec()
    };
    let products = (plan.keys(index) == Some(Shared::Products)).then_some(match step.op {
        Op::Trunc { .. } | Op::NonNegative { .. } => (1, plan.ring),
        _ => (2, plan.ring),
    });
    let mut one = |bits: u32, elements: usize| {
        let (side, key) = match role {
            Role::Server => {
                (Side::First, drawn.words(2, u64::MAX).iter().flat_map(|w| w.to_le_bytes()).collect())
            }
            Role::Client => (Side::Second, take(16)),
        };
        let hash_key = Seed::from_bytes(key.try_into().unwrap());
        let roots = root(side, elements, &mut drawn);
        let len = match products {
            Some((values, ring)) => product_bytes(bits, ring, values, elements),
            None => Comparison::new(bits).key_bytes(elements),
        };
        Keys { bits, products, hash_key, roots, words: take(len) }
    };
    let mut sets = Vec::new();
    for bits in kinds {
        sets.extend((0..elements).step_by(SET).map(|at| one(bits, SET.min(elements - at))));
    }
    sets
}

/// Adds to a party's view what it has besides what it was dealt.
pub(crate) fn see_keys(
    plan: &Plan,
    schedule: &Schedule,
    role: Role,
    seed: &Seed,
    dealt: &Chunks,
    view: &mut View,
) {
    for k in 0..schedule.instructions.len() {
        let keys = keys(plan, schedule, role, seed, dealt, k);
        for (i, keys) in keys.iter().enumerate() {
            let name = |what: &str| {
                format!("{what} of set {i} of keys of instruction {k}, {}", schedule.name(plan, k))
            };
            if role == Role::Server {
                view.add_bytes(name("hash key"), keys.hash_key.expose());
            }
            // The lowest bit says which party it is.
            view.add(
                name("low halves of roots"),
                63,
                keys.roots.iter().map(|s| *s as u64 >> 1).collect(),
                Part::Adds,
            );
            view.add(
                name("high halves of roots"),
                64,
                keys.roots.iter().map(|s| (s >> 64) as u64).collect(),
                Part::Adds,
            );
            let (words, is_inner) = keys.first();
            if is_inner {
                let mut hashes = vec![0; words.len()];
                Hash::new(&keys.hash_key).blocks(&keys.roots, 0, &mut hashes);
                follows(view, name("words without own hash"), &words, &hashes);
            }
            if let Some((values, ring)) = keys.products {
                let mut hashes = vec![0; keys.roots.len()];
                Hash::new(&keys.hash_key).blocks(&keys.roots, VALUE_TWEAK, &mut hashes);
                let first: Vec<u64> = keys.values(0, values, ring);
                for k in 0..values {
                    // The second party corrects at the root: both without what makes its own share of the value.
                    let rest = |(value, hash): (&u64, &u128)| {
                        let own = (hash >> (64 * k)) as u64;
                        let own = if role == Role::Server { own.wrapping_neg() } else { own };
                        ring.reduce(value.wrapping_add(own))
                    };
                    let own = keys.values(k, values, ring);
                    let rest: Vec<u64> = own.iter().zip(&hashes).map(rest).collect();
                    let mut add = |what: String, values: Vec<u64>| {
                        view.add(name(&what), ring.bits(), values, Part::Follows);
                    };
                    if k > 0 {
                        let differences =
                            own.iter().zip(&first).map(|(a, b)| ring.reduce(a.wrapping_sub(*b)));
                        add("differences of values".to_owned(), differences.collect());
                    }
                    if is_inner {
                        // If children were made by the hash of values, the other party's would cancel.
                        let mut children = vec![0; keys.roots.len()];
                        Hash::new(&keys.hash_key).blocks(&keys.roots, 0, &mut children);
                        let both = words.iter().zip(&children).zip(&own).map(|((word, hash), value)| {
                            let [word, hash] = [word ^ hash, *hash].map(|block| (block >> (64 * k)) as u64);
                            let other = word.wrapping_sub(hash);
                            let other = if role == Role::Server { other } else { other.wrapping_neg() };
                            ring.reduce(value.wrapping_add(other))
                        });
                        add(format!("values {k} and words without own hashes"), both.collect());
                    }
                    add(format!("values {k} without own hash"), rest);
                }
            }
        }
        if let [a, b] = &keys[..] {
            let [(a, a_is_inner), (b, b_is_inner)] = [a.first(), b.first()];
            if a_is_inner && b_is_inner {
                follows(view, format!("sums of words of both sets of keys of instruction {k}"), &a, &b);
            }
        }
    }
}

/// Sums of what a party has.
fn follows(view: &mut View, name: String, a: &[u128], b: &[u128]) {
    let halves = a.iter().zip(b).flat_map(|(a, b)| [(a ^ b) as u64, ((a ^ b) >> 64) as u64]);
    view.add(name, 64, halves.collect(), Part::Follows);
}

//! What the gates' tests share.

use privet_ring::Ring;
use privet_ring::blocks::Hash;
use privet_ring::prg::{Prg, Seed};

use crate::tree::{Side, root};

/// A hash and both parties' roots, all fresh.
pub(crate) struct Keys {
    pub(crate) hash: Hash,
    pub(crate) roots: [Vec<u128>; 2],
    /// For whatever else is drawn.
    pub(crate) prg: Prg,
}

impl Keys {
    pub(crate) fn new(keys: usize) -> Self {
        let roots =
            [Side::First, Side::Second].map(|side| root(side, keys, &mut Prg::new(&seed()).stream(0)));
        Self { hash: Hash::new(&seed()), roots, prg: Prg::new(&seed()) }
    }
}

/// Both parties' shares of values, the second one's as drawn.
pub(crate) fn share(values: &[u64], ring: Ring, drawn: &[u64]) -> [Vec<u64>; 2] {
    let first = values.iter().zip(drawn).map(|(v, d)| ring.reduce(v.wrapping_sub(*d))).collect();
    [first, drawn.to_vec()]
}

pub(crate) fn seed() -> Seed {
    Seed::random().unwrap()
}

/// Every value of a byte about equally often: 255 degrees of freedom. With 5 expected of each value 500 are exceeded with a
/// probability below 2^-45, with more less often; tables, which hold for very many, say 2^-57.
pub(crate) fn expect_uniform(bytes: &[u8], what: &str) {
    let mut counts = [0f64; 256];
    bytes.iter().for_each(|&b| counts[usize::from(b)] += 1.0);
    let expected = bytes.len() as f64 / 256.0;
    assert!(expected >= 5.0, "{what}: too few");
    let chi: f64 = counts.iter().map(|n| (n - expected).powi(2) / expected).sum();
    assert!(chi < 500.0, "{what}: {chi}");
}

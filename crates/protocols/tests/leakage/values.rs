//! Keys whose comparisons give values: correction words and values of a level are made of hashes of the same nodes, under
//! different tweaks. Under one and the same tweak the hashes cancel in their sum, and what is left are bits of α and β.

use privet_fss::{Dcf, Hash, Side, root};
use privet_ring::prg::{Prg, Seed};
use privet_ring::{Ring, pack, packed_len};

use crate::statistics::constant_sum;
use crate::{ENGINES, SPARE_RUNS, on};

/// Levels.
const BITS: u32 = 3;
/// Values of a key.
const VALUES: usize = 2;

/// Rows of bits, one for each bit of a key's values and words, a column for each key.
fn rows(alpha: u64, beta: u64, ring: Ring, keys: usize) -> Vec<Vec<u64>> {
    let prg = Prg::new(&Seed::random().unwrap());
    let roots = [Side::First, Side::Second].map(|side| root(side, keys, &mut prg.stream(side as u64)));
    let hash = Hash::new(&Seed::random().unwrap());
    let mut words = Vec::new();
    let (alphas, betas) = (vec![alpha; keys], vec![beta; keys]);
    Dcf::<VALUES>::new(BITS, ring).make(&hash, &alphas, [&betas; VALUES], [&roots[0], &roots[1]], &mut words);
    let mut rest = &words[..];
    let mut take = |len: usize| {
        let (own, others) = rest.split_at(len);
        rest = others;
        own
    };
    let mut rows = Vec::new();
    let mut add = |values: &[u64], bits: u32| {
        rows.extend((0..bits).map(|bit| {
            let packed = |column: &[u64]| (0..).zip(column).fold(0, |row, (i, v)| row | (v >> bit & 1) << i);
            values.chunks(64).map(packed).collect::<Vec<u64>>()
        }));
    };
    for bit in (0..BITS).rev() {
        for _ in 0..VALUES {
            let values = take(packed_len(ring.bits(), keys));
            add(&pack::unpack(values, ring.bits(), keys).unwrap(), ring.bits());
        }
        if bit > 0 {
            let words = take(16 * keys).as_chunks::<16>().0;
            let half = |shift: u32| -> Vec<u64> {
                words.iter().map(|word| (u128::from_le_bytes(*word) >> shift) as u64).collect()
            };
            add(&half(0), 64);
            add(&half(64), 64);
        }
    }
    assert!(rest.is_empty());
    rows
}

/// One piece of keys has to be enough, for an order of bytes that is simple: 256 are more than the bits of a key here.
#[test]
fn values_say_nothing_next_to_words() {
    let ring = Ring::new(16).unwrap();
    on(&[ENGINES[2]], |_| {
        for (alpha, beta) in [(0, 0), (7, 0xffff), (2, 1)] {
            let level = 16 * VALUES + 128;
            let keys = 256;
            let rows = rows(alpha, beta, ring, keys);
            // A level at a time: its value and its word.
            for (level, rows) in rows.chunks(level).enumerate() {
                assert!(rows.len() + SPARE_RUNS < keys, "keys for {} bits", rows.len());
                let found = constant_sum(rows, keys);
                assert!(
                    found.is_none(),
                    "α = {alpha}, β = {beta}, level {level}: {found:?} have a constant sum"
                );
            }
        }
    });
}

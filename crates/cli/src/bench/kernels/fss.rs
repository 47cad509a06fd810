//! Keys of function secret sharing: blocks of AES a second while they are made and evaluated, next to rounds in registers.

use std::hint::black_box;

use privet_fss::{Comparison, Hash, Side, Table, root};
use privet_ring::peak::Peak;
use privet_ring::prg::{Prg, Seed};

use super::Job;
use super::measure::{Clock, Effort, alternate};
use super::row::Row;

/// Keys of a measurement of comparisons: about those of a lane's part that is read at a time.
const KEYS: usize = 1 << 12;
/// Lookups of a measurement.
const LOOKUPS: usize = 1 << 6;
/// Blocks of a measurement of the hash alone, in the first-level cache.
const BLOCKS: usize = 1 << 8;
/// Bits that are compared: a truncation's, a ReLU's in a 40-bit ring, and the most.
const WIDTHS: [u32; 3] = [15, 39, 63];
/// Bits of an index: without an inner level, and as wide as tables are.
const INDEX_BITS: [u32; 3] = [8, 12, 16];
/// Of the peak.
const TARGET: f64 = 0.5;

pub(super) fn job() -> Job {
    Job::new("fss", |effort| {
        let setting = Setting::new(effort);
        let mut rows = vec![setting.hash(effort)];
        rows.extend(WIDTHS.into_iter().flat_map(|bits| setting.comparison(effort, bits)));
        rows.extend(INDEX_BITS.map(|bits| setting.table(effort, bits)));
        Ok(rows)
    })
}

/// A hash, roots of both parties, and what is compared.
struct Setting {
    hash: Hash,
    roots: [Vec<u128>; 2],
    values: Vec<u64>,
}

impl Setting {
    fn new(effort: &Effort) -> Self {
        let mut bytes = [9; 16];
        bytes[..8].copy_from_slice(&effort.seed.to_le_bytes());
        let prg = Prg::new(&Seed::from_bytes(bytes));
        let roots = [Side::First, Side::Second].map(|side| root(side, KEYS, &mut prg.stream(side as u64)));
        let hash = Hash::new(&Seed::from_bytes(bytes));
        Self { hash, roots, values: prg.stream(9).words(KEYS, u64::MAX) }
    }

    fn row(&self, effort: &Effort, shape: impl Into<String>, blocks: usize, run: impl FnMut()) -> Row {
        let peak = Peak::aes();
        // A block has sixteen bytes.
        let mut burst = peak.map(|peak| move || peak.burst() as f64 / 16.0);
        let reference = burst.as_mut().map(|burst| burst as &mut dyn FnMut() -> f64);
        let measured = alternate(effort, Clock::Thread, blocks as f64, run, reference);
        let isa = Some(self.hash.isa());
        let row = Row { isa, peak_of: peak.map(|p| p.instructions()), ..Row::new("fss", shape, "Gblock/s") };
        row.measured(measured, 1e9)
    }

    fn hash(&self, effort: &Effort) -> Row {
        let (blocks, mut out) = (vec![7; BLOCKS], vec![0; BLOCKS]);
        let times = KEYS / BLOCKS;
        self.row(effort, "hash alone", BLOCKS * times, || {
            (0..times).for_each(|_| self.hash.blocks(black_box(&blocks), 0, black_box(&mut out)));
        })
    }

    /// Making keys for both parties, and evaluating one's.
    fn comparison(&self, effort: &Effort, bits: u32) -> [Row; 2] {
        let comparison = Comparison::new(bits);
        let blocks = KEYS * comparison.hashes();
        let [first, second] = &self.roots;
        let mut words = Vec::new();
        let made = self.row(effort, format!("make, {bits} bits"), 2 * blocks, || {
            words.clear();
            comparison.make(&self.hash, black_box(&self.values), [first, second], &mut words);
        });
        let evaluated = self.row(effort, format!("evaluate, {bits} bits"), blocks, || {
            drop(black_box(comparison.evaluate(&self.hash, black_box(&self.values), first, &words)));
        });
        [made, evaluated].map(|row| {
            let target = row.peak.map(|peak| TARGET * peak);
            row.at_least(target)
        })
    }

    /// Lookups by one party; what entries cost is in it.
    fn table(&self, effort: &Effort, bits: u32) -> Row {
        let table = Table::new(bits);
        let entries: Vec<i64> = (0..1 << bits).collect();
        let [first, second] = self.roots.each_ref().map(|roots| &roots[..LOOKUPS]);
        let values = &self.values[..LOOKUPS];
        let mut words = Vec::new();
        table.make(&self.hash, values, [first, second], &mut words);
        self.row(effort, format!("look up, 2^{bits} entries"), LOOKUPS * table.hashes(), || {
            let shares = table.evaluate(&self.hash, Side::First, black_box(values), first, &words, &entries);
            drop(black_box(shares));
        })
    }
}

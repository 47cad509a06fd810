//! Making and evaluating keys, next to the hash alone: `cargo bench -p privet-fss`. `privet bench --exp kernels --kernels fss`
//! puts the same next to the peak of the CPU's AES instructions.

use divan::counter::ItemsCount;
use privet_fss::{Comparison, Hash, Side, Table, root};
use privet_ring::prg::{Prg, Seed};

fn main() {
    divan::main();
}

const KEYS: usize = 1 << 12;

fn setting() -> (Hash, [Vec<u128>; 2], Vec<u64>) {
    let seed = |b| Seed::from_bytes([b; 16]);
    let prg = Prg::new(&seed(1));
    let roots = [Side::First, Side::Second].map(|side| root(side, KEYS, &mut prg.stream(side as u64)));
    (Hash::new(&seed(2)), roots, prg.stream(9).words(KEYS, u64::MAX))
}

/// Blocks a second of the hash, in the first-level cache: the peak of the two others.
#[divan::bench]
fn hash(bencher: divan::Bencher) {
    let (hash, ..) = setting();
    let blocks = vec![7u128; 256];
    let mut out = vec![0; 256];
    bencher
        .counter(ItemsCount::new(256usize))
        .bench_local(|| hash.blocks(divan::black_box(&blocks), 0, &mut out));
}

/// Blocks a second while keys are made.
#[divan::bench(args = [15, 39, 63])]
fn make(bencher: divan::Bencher, bits: u32) {
    let (hash, [first, second], alpha) = setting();
    let comparison = Comparison::new(bits);
    let mut words = Vec::with_capacity(comparison.key_bytes(KEYS));
    bencher.counter(ItemsCount::new(2 * KEYS * comparison.hashes())).bench_local(|| {
        words.clear();
        comparison.make(&hash, &alpha, [&first, &second], &mut words);
    });
}

/// Blocks a second while keys are evaluated.
#[divan::bench(args = [15, 39, 63])]
fn evaluate(bencher: divan::Bencher, bits: u32) {
    let (hash, [first, second], alpha) = setting();
    let comparison = Comparison::new(bits);
    let mut words = Vec::new();
    comparison.make(&hash, &alpha, [&first, &second], &mut words);
    let x = alpha.clone();
    let counter = ItemsCount::new(KEYS * comparison.hashes());
    bencher.counter(counter).bench_local(|| comparison.evaluate(&hash, divan::black_box(&x), &first, &words));
}

/// Blocks a second while tables of 2^n entries are looked up, entries included.
#[divan::bench(args = [8, 12, 16])]
fn table(bencher: divan::Bencher, bits: u32) {
    const LOOKUPS: usize = 64;
    let (hash, [first, second], alpha) = setting();
    let (first, second, alpha) = (&first[..LOOKUPS], &second[..LOOKUPS], &alpha[..LOOKUPS]);
    let table = Table::new(bits);
    let mut words = Vec::new();
    table.make(&hash, alpha, [first, second], &mut words);
    let entries: Vec<i64> = (0..1 << bits).collect();
    let counter = ItemsCount::new(LOOKUPS * table.hashes());
    bencher
        .counter(counter)
        .bench_local(|| table.evaluate(&hash, Side::First, divan::black_box(alpha), first, &words, &entries));
}

//! Making and evaluating comparison keys, next to the hash alone: `cargo bench -p privet-fss`.

use divan::counter::ItemsCount;
use privet_fss::{Comparison, Hash, Side, root};
use privet_ring::prg::{Prg, Seed};

fn main() {
    divan::main();
}

const KEYS: usize = 1 << 14;

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
        .bench_local(|| hash.blocks(divan::black_box(&blocks), &mut out));
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

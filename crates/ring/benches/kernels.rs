//! Ring kernels on one core: `cargo bench -p privet-ring`. Packing is included everywhere.
//!
//! Every kernel of the CPU, in several rings, next to its peak: `privet bench --exp kernels`.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use privet_ring::gemm::gemm;
use privet_ring::prg::{Prg, Seed};
use privet_ring::{Kernel, Ring, pack, planes};

fn main() {
    divan::main();
}

fn random(len: usize) -> Vec<u64> {
    Prg::new(&Seed::from_bytes([1; 16])).stream(len as u64).words(len, u64::MAX)
}

/// Multiply-accumulates a second in a ring of 64 bits: items are MACs.
#[divan::bench(args = [(512, 512, 512), (64, 3136, 576), (256, 3136, 64), (512, 49, 4608), (1, 1000, 2048)])]
fn matmul(bencher: Bencher, (m, n, k): (usize, usize, usize)) {
    let (a, b, mut c) = (random(m * k), random(k * n), vec![0; m * n]);
    let kernel = Kernel::best(Ring::new(64).expect("a ring"));
    bencher
        .counter(ItemsCount::new(m * n * k))
        .bench_local(|| gemm(kernel, m, n, k, black_box(&a), &b, &mut c));
}

#[divan::bench]
fn prg(bencher: Bencher) {
    let prg = Prg::new(&Seed::from_bytes([1; 16]));
    let mut out = vec![0; 1 << 17];
    bencher
        .counter(BytesCount::new(8usize << 17))
        .bench_local(|| prg.stream(0).fill(black_box(&mut out), u64::MAX));
}

#[divan::bench(args = [40, 48, 64])]
fn pack_ring(bencher: Bencher, bits: u32) {
    let values = random(1 << 17);
    bencher.counter(ItemsCount::new(1usize << 17)).bench_local(|| {
        let mut out = Vec::new();
        pack::pack(black_box(&values), bits, &mut out);
        out
    });
}

#[divan::bench]
fn bit_planes(bencher: Bencher) {
    let values = random(1 << 17);
    bencher
        .counter(ItemsCount::new(1usize << 17))
        .bench_local(|| planes::from_values(black_box(&values), 64));
}

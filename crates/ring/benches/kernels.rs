//! Ring kernels on one core: `cargo bench -p privet-ring`. Packing is included everywhere.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use privet_ring::conv::Conv;
use privet_ring::gemm::gemm;
use privet_ring::geometry::Window;
use privet_ring::prg::{Prg, Seed};
use privet_ring::{pack, planes};

fn main() {
    divan::main();
}

fn random(len: usize) -> Vec<u64> {
    Prg::new(&Seed::from_bytes([1; 16])).stream(len as u64).words(len, u64::MAX)
}

/// Multiply-accumulates a second: items are MACs.
#[divan::bench(args = [(512, 512, 512), (64, 3136, 576), (256, 3136, 64), (512, 49, 4608), (1, 1000, 2048)])]
fn matmul(bencher: Bencher, (m, n, k): (usize, usize, usize)) {
    let (a, b) = (random(m * k), random(k * n));
    let mut c = vec![0; m * n];
    bencher.counter(ItemsCount::new(m * n * k)).bench_local(|| gemm(m, n, k, black_box(&a), &b, &mut c));
}

/// 3x3 convolution, same padding: (channels in, channels out, side, groups).
#[divan::bench(args = [(64, 64, 56, 1), (128, 128, 28, 1), (144, 144, 56, 144)])]
fn convolution(bencher: Bencher, (c_in, c_out, side, groups): (usize, usize, usize, usize)) {
    let window = Window {
        kernel: vec![3, 3],
        stride: vec![1, 1],
        dilation: vec![1, 1],
        pad_begin: vec![1, 1],
        pad_end: vec![1, 1],
    };
    let conv = Conv {
        batch: 1,
        in_channels: c_in,
        out_channels: c_out,
        groups,
        window: &window,
        input: &[side, side],
        output: &[side, side],
    };
    let (x, w) = (random(c_in * side * side), random(c_out * c_in / groups * 9));
    let macs = c_out * c_in / groups * 9 * side * side;
    bencher.counter(ItemsCount::new(macs)).bench_local(|| conv.apply(black_box(&x), &w));
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

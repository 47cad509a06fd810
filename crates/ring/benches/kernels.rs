//! Ring kernels on one core: `cargo bench -p privet-ring`. Packing is included everywhere.
//!
//! Before divan's rows comes a table of products: every kernel that this CPU runs, forced in turn, on square matrices and
//! on ResNet-50's shapes, in 10^9 multiply-accumulates a second and as a share of the peak of its instruction, which is
//! measured along with it: everything is the best of many short runs, so that neighbours matter little.

mod peak;

use std::time::{Duration, Instant};

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use privet_ring::conv::Conv;
use privet_ring::gemm::gemm;
use privet_ring::geometry::Window;
use privet_ring::prg::{Prg, Seed};
use privet_ring::{Kernel, Ring, pack, planes};

fn main() {
    products();
    divan::main();
}

fn random(len: usize) -> Vec<u64> {
    Prg::new(&Seed::from_bytes([1; 16])).stream(len as u64).words(len, u64::MAX)
}

/// A convolution of square images with square kernels and same padding.
struct Square {
    c_in: usize,
    c_out: usize,
    side: usize,
    kernel: u32,
    stride: u32,
    groups: usize,
}

impl Square {
    fn macs(&self) -> usize {
        let side = self.side / self.stride as usize;
        self.c_out * self.c_in / self.groups * (self.kernel * self.kernel) as usize * side * side
    }

    fn apply(&self, kernel: Kernel, x: &[u64], w: &[u64]) -> Vec<u64> {
        let pad = self.kernel / 2;
        let window = Window {
            kernel: vec![self.kernel; 2],
            stride: vec![self.stride; 2],
            dilation: vec![1; 2],
            pad_begin: vec![pad; 2],
            pad_end: vec![pad; 2],
        };
        let conv = Conv {
            batch: 1,
            in_channels: self.c_in,
            out_channels: self.c_out,
            groups: self.groups,
            window: &window,
            input: &[self.side; 2],
            output: &[self.side / self.stride as usize; 2],
        };
        conv.apply(kernel, x, w)
    }
}

/// A product to time: its name, its multiply-accumulates, how to run it once.
struct Product {
    name: String,
    macs: usize,
    run: Box<dyn FnMut(Kernel)>,
}

fn matrices([m, n, k]: [usize; 3]) -> Product {
    let (a, b, mut c) = (random(m * k), random(k * n), vec![0; m * n]);
    let run = Box::new(move |kernel| gemm(kernel, m, n, k, black_box(&a), &b, &mut c));
    Product { name: format!("{m} x {n} x {k}"), macs: m * n * k, run }
}

fn convolution(square: Square) -> Product {
    let Square { c_in, c_out, side, kernel, stride, groups } = square;
    let x = random(c_in * side * side);
    let w = random(c_out * c_in / groups * (kernel * kernel) as usize);
    let name = format!("{kernel}x{kernel}/{stride} {c_in} to {c_out}, {side}, groups {groups}");
    let macs = square.macs();
    Product { name, macs, run: Box::new(move |k| drop(black_box(square.apply(k, black_box(&x), &w)))) }
}

fn products() {
    let shapes = [[512; 3], [1024; 3], [64, 3136, 576], [1, 1000, 2048], [8, 1000, 2048]];
    let convolutions = [
        (3, 64, 224, 7, 2, 1),
        (64, 64, 56, 3, 1, 1),
        (128, 128, 28, 3, 1, 1),
        (256, 256, 14, 3, 1, 1),
        (512, 512, 7, 3, 1, 1),
        (64, 256, 56, 1, 1, 1),
        (256, 64, 56, 1, 1, 1),
        (512, 128, 28, 1, 1, 1),
        (256, 1024, 14, 1, 1, 1),
        (2048, 512, 7, 1, 1, 1),
        (256, 512, 56, 1, 2, 1),
        (144, 144, 56, 3, 1, 144),
        (144, 144, 56, 3, 2, 144),
    ];
    let mut products: Vec<Product> = shapes.map(matrices).into_iter().collect();
    products.extend(convolutions.map(|(c_in, c_out, side, kernel, stride, groups)| {
        convolution(Square { c_in, c_out, side, kernel, stride, groups })
    }));
    let bits = 48;
    let ring = Ring::new(bits).expect("a ring");
    println!("{:<30} {:>4} {:>9} {:>8} {:>8} {:>6}", "product", "ring", "kernel", "GMAC/s", "peak", "share");
    for product in &mut products {
        let kernels = Kernel::available(ring);
        let mut best = vec![(f64::INFINITY, f64::INFINITY); kernels.len()];
        for (&kernel, best) in kernels.iter().zip(&mut best) {
            let start = Instant::now();
            while start.elapsed() < BUDGET {
                let seconds = |run: &mut dyn FnMut()| {
                    let start = Instant::now();
                    run();
                    start.elapsed().as_secs_f64()
                };
                best.0 = best.0.min(seconds(&mut || (product.run)(kernel)));
                best.1 = best.1.min(seconds(&mut || _ = black_box(peak::macs(kernel))));
            }
        }
        for (kernel, (run, peak)) in kernels.iter().zip(best) {
            let (name, rate) = (&product.name, product.macs as f64 / run / 1e9);
            print!("{name:<30} {bits:>4} {:>9} {rate:>8.1}", kernel.name());
            match peak::macs(*kernel) {
                Some(macs) => {
                    let peak = macs as f64 / peak / 1e9;
                    println!(" {peak:>8.1} {:>5.0}%", 100.0 * rate / peak);
                }
                None => println!(" {:>8} {:>6}", "-", "-"),
            }
        }
    }
}

/// Time for one kernel and shape.
const BUDGET: Duration = Duration::from_millis(200);

/// Multiply-accumulates a second in a ring of 64 bits: items are MACs.
#[divan::bench(args = [(512, 512, 512), (64, 3136, 576), (256, 3136, 64), (512, 49, 4608), (1, 1000, 2048)])]
fn matmul(bencher: Bencher, (m, n, k): (usize, usize, usize)) {
    let mut product = matrices([m, n, k]);
    let kernel = Kernel::best(Ring::new(64).expect("a ring"));
    bencher.counter(ItemsCount::new(product.macs)).bench_local(|| (product.run)(kernel));
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

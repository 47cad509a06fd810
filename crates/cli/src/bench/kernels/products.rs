//! Products and convolutions: every kernel, forced in turn, next to its own instructions in registers.

use std::hint::black_box;
use std::num::NonZero;
use std::thread::available_parallelism;

use privet_ring::conv::Conv;
use privet_ring::gemm::{gemm, gemm_packed};
use privet_ring::geometry::Window;
use privet_ring::packed::{PackedWeights, WeightShape};
use privet_ring::peak::Peak;
use privet_ring::prg::{Prg, Seed};
use privet_ring::{Kernel, Ring};

use super::Job;
use super::measure::{Clock, Effort, alternate};
use super::row::Row;

/// Widths of rings: of the narrowest models, of ResNet-50 calibrated and of anything uncalibrated.
const RINGS: [u32; 3] = [32, 48, 64];
/// Share of the peak that the fastest kernel shall reach.
const TARGET: f64 = 0.6;
/// Multiply-accumulates beyond which a smoke test leaves a product out.
const QUICK: usize = 1 << 28;

/// A product to time.
struct Product {
    kernel: &'static str,
    shape: String,
    macs: usize,
    has_target: bool,
    /// What runs in place of a kernel.
    takes: Box<dyn Fn(Kernel) -> Kernel>,
    /// Makes operands from a seed, and with them what runs it once.
    make: Box<dyn FnOnce(u64) -> Operands>,
}

/// The operands of a product.
struct Operands {
    weights: Vec<u64>,
    shape: WeightShape,
    /// By the weights, packed for the kernel or as they are.
    run: Box<Run>,
}

type Run = dyn FnMut(Kernel, Factor);

#[derive(Clone, Copy)]
enum Factor<'a> {
    Elements(&'a [u64]),
    Packed(&'a PackedWeights),
}

pub(super) fn matrices(effort: &Effort) -> Vec<Job> {
    let product = |kernel, [m, n, k]: [usize; 3], has_target| Product {
        kernel,
        shape: format!("{m} x {n} x {k}"),
        macs: m * n * k,
        has_target,
        make: Box::new(move |seed| {
            let (a, mut c) = (random(seed, m * k), vec![0; m * n]);
            let run = move |kernel, b: Factor| match b {
                Factor::Elements(b) => gemm(kernel, m, n, k, black_box(&a), b, &mut c),
                Factor::Packed(b) => gemm_packed(kernel, m, black_box(&a), b, &mut c),
            };
            let weights = random(seed.wrapping_add(1), k * n);
            Operands { weights, shape: WeightShape::Matrix { k, n }, run: Box::new(run) }
        }),
        takes: Box::new(move |kernel| kernel.for_shape([m, n, k])),
    };
    let shapes = [("gemm", [512; 3], true), ("gemm", [1024; 3], true), ("gemv", [1, 1000, 2048], false)];
    let all = shapes.into_iter().flat_map(|(kernel, sizes, has_target)| {
        RINGS.map(|bits| job(effort, bits, product(kernel, sizes, has_target)))
    });
    all.collect()
}

/// A convolution of a square image by square kernels with same padding.
#[derive(Clone, Copy)]
struct Square {
    c_in: usize,
    c_out: usize,
    side: usize,
    kernel: u32,
    stride: u32,
    groups: usize,
}

pub(super) fn convolutions(effort: &Effort) -> Vec<Job> {
    // Channels in and out, side of the image, kernel, stride, groups: ResNet-50's, then MobileNet's depthwise ones.
    let shapes = [
        (64, 64, 56, 3, 1, 1),
        (128, 128, 28, 3, 1, 1),
        (256, 256, 14, 3, 1, 1),
        (512, 512, 7, 3, 1, 1),
        (64, 256, 56, 1, 1, 1),
        (256, 64, 56, 1, 1, 1),
        (512, 128, 28, 1, 1, 1),
        (256, 1024, 14, 1, 1, 1),
        (2048, 512, 7, 1, 1, 1),
        (3, 64, 224, 7, 2, 1),
        (144, 144, 56, 3, 1, 144),
        (144, 144, 56, 3, 2, 144),
    ];
    let all = shapes.into_iter().flat_map(|(c_in, c_out, side, kernel, stride, groups)| {
        let square = Square { c_in, c_out, side, kernel, stride, groups };
        RINGS.map(|bits| job(effort, bits, square.product()))
    });
    all.collect()
}

impl Square {
    fn out(self) -> usize {
        self.side.div_ceil(self.stride as usize)
    }

    fn weights(self) -> usize {
        self.c_out * self.c_in / self.groups * (self.kernel * self.kernel) as usize
    }

    fn product(self) -> Product {
        let Self { c_in, c_out, side, kernel, stride, groups } = self;
        let is_depthwise = groups > 1;
        Product {
            kernel: if is_depthwise { "depthwise" } else { "conv" },
            shape: format!("{kernel}x{kernel}/{stride} {c_in} to {c_out}, {side}x{side}"),
            macs: self.weights() * self.out() * self.out(),
            has_target: !is_depthwise && kernel <= 3,
            make: Box::new(move |seed| {
                let x = random(seed, c_in * side * side);
                let run = move |kernel, w: Factor| {
                    let z = self.with(|conv| match w {
                        Factor::Elements(w) => conv.apply(kernel, black_box(&x), w),
                        Factor::Packed(w) => conv.apply_packed(kernel, black_box(&x), w),
                    });
                    drop(black_box(z));
                };
                let weights = random(seed.wrapping_add(1), self.weights());
                Operands { weights, shape: self.with(|conv| conv.weight_shape()), run: Box::new(run) }
            }),
            takes: Box::new(move |kernel| self.with(|conv| conv.kernel(kernel))),
        }
    }

    fn with<T>(self, run: impl FnOnce(&Conv) -> T) -> T {
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
            output: &[self.out(); 2],
        };
        run(&conv)
    }
}

/// One product by every kernel.
fn job(effort: &Effort, bits: u32, product: Product) -> Job {
    let label = format!("{} {}, {bits} bits", product.kernel, product.shape);
    let quick = effort.quick;
    Job::new(label, move |effort| {
        let ring = Ring::new(bits)?;
        let best = Kernel::best(ring).name();
        let Product { kernel, shape, macs, has_target, takes, make } = product;
        let row = |isa| Row { ring: Some(bits), isa: Some(isa), ..Row::new(kernel, &*shape, "GMAC/s") };
        if quick && macs > QUICK {
            let why = "--iterations 1 leaves products of this size out".to_owned();
            return Ok(vec![Row { isa: None, skipped: Some(why), ..row("") }]);
        }
        let Operands { weights, shape: weight_shape, mut run } = make(effort.seed);
        let cores = available_parallelism().map_or(1, NonZero::get);
        let mut rows = Vec::new();
        for (isa, kernel) in Kernel::all(ring) {
            let kernel = match kernel {
                Ok(kernel) => kernel,
                Err(why) => {
                    rows.push(Row { skipped: Some(why.to_string()), ..row(isa) });
                    continue;
                }
            };
            // What runs may be another one than what was asked for; it is measured once.
            let taken = takes(kernel);
            if rows.iter().any(|row: &Row| row.isa == Some(taken.name()) && row.skipped.is_none()) {
                let why = format!("takes {} for this shape", taken.name());
                rows.push(Row { skipped: Some(why), ..row(isa) });
                continue;
            }
            let packed = PackedWeights::new(kernel, weight_shape, &weights);
            let elements = Factor::Elements(&weights);
            // Packed where that is another form; all cores only by the kernel that is used.
            let mut variants = vec![("rate", elements, 1)];
            if packed.is_transformed() {
                variants.push(("packed weights", Factor::Packed(&packed), 1));
            }
            if isa == best && cores > 1 {
                variants.push(("rate", elements, cores));
            }
            for (quantity, factor, threads) in variants {
                let kernel = kernel.with_threads(NonZero::new(threads).expect("at least one"));
                let runs = if quantity == "rate" { taken } else { kernel };
                let peak = Peak::macs(runs, ring);
                let mut burst = peak.map(|peak| move || bursts(peak, threads));
                let reference = burst.as_mut().map(|burst| burst as &mut dyn FnMut() -> f64);
                let work = || run(kernel, factor);
                let measured = alternate(effort, Clock::of(threads), macs as f64, work, reference);
                let row =
                    Row { threads, quantity, peak_of: peak.map(|p| p.instructions()), ..row(runs.name()) };
                let row = row.measured(measured, 1e9);
                let has_target = has_target && isa == best && threads == 1;
                let target = row.peak.filter(|_| has_target).map(|peak| TARGET * peak);
                rows.push(row.at_least(target));
            }
        }
        Ok(rows)
    })
}

/// On as many threads at once; enough to make little of their start.
fn bursts(peak: Peak, threads: usize) -> f64 {
    let times = if threads == 1 { 1 } else { 8 };
    let many = move || (0..times).map(|_| peak.burst()).sum::<u64>();
    let work = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(many)).collect();
        let own = many();
        own + others.into_iter().map(|other| other.join().expect("a loop cannot panic")).sum::<u64>()
    });
    work as f64
}

fn random(seed: u64, len: usize) -> Vec<u64> {
    Prg::new(&Seed::from_bytes([1; 16])).stream(seed).words(len, u64::MAX)
}

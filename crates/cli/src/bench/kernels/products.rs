//! Products and convolutions: every kernel, forced in turn, next to its own instructions in registers.

use std::hint::black_box;

use privet_ring::conv::Conv;
use privet_ring::gemm::gemm;
use privet_ring::geometry::Window;
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
    /// Makes operands from a seed, and with them what runs it once.
    make: Box<dyn FnOnce(u64) -> Run>,
}

type Run = Box<dyn FnMut(Kernel)>;

pub(super) fn matrices(effort: &Effort) -> Vec<Job> {
    let product = |kernel, [m, n, k]: [usize; 3], has_target| Product {
        kernel,
        shape: format!("{m} x {n} x {k}"),
        macs: m * n * k,
        has_target,
        make: Box::new(move |seed| {
            let (a, b, mut c) = (random(seed, m * k), random(seed + 1, k * n), vec![0; m * n]);
            Box::new(move |kernel| gemm(kernel, m, n, k, black_box(&a), &b, &mut c))
        }),
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
                let w = random(seed + 1, self.weights());
                Box::new(move |kernel| drop(black_box(self.apply(kernel, black_box(&x), &w))))
            }),
        }
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
            output: &[self.out(); 2],
        };
        conv.apply(kernel, x, w)
    }
}

/// One product by every kernel.
fn job(effort: &Effort, bits: u32, product: Product) -> Job {
    let label = format!("{} {}, {bits} bits", product.kernel, product.shape);
    let quick = effort.quick;
    Job::new(label, move |effort| {
        let ring = Ring::new(bits)?;
        let best = Kernel::best(ring).name();
        let Product { kernel, shape, macs, has_target, make } = product;
        let row = |isa| Row { ring: Some(bits), isa: Some(isa), ..Row::new(kernel, &*shape, "GMAC/s") };
        if quick && macs > QUICK {
            let why = "--iterations 1 leaves products of this size out".to_owned();
            return Ok(vec![Row { isa: None, skipped: Some(why), ..row("") }]);
        }
        let mut run = make(effort.seed);
        let rows = Kernel::all(ring).into_iter().map(|(isa, kernel)| match kernel {
            Err(why) => Row { skipped: Some(why.to_string()), ..row(isa) },
            Ok(kernel) => {
                let peak = Peak::macs(kernel, ring);
                let mut burst = peak.map(|peak| move || peak.burst() as f64);
                let reference = burst.as_mut().map(|burst| burst as &mut dyn FnMut() -> f64);
                let measured = alternate(effort, Clock::of(1), macs as f64, || run(kernel), reference);
                let row = Row { peak_of: peak.map(|p| p.instructions()), ..row(isa) }.measured(measured, 1e9);
                let target = row.peak.filter(|_| has_target && isa == best).map(|peak| TARGET * peak);
                row.at_least(target)
            }
        });
        Ok(rows.collect())
    })
}

fn random(seed: u64, len: usize) -> Vec<u64> {
    Prg::new(&Seed::from_bytes([1; 16])).stream(seed).words(len, u64::MAX)
}

//! Does the time depend on secrets? After Reparaz, Balasch and Verbauwhede, "Dude, is my code constant time?" (DATE 2017).
//!
//! Two classes, a fixed secret and random ones, are measured in random order; Welch's t-test compares them, on all
//! measurements and on those below several percentiles, for large ones are the machine's. |t| > 10 says that the classes
//! differ. Seeds are fresh in both classes.

use std::hint::black_box;
use std::time::Instant;

use privet_plan::{Plan, Weights};
use privet_protocols::masked::{RevealTo, Role, Schedule};
use privet_protocols::replicated::{PARTIES, Position};
use privet_ring::conv::Conv;
use privet_ring::geometry::Window;
use privet_ring::prg::{Prg, Seed};
use privet_ring::{Kernel, Ring, gemm, pack, planes};

use crate::common::samples::{Sample, Secrets, samples};
use crate::common::{with_bits, with_products};
use crate::{three_party, two_party};

/// Above this, time depends on the secret.
pub(crate) const BOUND: f64 = 10.0;

/// Percentiles below which measurements count.
const CROPS: [usize; 6] = [100, 99, 95, 90, 75, 50];

/// What was found about one piece of code.
pub(crate) struct Finding {
    pub(crate) name: String,
    /// Largest |t| over all crops.
    pub(crate) t: f64,
    /// Median time.
    pub(crate) nanoseconds: f64,
}

/// Measures everything, each with this many measurements.
pub(crate) fn run(measurements: usize, mut report: impl FnMut(&Finding)) {
    kernels(measurements, &mut report);
    for sample in samples() {
        for role in [Role::Server, Role::Client] {
            report(&online(&sample, "", Plan::clone, role, measurements));
            if sample.plan.steps.iter().any(|step| step.op.compares()) {
                report(&online(&sample, "fss, ", with_bits, role, measurements));
                report(&online(&sample, "products, ", with_products, role, measurements));
            }
        }
        for party in 0..PARTIES {
            report(&in_position(&sample, party, measurements));
        }
    }
}

fn kernels(measurements: usize, report: &mut impl FnMut(&Finding)) {
    let words = |mask: u64| move |class: Class| class.words(512, mask);
    for bits in [37, 64] {
        report(&measure(format!("pack to {bits} bits"), measurements, words(u64::MAX), |values| {
            let mut out = Vec::new();
            pack::pack(values, bits, &mut out);
            out.len()
        }));
        let packed = move |class: Class| {
            let mut out = Vec::new();
            pack::pack(&class.words(512, u64::MAX), bits, &mut out);
            out
        };
        report(&measure(format!("unpack from {bits} bits"), measurements, packed, |bytes| {
            pack::unpack(bytes, bits, 512).unwrap()
        }));
    }
    report(&measure("bit planes".to_owned(), measurements, words(u64::MAX), |v| planes::from_values(v, 64)));
    let seed = |class: Class| {
        let mut bytes = [0; 16];
        for (b, w) in bytes.iter_mut().zip(class.words(16, 255)) {
            *b = w as u8;
        }
        Seed::from_bytes(bytes)
    };
    report(&measure("seed to mask".to_owned(), measurements, seed, |s| {
        Prg::new(s).stream(3).words(512, u64::MAX >> 20)
    }));
    for kernel in Kernel::available(Ring::new(48).unwrap()) {
        products(kernel, measurements, report);
    }
}

fn products(kernel: Kernel, measurements: usize, report: &mut impl FnMut(&Finding)) {
    let operands = |class: Class| (class.words(16 * 64, u64::MAX), class.words(64 * 16, u64::MAX));
    report(&measure(format!("matrix product, {}", kernel.name()), measurements, operands, |(x, w)| {
        let mut z = vec![0; 16 * 16];
        gemm::gemm(kernel, 16, 16, 64, x, w, &mut z);
        z
    }));
    let window = Window {
        kernel: vec![3, 3],
        stride: vec![1, 1],
        dilation: vec![1, 1],
        pad_begin: vec![1, 1],
        pad_end: vec![1, 1],
    };
    let operands = |class: Class| (class.words(4 * 64, u64::MAX), class.words(8 * 4 * 9, u64::MAX));
    report(&measure(format!("convolution, {}", kernel.name()), measurements, operands, |(x, w)| {
        Conv {
            batch: 1,
            in_channels: 4,
            out_channels: 8,
            groups: 1,
            window: &window,
            input: &[8, 8],
            output: &[8, 8],
        }
        .apply(kernel, x, w)
    }));
}

/// A secret of one of the two classes.
#[derive(Clone, Copy)]
pub(crate) enum Class {
    Zero,
    Random(u64),
}

impl Class {
    fn words(self, count: usize, mask: u64) -> Vec<u64> {
        // Zeros are written as well: untouched pages of zeros would all be one in the caches.
        let (stream, mask) = match self {
            Class::Zero => (0, 0),
            Class::Random(i) => (i, mask),
        };
        Prg::new(&Seed::from_bytes([5; 16])).stream(stream).words(count, mask)
    }
}

/// Secrets of a class that fit a sample.
fn secrets(sample: &Sample, class: Class) -> Secrets {
    let [_, other] = &sample.secrets;
    // Random secrets are no larger than the sample's, so that nothing overflows.
    let draw = |values: &[i64]| -> Vec<i64> {
        let words = class.words(values.len(), u64::MAX).into_iter();
        words
            .zip(values)
            .map(|(w, v)| (w % (v.unsigned_abs() + 1)) as i64 * if w >> 63 == 1 { -1 } else { 1 })
            .collect()
    };
    let draw_all = |tensors: &[Vec<i64>]| tensors.iter().map(|t| draw(t)).collect::<Vec<_>>();
    Secrets { weights: Weights::new(draw_all(&other.weights.tensors)), inputs: draw_all(&other.inputs) }
}

/// One party's online phase of `2pc` or `fss`, from recordings.
fn online(
    sample: &Sample,
    engine: &str,
    form: fn(&Plan) -> Plan,
    role: Role,
    measurements: usize,
) -> Finding {
    let plan = &form(&sample.plan);
    let schedule = Schedule::new(plan, RevealTo::Client);
    let recording = |class| two_party::Recording::new(plan, &schedule, &secrets(sample, class));
    let name = format!("{}, {engine}{}", sample.name, if role == Role::Server { "server" } else { "client" });
    let fresh = |recording: &two_party::Recording| {
        let [server, client] = recording.halves(plan, &schedule);
        (if role == Role::Server { server } else { client }, recording.tape(role))
    };
    measure_with(name, measurements, recording, fresh, |recording, (half, mut tape)| {
        recording.replay(plan, &schedule, role, half, &mut tape);
    })
}

/// One party of `3pc`, from recordings.
fn in_position(sample: &Sample, party: usize, measurements: usize) -> Finding {
    let (plan, schedule) = (&sample.plan, Schedule::three_party(&sample.plan));
    let recording = |class| three_party::Recording::new(plan, &schedule, &secrets(sample, class));
    let name = format!("{}, 3pc, {}", sample.name, Position::of(party, 0).name());
    let fresh = |recording: &three_party::Recording| recording.tapes(party);
    measure_with(name, measurements, recording, fresh, |recording, mut tapes| {
        recording.replay(plan, &schedule, party, &mut tapes);
    })
}

fn measure<S, R>(
    name: String,
    measurements: usize,
    secret: impl Fn(Class) -> S,
    work: impl Fn(&S) -> R,
) -> Finding {
    measure_with(name, measurements, secret, |_| (), |secret, ()| work(secret))
}

/// Times `work` on what `fresh` makes, untimed, of a secret.
fn measure_with<S, T, R>(
    name: String,
    measurements: usize,
    secret: impl Fn(Class) -> S,
    fresh: impl Fn(&S) -> T,
    work: impl Fn(&S, T) -> R,
) -> Finding {
    let order = Prg::new(&Seed::random().unwrap()).stream(0).words(measurements, u64::MAX);
    let mut times: Vec<(usize, f64)> = Vec::with_capacity(measurements);
    for (i, choice) in order.into_iter().enumerate() {
        // A new secret for every measurement: each has a place in memory, and with it a time, of its own.
        let class = (choice & 1) as usize;
        let secret = secret(if class == 0 { Class::Zero } else { Class::Random(i as u64) });
        let input = fresh(&secret);
        let start = Instant::now();
        let result = black_box(work(black_box(&secret), input));
        let elapsed = start.elapsed();
        drop(result);
        times.push((class, elapsed.as_nanos() as f64));
    }
    // The first ones warm up.
    let times = &times[measurements / 20..];
    let mut sorted: Vec<f64> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
    let t = CROPS.iter().map(|&percent| welch(times, at(percent)).abs()).fold(0.0, f64::max);
    Finding { name, t, nanoseconds: at(50) }
}

/// Welch's t of the two classes' times up to `limit`.
fn welch(times: &[(usize, f64)], limit: f64) -> f64 {
    let [mut n, mut sum, mut squares] = [[0.0; 2]; 3];
    let centre = times[0].1;
    for &(class, time) in times.iter().filter(|(_, time)| *time <= limit) {
        n[class] += 1.0;
        sum[class] += time - centre;
        squares[class] += (time - centre).powi(2);
    }
    let mean = [0, 1].map(|c| sum[c] / n[c]);
    let error = [0, 1].map(|c| (squares[c] / n[c] - mean[c].powi(2)) / (n[c] - 1.0));
    let spread = (error[0] + error[1]).sqrt();
    if spread > 0.0 { (mean[0] - mean[1]) / spread } else { 0.0 }
}

//! What moves bytes: the pseudorandom generator, packing and bit transposition.

use std::hint::black_box;

use privet_ring::peak::Peak;
use privet_ring::prg::{Prg, Seed};
use privet_ring::{pack, packed_len, planes};

use super::Job;
use super::measure::{Clock, Effort, Measured, alternate};
use super::row::Row;

/// Values of 8 bytes in a measurement: 8 MiB, more than a core's own caches hold.
const VALUES: usize = 1 << 20;
/// Values of a piece that stays in the first-level cache.
const SMALL: usize = 1 << 11;
/// Widths that are packed: a narrow ring, ResNet-50's, one of whole bytes, all bits.
const WIDTHS: [u32; 4] = [33, 45, 48, 64];
/// Bytes a second of one core.
const PRG_TARGET: f64 = 8.0;

fn seed(effort: &Effort) -> Prg {
    let mut bytes = [7; 16];
    bytes[..8].copy_from_slice(&effort.seed.to_le_bytes());
    Prg::new(&Seed::from_bytes(bytes))
}

/// Bulk keystream, next to rounds of AES in registers.
pub(super) fn prg() -> Job {
    Job::new("prg", |effort| {
        let prg = seed(effort);
        let peak = Peak::aes();
        let rows = [(SMALL, "16 KiB"), (VALUES, "8 MiB")].map(|(values, shape)| {
            let mut out = vec![0; values];
            // Short fills in batches: a clock has to see them.
            let (times, mut stream) = (VALUES / 4 / values, prg.stream(0));
            let fill = || (0..times.max(1)).for_each(|_| stream.fill(black_box(&mut out), u64::MAX));
            let bytes = (8 * values * times.max(1)) as f64;
            let mut burst = peak.map(|peak| move || peak.burst() as f64);
            let reference = burst.as_mut().map(|burst| burst as &mut dyn FnMut() -> f64);
            let measured = alternate(effort, Clock::Thread, bytes, fill, reference);
            let isa = Some(peak.map_or("portable", |p| p.isa()));
            let row = Row { isa, peak_of: peak.map(|p| p.instructions()), ..Row::new("prg", shape, "GB/s") };
            row.measured(measured, 1e9).at_least(Some(PRG_TARGET))
        });
        Ok(rows.into())
    })
}

/// Copies, packing to l bits and back, and transposing to bit planes. Half of what is read and written counts, as it
/// does for a copy.
pub(super) fn jobs() -> Vec<Job> {
    let mut jobs = vec![Job::new("memcpy", |effort| {
        let (from, mut to) = (vec![1u64; VALUES], vec![0u64; VALUES]);
        let mut copy = copier(&from, &mut to);
        let measured = alternate(effort, Clock::Thread, (8 * VALUES) as f64, || _ = copy(), None);
        Ok(vec![Row::new("memcpy", "8 MiB", "GB/s").measured(measured, 1e9)])
    })];
    let widths = |name: &'static str, run: fn(&Effort, u32) -> anyhow::Result<Measured>| {
        WIDTHS.map(|bits| {
            Job::new(format!("{name}, {bits} bits"), move |effort| {
                let row = Row { ring: Some(bits), peak_of: Some("memcpy"), ..Row::new(name, SHAPE, "GB/s") };
                Ok(vec![row.measured(run(effort, bits)?, 1e9)])
            })
        })
    };
    jobs.extend(widths("pack", measure_pack));
    jobs.extend(widths("unpack", measure_unpack));
    jobs.extend(widths("transpose", measure_planes));
    jobs
}

const SHAPE: &str = "2^20 values";

fn copier<'a>(from: &'a [u64], to: &'a mut [u64]) -> impl FnMut() -> f64 + 'a {
    move || {
        black_box(&mut *to).copy_from_slice(black_box(from));
        (8 * to.len()) as f64
    }
}

/// Next to a copy of all values.
fn beside_copy(effort: &Effort, bits: u32, run: impl FnMut()) -> Measured {
    let (from, mut to) = (vec![1u64; VALUES], vec![0u64; VALUES]);
    let mut copy = copier(&from, &mut to);
    let moved = (8 * VALUES + packed_len(bits, VALUES)) as f64 / 2.0;
    alternate(effort, Clock::Thread, moved, run, Some(&mut copy))
}

fn measure_pack(effort: &Effort, bits: u32) -> anyhow::Result<Measured> {
    let values = seed(effort).stream(1).words(VALUES, u64::MAX >> (64 - bits));
    let mut out = Vec::new();
    Ok(beside_copy(effort, bits, || {
        out.clear();
        pack::pack(black_box(&values), bits, &mut out);
    }))
}

fn measure_unpack(effort: &Effort, bits: u32) -> anyhow::Result<Measured> {
    let bytes = packed_len(bits, VALUES);
    let mut packed: Vec<u8> = seed(effort)
        .stream(2)
        .words(bytes.div_ceil(8), u64::MAX)
        .iter()
        .flat_map(|w| w.to_le_bytes())
        .collect();
    packed.truncate(bytes);
    let mut values = vec![0; VALUES];
    pack::unpack_into(&packed, bits, &mut values)?;
    Ok(beside_copy(effort, bits, || {
        pack::unpack_into(black_box(&packed), bits, &mut values).expect("just tried");
    }))
}

fn measure_planes(effort: &Effort, bits: u32) -> anyhow::Result<Measured> {
    let values = seed(effort).stream(3).words(VALUES, u64::MAX);
    Ok(beside_copy(effort, bits, || {
        drop(black_box(planes::from_values(black_box(&values), bits as usize)));
    }))
}

//! What this machine takes for the parts of an inference: at most about two seconds of trying.

use std::collections::HashMap;
use std::io::{Read, Seek, Write};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use privet_net::{
    Channel, Deadlines, Emulated, Frame, FrameKind, Identity, NetError, TlsChannel, TlsConnector, TlsListener,
};
use privet_plan::{Digest, Keys, Plan};
use privet_protocols::masked::{self, RevealTo, Schedule};
use privet_ring::Ring;
use privet_ring::prg::Seed;
use serde::Serialize;

pub(super) use super::probe::Costs;
use super::probe::{self, Probe};
use crate::error::{Error, StoreError};
use crate::store::Database;

/// After this no further kind of step is tried; steps of kinds that were not take what others do.
const BUDGET: Duration = Duration::from_millis(1200);
/// How often a part is tried; the fastest counts.
const TRIES: usize = 2;

const KIND: FrameKind = FrameKind::new(0x100);
const FRAME: usize = 2 << 20;
const FRAMES: usize = 8;
const PINGS: usize = 101;
/// An emulated link that frames are slow on for other reasons than its own.
const PROBED: Emulated = Emulated {
    rate_bits_per_s: 10_000_000_000,
    round_trip: Duration::from_micros(400),
    jitter: Duration::ZERO,
};
const FILE: usize = 8 << 20;
const SYNCS: usize = 6;
const VALUES: usize = 1 << 20;

/// What a [`Machine`] does a second, or takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// Multiplications in products with weights, online.
    pub multiplications_per_s: f64,
    /// Elements that are compared or truncated, both parties at the same time.
    pub gate_elements_per_s: f64,
    /// Bytes over TLS and the loopback interface, each way.
    pub tls_bytes_per_s: f64,
    /// Seconds that a small frame travels there.
    pub frame_s: f64,
    /// Seconds of a small durable write.
    pub sync_s: f64,
}

/// A calibrated machine, for the plan it was calibrated with.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Of a multiplication or an element, by kind of step.
    kinds: HashMap<String, Costs>,
    /// Of a multiplication in products of other kinds.
    product: Costs,
    /// Of an element that is compared or truncated in a step of another kind: without keys, with them, with those that carry products.
    gate: [Costs; 3],
    /// Of an element that is added.
    pub(super) element: Costs,
    /// Of an element that is opened.
    pub(super) open: Costs,
    /// For a byte over TLS, while as many go the other way.
    pub(super) tls: f64,
    /// For a small frame to the other side, and how much longer than the link it takes over an emulated one.
    pub(super) hop: f64,
    pub(super) hop_emulated: f64,
    /// For a connection, from the first packet until both sides have accepted each other.
    pub(super) connect: f64,
    /// For the schedule of the plan, which each party makes for itself.
    pub(super) schedule: f64,
    /// For a small durable write, and for one through the journal.
    pub(super) sync: f64,
    pub(super) note: f64,
    /// For a byte of material to be written, and read.
    pub(super) write: f64,
    pub(super) read: f64,
    /// For a private value of the model to be masked by the server, and to be checked and unpacked by the client.
    pub(super) mask: f64,
    pub(super) unpack: f64,
    /// Cores that two parties have.
    pub(super) cores: f64,
}

impl Machine {
    /// Tries the parts that `plan` is made of.
    ///
    /// # Errors
    /// If the system gives no connection to itself, or no file.
    pub fn calibrate(plan: &Plan) -> Result<Self, Error> {
        Self::calibrate_for(&[plan])
    }

    /// Tries the parts that `plan` is made of where no comparison takes keys, where all do, and where these carry products.
    ///
    /// # Errors
    /// As [`Self::calibrate`].
    pub fn calibrate_to_choose(plan: &Plan) -> Result<Self, Error> {
        let plain = Plan { fss: Vec::new(), ..plan.clone() };
        let with = |keys| plain.with_keys(|_| keys);
        Self::calibrate_for(&[&plain, &with(Keys::Bits), &with(Keys::Products)])
    }

    /// Plans of the same steps, that differ in which of them take keys.
    fn calibrate_for(plans: &[&Plan]) -> Result<Self, Error> {
        let plan = plans[0];
        let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
        let (tls, hop, connect) = network(None)?;
        let (_, emulated, _) = network(Some(PROBED))?;
        let hop_emulated = (emulated - PROBED.round_trip.as_secs_f64() / 2.0).max(hop);
        let started = Instant::now();
        std::hint::black_box(Schedule::new(plan, RevealTo::Client));
        let schedule = started.elapsed().as_secs_f64();
        let ([sync, note], write, read) = disk()?;
        let (mask, unpack) = weights(plan.ring)?;
        let tries = |run: &dyn Fn() -> Result<Costs, Error>| -> Result<Costs, Error> {
            (1..TRIES).try_fold(run()?, |best, _| Ok(best.min(run()?)))
        };
        let [open, element] = Probe::open_and_add(plan.ring)?;
        let [again, added] = Probe::open_and_add(plan.ring)?;
        let (open, element) = (open.min(again), element.min(added));
        let start = Instant::now();
        let mut kinds = HashMap::new();
        let mut products = (Costs::default(), 0.0);
        let mut gates = [products; 3];
        // What there is most of is tried first.
        let mut steps: Vec<usize> = (0..plan.steps.len()).collect();
        steps.sort_by(|&a, &b| probe::kind(plan, b).1.total_cmp(&probe::kind(plan, a).1));
        for (index, plan) in steps.into_iter().flat_map(|index| plans.iter().map(move |plan| (index, plan))) {
            let (Some(kind), _) = probe::kind(plan, index) else { continue };
            if kinds.contains_key(&kind) || start.elapsed() > BUDGET * plans.len() as u32 {
                continue;
            }
            let probe = Probe::of(plan, index);
            let costs = tries(&|| Ok(probe.run()?))?;
            let class = if kind.starts_with("conv") || kind.starts_with("matmul") {
                &mut products
            } else {
                &mut gates[probe::class(&kind)]
            };
            *class = (add(class.0, costs), class.1 + probe.units());
            kinds.insert(kind, costs * (1.0 / probe.units()));
        }
        let mean = |(sum, units): (Costs, f64)| sum * (1.0 / f64::max(units, 1.0));
        let (product, gate) = (mean(products), gates.map(mean));
        Ok(Self {
            kinds,
            product,
            gate,
            element,
            open,
            tls,
            hop,
            hop_emulated,
            connect,
            schedule,
            sync,
            note,
            write,
            read,
            mask,
            unpack,
            cores: cores.min(2.0),
        })
    }

    /// The rates of classes of steps.
    pub fn summary(&self) -> Summary {
        let rate = |seconds: f64| if seconds > 0.0 { 1.0 / seconds } else { 0.0 };
        Summary {
            multiplications_per_s: rate(self.product.online),
            gate_elements_per_s: rate(
                self.gate.map(|gate| gate.online).into_iter().find(|s| *s > 0.0).unwrap_or(0.0),
            ),
            tls_bytes_per_s: rate(self.tls),
            frame_s: self.hop,
            sync_s: self.sync,
        }
    }

    /// What a step of the plan computes for.
    pub(super) fn step(&self, plan: &Plan, index: usize) -> Costs {
        let (kind, units) = probe::kind(plan, index);
        let unit = match &kind {
            None => self.element,
            Some(kind) => self.kinds.get(kind).copied().unwrap_or_else(|| {
                if kind.starts_with("conv") || kind.starts_with("matmul") {
                    self.product
                } else {
                    self.gate[probe::class(kind)]
                }
            }),
        };
        unit * units
    }
}

fn add(a: Costs, b: Costs) -> Costs {
    Costs { deal: a.deal + b.deal, serve: a.serve + b.serve, ask: a.ask + b.ask, online: a.online + b.online }
}

/// Seconds of a byte, of a small frame and of connecting, over TLS between two threads.
fn network(link: Option<Emulated>) -> Result<(f64, f64, f64), Error> {
    let (ours, theirs) = (Identity::generate("client")?, Identity::generate("server")?);
    let listener =
        TlsListener::bind("127.0.0.1:0", &theirs, vec![ours.certificate().clone()])?.with_link(link);
    let frames = if link.is_some() { 0 } else { FRAMES };
    let address = listener.local_addr().to_string();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| -> Result<(), NetError> {
            let mut channel = listener.accept(Some(Duration::from_secs(10)), &AtomicBool::new(false))?;
            swap(&mut channel, frames)?;
            for _ in 0..PINGS {
                let frame = channel.recv(64)?;
                channel.send(frame)?;
            }
            channel.shutdown()
        });
        let connecting = Instant::now();
        let mut channel = TlsConnector::connect_unless(
            &address,
            &ours,
            theirs.certificate(),
            Deadlines::default(),
            link,
            &|| false,
        )?;
        let connect = connecting.elapsed().as_secs_f64();
        let start = Instant::now();
        swap(&mut channel, frames)?;
        let byte = start.elapsed().as_secs_f64() / (FRAMES * FRAME) as f64;
        let mut pings = Vec::with_capacity(PINGS);
        for _ in 0..PINGS {
            let start = Instant::now();
            channel.exchange(Frame::new(KIND, vec![1; 64]), 64)?;
            pings.push(start.elapsed().as_secs_f64());
        }
        pings.sort_by(f64::total_cmp);
        let hop = pings[PINGS / 2] / 2.0;
        channel.shutdown()?;
        other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((byte, hop, connect))
    })
}

fn swap(channel: &mut TlsChannel, frames: usize) -> Result<(), NetError> {
    for _ in 0..frames {
        channel.exchange(Frame::new(KIND, vec![0x5a; FRAME]), FRAME)?;
    }
    Ok(())
}

/// Seconds of a private value: masked at the server, and at the client.
fn weights(ring: Ring) -> Result<(f64, f64), Error> {
    let (plan, weights) = Probe::values(ring, VALUES);
    let [mut mask, mut unpack] = [f64::INFINITY; 2];
    for _ in 0..TRIES {
        let start = Instant::now();
        let masked = masked::mask_weights(&plan, &weights, &Seed::from_bytes([1; 16]));
        mask = mask.min(start.elapsed().as_secs_f64());
        let bytes = masked::pack_masked_weights(&plan, &masked);
        let start = Instant::now();
        std::hint::black_box(Digest::of("privet probe", &bytes));
        std::hint::black_box(masked::unpack_masked_weights(&plan, &bytes)?);
        unpack = unpack.min(start.elapsed().as_secs_f64());
    }
    let each = |seconds: f64| seconds / VALUES as f64;
    Ok((each(mask), each(unpack)))
}

/// Seconds of a small durable write, of one through the journal, and of a byte of a large file: written with its checksum and
/// durably, and read.
fn disk() -> Result<([f64; 2], f64, f64), Error> {
    let dir = std::env::temp_dir();
    let own = tempfile::tempdir_in(&dir).map_err(StoreError::io(&dir))?;
    let database = Database::open(&own.path().join("probe.redb"))?;
    let (mut sync, mut note) = (f64::INFINITY, f64::INFINITY);
    for i in 0..SYNCS as u64 {
        let start = Instant::now();
        database.put("probe", &i.to_le_bytes(), &i)?;
        sync = sync.min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        database.note(|t| t.put("probe", &i.to_le_bytes(), &(i + 1)))?;
        note = note.min(start.elapsed().as_secs_f64());
    }
    let work = || -> std::io::Result<(f64, f64)> {
        let mut file = tempfile::tempfile_in(&dir)?;
        let bytes = vec![0x5a; FILE];
        let start = Instant::now();
        std::hint::black_box(crc32fast::hash(&bytes));
        file.write_all(&bytes)?;
        file.sync_all()?;
        let write = start.elapsed().as_secs_f64() / FILE as f64;
        file.rewind()?;
        let (start, mut back) = (Instant::now(), Vec::new());
        file.read_to_end(&mut back)?;
        std::hint::black_box(crc32fast::hash(&back));
        Ok((write, start.elapsed().as_secs_f64() / FILE as f64))
    };
    let (write, read) = work().map_err(StoreError::io(&dir))?;
    Ok(([sync, note], write, read))
}

//! What this machine takes for the parts of an inference: at most about two seconds of trying.

use std::collections::HashMap;
use std::io::{Read, Seek, Write};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use privet_net::{
    Channel, Deadlines, Frame, FrameKind, Identity, NetError, TlsChannel, TlsConnector, TlsListener,
};
use privet_plan::Plan;

pub(super) use super::probe::Costs;
use super::probe::{self, Probe};
use crate::error::{Error, StoreError};

/// After this no further kind of step is tried; steps of kinds that were not take what others do.
const BUDGET: Duration = Duration::from_millis(1200);
/// How often a part is tried; the fastest counts.
const TRIES: usize = 2;

const KIND: FrameKind = FrameKind::new(0x100);
const FRAME: usize = 2 << 20;
const FRAMES: usize = 8;
const PINGS: u32 = 200;
const FILE: usize = 8 << 20;
const SYNCS: u32 = 4;

/// A calibrated machine, for the plan it was calibrated with.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Of a multiplication or an element, by kind of step.
    kinds: HashMap<String, Costs>,
    /// Of a multiplication in products of other kinds.
    product: Costs,
    /// Of an element that is compared or truncated in a step of another kind.
    gate: Costs,
    /// Of an element that is added.
    pub(super) element: Costs,
    /// Of an element that is opened.
    pub(super) open: Costs,
    /// For a byte over TLS, while as many go the other way.
    pub(super) tls: f64,
    /// For a small frame to the other side.
    pub(super) hop: f64,
    /// For a small durable write.
    pub(super) sync: f64,
    /// For a byte of material to be written, and read.
    pub(super) write: f64,
    pub(super) read: f64,
    /// Cores that two parties have.
    pub(super) cores: f64,
}

impl Machine {
    /// Tries the parts that `plan` is made of.
    ///
    /// # Errors
    /// If the system gives no connection to itself, or no file.
    pub fn calibrate(plan: &Plan) -> Result<Self, Error> {
        let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
        let (tls, hop) = network()?;
        let (sync, write, read) = disk()?;
        let tries = |run: &dyn Fn() -> Result<Costs, Error>| -> Result<Costs, Error> {
            (1..TRIES).try_fold(run()?, |best, _| Ok(best.min(run()?)))
        };
        let [open, element] = Probe::open_and_add(plan.ring)?;
        let [again, added] = Probe::open_and_add(plan.ring)?;
        let (open, element) = (open.min(again), element.min(added));
        let start = Instant::now();
        let mut kinds = HashMap::new();
        let (mut products, mut gates) = ((Costs::default(), 0.0), (Costs::default(), 0.0));
        // What there is most of is tried first.
        let mut steps: Vec<usize> = (0..plan.steps.len()).collect();
        steps.sort_by(|&a, &b| probe::kind(plan, b).1.total_cmp(&probe::kind(plan, a).1));
        for index in steps {
            let (Some(kind), _) = probe::kind(plan, index) else { continue };
            if kinds.contains_key(&kind) || start.elapsed() > BUDGET {
                continue;
            }
            let probe = Probe::of(plan, index);
            let costs = tries(&|| Ok(probe.run()?))?;
            let class = if kind.starts_with("conv") || kind.starts_with("matmul") {
                &mut products
            } else {
                &mut gates
            };
            *class = (add(class.0, costs), class.1 + probe.units());
            kinds.insert(kind, costs * (1.0 / probe.units()));
        }
        let mean = |(sum, units): (Costs, f64)| sum * (1.0 / f64::max(units, 1.0));
        let (product, gate) = (mean(products), mean(gates));
        Ok(Self { kinds, product, gate, element, open, tls, hop, sync, write, read, cores: cores.min(2.0) })
    }

    /// What a step of the plan computes for.
    pub(super) fn step(&self, plan: &Plan, index: usize) -> Costs {
        let (kind, units) = probe::kind(plan, index);
        let unit = match &kind {
            None => self.element,
            Some(kind) => self.kinds.get(kind).copied().unwrap_or_else(|| {
                if kind.starts_with("conv") || kind.starts_with("matmul") { self.product } else { self.gate }
            }),
        };
        unit * units
    }
}

fn add(a: Costs, b: Costs) -> Costs {
    Costs { deal: a.deal + b.deal, serve: a.serve + b.serve, ask: a.ask + b.ask, online: a.online + b.online }
}

/// Seconds of a byte and of a small frame, over TLS between two threads.
fn network() -> Result<(f64, f64), Error> {
    let (ours, theirs) = (Identity::generate("client")?, Identity::generate("server")?);
    let listener = TlsListener::bind("127.0.0.1:0", &theirs, vec![ours.certificate().clone()])?;
    let address = listener.local_addr().to_string();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| -> Result<(), NetError> {
            let mut channel = listener.accept(Some(Duration::from_secs(10)), &AtomicBool::new(false))?;
            swap(&mut channel)?;
            for _ in 0..PINGS {
                let frame = channel.recv(64)?;
                channel.send(frame)?;
            }
            channel.shutdown()
        });
        let mut channel = TlsConnector::connect(&address, &ours, theirs.certificate(), Deadlines::default())?;
        let start = Instant::now();
        swap(&mut channel)?;
        let byte = start.elapsed().as_secs_f64() / (FRAMES * FRAME) as f64;
        let start = Instant::now();
        for _ in 0..PINGS {
            channel.exchange(Frame::new(KIND, vec![1; 64]), 64)?;
        }
        let hop = start.elapsed().as_secs_f64() / f64::from(2 * PINGS);
        channel.shutdown()?;
        other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((byte, hop))
    })
}

fn swap(channel: &mut TlsChannel) -> Result<(), NetError> {
    for _ in 0..FRAMES {
        channel.exchange(Frame::new(KIND, vec![0x5a; FRAME]), FRAME)?;
    }
    Ok(())
}

/// Seconds of a small durable write, and of a byte of a large file: written with its checksum and durably, and read.
fn disk() -> Result<(f64, f64, f64), Error> {
    let dir = std::env::temp_dir();
    let work = || -> std::io::Result<(f64, f64, f64)> {
        let mut file = tempfile::tempfile_in(&dir)?;
        let start = Instant::now();
        for _ in 0..SYNCS {
            file.write_all(&[1; 4096])?;
            file.sync_all()?;
        }
        let sync = start.elapsed().as_secs_f64() / f64::from(SYNCS);
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
        Ok((sync, write, start.elapsed().as_secs_f64() / FILE as f64))
    };
    Ok(work().map_err(StoreError::io(&dir))?)
}

//! The path through the program, instruction by instruction, does not depend on secrets.
//!
//! All parties of an inference, and its preparation, run in a process of their own under valgrind's tool `lackey`,
//! which writes down the address of every instruction and of every memory access. Recordings of other inputs, weights and
//! seeds have to give the same addresses throughout. This is deterministic and finds every branch and every
//! index that depends on a secret, in the kernels that valgrind's processor has (AVX2, not AVX-512).
//!
//! Tables are looked up at masked indices, which are public: there the addresses of data may differ.

use std::hash::{DefaultHasher, Hasher};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use privet_plan::Plan;
use privet_protocols::masked::{RevealTo, Role, Schedule};
use privet_protocols::replicated::PARTIES;

use crate::common::samples::{Sample, Secrets, samples};
use crate::common::{with_bits, with_products};
use crate::{three_party, two_party};

/// The first argument of the process that is looked at.
pub(crate) const CHILD: &str = "--on-the-path";

/// An engine whose paths are compared.
pub(crate) struct Engine {
    pub(crate) name: &'static str,
    /// The engine's form of a plan.
    plan: fn(&Plan) -> Plan,
    /// Samples that the test compares: together they use all that is the engine's own.
    pub(crate) tested: &'static [&'static str],
    /// One inference on record.
    record: fn(&Plan, &Secrets) -> Vec<u8>,
    /// Dealer, preparation and parties once more, one after the other.
    replay: fn(&Plan, &[u8]),
}

pub(crate) const ENGINES: [Engine; 4] = [
    Engine {
        name: "2pc",
        plan: Plan::clone,
        tested: &["a chain", "max pool", "choice", "table", "conv, open, relu"],
        record: record_two_party,
        replay: replay_two_party,
    },
    // Gates are those of 2pc.
    Engine {
        name: "3pc",
        plan: Plan::clone,
        tested: &["a chain", "conv, open, relu", "wide table"],
        record: |plan, secrets| {
            three_party::Recording::new(plan, &Schedule::three_party(plan), secrets).to_bytes()
        },
        replay: |plan, bytes| {
            let schedule = Schedule::three_party(plan);
            let recording = three_party::Recording::from_bytes(plan, &schedule, bytes);
            for party in 0..PARTIES {
                recording.replay(plan, &schedule, party, &mut recording.tapes(party));
            }
        },
    },
    Engine {
        name: "fss",
        plan: with_bits,
        tested: &["relu split above the leaves", "max pool"],
        record: record_two_party,
        replay: replay_two_party,
    },
    Engine {
        name: "products",
        plan: with_products,
        tested: &["comparison", "matmul, open, trunc", "max pool"],
        record: record_two_party,
        replay: replay_two_party,
    },
];

fn record_two_party(plan: &Plan, secrets: &Secrets) -> Vec<u8> {
    let schedule = Schedule::new(plan, RevealTo::Client);
    two_party::Recording::new(plan, &schedule, secrets).to_bytes()
}

fn replay_two_party(plan: &Plan, bytes: &[u8]) {
    let schedule = Schedule::new(plan, RevealTo::Client);
    let recording = two_party::Recording::from_bytes(plan, &schedule, bytes);
    for (role, half) in [Role::Server, Role::Client].into_iter().zip(recording.halves(plan, &schedule)) {
        recording.replay(plan, &schedule, role, half, &mut recording.tape(role));
    }
}

/// Accesses between two marks.
const MARK: u64 = 1 << 12;

/// Stores to one address in a row that tell where to begin: what comes before, the start of the process, is not ours.
const BEGIN: usize = 1000;

/// What those stores go to.
static BEACON: AtomicUsize = AtomicUsize::new(0);

/// Addresses in order.
#[derive(Default)]
struct Trace {
    hasher: DefaultHasher,
    count: u64,
    /// Hash of all up to here, and the last one.
    marks: Vec<(u64, String)>,
}

impl Trace {
    fn push(&mut self, line: &str) {
        self.hasher.write(line.as_bytes());
        self.count += 1;
        if self.count.is_multiple_of(MARK) {
            self.marks.push((self.hasher.finish(), line.trim().to_owned()));
        }
    }

    /// Where another trace leaves this one.
    fn parts_from(&self, other: &Self) -> Option<String> {
        if self.count == other.count && self.hasher.finish() == other.hasher.finish() {
            return None;
        }
        let parts = self.marks.iter().zip(&other.marks).position(|(a, b)| a.0 != b.0);
        let last = parts.and_then(|i| i.checked_sub(1)).and_then(|i| self.marks.get(i));
        let after = last.map_or("the start", |(_, line)| line.as_str());
        Some(format!("{} and {} accesses, equal until shortly after {after}", self.count, other.count))
    }
}

/// Whether valgrind is there.
pub(crate) fn is_possible() -> bool {
    let version = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Compares the paths of one sample's secrets. Returns the number of instructions; panics where paths differ.
pub(crate) fn check(engine: &Engine, sample: &Sample, directory: &Path) -> u64 {
    let file = directory.join("recording");
    let name = format!("{}, {}", engine.name, sample.name);
    let plan = (engine.plan)(&sample.plan);
    let traces: Vec<[Trace; 2]> = sample
        .secrets
        .iter()
        .map(|secrets| {
            std::fs::write(&file, (engine.record)(&plan, secrets)).unwrap();
            trace(engine, sample.name, &file)
        })
        .collect();
    let [[instructions, data], [other_instructions, other_data]] = &traces[..] else { unreachable!() };
    if let Some(difference) = instructions.parts_from(other_instructions) {
        panic!("{name}: a branch depends on a secret: {difference}");
    }
    if let Some(difference) = data.parts_from(other_data)
        && !["table", "wide table"].contains(&sample.name)
    {
        panic!("{name}: an index depends on a secret: {difference}");
    }
    instructions.count
}

/// Instructions and accesses to data of one run.
fn trace(engine: &Engine, sample: &str, file: &Path) -> [Trace; 2] {
    let mut command = Command::new("valgrind");
    command.args(["--tool=lackey", "--trace-mem=yes", "--basic-counts=no"]);
    command.arg(std::env::current_exe().unwrap()).args([CHILD, engine.name, sample]).arg(file);
    command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::with_capacity(1 << 20, child.stderr.take().unwrap());
    let [mut instructions, mut data] = <[Trace; 2]>::default();
    let (mut line, mut rest) = (String::new(), String::new());
    let (mut last_store, mut in_a_row, mut begun) = (String::new(), 0, false);
    while lines.read_line(&mut line).unwrap() > 0 {
        if !begun && line.starts_with(" S") {
            in_a_row = if line == last_store { in_a_row + 1 } else { 1 };
            begun = in_a_row == BEGIN;
            last_store.clone_from(&line);
        }
        if !begun && !line.starts_with("==") {
            line.clear();
            continue;
        }
        match line.get(..2) {
            Some("I ") => instructions.push(&line),
            Some(" L" | " S" | " M") => data.push(&line),
            _ => rest.push_str(&line),
        }
        line.clear();
    }
    assert!(child.wait().unwrap().success(), "{sample} under valgrind: {rest}");
    assert!(instructions.count > 10_000, "valgrind says nothing: {rest}");
    [instructions, data]
}

/// What the child does: all parties, from a recording.
pub(crate) fn child(engine: &str, sample: &str, file: &Path) {
    let engine = ENGINES.iter().find(|e| e.name == engine).unwrap();
    let Sample { plan, .. } = samples().into_iter().find(|s| s.name == sample).unwrap();
    let bytes = std::fs::read(file).unwrap();
    let beacon = std::hint::black_box(&BEACON);
    (0..BEGIN).for_each(|i| beacon.store(i, Ordering::Relaxed));
    (engine.replay)(&(engine.plan)(&plan), &bytes);
}

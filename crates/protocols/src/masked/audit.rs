//! For tests only, behind the feature `audit`, which no release has: a ledger of every mask that hides a message, and
//! places where the process dies.
//!
//! If the environment variable `PRIVET_TEST_LEDGER` names a file, a line is appended to it before each masked message
//! is sent: a name of the seed (a block of a stream nothing else uses), the instruction and its lane, and how many messages
//! of this lane went before. No line may ever appear twice, whatever happened to the processes that wrote them.
//!
//! If `PRIVET_TEST_CRASH` is `PLACE:N`, the process aborts when it comes to that place for the N-th time, counted from 0:
//! nothing is flushed, nothing unwinds, as with `kill -9`.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::sync::{LazyLock, Mutex, PoisonError};

use privet_ring::prg::{Prg, Seed};

/// Names the file.
const LEDGER_VARIABLE: &str = "PRIVET_TEST_LEDGER";
/// Names the place.
const CRASH_VARIABLE: &str = "PRIVET_TEST_CRASH";
/// A stream that no instruction has.
const NAMES: u64 = u64::MAX;

static LEDGER: LazyLock<Option<Mutex<File>>> = LazyLock::new(|| {
    let path = std::env::var_os(LEDGER_VARIABLE)?;
    let file = File::options().append(true).create(true).open(path);
    Some(Mutex::new(file.expect("the test's ledger can be opened")))
});

static CRASH: LazyLock<Option<(String, usize)>> = LazyLock::new(|| {
    let text = std::env::var(CRASH_VARIABLE).ok()?;
    let (place, visits) = text.split_once(':').expect("PLACE:N");
    Some((place.to_owned(), visits.parse().expect("a number")))
});

static VISITS: LazyLock<Mutex<HashMap<&'static str, usize>>> = LazyLock::new(Mutex::default);

/// What the ledger calls a seed.
pub fn name(seed: &Seed) -> String {
    named(&Prg::new(seed))
}

fn named(prg: &Prg) -> String {
    let name = prg.stream(NAMES).words(2, u64::MAX);
    format!("{:016x}{:016x}", name[0], name[1])
}

/// Notes one message; `sent` counts the lane's earlier ones.
pub(super) fn note(prg: &Prg, instruction: usize, lane: usize, sent: usize) {
    place("before a message");
    let Some(ledger) = &*LEDGER else { return };
    let line = format!("{} {instruction}.{lane} {sent}\n", named(prg));
    // One write: it is there whole or not at all when the process is killed.
    let mut file = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    file.write_all(line.as_bytes()).expect("the test's ledger can be written");
}

/// Aborts if this is where the test wants it.
pub fn place(name: &'static str) {
    let Some((wanted, visit)) = &*CRASH else { return };
    if wanted != name {
        return;
    }
    let mut visits = VISITS.lock().unwrap_or_else(PoisonError::into_inner);
    let count = visits.entry(name).or_default();
    if count == visit {
        std::process::abort();
    }
    *count += 1;
}

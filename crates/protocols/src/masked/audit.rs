//! For tests only, behind the feature `audit`, which no release has: a ledger of every mask that hides a message.
//!
//! If the environment variable `PRIVET_TEST_LEDGER` names a file, a line is appended to it before each masked message
//! is sent: a name of the seed (a block of a stream nothing else uses), the instruction, and how many messages of this
//! instruction went before. No line may ever appear twice, whatever happened to the processes that wrote them.

use std::fs::File;
use std::io::Write;
use std::sync::{LazyLock, Mutex, PoisonError};

use privet_ring::prg::Prg;

/// Names the file.
const VARIABLE: &str = "PRIVET_TEST_LEDGER";
/// A stream that no instruction has.
const NAMES: u64 = u64::MAX;

static LEDGER: LazyLock<Option<Mutex<File>>> = LazyLock::new(|| {
    let path = std::env::var_os(VARIABLE)?;
    let file = File::options().append(true).create(true).open(path);
    Some(Mutex::new(file.expect("the test's ledger can be opened")))
});

/// Notes one message; `sent` counts the instruction's earlier ones.
pub(super) fn note(prg: &Prg, instruction: usize, sent: usize) {
    let Some(ledger) = &*LEDGER else { return };
    let name = prg.stream(NAMES).words(2, u64::MAX);
    let line = format!("{:016x}{:016x} {instruction} {sent}\n", name[0], name[1]);
    // One write: it is there whole or not at all when the process is killed.
    let mut file = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    file.write_all(line.as_bytes()).expect("the test's ledger can be written");
}

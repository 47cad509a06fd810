//! What every fuzz target does: a panic, and more memory than a file of this length may take, are findings.

use peak_alloc::PeakAlloc;
use privet::fuzzing;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Runs the target on the bytes.
///
/// # Panics
/// When it finds something.
pub fn check(target: &str, bytes: &[u8]) {
    let target = fuzzing::find(target).expect("a target of this name");
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    (target.run)(bytes);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    assert!(taken <= target.memory(bytes.len()), "{} bytes take {} MiB of memory", bytes.len(), taken >> 20);
}

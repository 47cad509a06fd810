//! Memory of this process, as Linux tells it.

use std::fs;

/// Starts a new measurement of [`peak`].
pub(crate) fn reset_peak() {
    // Where this is not possible the peak is that of the process so far.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most resident bytes since [`reset_peak`].
pub(crate) fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// Resident bytes now.
pub(crate) fn resident() -> Option<u64> {
    status("VmRSS:")
}

fn status(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

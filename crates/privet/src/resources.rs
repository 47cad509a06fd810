//! What this process has used so far, as the operating system counts it.

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

/// CPU seconds of the whole process since its start, user and system, all threads (`getrusage`).
pub fn cpu_seconds() -> f64 {
    cpu(UsageWho::RUSAGE_SELF)
}

/// CPU seconds of all child processes that have ended and been waited for, user and system.
pub fn children_cpu_seconds() -> f64 {
    cpu(UsageWho::RUSAGE_CHILDREN)
}

/// Largest resident memory of the program so far, in bytes.
pub fn peak_memory_bytes() -> u64 {
    // Kilobytes everywhere but on Apple systems.
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    let counted =
        || usage(UsageWho::RUSAGE_SELF).map_or(0, |u| u64::try_from(u.max_rss()).unwrap_or(0) * unit);
    high_water_mark().unwrap_or_else(counted)
}

/// On Linux the memory of this program alone: `ru_maxrss` has that of the process which started it, too.
fn high_water_mark() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn cpu(who: UsageWho) -> f64 {
    let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
    usage(who).map_or(0.0, |u| seconds(u.user_time()) + seconds(u.system_time()))
}

/// Fails only for arguments that are not used here.
fn usage(who: UsageWho) -> Option<Usage> {
    getrusage(who).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted() {
        let before = cpu_seconds();
        let start = std::time::Instant::now();
        let mut state = 1u64;
        while start.elapsed().as_millis() < 50 {
            state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        assert!(cpu_seconds() > before);
        let peak = peak_memory_bytes();
        assert!(peak > 1 << 18);
        let filled = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(peak_memory_bytes() >= peak.max(filled.len() as u64));
        let children = children_cpu_seconds();
        let count = "i=0; while [ $i -lt 9999 ]; do i=$((i+1)); done";
        assert!(std::process::Command::new("sh").args(["-c", count]).status().unwrap().success());
        assert!(children_cpu_seconds() > children);
    }
}

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

/// Largest resident memory of the process so far, in bytes (`getrusage`, `ru_maxrss`).
pub fn peak_memory_bytes() -> u64 {
    // Kilobytes everywhere but on Apple systems.
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    usage(UsageWho::RUSAGE_SELF).map_or(0, |u| u64::try_from(u.max_rss()).unwrap_or(0) * unit)
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
        assert!(peak_memory_bytes() > 1 << 18);
        let children = children_cpu_seconds();
        let count = "i=0; while [ $i -lt 9999 ]; do i=$((i+1)); done";
        assert!(std::process::Command::new("sh").args(["-c", count]).status().unwrap().success());
        assert!(children_cpu_seconds() > children);
    }
}

//! Time, given from outside, and a clock that does not run backwards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Says what time it is, in seconds since 1970 (UTC).
pub trait Clock: Send + Sync {
    /// Seconds since 1970.
    fn now(&self) -> u64;
}

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> u64 {
        // A clock before 1970 is wrong whatever it says; everything has long expired or not yet begun.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
    }
}

/// A clock for tests, set by hand.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Shows `seconds` until it is set.
    pub fn new(seconds: u64) -> Self {
        Self(AtomicU64::new(seconds))
    }

    /// Sets it, forwards or backwards.
    pub fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Time elapsed in this process, whatever happens to the clock on the wall.
pub trait Elapsed: Send + Sync {
    /// Seconds since some moment, never fewer than before.
    fn elapsed(&self) -> u64;
}

/// The monotonic clock of the operating system.
#[derive(Debug)]
pub struct Uptime(Instant);

impl Default for Uptime {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Elapsed for Uptime {
    fn elapsed(&self) -> u64 {
        self.0.elapsed().as_secs()
    }
}

/// A clock that does not run backwards, and not slower than the monotonic one: the largest of what the wall clock says, the
/// first reading plus the time since then, and every earlier reading, those before a restart included.
///
/// It can be stopped by whoever controls both clocks of the machine: there is no trusted time in an enclave. What it
/// refuses is a wall clock that is turned back.
pub struct SteadyClock {
    wall: Arc<dyn Clock>,
    elapsed: Arc<dyn Elapsed>,
    /// The largest reading, and how much time had elapsed then.
    mark: Mutex<(u64, u64)>,
}

impl SteadyClock {
    /// Begins at `floor`, the last reading before this process, or later.
    pub fn new(wall: Arc<dyn Clock>, elapsed: Arc<dyn Elapsed>, floor: u64) -> Self {
        let mark = Mutex::new((floor.max(wall.now()), elapsed.elapsed()));
        Self { wall, elapsed, mark }
    }

    /// Learns from someone trusted that it is at least so late.
    pub fn at_least(&self, seconds: u64) {
        let mut mark = self.mark.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if seconds > mark.0 {
            *mark = (seconds, self.elapsed.elapsed());
        }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> u64 {
        let mut mark = self.mark.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let elapsed = self.elapsed.elapsed();
        let (largest, then) = *mark;
        let now = self.wall.now().max(largest.saturating_add(elapsed.saturating_sub(then)));
        *mark = (now, elapsed.max(then));
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Manual(AtomicU64);

    impl Elapsed for Manual {
        fn elapsed(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn neither_backwards_nor_behind_the_monotonic_clock() {
        let (wall, elapsed) = (Arc::new(ManualClock::new(1000)), Arc::new(Manual(AtomicU64::new(5))));
        let steady = SteadyClock::new(wall.clone(), elapsed.clone(), 0);
        assert_eq!(steady.now(), 1000);
        wall.set(10);
        assert_eq!(steady.now(), 1000, "turned back");
        elapsed.0.store(65, Ordering::SeqCst);
        assert_eq!(steady.now(), 1060, "a stopped wall clock");
        assert_eq!(steady.now(), 1060, "counted once");
        wall.set(2000);
        assert_eq!(steady.now(), 2000);
        steady.at_least(2500);
        assert_eq!(steady.now(), 2500, "told by the server");
        let restarted = SteadyClock::new(wall, elapsed, 3000);
        assert_eq!(restarted.now(), 3000, "the mark of an earlier process");
    }
}

//! Clocks and repetitions.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Time for one row of a rate and one of `--iterations`.
const BUDGET: Duration = Duration::from_millis(60);
/// No row needs more.
const MAX_REPETITIONS: usize = 1000;
/// How often the peak's loop runs before each repetition.
const BURSTS: usize = 3;

/// One in so many measurements may be too short.
const OUTLIERS: usize = 20;

/// How much time measurements may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// Repetitions at least.
    pub(super) iterations: usize,
    /// Decides random values.
    pub(super) seed: u64,
    /// As little as possible: a smoke test.
    pub(super) quick: bool,
    budget: Duration,
}

impl Effort {
    pub(super) fn new(iterations: u64, seed: u64) -> Self {
        let times = u32::try_from(iterations).unwrap_or(u32::MAX);
        let quick = iterations == 1;
        let budget = if quick { Duration::ZERO } else { BUDGET.saturating_mul(times) };
        Self { iterations: times as usize, seed, quick, budget }
    }
}

/// What time is taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// CPU time of this thread: what runs beside it on the same core does not count.
    Thread,
    /// Wall time, for work of several threads.
    Wall,
}

impl Clock {
    /// For work of so many threads.
    pub(super) fn of(threads: usize) -> Self {
        if threads == 1 { Self::Thread } else { Self::Wall }
    }

    pub(super) fn seconds(self, work: impl FnOnce()) -> f64 {
        let wall = Instant::now();
        let before = thread_seconds();
        work();
        let after = thread_seconds();
        let wall = wall.elapsed().as_secs_f64();
        match (self, before, after) {
            // A clock that did not move is too coarse.
            (Self::Thread, Some(before), Some(after)) if after > before => after - before,
            _ => wall,
        }
    }
}

fn thread_seconds() -> Option<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?;
    Some(Duration::from(time).as_secs_f64())
}

/// Rates, in units of work per second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) best: f64,
    pub(super) median: f64,
    /// Of what it is compared with, the best.
    pub(super) peak: Option<f64>,
    pub(super) repetitions: usize,
}

/// Something to compare with: does its work and says how much that was.
pub(super) type Reference<'a> = Option<&'a mut dyn FnMut() -> f64>;

/// Alternates between `run`, which does `work` each time, and `reference`.
pub(super) fn alternate(
    effort: &Effort,
    clock: Clock,
    work: f64,
    mut run: impl FnMut(),
    mut reference: Reference,
) -> Measured {
    let start = Instant::now();
    let (mut seconds, mut peaks) = (Vec::new(), Vec::new());
    if !effort.quick {
        run();
    }
    loop {
        if let Some(reference) = &mut reference {
            for _ in 0..BURSTS {
                let mut done = 0.0;
                let taken = clock.seconds(|| done = reference());
                peaks.push(taken / done);
            }
        }
        seconds.push(clock.seconds(&mut run));
        let enough = seconds.len() >= effort.iterations && start.elapsed() >= effort.budget;
        if enough || seconds.len() == MAX_REPETITIONS {
            break;
        }
    }
    let repetitions = seconds.len();
    let (best, median) = best_and_median(seconds);
    let peak = (!peaks.is_empty()).then(|| 1.0 / best_and_median(peaks).0);
    Measured { best: work / best, median: work / median, peak, repetitions }
}

/// Of times: the shortest but for one in twenty, because clocks err now and then, and the middle one.
fn best_and_median(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / OUTLIERS], times[times.len() / 2])
}

/// Smallest and middle value of several, for what is a quantity and no rate.
pub(super) fn least_and_median(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_run_in_turn_and_the_best_counts() {
        let mut order = String::new();
        let order = std::cell::RefCell::new(&mut order);
        let mut reference = || {
            order.borrow_mut().push('p');
            7.0
        };
        let run = || order.borrow_mut().push('r');
        let measured = alternate(&Effort::new(1, 0), Clock::Wall, 2.0, run, Some(&mut reference));
        assert_eq!((order.into_inner().as_str(), measured.repetitions), ("pppr", 1));
        assert!(measured.peak.is_some() && measured.best >= measured.median);
        let runs = std::cell::Cell::new(0);
        let sleep = || {
            runs.set(runs.get() + 1);
            std::thread::sleep(Duration::from_millis(30));
        };
        let measured = alternate(&Effort::new(2, 0), Clock::Wall, 3.0, sleep, None);
        assert_eq!((runs.get(), measured.peak), (measured.repetitions + 1, None), "one to warm up");
        assert!(measured.repetitions >= 2 && measured.best <= 100.0);
        assert_eq!(least_and_median(vec![3.0, 1.0, 2.0]), (1.0, 2.0));
        let times = |len: u32| best_and_median((0..len).rev().map(f64::from).collect());
        assert_eq!((times(19), times(20), times(41)), ((0.0, 9.0), (1.0, 10.0), (2.0, 20.0)));
    }

    #[test]
    fn a_sleeping_thread_uses_no_time_of_its_own() {
        let nap = || std::thread::sleep(Duration::from_millis(50));
        assert!(Clock::Wall.seconds(nap) >= 0.05);
        assert!(Clock::Thread.seconds(nap) < 0.05);
    }
}

//! The bound on a whole run: its deadline, and interruption.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::exit::{Code, Failure, message};
use crate::signals;

/// How often the clock is looked at while this process computes.
const POLL: Duration = Duration::from_millis(50);

/// Watches deadline and signals. While the caller waits for children it asks [`Watch::check`]; while it computes,
/// without children or temporary files, the process simply ends.
#[derive(Clone)]
pub(crate) struct Watch {
    started: Instant,
    limit: Duration,
    stop: Arc<AtomicBool>,
    computing: Arc<AtomicBool>,
}

impl Watch {
    pub(crate) fn start(limit: Duration) -> anyhow::Result<Self> {
        let (stop, computing) = (signals::abort_flag()?, Arc::new(AtomicBool::new(false)));
        let watch = Self { started: Instant::now(), limit, stop, computing };
        let own = watch.clone();
        thread::spawn(move || {
            loop {
                thread::sleep(POLL);
                if let Err(error) = own.check()
                    && own.computing.load(Ordering::SeqCst)
                {
                    eprintln!("{}", message(&error));
                    std::process::exit(Code::of(&error) as i32);
                }
            }
        });
        Ok(watch)
    }

    /// An error once the deadline has passed or the user wants to stop.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.stop.load(Ordering::SeqCst) {
            return Err(Failure::error(Code::Interrupted, "interrupted"));
        }
        if self.started.elapsed() > self.limit {
            let seconds = self.limit.as_secs();
            let text = format!("not done within {seconds} s; give it more with --deadline SECONDS");
            return Err(Failure::error(Code::Deadline, text));
        }
        Ok(())
    }

    /// Runs `work`, which cannot look at the clock itself.
    pub(crate) fn computing<T>(&self, work: impl FnOnce() -> T) -> T {
        self.computing.store(true, Ordering::SeqCst);
        let result = work();
        self.computing.store(false, Ordering::SeqCst);
        result
    }
}

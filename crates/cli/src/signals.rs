//! Interruption: Ctrl-C, SIGTERM or SIGHUP asks to finish; a party ends at once when asked again.
//!
//! A service drains: it finishes the sessions under way and refuses newcomers. A client has one session, and whoever
//! interrupts it does not want its result: it ends at once. What a party has on disk is consistent at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};

use crate::exit::Code;

/// A flag that the first signal sets; the second ends this party's process. What is on disk stays consistent.
pub(crate) fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    flag_set_by_signals(|is_repeated| {
        if is_repeated {
            std::process::exit(Code::Interrupted as i32);
        }
        eprintln!("finishing what is under way; interrupt again to stop at once");
    })
}

/// A flag that the first signal sets; more of them change nothing, so that a model in memory is wiped, which takes a moment.
pub(crate) fn wipe_flag() -> anyhow::Result<Arc<AtomicBool>> {
    flag_set_by_signals(|is_repeated| {
        if !is_repeated {
            eprintln!("stopping, and wiping the model");
        }
    })
}

/// A flag that the first signal sets; more of them change nothing, so that temporary keys and children are cleared away.
pub(crate) fn abort_flag() -> anyhow::Result<Arc<AtomicBool>> {
    flag_set_by_signals(|is_repeated| {
        if !is_repeated {
            eprintln!("interrupted; ending the parties");
        }
    })
}

/// A flag that signals set, for work that looks at it often and clears away what it has begun.
pub(crate) fn quiet_flag() -> anyhow::Result<Arc<AtomicBool>> {
    flag_set_by_signals(|_| ())
}

/// As [`quiet_flag`], where nothing that may be left says anything: the second signal ends the process.
pub(crate) fn short_flag() -> anyhow::Result<Arc<AtomicBool>> {
    flag_set_by_signals(|is_repeated| {
        if is_repeated {
            std::process::exit(Code::Interrupted as i32);
        }
    })
}

/// The first signal ends this process.
pub(crate) fn end_at_once() -> anyhow::Result<()> {
    let end = || {
        eprintln!("interrupted");
        std::process::exit(Code::Interrupted as i32);
    };
    ctrlc::set_handler(end).context("cannot handle signals")
}

/// Makes a file that would grow beyond the limit of the shell (`ulimit -f`) a failed write with a message: the signal that
/// comes with it would end the process without a word. Blocked here, before there are other threads, it is blocked in all.
pub(crate) fn fail_writes_beyond_the_limit() -> anyhow::Result<()> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGXFSZ);
    set.thread_block().context("cannot block SIGXFSZ")
}

fn flag_set_by_signals(react: impl Fn(bool) + Send + 'static) -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || react(flag.swap(true, Ordering::SeqCst))).context("cannot handle signals")?;
    Ok(stop)
}

/// Asks the kernel to kill this process when its parent, `expected`, has gone; where the kernel cannot, nothing happens.
#[cfg(target_os = "linux")]
pub(crate) fn exit_with_parent(expected: i32) -> anyhow::Result<()> {
    use nix::sys::prctl::set_pdeathsig;
    use nix::unistd::getppid;

    set_pdeathsig(Signal::SIGKILL).context("cannot follow the parent process")?;
    // It may have gone before.
    if getppid().as_raw() != expected {
        std::process::exit(Code::Interrupted as i32);
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn exit_with_parent(_: i32) -> anyhow::Result<()> {
    Ok(())
}

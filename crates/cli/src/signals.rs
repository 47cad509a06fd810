//! Interruption: Ctrl-C, SIGTERM or SIGHUP asks to finish; a party ends at once when asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

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

/// A flag that the first signal sets; more of them change nothing, so that temporary keys and children are cleared away.
pub(crate) fn abort_flag() -> anyhow::Result<Arc<AtomicBool>> {
    flag_set_by_signals(|is_repeated| {
        if !is_repeated {
            eprintln!("interrupted; ending the parties");
        }
    })
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
    use nix::sys::signal::Signal;
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

//! Interruption: the first Ctrl-C, SIGTERM or SIGHUP asks to finish, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use crate::exit::Code;

/// A flag that the first signal sets.
pub(crate) fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let handler = move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(Code::Interrupted as i32);
        }
        eprintln!("finishing what is under way; interrupt again to stop at once");
    };
    ctrlc::set_handler(handler).context("cannot handle signals")?;
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

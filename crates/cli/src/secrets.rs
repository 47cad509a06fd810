//! Commands that hold keys leave no picture of their memory.

use anyhow::Context;
use nix::sys::resource::{Resource, setrlimit};

/// No core dumps, and on Linux no debugger of the same user either. The limit alone does not hold for dumps that the kernel
/// pipes to a program (`core_pattern`), so the process is also marked as not dumpable.
pub(crate) fn keep_memory_private() -> anyhow::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("cannot turn core dumps off")?;
    #[cfg(target_os = "linux")]
    match nix::sys::prctl::set_dumpable(false) {
        // A library system such as Gramine's has neither dumps nor debuggers of its own, and so no such call.
        Ok(()) | Err(nix::errno::Errno::ENOSYS) => {}
        Err(e) => return Err(e).context("cannot turn core dumps off"),
    }
    Ok(())
}

//! What a process that holds keys asks of the operating system.

use nix::sys::resource::{Resource, setrlimit};

use crate::error::{KeysError, unspecified};

/// No core dumps of this process: neither by the limit of the shell nor, on Linux, by a pipe that the kernel feeds, and no
/// other process of this user may attach to it or read its memory.
///
/// # Errors
/// If the operating system refuses.
pub fn forbid_core_dumps() -> Result<(), KeysError> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(unspecified("cannot forbid core dumps"))?;
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(false).map_err(unspecified("cannot forbid core dumps"))?;
    Ok(())
}

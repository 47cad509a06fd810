//! One kernel for a whole process, so that tests of protocols run on every instruction set: feature `force`, for tests only.

use std::sync::{LazyLock, RwLock};

use super::Kernel;
use crate::Ring;

/// Name of the kernel to take; at first what `PRIVET_KERNEL` says.
static FORCED: LazyLock<RwLock<Option<String>>> =
    LazyLock::new(|| RwLock::new(std::env::var("PRIVET_KERNEL").ok()));

impl Kernel {
    /// From now on [`Kernel::best`] returns the kernel of this name in the whole process, and panics where that is not available
    /// for a ring; `None` undoes that. The variable `PRIVET_KERNEL` does the same for a new process.
    pub fn force(name: Option<&str>) {
        *FORCED.write().expect("nobody panics with it") = name.map(String::from);
    }
}

pub(super) fn forced(ring: Ring) -> Option<Kernel> {
    let forced = FORCED.read().expect("nobody panics with it").clone()?;
    let available = Kernel::available(ring);
    match available.iter().find(|kernel| kernel.name() == forced) {
        Some(kernel) => Some(*kernel),
        None => {
            let names: Vec<_> = available.iter().map(|kernel| kernel.name()).collect();
            panic!("no kernel {forced} for {} bits on this CPU, only {}", ring.bits(), names.join(", "))
        }
    }
}

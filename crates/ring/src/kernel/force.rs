//! One kernel for a whole process, so that tests of protocols run on every instruction set: feature `force`, for tests only.

use std::sync::{LazyLock, PoisonError, RwLock};

use super::Kernel;
use crate::Ring;

/// Name of the kernel to take; at first what `PRIVET_KERNEL` says.
static FORCED: LazyLock<RwLock<Option<String>>> =
    LazyLock::new(|| RwLock::new(std::env::var("PRIVET_KERNEL").ok()));

impl Kernel {
    /// From now on [`Kernel::best`] returns the kernel of this name in the whole process wherever the ring allows, and panics
    /// where this CPU has no such kernel; `None` undoes that. The variable `PRIVET_KERNEL` does the same for a new process.
    pub fn force(name: Option<&str>) {
        *FORCED.write().unwrap_or_else(PoisonError::into_inner) = name.map(String::from);
    }
}

pub(super) fn forced(ring: Ring) -> Option<Kernel> {
    let forced = FORCED.read().unwrap_or_else(PoisonError::into_inner).clone()?;
    let named = |ring: Ring| Kernel::available(ring).into_iter().find(|kernel| kernel.name() == forced);
    let narrowest = Ring::new(Ring::MIN_BITS).expect("the narrowest ring is one");
    assert!(named(narrowest).is_some(), "no kernel {forced} here, only {:?}", Kernel::available(narrowest));
    named(ring)
}

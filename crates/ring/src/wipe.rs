//! An allocator that wipes what is freed, once it is told to: for programs that hold others' models in their heap.
//!
//! Activations, small constants of a graph and copies that a vector leaves behind where it grows are in ordinary memory. Wiping
//! costs a pass over everything that is freed, so it is off until a program turns it on; then it stays on. What is on stacks, in
//! registers, or in memory of C libraries is not wiped.
//!
//! It is here because an allocator takes `unsafe`, which no other crate has.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

use zeroizing_alloc::ZeroAlloc;

static WIPES: AtomicBool = AtomicBool::new(false);

/// From now on the process wipes all memory that it frees, if [`WipingAllocator`] is its allocator.
pub fn wipe_freed_memory() {
    WIPES.store(true, Ordering::Relaxed);
}

/// The system's allocator; see [`wipe_freed_memory`].
#[derive(Debug, Clone, Copy, Default)]
pub struct WipingAllocator;

const WIPING: ZeroAlloc<System> = ZeroAlloc(System);

// SAFETY: all memory comes from `System` and goes back to it, with the layouts that callers give; `ZeroAlloc` writes zeros to
// the bytes of a layout before that, and its `realloc` copies to a new allocation.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's obligations are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if WIPES.load(Ordering::Relaxed) {
            // SAFETY: as above; the allocation has the bytes of its layout.
            unsafe { WIPING.dealloc(pointer, layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if WIPES.load(Ordering::Relaxed) {
            // SAFETY: as above.
            unsafe { WIPING.realloc(pointer, layout, size) }
        } else {
            // SAFETY: as above.
            unsafe { System.realloc(pointer, layout, size) }
        }
    }
}

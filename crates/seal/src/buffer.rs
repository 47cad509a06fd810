//! Memory for what has been opened: wiped, kept out of core dumps, and locked where that is asked for.

use std::io;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;
use zeroize::Zeroize;

use crate::SealError;

/// Whether memory may be written to a swap device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Swap {
    /// The system may swap it out, as any other memory.
    #[default]
    Allowed,
    /// It is locked into memory (mlock). `ulimit -l` bounds how much of it there can be.
    Locked,
}

/// Pages of its own for secret bytes. Wiped when dropped; left out of core dumps on Linux. No `Debug`, no `Clone`.
pub struct SecretBuffer {
    pages: MmapMut,
    len: usize,
}

impl SecretBuffer {
    /// So many bytes, all zero.
    ///
    /// # Errors
    /// If the system has no such memory, or refuses to lock it.
    pub fn new(len: usize, swap: Swap) -> Result<SecretBuffer, SealError> {
        let fail = |source: io::Error| SealError::Memory { bytes: len, locked: swap == Swap::Locked, source };
        // Whole words, for the wiping; a mapping is never empty.
        let pages = MmapMut::map_anon(len.max(1).next_multiple_of(8)).map_err(fail)?;
        #[cfg(target_os = "linux")]
        pages.advise(memmap2::Advice::DontDump).map_err(fail)?;
        if swap == Swap::Locked {
            pages.lock().map_err(fail)?;
        }
        Ok(SecretBuffer { pages, len })
    }

    /// Forgets, and wipes, all but the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self[len..].zeroize();
        self.len = len;
    }
}

impl Deref for SecretBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.pages[..self.len]
    }
}

impl DerefMut for SecretBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.pages[..self.len]
    }
}

impl Drop for SecretBuffer {
    fn drop(&mut self) {
        // Words, because volatile writes are not merged: eight times faster than bytes.
        bytemuck::cast_slice_mut::<u8, u64>(&mut self.pages[..]).zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_not_impl_any!(SecretBuffer: std::fmt::Debug, Clone);

    #[test]
    fn buffers_have_their_length_and_lock() {
        for len in [0, 1, 4095, 4097] {
            let mut buffer = SecretBuffer::new(len, Swap::Locked).unwrap();
            assert_eq!(buffer.len(), len);
            buffer.fill(7);
            assert!(buffer.iter().all(|&b| b == 7));
        }
    }
}

//! Reads a sealed tensor in order, on a thread that is a few chunks ahead of who computes with it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use privet_seal::{OpenedModel, ReadAt, SealError, SecretBuffer, Swap};

use crate::SplitError;

/// Bytes that are opened ahead; two chunks at least.
pub(crate) const AHEAD_BYTES: u64 = 1 << 20;

/// Of the thread, which calls little.
const STACK: usize = 256 << 10;

/// Chunks that are opened ahead.
fn chunks_ahead(chunk_bytes: u64) -> u64 {
    (AHEAD_BYTES / chunk_bytes).max(2)
}

/// Bytes that reading ahead takes with chunks of this size.
pub(crate) fn workspace(chunk_bytes: u64) -> u64 {
    // Pages behind a chunk hold its tag.
    const TAG_PAGE: u64 = 4096;
    (chunks_ahead(chunk_bytes) + 1) * (chunk_bytes + TAG_PAGE)
}

/// A chunk and its bytes.
type Opened = Result<(SecretBuffer, usize), SealError>;

/// A tensor that is read in order.
pub(crate) struct ReadAhead {
    entry: usize,
    /// Where `current` begins in the tensor.
    start: u64,
    current: Option<(SecretBuffer, usize)>,
    /// Chunks come in order ..
    filled: Option<Receiver<Opened>>,
    /// .. and their buffers go back.
    empty: SyncSender<SecretBuffer>,
    thread: Option<JoinHandle<()>>,
}

impl ReadAhead {
    /// Begins with the chunk of byte `at` of an entry.
    pub(crate) fn start<S: ReadAt + Send + Sync + 'static>(
        model: &Arc<OpenedModel<S>>,
        entry: usize,
        at: u64,
        swap: Swap,
    ) -> Result<Self, SplitError> {
        let chunk_bytes = model.header().chunk_bytes();
        let (first, count) = (at / chunk_bytes, model.chunks(entry));
        let buffers = chunks_ahead(chunk_bytes) as usize + 1;
        let (empty, to_fill) = sync_channel(buffers);
        // One chunk is with the reader, and one is being opened.
        let (send, filled) = sync_channel(buffers);
        for _ in 0..buffers.min((count - first.min(count)) as usize) {
            let buffer = model.buffer_of(entry, swap)?;
            // There is room for all.
            let _ = empty.send(buffer);
        }
        let model = Arc::clone(model);
        let work = move || {
            for chunk in first..count {
                let Ok(mut buffer): Result<SecretBuffer, _> = to_fill.recv() else { return };
                let opened = model.chunk(entry, chunk, &mut buffer).map(<[u8]>::len);
                let failed = opened.is_err();
                if send.send(opened.map(|len| (buffer, len))).is_err() || failed {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("privet-ahead".to_owned()).stack_size(STACK).spawn(work);
        let thread = thread.map_err(|e| SplitError::Kernel(format!("a thread does not start: {e}")))?;
        Ok(Self {
            entry,
            start: first * chunk_bytes,
            current: None,
            filled: Some(filled),
            empty,
            thread: Some(thread),
        })
    }

    /// Whether byte `at` of the entry comes next, or is in the chunk that came last.
    pub(crate) fn reaches(&self, entry: usize, at: u64) -> bool {
        let end = self.start + self.current.as_ref().map_or(0, |(_, len)| *len as u64);
        self.entry == entry && (self.start..=end).contains(&at)
    }

    /// Fills `into` from byte `at` on, which [`ReadAhead::reaches`].
    pub(crate) fn read(&mut self, mut at: u64, mut into: &mut [u8]) -> Result<(), SplitError> {
        while !into.is_empty() {
            let end = self.start + self.current.as_ref().map_or(0, |(_, len)| *len as u64);
            if self.current.is_none() || at == end {
                self.next(end)?;
            }
            let Some((buffer, len)) = &self.current else { continue };
            let chunk = &buffer[(at - self.start) as usize..*len];
            let (now, rest) = into.split_at_mut(chunk.len().min(into.len()));
            now.copy_from_slice(&chunk[..now.len()]);
            at += now.len() as u64;
            into = rest;
        }
        Ok(())
    }

    fn next(&mut self, start: u64) -> Result<(), SplitError> {
        if let Some((buffer, _)) = self.current.take() {
            // Whoever fills buffers may be done.
            let _ = self.empty.send(buffer);
        }
        let filled = self.filled.as_ref().and_then(|filled| filled.recv().ok());
        let ended = || SplitError::Kernel("a sealed tensor ended early".to_owned());
        let (buffer, len) = filled.ok_or_else(ended)??;
        self.start = start;
        self.current = Some((buffer, len));
        Ok(())
    }
}

impl Drop for ReadAhead {
    /// Waits until all buffers are wiped.
    fn drop(&mut self) {
        self.filled = None;
        self.current = None;
        // The thread may wait for a buffer: without a sender it gets none.
        self.empty = sync_channel(0).0;
        if let Some(thread) = self.thread.take() {
            // It does not panic, and could not be helped if it did.
            let _ = thread.join();
        }
    }
}

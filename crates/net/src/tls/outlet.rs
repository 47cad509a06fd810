//! Where bytes go out: frames, TLS, socket.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::socket::{MsgFlags, send};

use super::session::Session;
use crate::emulated::Line;
use crate::error::NetError;

/// Without waiting, and as std does without a signal.
#[cfg(any(target_os = "linux", target_os = "android"))]
const AT_ONCE: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const AT_ONCE: MsgFlags = MsgFlags::MSG_DONTWAIT;

/// The sending end of a connection. There is one, and who holds it encrypts and writes, so that records leave in the order of
/// their encryption: the caller with a small frame, or the writer.
pub(super) struct Outlet {
    socket: Arc<TcpStream>,
    /// What the connection is made as slow as.
    pub(super) line: Option<Line>,
    /// Encrypted, and from `written` on to be written.
    records: Vec<u8>,
    written: usize,
    /// Bytes of frames that they stand for.
    frames: usize,
}

impl Outlet {
    pub(super) fn new(socket: Arc<TcpStream>, line: Option<Line>) -> Outlet {
        Outlet { socket, line, records: Vec::new(), written: 0, frames: 0 }
    }

    /// Bytes of records that wait for the socket.
    pub(super) fn left(&self) -> usize {
        self.records.len() - self.written
    }

    /// Bytes of frames encrypted since [`Outlet::clear`].
    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    /// Encrypts a piece of a frame.
    pub(super) fn encrypt(&mut self, session: &Session, header: &[u8], piece: &[u8]) -> Result<(), NetError> {
        session.encrypt(header, piece)?;
        self.frames += header.len() + piece.len();
        Ok(())
    }

    /// Takes the records that TLS has ready.
    pub(super) fn collect(&mut self, session: &Session) -> Result<(), NetError> {
        session.collect(&mut self.records)
    }

    /// Writes as many bytes of records as the socket takes at once, at least one.
    pub(super) fn write_at_once(&mut self) -> io::Result<usize> {
        let count = send(self.socket.as_raw_fd(), &self.records[self.written..], AT_ONCE)?;
        self.written += count;
        Ok(count)
    }

    /// Writes some of the next `most` bytes of records, and waits until the socket takes them.
    pub(super) fn write(&mut self, most: usize) -> io::Result<usize> {
        let count = (&*self.socket).write(&self.records[self.written..][..most])?;
        self.written += count;
        Ok(count)
    }

    /// Forgets records that are written. How many bytes of frames they were.
    pub(super) fn clear(&mut self) -> usize {
        self.records.clear();
        self.written = 0;
        std::mem::take(&mut self.frames)
    }

    /// Tells the peer's system that nothing more comes.
    pub(super) fn end(&self) {
        // Fails only if the connection is down already.
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

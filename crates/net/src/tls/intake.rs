//! Where bytes come in: socket, TLS, frames.

use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};

use super::session::{BROKEN_OFF, Session};
use crate::error::NetError;
use crate::frame::{Assembler, Frame};

/// Bytes per system call.
const READ: usize = 256 << 10;

/// For this long a caller looks at the socket again and again before it sleeps: about twice what falling asleep and being
/// woken take on a virtual machine whose cores fall asleep as well. Whoever else can run does so in between.
const SOON: Duration = Duration::from_micros(100);

/// The receiving end of a connection. There is one, and who holds it reads: the caller that waits for a frame, or the reader.
pub(super) struct Intake {
    socket: Arc<TcpStream>,
    assembler: Assembler,
    buffer: Vec<u8>,
}

/// What a read has brought.
pub(super) struct Received {
    pub(super) bytes: usize,
    /// Frames that are complete now, and announced and received payload bytes of the next one.
    pub(super) frames: Vec<Frame>,
    pub(super) partial: Option<(usize, usize)>,
    /// TLS itself has something to send.
    pub(super) tls_pending: bool,
    /// Why nothing more will come.
    pub(super) end: Option<NetError>,
}

impl Intake {
    pub(super) fn new(socket: Arc<TcpStream>, session: &Session) -> Intake {
        Intake { socket, assembler: Assembler::new(session.peer.to_string()), buffer: vec![0; READ] }
    }

    /// Takes ciphertext that was read together with the handshake, and has been counted.
    pub(super) fn take(&mut self, session: &Session, ciphertext: &[u8]) -> Received {
        let decrypted = session.decrypt(ciphertext, &mut self.assembler);
        self.received(0, decrypted)
    }

    /// Reads once, and waits for it, at most for `patience`.
    pub(super) fn read(&mut self, session: &Session, patience: Duration) -> Received {
        let (bytes, decrypted) = match self.receive(patience) {
            Ok(None) => (0, (false, Ok(()))),
            Ok(Some(0)) => (0, (false, Err(self.cut(session.closed(BROKEN_OFF))))),
            Ok(Some(count)) => (count, session.decrypt(&self.buffer[..count], &mut self.assembler)),
            Err(e) => (0, (false, Err(self.cut(session.lost("receiving", &e.into()))))),
        };
        self.received(bytes, decrypted)
    }

    /// Takes no notice of anything from now on.
    pub(super) fn discard(&mut self) {
        self.assembler.discard();
    }

    fn received(&mut self, bytes: usize, (tls_pending, outcome): (bool, Result<(), NetError>)) -> Received {
        let frames = std::mem::take(&mut self.assembler.finished);
        Received { bytes, frames, partial: self.assembler.partial(), tls_pending, end: outcome.err() }
    }

    /// Why the stream ends here: inside a frame, or else as told.
    fn cut(&self, otherwise: NetError) -> NetError {
        self.assembler.cut().unwrap_or(otherwise)
    }

    /// The number of bytes that have arrived, 0 at their end; none if `patience` was over first, or a signal came.
    fn receive(&mut self, patience: Duration) -> nix::Result<Option<usize>> {
        let start = Instant::now();
        let mut slept = false;
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) if slept || patience.is_zero() => return Ok(None),
                Err(Errno::EAGAIN) if start.elapsed() < SOON => thread::yield_now(),
                Err(Errno::EAGAIN) => {
                    slept = true;
                    // Rounded up to whole milliseconds: a wait of no time would be none.
                    let timeout = PollTimeout::try_from(patience.saturating_add(Duration::from_millis(1)));
                    if !readable(&self.socket, timeout.unwrap_or(PollTimeout::MAX))? {
                        return Ok(None);
                    }
                }
                Err(Errno::EINTR) => return Ok(None),
                other => return other.map(Some),
            }
        }
    }
}

/// For who waits until there is something to read, without reading it.
pub(super) struct Arrivals(Arc<TcpStream>);

impl Arrivals {
    pub(super) fn new(socket: Arc<TcpStream>) -> Arrivals {
        Arrivals(socket)
    }

    /// Returns when bytes have arrived or the connection has ended, and now and then without.
    pub(super) fn wait(&self) {
        // What is wrong with the socket shows when it is read.
        let _ = readable(&self.0, PollTimeout::NONE);
    }
}

/// Whether there is something to read, the end included, before the time is over.
fn readable(socket: &TcpStream, timeout: PollTimeout) -> nix::Result<bool> {
    match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(e) => Err(e),
    }
}

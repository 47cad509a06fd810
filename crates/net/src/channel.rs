//! The channel that protocols are written against.

use std::fmt;
use std::time::Duration;

use crate::error::NetError;
use crate::fingerprint::Fingerprint;
use crate::frame::Frame;
use crate::kind::FrameKind;

/// Bytes queued by a sender before it waits, and read ahead by a receiver before it is asked. More lets a party run
/// further ahead of its peer; it costs memory, up to twice for each connection and direction.
pub(crate) const MAX_QUEUED: usize = 16 << 20;

/// A blocking, ordered, two-way connection to one peer. Every wait has a deadline.
///
/// Sending queues the frame and returns, so both sides may send before either receives. The queue is bounded: a side
/// that sends more than about 16 MiB while its peer does not receive waits, and after the deadline fails.
pub trait Channel: Send {
    /// Queues `frame` for the peer.
    ///
    /// # Errors
    /// The reason why the connection ended, or [`NetError::Timeout`] while the queue stays full.
    fn send(&mut self, frame: Frame) -> Result<(), NetError>;

    /// The next frame, of at most `max_len` payload bytes.
    ///
    /// # Errors
    /// [`NetError::TooLarge`] as soon as the peer announces more, [`NetError::Refused`] when the peer refuses the
    /// session, [`NetError::Timeout`], or the reason why the connection ended.
    fn recv(&mut self, max_len: usize) -> Result<Frame, NetError>;

    /// What went over this channel so far.
    fn traffic(&self) -> Traffic;

    /// Who is at the other end.
    fn peer(&self) -> &Peer;

    /// Sets how long each later wait may last without progress.
    fn set_deadline(&mut self, per_wait: Duration);

    /// Adds one to [`Traffic::rounds`]; for protocols that overlap rounds instead of calling [`Channel::exchange`].
    fn count_round(&mut self);

    /// Waits until everything sent has been handed to the operating system.
    ///
    /// # Errors
    /// As [`Channel::send`].
    fn flush(&mut self) -> Result<(), NetError>;

    /// Flushes, says goodbye, and gives the peer a moment to take what is under way. Nothing may be sent or received
    /// afterwards. Dropping a channel without this abandons queued frames, and the peer sees a broken connection.
    ///
    /// # Errors
    /// If frames could not be delivered.
    fn shutdown(&mut self) -> Result<(), NetError>;

    /// [`Channel::shutdown`], giving up the channel.
    ///
    /// # Errors
    /// If frames could not be delivered.
    fn close(mut self: Box<Self>) -> Result<(), NetError> {
        self.shutdown()
    }

    /// One round: sends `frame`, receives the peer's, counts.
    ///
    /// # Errors
    /// As [`Channel::send`] and [`Channel::recv`].
    fn exchange(&mut self, frame: Frame, max_len: usize) -> Result<Frame, NetError> {
        self.send(frame)?;
        let received = self.recv(max_len)?;
        self.count_round();
        Ok(received)
    }

    /// The payload of the next frame, which has to be of `kind`.
    ///
    /// # Errors
    /// As [`Channel::recv`], and [`NetError::UnexpectedKind`].
    fn recv_kind(&mut self, kind: FrameKind, max_len: usize) -> Result<Vec<u8>, NetError> {
        let frame = self.recv(max_len)?;
        if frame.kind == kind {
            return Ok(frame.payload);
        }
        Err(NetError::UnexpectedKind { peer: self.peer().to_string(), expected: kind, found: frame.kind })
    }
}

impl<C: Channel + ?Sized> Channel for Box<C> {
    fn send(&mut self, frame: Frame) -> Result<(), NetError> {
        (**self).send(frame)
    }
    fn recv(&mut self, max_len: usize) -> Result<Frame, NetError> {
        (**self).recv(max_len)
    }
    fn traffic(&self) -> Traffic {
        (**self).traffic()
    }
    fn peer(&self) -> &Peer {
        (**self).peer()
    }
    fn set_deadline(&mut self, per_wait: Duration) {
        (**self).set_deadline(per_wait);
    }
    fn count_round(&mut self) {
        (**self).count_round();
    }
    fn flush(&mut self) -> Result<(), NetError> {
        (**self).flush()
    }
    fn shutdown(&mut self) -> Result<(), NetError> {
        (**self).shutdown()
    }
}

/// What went over a channel. A frame counts as header plus payload, when it is queued or taken by the caller; `wire`
/// counts what the socket carried, that is TLS records and handshake as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Header and payload bytes sent.
    pub bytes_sent: u64,
    /// Header and payload bytes received.
    pub bytes_received: u64,
    /// Frames sent.
    pub frames_sent: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Rounds, counted by [`Channel::exchange`] and [`Channel::count_round`].
    pub rounds: u64,
    /// Bytes written to the socket.
    pub wire_sent: u64,
    /// Bytes read from the socket.
    pub wire_received: u64,
}

impl Traffic {
    /// What was added since `earlier`, a reading of the same channel.
    pub fn since(self, earlier: Traffic) -> Traffic {
        Traffic {
            bytes_sent: self.bytes_sent - earlier.bytes_sent,
            bytes_received: self.bytes_received - earlier.bytes_received,
            frames_sent: self.frames_sent - earlier.frames_sent,
            frames_received: self.frames_received - earlier.frames_received,
            rounds: self.rounds - earlier.rounds,
            wire_sent: self.wire_sent - earlier.wire_sent,
            wire_received: self.wire_received - earlier.wire_received,
        }
    }

    pub(crate) fn count_sent(&mut self, frame: &Frame) {
        self.bytes_sent += frame.wire_bytes();
        self.frames_sent += 1;
    }

    pub(crate) fn count_received(&mut self, frame: &Frame) {
        self.bytes_received += frame.wire_bytes();
        self.frames_received += 1;
    }
}

/// Who is at the other end of a channel, as authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The name its certificate is pinned under.
    pub name: String,
    /// SHA-256 of its certificate.
    pub fingerprint: Fingerprint,
    /// Remote address.
    pub address: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ({})", self.name, self.address, self.fingerprint.short())
    }
}

/// How long a party waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For the peer to accept the TCP connection; until then it is tried again.
    pub connect: Duration,
    /// For the whole TLS handshake.
    pub handshake: Duration,
    /// For each later wait, without progress.
    pub wait: Duration,
}

impl Default for Deadlines {
    /// 30 s to connect (parties are started by hand), 10 s of handshake, 120 s a wait (the peer may be computing).
    fn default() -> Deadlines {
        Deadlines {
            connect: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
            wait: Duration::from_secs(120),
        }
    }
}

//! What the caller's thread, the reader and the writer of one connection share.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::Connection;

use crate::channel::{MAX_QUEUED, Peer};
use crate::emulated::{Emulated, Line};
use crate::error::NetError;
use crate::frame::{Frame, HEADER_BYTES};
use crate::handshake;
use crate::kind::FrameKind;

/// Bytes read ahead before the caller asks for them. Less stops the peer while we compute.
const MAX_READ_AHEAD: usize = MAX_QUEUED;

/// A wait goes on while each deadline sees this many more bytes: a large frame may take long, a trickle may not.
const MIN_PROGRESS: u64 = 64 << 10;

/// A frame waiting for the writer.
pub(super) struct Outbound {
    pub(super) header: [u8; HEADER_BYTES],
    pub(super) payload: Vec<u8>,
    pub(super) queued: Instant,
}

/// What the threads of one connection share. The two locks are never held together, and neither during socket I/O.
pub(super) struct Shared {
    pub(super) connection: Mutex<Connection>,
    /// Our goodbye is said: TLS takes nothing more. Set under the lock of the connection.
    pub(super) said_goodbye: AtomicBool,
    state: Mutex<State>,
    /// For the caller: frames, or the end.
    pub(super) arrived: Condvar,
    /// For the reader: the caller took or wants a frame.
    pub(super) wanted: Condvar,
    /// For the writer.
    pub(super) work: Condvar,
    /// For the caller: the queue got shorter.
    pub(super) written: Condvar,
    pub(super) peer: Peer,
    /// What the connection is made as slow as.
    link: Option<Emulated>,
}

/// The state of both directions.
#[derive(Default)]
pub(super) struct State {
    /// Received frames that nobody has taken, and the memory they take.
    pub(super) frames: VecDeque<Frame>,
    pub(super) buffered: usize,
    /// Announced and received payload bytes of the frame under way.
    pub(super) partial: Option<(usize, usize)>,
    /// The limit of the caller waiting for a frame.
    pub(super) wanted: Option<usize>,
    /// Why nothing more will be received.
    pub(super) ended: Option<NetError>,
    /// Frames for the writer, and bytes not yet written.
    pub(super) queue: VecDeque<Outbound>,
    pub(super) queued: usize,
    /// TLS itself has something to send.
    pub(super) tls_pending: bool,
    /// Why nothing more can be sent.
    pub(super) write_failed: Option<NetError>,
    /// Say goodbye when the queue is empty.
    pub(super) closing: bool,
    /// The writer has left.
    pub(super) writer_done: bool,
    /// Stop at once.
    pub(super) abandoned: bool,
    pub(super) wire_sent: u64,
    pub(super) wire_received: u64,
    /// Deadline of each wait.
    pub(super) wait: Duration,
}

impl State {
    /// Why sending is pointless. What the reader found out explains more than a broken pipe.
    pub(super) fn send_failed(&self) -> Option<NetError> {
        self.ended.clone().or_else(|| self.write_failed.clone())
    }

    /// Whether the reader should go on reading.
    pub(super) fn has_room(&self) -> bool {
        let (announced, received) = self.partial.unwrap_or_default();
        let asked_for = self.frames.is_empty() && self.wanted.is_some_and(|limit| announced <= limit);
        asked_for || self.closing || self.abandoned || self.buffered + received < MAX_READ_AHEAD
    }
}

impl Shared {
    /// Of a connection whose handshake is complete; `counted` are the bytes sent and received so far.
    pub(super) fn new(
        connection: Connection,
        peer: Peer,
        wait: Duration,
        counted: (u64, u64),
        link: Option<Emulated>,
    ) -> Shared {
        let state = State { wire_sent: counted.0, wire_received: counted.1, ..State::default() };
        let shared = Shared {
            connection: Mutex::new(connection),
            said_goodbye: AtomicBool::new(false),
            state: Mutex::new(state),
            arrived: Condvar::new(),
            wanted: Condvar::new(),
            work: Condvar::new(),
            written: Condvar::new(),
            peer,
            link,
        };
        shared.set_wait(wait);
        shared
    }

    /// Sets the deadline of each wait; on an emulated link it is longer by what the link takes.
    pub(super) fn set_wait(&self, wait: Duration) {
        self.lock().wait = wait.saturating_add(self.allowance());
    }

    /// How much longer than without it an answer, or progress, takes over an emulated link.
    pub(super) fn allowance(&self) -> Duration {
        self.link.map_or(Duration::ZERO, |link| link.allowance(MIN_PROGRESS as usize))
    }

    /// The emulated line for what is sent, if there is one.
    pub(super) fn line(&self) -> Option<Line> {
        self.link.map(Line::new)
    }

    /// Lets the writer wait for a moment. Whether the connection is still wanted then.
    pub(super) fn pause_until(&self, moment: Instant) -> bool {
        let mut state = self.lock();
        while !state.abandoned {
            let Some(left) = moment.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                return true;
            };
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the receiving direction, and tells everyone who waits.
    pub(super) fn end(&self, error: NetError) {
        self.lock().ended.get_or_insert(error);
        self.arrived.notify_all();
        self.written.notify_all();
    }

    /// [`Shared::end`] after a refusal: nothing we have queued matters, and the peer waits for our goodbye.
    pub(super) fn leave(&self, refusal: NetError) {
        let mut state = self.lock();
        state.queue.clear();
        state.closing = true;
        drop(state);
        self.work.notify_one();
        self.end(refusal);
    }

    /// The peer has gone.
    pub(super) fn closed(&self, detail: &str) -> NetError {
        NetError::Closed { peer: self.peer.to_string(), detail: detail.to_owned() }
    }

    /// Takes what a received frame says about the session, if it says anything.
    pub(super) fn refusal(&self, frame: &Frame) -> Option<NetError> {
        (frame.kind == FrameKind::REFUSED).then(|| handshake::refused(&frame.payload, self.peer.to_string()))
    }

    /// Waits on `condition` until `check` gives a verdict, at most the deadline without progress.
    pub(super) fn wait(
        &self,
        condition: &Condvar,
        doing: &str,
        check: impl Fn(&State) -> Option<Result<(), NetError>>,
    ) -> Result<MutexGuard<'_, State>, NetError> {
        let mut state = self.lock();
        let mut start = Instant::now();
        let mut seen = state.wire_received + state.wire_sent;
        loop {
            if let Some(verdict) = check(&state) {
                return verdict.map(|()| state);
            }
            let Some(left) = state.wait.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else {
                let now = state.wire_received + state.wire_sent;
                if now - seen < MIN_PROGRESS {
                    return Err(NetError::Timeout {
                        what: format!("{doing} {}", self.peer),
                        waited: start.elapsed(),
                    });
                }
                (start, seen) = (Instant::now(), now);
                continue;
            };
            state = condition.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Memory that a received frame takes, so that a flood of empty frames is bounded as well.
pub(super) fn weight(frame: &Frame) -> usize {
    size_of::<Frame>() + frame.payload.len()
}

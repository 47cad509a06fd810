//! What the caller's thread, the reader and the writer of one connection share.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::intake::{Intake, Received};
use super::outlet::Outlet;
use super::session::Session;
use crate::channel::MAX_QUEUED;
use crate::emulated::{Emulated, Line};
use crate::error::NetError;
use crate::frame::{Frame, HEADER_BYTES};
use crate::handshake;
use crate::kind::FrameKind;

/// Bytes read ahead before the caller asks for them. Less stops the peer while we compute.
const MAX_READ_AHEAD: usize = MAX_QUEUED;

/// A wait goes on while each deadline sees this many more bytes: a large frame may take long, a trickle may not.
const MIN_PROGRESS: u64 = 64 << 10;

/// Frames of at most this many bytes are written by the caller: encrypting and copying one takes less than waking the writer, or
/// not much more. Larger ones are encrypted while the caller computes.
const SMALL: usize = 96 << 10;

/// How long the reader leaves the socket to a caller that has just received: while parties answer each other at once, no bytes
/// wake it. A peer's bytes wait that long in the system's buffers while the caller computes.
pub(super) const LEFT_TO_CALLER: Duration = Duration::from_millis(5);

/// How long after that a caller that reads is taken to come again soon: the reader looks again by itself then, and the caller need
/// not wake it for each frame.
const BUSY: Duration = Duration::from_millis(50);

/// A frame waiting for the writer.
pub(super) struct Outbound {
    pub(super) header: [u8; HEADER_BYTES],
    pub(super) payload: Vec<u8>,
    pub(super) queued: Instant,
}

/// What the threads of one connection share. Its lock and the one of TLS are never held together, and neither while waiting for
/// the socket. The two ends of the socket are passed on in the state: what is not there is in use.
pub(super) struct Shared {
    pub(super) session: Session,
    state: Mutex<State>,
    /// For the caller: frames, or the end.
    pub(super) arrived: Condvar,
    /// For the reader: the caller took or wants a frame, or has left the socket.
    pub(super) wanted: Condvar,
    /// For the writer.
    pub(super) work: Condvar,
    /// For the caller: the queue got shorter.
    pub(super) written: Condvar,
    /// What the connection is made as slow as.
    link: Option<Emulated>,
}

/// The state of both directions.
#[derive(Default)]
pub(super) struct State {
    /// For who wants to read; the reader has to wait until then.
    pub(super) intake: Option<Intake>,
    pub(super) read_from: Option<Instant>,
    /// The reader waits to be told.
    pub(super) reader_parked: bool,
    /// For who wants to write.
    pub(super) outlet: Option<Outlet>,
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

    /// Keeps the reader from the socket for a moment.
    pub(super) fn leave_to_caller(&mut self) {
        self.read_from = Some(Instant::now() + LEFT_TO_CALLER);
    }

    /// Whether a caller has just received, and reads on.
    pub(super) fn is_busy(&self) -> bool {
        let recently = self.read_from.is_some_and(|from| from + BUSY > Instant::now());
        self.intake.is_none() && self.wanted.is_some() && recently
    }

    /// For the reader, which has seen that bytes arrived.
    pub(super) fn intake_for_reader(&mut self) -> Option<Intake> {
        let may_read = self.has_room() && self.read_from.is_none_or(|from| from <= Instant::now());
        self.intake.take_if(|_| may_read)
    }

    /// What to write a frame with at once, if it is small and its turn.
    pub(super) fn outlet_for(&mut self, frame: &Outbound) -> Option<Outlet> {
        let is_small = HEADER_BYTES + frame.payload.len() <= SMALL;
        let is_next = self.queue.is_empty() && !self.closing && self.write_failed.is_none();
        self.outlet.take_if(|outlet| is_small && is_next && outlet.line.is_none() && outlet.left() == 0)
    }
}

impl Shared {
    /// `counted` are the bytes sent and received so far.
    pub(super) fn new(
        session: Session,
        wait: Duration,
        counted: (u64, u64),
        link: Option<Emulated>,
    ) -> Shared {
        let state = State { wire_sent: counted.0, wire_received: counted.1, ..State::default() };
        let shared = Shared {
            session,
            state: Mutex::new(state),
            arrived: Condvar::new(),
            wanted: Condvar::new(),
            work: Condvar::new(),
            written: Condvar::new(),
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

    pub(super) fn is_emulated(&self) -> bool {
        self.link.is_some()
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
    fn end(&self, error: NetError) {
        self.lock().ended.get_or_insert(error);
        self.arrived.notify_all();
        self.written.notify_all();
    }

    /// [`Shared::end`] after a refusal: nothing we have queued matters, and the peer waits for our goodbye.
    fn leave(&self, refusal: NetError) {
        let mut state = self.lock();
        state.queue.clear();
        state.closing = true;
        drop(state);
        self.work.notify_one();
        self.end(refusal);
    }

    /// A write has seen no progress for the deadline.
    pub(super) fn stalled(&self, doing: &str) -> NetError {
        let what = format!("{doing}, which makes no progress, with {}", self.session.peer);
        NetError::Timeout { what, waited: self.lock().wait }
    }

    /// Hands on what was received.
    pub(super) fn publish(&self, intake: &mut Intake, received: Received) {
        let mut refusal = None;
        let mut state = self.lock();
        for frame in received.frames {
            refusal = refusal.or_else(|| self.refusal(&frame));
            if refusal.is_none() && !state.closing {
                state.buffered += weight(&frame);
                state.frames.push_back(frame);
            }
        }
        state.wire_received += received.bytes as u64;
        state.partial = received.partial;
        state.tls_pending |= received.tls_pending;
        if state.closing {
            intake.discard();
        }
        drop(state);
        if received.tls_pending {
            self.work.notify_one();
        }
        match (refusal, received.end) {
            (Some(refusal), _) => self.leave(refusal),
            (None, Some(end)) => self.end(end),
            (None, None) => {}
        }
    }

    /// Gives the outlet back after a write, and leaves to the writer what there is left to do.
    pub(super) fn put_back(&self, outlet: Outlet, outcome: Result<(), NetError>) {
        let mut state = self.lock();
        let is_done = outlet.left() == 0 && outcome.is_ok() && !state.tls_pending && !state.closing;
        state.outlet = Some(outlet);
        state.write_failed = state.write_failed.take().or(outcome.err());
        drop(state);
        if !is_done {
            self.work.notify_one();
        }
    }

    /// Takes what a received frame says about the session, if it says anything.
    fn refusal(&self, frame: &Frame) -> Option<NetError> {
        (frame.kind == FrameKind::REFUSED)
            .then(|| handshake::refused(&frame.payload, self.session.peer.to_string()))
    }

    /// Waits on `condition` until `check` gives a verdict, at most the deadline without progress.
    pub(super) fn wait(
        &self,
        condition: &Condvar,
        doing: &str,
        check: impl Fn(&State) -> Option<Result<(), NetError>>,
    ) -> Result<MutexGuard<'_, State>, NetError> {
        self.wait_by(doing, check, |mut state, left| {
            // The peer may have to get rid of something first.
            state.read_from = None;
            self.wanted.notify_one();
            condition.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
        })
    }

    /// [`Shared::wait`] for what the peer sends: reads it, unless the reader is in the socket already.
    pub(super) fn wait_reading(
        &self,
        doing: &str,
        check: impl Fn(&State) -> Option<Result<(), NetError>>,
    ) -> Result<MutexGuard<'_, State>, NetError> {
        self.wait_by(doing, check, |mut state, left| {
            let Some(mut intake) = state.intake.take() else {
                return self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            };
            drop(state);
            let received = intake.read(&self.session, left);
            self.publish(&mut intake, received);
            state = self.lock();
            state.intake = Some(intake);
            state
        })
    }

    fn wait_by<'s>(
        &'s self,
        doing: &str,
        check: impl Fn(&State) -> Option<Result<(), NetError>>,
        pause: impl Fn(MutexGuard<'s, State>, Duration) -> MutexGuard<'s, State>,
    ) -> Result<MutexGuard<'s, State>, NetError> {
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
                        what: format!("{doing} {}", self.session.peer),
                        waited: start.elapsed(),
                    });
                }
                (start, seen) = (Instant::now(), now);
                continue;
            };
            state = pause(state, left);
        }
    }
}

/// Memory that a received frame takes, so that a flood of empty frames is bounded as well.
pub(super) fn weight(frame: &Frame) -> usize {
    size_of::<Frame>() + frame.payload.len()
}

//! A TLS connection as a [`Channel`]: what the caller's thread does.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::Connection;

use super::intake::{Arrivals, Intake};
use super::outlet::Outlet;
use super::pump;
use super::session::Session;
use super::shared::{Outbound, Shared, State, weight};
use crate::channel::{Channel, MAX_QUEUED, Peer, Traffic};
use crate::emulated::Emulated;
use crate::error::NetError;
use crate::frame::{Frame, HEADER_BYTES, Header};

/// How long [`Channel::shutdown`] waits for the peer to close as well, once everything is sent.
const LINGER: Duration = Duration::from_secs(5);

/// One end of a TLS connection.
pub struct TlsChannel {
    shared: Arc<Shared>,
    socket: Arc<TcpStream>,
    threads: Vec<JoinHandle<()>>,
    traffic: Traffic,
    next_sent: u32,
}

/// Starts the threads of a connection whose handshake is complete. `unread` is ciphertext after the handshake,
/// `counted` the bytes sent and received so far. What is sent is made as slow as on `link`.
pub(super) fn start(
    socket: TcpStream,
    connection: Connection,
    unread: Vec<u8>,
    peer: Peer,
    wait: Duration,
    counted: (u64, u64),
    link: Option<Emulated>,
) -> Result<TlsChannel, NetError> {
    let shown = peer.to_string();
    let fail = |e: std::io::Error| NetError::Io {
        peer: shown.clone(),
        doing: "starting the connection's threads",
        detail: e.to_string(),
    };
    socket.set_write_timeout(Some(at_least_a_moment(wait))).map_err(fail)?;
    let socket = Arc::new(socket);
    let arrivals = Arrivals::new(socket.clone());
    let shared = Arc::new(Shared::new(Session::new(connection, peer), wait, counted, link));
    let mut intake = Intake::new(socket.clone(), &shared.session);
    let received = intake.take(&shared.session, &unread);
    shared.publish(&mut intake, received);
    {
        let mut state = shared.lock();
        state.intake = Some(intake);
        state.outlet = Some(Outlet::new(socket.clone(), shared.line()));
        state.leave_to_caller();
    }
    let mut channel = TlsChannel {
        shared: shared.clone(),
        socket,
        threads: Vec::new(),
        traffic: Traffic::default(),
        next_sent: 0,
    };
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        thread::Builder::new().name(name.to_owned()).spawn(run).map_err(fail)
    };
    let reader = shared.clone();
    channel.threads.push(spawn("privet-read", Box::new(move || pump::read(&reader, &arrivals)))?);
    channel.threads.push(spawn("privet-write", Box::new(move || pump::write(&shared)))?);
    Ok(channel)
}

impl Channel for TlsChannel {
    fn send(&mut self, frame: Frame) -> Result<(), NetError> {
        let header = Header::of(&frame, self.next_sent, &self.shared.session.peer.name)?;
        let shared = self.shared.clone();
        let mut state = shared.wait(&shared.written, "sending to", |state| {
            if let Some(error) = state.send_failed() {
                return Some(Err(error));
            }
            (state.queued < MAX_QUEUED).then_some(Ok(()))
        })?;
        self.next_sent = self.next_sent.wrapping_add(1);
        self.traffic.count_sent(&frame);
        state.queued += HEADER_BYTES + frame.payload.len();
        let outbound = Outbound { header: header.encode(), payload: frame.payload, queued: Instant::now() };
        let Some(mut outlet) = state.outlet_for(&outbound) else {
            state.queue.push_back(outbound);
            drop(state);
            shared.work.notify_one();
            return Ok(());
        };
        drop(state);
        // A failure is reported by the next call, as if the writer had met it: the peer may have said why.
        let outcome = pump::offer(&shared, &mut outlet, &outbound);
        shared.put_back(outlet, outcome);
        Ok(())
    }

    fn recv(&mut self, max_len: usize) -> Result<Frame, NetError> {
        let shared = self.shared.clone();
        let too_large = |announced| NetError::TooLarge {
            peer: shared.session.peer.to_string(),
            announced,
            limit: max_len,
        };
        shared.lock().wanted = Some(max_len);
        let outcome =
            shared.wait_reading("receiving from", |state| match (state.frames.front(), state.partial) {
                (Some(frame), _) if frame.payload.len() > max_len => {
                    Some(Err(too_large(frame.payload.len())))
                }
                (Some(_), _) => Some(Ok(())),
                (None, Some((announced, _))) if announced > max_len => Some(Err(too_large(announced))),
                (None, _) => state.ended.clone().map(Err),
            });
        let (mut state, failed) = match outcome {
            Ok(state) => (state, None),
            Err(error) => (shared.lock(), Some(error)),
        };
        let frame = if failed.is_none() { state.frames.pop_front() } else { None };
        state.buffered -= frame.as_ref().map_or(0, weight);
        Self::has_read(&shared, state);
        // The wait ended well because there is a frame.
        let frame = frame.ok_or_else(|| failed.unwrap_or_else(|| shared.session.closed(" (no frame)")))?;
        self.traffic.count_received(&frame);
        Ok(frame)
    }

    fn traffic(&self) -> Traffic {
        let state = self.shared.lock();
        Traffic { wire_sent: state.wire_sent, wire_received: state.wire_received, ..self.traffic }
    }

    fn peer(&self) -> &Peer {
        &self.shared.session.peer
    }

    fn set_deadline(&mut self, per_wait: Duration) {
        self.shared.set_wait(per_wait);
        // Only a closed socket refuses this, and then the next call says so.
        let _ = self.socket.set_write_timeout(Some(at_least_a_moment(per_wait)));
    }

    fn count_round(&mut self) {
        self.traffic.rounds += 1;
    }

    fn flush(&mut self) -> Result<(), NetError> {
        let shared = self.shared.clone();
        shared
            .wait(&shared.written, "flushing to", |state| {
                if state.queued == 0 {
                    return Some(Ok(()));
                }
                // A peer that has all it wanted may close before the writer has counted what it wrote: that is
                // no failure. If the peer did not take everything, the writer fails, or the deadline passes.
                let is_goodbye = matches!(state.ended, Some(NetError::Closed { .. }));
                let is_over = state.writer_done || state.write_failed.is_some();
                if is_goodbye && !is_over { None } else { state.send_failed().map(Err) }
            })
            .map(drop)
    }

    fn shutdown(&mut self) -> Result<(), NetError> {
        let shared = self.shared.clone();
        {
            let mut state = shared.lock();
            state.closing = true;
            // Whatever else arrives is of no interest, and must not fill our buffers.
            state.frames.clear();
            state.buffered = 0;
            state.read_from = None;
            shared.work.notify_one();
            shared.wanted.notify_one();
        }
        let finished = shared
            .wait(&shared.written, "closing the connection to", |state| {
                if state.writer_done && state.queued == 0 {
                    return Some(Ok(()));
                }
                state
                    .writer_done
                    .then(|| Err(state.send_failed().unwrap_or_else(|| shared.session.closed(""))))
            })
            .map(drop);
        if finished.is_ok() {
            let start = Instant::now();
            let mut state = shared.lock();
            let linger = (LINGER + self.shared.allowance()).min(state.wait);
            while state.ended.is_none() && start.elapsed() < linger {
                let left = linger.saturating_sub(start.elapsed());
                state = shared.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        self.abandon();
        finished
    }
}

impl TlsChannel {
    /// Waits until the peer has sent something, a part of a frame at least, and takes nothing: for who wants to know when.
    ///
    /// # Errors
    /// [`NetError::Timeout`], or the reason why the connection ended.
    pub fn wait_for_frame(&mut self) -> Result<(), NetError> {
        let shared = self.shared.clone();
        shared.lock().wanted = Some(0);
        let outcome = shared.wait_reading("waiting for a message of", |state| {
            let is_there = !state.frames.is_empty() || state.partial.is_some();
            if is_there { Some(Ok(())) } else { state.ended.clone().map(Err) }
        });
        let (state, outcome) = match outcome {
            Ok(state) => (state, Ok(())),
            Err(error) => (shared.lock(), Err(error)),
        };
        Self::has_read(&shared, state);
        outcome
    }

    /// The caller, who holds the state, has left the socket.
    fn has_read(shared: &Shared, mut state: MutexGuard<'_, State>) {
        state.wanted = None;
        state.leave_to_caller();
        let reader_waits = state.reader_parked;
        drop(state);
        if reader_waits {
            shared.wanted.notify_one();
        }
    }

    /// Stops both threads, whatever they are doing.
    fn abandon(&mut self) {
        self.shared.lock().abandoned = true;
        self.shared.work.notify_all();
        self.shared.wanted.notify_all();
        // Fails only if the connection is down already.
        let _ = self.socket.shutdown(Shutdown::Both);
        for thread in self.threads.drain(..) {
            // A panic there has been reported by the panic hook; the channel is over in any case.
            let _ = thread.join();
        }
    }
}

impl Drop for TlsChannel {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Socket timeouts of zero mean none at all.
fn at_least_a_moment(wait: Duration) -> Duration {
    wait.max(Duration::from_millis(1))
}

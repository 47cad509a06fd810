//! How frames get to the socket, and the two threads of a connection. These do what the caller's thread does not: read while
//! it computes, and write what is large or what the socket does not take at once.

use std::io::ErrorKind;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::intake::Arrivals;
use super::outlet::Outlet;
use super::session::BROKEN_OFF;
use super::shared::{LEFT_TO_CALLER, Outbound, Shared, State};
use crate::emulated;
use crate::error::NetError;
use crate::frame::HEADER_BYTES;

/// Bytes that are encrypted at a time, in a turn with the TLS lock, and written. Larger saves calls, smaller lets the other
/// direction in.
const CHUNK: usize = 256 << 10;

/// The reader, until the connection ends. It waits for bytes without the intake, so that a caller that comes meanwhile need
/// not wait for the reader.
pub(super) fn read(shared: &Shared, arrivals: &Arrivals) {
    let mut state = shared.lock();
    while !state.abandoned && state.ended.is_none() {
        let left =
            state.read_from.map_or(Duration::ZERO, |from| from.saturating_duration_since(Instant::now()));
        if state.is_busy() {
            state =
                shared.wanted.wait_timeout(state, LEFT_TO_CALLER).unwrap_or_else(PoisonError::into_inner).0;
        } else if state.intake.is_none() || !state.has_room() {
            // The caller reads, or has to take a frame first.
            state.reader_parked = true;
            state = shared.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.reader_parked = false;
        } else if !left.is_zero() {
            state = shared.wanted.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        } else {
            drop(state);
            arrivals.wait();
            state = shared.lock();
            if let Some(mut intake) = state.intake_for_reader() {
                drop(state);
                let received = intake.read(&shared.session, Duration::ZERO);
                shared.publish(&mut intake, received);
                state = shared.lock();
                state.intake = Some(intake);
                if state.wanted.is_some() {
                    // For its frame, or to read on itself.
                    shared.arrived.notify_one();
                }
            }
        }
    }
}

/// The writer, until the caller closes or the socket fails.
pub(super) fn write(shared: &Shared) {
    if shared.is_emulated() {
        emulated::wake_precisely();
    }
    while let Some((mut outlet, batch)) = next_batch(shared) {
        let outcome = write_batch(shared, &mut outlet, &batch);
        shared.put_back(outlet, outcome);
    }
    let mut state = shared.lock();
    let says_goodbye = state.closing && state.write_failed.is_none() && !state.abandoned;
    if let Some(mut outlet) = state.outlet.take_if(|_| says_goodbye) {
        drop(state);
        shared.session.say_goodbye();
        // The frames are out; a goodbye that cannot be delivered harms nobody.
        let _ = flush(shared, &mut outlet, Instant::now());
        outlet.end();
        state = shared.lock();
    }
    state.writer_done = true;
    drop(state);
    shared.written.notify_all();
}

/// Encrypts a small frame and writes as much of it as the socket takes at once; the rest stays in the outlet.
pub(super) fn offer(shared: &Shared, outlet: &mut Outlet, frame: &Outbound) -> Result<(), NetError> {
    outlet.encrypt(&shared.session, &frame.header, &frame.payload)?;
    outlet.collect(&shared.session)?;
    while outlet.left() > 0 {
        match outlet.write_at_once() {
            Ok(count) => shared.lock().wire_sent += count as u64,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(shared.session.lost("sending", &e)),
        }
    }
    shared.lock().queued -= outlet.clear();
    Ok(())
}

/// The next frames to write, about [`CHUNK`] bytes of them or one large one, and what to write them with; no frames if only
/// the outlet or TLS itself have something left. None when it is time to leave.
fn next_batch(shared: &Shared) -> Option<(Outlet, Vec<Outbound>)> {
    let mut state = shared.lock();
    loop {
        if state.abandoned || state.write_failed.is_some() {
            return None;
        }
        if let Some(outlet) = state.outlet.take() {
            let batch = dequeue(&mut state);
            if !batch.is_empty() || state.tls_pending || outlet.left() > 0 {
                state.tls_pending = false;
                return Some((outlet, batch));
            }
            state.outlet = Some(outlet);
            if state.closing {
                return None;
            }
        }
        state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

fn dequeue(state: &mut State) -> Vec<Outbound> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while bytes < CHUNK
        && let Some(frame) = state.queue.pop_front()
    {
        bytes += HEADER_BYTES + frame.payload.len();
        batch.push(frame);
    }
    batch
}

/// Encrypts and writes these frames, [`CHUNK`] bytes at a time, after what [`offer`] has left.
fn write_batch(shared: &Shared, outlet: &mut Outlet, batch: &[Outbound]) -> Result<(), NetError> {
    let mut ready = Instant::now();
    for frame in batch {
        ready = frame.queued;
        let mut header = &frame.header[..];
        let mut payload = &frame.payload[..];
        while !header.is_empty() || !payload.is_empty() {
            let piece;
            (piece, payload) = payload.split_at(payload.len().min(CHUNK - HEADER_BYTES));
            outlet.encrypt(&shared.session, header, piece)?;
            header = &[];
            if outlet.frames() >= CHUNK / 2 {
                flush(shared, outlet, ready)?;
            }
        }
        // On an emulated link a frame leaves when it was queued, not when a later one was.
        if outlet.line.is_some() {
            flush(shared, outlet, ready)?;
        }
    }
    flush(shared, outlet, ready)
}

/// Writes all records there are, ready since `ready`; on an emulated link when they have arrived.
fn flush(shared: &Shared, outlet: &mut Outlet, ready: Instant) -> Result<(), NetError> {
    outlet.collect(&shared.session)?;
    while outlet.left() > 0 {
        let mut run = outlet.left();
        if let Some(line) = &mut outlet.line {
            run = run.min(line.run());
            if !shared.pause_until(line.arrival(ready, Instant::now(), run)) {
                return Err(shared.session.closed(" (given up here)"));
            }
        }
        while run > 0 {
            match outlet.write(run) {
                Ok(0) => return Err(shared.session.closed(BROKEN_OFF)),
                Ok(count) => {
                    run -= count;
                    // Counted at once: callers take it for progress.
                    shared.lock().wire_sent += count as u64;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(shared.stalled("sending"));
                }
                Err(e) => return Err(shared.session.lost("sending", &e)),
            }
        }
    }
    shared.lock().queued -= outlet.clear();
    shared.written.notify_one();
    Ok(())
}

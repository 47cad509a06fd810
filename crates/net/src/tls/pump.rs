//! The two threads of a connection: one moves bytes from the socket to frames, one from frames to the socket.

use std::io::{BufRead, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use rustls::Connection;

use super::shared::{Outbound, Shared, weight};
use crate::emulated::{self, Line};
use crate::error::NetError;
use crate::frame::{Assembler, HEADER_BYTES};
use crate::text::printable;

/// Bytes per system call, and per turn with the TLS lock. Larger saves calls, smaller lets the other direction in.
const CHUNK: usize = 256 << 10;

/// How a connection ends that the peer did not close.
const BROKEN_OFF: &str = " without a goodbye: its process or the network failed";

/// The reader: socket, TLS, frames, until the connection ends.
pub(super) fn read(mut socket: TcpStream, shared: &Shared, unread: Vec<u8>) {
    let mut assembler = Assembler::new(shared.peer.to_string());
    let mut buffer = vec![0; CHUNK];
    let mut error = decrypt(shared, &unread, &mut assembler).err();
    drop(unread);
    loop {
        let refused = publish(shared, &mut assembler, error.is_none());
        if let Some(reason) = refused {
            return shared.leave(reason);
        }
        if let Some(reason) = error {
            return shared.end(reason);
        }
        error = match socket.read(&mut buffer) {
            Ok(0) => Some(assembler.cut().unwrap_or_else(|| shared.closed(BROKEN_OFF))),
            Ok(count) => {
                shared.lock().wire_received += count as u64;
                decrypt(shared, &buffer[..count], &mut assembler).err()
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => None,
            Err(e) => Some(assembler.cut().unwrap_or_else(|| lost(shared, "receiving", &e))),
        };
    }
}

/// The writer: frames, TLS, socket, until the caller closes or the socket fails.
pub(super) fn write(mut socket: TcpStream, shared: &Shared) {
    let mut records = Vec::with_capacity(CHUNK + CHUNK / 8);
    let mut line = shared.line();
    if line.is_some() {
        emulated::wake_precisely();
    }
    while let Some(batch) = next_batch(shared) {
        if let Err(error) = write_batch(&mut socket, shared, &batch, &mut records, &mut line) {
            shared.lock().write_failed = Some(error);
            break;
        }
    }
    let mut state = shared.lock();
    if state.closing && state.write_failed.is_none() && !state.abandoned {
        drop(state);
        let mut connection = tls(shared);
        shared.said_goodbye.store(true, Ordering::SeqCst);
        connection.send_close_notify();
        drop(connection);
        records.clear();
        if encrypted(shared, &mut records).is_ok() {
            // The frames are out; a goodbye that cannot be delivered harms nobody.
            let _ = put(&mut socket, shared, &records, Instant::now(), &mut line);
        }
        let _ = socket.shutdown(Shutdown::Write);
        state = shared.lock();
    }
    state.writer_done = true;
    drop(state);
    shared.written.notify_all();
}

/// Feeds ciphertext to TLS and its plaintext to the assembler.
fn decrypt(shared: &Shared, mut ciphertext: &[u8], assembler: &mut Assembler) -> Result<(), NetError> {
    let mut connection = tls(shared);
    if shared.said_goodbye.load(Ordering::SeqCst) {
        // Nobody waits for it. To TLS our goodbye was the last word: an alert about a damaged record would be a second one.
        return Ok(());
    }
    let outcome = loop {
        if let Err(end) = drain(shared, &mut connection, assembler) {
            break Err(end);
        }
        if ciphertext.is_empty() {
            break Ok(());
        }
        if let Err(e) = connection.read_tls(&mut ciphertext) {
            break Err(broken(shared, &e.to_string()));
        }
        if let Err(e) = connection.process_new_packets() {
            break Err(broken(shared, &e.to_string()));
        }
    };
    let tls_pending = connection.wants_write();
    drop(connection);
    if tls_pending {
        shared.lock().tls_pending = true;
        shared.work.notify_one();
    }
    outcome
}

/// Moves decrypted bytes to the assembler.
fn drain(shared: &Shared, connection: &mut Connection, assembler: &mut Assembler) -> Result<(), NetError> {
    let mut reader = connection.reader();
    loop {
        let taken = match reader.fill_buf() {
            Ok([]) => return Err(assembler.cut().unwrap_or_else(|| shared.closed(""))),
            Ok(plaintext) => {
                assembler.push(plaintext)?;
                plaintext.len()
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(broken(shared, &e.to_string())),
        };
        reader.consume(taken);
    }
}

/// Hands finished frames to the caller, and waits for room unless the connection is over. Returns the peer's refusal if
/// one is among the frames.
fn publish(shared: &Shared, assembler: &mut Assembler, wait: bool) -> Option<NetError> {
    let mut refusal = None;
    let mut state = shared.lock();
    let announced_before = state.partial.map(|(announced, _)| announced);
    let partial = assembler.partial();
    let news = !assembler.finished.is_empty() || announced_before != partial.map(|(announced, _)| announced);
    for frame in assembler.finished.drain(..) {
        refusal = refusal.or_else(|| shared.refusal(&frame));
        if refusal.is_none() && !state.closing {
            state.buffered += weight(&frame);
            state.frames.push_back(frame);
        }
    }
    state.partial = partial;
    if state.closing {
        assembler.discard();
    }
    if news {
        shared.arrived.notify_one();
    }
    while wait && refusal.is_none() && !state.has_room() {
        state = shared.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    refusal
}

/// The next frames to write, about [`CHUNK`] bytes of them or one large one; empty if only TLS has something to say,
/// none when it is time to leave.
fn next_batch(shared: &Shared) -> Option<Vec<Outbound>> {
    let mut state = shared.lock();
    loop {
        if state.abandoned {
            return None;
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < CHUNK
            && let Some(frame) = state.queue.pop_front()
        {
            bytes += HEADER_BYTES + frame.payload.len();
            batch.push(frame);
        }
        if !batch.is_empty() || state.tls_pending {
            state.tls_pending = false;
            return Some(batch);
        }
        if state.closing {
            return None;
        }
        state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Encrypts and writes these frames, [`CHUNK`] bytes at a time.
fn write_batch(
    socket: &mut TcpStream,
    shared: &Shared,
    batch: &[Outbound],
    records: &mut Vec<u8>,
    line: &mut Option<Line>,
) -> Result<(), NetError> {
    records.clear();
    let mut waiting = 0;
    let mut ready = Instant::now();
    for frame in batch {
        ready = frame.queued;
        let mut header = &frame.header[..];
        let mut payload = &frame.payload[..];
        while !header.is_empty() || !payload.is_empty() {
            let piece;
            (piece, payload) = payload.split_at(payload.len().min(CHUNK - HEADER_BYTES));
            let plaintext = [IoSlice::new(header), IoSlice::new(piece)];
            let mut connection = tls(shared);
            // TLS is asked to buffer without limit, so this takes everything.
            let taken = connection.writer().write_vectored(&plaintext);
            drop(connection);
            let taken = taken.map_err(|e| broken(shared, &e.to_string()))?;
            if taken != header.len() + piece.len() {
                return Err(broken(shared, "it did not take a whole piece of a frame"));
            }
            waiting += taken;
            header = &[];
            if waiting >= CHUNK / 2 {
                flush(socket, shared, records, &mut waiting, ready, line)?;
            }
        }
        // On an emulated link a frame leaves when it was queued, not when a later one was.
        if line.is_some() {
            flush(socket, shared, records, &mut waiting, ready, line)?;
        }
    }
    flush(socket, shared, records, &mut waiting, ready, line)
}

/// Writes all records that TLS has ready, `waiting` bytes of frames among them, queued at `ready`.
fn flush(
    socket: &mut TcpStream,
    shared: &Shared,
    records: &mut Vec<u8>,
    waiting: &mut usize,
    ready: Instant,
    line: &mut Option<Line>,
) -> Result<(), NetError> {
    records.clear();
    encrypted(shared, records)?;
    put(socket, shared, records, ready, line)?;
    shared.lock().queued -= std::mem::take(waiting);
    shared.written.notify_one();
    Ok(())
}

/// Writes bytes that were ready at `ready`, on an emulated link when they have arrived.
fn put(
    socket: &mut TcpStream,
    shared: &Shared,
    bytes: &[u8],
    ready: Instant,
    line: &mut Option<Line>,
) -> Result<(), NetError> {
    let Some(line) = line else { return write_all(socket, shared, bytes) };
    for run in bytes.chunks(line.run()) {
        if !shared.pause_until(line.arrival(ready, Instant::now(), run.len())) {
            return Err(shared.closed(" (given up here)"));
        }
        write_all(socket, shared, run)?;
    }
    Ok(())
}

fn write_all(socket: &mut TcpStream, shared: &Shared, mut left: &[u8]) -> Result<(), NetError> {
    while !left.is_empty() {
        match socket.write(left) {
            Ok(0) => return Err(shared.closed(BROKEN_OFF)),
            Ok(count) => {
                left = &left[count..];
                // Counted at once: callers take it for progress.
                shared.lock().wire_sent += count as u64;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(lost(shared, "sending", &e)),
        }
    }
    Ok(())
}

/// Appends the records TLS has ready. Only the writer calls this, so they leave in the order of their encryption.
fn encrypted(shared: &Shared, records: &mut Vec<u8>) -> Result<(), NetError> {
    let mut connection = tls(shared);
    while connection.wants_write() {
        connection.write_tls(records).map_err(|e| broken(shared, &e.to_string()))?;
    }
    Ok(())
}

fn tls(shared: &Shared) -> MutexGuard<'_, Connection> {
    shared.connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(shared: &Shared, detail: &str) -> NetError {
    NetError::Tls { peer: shared.peer.to_string(), detail: printable(detail, 300) }
}

fn lost(shared: &Shared, doing: &'static str, error: &std::io::Error) -> NetError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => NetError::Timeout {
            what: format!("{doing}, which makes no progress, with {}", shared.peer),
            waited: shared.lock().wait,
        },
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            shared.closed(BROKEN_OFF)
        }
        _ => NetError::Io { peer: shared.peer.to_string(), doing, detail: error.to_string() },
    }
}

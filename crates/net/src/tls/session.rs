//! TLS as both directions of a connection share it.

use std::io::{BufRead, ErrorKind, IoSlice, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::Connection;

use crate::channel::Peer;
use crate::error::NetError;
use crate::frame::Assembler;
use crate::text::printable;

/// How a connection ends that the peer did not close.
pub(super) const BROKEN_OFF: &str = " without a goodbye: its process or the network failed";

/// Records and the bytes in them, and what goes wrong with them. Its lock is held for pieces of frames only, and never while
/// waiting for anything.
pub(super) struct Session {
    connection: Mutex<Connection>,
    /// Our goodbye is said: TLS takes nothing more. Set under the lock of the connection.
    said_goodbye: AtomicBool,
    pub(super) peer: Peer,
}

impl Session {
    /// Of a connection whose handshake is complete.
    pub(super) fn new(mut connection: Connection, peer: Peer) -> Session {
        // Who encrypts bounds what it hands over.
        connection.set_buffer_limit(None);
        Session { connection: Mutex::new(connection), said_goodbye: AtomicBool::new(false), peer }
    }

    /// Encrypts a piece of a frame, for the next [`Session::collect`].
    pub(super) fn encrypt(&self, header: &[u8], piece: &[u8]) -> Result<(), NetError> {
        let taken = self.lock().writer().write_vectored(&[IoSlice::new(header), IoSlice::new(piece)]);
        if taken.map_err(|e| self.broken(&e.to_string()))? != header.len() + piece.len() {
            return Err(self.broken("it did not take a whole piece of a frame"));
        }
        Ok(())
    }

    /// Our last word.
    pub(super) fn say_goodbye(&self) {
        let mut connection = self.lock();
        self.said_goodbye.store(true, Ordering::SeqCst);
        connection.send_close_notify();
    }

    /// Appends the records that are ready.
    pub(super) fn collect(&self, records: &mut Vec<u8>) -> Result<(), NetError> {
        let mut connection = self.lock();
        while connection.wants_write() {
            connection.write_tls(records).map_err(|e| self.broken(&e.to_string()))?;
        }
        Ok(())
    }

    /// Passes the plaintext of these bytes to the assembler. Whether TLS itself has something to say now, and the end of the
    /// connection if this is it.
    pub(super) fn decrypt(
        &self,
        mut ciphertext: &[u8],
        assembler: &mut Assembler,
    ) -> (bool, Result<(), NetError>) {
        let mut connection = self.lock();
        if self.said_goodbye.load(Ordering::SeqCst) {
            // Nobody waits for it. To TLS our goodbye was the last word: an alert about a damaged record would be a second one.
            return (false, Ok(()));
        }
        let outcome = loop {
            if let Err(end) = self.drain(&mut connection, assembler) {
                break Err(end);
            }
            if ciphertext.is_empty() {
                break Ok(());
            }
            if let Err(e) = connection.read_tls(&mut ciphertext) {
                break Err(self.broken(&e.to_string()));
            }
            if let Err(e) = connection.process_new_packets() {
                break Err(self.broken(&e.to_string()));
            }
        };
        (connection.wants_write(), outcome)
    }

    fn drain(&self, connection: &mut Connection, assembler: &mut Assembler) -> Result<(), NetError> {
        let mut reader = connection.reader();
        loop {
            let taken = match reader.fill_buf() {
                Ok([]) => return Err(assembler.cut().unwrap_or_else(|| self.closed(""))),
                Ok(plaintext) => {
                    assembler.push(plaintext)?;
                    plaintext.len()
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(self.broken(&e.to_string())),
            };
            reader.consume(taken);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer has gone.
    pub(super) fn closed(&self, detail: &str) -> NetError {
        NetError::Closed { peer: self.peer.to_string(), detail: detail.to_owned() }
    }

    /// The socket failed.
    pub(super) fn lost(&self, doing: &'static str, error: &std::io::Error) -> NetError {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
                self.closed(BROKEN_OFF)
            }
            _ => NetError::Io { peer: self.peer.to_string(), doing, detail: error.to_string() },
        }
    }

    fn broken(&self, detail: &str) -> NetError {
        NetError::Tls { peer: self.peer.to_string(), detail: printable(detail, 300) }
    }
}

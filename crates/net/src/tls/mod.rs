//! TCP with TLS 1.3, both sides authenticated by pinned certificates.
//!
//! A round of a protocol is a small frame each way, and a thread that has to be woken costs more than such a frame. So the
//! caller does both itself where it can: it encrypts a small frame and writes it without waiting, unless others are queued,
//! and while it waits for a frame it reads and decrypts. Each connection has two more threads, so that both parties may send
//! large frames at the same time: one writes what is large, or what the socket does not take at once; one reads while the
//! caller computes, that is when the caller has not come for a moment, or waits for something else than a frame.
//!
//! The two ends of the socket decide who may do what: an intake and an outlet exist once, lie in the state that the threads
//! share, and are taken out by who reads or writes. Nobody waits for the network with a lock held. Frames keep their order, as the
//! caller writes itself only when the queue is empty and the outlet has nothing left.
//!
//! The protocol is negotiated by ALPN ([`ALPN`]): another version is refused before any frame. Sessions are never
//! resumed, and no data is accepted before the handshake is complete.

mod config;
mod greeting;
mod intake;
mod link;
mod outlet;
mod pump;
mod session;
mod shared;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::channel::Deadlines;
use crate::emulated::Emulated;
use crate::error::NetError;
use crate::identity::{Identity, PinnedPeer};

pub use config::ALPN;
pub use link::TlsChannel;

/// Pause between attempts to reach a party that is not there yet.
const RETRY: Duration = Duration::from_millis(100);

/// How long one attempt at one address may take: packets to the first address of a name may vanish, and the others want to
/// be tried as well. Several times longer than a lost packet and its repetition take.
const ATTEMPT: Duration = Duration::from_secs(3);

/// How often a waiting accept looks at its stop flag and its deadline.
const POLL: Duration = Duration::from_millis(5);

/// Connects to listening parties.
#[derive(Debug)]
pub struct TlsConnector;

impl TlsConnector {
    /// Connects to `address` (`host:port`) and authenticates both sides. A peer that is not listening yet is tried
    /// again until `deadlines.connect` is over; a peer that refuses is not.
    ///
    /// # Errors
    /// [`NetError::Connect`] if nobody answers, or whatever the handshake found wrong.
    pub fn connect(
        address: &str,
        identity: &Identity,
        peer: &PinnedPeer,
        deadlines: Deadlines,
    ) -> Result<TlsChannel, NetError> {
        Self::connect_unless(address, identity, peer, deadlines, None, &|| false)
    }

    /// [`TlsConnector::connect`], until `stopped` says otherwise: it is asked after every attempt that fails, several times a
    /// second or, while packets vanish, every few seconds. With `link` the connection is made as slow as that one, as far as
    /// this side decides it: see [`TlsListener::with_link`].
    ///
    /// # Errors
    /// [`NetError::Stopped`] as well.
    pub fn connect_unless(
        address: &str,
        identity: &Identity,
        peer: &PinnedPeer,
        deadlines: Deadlines,
        link: Option<Emulated>,
        stopped: &dyn Fn() -> bool,
    ) -> Result<TlsChannel, NetError> {
        let stream = connect_tcp(address, deadlines.connect, stopped)?;
        if let Some(link) = &link {
            thread::sleep(link.round_trip);
        }
        greeting::as_client(stream, address, identity, peer, deadlines, link)
    }
}

/// Accepts connections of pinned parties.
#[derive(Debug)]
pub struct TlsListener {
    /// Until it is closed.
    listener: Mutex<Option<TcpListener>>,
    address: SocketAddr,
    identity: Identity,
    peers: Vec<PinnedPeer>,
    deadlines: Deadlines,
    link: Option<Emulated>,
}

impl TlsListener {
    /// Listens on `address` (`host:port`; port 0 picks a free one) for any of `peers`.
    ///
    /// # Errors
    /// [`NetError::Listen`].
    pub fn bind(address: &str, identity: &Identity, peers: Vec<PinnedPeer>) -> Result<TlsListener, NetError> {
        let fail =
            |e: std::io::Error| NetError::Listen { address: address.to_owned(), detail: e.to_string() };
        let listener = TcpListener::bind(address).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(TlsListener {
            listener: Mutex::new(Some(listener)),
            address,
            identity: identity.clone(),
            peers,
            deadlines: Deadlines::default(),
            link: None,
        })
    }

    /// Replaces the deadlines of later handshakes and of the channels they give.
    #[must_use]
    pub fn with_deadlines(mut self, deadlines: Deadlines) -> TlsListener {
        self.deadlines = deadlines;
        self
    }

    /// Makes later connections as slow as `link`. Each side delays what it sends, so both have to be given the same one;
    /// deadlines are longer by what the link takes.
    #[must_use]
    pub fn with_link(mut self, link: Option<Emulated>) -> TlsListener {
        self.link = link;
        self
    }

    /// Where it listens; names the port that was picked.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits for a TCP connection until `deadline` has passed (if any) or `stop` is set. Give the result to
    /// [`TlsListener::handshake`], on a thread of its own where other peers should not wait for this one.
    ///
    /// # Errors
    /// [`NetError::Timeout`], [`NetError::Stopped`] or [`NetError::Listen`].
    pub fn accept_tcp(&self, deadline: Option<Duration>, stop: &AtomicBool) -> Result<TcpStream, NetError> {
        let start = Instant::now();
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(NetError::Stopped {
                    what: format!("waiting for connections on {}", self.address),
                });
            }
            match self.accept_now() {
                Ok((stream, _)) => return Ok(stream),
                // Interrupted, or the peer left while it was queued: neither concerns the listener.
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(POLL),
                Err(e) => {
                    return Err(NetError::Listen {
                        address: self.address.to_string(),
                        detail: e.to_string(),
                    });
                }
            }
            if deadline.is_some_and(|deadline| start.elapsed() >= deadline) {
                let what = format!("waiting for a connection on {}", self.address);
                return Err(NetError::Timeout { what, waited: start.elapsed() });
            }
        }
    }

    fn accept_now(&self) -> std::io::Result<(TcpStream, SocketAddr)> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = || std::io::Error::other("it is closed");
        listener.as_ref().ok_or_else(closed)?.accept()
    }

    /// Stops listening: who connects from now on is refused at once by the operating system, and finds whoever listens there
    /// next. Handshakes of accepted connections go on.
    pub fn close(&self) {
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Authenticates both sides of an accepted connection, within `deadlines.handshake`.
    ///
    /// # Errors
    /// What is wrong with the peer; the listener itself is unharmed and may go on accepting.
    pub fn handshake(&self, stream: TcpStream) -> Result<TlsChannel, NetError> {
        greeting::as_server(stream, &self.identity, &self.peers, self.deadlines, self.link)
    }

    /// [`TlsListener::accept_tcp`] and [`TlsListener::handshake`] in one, for parties that expect one peer.
    ///
    /// # Errors
    /// As both.
    pub fn accept(&self, deadline: Option<Duration>, stop: &AtomicBool) -> Result<TlsChannel, NetError> {
        self.handshake(self.accept_tcp(deadline, stop)?)
    }
}

fn connect_tcp(address: &str, deadline: Duration, stopped: &dyn Fn() -> bool) -> Result<TcpStream, NetError> {
    let start = Instant::now();
    loop {
        let left = deadline.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
        let detail = match address.to_socket_addrs() {
            Err(e) => format!("no such address: {e}"),
            Ok(candidates) => {
                let mut last = "the name has no address".to_owned();
                for candidate in candidates {
                    match TcpStream::connect_timeout(&candidate, left.min(ATTEMPT)) {
                        Ok(stream) => return Ok(stream),
                        Err(e) => last = e.to_string(),
                    }
                }
                last
            }
        };
        if stopped() {
            return Err(NetError::Stopped { what: format!("connecting to {address} ({detail})") });
        }
        if start.elapsed() + RETRY >= deadline {
            return Err(NetError::Connect {
                address: address.to_owned(),
                tried_for: start.elapsed(),
                detail,
            });
        }
        thread::sleep(RETRY);
    }
}

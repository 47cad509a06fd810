//! The TLS handshake, with a deadline, and what its failures mean.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{
    AlertDescription, CertificateError, ClientConnection, Connection, Error, PeerIncompatible,
    ServerConnection,
};

use super::config::{self, ALPN, Offer, Unpinned};
use super::link::{self, TlsChannel};
use crate::channel::{Deadlines, Peer};
use crate::emulated::{Emulated, Line};
use crate::error::NetError;
use crate::fingerprint::Fingerprint;
use crate::identity::{Identity, PinnedPeer};
use crate::text::printable;

/// What the listening side says once it has accepted the client's certificate. In TLS 1.3 the client is done before
/// that, and would take a refusal for a failure in mid-session.
const READY: &[u8] = b"privet ready\n";

/// What a peer that does not speak TLS is told.
const PLAINTEXT_ANSWER: &[u8] = b"This is a Privet party: it speaks TLS 1.3 with pinned certificates only.\n";

/// How long a refused peer may take to read why.
const LINGER: Duration = Duration::from_millis(500);

/// Connects as the TLS client over `stream`.
pub(super) fn as_client(
    stream: TcpStream,
    address: &str,
    identity: &Identity,
    pinned: &PinnedPeer,
    deadlines: Deadlines,
    link: Option<Emulated>,
) -> Result<TlsChannel, NetError> {
    let peers = std::slice::from_ref(pinned);
    // SNI is off; rustls wants some name nevertheless.
    let name = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let connection =
        config::client(identity, pinned).and_then(|config| ClientConnection::new(Arc::new(config), name));
    let greeting = Greeting::new(stream, address.to_owned(), identity, peers, deadlines, link);
    let connection = connection.map_err(|e| greeting.explain(&e))?;
    greeting.run(Connection::Client(connection))
}

/// Accepts as the TLS server over `stream`.
pub(super) fn as_server(
    stream: TcpStream,
    identity: &Identity,
    peers: &[PinnedPeer],
    deadlines: Deadlines,
    link: Option<Emulated>,
) -> Result<TlsChannel, NetError> {
    let address = stream.peer_addr().map_or_else(|_| "a peer that has left".to_owned(), |a| a.to_string());
    let mut greeting = Greeting::new(stream, address, identity, peers, deadlines, link);
    let (config, offer) = config::server(identity, peers).map_err(|e| greeting.explain(&e))?;
    greeting.offer = Some(offer);
    let connection = ServerConnection::new(Arc::new(config)).map_err(|e| greeting.explain(&e))?;
    greeting.run(Connection::Server(connection))
}

/// More than a handshake takes, in flights and in bytes of one of them, on a link that is emulated.
const HANDSHAKE_WAYS: u32 = 5;
const HANDSHAKE_BYTES: usize = 16 << 10;

struct Greeting<'a> {
    stream: TcpStream,
    address: String,
    ours: Fingerprint,
    peers: &'a [PinnedPeer],
    /// On the listening side.
    offer: Option<Arc<Offer>>,
    deadlines: Deadlines,
    link: Option<Emulated>,
    start: Instant,
    received: u64,
    sent: u64,
}

impl<'a> Greeting<'a> {
    fn new(
        stream: TcpStream,
        address: String,
        identity: &Identity,
        peers: &'a [PinnedPeer],
        mut deadlines: Deadlines,
        link: Option<Emulated>,
    ) -> Greeting<'a> {
        let ours = identity.fingerprint();
        if let Some(link) = &link {
            deadlines.handshake += HANDSHAKE_WAYS * link.allowance(HANDSHAKE_BYTES);
        }
        Greeting {
            stream,
            address,
            ours,
            peers,
            offer: None,
            deadlines,
            link,
            start: Instant::now(),
            received: 0,
            sent: 0,
        }
    }

    fn run(mut self, mut connection: Connection) -> Result<TlsChannel, NetError> {
        let setup = self.stream.set_nonblocking(false).and_then(|()| self.stream.set_nodelay(true));
        setup.map_err(|e| self.io("preparing the socket", &e))?;
        let unread = match self.converse(&mut connection) {
            Ok(unread) => unread,
            Err(error) => {
                self.linger();
                return Err(error);
            }
        };
        let peer = self.authenticated(&connection)?;
        let counted = (self.sent, self.received);
        link::start(self.stream, connection, unread, peer, self.deadlines.wait, counted, self.link)
    }

    /// Runs the handshake to its end, READY included. Gives back ciphertext that belongs to frames.
    fn converse(&mut self, connection: &mut Connection) -> Result<Vec<u8>, NetError> {
        let mut buffer = vec![0; 32 << 10];
        let mut filled = 0..0;
        let mut said_ready = false;
        let mut heard = Vec::new();
        loop {
            self.write_pending(connection)?;
            if !connection.is_handshaking() {
                self.check_protocol(connection)?;
                match connection {
                    Connection::Server(server) if !said_ready => {
                        said_ready = true;
                        server.writer().write_all(READY).map_err(|e| self.io("greeting", &e))?;
                        continue;
                    }
                    Connection::Server(_) => return Ok(buffer[filled].to_vec()),
                    Connection::Client(client) => {
                        let mut rest = vec![0; READY.len() - heard.len()];
                        let read = client.reader().read(&mut rest).unwrap_or(0);
                        heard.extend_from_slice(&rest[..read]);
                        if heard == READY {
                            return Ok(buffer[filled].to_vec());
                        }
                        if !READY.starts_with(&heard) {
                            return Err(self.wrong_protocol("greeted with something else"));
                        }
                    }
                }
            }
            if filled.is_empty() {
                filled = 0..self.read(&mut buffer)?;
                if self.received == filled.end as u64 {
                    self.check_tls(&buffer[..filled.end])?;
                }
            }
            let taken = connection
                .read_tls(&mut &buffer[filled.clone()])
                .map_err(|e| self.io("taking TLS records", &e))?;
            filled.start += taken;
            if let Err(error) = connection.process_new_packets() {
                // The alert tells the peer why; if it cannot be sent the peer is gone.
                let _ = self.write_pending(connection);
                return Err(self.explain(&error));
            }
            if taken == 0 {
                return Err(self.closed());
            }
        }
    }

    fn write_pending(&mut self, connection: &mut Connection) -> Result<(), NetError> {
        let mut records = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut records).map_err(|e| self.io("making TLS records", &e))?;
        }
        if records.is_empty() {
            return Ok(());
        }
        self.delay(records.len());
        let left = self.left()?;
        self.stream.set_write_timeout(Some(left)).map_err(|e| self.io("setting a timeout", &e))?;
        self.sent += records.len() as u64;
        // A peer that has refused us may have closed already; what it said is still to be read.
        match self.stream.write_all(&records) {
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => Ok(()),
            result => result.map_err(|e| self.io("sending the handshake", &e)),
        }
    }

    /// Waits as long as an emulated link takes for these bytes. The two sides speak in turns: nothing else could happen.
    fn delay(&self, bytes: usize) {
        if let Some(link) = self.link {
            let now = Instant::now();
            let arrival = Line::new(link).arrival(now, now, bytes);
            thread::sleep(arrival.saturating_duration_since(Instant::now()));
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, NetError> {
        loop {
            let left = self.left()?;
            self.stream.set_read_timeout(Some(left)).map_err(|e| self.io("setting a timeout", &e))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(self.closed()),
                Ok(count) => {
                    self.received += count as u64;
                    return Ok(count);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.io("receiving the handshake", &e)),
            }
        }
    }

    /// Time left for the handshake.
    fn left(&self) -> Result<Duration, NetError> {
        let left = self.deadlines.handshake.saturating_sub(self.start.elapsed());
        if left.is_zero() { Err(self.timeout()) } else { Ok(left) }
    }

    /// The first bytes from the peer: a handshake record, or an alert.
    fn check_tls(&mut self, first: &[u8]) -> Result<(), NetError> {
        let found = match first {
            [0x16 | 0x15, 0x03, ..] | [0x16 | 0x15] => return Ok(()),
            _ if is_http(first) => "the first bytes look like HTTP".to_owned(),
            _ if first.starts_with(b"SSH-") => "the first bytes look like SSH".to_owned(),
            _ => format!("its first bytes are {:02x?}", &first[..first.len().min(8)]),
        };
        if self.offer.is_some() {
            let _ = self.stream.set_write_timeout(Some(LINGER));
            let _ = self.stream.write_all(PLAINTEXT_ANSWER);
        }
        Err(NetError::NotTls { address: self.address.clone(), found })
    }

    fn check_protocol(&self, connection: &Connection) -> Result<(), NetError> {
        match (connection.alpn_protocol(), &self.offer) {
            (Some(protocol), _) if protocol == ALPN.as_bytes() => Ok(()),
            (_, Some(offer)) => Err(self.wrong_protocol(&offer.describe())),
            (_, None) => Err(self.wrong_protocol("chose no protocol")),
        }
    }

    /// Who the certificate belongs to; the verifier has accepted it already.
    fn authenticated(&self, connection: &Connection) -> Result<Peer, NetError> {
        let presented = connection.peer_certificates().and_then(|chain| chain.first());
        let Some(presented) = presented else {
            return Err(self.explain(&Error::NoCertificatesPresented));
        };
        match self.peers.iter().find(|peer| peer.certificate == *presented) {
            Some(pinned) => Ok(Peer {
                name: pinned.name.clone(),
                fingerprint: pinned.fingerprint(),
                address: self.address.clone(),
            }),
            None => Err(self.unknown(Fingerprint::of(presented))),
        }
    }

    /// Lets a refused peer read the reason: closing with unread input would take it back.
    fn linger(&self) {
        let until = Instant::now() + LINGER;
        let mut stream = &self.stream;
        let mut scratch = [0; 4096];
        let _ = stream.shutdown(Shutdown::Write);
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            let _ = stream.set_read_timeout(Some(left));
            if !matches!(stream.read(&mut scratch), Ok(count) if count > 0) {
                break;
            }
        }
    }

    /// What a TLS error means here.
    fn explain(&self, error: &Error) -> NetError {
        let address = self.address.clone();
        match error {
            Error::InvalidCertificate(CertificateError::Other(other)) => {
                match other.0.downcast_ref::<Unpinned>() {
                    Some(unpinned) => self.unknown(unpinned.0),
                    None => NetError::Tls { peer: address, detail: other.to_string() },
                }
            }
            Error::NoCertificatesPresented => {
                NetError::NoCertificate { address, known: config::list(self.peers) }
            }
            Error::NoApplicationProtocol => {
                self.wrong_protocol(&self.offer.as_ref().map_or(String::new(), |offer| offer.describe()))
            }
            Error::PeerIncompatible(
                problem @ (PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired),
            ) => NetError::WrongTlsVersion { address, detail: format!("{problem:?}") },
            Error::AlertReceived(alert) => self.explain_alert(*alert),
            other => NetError::Tls { peer: address, detail: printable(&other.to_string(), 300) },
        }
    }

    /// What an alert from the peer means here.
    fn explain_alert(&self, alert: AlertDescription) -> NetError {
        let address = self.address.clone();
        match alert {
            AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired => {
                NetError::CertificateRefused { address, ours: self.ours, alert: format!("{alert:?}") }
            }
            AlertDescription::NoApplicationProtocol => self.wrong_protocol("refused that protocol"),
            AlertDescription::ProtocolVersion => {
                NetError::WrongTlsVersion { address, detail: "it refused our version".to_owned() }
            }
            other => NetError::Tls { peer: address, detail: format!("the peer sent the alert {other:?}") },
        }
    }

    fn unknown(&self, found: Fingerprint) -> NetError {
        let (address, known) = (self.address.clone(), config::list(self.peers));
        NetError::UnknownCertificate { address, found, known }
    }

    fn wrong_protocol(&self, found: &str) -> NetError {
        NetError::WrongProtocol {
            address: self.address.clone(),
            expected: ALPN.to_owned(),
            found: found.to_owned(),
        }
    }

    fn timeout(&self) -> NetError {
        let what = format!("waiting for the TLS handshake of {}", self.address);
        NetError::Timeout { what, waited: self.start.elapsed() }
    }

    fn closed(&self) -> NetError {
        NetError::Closed { peer: self.address.clone(), detail: " during the TLS handshake".to_owned() }
    }

    fn io(&self, doing: &'static str, error: &std::io::Error) -> NetError {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.timeout(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => self.closed(),
            _ => NetError::Io { peer: self.address.clone(), doing, detail: error.to_string() },
        }
    }
}

fn is_http(first: &[u8]) -> bool {
    [&b"GET "[..], b"POST ", b"PUT ", b"HEAD ", b"OPTIONS ", b"DELETE ", b"CONNECT ", b"PRI *", b"HTTP/"]
        .iter()
        .any(|method| first.starts_with(method))
}

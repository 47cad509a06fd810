//! Parties, connections and bad peers for the tests.
#![allow(dead_code, unreachable_pub, reason = "each test file uses some of these")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use privet_net::identity::KEY_FILE;
use privet_net::{Deadlines, Emulated, FrameKind, Identity, NetError, TlsChannel, TlsConnector, TlsListener};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};

pub const KIND: FrameKind = FrameKind::new(0x100);
/// Longer than anything takes that has to happen, on any machine.
pub const LONG: Duration = Duration::from_secs(60);
pub const PATIENCE: Option<Duration> = Some(LONG);
/// As milliseconds, for peers that answer.
pub const PATIENT: u64 = 60_000;

/// With this wait for a frame. Whoever is waited for to connect comes.
pub fn deadlines(wait_ms: u64) -> Deadlines {
    Deadlines { connect: LONG, handshake: LONG, wait: Duration::from_millis(wait_ms) }
}

/// An address at which nobody listens yet, and nobody but the caller will. Ports that the system hands out are soon handed
/// out again, to whoever runs at the same time; on Linux a process has a loopback address of its own.
pub fn reserved() -> String {
    let id = std::process::id();
    let [_, high, middle, low] = id.to_be_bytes();
    let own = format!("127.{}.{middle}.{low}:0", 64 + high % 64);
    let socket = TcpListener::bind(own).or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
    socket.local_addr().unwrap().to_string()
}

/// A server's listener that knows `client`, and both identities.
pub struct Parties {
    pub client: Identity,
    pub server: Identity,
    pub listener: TlsListener,
    pub address: String,
}

pub fn parties(deadlines: Deadlines) -> Parties {
    let client = Identity::generate("client").unwrap();
    let server = Identity::generate("server").unwrap();
    let listener = TlsListener::bind("127.0.0.1:0", &server, vec![client.certificate().clone()]).unwrap();
    let listener = listener.with_deadlines(deadlines);
    let address = listener.local_addr().to_string();
    Parties { client, server, listener, address }
}

pub fn accept(listener: &TlsListener) -> Result<TlsChannel, NetError> {
    listener.accept(PATIENCE, &AtomicBool::new(false))
}

/// Client and server ends of one connection; the client reaches the server at `address`, which may be a proxy's.
pub fn connect(parties: &Parties, address: &str, deadlines: Deadlines) -> (TlsChannel, TlsChannel) {
    thread::scope(|scope| {
        let server = scope.spawn(|| accept(&parties.listener));
        let client = TlsConnector::connect(address, &parties.client, parties.server.certificate(), deadlines);
        (client.unwrap(), server.join().unwrap().unwrap())
    })
}

/// A [`pair`] over an emulated link.
pub fn emulated_pair(wait_ms: u64, link: Emulated) -> (TlsChannel, TlsChannel) {
    let mut parties = parties(deadlines(wait_ms));
    parties.listener = parties.listener.with_link(Some(link));
    let (address, client, pinned) = (&parties.address, &parties.client, parties.server.certificate());
    thread::scope(|scope| {
        let server = scope.spawn(|| accept(&parties.listener));
        let deadlines = deadlines(wait_ms);
        let client = TlsConnector::connect_unless(address, client, pinned, deadlines, Some(link), &|| false);
        (client.unwrap(), server.join().unwrap().unwrap())
    })
}

pub fn pair(wait_ms: u64) -> (TlsChannel, TlsChannel) {
    let parties = parties(deadlines(wait_ms));
    connect(&parties, &parties.address, deadlines(wait_ms))
}

/// What happens to the client's bytes at a point of the stream.
#[derive(Clone, Copy)]
pub enum Harm {
    Cut,
    Flip,
    /// Nothing but small packets, from the first byte on.
    Shred,
}

/// A proxy before `target` that harms byte `at` of what the first client sends.
pub fn proxy(target: &str, harm: Harm, at: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let target = target.to_owned();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(target).unwrap();
        let (mut back_from, mut back_to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || {
            let _ = std::io::copy(&mut back_from, &mut back_to);
            let _ = back_to.shutdown(Shutdown::Both);
        });
        let mut passed = 0;
        let mut buffer = [0; 4096];
        server.set_nodelay(true).unwrap();
        while let Ok(count @ 1..) = client.read(&mut buffer) {
            let mut count = count;
            if (passed..passed + count).contains(&at) {
                match harm {
                    Harm::Cut => count = at - passed,
                    Harm::Flip => buffer[at - passed] ^= 1,
                    Harm::Shred => {}
                }
            }
            passed += count;
            let step = if matches!(harm, Harm::Shred) { 13 } else { count };
            let sent = buffer[..count].chunks(step.max(1)).try_for_each(|piece| server.write_all(piece));
            if sent.is_err() || (matches!(harm, Harm::Cut) && passed == at) {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
        let _ = client.shutdown(Shutdown::Both);
    });
    address
}

/// A TLS client that is not ours: any protocol names, any TLS version, no identity or the certificate of one and the key
/// of another.
pub fn raw_client(
    address: &str,
    identity: Option<(&Identity, &Identity)>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
) -> StreamOwned<ClientConnection, TcpStream> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let dir = tempfile::tempdir().unwrap();
            key.write(dir.path()).unwrap();
            let key = PrivateKeyDer::from_pem_file(dir.path().join(KEY_FILE)).unwrap();
            let pem = dir.path().join("presented.crt");
            certificate.certificate().write(&pem).unwrap();
            let chain = vec![CertificateDer::from_pem_file(pem).unwrap()];
            let certified = CertifiedKey::new(chain, any_supported_type(&key).unwrap());
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(PATIENCE).unwrap();
    StreamOwned::new(connection, socket)
}

/// Accepts any server.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

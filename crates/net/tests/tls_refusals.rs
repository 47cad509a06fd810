//! Peers that must not get in, and what each side is told.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use common::{KIND, PATIENT, accept, deadlines, pair, parties, raw_client, reserved};
use privet_net::handshake::{Hello, exchange_hello, recv_hello, refuse, send_hello};
use privet_net::{Channel, Deadlines, Frame, Identity, NetError, TlsChannel, TlsConnector, TlsListener};
use rustls::version::{TLS12, TLS13};

/// What the listening side says to whatever `peer` does.
fn server_error(peer: impl FnOnce(&str) + Send) -> NetError {
    let parties = parties(deadlines(PATIENT));
    thread::scope(|scope| {
        let address = parties.address.clone();
        scope.spawn(move || peer(&address));
        accept(&parties.listener).err().expect("the peer got in")
    })
}

#[test]
fn plaintext_peers_are_named() {
    for (bytes, word) in
        [(&b"GET / HTTP/1.1\r\n\r\n"[..], "HTTP"), (b"SSH-2.0-x\r\n", "SSH"), (b"\x07\x00hello", "07, 00")]
    {
        let error = server_error(|address| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(bytes).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.contains("TLS 1.3"), "{answer}");
        });
        assert!(matches!(&error, NetError::NotTls { found, .. } if found.contains(word)), "{error}");
        assert!(error.to_string().starts_with("127.0.0.1:"), "{error}");
    }
}

#[test]
fn a_plaintext_server_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server =
        thread::spawn(move || listener.accept().unwrap().0.write_all(b"HTTP/1.1 400 Bad Request\r\n"));
    let me = Identity::generate("client").unwrap();
    let error = TlsConnector::connect(&address, &me, me.certificate(), deadlines(PATIENT)).err().unwrap();
    assert!(matches!(&error, NetError::NotTls { found, .. } if found.contains("HTTP")), "{error}");
    server.join().unwrap().unwrap();
}

/// Connects `client`, who expects `expected`, to a server of identity `server` that knows `known`.
fn meet(
    client: &Identity,
    expected: &Identity,
    server: &Identity,
    known: &Identity,
) -> (Result<TlsChannel, NetError>, Result<TlsChannel, NetError>) {
    let listener = TlsListener::bind("127.0.0.1:0", server, vec![known.certificate().clone()]).unwrap();
    let listener = listener.with_deadlines(deadlines(PATIENT));
    let address = listener.local_addr().to_string();
    thread::scope(|scope| {
        let accepted = scope.spawn(|| accept(&listener));
        let connected = TlsConnector::connect(&address, client, expected.certificate(), deadlines(PATIENT));
        (connected, accepted.join().unwrap())
    })
}

#[test]
fn an_unknown_client_is_refused_on_both_sides() {
    let [client, stranger, server] = ["client", "client", "server"].map(|n| Identity::generate(n).unwrap());
    let (connected, accepted) = meet(&stranger, &server, &server, &client);
    let (ours, theirs) = (connected.err().unwrap(), accepted.err().unwrap());
    assert!(
        matches!(&ours, NetError::CertificateRefused { ours, .. } if *ours == stranger.fingerprint()),
        "{ours}"
    );
    let NetError::UnknownCertificate { found, known, .. } = &theirs else { panic!("{theirs}") };
    assert_eq!(*found, stranger.fingerprint());
    assert_eq!(*known, format!("client ({})", client.fingerprint().short()));
}

#[test]
fn an_unknown_server_is_refused_on_both_sides() {
    let [client, impostor, server] = ["client", "server", "server"].map(|n| Identity::generate(n).unwrap());
    let (connected, accepted) = meet(&client, &server, &impostor, &client);
    let (ours, theirs) = (connected.err().unwrap(), accepted.err().unwrap());
    assert!(
        matches!(&ours, NetError::UnknownCertificate { found, .. } if *found == impostor.fingerprint()),
        "{ours}"
    );
    assert!(
        matches!(&theirs, NetError::CertificateRefused { ours, .. } if *ours == impostor.fingerprint()),
        "{theirs}"
    );
}

#[test]
fn the_pinned_pair_meets_and_is_named() {
    let [client, server] = ["client", "server"].map(|n| Identity::generate(n).unwrap());
    let (connected, accepted) = meet(&client, &server, &server, &client);
    let (connected, accepted) = (connected.unwrap(), accepted.unwrap());
    assert_eq!((&*connected.peer().name, connected.peer().fingerprint), ("server", server.fingerprint()));
    assert_eq!((&*accepted.peer().name, accepted.peer().fingerprint), ("client", client.fingerprint()));
}

#[test]
fn a_certificate_without_its_key_is_useless() {
    let parties = parties(deadlines(PATIENT));
    let thief = Identity::generate("client").unwrap();
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            let stolen = Some((&parties.client, &thief));
            let mut stream = raw_client(&parties.address, stolen, &[&TLS13], &["privet/1"]);
            assert!(!matches!(stream.read(&mut [0; 100]), Ok(1..)), "the server greeted it");
        });
        accept(&parties.listener).err().expect("the thief got in")
    });
    assert!(matches!(&error, NetError::Tls { detail, .. } if detail.contains("BadSignature")), "{error}");
}

#[test]
fn a_client_without_certificate_is_refused() {
    let error = server_error(|address| {
        let mut stream = raw_client(address, None, &[&TLS13], &["privet/1"]);
        let alert = stream.read(&mut [0; 100]).unwrap_err();
        assert!(alert.to_string().contains("CertificateRequired"), "{alert}");
    });
    assert!(
        matches!(&error, NetError::NoCertificate { known, .. } if known.starts_with("client (")),
        "{error}"
    );
}

#[test]
fn tls_1_2_is_refused() {
    let error = server_error(|address| {
        let mut stream = raw_client(address, None, &[&TLS12], &["privet/1"]);
        let alert = stream.read(&mut [0; 100]).unwrap_err();
        assert!(alert.to_string().contains("ProtocolVersion"), "{alert}");
    });
    assert!(matches!(error, NetError::WrongTlsVersion { .. }), "{error}");
}

#[test]
fn another_protocol_version_is_refused() {
    for (offered, found) in [(&["privet/2", "h2"][..], "asked for privet/2, h2"), (&[], "named no protocol")]
    {
        let parties = parties(deadlines(PATIENT));
        let error = thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = raw_client(
                    &parties.address,
                    Some((&parties.client, &parties.client)),
                    &[&TLS13],
                    offered,
                );
                assert!(!matches!(stream.read(&mut [0; 100]), Ok(1..)), "the server greeted it");
            });
            accept(&parties.listener).err().expect("the peer got in")
        });
        assert!(matches!(&error, NetError::WrongProtocol { found: f, .. } if f == found), "{error}");
        assert!(error.to_string().contains("privet/1"), "{error}");
    }
}

#[test]
fn a_silent_or_vanishing_peer_ends_the_handshake() {
    let short = Deadlines { handshake: Duration::from_millis(200), ..deadlines(PATIENT) };
    let of_silent = parties(short);
    let silent = TcpStream::connect(&of_silent.address).unwrap();
    let error = accept(&of_silent.listener).err().unwrap();
    assert!(matches!(error, NetError::Timeout { .. }), "{error}");
    drop(silent);
    let of_vanishing = parties(deadlines(PATIENT));
    drop(TcpStream::connect(&of_vanishing.address).unwrap());
    let error = accept(&of_vanishing.listener).err().unwrap();
    assert!(matches!(error, NetError::Closed { .. }), "{error}");
}

#[test]
fn nobody_listening_nobody_connecting_and_stop() {
    let parties = parties(deadlines(PATIENT));
    let short = Deadlines { connect: Duration::from_millis(250), ..deadlines(PATIENT) };
    let unused = reserved();
    let peer = parties.server.certificate();
    let error = TlsConnector::connect(&unused, &parties.client, peer, short).err().unwrap();
    assert!(matches!(&error, NetError::Connect { address, .. } if *address == unused), "{error}");
    let wait = Some(Duration::from_millis(50));
    let error = parties.listener.accept_tcp(wait, &AtomicBool::new(false)).err().unwrap();
    assert!(matches!(error, NetError::Timeout { .. }), "{error}");
    let error = parties.listener.accept_tcp(None, &AtomicBool::new(true)).err().unwrap();
    assert!(matches!(error, NetError::Stopped { .. }), "{error}");
}

#[test]
fn a_peer_may_start_later() {
    let [client, server] = ["client", "server"].map(|n| Identity::generate(n).unwrap());
    let address = reserved();
    thread::scope(|scope| {
        let late = scope.spawn(|| {
            thread::sleep(Duration::from_millis(300));
            let known = vec![client.certificate().clone()];
            accept(&TlsListener::bind(&address, &server, known).unwrap()).unwrap()
        });
        TlsConnector::connect(&address, &client, server.certificate(), deadlines(PATIENT)).unwrap();
        late.join().unwrap();
    });
}

/// What the server's channel says to these bytes of an authenticated but hostile client.
fn hostile(bytes: &[u8]) -> NetError {
    let parties = parties(deadlines(PATIENT));
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut channel = accept(&parties.listener).unwrap();
            channel.recv(100).and_then(|_| channel.recv(100)).unwrap_err()
        });
        let mut stream =
            raw_client(&parties.address, Some((&parties.client, &parties.client)), &[&TLS13], &["privet/1"]);
        stream.read_exact(&mut [0; 13]).unwrap();
        stream.write_all(bytes).unwrap();
        stream.flush().unwrap();
        server.join().unwrap()
    })
}

#[test]
fn hostile_headers_are_typed() {
    // One whole frame (kind 0x100, number 0, no payload), then number 2, or number 0 again.
    let first = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    for found in [0u8, 2] {
        let second = [0, 0, 0, 0, 0, 1, found, 0, 0, 0];
        let error = hostile(&[first, second].concat());
        assert!(
            matches!(error, NetError::Sequence { expected: 1, found: f, .. } if f == u32::from(found)),
            "{error}"
        );
    }
    let error = hostile(&[255, 255, 255, 255, 0, 1, 0, 0, 0, 0]);
    assert!(matches!(error, NetError::TooLarge { announced: 0xffff_ffff, limit: 100, .. }), "{error}");
    let error = hostile(&[3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff]);
    assert!(matches!(error, NetError::Malformed { what: "refusal", .. }), "{error}");
}

/// Sends a frame of `length` bytes in pieces of `piece` every 100 ms, to a server that waits 1.5 s for progress. Says how much was sent
/// when it gave up.
fn trickle(length: usize, piece: usize) -> (Result<Frame, NetError>, usize) {
    let parties = parties(deadlines(1500));
    thread::scope(|scope| {
        let server = scope.spawn(|| accept(&parties.listener).unwrap().recv(length));
        let mine = Some((&parties.client, &parties.client));
        let mut stream = raw_client(&parties.address, mine, &[&TLS13], &["privet/1"]);
        stream.read_exact(&mut [0; 13]).unwrap();
        let header = [&(length as u32).to_le_bytes()[..], &[0, 1, 0, 0, 0, 0]].concat();
        stream.write_all(&header).unwrap();
        let mut sent = 0;
        while sent < length && !server.is_finished() {
            thread::sleep(Duration::from_millis(100));
            if stream.write_all(&vec![7; piece.min(length - sent)]).is_err() {
                break;
            }
            sent += piece;
        }
        (server.join().unwrap(), sent)
    })
}

#[test]
fn a_slow_frame_may_take_long_and_a_trickle_may_not() {
    // Twice the wait in all.
    let (frame, _) = trickle(2 << 20, 64 << 10);
    assert!(frame.unwrap().payload == [7; 2 << 20]);
    let (frame, sent) = trickle(10_000, 10);
    let error = frame.unwrap_err();
    assert!(matches!(error, NetError::Timeout { .. }), "{error}");
    assert!(sent < 10_000, "the whole frame has come first");
}

fn hello(protocol_version: u16) -> Hello {
    Hello { protocol_version, software: format!("privet test {protocol_version}"), body: vec![1, 2, 3] }
}

#[test]
fn equal_versions_meet() {
    let (mut client, mut server) = pair(PATIENT);
    thread::scope(|scope| {
        let other = scope.spawn(|| exchange_hello(&mut server, &hello(7)).unwrap());
        assert_eq!(exchange_hello(&mut client, &hello(7)).unwrap(), hello(7));
        assert_eq!(client.traffic().rounds, 1);
        assert_eq!(other.join().unwrap(), hello(7));
    });
}

#[test]
fn a_refusal_is_read_on_both_sides() {
    let (mut client, mut server) = pair(PATIENT);
    let other = thread::spawn(move || {
        let theirs = recv_hello(&mut server).unwrap();
        let reason = format!("plan digest {:?} is not the one served here", theirs.body);
        refuse(&mut server, 0x101, &reason)
    });
    send_hello(&mut client, &hello(7)).unwrap();
    // The client is busy sending when it is refused.
    let big = Frame::new(KIND, vec![0; 8 << 20]);
    let sending = (0..100).map(|_| client.send(big.clone())).find(Result::is_err);
    let error = client.recv(100).unwrap_err();
    let NetError::Refused { code: 0x101, reason, .. } = &error else { panic!("{error}") };
    assert_eq!(reason, "plan digest [1, 2, 3] is not the one served here");
    assert_eq!(sending, Some(Err(error.clone())), "sending fails for the same reason");
    drop(client);
    let theirs = other.join().unwrap();
    assert!(matches!(&theirs, NetError::Rejected { code: 0x101, reason: r, .. } if r == reason), "{theirs}");
}

#[test]
fn another_application_version_is_refused_by_whoever_sees_it_first() {
    let (mut client, mut server) = pair(PATIENT);
    let other = thread::spawn(move || exchange_hello(&mut server, &hello(2)).unwrap_err());
    let errors = [exchange_hello(&mut client, &hello(1)).unwrap_err(), other.join().unwrap()];
    for error in &errors {
        assert!(matches!(error, NetError::Rejected { .. } | NetError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("privet test 1") && error.to_string().contains("privet test 2"));
    }
}

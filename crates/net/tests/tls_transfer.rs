//! Frames over TLS between two honest parties, and between an honest one and a broken connection.

mod common;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Harm, KIND, PATIENT, accept, connect, deadlines, pair, parties, proxy, raw_client};
use privet_net::{Channel, Deadlines, Frame, HEADER_BYTES, NetError, TlsChannel, TlsConnector};
use rustls::version::TLS13;

/// Milliseconds that no test takes: what ends in time has not waited for this.
const NEVER: u64 = 3_600_000;

fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed).collect()
}

#[test]
fn both_sides_send_large_frames_at_once() {
    const LENGTH: usize = (64 << 20) + 7;
    let (client, server) = pair(PATIENT);
    let run = |mut channel: TlsChannel, ours: u8, theirs: u8| {
        let sent = Frame::new(KIND, pattern(ours, LENGTH));
        let received = channel.exchange(sent, LENGTH).unwrap();
        assert!(received.payload == pattern(theirs, LENGTH), "payload differs");
        channel.flush().unwrap();
        let traffic = channel.traffic();
        let bytes = (LENGTH + HEADER_BYTES) as u64;
        assert_eq!((traffic.bytes_sent, traffic.bytes_received), (bytes, bytes));
        assert_eq!((traffic.frames_sent, traffic.frames_received, traffic.rounds), (1, 1, 1));
        assert!(traffic.wire_sent > bytes && traffic.wire_sent < bytes + bytes / 500 + 10_000, "{traffic:?}");
        Box::new(channel).close().unwrap();
    };
    thread::scope(|scope| {
        scope.spawn(|| run(client, 1, 2));
        scope.spawn(|| run(server, 2, 1));
    });
}

#[test]
fn frames_of_all_sizes_arrive_in_order() {
    let sizes = [0, 1, 9, 10, 16_373, 16_374, 16_375, 16_384, 262_133, 262_134, 262_135, 1 << 20, 0, 3];
    let (mut client, mut server) = pair(PATIENT);
    for (i, &size) in (0..).zip(&sizes) {
        client.send(Frame::new(KIND, pattern(i, size))).unwrap();
    }
    for (i, &size) in (0..).zip(&sizes) {
        assert!(server.recv(1 << 20).unwrap().payload == pattern(i, size), "frame {i} of {size} bytes");
    }
}

#[test]
fn what_was_sent_before_close_arrives() {
    const LENGTH: usize = 20 << 20;
    let (mut client, mut server) = pair(PATIENT);
    client.send(Frame::new(KIND, pattern(3, LENGTH))).unwrap();
    client.send(Frame::new(KIND, b"last".to_vec())).unwrap();
    let closing = thread::spawn(move || Box::new(client).close());
    thread::sleep(Duration::from_millis(50));
    assert!(server.recv(LENGTH).unwrap().payload == pattern(3, LENGTH));
    assert_eq!(server.recv(LENGTH).unwrap().payload, b"last");
    let end = server.recv(LENGTH).unwrap_err();
    assert_eq!(end, NetError::Closed { peer: server.peer().to_string(), detail: String::new() });
    assert!(matches!(server.send(Frame::new(KIND, vec![])), Err(NetError::Closed { .. })));
    drop(server);
    closing.join().unwrap().unwrap();
}

#[test]
fn a_dropped_channel_is_told_from_a_closed_one() {
    let (client, mut server) = pair(PATIENT);
    drop(client);
    let error = server.recv(10).unwrap_err();
    assert!(matches!(&error, NetError::Closed { detail, .. } if detail.contains("goodbye")), "{error}");
    assert!(error.to_string().starts_with("client at 127.0.0.1:"), "{error}");
}

#[test]
fn a_silent_peer_runs_into_the_deadline() {
    let (mut client, _server) = pair(NEVER);
    client.set_deadline(Duration::from_millis(150));
    let start = Instant::now();
    let error = client.recv(10).unwrap_err();
    // Not by the deadline of the connection, which is longer than a test may take.
    assert!(matches!(error, NetError::Timeout { .. }), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(140), "{:?}", start.elapsed());
    assert!(error.to_string().contains("receiving from server at 127.0.0.1"), "{error}");
}

#[test]
fn a_peer_that_never_receives_stops_the_sender_in_bounded_memory() {
    let (mut client, _server) = pair(NEVER);
    // Long enough for a frame to be encrypted by a busy machine.
    client.set_deadline(Duration::from_millis(1500));
    let frame = Frame::new(KIND, vec![0; 16 << 20]);
    let sent = (0..100).map(|_| client.send(frame.clone())).take_while(Result::is_ok).count();
    // 16 MiB in our queue, 16 MiB read ahead by the peer, a frame each beyond that, and what the sockets hold.
    assert!((2..=6).contains(&sent), "{sent} frames of 16 MiB were taken");
    assert!(matches!(client.flush(), Err(NetError::Timeout { .. })));
    // Dropping it does not hang.
    drop(client);
}

#[test]
fn the_receiver_limits_a_frame() {
    let (mut client, mut server) = pair(PATIENT);
    client.send(Frame::new(KIND, vec![0; 1001])).unwrap();
    let error = server.recv(1000).unwrap_err();
    let peer = server.peer().to_string();
    assert_eq!(error, NetError::TooLarge { peer, announced: 1001, limit: 1000 });
    assert_eq!(server.recv(1001).unwrap().payload.len(), 1001);
}

#[test]
fn a_connection_cut_inside_a_frame_is_typed() {
    const LENGTH: usize = 100_000;
    let parties = parties(deadlines(PATIENT));
    // Past the handshake, before the end of the frame.
    let through = proxy(&parties.address, Harm::Cut, 60_000).to_string();
    let (mut client, mut server) = connect(&parties, &through, deadlines(PATIENT));
    client.send(Frame::new(KIND, vec![0; LENGTH])).unwrap();
    let error = server.recv(LENGTH).unwrap_err();
    let NetError::Truncated { expected, found, .. } = error else { panic!("{error}") };
    assert_eq!(expected, LENGTH + HEADER_BYTES);
    assert!((30_000..60_000).contains(&found), "{found}");
    assert_eq!(server.recv(LENGTH).unwrap_err(), error, "the reason stays the same");
    assert!(matches!(client.recv(1), Err(NetError::Closed { .. })));
}

#[test]
fn a_changed_byte_is_detected() {
    let parties = parties(deadlines(PATIENT));
    let through = proxy(&parties.address, Harm::Flip, 60_000).to_string();
    let (mut client, mut server) = connect(&parties, &through, deadlines(PATIENT));
    client.send(Frame::new(KIND, vec![0; 100_000])).unwrap();
    let error = server.recv(100_000).unwrap_err();
    assert!(matches!(error, NetError::Tls { .. }), "{error}");
}

#[test]
fn many_peers_at_once_and_none_waits_for_a_silent_one() {
    const PEERS: u8 = 24;
    let served = AtomicU8::new(0);
    // Whoever waited for the silent peer would do so for longer than a test may take.
    let parties = parties(Deadlines { handshake: Duration::from_millis(NEVER), ..deadlines(NEVER) });
    let _silent = std::net::TcpStream::connect(&parties.address).unwrap();
    thread::scope(|scope| {
        for i in 0..PEERS {
            let parties = &parties;
            scope.spawn(move || {
                let server = parties.server.certificate();
                let mut channel =
                    TlsConnector::connect(&parties.address, &parties.client, server, deadlines(PATIENT))
                        .unwrap();
                let frame = Frame::new(KIND, pattern(i, 100_000));
                assert_eq!(channel.exchange(frame.clone(), 100_000).unwrap(), frame);
                Box::new(channel).close().unwrap();
            });
        }
        for _ in 0..PEERS + 1 {
            let stream = parties.listener.accept_tcp(common::PATIENCE, &AtomicBool::new(false)).unwrap();
            let (listener, served) = (&parties.listener, &served);
            scope.spawn(move || {
                let Ok(mut channel) = listener.handshake(stream) else { return };
                let frame = channel.recv(100_000).unwrap();
                channel.send(frame).unwrap();
                Box::new(channel).close().unwrap();
                served.fetch_add(1, Ordering::SeqCst);
            });
        }
        let start = Instant::now();
        while served.load(Ordering::SeqCst) < PEERS {
            assert!(start.elapsed() < common::LONG, "someone waits for the silent peer");
            thread::sleep(Duration::from_millis(1));
        }
        // Only now may the silent peer's thread end.
        let _ = _silent.shutdown(std::net::Shutdown::Both);
    });
}

/// A party that has said goodbye waits for the other's; what comes instead must not trouble it.
#[test]
fn damage_after_our_goodbye_is_ignored() {
    static PANICKED: AtomicBool = AtomicBool::new(false);
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if thread::current().name() == Some("privet-read") {
            PANICKED.store(true, Ordering::SeqCst);
        }
        report(info);
    }));
    let parties = parties(deadlines(PATIENT));
    thread::scope(|scope| {
        scope.spawn(|| {
            let identity = Some((&parties.client, &parties.client));
            let mut stream = raw_client(&parties.address, identity, &[&TLS13], &["privet/1"]);
            while !matches!(stream.read(&mut [0; 100]), Ok(0)) {}
            stream.sock.write_all(&[&[0x17, 3, 3, 0, 64][..], &[0x5a; 64]].concat()).unwrap();
        });
        accept(&parties.listener).unwrap().shutdown().unwrap();
    });
    assert!(!PANICKED.load(Ordering::SeqCst), "the reader panicked");
}

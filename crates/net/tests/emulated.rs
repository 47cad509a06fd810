//! Emulated links: never faster than they are, in order, and with the failures of any other connection. How much slower
//! depends on the machine, so that bounds above are wide.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{KIND, PATIENT, deadlines, emulated_pair, parties};
use privet_net::{Channel, Emulated, Frame, HEADER_BYTES, NetError, TlsChannel, TlsConnector};

/// Longer than anything here takes, whatever else the machine does.
const AMPLE: f64 = 30.0;

fn link(text: &str) -> Emulated {
    Emulated::parse(text).unwrap()
}

fn frame(seed: u8, length: usize) -> Frame {
    Frame::new(KIND, (0..length).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed).collect())
}

/// Seconds of `work`, which have to be at least `least`.
fn takes(least: f64, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    let taken = start.elapsed().as_secs_f64();
    assert!((least..least + AMPLE).contains(&taken), "{taken} s, at least {least} s were expected");
}

/// Sends back what arrives, until the peer closes.
fn echo(mut server: TlsChannel) {
    while let Ok(frame) = server.recv(1 << 20) {
        server.send(frame).unwrap();
    }
    Box::new(server).close().unwrap();
}

#[test]
fn an_answer_takes_a_round_trip() {
    let (mut client, server) = emulated_pair(PATIENT, link("1gbit:30ms"));
    thread::scope(|scope| {
        scope.spawn(|| echo(server));
        for i in 0..3 {
            takes(0.03, || assert_eq!(client.exchange(frame(i, 100), 100).unwrap(), frame(i, 100)));
        }
        Box::new(client).close().unwrap();
    });
}

#[test]
fn both_directions_carry_the_rate_each() {
    const LENGTH: usize = 300_000;
    let (client, server) = emulated_pair(PATIENT, link("8mbit:0us"));
    let swap = |mut channel: TlsChannel, ours: u8, theirs: u8| {
        assert!(channel.exchange(frame(ours, LENGTH), LENGTH).unwrap() == frame(theirs, LENGTH));
        let traffic = channel.traffic();
        assert_eq!(traffic.bytes_sent, (LENGTH + HEADER_BYTES) as u64);
        Box::new(channel).close().unwrap();
    };
    // From before either starts: what one has sent early counts for both.
    takes(0.3, || {
        thread::scope(|scope| {
            scope.spawn(|| swap(client, 1, 2));
            scope.spawn(|| swap(server, 2, 1));
        });
    });
}

/// One round trip for TCP, one for TLS, and one until the listening side has said that it accepts the certificate.
#[test]
fn connecting_takes_three_round_trips() {
    takes(0.15, || drop(emulated_pair(PATIENT, link("1gbit:50ms"))));
}

#[test]
fn jitter_keeps_the_order() {
    let sizes = [0, 1, 20_000, 3, 0, 70_000, 16_384, 5, 5, 5, 150_000, 1, 2, 3];
    let (mut client, mut server) = emulated_pair(PATIENT, link("100mbit:2ms:20ms"));
    let sender = thread::spawn(move || {
        for (i, &size) in (0..).zip(sizes.iter().cycle().take(60)) {
            client.send(frame(i, size)).unwrap();
            if i % 7 == 0 {
                thread::sleep(Duration::from_millis(3));
            }
        }
        Box::new(client).close().unwrap();
    });
    for (i, &size) in (0..).zip(sizes.iter().cycle().take(60)) {
        assert!(server.recv(1 << 20).unwrap() == frame(i, size), "frame {i} of {size} bytes");
    }
    assert!(matches!(server.recv(1), Err(NetError::Closed { .. })));
    drop(server);
    sender.join().unwrap();
}

#[test]
fn what_was_sent_before_close_arrives() {
    let (mut client, mut server) = emulated_pair(PATIENT, link("40mbit:60ms"));
    client.send(frame(3, 500_000)).unwrap();
    client.send(frame(4, 4)).unwrap();
    let closing = thread::spawn(move || Box::new(client).close());
    assert!(server.recv(500_000).unwrap() == frame(3, 500_000));
    assert_eq!(server.recv(4).unwrap(), frame(4, 4));
    let end = server.recv(1).unwrap_err();
    assert_eq!(end, NetError::Closed { peer: server.peer().to_string(), detail: String::new() });
    Box::new(server).close().unwrap();
    closing.join().unwrap().unwrap();
}

/// A wait may be shorter than a round trip, and than a frame takes.
#[test]
fn deadlines_leave_the_link_its_time() {
    let (mut client, server) = emulated_pair(100, link("4mbit:500ms"));
    thread::scope(|scope| {
        scope.spawn(|| echo(server));
        takes(0.7, || assert!(client.exchange(frame(1, 50_000), 50_000).unwrap() == frame(1, 50_000)));
        Box::new(client).close().unwrap();
    });
}

#[test]
fn a_handshake_has_the_time_of_its_link() {
    let mut parties = parties(deadlines(PATIENT));
    let mut short = deadlines(PATIENT);
    short.handshake = Duration::from_millis(100);
    let link = Some(link("1gbit:300ms"));
    parties.listener = parties.listener.with_deadlines(short).with_link(link);
    let (address, client, pinned) = (&parties.address, &parties.client, parties.server.certificate());
    thread::scope(|scope| {
        let server = scope.spawn(|| common::accept(&parties.listener));
        TlsConnector::connect_unless(address, client, pinned, short, link, &|| false).unwrap();
        server.join().unwrap().unwrap();
    });
}

#[test]
fn a_silent_peer_still_runs_into_the_deadline() {
    let (mut client, _server) = emulated_pair(PATIENT, link("1gbit:20ms"));
    client.set_deadline(Duration::from_millis(100));
    takes(0.1, || assert!(matches!(client.recv(10), Err(NetError::Timeout { .. }))));
}

#[test]
fn a_peer_that_breaks_off_is_noticed_and_leaves_at_once() {
    let (mut client, mut server) = emulated_pair(PATIENT, link("800kbit:10ms"));
    // A hundred seconds' worth of bytes.
    client.send(frame(5, 10 << 20)).unwrap();
    thread::sleep(Duration::from_millis(100));
    takes(0.0, || drop(client));
    let error = server.recv(10 << 20).unwrap_err();
    assert!(matches!(error, NetError::Truncated { .. } | NetError::Closed { .. }), "{error}");
}

//! Who reads and who writes on a connection changes: the caller, the reader, the writer. Frames must not notice.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use common::{Harm, KIND, PATIENT, accept, connect, deadlines, pair, parties, proxy, raw_client};
use privet_net::{Channel, Frame, HEADER_BYTES, NetError, TlsChannel};
use rustls::version::TLS13;
use rustls::{ClientConnection, StreamOwned};

/// Frames on both sides of every limit in the code, and one of many pieces.
const SIZES: [usize; 10] = [64, 0, 1, 32_758, 32_759, 9, 300_000, 16_384, 1 << 20, 5];

fn frame(number: usize, length: usize) -> Frame {
    let byte = |i: usize| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ (number as u8);
    Frame::new(KIND, (0..length).map(byte).collect())
}

fn is_next(channel: &mut TlsChannel, number: usize, length: usize) {
    let received = channel.recv(length).unwrap();
    assert!(received == frame(number, length), "frame {number} of {length} bytes");
}

/// SplitMix64.
fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)) % below
}

#[test]
fn small_and_large_frames_from_both_sides_at_once() {
    const FRAMES: usize = 120;
    let run = |mut channel: TlsChannel, seed: u64| {
        let mut state = seed;
        let (mut sent, mut received) = (0, 0);
        while received < FRAMES {
            for _ in 0..=draw(&mut state, 4) {
                if sent < FRAMES {
                    channel.send(frame(sent, SIZES[sent % SIZES.len()])).unwrap();
                    sent += 1;
                }
            }
            // What nobody has sent must not be waited for: the peer may wait for us.
            for _ in 0..draw(&mut state, 5).min((sent - received) as u64) {
                is_next(&mut channel, received, SIZES[received % SIZES.len()]);
                received += 1;
            }
        }
        let traffic = channel.traffic();
        assert_eq!((traffic.frames_sent, traffic.frames_received), (FRAMES as u64, FRAMES as u64));
        assert_eq!(traffic.bytes_sent, traffic.bytes_received);
        Box::new(channel).close().unwrap();
    };
    for seed in 0..4 {
        let (client, server) = pair(PATIENT);
        thread::scope(|scope| {
            scope.spawn(|| run(client, seed));
            scope.spawn(|| run(server, seed + 100));
        });
    }
}

/// The reader takes over after two milliseconds: pauses around that, on both sides.
#[test]
fn parties_that_compute_now_and_then() {
    let run = |mut channel: TlsChannel, seed: u64| {
        let mut state = seed;
        for i in 0..150 {
            if draw(&mut state, 3) == 0 {
                thread::sleep(Duration::from_micros(500 * draw(&mut state, 9)));
            }
            for length in [i % 7, i * 400] {
                channel.send(frame(i, length)).unwrap();
                is_next(&mut channel, i, length);
            }
        }
        Box::new(channel).close().unwrap();
    };
    let (client, server) = pair(PATIENT);
    thread::scope(|scope| {
        scope.spawn(|| run(client, 1));
        scope.spawn(|| run(server, 2));
    });
}

#[test]
fn both_sides_send_many_small_frames_before_either_receives() {
    const FRAMES: usize = 560;
    const LENGTH: usize = 30_000;
    let run = |mut channel: TlsChannel| {
        (0..FRAMES).for_each(|i| channel.send(frame(i, LENGTH)).unwrap());
        channel.flush().unwrap();
        (0..FRAMES).for_each(|i| is_next(&mut channel, i, LENGTH));
        Box::new(channel).close().unwrap();
    };
    let (client, server) = pair(PATIENT);
    thread::scope(|scope| {
        scope.spawn(|| run(client));
        scope.spawn(|| run(server));
    });
}

/// A server's end, and a client that reads when it is told to.
fn with_raw_client(wait_ms: u64) -> (TlsChannel, StreamOwned<ClientConnection, TcpStream>) {
    let parties = parties(deadlines(wait_ms));
    thread::scope(|scope| {
        let server = scope.spawn(|| accept(&parties.listener).unwrap());
        let identity = Some((&parties.client, &parties.client));
        let mut client = raw_client(&parties.address, identity, &[&TLS13], &["privet/1"]);
        let mut greeting = [0; 13];
        client.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"privet ready\n");
        (server.join().unwrap(), client)
    })
}

/// Sends frames until one waits for the socket.
fn fill(server: &mut TlsChannel, length: usize) -> usize {
    for sent in 1.. {
        server.send(frame(sent - 1, length)).unwrap();
        let traffic = server.traffic();
        // The system takes some megabytes; then our queue does.
        if traffic.wire_sent < traffic.bytes_sent {
            return sent;
        }
        assert!(sent < 100_000, "the system takes everything");
    }
    unreachable!("the loop above ends")
}

fn read_frame(client: &mut impl Read, number: usize, length: usize) {
    let mut header = [0; HEADER_BYTES];
    client.read_exact(&mut header).unwrap();
    assert_eq!(header[..4], (length as u32).to_le_bytes(), "length of frame {number}");
    assert_eq!(header[6..], (number as u32).to_le_bytes());
    let mut payload = vec![0; length];
    client.read_exact(&mut payload).unwrap();
    assert!(payload == frame(number, length).payload, "frame {number} of {length} bytes");
}

#[test]
fn a_peer_that_stops_reading_stops_the_sender() {
    const LENGTH: usize = 20_000;
    let (mut server, _client) = with_raw_client(300);
    let mut sent = fill(&mut server, LENGTH);
    // From here on frames are queued, up to 16 MiB; nothing waits before.
    let error = loop {
        match server.send(frame(sent, LENGTH)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, NetError::Timeout { .. }), "{error}");
    let (taken, out) = (server.traffic().bytes_sent, server.traffic().wire_sent);
    assert!(taken - out > 15 << 20 && taken - out < 17 << 20, "{taken} taken, {out} written");
    assert!(matches!(server.flush(), Err(NetError::Timeout { .. })));
    // Dropping it does not hang.
    drop(server);
}

#[test]
fn a_peer_that_reads_late_gets_everything_in_order() {
    const LENGTH: usize = 20_000;
    let (mut server, mut client) = with_raw_client(PATIENT);
    let mut sent = fill(&mut server, LENGTH);
    for _ in 0..100 {
        server.send(frame(sent, LENGTH)).unwrap();
        sent += 1;
    }
    (0..sent).for_each(|i| read_frame(&mut client, i, LENGTH));
    server.flush().unwrap();
    // Now small frames go past the queue again.
    for i in sent..sent + 3 {
        server.send(frame(i, 10)).unwrap();
        read_frame(&mut client, i, 10);
    }
}

#[test]
fn closing_while_a_frame_is_half_written() {
    const LENGTH: usize = 20_000;
    let (mut server, mut client) = with_raw_client(PATIENT);
    let sent = fill(&mut server, LENGTH);
    let closing = thread::spawn(move || server.shutdown());
    thread::sleep(Duration::from_millis(50));
    (0..sent).for_each(|i| read_frame(&mut client, i, LENGTH));
    assert_eq!(client.read(&mut [0; 10]).unwrap(), 0, "a goodbye comes after the last frame");
    client.conn.send_close_notify();
    client.flush().unwrap();
    drop(client);
    closing.join().unwrap().unwrap();
}

#[test]
fn a_frame_in_many_pieces() {
    let (mut server, mut client) = with_raw_client(PATIENT);
    let sending = thread::spawn(move || {
        for (number, length) in [(0, 300), (1, 0), (2, 40)] {
            let mut bytes = (length as u32).to_le_bytes().to_vec();
            bytes.extend(KIND.code().to_le_bytes());
            bytes.extend((number as u32).to_le_bytes());
            bytes.extend(frame(number, length).payload);
            // A record each.
            for byte in bytes {
                client.write_all(&[byte]).unwrap();
                client.flush().unwrap();
            }
        }
        client
    });
    for (number, length) in [(0, 300), (1, 0), (2, 40)] {
        is_next(&mut server, number, length);
    }
    drop(sending.join().unwrap());
}

/// Records arrive in shreds.
#[test]
fn a_record_in_many_pieces() {
    let parties = parties(deadlines(PATIENT));
    let through = proxy(&parties.address, Harm::Shred, 0).to_string();
    let (mut client, mut server) = connect(&parties, &through, deadlines(PATIENT));
    for (i, length) in [0, 100, 5000, 1, 40_000].into_iter().enumerate() {
        client.send(frame(i, length)).unwrap();
        is_next(&mut server, i, length);
        server.send(frame(i, length)).unwrap();
        is_next(&mut client, i, length);
    }
}

/// A peer that says why it leaves, while we are busy sending: the reason is what the caller gets.
#[test]
fn a_refusal_is_not_lost_among_failed_writes() {
    let (mut client, mut server) = pair(PATIENT);
    let refusing = thread::spawn(move || privet_net::handshake::refuse(&mut server, 7, "enough"));
    let error = loop {
        match client.send(frame(0, 100)) {
            Ok(()) => thread::sleep(Duration::from_millis(1)),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, NetError::Refused { code: 7, .. }), "{error}");
    assert_eq!(client.recv(10).unwrap_err(), error);
    drop(client);
    assert!(matches!(refusing.join().unwrap(), NetError::Rejected { .. }));
}

//! The in-memory channel, and every fault at every frame.

use std::thread;
use std::time::{Duration, Instant};

use privet_net::fault::Fault;
use privet_net::handshake::{Hello, exchange_hello, refuse};
use privet_net::memory::{MemoryChannel, faulty_pair, pair};
use privet_net::{Channel, Frame, FrameKind, NetError};

const KIND: FrameKind = FrameKind::new(0x100);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn exchanges_count_like_the_wire() {
    let (mut left, mut right) = pair(60 * SECOND);
    let other = thread::spawn(move || {
        right.exchange(Frame::new(KIND, vec![2; 5]), 100).unwrap();
        right.traffic()
    });
    assert_eq!(left.exchange(Frame::new(KIND, vec![1; 20]), 5).unwrap().payload, [2; 5]);
    let (ours, theirs) = (left.traffic(), other.join().unwrap());
    assert_eq!((ours.bytes_sent, ours.bytes_received, ours.rounds), (30, 15, 1));
    assert_eq!((theirs.bytes_sent, theirs.bytes_received, theirs.rounds), (15, 30, 1));
}

#[test]
fn limits_kinds_and_deadlines_hold() {
    let (mut left, mut right) = pair(Duration::from_millis(50));
    left.send(Frame::new(KIND, vec![0; 11])).unwrap();
    assert!(matches!(right.recv(10), Err(NetError::TooLarge { announced: 11, limit: 10, .. })));
    let error = right.recv_kind(FrameKind::new(0x200), 11).unwrap_err();
    assert!(matches!(error, NetError::UnexpectedKind { .. }), "{error}");
    assert!(matches!(right.recv(10), Err(NetError::Timeout { .. })));
    drop(left);
    assert!(matches!(right.recv(10), Err(NetError::Closed { .. })));
    assert!(matches!(right.send(Frame::new(KIND, vec![])), Err(NetError::Closed { .. })));
}

/// Sends frames 0..5 over a faulty link; what the receiver gets until its first error.
fn through(fault: Fault) -> (Vec<Frame>, NetError) {
    let (mut left, mut right): (MemoryChannel, MemoryChannel) =
        faulty_pair(60 * SECOND, vec![fault], Vec::new());
    for i in 0..5 {
        left.send(Frame::new(KIND, vec![i; 3])).unwrap();
    }
    left.shutdown().unwrap();
    let mut received = Vec::new();
    loop {
        match right.recv(3) {
            Ok(frame) => received.push(frame),
            Err(error) => return (received, error),
        }
    }
}

#[test]
fn every_fault_at_every_frame_is_typed() {
    for at in 0..5u32 {
        let (received, error) = through(Fault::Cut(at));
        assert!(matches!(error, NetError::Closed { .. }), "{error}");
        assert_eq!(received.len(), at as usize);
        let (received, error) = through(Fault::Duplicate(at));
        let sequence = |e: &NetError| match e {
            NetError::Sequence { expected, found, .. } => Some((*expected, *found)),
            _ => None,
        };
        assert_eq!(sequence(&error), Some((at + 1, at)), "{error}");
        assert_eq!(received.len(), at as usize + 1);
        let (received, error) = through(Fault::Truncate(at));
        assert!(matches!(error, NetError::Truncated { expected: 13, found: 12, .. }), "{error}");
        assert_eq!(received.len(), at as usize);
        let (received, error) = through(Fault::Corrupt(at));
        assert!(matches!(error, NetError::Closed { .. }), "{error}");
        assert_eq!(received[at as usize].payload, [at as u8, at as u8 ^ 0x10, at as u8]);
        let (received, error) = through(Fault::Lengthen(at));
        assert!(matches!(error, NetError::TooLarge { announced: 4, limit: 3, .. }), "{error}");
        assert_eq!(received.len(), at as usize);
        let (received, _) = through(Fault::Shorten(at));
        assert_eq!(received[at as usize].payload.len(), 2);
        let (received, _) = through(Fault::Relabel(at));
        assert_ne!(received[at as usize].kind, KIND);
        for fault in [Fault::Drop(at), Fault::Swap(at)] {
            let (received, error) = through(fault);
            assert_eq!(received.len(), at as usize, "{fault:?}");
            let lost_at_the_end = at == 4 && matches!(error, NetError::Closed { .. });
            assert!(lost_at_the_end || sequence(&error) == Some((at, at + 1)), "{fault:?}: {error}");
        }
        let start = Instant::now();
        let (received, _) = through(Fault::Delay(at, Duration::from_millis(20)));
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert_eq!(received.len(), 5);
    }
}

#[test]
fn refusals_reach_the_other_side() {
    let (mut left, mut right) = pair(60 * SECOND);
    let ours = refuse(&mut left, 0x105, "no such\nmodel");
    assert!(matches!(&ours, NetError::Rejected { code: 0x105, .. }), "{ours}");
    let theirs = right.recv(0).unwrap_err();
    assert_eq!(theirs.to_string(), format!("{} refused the session: no such model", right.peer()));
}

#[test]
fn a_garbled_hello_is_malformed() {
    let (mut left, mut right) = pair(60 * SECOND);
    left.send(Frame::new(FrameKind::HELLO, vec![0xff; 7])).unwrap();
    let hello = Hello { protocol_version: 1, software: String::new(), body: Vec::new() };
    let error = exchange_hello(&mut right, &hello).unwrap_err();
    assert!(matches!(error, NetError::Malformed { what: "hello", .. }), "{error}");
}

//! Entry points for hostile bytes: what a peer's stream meets first. For tests and fuzzing only.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use crate::channel::Deadlines;
use crate::frame::{Assembler, Frame, HEADER_BYTES, Header};
use crate::handshake::{self, Hello};
use crate::identity::{Identity, PinnedPeer};
use crate::kind::FrameKind;
use crate::tls::TlsListener;

/// A stream of frames after TLS, in pieces of as many bytes as the first byte says. Whether it ends between frames.
pub fn frames(bytes: &[u8]) -> bool {
    let Some((&piece, stream)) = bytes.split_first() else { return false };
    let mut assembler = Assembler::new("peer".to_owned());
    for piece in stream.chunks(usize::from(piece).max(1)) {
        if assembler.push(piece).is_err() {
            return false;
        }
    }
    for frame in &assembler.finished {
        if frame.kind == FrameKind::REFUSED {
            let _ = handshake::refused(&frame.payload, "peer".to_owned());
        }
    }
    assembler.cut().is_none() && !assembler.finished.is_empty()
}

/// A stream that [`frames`] takes: a hello, a refusal, an empty frame and one of unknown kind.
pub fn frames_seed() -> Vec<u8> {
    let hello = Hello { protocol_version: 2, software: "privet 0".to_owned(), body: vec![1, 2, 3] };
    let hello = postcard::to_allocvec(&hello).unwrap_or_default();
    let refusal = postcard::to_allocvec(&(handshake::code::VERSION, "another version")).unwrap_or_default();
    let payloads = [
        (FrameKind::HELLO, hello),
        (FrameKind::REFUSED, refusal),
        (FrameKind::new(0x1234), Vec::new()),
        (FrameKind::new(0x4321), vec![7; 300]),
    ];
    let mut bytes = vec![100];
    for (sequence, (kind, payload)) in (0..).zip(payloads) {
        let frame = Frame::new(kind, payload);
        let header = Header { length: frame.payload.len() as u32, kind, sequence };
        let header: [u8; HEADER_BYTES] = header.encode();
        bytes.extend(header);
        bytes.extend(frame.payload);
    }
    bytes
}

/// A hello as it arrives. Whether it can be read.
pub fn hello(bytes: &[u8]) -> Option<Hello> {
    postcard::from_bytes(bytes).ok()
}

/// The text of a certificate file. Whether it is one.
pub fn certificate(text: &str) -> bool {
    PinnedPeer::from_pem(Path::new("peer.crt"), text.to_owned()).is_ok()
}

/// Raw bytes at a listener that waits for a TLS client. A listener that lets somebody in is a finding.
///
/// # Panics
/// When the system gives no socket, and when a channel comes about.
pub fn handshake(bytes: &[u8]) {
    static LISTENER: OnceLock<TlsListener> = OnceLock::new();
    let listener = LISTENER.get_or_init(|| {
        let identity = Identity::generate("fuzzed").expect("a fresh identity");
        let pinned = identity.certificate().clone();
        let deadlines = Deadlines { handshake: Duration::from_secs(5), ..Deadlines::default() };
        let listener = TlsListener::bind("127.0.0.1:0", &identity, vec![pinned]).expect("a free port");
        listener.with_deadlines(deadlines)
    });
    let mut stream = TcpStream::connect(listener.local_addr()).expect("the listener's own port");
    thread::scope(|scope| {
        scope.spawn(move || {
            // The listener may have hung up on what came before.
            let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let accepted = listener.accept(Some(Duration::from_secs(5)), &false.into());
        assert!(accepted.is_err(), "a stranger is let in");
    });
}

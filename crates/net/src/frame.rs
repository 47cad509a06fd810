//! Frames and their wire format.
//!
//! ```text
//! u32 LE payload length | u16 LE kind | u32 LE sequence number | payload
//! ```
//! Each direction counts its frames from 0 (modulo 2^32); a gap or a repetition is an error.

use crate::error::NetError;
use crate::kind::FrameKind;

/// Version of this wire format; TLS negotiates it as `privet/1`.
pub const WIRE_VERSION: u16 = 1;

/// Bytes before the payload of every frame.
pub const HEADER_BYTES: usize = 10;

/// A refusal is small; more is an attack or a bug.
const MAX_REFUSED_BYTES: usize = 16 << 10;

/// The first allocation for a payload of unknown honesty; doubled as bytes arrive.
const FIRST_ALLOCATION: usize = 256 << 10;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: FrameKind,
    /// The message itself.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame of `kind` carrying `payload`.
    pub fn new(kind: FrameKind, payload: Vec<u8>) -> Frame {
        Frame { kind, payload }
    }

    /// Bytes this frame takes on the wire, before TLS.
    pub fn wire_bytes(&self) -> u64 {
        (HEADER_BYTES + self.payload.len()) as u64
    }
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) length: u32,
    pub(crate) kind: FrameKind,
    pub(crate) sequence: u32,
}

impl Header {
    /// The header of `frame` as number `sequence`.
    pub(crate) fn of(frame: &Frame, sequence: u32, peer: &str) -> Result<Header, NetError> {
        let length = u32::try_from(frame.payload.len()).map_err(|_| NetError::TooLarge {
            peer: peer.to_owned(),
            announced: frame.payload.len(),
            limit: u32::MAX as usize,
        })?;
        Ok(Header { length, kind: frame.kind, sequence })
    }

    pub(crate) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.kind.code().to_le_bytes());
        bytes[6..].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    /// Decodes and checks a header against the number due.
    pub(crate) fn decode(bytes: [u8; HEADER_BYTES], due: u32, peer: &str) -> Result<Header, NetError> {
        let [l0, l1, l2, l3, k0, k1, s0, s1, s2, s3] = bytes;
        let header = Header {
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            kind: FrameKind::from_wire(u16::from_le_bytes([k0, k1])),
            sequence: u32::from_le_bytes([s0, s1, s2, s3]),
        };
        if header.sequence != due {
            return Err(NetError::Sequence { peer: peer.to_owned(), expected: due, found: header.sequence });
        }
        if header.kind == FrameKind::REFUSED && header.length as usize > MAX_REFUSED_BYTES {
            return Err(NetError::TooLarge {
                peer: peer.to_owned(),
                announced: header.length as usize,
                limit: MAX_REFUSED_BYTES,
            });
        }
        Ok(header)
    }
}

/// A frame on its way in memory, its header encoded.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) header: [u8; HEADER_BYTES],
    pub(crate) payload: Vec<u8>,
}

impl Message {
    /// With a header that announces the payload as it is.
    pub(crate) fn announced(mut self) -> Message {
        self.header[..4].copy_from_slice(&(self.payload.len() as u32).to_le_bytes());
        self
    }
}

/// Puts frames together from a stream of bytes. Memory grows with the bytes that arrived, not with what was announced.
pub(crate) struct Assembler {
    peer: String,
    due: u32,
    head: [u8; HEADER_BYTES],
    head_filled: usize,
    body: Option<(Header, Vec<u8>)>,
    discarding: bool,
    /// Finished frames, oldest first; the owner takes them.
    pub(crate) finished: Vec<Frame>,
}

impl Assembler {
    pub(crate) fn new(peer: String) -> Assembler {
        Assembler {
            peer,
            due: 0,
            head: [0; HEADER_BYTES],
            head_filled: 0,
            body: None,
            discarding: false,
            finished: Vec::new(),
        }
    }

    /// Takes no notice of anything from now on.
    pub(crate) fn discard(&mut self) {
        self.discarding = true;
        self.body = None;
        self.finished = Vec::new();
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<(), NetError> {
        while !bytes.is_empty() && !self.discarding {
            match &mut self.body {
                None => {
                    let take = bytes.len().min(HEADER_BYTES - self.head_filled);
                    self.head[self.head_filled..self.head_filled + take].copy_from_slice(&bytes[..take]);
                    self.head_filled += take;
                    bytes = &bytes[take..];
                    if self.head_filled == HEADER_BYTES {
                        let header = Header::decode(self.head, self.due, &self.peer)?;
                        self.due = self.due.wrapping_add(1);
                        self.head_filled = 0;
                        self.body = Some((header, Vec::new()));
                    }
                }
                Some((header, payload)) => {
                    let announced = header.length as usize;
                    let take = bytes.len().min(announced - payload.len());
                    grow(payload, take, announced);
                    payload.extend_from_slice(&bytes[..take]);
                    bytes = &bytes[take..];
                }
            }
            if self.body.as_ref().is_some_and(|(header, payload)| payload.len() == header.length as usize)
                && let Some((header, payload)) = self.body.take()
            {
                self.finished.push(Frame { kind: header.kind, payload });
            }
        }
        Ok(())
    }

    /// Announced and received payload bytes of the frame in progress.
    pub(crate) fn partial(&self) -> Option<(usize, usize)> {
        self.body.as_ref().map(|(header, payload)| (header.length as usize, payload.len()))
    }

    /// The error for a stream that ends here, unless it ends between frames.
    pub(crate) fn cut(&self) -> Option<NetError> {
        let (expected, found) = match (self.partial(), self.head_filled) {
            (Some((announced, received)), _) => (HEADER_BYTES + announced, HEADER_BYTES + received),
            (None, 0) => return None,
            (None, filled) => (HEADER_BYTES, filled),
        };
        Some(NetError::Truncated { peer: self.peer.clone(), expected, found })
    }
}

/// Makes room for `more` bytes by doubling, never beyond `announced`.
fn grow(payload: &mut Vec<u8>, more: usize, announced: usize) {
    let needed = payload.len() + more;
    if needed > payload.capacity() {
        let capacity = needed.max(2 * payload.capacity()).max(FIRST_ALLOCATION).min(announced);
        payload.reserve_exact(capacity - payload.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: FrameKind = FrameKind::new(0x1234);

    fn wire(frame: &Frame, sequence: u32) -> Vec<u8> {
        let mut bytes = Header::of(frame, sequence, "p").unwrap().encode().to_vec();
        bytes.extend_from_slice(&frame.payload);
        bytes
    }

    #[test]
    fn header_bytes_are_as_documented() {
        let frame = Frame::new(KIND, vec![9; 0x0102]);
        assert_eq!(
            wire(&frame, 0x0a0b0c0d)[..HEADER_BYTES],
            [2, 1, 0, 0, 0x34, 0x12, 0x0d, 0x0c, 0x0b, 0x0a]
        );
    }

    #[test]
    fn frames_survive_any_cut_of_the_stream() {
        let frames = [vec![], vec![1], (0..=255).collect::<Vec<u8>>(), vec![]].map(|p| Frame::new(KIND, p));
        let stream: Vec<u8> = (0..).zip(&frames).flat_map(|(i, f)| wire(f, i)).collect();
        for step in 1..=stream.len() {
            let mut assembler = Assembler::new("p".into());
            for piece in stream.chunks(step) {
                assembler.push(piece).unwrap();
            }
            assert_eq!(assembler.finished, frames, "pieces of {step}");
            assert_eq!(assembler.cut(), None);
        }
    }

    #[test]
    fn gaps_and_repetitions_are_errors() {
        let frame = Frame::new(KIND, vec![7]);
        for second in [0, 2, u32::MAX] {
            let mut assembler = Assembler::new("p".into());
            assembler.push(&wire(&frame, 0)).unwrap();
            let error = assembler.push(&wire(&frame, second)).unwrap_err();
            assert_eq!(error, NetError::Sequence { peer: "p".into(), expected: 1, found: second });
        }
    }

    #[test]
    fn memory_follows_arrival_not_announcement() {
        let head = Header { length: u32::MAX, kind: KIND, sequence: 0 }.encode();
        let mut assembler = Assembler::new("p".into());
        assembler.push(&head).unwrap();
        assembler.push(&[0; 1000]).unwrap();
        let (_, payload) = assembler.body.as_ref().unwrap();
        assert!(payload.capacity() <= FIRST_ALLOCATION);
        assert_eq!(assembler.partial(), Some((u32::MAX as usize, 1000)));
        let expected = HEADER_BYTES + u32::MAX as usize;
        assert_eq!(assembler.cut(), Some(NetError::Truncated { peer: "p".into(), expected, found: 1010 }));
    }

    #[test]
    fn a_huge_refusal_is_not_collected() {
        let head = Header { length: 1 << 20, kind: FrameKind::REFUSED, sequence: 0 }.encode();
        let error = Assembler::new("p".into()).push(&head).unwrap_err();
        assert!(matches!(error, NetError::TooLarge { .. }), "{error}");
    }
}

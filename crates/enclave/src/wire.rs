//! Messages between client and worker, inside of TLS 1.3.
//!
//! A frame is a kind (one byte), a length (four bytes, little-endian), and as many bytes. The client begins:
//!
//! | kind | from | content |
//! |---|---|---|
//! | 1 hello | client | `PRIVENCL`, version (two bytes), nonce (32 bytes) |
//! | 2 welcome | worker | postcard of version, evidence over nonce, channel and model, and [`ModelInfo`] |
//! | 3 infer | client | number of the request (eight bytes), the inputs' elements in the model's order |
//! | 4 answer | worker | the number, microseconds in the queue and of computing (eight bytes each), the outputs' elements |
//! | 5 refusal | worker | postcard of a reason and words; the connection ends |
//!
//! Every length is bounded before memory is reserved: what a worker reads by the shapes of its inputs, what a client reads by
//! those of the outputs that the welcome has.

use std::fmt;
use std::io;

use privet_attest::evidence::MAX_EVIDENCE_BYTES;
use privet_seal::{ModelId, ModelVersion, SealDigest, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::tensor::{MAX_NAME_BYTES, MAX_RANK, TensorSpec, total};

/// The protocol's name in the TLS handshake (ALPN). It stays while frames and hello are what they are, so that a peer of another
/// [`WIRE_VERSION`] is told so in words.
pub const PROTOCOL: &[u8] = b"privet-enclave/1";
/// Version of the messages; others are refused.
pub const WIRE_VERSION: u16 = 2;
/// Most bytes of all inputs, and of all outputs.
pub const MAX_TENSOR_BYTES: u64 = 1 << 30;

const MAGIC: &[u8; 8] = b"PRIVENCL";
pub(crate) const NONCE_BYTES: usize = 32;
pub(crate) const MODEL_HASH_BYTES: usize = 32;
pub(crate) const HELLO_BYTES: usize = MAGIC.len() + 2 + NONCE_BYTES;
/// Bytes of an `infer` before its tensors.
pub(crate) const INFER_FRONT: usize = 8;
/// Bytes of an `answer` before its tensors.
pub(crate) const ANSWER_FRONT: usize = 24;
pub(crate) const MAX_REFUSAL_BYTES: usize = 4 << 10;
/// Most inputs, and most outputs.
const MAX_TENSORS: usize = 256;
const MAX_INFO_BYTES: usize = 1 << 20;
pub(crate) const MAX_WELCOME_BYTES: usize = MAX_EVIDENCE_BYTES + MAX_INFO_BYTES;
/// Longest words of a refusal.
const MAX_DETAIL_BYTES: usize = 1024;
const HEAD_BYTES: usize = 5;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Hello = 1,
    Welcome = 2,
    Infer = 3,
    Answer = 4,
    Refusal = 5,
}

impl Kind {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Hello, Self::Welcome, Self::Infer, Self::Answer, Self::Refusal]
            .into_iter()
            .find(|&kind| kind as u8 == number)
    }
}

/// The model that a worker serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Who signed it: the worker has verified the signature of the model, or of the index of its stages, under this key.
    pub verifying_key: VerifyingKey,
    /// Which model.
    pub id: ModelId,
    /// Which version of it.
    pub version: ModelVersion,
    /// Which sealed file.
    pub digest: SealDigest,
    /// What it takes, in this order.
    pub inputs: Vec<TensorSpec>,
    /// What it gives, in this order.
    pub outputs: Vec<TensorSpec>,
    /// What the outputs are results of, in the same order.
    pub endings: Vec<Ending>,
}

/// What the values of an output are. Encoded by its number: new ones go to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Logits, or anything else.
    Values,
    /// Probabilities that sum to 1.
    Softmax,
    /// Their logarithms.
    LogSoftmax,
    /// Probabilities, each for itself.
    Sigmoid,
}

impl ModelInfo {
    /// What is wrong with it, if something is.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn check(&self) -> Result<(), String> {
        for specs in [&self.inputs, &self.outputs] {
            if specs.is_empty() || specs.len() > MAX_TENSORS {
                return Err(format!("expected 1 to {MAX_TENSORS} inputs and outputs, found {}", specs.len()));
            }
            let odd = specs.iter().find(|s| s.shape.len() > MAX_RANK || s.name.len() > MAX_NAME_BYTES);
            if let Some(odd) = odd {
                let (name, rank) = (odd.name.len(), odd.shape.len());
                return Err(format!("a tensor with a name of {name} bytes and {rank} axes"));
            }
            if self.endings.len() != self.outputs.len() {
                return Err(format!("{} outputs and {} endings", self.outputs.len(), self.endings.len()));
            }
            if total(specs) > MAX_TENSOR_BYTES {
                return Err(format!(
                    "tensors of {} bytes, at most {MAX_TENSOR_BYTES} are allowed",
                    total(specs)
                ));
            }
        }
        Ok(())
    }
}

/// What a worker says first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) version: u16,
    /// [`privet_attest::Evidence::encode`].
    pub(crate) evidence: Vec<u8>,
    /// A [`ModelInfo`], as the evidence is bound to it.
    pub(crate) model: Vec<u8>,
}

/// SHA-256 of an encoded [`ModelInfo`], for the evidence.
pub(crate) fn model_hash(model: &[u8]) -> [u8; MODEL_HASH_BYTES] {
    Sha256::digest(model).into()
}

/// Why a worker does not answer. Encoded by its number: new ones go to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// A message that is not of the protocol, or too long.
    Protocol,
    /// Another version of the protocol.
    Version,
    /// Too many inputs wait already.
    Busy,
    /// There is no model yet.
    NotReady,
    /// The key may no longer be used.
    KeyEnded,
    /// The model does not run on this input, or something failed.
    Failed,
    /// The worker is being stopped.
    Stopping,
}

impl fmt::Display for RefusalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protocol => "not the protocol",
            Self::Version => "another version",
            Self::Busy => "busy",
            Self::NotReady => "not ready",
            Self::KeyEnded => "the key may no longer be used",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) kind: RefusalKind,
    pub(crate) detail: String,
}

impl Refusal {
    pub(crate) fn new(kind: RefusalKind, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        let end = (0..=MAX_DETAIL_BYTES).rev().find(|&at| detail.is_char_boundary(at)).unwrap_or(0);
        detail.truncate(end);
        Self { kind, detail }
    }
}

pub(crate) fn hello(nonce: &[u8; NONCE_BYTES]) -> Vec<u8> {
    [MAGIC.as_slice(), &WIRE_VERSION.to_le_bytes(), nonce].concat()
}

pub(crate) fn read_hello(bytes: &[u8]) -> Result<[u8; NONCE_BYTES], Refusal> {
    let (front, nonce) = bytes
        .split_at_checked(MAGIC.len() + 2)
        .filter(|(front, _)| front.starts_with(MAGIC))
        .ok_or_else(|| Refusal::new(RefusalKind::Protocol, "expected a hello, which begins with PRIVENCL"))?;
    let version = u16::from_le_bytes([front[8], front[9]]);
    if version != WIRE_VERSION {
        let detail = format!("version {version} of the messages; this worker speaks {WIRE_VERSION}");
        return Err(Refusal::new(RefusalKind::Version, detail));
    }
    let found = nonce.len();
    nonce.try_into().map_err(|_| {
        Refusal::new(
            RefusalKind::Protocol,
            format!("expected a nonce of {NONCE_BYTES} bytes, found {found} bytes"),
        )
    })
}

pub(crate) fn encode(message: &impl Serialize) -> Result<Vec<u8>, &'static str> {
    postcard::to_stdvec(message).map_err(|_| "a message does not encode")
}

/// A message with nothing behind it.
pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(format!("{} bytes too many", rest.len())),
        Err(e) => Err(format!("it does not decode: {e}")),
    }
}

/// The welcome, and the model in it, which is within the limits.
pub(crate) fn read_welcome(bytes: &[u8]) -> Result<(Welcome, ModelInfo), String> {
    // A later version may have other fields.
    let (version, _): (u16, _) =
        postcard::take_from_bytes(bytes).map_err(|e| format!("its welcome does not decode: {e}"))?;
    if version != WIRE_VERSION {
        return Err(format!("it speaks version {version} of the messages, this program {WIRE_VERSION}"));
    }
    let welcome: Welcome = decode(bytes).map_err(|problem| format!("its welcome: {problem}"))?;
    let model: ModelInfo = decode(&welcome.model).map_err(|problem| format!("its model: {problem}"))?;
    model.check()?;
    Ok((welcome, model))
}

pub(crate) fn number_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The numbers before the tensors of an answer, which are the request's and two times in microseconds; and the tensors' bytes.
///
/// # Errors
/// In words: it is too short.
pub(crate) fn read_answer(body: &[u8]) -> Result<([u64; 3], &[u8]), String> {
    let (numbers, tensors) = body
        .split_at_checked(ANSWER_FRONT)
        .ok_or_else(|| format!("expected {ANSWER_FRONT} bytes and tensors, found {} bytes", body.len()))?;
    let (numbers, _) = numbers.as_chunks::<8>();
    Ok(([0, 1, 2].map(|i| u64::from_le_bytes(numbers[i])), tensors))
}

/// The beginning of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) length: usize,
}

impl Head {
    /// Of a frame with at most `limit` bytes for its kind.
    pub(crate) fn parse(head: [u8; HEAD_BYTES], limit: impl Fn(Kind) -> u64) -> Result<Self, String> {
        let [number, length @ ..] = head;
        let kind =
            Kind::from_number(number).ok_or_else(|| format!("an unknown kind of message, {number}"))?;
        let (length, limit) = (u32::from_le_bytes(length), limit(kind));
        if u64::from(length) > limit {
            return Err(format!(
                "a message of kind {number} with {length} bytes; at most {limit} are expected"
            ));
        }
        Ok(Self { kind, length: length as usize })
    }
}

/// The head of the next frame; none where the peer has ended.
pub(crate) async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    limit: impl Fn(Kind) -> u64,
) -> io::Result<Option<Result<Head, String>>> {
    let mut head = [0; HEAD_BYTES];
    // Nothing at all is an end; a part of a head is none.
    if stream.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut head[1..]).await?;
    Ok(Some(Head::parse(head, limit)))
}

pub(crate) async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    head: Head,
) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut body = Zeroizing::new(vec![0; head.length]);
    stream.read_exact(&mut body).await?;
    Ok(body)
}

pub(crate) async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    kind: Kind,
    body: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(body.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut head = [kind as u8; HEAD_BYTES];
    head[1..].copy_from_slice(&length.to_le_bytes());
    stream.write_all(&head).await?;
    stream.write_all(body).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellos_of_others_are_refused() {
        let nonce = [7; NONCE_BYTES];
        let bytes = hello(&nonce);
        assert_eq!(bytes.len(), HELLO_BYTES);
        assert_eq!(read_hello(&bytes).unwrap(), nonce);
        let kind = |bytes: &[u8]| read_hello(bytes).unwrap_err().kind;
        assert_eq!(kind(&bytes[1..]), RefusalKind::Protocol);
        assert_eq!(kind(&bytes[..HELLO_BYTES - 1]), RefusalKind::Protocol);
        assert_eq!(kind(&[bytes.as_slice(), &[0]].concat()), RefusalKind::Protocol);
        let mut later = bytes.clone();
        later[8] = 1;
        assert_eq!(kind(&later), RefusalKind::Version);
        for length in 0..HELLO_BYTES {
            assert!(read_hello(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn frames_are_bounded_before_they_are_read() {
        let limit = |kind| if kind == Kind::Infer { 100 } else { 0 };
        assert_eq!(Head::parse([3, 100, 0, 0, 0], limit), Ok(Head { kind: Kind::Infer, length: 100 }));
        for head in [[3, 101, 0, 0, 0], [3, 0, 0, 0, 1], [2, 1, 0, 0, 0], [9, 0, 0, 0, 0]] {
            assert!(Head::parse(head, limit).is_err(), "{head:?}");
        }
    }

    #[test]
    fn words_of_refusals_are_short() {
        let refusal = Refusal::new(RefusalKind::Failed, "ö".repeat(2000));
        assert!(refusal.detail.len() <= MAX_DETAIL_BYTES && refusal.detail.len() > MAX_DETAIL_BYTES - 2);
        assert!(encode(&refusal).unwrap().len() <= MAX_REFUSAL_BYTES);
    }
}

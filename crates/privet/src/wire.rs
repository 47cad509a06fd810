//! Control messages between the parties. Every body is postcard-encoded and versioned by [`PROTOCOL_VERSION`].
//!
//! Party -> dealer: `Hello(DealerHello)`, plan if asked for, then requests; the dealer offers bundle halves one by one and
//! waits for each to be stored. Client -> server: `Hello(ClientHello)`, then either the offline exchange (plan, masked
//! weights, agreement on bundles) or inferences, for each of which the server first chooses one of the bundles on offer. Among three parties: `Hello(PartyHello)` both
//! ways, `PartyAgrees` both ways, then inferences.

use privet_net::handshake::{self, Hello, recv_hello, send_hello};
use privet_net::{Channel, Fingerprint, Frame, FrameKind, NetError};
use privet_plan::Digest;
use privet_protocols::masked::{RevealTo, Role};
use privet_ring::prg::Seed;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::sharing::SharingId;
use crate::store::{BundleId, EpochId};

/// Version of these messages and of everything they set in motion, the order of instructions and of draws from streams
/// included; peers of another version are refused.
pub const PROTOCOL_VERSION: u16 = 9;

const CONTROL: FrameKind = FrameKind::new(0x100);
/// One chunk of dealt material.
pub(crate) const CHUNK: FrameKind = FrameKind::new(0x101);
const BLOB: FrameKind = FrameKind::new(0x102);

/// Control messages hold names, not data.
const MAX_CONTROL: usize = 1 << 20;
/// Bundles that a pair of server and client may hold: their names fit one control message, their table stays small.
pub(crate) const MAX_BUNDLES: u64 = 10_000;
/// Bundles that a client offers at a time: always as many, so that the size of the message does not tell how many it has.
pub(crate) const OFFERED: usize = 4;
/// Messages one after the other before the first inference of a connection: the client's hello, the server's with its choice. Behind an
/// inference there are none, but two for every further offer.
pub(crate) const AGREEMENT_ROUNDS: u64 = 2;
/// Blobs travel in pieces of this size, so that a piece fits the writer's queue.
const BLOB_PIECE: usize = 4 << 20;

/// Why a party refuses a session; sent along with the reason in words.
pub(crate) mod refusal {
    /// The peer's role or name is not the one this session needs.
    pub(crate) const ROLE: u16 = 0x101;
    /// Another plan.
    pub(crate) const PLAN: u16 = 0x102;
    /// Another mask of the weights.
    pub(crate) const EPOCH: u16 = 0x103;
    /// One-time material that was used before, or is unknown.
    pub(crate) const MATERIAL: u16 = 0x104;
    /// Not in this phase.
    pub(crate) const PHASE: u16 = 0x105;
    /// Outputs may not be revealed like that.
    pub(crate) const REVEAL: u16 = 0x106;
    /// One side's state is an old copy.
    pub(crate) const ROLLBACK: u16 = 0x109;
    /// Shares of other weights or inputs.
    pub(crate) const SHARES: u16 = 0x10A;
    /// The message makes no sense.
    pub(crate) const MALFORMED: u16 = 0x107;
    /// This party cannot serve now, or not that much.
    pub(crate) const UNAVAILABLE: u16 = 0x108;
    /// An inference was agreed on, and no input came.
    pub(crate) const IDLE: u16 = 0x10B;
}

/// What a party asks the dealer for.
#[derive(Serialize, Deserialize)]
pub(crate) struct DealerHello {
    pub(crate) role: Role,
    pub(crate) plan: Digest,
    /// The other party of the inferences.
    pub(crate) partner: Fingerprint,
    /// `None` asks for a new mask of the weights; only the server may.
    pub(crate) epoch: Option<EpochId>,
}

/// The dealer's answer.
#[derive(Serialize, Deserialize)]
pub(crate) struct DealerWelcome {
    /// Whether the server has to send the plan.
    pub(crate) need_plan: bool,
}

/// The mask of the weights that the bundles of this session are for.
#[derive(Serialize, Deserialize)]
pub(crate) struct EpochGrant {
    pub(crate) epoch: EpochId,
    /// Seed of a new mask, for the server.
    pub(crate) seed: Option<Seed>,
}

/// What a party wants of the dealer next.
#[derive(Serialize, Deserialize)]
pub(crate) enum DealerRequest {
    /// This many bundle halves, first those whose other half has been given out.
    Some(u64),
    /// Exactly these.
    These(Vec<BundleId>),
    /// These were given up unused: their other halves are of no use to anyone.
    Forget(Vec<BundleId>),
    /// Nothing more.
    Done,
}

/// A bundle half on offer; chunks follow if it takes it and any are dealt to it. Sent as an option: nothing, if the bundle is
/// unknown or was given out before.
#[derive(Serialize, Deserialize)]
pub(crate) struct BundleOffer {
    pub(crate) id: BundleId,
    pub(crate) seed: Seed,
}

/// The party's answer to an offer, and its word that it has stored it.
#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
pub(crate) enum OfferReply {
    /// Go ahead.
    Take,
    /// Held already.
    Have,
    /// Durably stored.
    Stored,
}

/// What a client comes for.
#[derive(Serialize, Deserialize)]
pub(crate) enum ClientHello {
    /// Plan, masked weights, and agreement on bundles.
    Offline {
        /// The last session of this pair that the client knows of; `None` if its state is new.
        session: Option<u64>,
        /// The mask of the weights that it has agreed on last.
        epoch: Option<EpochId>,
    },
    /// Inferences, one after the other.
    Online {
        plan: Digest,
        epoch: EpochId,
        /// The last session of this pair that the client knows of.
        session: u64,
        /// How many, at least one and at most [`MAX_BUNDLES`]. It may leave earlier.
        inferences: u64,
        offer: Offer,
        reveal_to: RevealTo,
    },
}

/// What one of three parties says first, to both others.
#[derive(Serialize, Deserialize)]
pub(crate) struct PartyHello {
    /// Its number in the cluster.
    pub(crate) index: u8,
    pub(crate) plan: Digest,
    /// The weights it has a share of.
    pub(crate) weights: SharingId,
    /// The inputs it has shares of, in the order of the inferences.
    pub(crate) inputs: Vec<SharingId>,
    /// Digests of what both sides of this connection hold alike: a component of the weights, and of every input. They keep
    /// an owner from giving the parties shares that do not belong together.
    pub(crate) common: Vec<Digest>,
    /// Its part of the session's name.
    pub(crate) nonce: [u8; 16],
}

/// One of three parties has found nothing in the hellos of both others to refuse.
#[derive(Serialize, Deserialize)]
pub(crate) struct PartyAgrees;

/// Unused bundles the client holds, in order of preference, and after them names of none.
#[derive(Serialize, Deserialize)]
pub(crate) struct Offer(pub(crate) [BundleId; OFFERED]);

/// The server's answer.
#[derive(Serialize, Deserialize)]
pub(crate) enum ServerHello {
    /// What it serves.
    Offline {
        plan: Digest,
        plan_bytes: u64,
        epoch: EpochId,
        /// The last session of this pair.
        session: u64,
    },
    /// Plan, weights and receiver of the outputs are agreed on; a [`Choice`] follows, and another behind each inference but
    /// the last.
    Online,
}

/// The server's answer to an offer.
#[derive(Serialize, Deserialize)]
pub(crate) struct Choice {
    /// Offered ones that the server has used or lost: the client burns them.
    pub(crate) gone: Vec<BundleId>,
    /// `None` if it can use none of them; another [`Offer`] may follow.
    pub(crate) take: Option<Take>,
}

/// The bundle of the next inference.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Take {
    /// Burnt on the server's side.
    pub(crate) bundle: BundleId,
    /// The number of this inference.
    pub(crate) session: u64,
}

/// From the client, offline.
#[derive(Serialize, Deserialize)]
pub(crate) enum ClientMessage {
    /// What it does not have yet.
    Need { plan: bool, weights: bool },
    /// Still fetching from the dealer.
    Working,
    /// All unused bundles it holds for the plan and epoch; may be repeated.
    Ready(Vec<BundleId>),
    /// Nothing more.
    Done,
}

/// From the server, offline.
#[derive(Serialize, Deserialize)]
pub(crate) enum ServerMessage {
    /// Still fetching from the dealer.
    Working,
    /// What became of the client's bundles. Those in neither list the server does not allow yet.
    Prepared {
        /// Held on both sides.
        ready: Vec<BundleId>,
        /// Used or lost on the server's side: the client burns them.
        gone: Vec<BundleId>,
    },
}

fn malformed(channel: &dyn Channel, what: &'static str, problem: impl ToString) -> Error {
    NetError::Malformed { peer: channel.peer().to_string(), what, problem: problem.to_string() }.into()
}

/// Sends a hello with `body`.
pub(crate) fn greet(channel: &mut dyn Channel, body: &impl Serialize) -> Result<(), Error> {
    let body = postcard::to_stdvec(body).map_err(|e| malformed(channel, "own hello", e))?;
    let software = concat!("privet ", env!("CARGO_PKG_VERSION")).to_owned();
    Ok(send_hello(channel, &Hello { protocol_version: PROTOCOL_VERSION, software, body })?)
}

/// Receives a hello; a peer of another version is refused and told why.
pub(crate) fn greeted<T: DeserializeOwned>(channel: &mut dyn Channel) -> Result<T, Error> {
    let hello = recv_hello(channel)?;
    if hello.protocol_version != PROTOCOL_VERSION {
        let reason = format!(
            "protocol version {} ({}), this side speaks version {PROTOCOL_VERSION}; run the same Privet version on both",
            hello.protocol_version, hello.software
        );
        return Err(handshake::refuse(channel, handshake::code::VERSION, &reason).into());
    }
    match postcard::from_bytes(&hello.body) {
        Ok(body) => Ok(body),
        Err(e) => {
            Err(handshake::refuse(channel, refusal::MALFORMED, &format!("malformed hello: {e}")).into())
        }
    }
}

/// Refuses the session; the reason shows on both sides.
pub(crate) fn refuse(channel: &mut dyn Channel, code: u16, reason: &str) -> Error {
    handshake::refuse(channel, code, reason).into()
}

/// Refuses more bundles than [`MAX_BUNDLES`].
pub(crate) fn check_count(count: u64) -> Result<(), Error> {
    if count <= MAX_BUNDLES {
        return Ok(());
    }
    Err(Error::NotReady(format!(
        "--count {count}: material for at most {MAX_BUNDLES} inferences is held at a time"
    )))
}

/// Sends one control message.
pub(crate) fn send(channel: &mut dyn Channel, message: &impl Serialize) -> Result<(), Error> {
    let payload = postcard::to_stdvec(message).map_err(|e| malformed(channel, "own message", e))?;
    Ok(channel.send(Frame::new(CONTROL, payload))?)
}

/// Receives one control message.
pub(crate) fn receive<T: DeserializeOwned>(channel: &mut dyn Channel) -> Result<T, Error> {
    let payload = channel.recv_kind(CONTROL, MAX_CONTROL)?;
    postcard::from_bytes(&payload).map_err(|e| malformed(channel, "control message", e))
}

/// Sends bytes whose number the receiver knows.
pub(crate) fn send_blob(channel: &mut dyn Channel, bytes: &[u8]) -> Result<(), Error> {
    for piece in bytes.chunks(BLOB_PIECE) {
        channel.send(Frame::new(BLOB, piece.to_vec()))?;
    }
    Ok(())
}

/// Receives `len` bytes.
pub(crate) fn receive_blob(channel: &mut dyn Channel, len: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let expected = BLOB_PIECE.min(len - bytes.len());
        let piece = channel.recv_kind(BLOB, expected)?;
        if piece.len() != expected {
            return Err(malformed(
                channel,
                "transfer",
                format!("expected {expected} bytes, found {}", piece.len()),
            ));
        }
        bytes.extend(piece);
    }
    Ok(bytes)
}

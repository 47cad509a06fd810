//! The first exchange on a channel: versions and a caller-defined body, or a refusal with its reason.

use serde::{Deserialize, Serialize};

use crate::channel::Channel;
use crate::error::NetError;
use crate::frame::Frame;
use crate::kind::FrameKind;
use crate::text::printable;

/// A hello is a control message; its body holds digests and names, not data.
pub const MAX_HELLO_BYTES: usize = 1 << 20;

/// Longest reason that is sent or shown, in characters.
const MAX_REASON: usize = 2000;

/// Codes of refusals made by this crate; callers use 0x100 and up.
pub mod code {
    /// The two sides speak different protocol versions.
    pub const VERSION: u16 = 1;
}

/// What a party says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the caller's protocol.
    pub protocol_version: u16,
    /// Name and version of the program, for messages.
    pub software: String,
    /// The caller's own content.
    pub body: Vec<u8>,
}

/// Sends `hello`.
///
/// # Errors
/// As [`Channel::send`].
pub fn send_hello(channel: &mut dyn Channel, hello: &Hello) -> Result<(), NetError> {
    let payload = postcard::to_allocvec(hello).map_err(|e| NetError::Malformed {
        peer: "ourselves".to_owned(),
        what: "hello",
        problem: e.to_string(),
    })?;
    channel.send(Frame::new(FrameKind::HELLO, payload))
}

/// Receives the peer's hello without judging it.
///
/// # Errors
/// As [`Channel::recv_kind`], and [`NetError::Malformed`].
pub fn recv_hello(channel: &mut dyn Channel) -> Result<Hello, NetError> {
    let payload = channel.recv_kind(FrameKind::HELLO, MAX_HELLO_BYTES)?;
    postcard::from_bytes(&payload).map_err(|e| NetError::Malformed {
        peer: channel.peer().to_string(),
        what: "hello",
        problem: e.to_string(),
    })
}

/// Sends our hello, receives the peer's, and refuses another protocol version. Counts one round. Judging the body is
/// the caller's task; so is [`refuse`].
///
/// # Errors
/// [`NetError::Rejected`] on another version, [`NetError::Refused`] if the peer refused first, or a transport error.
pub fn exchange_hello(channel: &mut dyn Channel, ours: &Hello) -> Result<Hello, NetError> {
    send_hello(channel, ours)?;
    let theirs = recv_hello(channel)?;
    channel.count_round();
    if theirs.protocol_version == ours.protocol_version {
        return Ok(theirs);
    }
    let reason = format!(
        "protocol version {} ({}) where {} ({}) is needed; run the same Privet version on both sides",
        theirs.protocol_version,
        printable(&theirs.software, 60),
        ours.protocol_version,
        ours.software
    );
    Err(refuse(channel, code::VERSION, &reason))
}

/// Ends the session: the peer gets [`NetError::Refused`] with this reason, the caller the matching
/// [`NetError::Rejected`]. The channel is shut down; that the peer may be gone already changes nothing.
pub fn refuse(channel: &mut dyn Channel, code: u16, reason: &str) -> NetError {
    let reason = printable(reason, MAX_REASON);
    let refusal = Refusal { code, reason: reason.clone() };
    if let Ok(payload) = postcard::to_allocvec(&refusal)
        && channel.send(Frame::new(FrameKind::REFUSED, payload)).is_ok()
    {
        // The session is over either way; the reason we return is the one that matters.
        let _ = channel.shutdown();
    }
    NetError::Rejected { peer: channel.peer().to_string(), code, reason }
}

/// The error that an incoming [`FrameKind::REFUSED`] stands for.
pub(crate) fn refused(payload: &[u8], peer: String) -> NetError {
    match postcard::from_bytes::<Refusal>(payload) {
        Ok(refusal) => {
            NetError::Refused { peer, code: refusal.code, reason: printable(&refusal.reason, MAX_REASON) }
        }
        Err(e) => NetError::Malformed { peer, what: "refusal", problem: e.to_string() },
    }
}

/// Payload of a [`FrameKind::REFUSED`] frame.
#[derive(Serialize, Deserialize)]
struct Refusal {
    code: u16,
    reason: String,
}

//! Everything that can go wrong between two parties, with what was expected, what was found, and what to do.

use std::path::PathBuf;
use std::time::Duration;

use crate::fingerprint::Fingerprint;
use crate::kind::FrameKind;

/// Why a connection, a wait or a frame failed. `peer` and `address` say who was at the other end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// A wait ended without the thing waited for.
    #[error("gave up {what} after {waited:.1?}: the other side is slow, stuck or unreachable")]
    Timeout {
        /// What was waited for, and from whom.
        what: String,
        /// How long, without enough progress.
        waited: Duration,
    },
    /// The peer has gone.
    #[error("{peer} closed the connection{detail}")]
    Closed {
        /// Who.
        peer: String,
        /// How, starting with a separator, or empty.
        detail: String,
    },
    /// The connection ended inside a frame.
    #[error("{peer} closed the connection inside a frame: {found} of {expected} bytes arrived")]
    Truncated {
        /// Who.
        peer: String,
        /// Bytes of header and payload announced.
        expected: usize,
        /// Bytes that arrived.
        found: usize,
    },
    /// A frame is larger than the receiver, or the format, allows.
    #[error("frame of {announced} bytes from or to {peer}, where at most {limit} are allowed")]
    TooLarge {
        /// Who.
        peer: String,
        /// Announced payload bytes.
        announced: usize,
        /// Allowed payload bytes.
        limit: usize,
    },
    /// A frame was lost, repeated or reordered.
    #[error("{peer} sent frame number {found} where number {expected} was due: a frame was lost or repeated")]
    Sequence {
        /// Who.
        peer: String,
        /// The next number due.
        expected: u32,
        /// The number found.
        found: u32,
    },
    /// A frame of another kind than the protocol has at this point.
    #[error("{peer} sent a frame of kind {found} where {expected} was due: the two sides are out of step")]
    UnexpectedKind {
        /// Who.
        peer: String,
        /// The kind due.
        expected: FrameKind,
        /// The kind found.
        found: FrameKind,
    },
    /// The peer's bytes do not decode.
    #[error("malformed {what} from {peer}: {problem}")]
    Malformed {
        /// Who.
        peer: String,
        /// What should have been there.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The peer refused this session and said why.
    #[error("{peer} refused the session: {reason}")]
    Refused {
        /// Who refused.
        peer: String,
        /// The caller's code for the reason.
        code: u16,
        /// The reason in words.
        reason: String,
    },
    /// We refused the peer's session, and have told it why.
    #[error("refused the session of {peer}: {reason}")]
    Rejected {
        /// Who was refused.
        peer: String,
        /// The caller's code for the reason.
        code: u16,
        /// The reason in words.
        reason: String,
    },
    /// The other end of the TCP connection does not speak TLS.
    #[error("{address} did not speak TLS ({found}); expected a Privet party over TLS 1.3")]
    NotTls {
        /// Remote address.
        address: String,
        /// What its first bytes look like.
        found: String,
    },
    /// The peer's certificate is not pinned here.
    #[error(
        "{address} presented certificate {} which is not pinned here; known peers: {known}. If it is the right \
         party, add its identity.crt to this party's configuration",
        found.short()
    )]
    UnknownCertificate {
        /// Remote address.
        address: String,
        /// What it presented.
        found: Fingerprint,
        /// Names and fingerprints of the pinned peers.
        known: String,
    },
    /// The peer presented no certificate.
    #[error("{address} presented no certificate; expected one of the known peers: {known}")]
    NoCertificate {
        /// Remote address.
        address: String,
        /// Names and fingerprints of the pinned peers.
        known: String,
    },
    /// The peer does not accept our certificate.
    #[error(
        "{address} refused our certificate {} ({alert}): its configuration does not list it; give that party our \
         identity.crt",
        ours.short()
    )]
    CertificateRefused {
        /// Remote address.
        address: String,
        /// Our certificate.
        ours: Fingerprint,
        /// The TLS alert it sent.
        alert: String,
    },
    /// The peer speaks another protocol, or another version of this one, inside TLS.
    #[error("{address} does not speak {expected}: it {found}. Run the same Privet version on both sides")]
    WrongProtocol {
        /// Remote address.
        address: String,
        /// Our protocol and version.
        expected: String,
        /// What the peer did.
        found: String,
    },
    /// The peer speaks an older TLS.
    #[error("{address} does not speak TLS 1.3, the only version allowed here ({detail})")]
    WrongTlsVersion {
        /// Remote address.
        address: String,
        /// What TLS had to say.
        detail: String,
    },
    /// Any other failure of TLS: forged or damaged records, bad signatures.
    #[error("TLS with {peer} failed: {detail}")]
    Tls {
        /// Who.
        peer: String,
        /// What TLS had to say.
        detail: String,
    },
    /// No connection could be made.
    #[error(
        "cannot connect to {address} within {tried_for:.1?}: {detail}; is the other party running there?"
    )]
    Connect {
        /// Where.
        address: String,
        /// For how long it was tried.
        tried_for: Duration,
        /// The last attempt's failure.
        detail: String,
    },
    /// The listening socket failed.
    #[error("cannot listen on {address}: {detail}")]
    Listen {
        /// Where.
        address: String,
        /// The system's reason.
        detail: String,
    },
    /// The caller asked a wait to stop.
    #[error("stopped {what}")]
    Stopped {
        /// What was waited for.
        what: String,
    },
    /// A key or certificate cannot be used.
    #[error("{}: {problem}", path.display())]
    Identity {
        /// The file, or the party's name where there is none.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The operating system failed a call on the connection.
    #[error("connection to {peer} failed while {doing}: {detail}")]
    Io {
        /// Who.
        peer: String,
        /// What was being done.
        doing: &'static str,
        /// The system's reason.
        detail: String,
    },
}

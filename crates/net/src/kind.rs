//! The kinds of frames.

use std::fmt;

/// What a frame carries. Kinds below 0x100 belong to this crate, the others to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameKind(u16);

impl FrameKind {
    /// A [`crate::handshake::Hello`].
    pub const HELLO: FrameKind = FrameKind(1);
    /// A refusal with its reason; [`crate::Channel::recv`] turns it into [`crate::NetError::Refused`].
    pub const REFUSED: FrameKind = FrameKind(2);

    /// A caller's kind.
    ///
    /// # Panics
    /// On a code below 0x100; in a `const` that is a compile error.
    pub const fn new(code: u16) -> FrameKind {
        assert!(code >= 0x100, "frame kinds below 0x100 are reserved");
        FrameKind(code)
    }

    /// The kind with this number on the wire, whoever it belongs to.
    pub(crate) const fn from_wire(code: u16) -> FrameKind {
        FrameKind(code)
    }

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        self.0
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            FrameKind::HELLO => f.write_str("HELLO"),
            FrameKind::REFUSED => f.write_str("REFUSED"),
            FrameKind(code) => write!(f, "{code:#06x}"),
        }
    }
}

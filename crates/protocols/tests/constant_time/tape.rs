//! A channel that keeps what it receives, or one that gives it once more and takes what is sent to nobody.

use std::collections::VecDeque;
use std::time::Duration;

use privet_net::memory::MemoryChannel;
use privet_net::{Channel, Frame, FrameKind, NetError, Peer, Traffic};

/// The kind of the frames by which two parties open wires to each other.
pub(crate) const OPENING: FrameKind = FrameKind::new(0x200);

pub(crate) enum Tape {
    /// With all that came over the channel.
    Live(Box<MemoryChannel>, Vec<Frame>),
    /// What is still to come.
    Played(VecDeque<Frame>),
}

impl Tape {
    pub(crate) fn live(channel: MemoryChannel) -> Self {
        Self::Live(Box::new(channel), Vec::new())
    }

    pub(crate) fn played(frames: &[Frame]) -> Self {
        Self::Played(frames.iter().map(|frame| Frame::new(frame.kind, frame.payload.clone())).collect())
    }

    /// What was received.
    pub(crate) fn into_frames(self) -> Vec<Frame> {
        match self {
            Self::Live(_, received) => received,
            Self::Played(_) => unreachable!("nothing is kept of what is on record"),
        }
    }
}

impl Channel for Tape {
    fn send(&mut self, frame: Frame) -> Result<(), NetError> {
        match self {
            Self::Live(channel, _) => channel.send(frame),
            Self::Played(_) => Ok(()),
        }
    }
    fn recv(&mut self, max_len: usize) -> Result<Frame, NetError> {
        match self {
            Self::Live(channel, received) => {
                let frame = channel.recv(max_len)?;
                received.push(Frame::new(frame.kind, frame.payload.clone()));
                Ok(frame)
            }
            Self::Played(frames) => Ok(frames.pop_front().expect("a frame on record")),
        }
    }
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }
    fn peer(&self) -> &Peer {
        unreachable!("no peer is needed")
    }
    fn set_deadline(&mut self, _: Duration) {}
    fn count_round(&mut self) {}
    fn flush(&mut self) -> Result<(), NetError> {
        Ok(())
    }
    fn shutdown(&mut self) -> Result<(), NetError> {
        Ok(())
    }
}

//! Two channels joined in memory, for tests and for parties that are threads.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::channel::{Channel, MAX_QUEUED, Peer, Traffic};
use crate::error::NetError;
use crate::fault::{Fault, Link};
use crate::fingerprint::Fingerprint;
use crate::frame::{Frame, HEADER_BYTES, Header, Message};
use crate::handshake;
use crate::kind::FrameKind;

/// Two ends of one connection. Each wait on either ends after `deadline`.
pub fn pair(deadline: Duration) -> (MemoryChannel, MemoryChannel) {
    faulty_pair(deadline, Vec::new(), Vec::new())
}

/// [`pair`], with faults in what the left end sends and in what the right end sends.
#[doc(hidden)]
pub fn faulty_pair(
    deadline: Duration,
    left: Vec<Fault>,
    right: Vec<Fault>,
) -> (MemoryChannel, MemoryChannel) {
    let pipes = [Arc::new(Pipe::default()), Arc::new(Pipe::default())];
    let end = |mine: usize, name: &str, faults| MemoryChannel {
        outgoing: pipes[mine].clone(),
        incoming: pipes[1 - mine].clone(),
        link: Link::new(faults),
        peer: Peer {
            name: name.to_owned(),
            fingerprint: Fingerprint::of(name.as_bytes()),
            address: "memory".to_owned(),
        },
        deadline,
        traffic: Traffic::default(),
        next_sent: 0,
        next_due: 0,
    };
    (end(0, "right", left), end(1, "left", right))
}

/// One end of a [`pair`].
pub struct MemoryChannel {
    outgoing: Arc<Pipe>,
    incoming: Arc<Pipe>,
    link: Link,
    peer: Peer,
    deadline: Duration,
    traffic: Traffic,
    next_sent: u32,
    next_due: u32,
}

impl Channel for MemoryChannel {
    fn send(&mut self, frame: Frame) -> Result<(), NetError> {
        let header = Header::of(&frame, self.next_sent, &self.peer.to_string())?;
        self.next_sent = self.next_sent.wrapping_add(1);
        self.traffic.count_sent(&frame);
        self.traffic.wire_sent += frame.wire_bytes();
        let message = Message { header: header.encode(), payload: frame.payload };
        let (messages, cut) = self.link.carry(message);
        let outgoing = self.outgoing.clone();
        let mut pipe = outgoing
            .wait(self.deadline, "sending to", &self.peer, |pipe| pipe.left || pipe.queued < MAX_QUEUED)?;
        if pipe.left {
            return Err(self.closed());
        }
        for message in messages {
            pipe.queued += message.payload.len();
            pipe.messages.push_back(message);
        }
        pipe.ended |= cut;
        drop(pipe);
        outgoing.changed.notify_all();
        Ok(())
    }

    fn recv(&mut self, max_len: usize) -> Result<Frame, NetError> {
        let incoming = self.incoming.clone();
        let mut pipe = incoming.wait(self.deadline, "receiving from", &self.peer, |pipe| {
            pipe.ended || !pipe.messages.is_empty()
        })?;
        let peer = self.peer.to_string();
        let Some(message) = pipe.messages.front() else {
            return Err(self.closed());
        };
        let header = Header::decode(message.header, self.next_due, &peer)?;
        let announced = header.length as usize;
        if header.kind != FrameKind::REFUSED && announced > max_len {
            return Err(NetError::TooLarge { peer, announced, limit: max_len });
        }
        let found = message.payload.len();
        if found != announced {
            let (expected, found) = (HEADER_BYTES + announced, HEADER_BYTES + found);
            return Err(NetError::Truncated { peer, expected, found });
        }
        let payload = pipe.messages.pop_front().map(|message| message.payload).unwrap_or_default();
        pipe.queued -= payload.len();
        drop(pipe);
        incoming.changed.notify_all();
        self.next_due = self.next_due.wrapping_add(1);
        let frame = Frame { kind: header.kind, payload };
        self.traffic.count_received(&frame);
        self.traffic.wire_received += frame.wire_bytes();
        if frame.kind == FrameKind::REFUSED {
            return Err(handshake::refused(&frame.payload, peer));
        }
        Ok(frame)
    }

    fn traffic(&self) -> Traffic {
        self.traffic
    }

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn set_deadline(&mut self, per_wait: Duration) {
        self.deadline = per_wait;
    }

    fn count_round(&mut self) {
        self.traffic.rounds += 1;
    }

    fn flush(&mut self) -> Result<(), NetError> {
        Ok(())
    }

    fn shutdown(&mut self) -> Result<(), NetError> {
        self.outgoing.lock().ended = true;
        self.outgoing.changed.notify_all();
        Ok(())
    }
}

impl MemoryChannel {
    fn closed(&self) -> NetError {
        NetError::Closed { peer: self.peer.to_string(), detail: String::new() }
    }
}

impl Drop for MemoryChannel {
    fn drop(&mut self) {
        self.outgoing.lock().ended = true;
        self.incoming.lock().left = true;
        self.outgoing.changed.notify_all();
        self.incoming.changed.notify_all();
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    state: Mutex<PipeState>,
    changed: Condvar,
}

#[derive(Default)]
struct PipeState {
    messages: VecDeque<Message>,
    queued: usize,
    /// The sender will send no more.
    ended: bool,
    /// The receiver has gone.
    left: bool,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready`.
    fn wait(
        &self,
        deadline: Duration,
        doing: &str,
        peer: &Peer,
        ready: impl Fn(&PipeState) -> bool,
    ) -> Result<MutexGuard<'_, PipeState>, NetError> {
        let start = Instant::now();
        let mut state = self.lock();
        while !ready(&state) {
            let Some(left) = deadline.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else {
                return Err(NetError::Timeout { what: format!("{doing} {peer}"), waited: start.elapsed() });
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(state)
    }
}

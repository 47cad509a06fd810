//! Lanes: a gate over many elements is cut into lanes, and while the message of one travels the others compute.
//!
//! A gate is straight-line code that waits for the peer once a round. Its lanes are futures that take turns on the thread of
//! the session: each computes and sends its message of a round, lets the next lane do the same, and receives the peer's when
//! it is its turn again. Both parties cut alike and turns are taken in order, so the order of all frames is fixed, and
//! nothing has to say which lane a frame belongs to. What a lane works on stays in the cache.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use privet_net::{Channel, Frame, FrameKind};

use crate::ProtocolError;

/// Elements of a lane, about. Dealer and both parties have to cut alike, days apart: with this number, or how things are cut,
/// change the versions of the protocol and of bundle files.
pub(super) const LANE: usize = 1 << 16;

/// Bytes sent whose answers are not received yet, beyond which a party receives before it sends more: less than what
/// connections queue, so that two parties that only send do not wait for each other.
const MAX_UNDER_WAY: usize = 4 << 20;

/// Kind of the frames that carry openings.
const OPENING: FrameKind = FrameKind::new(0x200);

/// Cuts `units` of `size` elements each into lanes of about `lane` elements: ranges of units. Lanes of single elements are
/// whole words of bit planes, but the last one.
pub(super) fn cut(units: usize, size: usize, lane: usize) -> Vec<Range<usize>> {
    let lanes = (units * size / lane).max(1);
    let granule = if size == 1 { 64 } else { 1 };
    let step = units.div_ceil(lanes).next_multiple_of(granule).max(1);
    (0..units.max(1)).step_by(step).map(|start| start..(start + step).min(units)).collect()
}

/// Polls all lanes in turn until all are done. Errors as soon as one does. Nothing wakes a lane: it may wait by [`turn`] only.
pub(super) fn take_turns<T, F: Future<Output = Result<T, ProtocolError>>>(
    lanes: impl Iterator<Item = F>,
) -> Result<Vec<T>, ProtocolError> {
    let mut lanes: Vec<_> = lanes.map(|lane| (Box::pin(lane), None)).collect();
    let mut context = Context::from_waker(Waker::noop());
    loop {
        let mut waiting = false;
        for (lane, result) in lanes.iter_mut().filter(|(_, result)| result.is_none()) {
            match lane.as_mut().poll(&mut context)? {
                Poll::Ready(value) => *result = Some(value),
                Poll::Pending => waiting = true,
            }
        }
        if !waiting {
            return Ok(lanes.into_iter().filter_map(|(_, result)| result).collect());
        }
    }
}

/// Runs what has no other lane.
pub(super) fn alone<T>(lane: impl Future<Output = Result<T, ProtocolError>>) -> Result<T, ProtocolError> {
    let mut lane = pin!(lane);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(result) = lane.as_mut().poll(&mut context) {
            return result;
        }
    }
}

/// Lets the other lanes take their turns.
pub(super) async fn turn() {
    let mut taken = false;
    poll_fn(|_| if std::mem::replace(&mut taken, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// The channel to the peer, as lanes share it.
pub(super) trait Link {
    /// Sends a message; the peer answers with `answer` bytes, which are received in the order of the messages.
    fn send(&self, payload: Vec<u8>, answer: Option<usize>) -> Result<(), ProtocolError>;

    /// The answer to the oldest message that has none yet.
    fn answer(&self) -> Result<Vec<u8>, ProtocolError>;

    /// A message of `len` bytes that answers nothing.
    fn receive(&self, len: usize) -> Result<Vec<u8>, ProtocolError>;

    /// Adds one to the rounds.
    fn count_round(&self);
}

/// A [`Link`] over a channel.
pub(super) struct Shared<'c>(RefCell<State<'c>>);

struct State<'c> {
    channel: &'c mut dyn Channel,
    /// Lengths of the answers under way, the oldest first.
    expected: VecDeque<usize>,
    /// Answers received before their lane's turn.
    early: VecDeque<Vec<u8>>,
}

impl<'c> Shared<'c> {
    pub(super) fn new(channel: &'c mut dyn Channel) -> Self {
        Self(RefCell::new(State { channel, expected: VecDeque::new(), early: VecDeque::new() }))
    }

    /// Waits until everything sent has been handed on.
    pub(super) fn flush(self) -> Result<(), ProtocolError> {
        Ok(self.0.into_inner().channel.flush()?)
    }
}

impl Link for Shared<'_> {
    fn send(&self, payload: Vec<u8>, answer: Option<usize>) -> Result<(), ProtocolError> {
        let state = &mut *self.0.borrow_mut();
        while !state.expected.is_empty()
            && state.expected.iter().sum::<usize>() + payload.len() > MAX_UNDER_WAY
        {
            let answer = state.next_answer()?;
            state.early.push_back(answer);
        }
        state.expected.extend(answer);
        Ok(state.channel.send(Frame::new(OPENING, payload))?)
    }

    fn answer(&self) -> Result<Vec<u8>, ProtocolError> {
        let state = &mut *self.0.borrow_mut();
        match state.early.pop_front() {
            Some(answer) => Ok(answer),
            None => state.next_answer(),
        }
    }

    fn receive(&self, len: usize) -> Result<Vec<u8>, ProtocolError> {
        self.0.borrow_mut().receive(len)
    }

    fn count_round(&self) {
        self.0.borrow_mut().channel.count_round();
    }
}

impl State<'_> {
    fn next_answer(&mut self) -> Result<Vec<u8>, ProtocolError> {
        let len = self.expected.pop_front().expect("a lane sends before it receives");
        self.receive(len)
    }

    fn receive(&mut self, expected: usize) -> Result<Vec<u8>, ProtocolError> {
        let payload = self.channel.recv_kind(OPENING, expected)?;
        if payload.len() == expected {
            return Ok(payload);
        }
        Err(ProtocolError::Size { what: "opening from the peer".to_owned(), expected, found: payload.len() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lanes_cover_everything_once() {
        for (units, size, lane) in
            [(0, 1, 64), (1, 1, 64), (200, 1, 64), (1 << 20, 1, LANE), (7, 100, 150), (64, 12544, LANE)]
        {
            let cut = cut(units, size, lane);
            assert_eq!(cut.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..units).collect::<Vec<_>>());
            assert!(
                !cut.is_empty() && cut.len() <= (units * size / lane).max(1),
                "{units} of {size}: {cut:?}"
            );
            assert!(size > 1 || cut.iter().all(|lane| lane.start % 64 == 0));
        }
    }

    #[test]
    fn lanes_take_turns_and_an_error_ends_all() {
        let log = RefCell::new(Vec::new());
        let lane = |name, turns: usize, fails| {
            let log = &log;
            async move {
                for round in 0..turns {
                    log.borrow_mut().push((name, round));
                    turn().await;
                }
                if fails { Err(ProtocolError::Mismatch("no".to_owned())) } else { Ok(name) }
            }
        };
        assert_eq!(take_turns([lane('a', 2, false), lane('b', 1, false)].into_iter()).unwrap(), ['a', 'b']);
        assert_eq!(*log.borrow(), [('a', 0), ('b', 0), ('a', 1)]);
        log.borrow_mut().clear();
        assert!(take_turns([lane('a', 1, true), lane('b', 5, false)].into_iter()).is_err());
        assert_eq!(*log.borrow(), [('a', 0), ('b', 0)]);
    }

    #[test]
    fn answers_find_their_lanes_however_far_a_party_is_ahead() {
        // Eight lanes send twice what may be under way; the last one does alone. All messages differ in length.
        let size = |lane: usize| if lane == 8 { MAX_UNDER_WAY + 1 } else { MAX_UNDER_WAY / 4 + lane };
        let party = |channel: &mut dyn Channel, own: u8| {
            let link = Shared::new(channel);
            let lane = async |lane: usize| {
                for round in 0..3 {
                    let message = |from: u8| vec![from + (10 * lane + round) as u8; size(lane)];
                    link.send(message(own), Some(size(lane)))?;
                    turn().await;
                    assert!(link.answer()? == message(128 - own), "lane {lane}, round {round}");
                }
                Ok(lane)
            };
            let lanes = take_turns((0..9).map(lane)).unwrap();
            assert_eq!(lanes, (0..9).collect::<Vec<_>>());
            link.flush().unwrap();
        };
        let (mut a, mut b) = privet_net::memory::pair(Duration::from_secs(60));
        std::thread::scope(|scope| {
            scope.spawn(|| party(&mut a, 0));
            party(&mut b, 128);
        });
    }

    #[test]
    fn an_opening_of_another_length_is_refused() {
        for len in [0, 7, 9] {
            let (mut a, mut b) = privet_net::memory::pair(Duration::from_secs(60));
            a.send(Frame::new(OPENING, vec![0; len])).unwrap();
            let link = Shared::new(&mut b);
            link.send(vec![0; 8], Some(8)).unwrap();
            assert!(link.answer().is_err(), "{len} bytes");
        }
    }
}

//! Faults for tests: what a bad network, or a broken peer, does to frames below the sequence numbers.

use std::thread;
use std::time::Duration;

use crate::frame::Message;

/// One fault, at the frame with this number (counted from 0 per direction).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The frame never arrives.
    Drop(u32),
    /// The frame arrives twice.
    Duplicate(u32),
    /// The frame arrives after its successor.
    Swap(u32),
    /// One payload byte is flipped (a byte of the sequence number if there is no payload).
    Corrupt(u32),
    /// The last payload byte is missing (the frame stays whole if there is none).
    Truncate(u32),
    /// The frame arrives late.
    Delay(u32, Duration),
    /// The connection ends instead of the frame.
    Cut(u32),
    /// A broken peer: the frame is whole, but one byte shorter (as it was if it is empty).
    Shorten(u32),
    /// A broken peer: the frame is whole, but one byte longer.
    Lengthen(u32),
    /// A broken peer: the frame is of another kind.
    Relabel(u32),
}

/// The faults of one direction, applied to what passes.
pub(crate) struct Link {
    faults: Vec<Fault>,
    number: u32,
    held: Option<Message>,
    cut: bool,
}

impl Link {
    pub(crate) fn new(faults: Vec<Fault>) -> Link {
        Link { faults, number: 0, held: None, cut: false }
    }

    /// What arrives when `message` is sent, and whether the connection ends after it.
    pub(crate) fn carry(&mut self, mut message: Message) -> (Vec<Message>, bool) {
        let number = self.number;
        self.number = number.wrapping_add(1);
        let hit = |fault: &&Fault| {
            let (Fault::Drop(at)
            | Fault::Duplicate(at)
            | Fault::Swap(at)
            | Fault::Corrupt(at)
            | Fault::Truncate(at)
            | Fault::Delay(at, _)
            | Fault::Cut(at)
            | Fault::Shorten(at)
            | Fault::Lengthen(at)
            | Fault::Relabel(at)) = **fault;
            at == number
        };
        let fault = self.faults.iter().find(hit).copied();
        let mut arriving = Vec::new();
        match fault {
            _ if self.cut => return (arriving, true),
            Some(Fault::Cut(_)) => self.cut = true,
            Some(Fault::Drop(_)) => {}
            Some(Fault::Swap(_)) => {
                self.held = Some(message);
                return (arriving, false);
            }
            Some(Fault::Duplicate(_)) => arriving.extend([message.clone(), message]),
            Some(Fault::Corrupt(_)) => {
                let middle = message.payload.len() / 2;
                *message.payload.get_mut(middle).unwrap_or(&mut message.header[9]) ^= 0x10;
                arriving.push(message);
            }
            Some(Fault::Truncate(_)) => {
                message.payload.pop();
                arriving.push(message);
            }
            Some(Fault::Delay(_, time)) => {
                thread::sleep(time);
                arriving.push(message);
            }
            Some(Fault::Shorten(_)) => {
                message.payload.pop();
                arriving.push(message.announced());
            }
            Some(Fault::Lengthen(_)) => {
                message.payload.push(0);
                arriving.push(message.announced());
            }
            Some(Fault::Relabel(_)) => {
                message.header[5] ^= 0x40;
                arriving.push(message);
            }
            None => arriving.push(message),
        }
        arriving.extend(self.held.take());
        (arriving, self.cut)
    }
}

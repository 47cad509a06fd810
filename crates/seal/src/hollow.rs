//! The graph of a sealed ONNX file as an ONNX file of its own, without its tensors' data.

use zeroize::Zeroizing;

use crate::header::{Entry, Kind};
use crate::onnx::{MAX_DEPTH, Message};
use crate::reader::ReadAt;
use crate::{OpenedModel, SealError, Swap};

/// Bytes that stand for a tensor's data, at most.
const REFERENCE_BYTES: usize = 64;

impl<S: ReadAt> OpenedModel<S> {
    /// The graph as an ONNX file in which every sealed tensor is *external data* (`data_location` 1, as for tensors in other
    /// files), with the location `entry N`: whoever runs it takes the data from entry N. Other tensors are as they were.
    ///
    /// # Errors
    /// If what was sealed is no ONNX file, and as [`OpenedModel::chunk`].
    pub fn graph(&self) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let fail =
            |problem: &str| SealError::Sealed { name: self.name().to_owned(), problem: problem.to_owned() };
        if self.header().kind != Kind::Onnx {
            return Err(fail("expected a sealed ONNX file, found the sealed state of a module"));
        }
        let graph = self.entry(0, Swap::Allowed)?;
        let mut hollow = Hollow { graph: &graph, at: 0, entries: self.entries(), next: 1, cut: 0 };
        let length = self.header().plain_bytes();
        hollow.message(Message::Model, length, 0).ok_or_else(|| fail("its graph is not that of an ONNX file"))
    }
}

/// Where one is in the graph, and in the file that it was.
struct Hollow<'a> {
    graph: &'a [u8],
    at: usize,
    entries: &'a [Entry],
    /// The next entry whose data was cut out.
    next: usize,
    /// Bytes that were cut out so far.
    cut: u64,
}

impl Hollow<'_> {
    /// A message that ended at `end` of the file; `None` if it is malformed.
    fn message(&mut self, message: Message, end: u64, depth: usize) -> Option<Zeroizing<Vec<u8>>> {
        if depth > MAX_DEPTH {
            return None;
        }
        let left = usize::try_from(end.checked_sub(self.position())?).ok()?.min(self.graph.len() - self.at);
        // All at once, so that no copies are left where a vector has grown.
        let mut out =
            Zeroizing::new(Vec::with_capacity(left + REFERENCE_BYTES * (self.entries.len() - self.next)));
        while self.position() < end {
            let tag = self.varint()?;
            let kind = tag & 7;
            if kind == 2 {
                let length = self.varint()?;
                if self.entries.get(self.next).is_some_and(|e| e.at == self.at as u64 && e.length == length) {
                    out.extend(reference(self.next));
                    self.cut = self.cut.checked_add(length)?;
                    self.next += 1;
                    continue;
                }
                put_varint(tag, &mut out);
                match message.inside(tag >> 3) {
                    Some(inner) => {
                        let inner = self.message(inner, self.position().checked_add(length)?, depth + 1)?;
                        put_varint(inner.len() as u64, &mut out);
                        out.extend_from_slice(&inner);
                    }
                    None => {
                        put_varint(length, &mut out);
                        out.extend_from_slice(self.take(usize::try_from(length).ok()?)?);
                    }
                }
                continue;
            }
            put_varint(tag, &mut out);
            match kind {
                0 => put_varint(self.varint()?, &mut out),
                1 => out.extend_from_slice(self.take(8)?),
                5 => out.extend_from_slice(self.take(4)?),
                _ => return None,
            }
        }
        (self.position() == end).then_some(out)
    }

    /// Where this was in the file.
    fn position(&self) -> u64 {
        self.at as u64 + self.cut
    }

    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(len)?;
        let bytes = self.graph.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

/// Fields of a tensor: `external_data` with the entry `location`, and `data_location` EXTERNAL.
fn reference(entry: usize) -> Vec<u8> {
    let location = format!("entry {entry}");
    let pair = [&[0x0a, 8][..], b"location", &[0x12, location.len() as u8], location.as_bytes()].concat();
    [&[0x6a, pair.len() as u8][..], &pair, &[0x70, 1]].concat()
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

//! Follows the fields of a protobuf message in a file by their lengths, without reading what they hold.

use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use crate::OnnxError;
use crate::file::Place;

/// A field of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    /// Its number.
    pub(crate) tag: u32,
    /// What it holds.
    pub(crate) content: Content,
    /// Where it begins, tag included.
    start: u64,
    /// Where the next one begins.
    pub(crate) end: u64,
}

impl Field {
    /// The field with its tag.
    pub(crate) fn whole(&self) -> Place {
        Place { offset: self.start, len: self.end - self.start }
    }
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content {
    /// A message, a string, or a packed list.
    Bytes(Place),
    /// A number.
    Number,
}

/// A place in a file, or in its bytes.
#[derive(Debug)]
pub(crate) struct Scanner<R> {
    path: PathBuf,
    file: BufReader<R>,
    at: u64,
    size: u64,
}

impl<R: Read + Seek> Scanner<R> {
    /// At the beginning of a file of `size` bytes.
    pub(crate) fn new(path: &Path, file: R, size: u64) -> Self {
        Self { path: path.to_owned(), file: BufReader::new(file), at: 0, size }
    }

    /// The field that begins here, in a message that ends at `end`. Does not go on to the next one.
    pub(crate) fn field(&mut self, end: u64) -> Result<Option<Field>, OnnxError> {
        if self.at >= end {
            return Ok(None);
        }
        let start = self.at;
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).map_err(|_| malformed("a field number of 32 bits", start))?;
        let (content, next) = match key & 7 {
            0 => {
                self.varint()?;
                (Content::Number, Some(self.at))
            }
            1 => (Content::Number, self.at.checked_add(8)),
            5 => (Content::Number, self.at.checked_add(4)),
            2 => {
                let len = self.varint()?;
                (Content::Bytes(Place { offset: self.at, len }), self.at.checked_add(len))
            }
            _ => return Err(malformed("a field of a known kind", start)),
        };
        let end =
            next.filter(|&next| next <= end).ok_or_else(|| malformed("a field inside its message", start))?;
        Ok(Some(Field { tag, content, start, end }))
    }

    /// Goes to a place in the file.
    pub(crate) fn seek(&mut self, to: u64) -> Result<(), OnnxError> {
        let by = to as i64 - self.at as i64;
        self.file.seek_relative(by).map_err(|e| self.io(e))?;
        self.at = to;
        Ok(())
    }

    /// The bytes of a place, which lies inside the file.
    pub(crate) fn read(&mut self, place: Place) -> Result<Vec<u8>, OnnxError> {
        if place.offset.checked_add(place.len).is_none_or(|end| end > self.size) {
            return Err(malformed("bytes inside the file", place.offset));
        }
        self.seek(place.offset)?;
        let mut bytes = vec![0; place.len as usize];
        self.file.read_exact(&mut bytes).map_err(|e| self.io(e))?;
        self.at += place.len;
        Ok(bytes)
    }

    fn varint(&mut self) -> Result<u64, OnnxError> {
        let (start, mut value) = (self.at, 0u64);
        for shift in (0..64).step_by(7) {
            let byte = match self.file.fill_buf() {
                Ok([byte, ..]) => *byte,
                Ok([]) => return Err(malformed("more bytes", start)),
                Err(error) => return Err(self.io(error)),
            };
            self.file.consume(1);
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed("a number of 64 bits", start))
    }

    fn io(&self, source: std::io::Error) -> OnnxError {
        OnnxError::Io { path: self.path.clone(), source }
    }
}

fn malformed(expected: &str, at: u64) -> OnnxError {
    OnnxError::Protobuf(format!("expected {expected}, found none at byte {at}"))
}

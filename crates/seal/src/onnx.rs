//! Where the data of tensors lies in an ONNX file.
//!
//! The file is walked, not loaded: of the protobuf messages (`onnx.proto` of ONNX 1.19) only the ways to tensors are followed,
//! and data is skipped. A tensor's data is cut out where it is a single field of elements in little-endian order,
//! `raw_data` or packed `float_data` or `double_data`, and has the length that type and shape say. All other bytes, odd
//! tensors included, are the *graph*; nothing of a file is left out, so that it can be put together again as it was.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use crate::header::{MAX_ENTRIES, MAX_NAME_BYTES, MAX_RANK};
use crate::{DType, ReadAt, SealError};

/// Deeper graphs in graphs are refused.
pub(crate) const MAX_DEPTH: usize = 64;

/// A tensor's data in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorData {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<u64>,
    /// Where it is.
    pub(crate) bytes: Range<u64>,
}

/// The data of all tensors, in the order of the file.
pub(crate) fn find_tensors<F: ReadAt>(path: &Path, file: &F, len: u64) -> Result<Vec<TensorData>, SealError> {
    let reader = BufReader::new(InOrder { file, at: 0, len });
    let mut walk = Walk { path, reader, at: 0, found: Vec::new(), graphs: 0 };
    walk.message(Message::Model, len, 0)?;
    if walk.graphs == 0 {
        return Err(walk.not_onnx("expected a model with a graph, found none"));
    }
    Ok(walk.found)
}

/// The messages on the way to tensors.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Message {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    SparseTensor,
    Tensor,
}

impl Message {
    /// The message in a field of this one.
    pub(crate) fn inside(self, field: u64) -> Option<Message> {
        match (self, field) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Some(Self::Graph),
            (Self::Model, 25) => Some(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Some(Self::Node),
            (Self::Node, 5) => Some(Self::Attribute),
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Some(Self::SparseTensor),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => Some(Self::Tensor),
            _ => None,
        }
    }
}

/// The value of a field.
enum Value {
    Varint(u64),
    /// Where its bytes are; they have not been read.
    Bytes(Range<u64>),
    Fixed,
}

/// Bytes read one after another.
struct InOrder<'a, F> {
    file: &'a F,
    at: u64,
    len: u64,
}

impl<F: ReadAt> Read for InOrder<'_, F> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let len = self.len.saturating_sub(self.at).min(bytes.len() as u64) as usize;
        self.file.read_exact_at(&mut bytes[..len], self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}

impl<F> Seek for InOrder<'_, F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

struct Walk<'a, F> {
    path: &'a Path,
    reader: BufReader<InOrder<'a, F>>,
    at: u64,
    found: Vec<TensorData>,
    graphs: usize,
}

impl<F: ReadAt> Walk<'_, F> {
    fn message(&mut self, message: Message, end: u64, depth: usize) -> Result<(), SealError> {
        if depth > MAX_DEPTH {
            return Err(self.not_onnx("its messages are nested too deeply"));
        }
        if matches!(message, Message::Tensor) {
            return self.tensor(end);
        }
        while let Some((field, value)) = self.field(end)? {
            if let Value::Bytes(bytes) = value {
                if let Some(inner) = message.inside(field) {
                    self.graphs += usize::from(matches!(inner, Message::Graph));
                    self.message(inner, bytes.end, depth + 1)?;
                }
                self.skip_to(bytes.end)?;
            }
        }
        Ok(())
    }

    fn tensor(&mut self, end: u64) -> Result<(), SealError> {
        let (mut shape, mut code, mut name, mut is_external) = (Vec::new(), 0, Vec::new(), false);
        let mut data: Vec<(u64, Range<u64>)> = Vec::new();
        while let Some((field, value)) = self.field(end)? {
            match (field, value) {
                (1, Value::Varint(size)) if shape.len() <= MAX_RANK => shape.push(size),
                (1, Value::Bytes(packed)) => {
                    while self.at < packed.end && shape.len() <= MAX_RANK {
                        shape.push(self.varint(packed.end)?);
                    }
                    self.skip_to(packed.end)?;
                }
                (2, Value::Varint(number)) => code = number,
                (14, Value::Varint(location)) => is_external = location == 1,
                (8, Value::Bytes(bytes)) => {
                    let mut text = vec![0; (bytes.end - bytes.start).min(MAX_NAME_BYTES as u64 + 1) as usize];
                    self.read(&mut text)?;
                    name = text;
                    self.skip_to(bytes.end)?;
                }
                (4 | 5 | 6 | 7 | 9 | 10 | 11, Value::Bytes(bytes)) => {
                    self.skip_to(bytes.end)?;
                    data.push((field, bytes));
                }
                // Elements that are not packed stay in the graph.
                (4 | 5 | 7 | 10 | 11, _) => data.push((0, 0..0)),
                (_, Value::Bytes(bytes)) => self.skip_to(bytes.end)?,
                _ => {}
            }
        }
        if is_external {
            let name = String::from_utf8_lossy(&name).chars().take(80).collect();
            return Err(SealError::ExternalData { path: self.path.to_owned(), tensor: name });
        }
        let name = String::from_utf8(name).ok().filter(|name| name.len() <= MAX_NAME_BYTES);
        let dtype = u8::try_from(code).ok().and_then(DType::from_code);
        let (Some(name), Some(dtype), [(field, bytes)]) = (name, dtype, &data[..]) else { return Ok(()) };
        let is_plain = match field {
            9 => true,
            4 => dtype == DType::Float32,
            10 => dtype == DType::Float64,
            _ => false,
        };
        let fits = shape.len() <= MAX_RANK && dtype.bytes(&shape) == Some(bytes.end - bytes.start);
        if is_plain && fits && !bytes.is_empty() && self.found.len() + 1 < MAX_ENTRIES {
            self.found.push(TensorData { name, dtype, shape, bytes: bytes.clone() });
        }
        Ok(())
    }

    /// The next field of a message, behind its bytes unless it has some.
    fn field(&mut self, end: u64) -> Result<Option<(u64, Value)>, SealError> {
        if self.at == end {
            return Ok(None);
        }
        let tag = self.varint(end)?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint(end)?),
            1 | 5 => {
                let len = if tag & 7 == 1 { 8 } else { 4 };
                let bytes = self.range(len, end)?;
                self.skip_to(bytes.end)?;
                Value::Fixed
            }
            2 => {
                let len = self.varint(end)?;
                Value::Bytes(self.range(len, end)?)
            }
            _ => return Err(self.not_onnx("a field of an unknown kind")),
        };
        Ok(Some((tag >> 3, value)))
    }

    /// The next `len` bytes of a message.
    fn range(&self, len: u64, end: u64) -> Result<Range<u64>, SealError> {
        let last = self.at.checked_add(len).filter(|&last| last <= end);
        last.map(|last| self.at..last).ok_or_else(|| self.not_onnx("a field is longer than its message"))
    }

    fn varint(&mut self, end: u64) -> Result<u64, SealError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            if self.at == end {
                return Err(self.not_onnx("a number ends early"));
            }
            let mut byte = [0];
            self.read(&mut byte)?;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(value);
            }
        }
        Err(self.not_onnx("a number is too long"))
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), SealError> {
        self.reader.read_exact(bytes).map_err(SealError::read(self.path))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn skip_to(&mut self, at: u64) -> Result<(), SealError> {
        let distance =
            at.checked_signed_diff(self.at).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput));
        distance.and_then(|d| self.reader.seek_relative(d)).map_err(SealError::read(self.path))?;
        self.at = at;
        Ok(())
    }

    fn not_onnx(&self, problem: &str) -> SealError {
        SealError::file(self.path, format!("not an ONNX file: {problem} (at byte {})", self.at))
    }
}

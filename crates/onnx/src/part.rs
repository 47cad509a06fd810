//! Writes a part of a model as a file of its own.
//!
//! Nodes and initialisers are copied as they are in the file, byte by byte, so that attributes and fields which nobody
//! here reads are kept. Data go from file to file in blocks, or are read from any place as if the file were there.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use privet_graph::{DType, Tensor};
use prost::Message;

use crate::export::write as constant;
use crate::file::{Data, ModelFile, Place};
use crate::proto::*;
use crate::{MAX_FILE, OnnxError};

/// Files of earlier versions list all initialisers as inputs.
const OLDEST_IR: i64 = 4;
/// Bytes of a block.
const BLOCK: usize = 1 << 16;

/// What a part consists of.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// Name of its graph.
    pub name: String,
    /// Indices of its nodes in [`ModelFile::nodes`], in execution order.
    pub nodes: Vec<usize>,
    /// What it is given.
    pub inputs: Vec<Declared>,
    /// What it gives.
    pub outputs: Vec<Declared>,
    /// Names of its initialisers.
    pub initializers: Vec<String>,
    /// More initialisers, under the names of values that the model computes.
    pub constants: Vec<(String, Arc<Tensor>)>,
}

/// A tensor's name, element type and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Name.
    pub name: String,
    /// Element type; [`DType::I64`] is written as 64 bits.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<usize>,
}

impl ModelFile {
    /// Writes a part as an ONNX file. Returns the number of bytes.
    ///
    /// # Errors
    /// The model or `to` cannot be read or written; a part larger than a file may be.
    ///
    /// # Panics
    /// The part names nodes or initialisers that the model does not have.
    pub fn write_part(&self, part: &Part, mut to: impl Write, path: &Path) -> Result<u64, OnnxError> {
        let bytes = self.part_bytes(part)?;
        let io = |source| OnnxError::Io { path: path.to_owned(), source };
        let mut block = vec![0; BLOCK];
        let mut at = 0;
        while at < bytes.len() {
            let block = &mut block[..(bytes.len() - at).min(BLOCK as u64) as usize];
            bytes.read_at(block, at)?;
            to.write_all(block).map_err(io)?;
            at += block.len() as u64;
        }
        to.flush().map_err(io)?;
        Ok(bytes.len())
    }

    /// The ONNX file of a part, without writing it.
    ///
    /// # Errors
    /// A file of external data cannot be opened; a part larger than a file may be.
    ///
    /// # Panics
    /// The part names nodes or initialisers that the model does not have.
    pub fn part_bytes(&self, part: &Part) -> Result<PartBytes<'_>, OnnxError> {
        let mut pieces = self.pieces(part)?;
        let length = pieces.iter().fold(0u64, |sum, piece| sum.saturating_add(piece.len()));
        let mut head = self.head.clone();
        head.ir_version = Some(head.ir_version.unwrap_or(OLDEST_IR).max(OLDEST_IR));
        let mut front = head.encode_to_vec();
        header(7, length, &mut front);
        let total = length.saturating_add(front.len() as u64);
        if total > MAX_FILE {
            return Err(OnnxError::Malformed(format!(
                "{:?} would have {total} bytes; a model file holds at most {MAX_FILE}",
                part.name
            )));
        }
        pieces.insert(0, Piece::Bytes(front));
        let mut files = HashMap::new();
        let mut starts = Vec::with_capacity(pieces.len() + 1);
        let mut at = 0;
        for piece in &pieces {
            starts.push(at);
            at += piece.len();
            if let Piece::Copy(Some(path), _) = piece
                && !files.contains_key(path)
            {
                let file =
                    File::open(path).map_err(|source| OnnxError::Io { path: (*path).to_owned(), source })?;
                files.insert(*path, file);
            }
        }
        starts.push(at);
        Ok(PartBytes { model: self, pieces, starts, files })
    }

    fn pieces<'a>(&'a self, part: &Part) -> Result<Vec<Piece<'a>>, OnnxError> {
        let mut pieces = Vec::new();
        for &node in &part.nodes {
            let place = self.nodes()[node].place;
            pieces.extend([Piece::header(1, place.len), Piece::Copy(None, place)]);
        }
        pieces.push(Piece::field(2, part.name.as_bytes()));
        for name in &part.initializers {
            let stored = &self.tensors()[name];
            match &stored.data {
                Data::External(from, place) => {
                    let dims = stored.shape.iter().map(|&d| d as i64).collect();
                    let data_type = stored.element;
                    let proto = TensorProto { dims, data_type, name: name.clone(), ..TensorProto::default() };
                    let mut front = proto.encode_to_vec();
                    header(9, place.len, &mut front);
                    pieces.push(Piece::header(5, front.len() as u64 + place.len));
                    pieces.extend([Piece::Bytes(front), Piece::Copy(Some(from), *place)]);
                }
                Data::Elsewhere(_) => {
                    let text = format!("{name:?} is sealed; expected a model in the clear to be cut");
                    return Err(OnnxError::Malformed(text));
                }
                Data::Here(_) | Data::Message => {
                    pieces.extend([Piece::header(5, stored.place.len), Piece::Copy(None, stored.place)]);
                }
            }
        }
        for (name, tensor) in &part.constants {
            pieces.push(Piece::field(5, &constant(name.clone(), tensor).encode_to_vec()));
        }
        pieces.extend(part.inputs.iter().map(|d| Piece::field(11, &d.info().encode_to_vec())));
        pieces.extend(part.outputs.iter().map(|d| Piece::field(12, &d.info().encode_to_vec())));
        Ok(pieces)
    }
}

/// The bytes of a part's ONNX file, where they are.
#[derive(Debug)]
pub struct PartBytes<'a> {
    model: &'a ModelFile,
    pieces: Vec<Piece<'a>>,
    /// Where each piece begins, and the length of all.
    starts: Vec<u64>,
    /// Files of external data.
    files: HashMap<&'a Path, File>,
}

impl PartBytes<'_> {
    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        self.starts[self.pieces.len()]
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `into` from `at` on.
    ///
    /// # Errors
    /// There are not as many bytes, or they cannot be read.
    pub fn read_at(&self, mut into: &mut [u8], mut at: u64) -> Result<(), OnnxError> {
        if at.checked_add(into.len() as u64).is_none_or(|end| end > self.len()) {
            let text = format!("{} bytes from {at} on of a part of {}", into.len(), self.len());
            return Err(OnnxError::Malformed(text));
        }
        // Of pieces without bytes the last one begins where the next does.
        let mut index = self.starts.partition_point(|&start| start <= at).saturating_sub(1);
        while !into.is_empty() {
            let (piece, skip) = (&self.pieces[index], at - self.starts[index]);
            let len = (piece.len() - skip).min(into.len() as u64) as usize;
            let (now, rest) = into.split_at_mut(len);
            match piece {
                Piece::Bytes(bytes) => now.copy_from_slice(&bytes[skip as usize..][..len]),
                Piece::Copy(None, place) => self.model.read_own(place.offset + skip, now)?,
                Piece::Copy(Some(path), place) => self.files[path]
                    .read_exact_at(now, place.offset + skip)
                    .map_err(|source| OnnxError::Io { path: (*path).to_owned(), source })?,
            }
            (into, at, index) = (rest, at + len as u64, index + 1);
        }
        Ok(())
    }
}

impl Declared {
    fn info(&self) -> ValueInfoProto {
        let elem_type = match self.dtype {
            DType::F32 => 1,
            DType::I64 => 7,
            DType::Bool => 9,
        };
        let dim = |&size: &usize| DimensionProto { dim_value: Some(size as i64), dim_param: None };
        let shape = Some(TensorShapeProto { dim: self.shape.iter().map(dim).collect() });
        let tensor_type = Some(TensorTypeProto { elem_type, shape });
        ValueInfoProto { name: self.name.clone(), r#type: Some(TypeProto { tensor_type }) }
    }
}

/// A piece of the graph's message.
#[derive(Debug)]
enum Piece<'a> {
    Bytes(Vec<u8>),
    /// Bytes of another file, or of the model's.
    Copy(Option<&'a Path>, Place),
}

impl Piece<'_> {
    fn header(tag: u32, len: u64) -> Self {
        let mut bytes = Vec::new();
        header(tag, len, &mut bytes);
        Self::Bytes(bytes)
    }

    fn field(tag: u32, content: &[u8]) -> Self {
        let mut bytes = Vec::new();
        header(tag, content.len() as u64, &mut bytes);
        bytes.extend_from_slice(content);
        Self::Bytes(bytes)
    }

    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Copy(_, place) => place.len,
        }
    }
}

/// What stands in front of the bytes of a field.
fn header(tag: u32, len: u64, into: &mut Vec<u8>) {
    const BYTES: u64 = 2;
    prost::encoding::encode_varint(u64::from(tag) << 3 | BYTES, into);
    prost::encoding::encode_varint(len, into);
}

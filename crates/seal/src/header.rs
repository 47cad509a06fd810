//! The header of a sealed model: what it is, under which key, and where its tensors are. Public, but authenticated.
//!
//! Numbers are little-endian. docs/formats.md lists the bytes.

use std::ops::RangeInclusive;

use crate::{DType, KeyId, KeyVersion, ModelId, ModelVersion, SealError};

/// What a sealed model begins with.
pub const MAGIC: &[u8; 8] = b"PRIVSEAL";
/// Version of the format.
pub const SEAL_VERSION: u16 = 1;
/// Magic, version, length of the header, number of chunks.
pub(crate) const PREFIX_BYTES: usize = 8 + 2 + 4 + 4;
/// Of AES-GCM, at the end of every chunk.
pub(crate) const TAG_BYTES: u64 = 16;
/// Of BLAKE3, one for every chunk.
pub(crate) const DIGEST_BYTES: usize = 32;

/// Largest header: room for the table of a model with some ten thousand tensors.
pub(crate) const MAX_HEADER_BYTES: usize = 8 << 20;
/// Most tensors, with the graph.
pub(crate) const MAX_ENTRIES: usize = 1 << 16;
/// Most chunks: 64 GiB of the smallest ones.
pub(crate) const MAX_CHUNKS: u32 = 1 << 20;
/// Longest name of a tensor.
pub(crate) const MAX_NAME_BYTES: usize = 4096;
/// Most axes of a tensor.
pub(crate) const MAX_RANK: usize = 32;
/// Chunks of 2^16 to 2^20 bytes: smaller ones cost time, larger ones a worker's memory.
pub(crate) const CHUNK_BITS: RangeInclusive<u8> = 16..=20;

/// What was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An ONNX file: entry 0 is the graph, the file without its tensors' data.
    Onnx,
    /// A module's state: tensors only.
    State,
}

/// One of the parts into which a model was split; a whole model is part 1 of 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// From 1.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

impl Part {
    /// A model that was not split.
    pub const WHOLE: Part = Part { number: 1, of: 1 };
}

/// A tensor, or the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The tensor's name in the model; it may be empty, and in an ONNX file need not be unique.
    pub name: String,
    /// The type of its elements; none for the graph.
    pub dtype: Option<DType>,
    /// Its shape; none for the graph.
    pub shape: Vec<u64>,
    /// Bytes of the graph that come before its data in the ONNX file; 0 in a state.
    pub at: u64,
    /// Where its first chunk begins, counted from the end of the signature.
    pub offset: u64,
    /// Its bytes, before sealing.
    pub length: u64,
}

impl Entry {
    /// How many chunks of this size it has.
    pub(crate) fn chunks(&self, chunk_bytes: u64) -> u64 {
        self.length.div_ceil(chunk_bytes)
    }
}

/// The header. All of it is public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What was sealed.
    pub kind: Kind,
    /// The model.
    pub model_id: ModelId,
    /// Which of its versions.
    pub model_version: ModelVersion,
    /// Which of its parts.
    pub part: Part,
    /// The key that opens it.
    pub key_id: KeyId,
    /// Which of the keys of this name.
    pub key_version: KeyVersion,
    /// SHA-256 of the graph: the same for all versions of a model that differ in their weights only. Of nothing for a state.
    pub graph_digest: [u8; 32],
    /// Base-2 logarithm of the bytes of a chunk.
    pub(crate) chunk_bits: u8,
    /// Of the key derivation: random for every file.
    pub(crate) salt: [u8; 32],
    /// Which content key it is, derived with the salt.
    pub(crate) commitment: [u8; 32],
    /// Graph and tensors.
    pub entries: Vec<Entry>,
}

impl Header {
    /// Bytes of a chunk, before sealing, but for the last of an entry.
    pub fn chunk_bytes(&self) -> u64 {
        1 << self.chunk_bits
    }

    /// Chunks of all entries.
    pub(crate) fn total_chunks(&self) -> u64 {
        self.entries.iter().map(|e| e.chunks(self.chunk_bytes())).sum()
    }

    /// Bytes of all chunks, tags included.
    pub(crate) fn sealed_bytes(&self) -> u64 {
        self.entries.last().map_or(0, |e| e.offset + e.length + TAG_BYTES * e.chunks(self.chunk_bytes()))
    }

    /// Bytes of all entries, before sealing.
    pub fn plain_bytes(&self) -> u64 {
        self.entries.iter().map(|e| e.length).sum()
    }

    /// Puts the entries one behind the other.
    pub(crate) fn lay_out(&mut self) {
        let (mut offset, chunk_bytes) = (0, self.chunk_bytes());
        for entry in &mut self.entries {
            entry.offset = offset;
            offset += entry.length + TAG_BYTES * entry.chunks(chunk_bytes);
        }
    }

    /// Prefix and header, as they are in the file, and the rules that readers hold them to.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, SealError> {
        let mut body = Vec::new();
        body.push(match self.kind {
            Kind::Onnx => 0,
            Kind::State => 1,
        });
        body.extend(self.model_id.as_bytes());
        body.extend(self.model_version.get().to_le_bytes());
        body.extend(self.part.number.to_le_bytes());
        body.extend(self.part.of.to_le_bytes());
        let key_id = self.key_id.as_str().as_bytes();
        body.push(key_id.len() as u8);
        body.extend(key_id);
        body.extend(self.key_version.get().to_le_bytes());
        body.extend(self.graph_digest);
        body.push(self.chunk_bits);
        body.extend(self.salt);
        body.extend(self.commitment);
        body.extend((self.entries.len() as u32).to_le_bytes());
        for entry in &self.entries {
            body.extend((entry.name.len() as u16).to_le_bytes());
            body.extend(entry.name.as_bytes());
            body.push(entry.dtype.map_or(0, DType::code));
            body.push(entry.shape.len() as u8);
            entry.shape.iter().for_each(|d| body.extend(d.to_le_bytes()));
            body.extend(entry.at.to_le_bytes());
            body.extend(entry.offset.to_le_bytes());
            body.extend(entry.length.to_le_bytes());
        }
        if body.len() > MAX_HEADER_BYTES || self.total_chunks() > u64::from(MAX_CHUNKS) {
            return Err(SealError::TooLarge { bytes: self.plain_bytes(), entries: self.entries.len() });
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend(SEAL_VERSION.to_le_bytes());
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend((self.total_chunks() as u32).to_le_bytes());
        bytes.extend(&body);
        // What names and shapes are too long for the format shows here, and not at the reader.
        match Header::parse(&body) {
            Ok(read) if read == *self => Ok(bytes),
            Ok(_) => Err(SealError::Format("a name or shape is too long for a sealed model".to_owned())),
            Err(e) => Err(e),
        }
    }

    /// Reads a header, without its prefix.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Header, SealError> {
        let mut read = Reader(bytes);
        let kind = match read.u8()? {
            0 => Kind::Onnx,
            1 => Kind::State,
            other => return Err(format(format!("unknown kind {other}"))),
        };
        let mut header = Header {
            kind,
            model_id: ModelId::from_bytes(read.array()?),
            model_version: ModelVersion::new(read.u64()?).ok_or_else(|| format("model version 0"))?,
            part: Part { number: read.u32()?, of: read.u32()? },
            key_id: {
                let len = usize::from(read.u8()?);
                read.text(len)?.parse()?
            },
            key_version: KeyVersion::new(read.u32()?).ok_or_else(|| format("key version 0"))?,
            graph_digest: read.array()?,
            chunk_bits: read.u8()?,
            salt: read.array()?,
            commitment: read.array()?,
            entries: Vec::new(),
        };
        if !(1..=header.part.of).contains(&header.part.number) {
            return Err(format(format!("part {} of {}", header.part.number, header.part.of)));
        }
        if !CHUNK_BITS.contains(&header.chunk_bits) {
            return Err(format(format!("chunks of 2^{} bytes; expected 2^16 to 2^20", header.chunk_bits)));
        }
        let count = read.u32()? as usize;
        if count > MAX_ENTRIES {
            return Err(format(format!("{count} entries; expected at most {MAX_ENTRIES}")));
        }
        let mut end = 0u64;
        for index in 0..count {
            let entry = read.entry()?;
            header.check(index, &entry, end)?;
            end = entry
                .length
                .checked_add(TAG_BYTES * entry.chunks(header.chunk_bytes()))
                .and_then(|sealed| end.checked_add(sealed))
                .filter(|&end| end < 1 << 40)
                .ok_or_else(|| format("more than 1 TiB"))?;
            header.entries.push(entry);
        }
        if !read.0.is_empty() {
            return Err(format(format!("{} bytes behind the last entry", read.0.len())));
        }
        if header.kind == Kind::Onnx && header.entries.is_empty() {
            return Err(format("no graph"));
        }
        Ok(header)
    }

    /// Whether an entry fits those before it.
    fn check(&self, index: usize, entry: &Entry, offset: u64) -> Result<(), SealError> {
        let fail = |problem: String| Err(format(format!("entry {index}: {problem}")));
        if entry.offset != offset {
            return fail(format!("begins at {}; expected {offset}", entry.offset));
        }
        if self.kind == Kind::Onnx && index == 0 {
            let plain = entry.name.is_empty() && entry.shape.is_empty() && entry.at == 0;
            return if plain && entry.dtype.is_none() { Ok(()) } else { fail("expected a graph".to_owned()) };
        }
        let Some(dtype) = entry.dtype else { return fail("a graph behind the first entry".to_owned()) };
        if dtype.bytes(&entry.shape) != Some(entry.length) {
            return fail(format!("{} bytes for {dtype:?} of shape {:?}", entry.length, entry.shape));
        }
        let range = match self.kind {
            Kind::State => 0..=0,
            Kind::Onnx => self.entries.last().map_or(0, |e| e.at)..=self.entries[0].length,
        };
        if range.contains(&entry.at) { Ok(()) } else { fail(format!("a place in the graph at {}", entry.at)) }
    }
}

fn format(problem: impl Into<String>) -> SealError {
    SealError::Format(problem.into())
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], SealError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or_else(|| format("the header ends early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SealError> {
        Ok(self.take(N)?.try_into().expect("as many"))
    }

    fn u8(&mut self) -> Result<u8, SealError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, SealError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, SealError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self, len: usize) -> Result<&'a str, SealError> {
        std::str::from_utf8(self.take(len)?).map_err(|_| format("a name is not UTF-8"))
    }

    fn entry(&mut self) -> Result<Entry, SealError> {
        let len = usize::from(u16::from_le_bytes(self.array()?));
        if len > MAX_NAME_BYTES {
            return Err(format(format!("a name of {len} bytes; expected at most {MAX_NAME_BYTES}")));
        }
        let name = self.text(len)?.to_owned();
        let dtype = match self.u8()? {
            0 => None,
            code => Some(DType::from_code(code).ok_or_else(|| format(format!("element type {code}")))?),
        };
        let rank = usize::from(self.u8()?);
        if rank > MAX_RANK {
            return Err(format(format!("{rank} axes; expected at most {MAX_RANK}")));
        }
        let shape = (0..rank).map(|_| self.u64()).collect::<Result<_, _>>()?;
        Ok(Entry { name, dtype, shape, at: self.u64()?, offset: self.u64()?, length: self.u64()? })
    }
}

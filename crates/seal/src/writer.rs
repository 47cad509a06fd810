//! Sealing: header, chunks, digests, signature.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::digest::{Context, SHA256, digest};

use crate::chunk::{self, FileKey, Place};
use crate::files::{self, PUBLIC, Stoppable};
use crate::header::{CHUNK_BITS, DIGEST_BYTES, Entry, Header, Kind, Part, TAG_BYTES};
use crate::onnx::find_tensors;
use crate::statement::SIGNATURE_BYTES;
use crate::{ModelVersion, OwnerKeys, ReadAt, SealDigest, SealError, SecretBuffer, Swap};

/// Chunks are this large unless something else is asked for: 2^18 bytes, a quarter of a megabyte.
const DEFAULT_CHUNK_BITS: u8 = 18;

/// How a model is sealed.
#[derive(Debug, Clone)]
pub struct SealOptions {
    /// The owner counts them: readers refuse versions below the one they know of.
    pub version: ModelVersion,
    /// Which part of the model it is.
    pub part: Part,
    /// Base-2 logarithm of the bytes of a chunk, 16 to 20.
    pub chunk_bits: u8,
}

impl Default for SealOptions {
    fn default() -> SealOptions {
        SealOptions { version: ModelVersion::FIRST, part: Part::WHOLE, chunk_bits: DEFAULT_CHUNK_BITS }
    }
}

/// What was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// What tells this sealed model from all others.
    pub digest: SealDigest,
    /// Bytes before sealing.
    pub plain_bytes: u64,
    /// Bytes of the sealed file.
    pub sealed_bytes: u64,
    /// How many tensors were sealed as such.
    pub tensors: usize,
    /// Bytes of all else.
    pub graph_bytes: u64,
}

/// Seals an ONNX file into `out`, which is replaced whole if it exists. Needs a few chunks of memory, whatever the size of the
/// model.
///
/// # Errors
/// If `model` is not an ONNX file, keeps tensors in other files, changes while it is read, or is too large for the format; if
/// `out` is `model`; and failures of the system.
pub fn seal_onnx(
    model: &Path,
    out: &Path,
    keys: &OwnerKeys,
    options: &SealOptions,
) -> Result<Sealed, SealError> {
    seal_onnx_until(model, out, keys, options, &AtomicBool::new(false))
}

/// [`seal_onnx`], which ends, with nothing left, soon after `stop` is set.
///
/// # Errors
/// As [`seal_onnx`], and [`SealError::Interrupted`].
pub fn seal_onnx_until(
    model: &Path,
    out: &Path,
    keys: &OwnerKeys,
    options: &SealOptions,
    stop: &AtomicBool,
) -> Result<Sealed, SealError> {
    refuse_same(model, out)?;
    let file = File::open(model).map_err(SealError::read(model))?;
    seal_named(&file, model, out, keys, options, stop)
}

/// As [`seal_onnx`], of an ONNX file that need not be one: its bytes are read where they are. `name` is what messages call it.
///
/// # Errors
/// As [`seal_onnx`].
pub fn seal_onnx_from<F: ReadAt>(
    file: &F,
    name: &Path,
    out: &Path,
    keys: &OwnerKeys,
    options: &SealOptions,
) -> Result<Sealed, SealError> {
    seal_named(file, name, out, keys, options, &AtomicBool::new(false))
}

/// Seals a file named `name` into a new one that appears whole.
fn seal_named<F: ReadAt>(
    file: &F,
    name: &Path,
    out: &Path,
    keys: &OwnerKeys,
    options: &SealOptions,
    stop: &AtomicBool,
) -> Result<Sealed, SealError> {
    let mut sealed = files::temporary(out)?;
    let mut target = Stoppable { file: sealed.as_file_mut(), stop };
    let summary = seal_file(file, name, &mut target, out, keys, options);
    if stop.load(Ordering::SeqCst) {
        return Err(SealError::Interrupted);
    }
    let summary = summary?;
    files::publish(sealed, out, PUBLIC)?;
    Ok(summary)
}

/// Seals the ONNX file `file`, named `model`, to `sealed`, named `out`.
pub(crate) fn seal_file<F: ReadAt, W: Write + Seek>(
    file: &F,
    model: &Path,
    sealed: &mut W,
    out: &Path,
    keys: &OwnerKeys,
    options: &SealOptions,
) -> Result<Sealed, SealError> {
    let len = file.length().map_err(SealError::read(model))?;
    let tensors = find_tensors(model, file, len)?;
    let (mut graph, mut end) = (Vec::new(), 0);
    for tensor in &tensors {
        graph.push(end..tensor.bytes.start);
        end = tensor.bytes.end;
    }
    graph.push(end..len);
    let graph = Spans::new(graph);
    let mut header = Header {
        graph_digest: graph.digest(model, file)?,
        entries: vec![Entry {
            name: String::new(),
            dtype: None,
            shape: Vec::new(),
            at: 0,
            offset: 0,
            length: graph.length(),
        }],
        ..blank(Kind::Onnx, keys, options)?
    };
    let mut data = vec![graph];
    let mut cut = 0;
    for tensor in tensors {
        let length = tensor.bytes.end - tensor.bytes.start;
        let at = tensor.bytes.start - cut;
        cut += length;
        header.entries.push(Entry {
            name: tensor.name,
            dtype: Some(tensor.dtype),
            shape: tensor.shape,
            at,
            offset: 0,
            length,
        });
        data.push(Spans::new(vec![tensor.bytes]));
    }
    let (mut sum, mut read) = (Context::new(&SHA256), 0);
    let expected = header.graph_digest;
    let changed = || SealError::file(model, "it changed while it was read; seal it again");
    let summary = write(header, keys, sealed, out, |entry, at, chunk| {
        data[entry].read(file, at, chunk).map_err(SealError::read(model))?;
        if entry == 0 {
            sum.update(chunk);
            read += chunk.len() as u64;
            if read == data[0].length() && sum.clone().finish().as_ref() != expected {
                return Err(changed());
            }
        }
        Ok(())
    })?;
    if file.length().map_err(SealError::read(model))? != len {
        return Err(changed());
    }
    Ok(summary)
}

/// A header without entries.
pub(crate) fn blank(kind: Kind, keys: &OwnerKeys, options: &SealOptions) -> Result<Header, SealError> {
    let (part, chunk_bits) = (options.part, options.chunk_bits);
    if !CHUNK_BITS.contains(&chunk_bits) || !(1..=part.of).contains(&part.number) {
        let problem = format!(
            "expected chunks of 2^16 to 2^20 bytes and a part of those there are, found 2^{chunk_bits} and {} of {}",
            part.number, part.of
        );
        return Err(SealError::Format(problem));
    }
    let mut salt = [0; 32];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| SealError::Randomness)?;
    Ok(Header {
        kind,
        model_id: keys.release.model_id,
        model_version: options.version,
        part,
        key_id: keys.release.key_id.clone(),
        key_version: keys.release.key_version,
        graph_digest: digest(&SHA256, b"").as_ref().try_into().expect("32 bytes"),
        chunk_bits,
        salt,
        commitment: chunk::commitment(&keys.content, &salt),
        entries: Vec::new(),
    })
}

/// Writes a sealed model to `out`, named `path` in messages. `read` fills a chunk with an entry's bytes from an offset on; it is
/// asked for all of them, in order, once.
pub(crate) fn write<W: Write + Seek>(
    mut header: Header,
    keys: &OwnerKeys,
    out: &mut W,
    path: &Path,
    mut read: impl FnMut(usize, u64, &mut [u8]) -> Result<(), SealError>,
) -> Result<Sealed, SealError> {
    header.lay_out();
    let mut front = header.to_bytes()?;
    let header_hash = digest(&SHA256, &front).as_ref().try_into().expect("32 bytes");
    let key = FileKey::new(&keys.content, &header.salt, header_hash)?;
    let digests = header.total_chunks() as usize * DIGEST_BYTES;
    front.reserve_exact(digests + SIGNATURE_BYTES);
    let chunks_at = (front.len() + digests + SIGNATURE_BYTES) as u64;
    out.seek(SeekFrom::Start(chunks_at)).map_err(SealError::write(path))?;
    let most = header.chunk_bytes();
    let mut buffer = SecretBuffer::new((most + TAG_BYTES) as usize, Swap::Allowed)?;
    for (index, entry) in header.entries.iter().enumerate() {
        let count = entry.chunks(most);
        for chunk in 0..count {
            let len = most.min(entry.length - chunk * most) as usize;
            let sealed = &mut buffer[..len + TAG_BYTES as usize];
            read(index, chunk * most, &mut sealed[..len])?;
            let place = Place { entry: index as u32, chunk, is_last: chunk + 1 == count };
            let tag = key.seal(place, &mut sealed[..len])?;
            sealed[len..].copy_from_slice(&tag);
            front.extend(blake3::hash(sealed).as_bytes());
            out.write_all(sealed).map_err(SealError::write(path))?;
        }
    }
    let digest = SealDigest::of(&front);
    front.extend(keys.signing.sign(&digest.statement())?);
    assert_eq!(front.len() as u64, chunks_at, "as many digests as chunks");
    let begin = out.seek(SeekFrom::Start(0)).and_then(|_| out.write_all(&front)).and_then(|()| out.flush());
    begin.map_err(SealError::write(path))?;
    let graphs = if header.kind == Kind::Onnx { 1 } else { 0 };
    Ok(Sealed {
        digest,
        plain_bytes: header.plain_bytes(),
        sealed_bytes: chunks_at + header.sealed_bytes(),
        tensors: header.entries.len() - graphs,
        graph_bytes: header.entries[..graphs].iter().map(|e| e.length).sum(),
    })
}

/// Refuses to replace a model by what is made of it.
fn refuse_same(input: &Path, out: &Path) -> Result<(), SealError> {
    let place = |path: &Path| fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    match (place(input), place(out)) {
        (Some(one), Some(other)) if one == other => {
            Err(SealError::file(out, "it is the file that is read; choose another name"))
        }
        _ => Ok(()),
    }
}

/// Ranges of a file, read as if they were one.
struct Spans {
    spans: Vec<Range<u64>>,
    /// Where each begins among them, and their length.
    starts: Vec<u64>,
}

impl Spans {
    fn new(mut spans: Vec<Range<u64>>) -> Spans {
        spans.retain(|span| !span.is_empty());
        let mut starts = vec![0];
        for span in &spans {
            starts.push(starts[starts.len() - 1] + span.end - span.start);
        }
        Spans { spans, starts }
    }

    fn length(&self) -> u64 {
        self.starts[self.spans.len()]
    }

    fn read(&self, file: &impl ReadAt, at: u64, mut bytes: &mut [u8]) -> std::io::Result<()> {
        let mut index = self.starts.partition_point(|&start| start <= at) - 1;
        let mut at = at;
        while !bytes.is_empty() {
            let (span, skip) = (&self.spans[index], at - self.starts[index]);
            let len = (span.end - span.start - skip).min(bytes.len() as u64);
            let (now, rest) = bytes.split_at_mut(len as usize);
            file.read_exact_at(now, span.start + skip)?;
            (bytes, at, index) = (rest, at + len, index + 1);
        }
        Ok(())
    }

    /// SHA-256 of all of it.
    fn digest(&self, path: &Path, file: &impl ReadAt) -> Result<[u8; 32], SealError> {
        let mut buffer = SecretBuffer::new(1 << 16, Swap::Allowed)?;
        let mut sum = Context::new(&SHA256);
        let mut at = 0;
        while at < self.length() {
            let len = (self.length() - at).min(buffer.len() as u64);
            self.read(file, at, &mut buffer[..len as usize]).map_err(SealError::read(path))?;
            sum.update(&buffer[..len as usize]);
            at += len;
        }
        Ok(sum.finish().as_ref().try_into().expect("32 bytes"))
    }
}

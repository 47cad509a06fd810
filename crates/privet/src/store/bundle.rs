//! The file of one party's half of one bundle: header, then chunks in the order in which the inference needs them.
//!
//! `"PRIVBNDL" | version u16 | header length u32 | header (postcard) | CRC-32 u32 | chunks`, a chunk being
//! `instruction u32 | length u64 | bytes | CRC-32 u32`; integers little-endian. Checksums find damage, not forgery: who
//! can write a party's state can do anything as that party.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use privet_net::Fingerprint;
use privet_plan::{Digest, Plan};
use privet_protocols::ProtocolError;
use privet_protocols::masked::{Bundle, Role, Schedule, Sink, Source};
use privet_ring::prg::Seed;
use serde::{Deserialize, Serialize};
use tempfile::TempPath;

use super::Purpose;
use crate::error::StoreError;

const MAGIC: &[u8; 8] = b"PRIVBNDL";
/// Changes with the file and with what an engine draws from a seed for which instruction.
const VERSION: u16 = 6;
const MAX_HEADER: usize = 4096;
/// Bytes that are read at a time, next to large chunks.
const BUFFER: usize = 64 << 10;
/// Smaller bundles are read before the inference begins, so that it needs neither disk nor another thread. It is what a connection may
/// queue as well.
const SMALL: u64 = 16 << 20;
/// Bytes of a chunk that are not its content.
const CHUNK_OVERHEAD: u64 = 4 + 8 + 4;

/// A globally unique name for one bundle, drawn by the dealer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct BundleId(pub(crate) [u8; 16]);

/// A globally unique name for one mask of one client's copy of the weights, drawn by the dealer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct EpochId(pub(crate) [u8; 16]);

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hexadecimal(&self.0, f)
    }
}

impl fmt::Debug for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BundleId({self})")
    }
}

impl fmt::Display for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hexadecimal(&self.0, f)
    }
}

impl fmt::Debug for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EpochId({self})")
    }
}

fn hexadecimal(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

/// What a bundle is for. All of it is checked against what the reader expects.
#[derive(Serialize, Deserialize)]
pub(crate) struct BundleHeader {
    pub(crate) id: BundleId,
    pub(crate) role: Role,
    pub(crate) peer: Fingerprint,
    pub(crate) plan: Digest,
    pub(crate) epoch: EpochId,
    pub(crate) ring_bits: u8,
    /// The party's seed; secret.
    pub(crate) seed: Seed,
}

impl BundleHeader {
    fn encode(&self) -> Vec<u8> {
        let body = postcard::to_stdvec(self).expect("a header has no unserialisable parts");
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(&body);
        bytes.extend(crc32fast::hash(&body).to_le_bytes());
        bytes
    }
}

/// Size of a complete bundle file.
fn file_len(header: usize, plan: &Plan, schedule: &Schedule, role: Role) -> u64 {
    let chunks = (0..schedule.instructions.len()).flat_map(|k| schedule.chunks(plan, k, role));
    header as u64 + chunks.map(|n| n as u64 + CHUNK_OVERHEAD).sum::<u64>()
}

/// Writes a bundle under a temporary name; [`BundleWriter::finish`] makes it durable and gives it its own.
pub(crate) struct BundleWriter {
    path: PathBuf,
    /// Removed if the bundle is not finished: on a full disk, others need the room.
    partial: TempPath,
    out: BufWriter<File>,
    written: u64,
}

impl BundleWriter {
    pub(crate) fn create(path: &Path, header: &BundleHeader) -> Result<Self, StoreError> {
        use std::os::unix::fs::OpenOptionsExt;
        let partial = path.with_extension("partial");
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&partial);
        let mut out = BufWriter::with_capacity(1 << 20, file.map_err(StoreError::io(&partial))?);
        let partial = TempPath::try_from_path(&partial).map_err(StoreError::io(&partial))?;
        let bytes = header.encode();
        out.write_all(&bytes).map_err(StoreError::io(&*partial))?;
        Ok(Self { path: path.to_owned(), partial, out, written: bytes.len() as u64 })
    }

    /// Returns the size of the file.
    pub(crate) fn finish(self) -> Result<u64, StoreError> {
        let file = self.out.into_inner().map_err(|e| StoreError::io(&*self.partial)(e.into_error()))?;
        file.sync_all().map_err(StoreError::io(&*self.partial))?;
        self.partial.persist(&self.path).map_err(|e| StoreError::io(&self.path)(e.error))?;
        super::sync_dir(self.path.parent().unwrap_or(Path::new(".")))?;
        Ok(self.written)
    }
}

impl Sink for BundleWriter {
    fn chunk(&mut self, instruction: usize, bytes: Vec<u8>) -> Result<(), ProtocolError> {
        let mut write = || {
            self.out.write_all(&(instruction as u32).to_le_bytes())?;
            self.out.write_all(&(bytes.len() as u64).to_le_bytes())?;
            self.out.write_all(&bytes)?;
            self.out.write_all(&crc32fast::hash(&bytes).to_le_bytes())
        };
        write().map_err(|e| {
            let named = StoreError::io(&*self.partial)(io::Error::from(e.kind()));
            ProtocolError::Material(io::Error::new(e.kind(), named.to_string()))
        })?;
        self.written += bytes.len() as u64 + CHUNK_OVERHEAD;
        Ok(())
    }
}

/// A bundle that is whole and for this use.
pub(crate) struct BundleReader {
    pub(crate) header: BundleHeader,
    input: BufReader<File>,
}

impl BundleReader {
    /// Opens a bundle and checks that it is whole and made for this plan and role.
    pub(crate) fn open(
        path: &Path,
        purpose: &Purpose,
        plan: &Plan,
        schedule: &Schedule,
        role: Role,
    ) -> Result<Self, StoreError> {
        let fail = |problem: &str| StoreError::Bundle { path: path.to_owned(), problem: problem.to_owned() };
        let (reader, header_len) = Self::begin(path)?;
        let header = &reader.header;
        let purpose_found = Purpose { peer: header.peer, plan: header.plan, epoch: header.epoch };
        let ring_found = u32::from(header.ring_bits);
        if header.role != role || purpose_found != *purpose || ring_found != plan.ring.bits() {
            return Err(fail("made for another peer, plan, mask, ring or role"));
        }
        let found = reader.input.get_ref().metadata().map_err(StoreError::io(path))?.len();
        let expected = file_len(header_len, plan, schedule, role);
        if found != expected {
            let problem =
                format!("expected {expected} bytes, found {found}: the file is cut short or damaged");
            return Err(fail(&problem));
        }
        Ok(reader)
    }

    /// Opens a bundle and reads its header. Returns the header's size, too.
    pub(crate) fn begin(path: &Path) -> Result<(Self, usize), StoreError> {
        let fail = |problem: String| StoreError::Bundle { path: path.to_owned(), problem };
        let file = File::open(path).map_err(StoreError::io(path))?;
        let mut input = BufReader::with_capacity(BUFFER, file);
        let mut exact = |len: usize| {
            let mut bytes = vec![0; len];
            match input.read_exact(&mut bytes) {
                Ok(()) => Ok(bytes),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(fail(format!("cut short: {e}"))),
                Err(e) => Err(StoreError::io(path)(e)),
            }
        };
        let fixed = exact(MAGIC.len() + 2 + 4)?;
        let version = u16::from_le_bytes([fixed[8], fixed[9]]);
        if !fixed.starts_with(MAGIC) || version != VERSION {
            return Err(fail(format!("not a bundle of format version {VERSION}")));
        }
        let len = u32::from_le_bytes([fixed[10], fixed[11], fixed[12], fixed[13]]) as usize;
        if len > MAX_HEADER {
            return Err(fail(format!("a header of {len} bytes, at most {MAX_HEADER} are accepted")));
        }
        let body = exact(len)?;
        if exact(4)? != crc32fast::hash(&body).to_le_bytes() {
            return Err(fail("damaged header".to_owned()));
        }
        let header = postcard::from_bytes(&body).map_err(|e| fail(e.to_string()))?;
        Ok((Self { header, input }, fixed.len() + len + 4))
    }
}

impl BundleReader {
    /// The material for one inference. Small bundles are read at once. Of others, chunks are read ahead on another thread, at most two
    /// of them: memory is bounded by the largest chunks, not by the bundle.
    ///
    /// # Errors
    /// If the system gives no thread. What is wrong with a chunk shows when it is taken.
    pub(crate) fn into_bundle(self) -> Result<Bundle<Prefetch>, StoreError> {
        let (seed, source) = self.prefetch()?;
        Ok(Bundle::new(seed, source))
    }

    /// The party's seed, and its chunks.
    pub(crate) fn prefetch(self) -> Result<(Seed, Prefetch), StoreError> {
        let Self { header, input } = self;
        let id = header.id;
        let mut chunks = ChunkReader { id, input };
        if chunks.input.get_ref().metadata().is_ok_and(|m| m.len() <= SMALL) {
            let mut read = VecDeque::new();
            while let Some(chunk) = chunks.next().transpose() {
                let failed = chunk.is_err();
                read.push_back(chunk);
                if failed {
                    break;
                }
            }
            return Ok((header.seed, Prefetch { id, chunks: Chunks::Read(read) }));
        }
        let (sender, receiver) = sync_channel(1);
        let read_ahead = move || {
            // The receiver goes when the inference has ended, one way or another.
            while let Some(chunk) = chunks.next().transpose() {
                let failed = chunk.is_err();
                if sender.send(chunk).is_err() || failed {
                    return;
                }
            }
        };
        let reader = std::thread::Builder::new().name("bundle".to_owned()).spawn(read_ahead);
        let reader = reader.map_err(StoreError::io("a thread that reads ahead"))?;
        Ok((header.seed, Prefetch { id, chunks: Chunks::Coming(Some(receiver), Some(reader)) }))
    }
}

/// The instruction of a chunk, and its bytes.
type Chunk = (u32, Vec<u8>);

/// Reads chunks one after the other.
struct ChunkReader {
    id: BundleId,
    input: BufReader<File>,
}

impl ChunkReader {
    /// The next chunk, if the file has not ended.
    fn next(&mut self) -> io::Result<Option<Chunk>> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut number = [0; 4];
        self.input.read_exact(&mut number)?;
        let mut size = [0; 8];
        self.input.read_exact(&mut size)?;
        let (number, size) = (u32::from_le_bytes(number), u64::from_le_bytes(size));
        // Grows with what is there, not with what a damaged size says.
        let mut bytes = Vec::new();
        self.input.by_ref().take(size).read_to_end(&mut bytes)?;
        let mut sum = [0; 4];
        self.input.read_exact(&mut sum)?;
        if bytes.len() as u64 == size && sum == crc32fast::hash(&bytes).to_le_bytes() {
            return Ok(Some((number, bytes)));
        }
        Err(damaged(self.id, number as usize))
    }
}

/// Chunks of a bundle, read ahead.
pub(crate) struct Prefetch {
    id: BundleId,
    chunks: Chunks,
}

enum Chunks {
    /// All of them.
    Read(VecDeque<io::Result<Chunk>>),
    /// One after the other.
    Coming(Option<Receiver<io::Result<Chunk>>>, Option<JoinHandle<()>>),
}

impl Source for Prefetch {
    fn chunk(&mut self, instruction: usize, len: usize) -> Result<Vec<u8>, ProtocolError> {
        let next = match &mut self.chunks {
            Chunks::Read(chunks) => chunks.pop_front(),
            Chunks::Coming(receiver, _) => receiver.as_ref().and_then(|receiver| receiver.recv().ok()),
        };
        match next.transpose().map_err(ProtocolError::Material)? {
            Some((number, bytes)) if number as usize == instruction && bytes.len() == len => Ok(bytes),
            _ => Err(ProtocolError::Material(damaged(self.id, instruction))),
        }
    }
}

impl Drop for Prefetch {
    /// Closes the file before anything else happens.
    fn drop(&mut self) {
        if let Chunks::Coming(receiver, reader) = &mut self.chunks {
            *receiver = None;
            let _ = reader.take().map(JoinHandle::join);
        }
    }
}

fn damaged(id: BundleId, instruction: usize) -> io::Error {
    let problem = format!("bundle {id}: the chunk of instruction {instruction} is damaged");
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

//! Opening: signature first, then the header, then chunk by chunk in any order.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::chunk::{self, FileKey, Place};
use crate::header::{
    DIGEST_BYTES, Entry, Header, MAGIC, MAX_CHUNKS, MAX_HEADER_BYTES, PREFIX_BYTES, Part, SEAL_VERSION,
    TAG_BYTES,
};
use crate::statement::SIGNATURE_BYTES;
use crate::{
    ContentKey, KeyId, KeyVersion, ModelId, ModelVersion, Release, SealDigest, SealError, SecretBuffer, Swap,
    VerifyingKey,
};

/// What a reader accepts. There is no default: everything comes from the owner's release file or a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Who has to have signed.
    pub verifying_key: VerifyingKey,
    /// Which model.
    pub model_id: ModelId,
    /// Under which key.
    pub key_id: KeyId,
    /// Which of the keys of this name.
    pub key_version: KeyVersion,
    /// How old it may be.
    pub min_version: ModelVersion,
    /// Which part of the model.
    pub part: Part,
    /// Exactly this sealed model, where a policy pins one.
    pub digest: Option<SealDigest>,
}

impl Accepted {
    /// The whole model of a release, at least of this version.
    pub fn new(release: &Release, min_version: ModelVersion) -> Accepted {
        Accepted {
            verifying_key: release.verifying_key,
            model_id: release.model_id,
            key_id: release.key_id.clone(),
            key_version: release.key_version,
            min_version,
            part: Part::WHOLE,
            digest: None,
        }
    }
}

/// Bytes that are read from any place: a file, or memory.
pub trait ReadAt {
    /// How many there are.
    ///
    /// # Errors
    /// Those of the system.
    fn length(&self) -> io::Result<u64>;

    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// If there are not as many, and those of the system.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }
}

impl ReadAt for &[u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let found = usize::try_from(offset).ok().and_then(|at| self.get(at..)?.get(..bytes.len()));
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A sealed model whose signature was verified and which is the one that is accepted, but which has not been opened.
#[derive(Debug)]
pub struct SealedModel<S> {
    source: S,
    name: String,
    header: Header,
    header_hash: [u8; 32],
    /// BLAKE3 of every chunk, one behind the other.
    digests: Vec<u8>,
    /// The number of every entry's first chunk.
    first: Vec<u64>,
    /// Where chunks begin.
    chunks_at: u64,
    digest: SealDigest,
}

impl SealedModel<File> {
    /// Verifies a file.
    ///
    /// # Errors
    /// As [`SealedModel::verify`].
    pub fn verify_file(path: &Path, accepted: &Accepted) -> Result<SealedModel<File>, SealError> {
        let file = File::open(path).map_err(SealError::read(path))?;
        SealedModel::verify(file, &path.display().to_string(), accepted)
    }

    /// The header and the digest of a file that this owner has signed, whatever model, part and key it is of: for those who
    /// look before they know what to accept.
    ///
    /// # Errors
    /// If it is not a sealed model, is not signed by this owner, or has not the length that its header says.
    pub fn signed_header(path: &Path, owner: &VerifyingKey) -> Result<(Header, SealDigest), SealError> {
        let file = File::open(path).map_err(SealError::read(path))?;
        let model = SealedModel::signed(file, &path.display().to_string(), owner)?;
        Ok((model.header, model.digest))
    }
}

impl<S: ReadAt> SealedModel<S> {
    /// Reads and verifies all but the chunks. `name` is what messages call it.
    ///
    /// # Errors
    /// If it is not a sealed model, is not signed by the accepted owner, is of another model, part or key, is older than
    /// accepted, or has not the length that its header says.
    pub fn verify(source: S, name: &str, accepted: &Accepted) -> Result<SealedModel<S>, SealError> {
        let fail = |problem: String| SealError::Sealed { name: name.to_owned(), problem };
        let model = SealedModel::signed(source, name, &accepted.verifying_key)?;
        check(&model.header, model.digest, accepted, &fail)?;
        Ok(model)
    }

    /// The first half of [`SealedModel::verify`].
    fn signed(source: S, name: &str, owner: &VerifyingKey) -> Result<SealedModel<S>, SealError> {
        let fail = |problem: String| SealError::Sealed { name: name.to_owned(), problem };
        let read = |bytes: &mut [u8], at| {
            source.read_exact_at(bytes, at).map_err(|e| fail(format!("cannot be read: {e}")))
        };
        let length = source.length().map_err(|e| fail(format!("cannot be read: {e}")))?;
        let mut prefix = [0; PREFIX_BYTES];
        if length < PREFIX_BYTES as u64 {
            return Err(fail(format!("not a sealed model, which privet seal makes: it has {length} bytes")));
        }
        read(&mut prefix, 0)?;
        let front = Prefix::parse(&prefix).map_err(fail)?.front_bytes() as u64;
        if length < front {
            return Err(fail(format!("cut off: {length} bytes, and {front} before its first chunk")));
        }
        let mut bytes = vec![0; front as usize];
        read(&mut bytes, 0)?;
        // What was read again may be other bytes.
        let Prefix { header_bytes, chunks } = Prefix::parse(&bytes).map_err(fail)?;
        if front != (Prefix { header_bytes, chunks }).front_bytes() as u64 {
            return Err(fail("changed while it was read".to_owned()));
        }
        let (signed, signature) = bytes.split_at(bytes.len() - SIGNATURE_BYTES);
        let digest = SealDigest::of(signed);
        if !owner.verifies(&digest.statement(), signature) {
            return Err(fail(format!("not signed by the owner whose verifying key is {owner}, or damaged")));
        }
        let (head, digests) = signed.split_at(PREFIX_BYTES + header_bytes);
        let header = Header::parse(&head[PREFIX_BYTES..]).map_err(|e| fail(e.to_string()))?;
        if header.total_chunks() != chunks as u64 {
            return Err(fail(format!("{chunks} digests for {} chunks", header.total_chunks())));
        }
        let expected = front + header.sealed_bytes();
        if length != expected {
            let what = if length < expected { "cut off" } else { "something was appended" };
            return Err(fail(format!("{what}: expected {expected} bytes, found {length}")));
        }
        let mut next = 0;
        let mut first = Vec::with_capacity(header.entries.len());
        for entry in &header.entries {
            first.push(next);
            next += entry.chunks(header.chunk_bytes());
        }
        Ok(SealedModel {
            name: name.to_owned(),
            header_hash: sha256(head),
            digests: digests.to_vec(),
            first,
            chunks_at: front,
            digest,
            header,
            source,
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What tells this sealed model from all others; a policy can pin it.
    pub fn digest(&self) -> SealDigest {
        self.digest
    }

    /// Takes the content key.
    ///
    /// # Errors
    /// If it is another key.
    pub fn open(self, key: &ContentKey) -> Result<OpenedModel<S>, SealError> {
        let expected = chunk::commitment(key, &self.header.salt);
        if !bool::from(expected.ct_eq(&self.header.commitment)) {
            return Err(SealError::WrongKey {
                needed: format!("{} version {}", self.header.key_id, self.header.key_version),
            });
        }
        let key = FileKey::new(key, &self.header.salt, self.header_hash)?;
        Ok(OpenedModel { model: self, key, opening: AtomicU64::new(0), stop: None })
    }
}

/// A sealed model with its key: gives its entries chunk by chunk, in any order, from any thread. What it gives was sealed at
/// this place of this file by the owner; nothing is given before it was verified.
pub struct OpenedModel<S> {
    model: SealedModel<S>,
    key: FileKey,
    /// Nanoseconds of verifying and decrypting chunks.
    opening: AtomicU64,
    stop: Option<Arc<AtomicBool>>,
}

impl<S: ReadAt> OpenedModel<S> {
    /// The header.
    pub fn header(&self) -> &Header {
        &self.model.header
    }

    /// Opens no chunk any more once this flag is set: [`SealError::Interrupted`] comes in place of it.
    #[must_use]
    pub fn stop_with(self, stop: Arc<AtomicBool>) -> Self {
        Self { stop: Some(stop), ..self }
    }

    /// What tells this sealed model from all others.
    pub fn digest(&self) -> SealDigest {
        self.model.digest
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.model.name
    }

    /// Graph and tensors.
    pub fn entries(&self) -> &[Entry] {
        &self.model.header.entries
    }

    /// Seconds that all threads together have spent with verifying and decrypting chunks so far, reading left out.
    pub fn opening_seconds(&self) -> f64 {
        self.opening.load(Ordering::Relaxed) as f64 / 1e9
    }

    /// The number of the tensor of a name; the first one, where there are several.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.entries().iter().position(|entry| entry.dtype.is_some() && entry.name == name)
    }

    /// How many chunks an entry has.
    ///
    /// # Panics
    /// If there is no such entry.
    pub fn chunks(&self, entry: usize) -> u64 {
        self.entries()[entry].chunks(self.header().chunk_bytes())
    }

    /// A buffer for [`OpenedModel::chunk`] of any entry.
    ///
    /// # Errors
    /// If there is no memory, or it cannot be locked.
    pub fn buffer(&self, swap: Swap) -> Result<SecretBuffer, SealError> {
        SecretBuffer::new((self.header().chunk_bytes() + TAG_BYTES) as usize, swap)
    }

    /// A buffer for [`OpenedModel::chunk`] of one entry. Small entries have small ones: the system gives out their pages, and
    /// they are wiped, one by one.
    ///
    /// # Errors
    /// As [`OpenedModel::buffer`].
    ///
    /// # Panics
    /// If there is no such entry.
    pub fn buffer_of(&self, entry: usize, swap: Swap) -> Result<SecretBuffer, SealError> {
        let most = self.header().chunk_bytes().min(self.entries()[entry].length);
        SecretBuffer::new((most + TAG_BYTES) as usize, swap)
    }

    /// Opens a chunk of an entry. All have [`Header::chunk_bytes`] bytes but the last.
    ///
    /// # Errors
    /// If it is not what was sealed, or cannot be read. The buffer is wiped then.
    ///
    /// # Panics
    /// If there is no such chunk, or the buffer is not one of [`OpenedModel::buffer`] or its entry's.
    pub fn chunk<'b>(
        &self,
        entry: usize,
        chunk: u64,
        buffer: &'b mut SecretBuffer,
    ) -> Result<&'b [u8], SealError> {
        let len = self.open_into(entry, chunk, buffer)?;
        Ok(&buffer[..len])
    }

    /// Opens a whole entry.
    ///
    /// # Errors
    /// As [`OpenedModel::chunk`], and if there is not as much memory, or it cannot be locked.
    ///
    /// # Panics
    /// If there is no such entry.
    pub fn entry(&self, entry: usize, swap: Swap) -> Result<SecretBuffer, SealError> {
        let length = self.entries()[entry].length as usize;
        // Every chunk's tag lies where the next chunk comes.
        let mut whole = SecretBuffer::new(length + TAG_BYTES as usize, swap)?;
        let mut at = 0;
        for chunk in 0..self.chunks(entry) {
            at += self.open_into(entry, chunk, &mut whole[at..])?;
        }
        whole.truncate(length);
        Ok(whole)
    }

    /// Opens a chunk at the beginning of `bytes`, and says how many it has; its tag follows.
    fn open_into(&self, index: usize, chunk: u64, bytes: &mut [u8]) -> Result<usize, SealError> {
        let (model, entry) = (&self.model, &self.entries()[index]);
        let (most, count) = (self.header().chunk_bytes(), self.chunks(index));
        assert!(chunk < count, "entry {index} has {count} chunks");
        if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::SeqCst)) {
            return Err(SealError::Interrupted);
        }
        let len = most.min(entry.length - chunk * most) as usize;
        let sealed = &mut bytes[..len + TAG_BYTES as usize];
        let at = model.chunks_at + entry.offset + chunk * (most + TAG_BYTES);
        let place = Place { entry: index as u32, chunk, is_last: chunk + 1 == count };
        let digest_at = (model.first[index] + chunk) as usize * DIGEST_BYTES;
        let expected = &model.digests[digest_at..digest_at + DIGEST_BYTES];
        let read = model.source.read_exact_at(sealed, at);
        let began = Instant::now();
        // Who has the content key could make another chunk with a right tag, but not with this digest.
        let is_whole = read.is_ok() && blake3::hash(sealed).as_bytes() == expected;
        let is_opened = is_whole && self.key.open(place, sealed);
        self.opening.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        if is_opened {
            return Ok(len);
        }
        sealed.zeroize();
        let problem = match read {
            Err(e) => format!("cannot be read: {e}"),
            Ok(()) => format!("entry {index} {:?}, chunk {chunk}: not what the owner sealed", entry.name),
        };
        Err(SealError::Sealed { name: model.name.clone(), problem })
    }
}

/// What is known before the signature was verified.
#[derive(Clone, Copy)]
struct Prefix {
    header_bytes: usize,
    chunks: usize,
}

impl Prefix {
    fn parse(bytes: &[u8]) -> Result<Prefix, String> {
        if bytes[..8] != MAGIC[..] {
            return Err(
                "not a sealed model, which privet seal makes: it begins with something else".to_owned()
            );
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != SEAL_VERSION {
            return Err(format!("sealed in format {version}; this program reads {SEAL_VERSION}"));
        }
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize;
        let (header_bytes, chunks) = (number(10), number(14));
        if header_bytes > MAX_HEADER_BYTES || chunks > MAX_CHUNKS as usize {
            return Err(format!(
                "a header of {header_bytes} bytes and {chunks} chunks; expected at most {MAX_HEADER_BYTES} and {MAX_CHUNKS}"
            ));
        }
        Ok(Prefix { header_bytes, chunks })
    }

    /// Bytes before the first chunk.
    fn front_bytes(self) -> usize {
        PREFIX_BYTES + self.header_bytes + self.chunks * DIGEST_BYTES + SIGNATURE_BYTES
    }
}

/// Whether a signed header is the one that is wanted.
fn check(
    header: &Header,
    digest: SealDigest,
    accepted: &Accepted,
    fail: &impl Fn(String) -> SealError,
) -> Result<(), SealError> {
    if header.model_id != accepted.model_id {
        let [expected, found] = [accepted.model_id, header.model_id].map(|id| id.to_string());
        return Err(SealError::OtherModel { expected, found });
    }
    if (&header.key_id, header.key_version) != (&accepted.key_id, accepted.key_version) {
        return Err(SealError::OtherKey {
            expected: format!("{} version {}", accepted.key_id, accepted.key_version),
            found: format!("{} version {}", header.key_id, header.key_version),
        });
    }
    if header.model_version < accepted.min_version {
        let [minimum, found] = [accepted.min_version, header.model_version].map(ModelVersion::get);
        return Err(SealError::RolledBack { minimum, found });
    }
    if header.part != accepted.part {
        let (want, found) = (accepted.part, header.part);
        return Err(fail(format!(
            "expected part {} of {}, found part {} of {}",
            want.number, want.of, found.number, found.of
        )));
    }
    match accepted.digest {
        Some(pinned) if pinned != digest => Err(fail(format!("expected digest {pinned}, found {digest}"))),
        _ => Ok(()),
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("32 bytes")
}

//! The file of one party's share of weights, inputs or outputs.
//!
//! `"PRIVSHAR" | version u16 | header length u32 | header (postcard) | elements | CRC-32 u32`; integers little-endian. Of the
//! two components that a party holds, one that was drawn from a seed is there as the seed; the elements of the others follow,
//! component by component, every tensor packed to l bits. The checksum, over all that goes before, finds damage, not forgery.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::Path;

use privet_net::Fingerprint;
use privet_plan::{Digest, Plan};
use privet_protocols::replicated::{PARTIES, Share, drawn};
use privet_ring::pack;
use privet_ring::prg::Seed;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::files;

const MAGIC: &[u8; 8] = b"PRIVSHAR";
/// Changes with the file and with what is drawn from a seed.
const VERSION: u16 = 1;
const MAX_HEADER: usize = 4096;

/// What is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShareKind {
    /// A model's private tensors.
    Weights,
    /// The inputs of an inference.
    Inputs,
    /// The outputs of an inference.
    Outputs,
}

impl fmt::Display for ShareKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weights => "weights",
            Self::Inputs => "inputs",
            Self::Outputs => "outputs",
        })
    }
}

/// Names what was shared once: equal in the files of all parties, and in no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharingId(pub(crate) [u8; 16]);

impl fmt::Display for SharingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) kind: ShareKind,
    pub(super) plan: Digest,
    pub(super) sharing: SharingId,
    /// 0, 1 or 2.
    pub(super) party: u8,
    /// Whose file it is; of outputs anybody's.
    pub(super) recipient: Option<Fingerprint>,
    /// The seeds of components i and i+1 of party i; those without follow as elements.
    pub(super) components: [Option<Seed>; 2],
}

/// One party's share of some tensors. Deliberately not `Debug`.
pub struct ShareFile {
    /// Names what was shared.
    pub sharing: SharingId,
    /// 0, 1 or 2.
    pub party: usize,
    /// The party that it is for, if it is for one.
    pub recipient: Option<Fingerprint>,
    /// Digests of components i and i+1 of party i, as they are in the file: the other party that holds one has the same.
    pub components: [Digest; 2],
    /// A share for every tensor.
    pub shares: Vec<Share>,
}

/// Numbers of elements of the tensors that a file of this kind holds.
fn sizes(plan: &Plan, kind: ShareKind) -> Vec<usize> {
    let elements = |shape: &Vec<usize>| shape.iter().product();
    match kind {
        ShareKind::Weights => plan.params.iter().map(|p| elements(&p.shape)).collect(),
        ShareKind::Inputs => plan.inputs.iter().map(|i| elements(&i.shape)).collect(),
        ShareKind::Outputs => plan.outputs.iter().map(|o| plan.len(o.wire)).collect(),
    }
}

/// Writes a file that only its owner can read, durably and whole or not at all. `values(c, t)` gives the elements of tensor t
/// in the header's component c, where that has no seed.
pub(super) fn write(
    path: &Path,
    plan: &Plan,
    header: &Header,
    values: impl Fn(usize, usize) -> Vec<u64>,
) -> Result<(), StoreError> {
    let fail = StoreError::io(path);
    let write = || {
        let mut file = files::temporary(path)?;
        let mut out = Hashed { inner: BufWriter::new(&mut file), hash: crc32fast::Hasher::new() };
        let encoded = postcard::to_stdvec(header).map_err(std::io::Error::other)?;
        out.write_all(MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        out.write_all(&(encoded.len() as u32).to_le_bytes())?;
        out.write_all(&encoded)?;
        let tensors = sizes(plan, header.kind).len();
        for (c, _) in header.components.iter().enumerate().filter(|(_, seed)| seed.is_none()) {
            for tensor in 0..tensors {
                let mut packed = Vec::new();
                pack::pack(&values(c, tensor), plan.ring.bits(), &mut packed);
                out.write_all(&packed)?;
            }
        }
        let checksum = out.hash.clone().finalize();
        out.inner.write_all(&checksum.to_le_bytes())?;
        out.inner.flush()?;
        drop(out);
        file.as_file().sync_all()?;
        file.persist(path)?;
        files::sync_dir(files::directory(path))
    };
    write().map_err(fail)
}

impl ShareFile {
    /// Reads a share of this kind that belongs to `plan`.
    ///
    /// # Errors
    /// The file is missing, cut short, damaged, of another version, kind or plan.
    pub fn read(path: &Path, plan: &Plan, kind: ShareKind) -> Result<Self, StoreError> {
        let problem = |problem: String| StoreError::Share { path: path.to_owned(), problem };
        let unreadable = |e: std::io::Error| match e.kind() {
            ErrorKind::UnexpectedEof => problem("cut short".to_owned()),
            ErrorKind::NotFound => problem("no such file".to_owned()),
            _ => StoreError::io(path)(e),
        };
        let file = File::open(path).map_err(unreadable)?;
        let mut input =
            Hashed { inner: BufReader::with_capacity(1 << 20, file), hash: crc32fast::Hasher::new() };
        let mut start = [0; MAGIC.len() + 2 + 4];
        input.read_exact(&mut start).map_err(unreadable)?;
        if !start.starts_with(MAGIC) {
            return Err(problem("not a share".to_owned()));
        }
        let version = u16::from_le_bytes([start[8], start[9]]);
        if version != VERSION {
            return Err(problem(format!("version {version}, this build reads version {VERSION}")));
        }
        let length = u32::from_le_bytes([start[10], start[11], start[12], start[13]]) as usize;
        if length > MAX_HEADER {
            return Err(problem(format!("a header of {length} bytes, at most {MAX_HEADER} are accepted")));
        }
        let mut encoded = vec![0; length];
        input.read_exact(&mut encoded).map_err(unreadable)?;
        let header: Header =
            postcard::from_bytes(&encoded).map_err(|e| problem(format!("damaged header: {e}")))?;
        if header.kind != kind {
            return Err(problem(format!("a share of {}, expected one of {kind}", header.kind)));
        }
        if header.plan != plan.digest() {
            let (expected, found) = (plan.digest().short(), header.plan.short());
            return Err(problem(format!("a share for plan {found}, expected {expected}")));
        }
        let party = usize::from(header.party);
        if party >= PARTIES {
            return Err(problem(format!("a share of party {party}, expected 0, 1 or 2")));
        }
        let sizes = sizes(plan, kind);
        let listed = header.components.iter().filter(|seed| seed.is_none()).count();
        let elements: usize = sizes.iter().map(|&n| plan.ring.packed_len(n)).sum();
        let expected = (start.len() + length + listed * elements + 4) as u64;
        // Before anything is reserved that the file does not have.
        let found = input.inner.get_ref().metadata().map_err(unreadable)?.len();
        if found != expected {
            return Err(problem(format!("expected {expected} bytes, found {found}")));
        }
        let mut component = |seed: &Option<Seed>| -> Result<(Vec<Vec<u64>>, Digest), StoreError> {
            let mut tensors = Vec::with_capacity(sizes.len());
            let mut digest = match seed {
                Some(seed) => Digest::of("privet component seed", seed.expose()),
                None => Digest::of("privet component", &[]),
            };
            for (tensor, &elements) in sizes.iter().enumerate() {
                tensors.push(match seed {
                    Some(seed) => drawn(seed, tensor, elements, plan.ring),
                    None => {
                        let mut packed = vec![0; plan.ring.packed_len(elements)];
                        input.read_exact(&mut packed).map_err(unreadable)?;
                        let own = Digest::of("privet component tensor", &packed);
                        digest = Digest::of("privet component", &[digest.0, own.0].concat());
                        let values = pack::unpack(&packed, plan.ring.bits(), elements);
                        values.map_err(|e| problem(e.to_string()))?
                    }
                });
            }
            Ok((tensors, digest))
        };
        let [own, next] = &header.components;
        let ((own, first), (next, second)) = (component(own)?, component(next)?);
        let expected = input.hash.clone().finalize();
        let mut checksum = [0; 4];
        input.inner.read_exact(&mut checksum).map_err(unreadable)?;
        if u32::from_le_bytes(checksum) != expected {
            return Err(problem("damaged: the checksum does not match".to_owned()));
        }
        let shares = own.into_iter().zip(next).map(|(own, next)| Share { own, next }).collect();
        let (sharing, recipient) = (header.sharing, header.recipient);
        Ok(Self { sharing, party, recipient, components: [first, second], shares })
    }
}

/// Writes a party's share of outputs.
pub(crate) fn write_outputs(
    path: &Path,
    plan: &Plan,
    sharing: SharingId,
    party: usize,
    shares: &[Share],
) -> Result<(), StoreError> {
    let header = Header {
        kind: ShareKind::Outputs,
        plan: plan.digest(),
        sharing,
        party: party as u8,
        recipient: None,
        components: [None, None],
    };
    let values = |c: usize, tensor: usize| {
        let Share { own, next } = &shares[tensor];
        if c == 0 { own.clone() } else { next.clone() }
    };
    write(path, plan, &header, values)
}

/// Hashes what passes.
struct Hashed<T> {
    inner: T,
    hash: crc32fast::Hasher,
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(out)?;
        self.hash.update(&out[..count]);
        Ok(count)
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

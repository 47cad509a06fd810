//! The bundles a server or client holds, each usable once.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use privet_net::Fingerprint;
use privet_plan::{Digest, Plan};
use privet_protocols::masked::{Bundle, Role, Schedule};
use serde::{Deserialize, Serialize};

use super::bundle::{BundleHeader, BundleId, BundleReader, BundleWriter, EpochId, Prefetch};
use super::{Database, Transaction, crash_point, private_dir, sync_dir};
use crate::error::StoreError;

/// Bundles that are stored and unused.
const READY: &str = "bundles_ready";
/// Names of those that are used or given up, for ever, and with whom they were shared.
const BURNT: &str = "bundles_burnt";
/// How many bundles were ever stored.
const COUNTER: (&str, &[u8]) = ("meta", b"bundles_stored");

/// What became of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Stored and unused.
    Ready,
    /// Used, or given up; its masks must never be seen again.
    Burnt,
}

/// What is remembered of an unused bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    peer: Fingerprint,
    plan: Digest,
    epoch: EpochId,
    /// Place in the order in which bundles were stored.
    number: u64,
}

/// Which bundles go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Purpose {
    pub(crate) peer: Fingerprint,
    pub(crate) plan: Digest,
    pub(crate) epoch: EpochId,
}

/// One-time material of one party.
pub(crate) struct Material<'a> {
    database: &'a Database,
    dir: PathBuf,
}

impl<'a> Material<'a> {
    /// The material under a state directory that was opened before.
    pub(crate) fn attach(database: &'a Database, state: &Path) -> Self {
        Self { database, dir: state.join("bundles") }
    }

    /// The material under a state directory; removes what a crash left half written.
    pub(crate) fn open(database: &'a Database, state: &Path) -> Result<Self, StoreError> {
        let material = Self::attach(database, state);
        private_dir(&material.dir)?;
        for entry in std::fs::read_dir(&material.dir).map_err(StoreError::io(&material.dir))? {
            let path = entry.map_err(StoreError::io(&material.dir))?.path();
            let known = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(parse_id)
                .filter(|_| path.extension().is_some_and(|e| e == "bundle"));
            let keep = match known {
                Some(id) => material.database.get::<Record>(READY, &id.0)?.is_some(),
                None => false,
            };
            if !keep {
                std::fs::remove_file(&path).map_err(StoreError::io(&path))?;
            }
        }
        // A bundle whose file is gone can never be used.
        for (id, purpose) in material.all_ready()? {
            let path = material.path(id);
            if !path.try_exists().map_err(StoreError::io(&path))? {
                material.database.transact(|t| mark_burnt(t, id, purpose.peer))?;
            }
        }
        Ok(material)
    }

    fn path(&self, id: BundleId) -> PathBuf {
        self.dir.join(format!("{id}.bundle"))
    }

    /// Whether a bundle was ever stored here.
    pub(crate) fn is_known(&self, id: BundleId) -> Result<bool, StoreError> {
        let ready = self.database.get::<Record>(READY, &id.0)?.is_some();
        Ok(ready || self.database.get::<Fingerprint>(BURNT, &id.0)?.is_some())
    }

    /// What became of a bundle shared with the peer; `None` if none of this name and purpose was ever stored here.
    pub(crate) fn status(&self, id: BundleId, purpose: &Purpose) -> Result<Option<Status>, StoreError> {
        if let Some(Record { peer, plan, epoch, .. }) = self.database.get(READY, &id.0)? {
            return Ok((Purpose { peer, plan, epoch } == *purpose).then_some(Status::Ready));
        }
        let burnt: Option<Fingerprint> = self.database.get(BURNT, &id.0)?;
        Ok(burnt.filter(|peer| *peer == purpose.peer).map(|_| Status::Burnt))
    }

    /// Unused bundles for a purpose, oldest first.
    pub(crate) fn ready(&self, purpose: &Purpose) -> Result<Vec<BundleId>, StoreError> {
        let all = self.all_ready()?.into_iter();
        Ok(all.filter(|(_, found)| found == purpose).map(|(id, _)| id).collect())
    }

    /// All unused bundles and what each is for, oldest first.
    pub(crate) fn all_ready(&self) -> Result<Vec<(BundleId, Purpose)>, StoreError> {
        let mut found = Vec::new();
        for (key, record) in self.database.all::<Record>(READY)? {
            let Record { peer, plan, epoch, number } = record;
            found.push((number, self.id(key)?, Purpose { peer, plan, epoch }));
        }
        found.sort_unstable_by_key(|(number, id, _)| (*number, *id));
        Ok(found.into_iter().map(|(_, id, purpose)| (id, purpose)).collect())
    }

    fn id(&self, key: Vec<u8>) -> Result<BundleId, StoreError> {
        let bytes = key.try_into().map_err(|_| self.damaged("a bundle's name does not have 16 bytes"))?;
        Ok(BundleId(bytes))
    }

    pub(crate) fn damaged(&self, problem: &str) -> StoreError {
        StoreError::Database { path: self.dir.clone(), problem: problem.to_owned() }
    }

    /// The header of an unused bundle.
    #[cfg(feature = "audit")]
    pub(crate) fn header(&self, id: BundleId) -> Result<BundleHeader, StoreError> {
        Ok(BundleReader::begin(&self.path(id))?.0.header)
    }

    /// Begins to write a bundle.
    pub(crate) fn writer(&self, header: &BundleHeader) -> Result<BundleWriter, StoreError> {
        BundleWriter::create(&self.path(header.id), header)
    }

    /// Completes a bundle: from here on it is ready. Returns its size. A bundle that was ever stored before is refused.
    pub(crate) fn store(&self, header: &BundleHeader, writer: BundleWriter) -> Result<u64, StoreError> {
        let size = writer.finish()?;
        crash_point("bundle written");
        let BundleHeader { id, peer, plan, epoch, .. } = *header;
        self.database.transact(|t| {
            if t.get::<Record>(READY, &id.0)?.is_some() || t.get::<Fingerprint>(BURNT, &id.0)?.is_some() {
                return Err(
                    self.damaged("a bundle of this name was stored before; it is not used a second time")
                );
            }
            let number = t.get(COUNTER.0, COUNTER.1)?.unwrap_or(0);
            t.put(COUNTER.0, COUNTER.1, &(number + 1))?;
            t.put(READY, &id.0, &Record { peer, plan, epoch, number })
        })?;
        crash_point("bundle stored");
        Ok(size)
    }

    /// Opens a bundle, for [`Self::burn`], and reads ahead. Until it is burnt, nothing that depends on it may leave this process.
    ///
    /// # Errors
    /// [`StoreError::Bundle`] if this bundle cannot be used: its file is not whole. Anything else says nothing about the bundle.
    pub(crate) fn open_bundle(
        &self,
        id: BundleId,
        purpose: &Purpose,
        plan: &Plan,
        schedule: &Schedule,
        role: Role,
    ) -> Result<Bundle<Prefetch>, StoreError> {
        let unusable = |problem: String| StoreError::Bundle { path: self.path(id), problem };
        match BundleReader::open(&self.path(id), purpose, plan, schedule, role) {
            Ok(reader) if reader.header.id == id => reader.into_bundle(),
            Ok(reader) => Err(unusable(format!("holds bundle {}, expected {id}", reader.header.id))),
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Err(unusable("the file of this bundle is gone".to_owned()))
            }
            Err(other) => Err(other),
        }
    }

    /// Burns a bundle for use: when this returns it is burnt durably, whatever happens next. `also` happens in
    /// the same transaction, and can still prevent it. `opened` is what [`Self::open_bundle`] gave, or what came of it.
    ///
    /// # Errors
    /// [`StoreError::Bundle`] if this bundle cannot be used, which burns it, too, but does not do `also`: `opened` says so, or another
    /// session was faster. Anything else says nothing about the bundle, and leaves it as it was.
    pub(crate) fn burn<T>(
        &self,
        id: BundleId,
        purpose: &Purpose,
        opened: Result<T, StoreError>,
        also: impl FnOnce(&Transaction) -> Result<(), StoreError>,
    ) -> Result<T, StoreError> {
        let opened = match opened {
            Err(other) if !matches!(other, StoreError::Bundle { .. }) => return Err(other),
            opened => opened,
        };
        crash_point("bundle opened");
        let was_ready = self.database.note(|t| {
            let was_ready = mark_burnt(t, id, purpose.peer)?;
            if was_ready && opened.is_ok() {
                also(t)?;
            }
            Ok(was_ready)
        })?;
        crash_point("bundle burnt");
        let reader = opened?;
        if !was_ready {
            let problem = "another session has used it".to_owned();
            return Err(StoreError::Bundle { path: self.path(id), problem });
        }
        // The open file stays readable; the name goes so that no backup finds it. What is left of it by a crash, opening the material
        // sweeps up, as the record says that it is burnt.
        let _ = std::fs::remove_file(self.path(id));
        crash_point("bundle unlinked");
        let _ = sync_dir(&self.dir);
        Ok(reader)
    }

    /// Burns those of `ids` that are unused and for this purpose. Returns how many.
    pub(crate) fn discard(&self, purpose: &Purpose, ids: &[BundleId]) -> Result<usize, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let ready = self.ready(purpose)?;
        let held: Vec<BundleId> = ids.iter().copied().filter(|id| ready.contains(id)).collect();
        held.iter().try_for_each(|&id| self.drop_unused(id, purpose.peer))?;
        Ok(held.len())
    }

    fn drop_unused(&self, id: BundleId, peer: Fingerprint) -> Result<(), StoreError> {
        self.database.transact(|t| mark_burnt(t, id, peer))?;
        // Opening the material sweeps up what this leaves.
        let _ = std::fs::remove_file(self.path(id));
        Ok(())
    }

    /// Burns every unused bundle shared with `purpose.peer` that is for another plan or epoch. Returns how many.
    pub(crate) fn burn_others(&self, purpose: &Purpose) -> Result<usize, StoreError> {
        let mut count = 0;
        for (id, found) in self.all_ready()? {
            if found.peer == purpose.peer && found != *purpose {
                self.drop_unused(id, found.peer)?;
                count += 1;
            }
        }
        Ok(count)
    }
}

/// Moves a bundle from the unused ones to the others. Returns whether it was unused.
fn mark_burnt(t: &Transaction, id: BundleId, peer: Fingerprint) -> Result<bool, StoreError> {
    let was_ready = t.remove(READY, &id.0)?;
    if was_ready {
        t.put(BURNT, &id.0, &peer)?;
    }
    Ok(was_ready)
}

fn parse_id(hex: &str) -> Option<BundleId> {
    let mut id = [0; 16];
    if hex.len() != 32 || !hex.is_ascii() {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(BundleId(id))
}

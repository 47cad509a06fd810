//! The bundles a server or client holds, each usable once.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use privet_net::Fingerprint;
use privet_plan::{Digest, Plan};
use privet_protocols::masked::{Role, Schedule};
use serde::{Deserialize, Serialize};

use super::bundle::{BundleHeader, BundleId, BundleReader, BundleWriter, EpochId};
use super::{Database, private_dir, sync_dir};
use crate::error::StoreError;

const BUNDLES: &str = "bundles";

/// What became of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    /// Stored and unused.
    Ready,
    /// Used, or given up; its masks must never be seen again.
    Burnt,
}

/// What is remembered of a bundle, for ever.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    status: Status,
    peer: Fingerprint,
    plan: Digest,
    epoch: EpochId,
    stored_at: u64,
}

/// Which bundles go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Purpose {
    pub(crate) peer: Fingerprint,
    pub(crate) plan: Digest,
    pub(crate) epoch: EpochId,
}

impl Record {
    fn serves(&self, purpose: &Purpose) -> bool {
        (self.peer, self.plan, self.epoch) == (purpose.peer, purpose.plan, purpose.epoch)
    }
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
                Some(id) => material.status(id)? == Some(Status::Ready),
                None => false,
            };
            if !keep {
                std::fs::remove_file(&path).map_err(StoreError::io(&path))?;
            }
        }
        // A bundle whose file is gone can never be used.
        for (key, record) in material.database.all::<Record>(BUNDLES)? {
            let id = material.id(key)?;
            if record.status == Status::Ready && !material.path(id).exists() {
                material.mark_burnt(id)?;
            }
        }
        Ok(material)
    }

    fn path(&self, id: BundleId) -> PathBuf {
        self.dir.join(format!("{id}.bundle"))
    }

    /// What became of a bundle; `None` if it was never stored here.
    pub(crate) fn status(&self, id: BundleId) -> Result<Option<Status>, StoreError> {
        Ok(self.database.get::<Record>(BUNDLES, &id.0)?.map(|r| r.status))
    }

    /// Unused bundles for a purpose, oldest first.
    pub(crate) fn ready(&self, purpose: &Purpose) -> Result<Vec<BundleId>, StoreError> {
        let mut found: Vec<(u64, BundleId)> = Vec::new();
        for (key, record) in self.database.all::<Record>(BUNDLES)? {
            if record.status == Status::Ready && record.serves(purpose) {
                let id =
                    key.try_into().map_err(|_| self.damaged("a bundle's name does not have 16 bytes"))?;
                found.push((record.stored_at, BundleId(id)));
            }
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    fn id(&self, key: Vec<u8>) -> Result<BundleId, StoreError> {
        let bytes = key.try_into().map_err(|_| self.damaged("a bundle's name does not have 16 bytes"))?;
        Ok(BundleId(bytes))
    }

    fn damaged(&self, problem: &str) -> StoreError {
        StoreError::Database { path: self.dir.clone(), problem: problem.to_owned() }
    }

    /// Begins to write a bundle.
    pub(crate) fn writer(&self, header: &BundleHeader) -> Result<BundleWriter, StoreError> {
        BundleWriter::create(&self.path(header.id), header)
    }

    /// Completes a bundle: from here on it is ready. Returns its size. A bundle that was ever stored before is refused.
    pub(crate) fn store(&self, header: &BundleHeader, writer: BundleWriter) -> Result<u64, StoreError> {
        let size = writer.finish()?;
        let stored_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let record = Record {
            status: Status::Ready,
            peer: header.peer,
            plan: header.plan,
            epoch: header.epoch,
            stored_at,
        };
        let fresh = |old: Option<Record>| old.is_none().then_some(record);
        if self.database.update(BUNDLES, &header.id.0, fresh)? {
            return Ok(size);
        }
        Err(self.damaged("a bundle of this name was stored before; it is not used a second time"))
    }

    /// Opens a bundle for use and burns it: when this returns it is burnt durably, whatever happens next. Errors if its
    /// file is not whole, which burns it too, or if it was used before.
    pub(crate) fn burn(
        &self,
        id: BundleId,
        purpose: &Purpose,
        plan: &Plan,
        schedule: &Schedule,
        role: Role,
    ) -> Result<BundleReader, StoreError> {
        let reader = BundleReader::open(&self.path(id), purpose, plan, schedule, role);
        self.mark_burnt(id)?;
        let reader = reader?;
        if reader.header.id != id {
            let problem = format!("holds bundle {}, expected {id}", reader.header.id);
            return Err(StoreError::Bundle { path: self.path(id), problem });
        }
        // The open file stays readable; the name goes at once so that a backup cannot pick it up.
        std::fs::remove_file(self.path(id)).map_err(StoreError::io(self.path(id)))?;
        sync_dir(&self.dir)?;
        Ok(reader)
    }

    fn mark_burnt(&self, id: BundleId) -> Result<(), StoreError> {
        let burn = |old: Option<Record>| {
            old.filter(|r| r.status == Status::Ready).map(|r| Record { status: Status::Burnt, ..r })
        };
        if self.database.update(BUNDLES, &id.0, burn)? {
            return Ok(());
        }
        Err(self.damaged(&format!("bundle {id} is not ready: it was used before")))
    }

    /// Burns those of `ids` that are unused and for this purpose. Returns how many.
    pub(crate) fn discard(&self, purpose: &Purpose, ids: &[BundleId]) -> Result<usize, StoreError> {
        let ready = self.ready(purpose)?;
        let held: Vec<BundleId> = ids.iter().copied().filter(|id| ready.contains(id)).collect();
        held.iter().try_for_each(|&id| self.drop_unused(id))?;
        Ok(held.len())
    }

    fn drop_unused(&self, id: BundleId) -> Result<(), StoreError> {
        self.mark_burnt(id)?;
        // Opening the material sweeps up what this leaves.
        let _ = std::fs::remove_file(self.path(id));
        Ok(())
    }

    /// Burns every unused bundle shared with `purpose.peer` that is for another plan or epoch. Returns how many.
    pub(crate) fn burn_others(&self, purpose: &Purpose) -> Result<usize, StoreError> {
        let mut count = 0;
        for (key, record) in self.database.all::<Record>(BUNDLES)? {
            if record.status == Status::Ready && record.peer == purpose.peer && !record.serves(purpose) {
                let id = self.id(key)?;
                self.drop_unused(id)?;
                count += 1;
            }
        }
        Ok(count)
    }
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

//! What a key server keeps: keys with their versions, policies, and the audit log.
//!
//! Every change and its entry in the log are one transaction, durable before anyone is told of it.

mod database;

use std::path::Path;
use std::sync::Arc;

use privet_seal::{ContentKey, KeyFingerprint, KeyId, KeyVersion, ModelId, Release, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::audit::{Anchor, Chain, Entry, Event, Note};
use crate::clock::Clock;
use crate::error::KeysError;
use crate::master::MasterSource;
use crate::random::Randomness;
pub(crate) use database::{Database, Transaction};

const KEYS: &str = "keys";
const SECRETS: &str = "secrets";
const POLICIES: &str = "policies";
const AUDIT: &str = "audit";
const META: &str = "meta";
const NEWEST: &[u8] = b"newest audit entry";

/// Longest policy file.
pub const MAX_POLICY_BYTES: usize = 64 << 10;
/// Most versions of one key.
const MAX_VERSIONS: usize = 10_000;

/// Whether a version of a key is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// Yes.
    Active,
    /// Never again; the key itself has been removed.
    Revoked,
}

/// A version of a key, without the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// Its number.
    pub version: KeyVersion,
    /// Which key it is.
    pub fingerprint: KeyFingerprint,
    /// When it was added, in seconds since 1970.
    pub added: u64,
    /// Whether it is released.
    pub state: KeyState,
}

/// A key's record, without the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Its name.
    pub id: KeyId,
    /// The model it is for.
    pub model: ModelId,
    /// Who signs the model.
    pub verifying_key: VerifyingKey,
    /// All that there were, oldest first.
    pub versions: Vec<VersionInfo>,
}

impl KeyInfo {
    /// The version asked for, or else the newest that has not been revoked.
    pub fn version(&self, asked: Option<KeyVersion>) -> Option<&VersionInfo> {
        let mut newest_first = self.versions.iter().rev();
        match asked {
            Some(asked) => newest_first.find(|v| v.version == asked),
            None => newest_first.find(|v| v.state == KeyState::Active),
        }
    }
}

/// A key server's store.
pub struct Store {
    database: Database,
    chain: Chain,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Randomness>,
}

impl Store {
    /// Makes a new store.
    ///
    /// # Errors
    /// If there is one, the master key cannot be had, or the system fails.
    pub fn create(
        path: &Path,
        source: &MasterSource,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Randomness>,
    ) -> Result<Self, KeysError> {
        let database = Database::create(path, source, &*random)?;
        let store = Self { chain: Chain::new(&database.master)?, database, clock, random };
        store.note(Note::new(Event::Created, "", ""))?;
        Ok(store)
    }

    /// Opens a store. One process at a time can.
    ///
    /// # Errors
    /// [`KeysError::Busy`] if another process has it open; if it is missing, of another version or damaged; if the master key
    /// cannot be had or is not its.
    pub fn open(
        path: &Path,
        source: &MasterSource,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Randomness>,
    ) -> Result<Self, KeysError> {
        let database = Database::open(path, source)?;
        Ok(Self { chain: Chain::new(&database.master)?, database, clock, random })
    }

    /// 32 bytes for one purpose, which follow from the master key.
    pub(crate) fn derive(&self, purpose: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeysError> {
        self.database.master.derive(purpose)
    }

    /// Adds a key under a name that is not taken.
    ///
    /// # Errors
    /// [`KeysError::KeyExists`], or if the store fails: then nothing was added.
    pub fn add(&self, key: &ContentKey, release: &Release) -> Result<(), KeysError> {
        let id = &release.key_id;
        self.transact(|t| {
            if t.get::<KeyInfo>(KEYS, id.as_str().as_bytes())?.is_some() {
                return Err(KeysError::KeyExists(id.clone()));
            }
            let info = KeyInfo {
                id: id.clone(),
                model: release.model_id,
                verifying_key: release.verifying_key,
                versions: Vec::new(),
            };
            self.add_version(t, info, key, release, Event::KeyAdded)
        })
    }

    /// Adds a newer version of a key. Older ones stay, for models that are sealed under them, until they are revoked.
    ///
    /// # Errors
    /// [`KeysError::NoKey`]; if the version is not newer than all that there were, or the key is one that there was, or for
    /// another model or signer; or if the store fails: then nothing was added.
    pub fn rotate(&self, key: &ContentKey, release: &Release) -> Result<(), KeysError> {
        let id = &release.key_id;
        self.transact(|t| {
            let info: KeyInfo =
                t.get(KEYS, id.as_str().as_bytes())?.ok_or_else(|| KeysError::NoKey(id.clone()))?;
            let usage = |problem: String| Err(KeysError::Usage(format!("key {id}: {problem}")));
            if info.model != release.model_id || info.verifying_key != release.verifying_key {
                return usage(
                    "its model and signer do not change; a key of another name is for another model"
                        .to_owned(),
                );
            }
            let newest = info.versions.last().map_or(0, |v| v.version.get());
            if release.key_version.get() <= newest {
                let found = release.key_version;
                return usage(format!(
                    "expected a version after {newest}, found {found}; make it with privet key rotate"
                ));
            }
            if info.versions.iter().any(|v| v.fingerprint == release.fingerprint) {
                return usage("this key is there already, under another version".to_owned());
            }
            self.add_version(t, info, key, release, Event::KeyRotated)
        })
    }

    fn add_version(
        &self,
        t: &Transaction<'_>,
        mut info: KeyInfo,
        key: &ContentKey,
        release: &Release,
        event: Event,
    ) -> Result<(), KeysError> {
        if key.fingerprint() != release.fingerprint {
            let problem = "key and release file do not belong together".to_owned();
            return Err(KeysError::Usage(problem));
        }
        if info.versions.len() >= MAX_VERSIONS {
            return Err(KeysError::Usage(format!("a key has at most {MAX_VERSIONS} versions")));
        }
        let version = release.key_version;
        let (fingerprint, added) = (release.fingerprint, self.clock.now());
        info.versions.push(VersionInfo { version, fingerprint, added, state: KeyState::Active });
        t.put_bytes(SECRETS, &secret_key(&info.id, version), key.expose())?;
        t.put(KEYS, info.id.as_str().as_bytes(), &info)?;
        let detail = format!("model {}, fingerprint {fingerprint}", info.model);
        self.link(t, Note::new(event, versioned(&info.id, version), detail))
    }

    /// Revokes a version of a key, or all: never again released, and removed from the store.
    ///
    /// # Errors
    /// [`KeysError::NoKey`], if there is no such version, or if the store fails: then nothing was revoked.
    pub fn revoke(&self, id: &KeyId, version: Option<KeyVersion>) -> Result<usize, KeysError> {
        self.transact(|t| {
            let mut info: KeyInfo =
                t.get(KEYS, id.as_str().as_bytes())?.ok_or_else(|| KeysError::NoKey(id.clone()))?;
            let meant = |v: &VersionInfo| version.is_none_or(|version| v.version == version);
            if !info.versions.iter().any(meant) {
                let asked = version.map_or(0, KeyVersion::get);
                return Err(KeysError::Usage(format!("key {id} has no version {asked}")));
            }
            let mut revoked = 0;
            for v in info.versions.iter_mut().filter(|v| v.state == KeyState::Active) {
                if version.is_none_or(|version| v.version == version) {
                    v.state = KeyState::Revoked;
                    t.remove(SECRETS, &secret_key(id, v.version))?;
                    self.link(t, Note::new(Event::KeyRevoked, versioned(id, v.version), ""))?;
                    revoked += 1;
                }
            }
            t.put(KEYS, id.as_str().as_bytes(), &info)?;
            Ok(revoked)
        })
    }

    /// Everything about all keys but the keys.
    ///
    /// # Errors
    /// If the store fails.
    pub fn list(&self) -> Result<Vec<KeyInfo>, KeysError> {
        self.database.snapshot()?.each(KEYS, &[])?.collect()
    }

    /// Everything about a key but the key.
    ///
    /// # Errors
    /// If the store fails.
    pub fn info(&self, id: &KeyId) -> Result<Option<KeyInfo>, KeysError> {
        self.database.get(KEYS, id.as_str().as_bytes())
    }

    /// A version of a key that has not been revoked.
    ///
    /// # Errors
    /// If the store fails.
    pub fn secret(&self, id: &KeyId, version: KeyVersion) -> Result<Option<ContentKey>, KeysError> {
        let bytes = self.database.get_bytes(SECRETS, &secret_key(id, version))?;
        Ok(bytes.map(|bytes| ContentKey::from_slice(&bytes)).transpose()?)
    }

    /// Sets the policy of a key, whole. The text has been checked.
    ///
    /// # Errors
    /// If the store fails: then the policy before stays.
    pub fn set_policy(&self, id: &KeyId, text: &str) -> Result<(), KeysError> {
        self.transact(|t| {
            t.put(POLICIES, id.as_str().as_bytes(), &text)?;
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
            let detail = format!("SHA-256 {}", data_encoding::HEXLOWER.encode(digest.as_ref()));
            self.link(t, Note::new(Event::PolicySet, id.as_str(), detail))
        })
    }

    /// The policy of a key, as it was set.
    ///
    /// # Errors
    /// If the store fails.
    pub fn policy(&self, id: &KeyId) -> Result<Option<String>, KeysError> {
        self.database.get(POLICIES, id.as_str().as_bytes())
    }

    /// Writes an entry to the log; durable when this returns.
    ///
    /// # Errors
    /// If the store fails.
    pub fn note(&self, note: Note) -> Result<(), KeysError> {
        self.transact(|t| self.link(t, note))
    }

    /// Decides by what is stored, and writes the decision to the log if it has a note, as one: no key is revoked and no policy
    /// set in between.
    /// Durable when this returns.
    ///
    /// # Errors
    /// If the store or the decision fails: then there is none.
    pub(crate) fn decide<T>(
        &self,
        decide: impl FnOnce(&View<'_>) -> Result<(Option<Note>, T), KeysError>,
    ) -> Result<T, KeysError> {
        self.transact(|t| {
            let (note, decision) = decide(&View(t))?;
            if let Some(note) = note {
                self.link(t, note)?;
            }
            Ok(decision)
        })
    }

    /// All entries of the log, unchecked.
    ///
    /// # Errors
    /// If the store fails.
    pub fn entries(&self) -> Result<Vec<Entry>, KeysError> {
        self.entries_after(0, usize::MAX)
    }

    /// At most so many entries after the one of this number.
    pub(crate) fn entries_after(&self, after: u64, most: usize) -> Result<Vec<Entry>, KeysError> {
        let from = after.saturating_add(1).to_be_bytes();
        self.database.snapshot()?.each(AUDIT, &from)?.take(most).collect()
    }

    /// Checks the whole log, and that it contains an entry that was noted elsewhere. Gives its newest entry.
    ///
    /// # Errors
    /// [`KeysError::Audit`], or if the store fails.
    pub fn verify_audit(&self, noted: Option<Anchor>) -> Result<Anchor, KeysError> {
        // Entries that are written meanwhile are in neither.
        let now = self.database.snapshot()?;
        let newest = now.get(META, NEWEST)?.unwrap_or_default();
        self.chain.verify(now.each(AUDIT, &[])?, newest, noted)?;
        Ok(newest)
    }

    fn link(&self, t: &Transaction<'_>, note: Note) -> Result<(), KeysError> {
        let newest = t.get(META, NEWEST)?.unwrap_or_default();
        let (entry, newest) = self.chain.link(newest, self.clock.now(), note);
        t.put(AUDIT, &entry.sequence.to_be_bytes(), &entry)?;
        t.put(META, NEWEST, &newest)
    }

    fn transact<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, KeysError>,
    ) -> Result<T, KeysError> {
        self.database.transact(&*self.random, work)
    }
}

/// What a decision goes by.
pub(crate) struct View<'a>(&'a Transaction<'a>);

impl View<'_> {
    /// As [`Store::info`].
    pub(crate) fn info(&self, id: &KeyId) -> Result<Option<KeyInfo>, KeysError> {
        self.0.get(KEYS, id.as_str().as_bytes())
    }

    /// As [`Store::policy`].
    pub(crate) fn policy(&self, id: &KeyId) -> Result<Option<String>, KeysError> {
        self.0.get(POLICIES, id.as_str().as_bytes())
    }

    /// As [`Store::secret`].
    pub(crate) fn secret(&self, id: &KeyId, version: KeyVersion) -> Result<Option<ContentKey>, KeysError> {
        let bytes = self.0.get_bytes(SECRETS, &secret_key(id, version))?;
        Ok(bytes.map(|bytes| ContentKey::from_slice(&bytes)).transpose()?)
    }
}

/// `id@version`.
pub(crate) fn versioned(id: &KeyId, version: KeyVersion) -> String {
    format!("{id}@{version}")
}

/// No name of a key contains a zero.
fn secret_key(id: &KeyId, version: KeyVersion) -> Vec<u8> {
    [id.as_str().as_bytes(), &[0], &version.get().to_be_bytes()].concat()
}

#[cfg(test)]
mod tests;

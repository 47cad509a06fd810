//! A thin typed layer over the embedded database: tables of byte keys and encoded records.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redb::{Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::journal::{Change, Journal};
use super::{crash_point, private_dir};
use crate::error::StoreError;
use crate::files;

/// How long another process of this party may hold the database before we give up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Layout version of the records; other versions are refused.
const VERSION: u32 = 3;

/// Where the database keeps the number of the last transaction that went through the journal.
const JOURNALLED: (&str, &[u8]) = ("meta", b"journalled");

/// The database of one party.
pub(crate) struct Database {
    path: PathBuf,
    inner: redb::Database,
    /// Changed by who has a write transaction only.
    journal: Mutex<Journal>,
}

fn definition(table: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(table)
}

impl Database {
    /// Opens or creates the database at `path`, waiting a moment for another process to let go of it.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        if let Some(dir) = path.parent() {
            private_dir(dir)?;
        }
        if !path.exists() {
            create(path)?;
        }
        let started = Instant::now();
        let inner = loop {
            match redb::Database::create(path) {
                Ok(inner) => break inner,
                Err(redb::DatabaseError::DatabaseAlreadyOpen) if started.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
                    let problem =
                        "another privet process of this party is using this state; wait for it or stop it";
                    return Err(StoreError::Database { path: path.to_owned(), problem: problem.to_owned() });
                }
                Err(e) => return Err(failure(path, e.into())),
            }
        };
        restrict(path)?;
        // Nobody makes another one while this one is there.
        files::sweep(files::directory(path)).map_err(StoreError::io(path))?;
        match get::<u32>(&inner, path, "meta", b"version")? {
            None | Some(VERSION) => {}
            Some(found) => {
                let problem = format!("state of layout version {found}, this build uses {VERSION}");
                return Err(StoreError::Database { path: path.to_owned(), problem });
            }
        }
        let known = get(&inner, path, JOURNALLED.0, JOURNALLED.1)?;
        let (journal, lacking) = Journal::open(path.with_extension("journal"), known)?;
        let database = Self { path: path.to_owned(), inner, journal: Mutex::new(journal) };
        if known.is_none() || !lacking.is_empty() {
            database.transact(|t| {
                t.put("meta", b"version", &VERSION)?;
                lacking
                    .iter()
                    .flat_map(|entry| &entry.changes)
                    .try_for_each(|change| t.apply(change).map(|_| ()))?;
                t.put(JOURNALLED.0, JOURNALLED.1, &lacking.last().map_or(known.unwrap_or(0), |e| e.number))
            })?;
        }
        Ok(database)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: impl Into<redb::Error>) -> StoreError {
        failure(&self.path, error.into())
    }

    fn malformed(&self, error: postcard::Error) -> StoreError {
        malformed(&self.path, error)
    }

    /// The record of `key`, if there is one.
    pub(crate) fn get<V: DeserializeOwned>(&self, table: &str, key: &[u8]) -> Result<Option<V>, StoreError> {
        get(&self.inner, &self.path, table, key)
    }

    /// Stores a record; durable when this returns.
    pub(crate) fn put<V: Serialize>(&self, table: &str, key: &[u8], value: &V) -> Result<(), StoreError> {
        self.transact(|t| t.put(table, key, value))
    }

    /// Removes a record; durable when this returns.
    pub(crate) fn remove(&self, table: &str, key: &[u8]) -> Result<(), StoreError> {
        self.transact(|t| t.remove(table, key)).map(|_| ())
    }

    /// Does everything in `work` or, if that fails, nothing. Durable when this returns.
    pub(crate) fn transact<T>(
        &self,
        work: impl FnOnce(&Transaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let inner = self.begin()?;
        let transaction = Transaction { database: self, inner: &inner, changes: RefCell::default() };
        let result = work(&transaction)?;
        let mut journal = self.journal();
        if journal.has_failed() {
            transaction.put(JOURNALLED.0, JOURNALLED.1, &journal.next())?;
        }
        inner.commit().map_err(|e| self.fail(e))?;
        journal.caught_up();
        Ok(result)
    }

    /// One at a time.
    fn begin(&self) -> Result<redb::WriteTransaction, StoreError> {
        let inner = self.inner.begin_write().map_err(|e| self.fail(e))?;
        if self.journal().is_broken() { Err(self.fail(redb::Error::PreviousIo)) } else { Ok(inner) }
    }

    /// [`Self::transact`], in a fraction of the time, for few and small records.
    pub(crate) fn note<T>(
        &self,
        work: impl FnOnce(&Transaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut inner = self.begin()?;
        let transaction = Transaction { database: self, inner: &inner, changes: RefCell::default() };
        let result = work(&transaction)?;
        let changes = transaction.changes.take();
        transaction.put(JOURNALLED.0, JOURNALLED.1, &self.journal().next())?;
        let mut journal = self.journal();
        if journal.takes(&changes) {
            inner.set_durability(Durability::None).map_err(|e| self.fail(e))?;
            journal.append(changes)?;
            crash_point("journal written");
            inner.commit().map_err(|e| self.fail(e))?;
            journal.committed();
        } else {
            inner.commit().map_err(|e| self.fail(e))?;
            journal.skip();
        }
        Ok(result)
    }

    /// All records of a table.
    pub(crate) fn all<V: DeserializeOwned>(&self, table: &str) -> Result<Vec<(Vec<u8>, V)>, StoreError> {
        let transaction = self.inner.begin_read().map_err(|e| self.fail(e))?;
        let table = match transaction.open_table(definition(table)) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            other => other.map_err(|e| self.fail(e))?,
        };
        let rows = table.iter().map_err(|e| self.fail(e))?;
        rows.map(|row| {
            let (key, value) = row.map_err(|e| self.fail(e))?;
            let value = postcard::from_bytes(value.value()).map_err(|e| self.malformed(e))?;
            Ok((key.value().to_vec(), value))
        })
        .collect()
    }
}

/// Several changes that happen together.
pub(crate) struct Transaction<'a> {
    database: &'a Database,
    inner: &'a redb::WriteTransaction,
    /// For the journal.
    changes: RefCell<Vec<Change>>,
}

impl Transaction<'_> {
    fn table<'a>(
        &'a self,
        name: &'a str,
    ) -> Result<redb::Table<'a, &'static [u8], &'static [u8]>, StoreError> {
        self.inner.open_table(definition(name)).map_err(|e| self.database.fail(e))
    }

    /// The record of `key`, if there is one.
    pub(crate) fn get<V: DeserializeOwned>(&self, table: &str, key: &[u8]) -> Result<Option<V>, StoreError> {
        let table = self.table(table)?;
        let record = table.get(key).map_err(|e| self.database.fail(e))?;
        record.map(|r| postcard::from_bytes(r.value()).map_err(|e| self.database.malformed(e))).transpose()
    }

    /// Stores a record.
    pub(crate) fn put<V: Serialize>(&self, table: &str, key: &[u8], value: &V) -> Result<(), StoreError> {
        let bytes = postcard::to_stdvec(value).map_err(|e| self.database.malformed(e))?;
        self.change(Change { table: table.to_owned(), key: key.to_vec(), value: Some(bytes) }).map(|_| ())
    }

    /// Removes a record. Returns whether there was one.
    pub(crate) fn remove(&self, table: &str, key: &[u8]) -> Result<bool, StoreError> {
        self.change(Change { table: table.to_owned(), key: key.to_vec(), value: None })
    }

    fn change(&self, change: Change) -> Result<bool, StoreError> {
        let was_there = self.apply(&change)?;
        self.changes.borrow_mut().push(change);
        Ok(was_there)
    }

    /// Returns whether there was a record of this key.
    fn apply(&self, Change { table, key, value }: &Change) -> Result<bool, StoreError> {
        let mut table = self.table(table)?;
        let before = match value {
            Some(value) => table.insert(key.as_slice(), value.as_slice()),
            None => table.remove(key.as_slice()),
        };
        Ok(before.map_err(|e| self.database.fail(e))?.is_some())
    }
}

fn get<V: DeserializeOwned>(
    database: &redb::Database,
    path: &Path,
    table: &str,
    key: &[u8],
) -> Result<Option<V>, StoreError> {
    let fail = |error: redb::Error| failure(path, error);
    let transaction = database.begin_read().map_err(|e| fail(e.into()))?;
    let table = match transaction.open_table(definition(table)) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        other => other.map_err(|e| fail(e.into()))?,
    };
    let record = table.get(key).map_err(|e| fail(e.into()))?;
    record.map(|r| postcard::from_bytes(r.value()).map_err(|e| malformed(path, e))).transpose()
}

fn malformed(path: &Path, error: postcard::Error) -> StoreError {
    StoreError::Database { path: path.to_owned(), problem: format!("a record does not decode: {error}") }
}

/// What an error of the database means.
fn failure(path: &Path, error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(e) => StoreError::io(path)(e),
        // After a failed write it takes no more, because it cannot know what is on disk, until it has been opened again.
        redb::Error::PreviousIo => {
            let problem =
                "an earlier write failed; mend that and start this party again: what is stored stays usable";
            StoreError::Database { path: path.to_owned(), problem: problem.to_owned() }
        }
        other => StoreError::Database { path: path.to_owned(), problem: other.to_string() },
    }
}

/// Makes an empty database that appears whole or not at all: one that a crash has left half made could not be told from a
/// damaged one, which must never be replaced, because it knows what has been used.
fn create(path: &Path) -> Result<(), StoreError> {
    let partial = files::temporary(path).map_err(StoreError::io(path))?.into_temp_path();
    drop(redb::Database::create(&partial).map_err(|e| failure(path, e.into()))?);
    match partial.persist_noclobber(path) {
        Ok(()) => files::sync_dir(files::directory(path)).map_err(StoreError::io(path)),
        // Another process of this party was faster.
        Err(_) if path.exists() => Ok(()),
        Err(e) => Err(StoreError::io(path)(e.error)),
    }
}

/// The database holds seeds: nobody but its owner may read it.
fn restrict(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(StoreError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/state.redb");
        {
            let database = Database::open(&path).unwrap();
            database.put("t", b"k", &7u64).unwrap();
            let raise = |t: &Transaction| t.put("t", b"k", &(t.get::<u64>("t", b"k")?.unwrap() + 1));
            database.transact(raise).unwrap();
            let failing = |t: &Transaction| {
                raise(t).and_then(|()| Err::<(), _>(database.fail(redb::Error::PreviousIo)))
            };
            assert!(database.transact(failing).is_err(), "and nothing has changed");
        }
        let database = Database::open(&path).unwrap();
        assert_eq!(database.get::<u64>("t", b"k").unwrap(), Some(8));
        assert_eq!(database.all::<u64>("t").unwrap(), [(b"k".to_vec(), 8)]);
        database.remove("t", b"k").unwrap();
        assert_eq!(database.get::<u64>("t", b"k").unwrap(), None);
    }

    /// What a note was told has failed may be in the journal. Once something else has happened it must not happen after it.
    #[test]
    fn a_failed_note_does_not_come_back_after_a_later_transaction() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let reopened = || Database::open(&path).unwrap();
        let set = |value: u64| move |t: &Transaction| t.put("t", b"k", &value);
        let change = |value| Change { table: "t".to_owned(), key: b"k".to_vec(), value: Some(vec![value]) };
        {
            let database = reopened();
            database.note(set(1)).unwrap();
            database.journal().append_unheard(vec![change(2)]);
        }
        assert_eq!(reopened().get::<u64>("t", b"k").unwrap(), Some(2), "nothing has happened since");
        for notes in [false, true] {
            {
                let database = reopened();
                database.journal().append_unheard(vec![change(3)]);
                for value in [4, 5] {
                    if notes { database.note(set(value)) } else { database.transact(set(value)) }.unwrap();
                }
            }
            assert_eq!(reopened().get::<u64>("t", b"k").unwrap(), Some(5));
        }
        reopened().note(set(6)).unwrap();
        assert_eq!(reopened().get::<u64>("t", b"k").unwrap(), Some(6));
    }

    /// What the files hold while the database is open is what a killed process leaves.
    #[test]
    fn what_was_waited_for_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let database = Database::open(&path).unwrap();
        for i in 0..40u64 {
            // Some through the database, and some notes that are too large for the journal.
            let value = vec![i as u8; if i % 7 == 3 { 5000 } else { 10 }];
            let put = |t: &Transaction| t.put("t", &i.to_be_bytes(), &value);
            if i % 20 == 19 { database.transact(put) } else { database.note(put) }.unwrap();
            let left = tempfile::tempdir().unwrap();
            for name in ["state.redb", "state.journal"] {
                std::fs::copy(dir.path().join(name), left.path().join(name)).unwrap();
            }
            let found = Database::open(&left.path().join("state.redb")).unwrap().all::<Vec<u8>>("t").unwrap();
            let numbers: Vec<u64> = found.iter().map(|(_, value)| u64::from(value[0])).collect();
            assert_eq!(numbers, (0..=i).collect::<Vec<_>>());
        }
    }

    /// As if its thread had panicked before the database had it.
    #[test]
    fn a_note_in_the_journal_only_stops_everything_until_the_database_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        {
            let database = Database::open(&path).unwrap();
            database.note(|t| t.put("t", b"k", &1u64)).unwrap();
            let change = Change { table: "t".to_owned(), key: b"k".to_vec(), value: Some(vec![2]) };
            database.journal().append(vec![change]).unwrap();
            assert!(database.put("t", b"other", &3u64).is_err());
            assert!(database.note(|t| t.put("t", b"other", &3u64)).is_err());
        }
        let database = Database::open(&path).unwrap();
        assert_eq!(database.get::<u64>("t", b"k").unwrap(), Some(2));
        assert_eq!(database.get::<u64>("t", b"other").unwrap(), None);
    }

    #[test]
    fn several_that_begin_at_once_share_one_database() {
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state.redb");
            std::thread::scope(|scope| {
                for i in 0..4u64 {
                    let path = &path;
                    scope.spawn(move || Database::open(path).unwrap().put("t", &[i as u8], &i).unwrap());
                }
            });
            assert_eq!(Database::open(&path).unwrap().all::<u64>("t").unwrap().len(), 4);
            let names = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name());
            let mut names: Vec<_> = names.collect();
            names.sort();
            assert_eq!(names, ["state.journal", "state.redb"]);
        }
    }

    #[test]
    fn a_second_process_is_told_to_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let _held = Database::open(&path).unwrap();
        let error = Database::open(&path).err().unwrap().to_string();
        assert!(error.contains("another privet process"), "{error}");
    }
}

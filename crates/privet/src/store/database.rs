//! A thin typed layer over the embedded database: tables of byte keys and encoded records.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::private_dir;
use crate::error::StoreError;

/// How long another process of this party may hold the database before we give up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Layout version of the records; other versions are refused.
const VERSION: u32 = 1;

/// The database of one party.
pub(crate) struct Database {
    path: PathBuf,
    inner: redb::Database,
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
                Err(e) => return Err(StoreError::Database { path: path.to_owned(), problem: e.to_string() }),
            }
        };
        restrict(path)?;
        let database = Self { path: path.to_owned(), inner };
        match database.get::<u32>("meta", b"version")? {
            None => database.put("meta", b"version", &VERSION)?,
            Some(VERSION) => {}
            Some(found) => {
                let problem = format!("state of layout version {found}, this build uses {VERSION}");
                return Err(StoreError::Database { path: path.to_owned(), problem });
            }
        }
        Ok(database)
    }

    fn fail(&self, error: impl std::fmt::Display) -> StoreError {
        StoreError::Database { path: self.path.clone(), problem: error.to_string() }
    }

    /// The record of `key`, if there is one.
    pub(crate) fn get<V: DeserializeOwned>(&self, table: &str, key: &[u8]) -> Result<Option<V>, StoreError> {
        let transaction = self.inner.begin_read().map_err(|e| self.fail(e))?;
        let table = match transaction.open_table(definition(table)) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            other => other.map_err(|e| self.fail(e))?,
        };
        let record = table.get(key).map_err(|e| self.fail(e))?;
        record.map(|r| postcard::from_bytes(r.value()).map_err(|e| self.fail(e))).transpose()
    }

    /// Stores a record; durable when this returns.
    pub(crate) fn put<V: Serialize>(&self, table: &str, key: &[u8], value: &V) -> Result<(), StoreError> {
        self.change(table, key, |_| Ok(Some(postcard::to_stdvec(value).map_err(|e| self.fail(e))?)))
            .map(|_| ())
    }

    /// Atomically replaces the record of `key` by what `change` makes of it; `None` leaves it as it is. Durable when this
    /// returns. Returns whether a record was written.
    pub(crate) fn update<O: DeserializeOwned, V: Serialize>(
        &self,
        table: &str,
        key: &[u8],
        change: impl FnOnce(Option<O>) -> Option<V>,
    ) -> Result<bool, StoreError> {
        self.change(table, key, |old| {
            let old = old.map(postcard::from_bytes).transpose().map_err(|e| self.fail(e))?;
            change(old).map(|value| postcard::to_stdvec(&value)).transpose().map_err(|e| self.fail(e))
        })
    }

    /// One write transaction on one key, in encoded form.
    fn change(
        &self,
        table: &str,
        key: &[u8],
        change: impl FnOnce(Option<&[u8]>) -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<bool, StoreError> {
        let transaction = self.inner.begin_write().map_err(|e| self.fail(e))?;
        let written = {
            let mut table = transaction.open_table(definition(table)).map_err(|e| self.fail(e))?;
            let new = {
                let old = table.get(key).map_err(|e| self.fail(e))?;
                change(old.as_ref().map(|record| record.value()))?
            };
            if let Some(bytes) = &new {
                table.insert(key, bytes.as_slice()).map_err(|e| self.fail(e))?;
            }
            new.is_some()
        };
        transaction.commit().map_err(|e| self.fail(e))?;
        Ok(written)
    }

    /// Removes a record; durable when this returns.
    pub(crate) fn remove(&self, table: &str, key: &[u8]) -> Result<(), StoreError> {
        let transaction = self.inner.begin_write().map_err(|e| self.fail(e))?;
        transaction
            .open_table(definition(table))
            .map_err(|e| self.fail(e))?
            .remove(key)
            .map_err(|e| self.fail(e))?;
        transaction.commit().map_err(|e| self.fail(e))
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
            let value = postcard::from_bytes(value.value()).map_err(|e| self.fail(e))?;
            Ok((key.value().to_vec(), value))
        })
        .collect()
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
            assert!(database.update("t", b"k", |v: Option<u64>| v.map(|v| v + 1)).unwrap());
            assert!(!database.update("t", b"none", |v: Option<u64>| v).unwrap());
        }
        let database = Database::open(&path).unwrap();
        assert_eq!(database.get::<u64>("t", b"k").unwrap(), Some(8));
        assert_eq!(database.all::<u64>("t").unwrap(), [(b"k".to_vec(), 8)]);
        database.remove("t", b"k").unwrap();
        assert_eq!(database.get::<u64>("t", b"k").unwrap(), None);
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

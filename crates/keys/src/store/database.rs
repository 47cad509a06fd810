//! A database whose records are encrypted: tables of byte keys, under the master key.

use std::fs::{DirBuilder, File, Permissions, set_permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::error::KeysError;
use crate::master::{MasterSource, Stretching};
use crate::random::Randomness;
use crate::secret::MasterKey;

/// Layout of the tables; others are refused.
const VERSION: u32 = 1;

type Definition<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;
type Rows = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The only table in the clear: layout version, and how a passphrase becomes the master key.
const HEADER: Definition<'_> = TableDefinition::new("header");
const HEADER_KEY: &[u8] = b"header";
/// A record that only the right master key opens.
const CHECK: (&str, &[u8]) = ("meta", b"check");

#[derive(serde::Serialize, serde::Deserialize)]
struct Header {
    version: u32,
    stretching: Option<Stretching>,
}

/// An open database. No other process can open it meanwhile.
pub(crate) struct Database {
    path: PathBuf,
    inner: redb::Database,
    pub(super) master: MasterKey,
}

impl Database {
    /// Makes a database that appears whole or not at all.
    pub(crate) fn create(
        path: &Path,
        source: &MasterSource,
        random: &dyn Randomness,
    ) -> Result<Self, KeysError> {
        if path.exists() {
            return Err(KeysError::file(path, "exists already; a store of keys is never overwritten"));
        }
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(KeysError::io(dir))?;
        let partial =
            tempfile::Builder::new().prefix(".privet-").tempfile_in(dir).map_err(KeysError::io(dir))?;
        let partial = partial.into_temp_path();
        let stretching = source.is_passphrase().then(|| Stretching::new(random)).transpose()?;
        let header = Header { version: VERSION, stretching };
        let master = source.load(header.stretching.as_ref())?;
        let inner = redb::Database::create(&partial).map_err(|e| failure(path, e))?;
        let database = Self { path: path.to_owned(), inner, master };
        let written = database.write(|inner| {
            let bytes = encode(&header)?;
            let mut table = inner.open_table(HEADER).map_err(|e| failure(path, e))?;
            table.insert(HEADER_KEY, bytes.as_slice()).map_err(|e| failure(path, e))?;
            Transaction { database: &database, inner, random }.put_bytes(CHECK.0, CHECK.1, b"privet")
        });
        written?;
        drop(database);
        set_permissions(&partial, Permissions::from_mode(0o600)).map_err(KeysError::io(path))?;
        partial
            .persist_noclobber(path)
            .map_err(|e| KeysError::Io { path: path.to_owned(), source: e.error })?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(KeysError::io(dir))?;
        Self::open(path, source)
    }

    /// Opens a database.
    pub(crate) fn open(path: &Path, source: &MasterSource) -> Result<Self, KeysError> {
        let found =
            std::fs::metadata(path).map_err(KeysError::missing(path, "privet keyserver init makes it"))?;
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let problem = format!(
                "accessible to other users (mode {mode:o}, expected 600); run: chmod 600 {}",
                path.display()
            );
            return Err(KeysError::file(path, problem));
        }
        let inner = match redb::Database::open(path) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
                return Err(KeysError::Busy { path: path.to_owned() });
            }
            opened => opened.map_err(|e| damaged(path, e))?,
        };
        let header = Self::header(path, &inner)?;
        if header.version != VERSION {
            let problem = format!("a store of layout version {}, this build uses {VERSION}", header.version);
            return Err(KeysError::Store { path: path.to_owned(), problem });
        }
        let master = source.load(header.stretching.as_ref())?;
        let database = Self { path: path.to_owned(), inner, master };
        match database.get_bytes(CHECK.0, CHECK.1) {
            Ok(Some(_)) => Ok(database),
            _ => Err(KeysError::Master(format!(
                "it is not that of {}, or the store is damaged",
                path.display()
            ))),
        }
    }

    fn header(path: &Path, inner: &redb::Database) -> Result<Header, KeysError> {
        let transaction = inner.begin_read().map_err(|e| failure(path, e))?;
        let table = transaction.open_table(HEADER).map_err(|e| failure(path, e))?;
        let header = table.get(HEADER_KEY).map_err(|e| failure(path, e))?;
        let header = header.and_then(|bytes| postcard::from_bytes(bytes.value()).ok());
        header.ok_or_else(|| KeysError::Store {
            path: path.to_owned(),
            problem: "this is not a store of privet keyserver".to_owned(),
        })
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<T, KeysError>,
    ) -> Result<T, KeysError> {
        let inner = self.inner.begin_write().map_err(|e| failure(&self.path, e))?;
        let result = work(&inner)?;
        inner.commit().map_err(|e| failure(&self.path, e))?;
        Ok(result)
    }

    /// Does everything in `work` or, if that fails, nothing. Durable when this returns.
    pub(crate) fn transact<T>(
        &self,
        random: &dyn Randomness,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, KeysError>,
    ) -> Result<T, KeysError> {
        self.write(|inner| work(&Transaction { database: self, inner, random }))
    }

    /// All records as they are now, whatever is written meanwhile.
    pub(crate) fn snapshot(&self) -> Result<Snapshot<'_>, KeysError> {
        let inner = self.inner.begin_read().map_err(|e| failure(&self.path, e))?;
        Ok(Snapshot { database: self, inner })
    }

    /// The bytes of a record, if there is one.
    pub(crate) fn get_bytes(&self, table: &str, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, KeysError> {
        self.snapshot()?.get_bytes(table, key)
    }

    /// A record, if there is one.
    pub(crate) fn get<V: DeserializeOwned>(&self, table: &str, key: &[u8]) -> Result<Option<V>, KeysError> {
        self.snapshot()?.get(table, key)
    }

    fn decrypt(&self, table: &str, key: &[u8], record: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeysError> {
        self.master.open(&place(table, key), record).ok_or_else(|| KeysError::Store {
            path: self.path.clone(),
            problem: format!(
                "a record of {table} has been changed or moved; restore the store from a backup"
            ),
        })
    }

    fn decode<V: DeserializeOwned>(&self, table: &str, bytes: &[u8]) -> Result<V, KeysError> {
        postcard::from_bytes(bytes).map_err(|e| KeysError::Store {
            path: self.path.clone(),
            problem: format!("a record of {table} does not decode: {e}"),
        })
    }
}

/// Records as they were at one moment.
pub(crate) struct Snapshot<'a> {
    database: &'a Database,
    inner: redb::ReadTransaction,
}

impl Snapshot<'_> {
    fn fail(&self, error: impl Into<redb::Error>) -> KeysError {
        failure(&self.database.path, error)
    }

    fn rows(&self, table: &str) -> Result<Option<Rows>, KeysError> {
        match self.inner.open_table(Definition::new(table)) {
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            other => other.map(Some).map_err(|e| self.fail(e)),
        }
    }

    fn get_bytes(&self, table: &str, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, KeysError> {
        let Some(rows) = self.rows(table)? else { return Ok(None) };
        let row = rows.get(key).map_err(|e| self.fail(e))?;
        row.map(|row| self.database.decrypt(table, key, row.value())).transpose()
    }

    /// A record, if there is one.
    pub(crate) fn get<V: DeserializeOwned>(&self, table: &str, key: &[u8]) -> Result<Option<V>, KeysError> {
        self.get_bytes(table, key)?.map(|bytes| self.database.decode(table, &bytes)).transpose()
    }

    /// The records of a table from a key on, in the order of their keys, one by one.
    pub(crate) fn each<V: DeserializeOwned>(
        &self,
        table: &'static str,
        from: &[u8],
    ) -> Result<impl Iterator<Item = Result<V, KeysError>>, KeysError> {
        let rows = self.rows(table)?.map(|rows| rows.range::<&[u8]>(from..));
        let rows = rows.transpose().map_err(|e| self.fail(e))?;
        Ok(rows.into_iter().flatten().map(move |row| {
            let (key, value) = row.map_err(|e| self.fail(e))?;
            let bytes = self.database.decrypt(table, key.value(), value.value())?;
            self.database.decode(table, &bytes)
        }))
    }
}

/// Several changes that happen together.
pub(crate) struct Transaction<'a> {
    database: &'a Database,
    inner: &'a redb::WriteTransaction,
    random: &'a dyn Randomness,
}

impl Transaction<'_> {
    fn fail(&self, error: impl Into<redb::Error>) -> KeysError {
        failure(&self.database.path, error)
    }

    /// The bytes of a record, if there is one.
    pub(crate) fn get_bytes(&self, table: &str, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, KeysError> {
        let rows = self.inner.open_table(Definition::new(table)).map_err(|e| self.fail(e))?;
        let row = rows.get(key).map_err(|e| self.fail(e))?;
        row.map(|row| self.database.decrypt(table, key, row.value())).transpose()
    }

    /// A record, if there is one.
    pub(crate) fn get<V: DeserializeOwned>(&self, table: &str, key: &[u8]) -> Result<Option<V>, KeysError> {
        self.get_bytes(table, key)?.map(|bytes| self.database.decode(table, &bytes)).transpose()
    }

    /// Stores a record.
    pub(crate) fn put<V: Serialize>(&self, table: &str, key: &[u8], value: &V) -> Result<(), KeysError> {
        self.put_bytes(table, key, &encode(value)?)
    }

    /// Stores bytes as a record.
    pub(crate) fn put_bytes(&self, table: &str, key: &[u8], plain: &[u8]) -> Result<(), KeysError> {
        let record = self.database.master.seal(&place(table, key), plain, self.random)?;
        let mut rows = self.inner.open_table(Definition::new(table)).map_err(|e| self.fail(e))?;
        rows.insert(key, record.as_slice()).map_err(|e| self.fail(e))?;
        Ok(())
    }

    /// Removes a record, if it is there.
    pub(crate) fn remove(&self, table: &str, key: &[u8]) -> Result<(), KeysError> {
        let mut rows = self.inner.open_table(Definition::new(table)).map_err(|e| self.fail(e))?;
        rows.remove(key).map_err(|e| self.fail(e))?;
        Ok(())
    }
}

/// What a record is bound to. No table's name contains a zero.
fn place(table: &str, key: &[u8]) -> Vec<u8> {
    [table.as_bytes(), &[0], key].concat()
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, KeysError> {
    postcard::to_stdvec(value).map_err(|_| KeysError::Internal("a record does not encode"))
}

/// Why a file is not opened as a database; words of the database itself come last.
fn damaged(path: &Path, error: impl Into<redb::Error>) -> KeysError {
    let (path, problem) = match failure(path, error) {
        KeysError::Store { path, problem } => (path, problem),
        // What is not from the system is the database's.
        KeysError::Io { path, source } if source.raw_os_error().is_none() => (path, source.to_string()),
        other => return other,
    };
    let advice = "this is not a store of privet keyserver, or it is damaged: put a backup of it in its place";
    KeysError::Store { path, problem: format!("{advice} ({problem})") }
}

fn failure(path: &Path, error: impl Into<redb::Error>) -> KeysError {
    match error.into() {
        redb::Error::Io(source) => KeysError::Io { path: path.to_owned(), source },
        redb::Error::PreviousIo => KeysError::Store {
            path: path.to_owned(),
            problem: "an earlier write failed; mend that and start again: what was acknowledged is stored"
                .to_owned(),
        },
        other => KeysError::Store { path: path.to_owned(), problem: other.to_string() },
    }
}

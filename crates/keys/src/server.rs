//! A key server's directory, and the server itself.
//!
//! ```toml
//! version = 1
//! listen = "0.0.0.0:7300"
//! master = { file = "master.key" }     # or { passphrase-file = ".." }, { command = ["kms", "decrypt", ".."] }
//! ```
//!
//! Next to it lie `keys.redb`, `tls.key` and `tls.crt`, and the socket of a running server.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use privet_attest::Verifier;
use privet_attest::policy::toml_problem;
use serde::{Deserialize, Serialize};

use crate::admin::{ADMIN_SOCKET, AdminHandler};
use crate::audit::{Event, Note};
use crate::clock::{Clock, SystemClock};
use crate::error::KeysError;
use crate::kbs::Broker;
use crate::keeper::{StoreKeeper, Tell};
use crate::master::MasterSource;
use crate::net::tls::{ServerTls, TLS_CERTIFICATE_FILE, TLS_KEY_FILE, create, make_certificate};
use crate::net::{Address, Limits, Server};
use crate::policy::KeyPolicy;
use crate::random::SystemRandomness;
use crate::secret::MasterKey;
use crate::store::Store;

/// File name of a key server's configuration.
pub const SERVER_CONFIG_FILE: &str = "keyserver.toml";
/// File name of its store.
pub const STORE_FILE: &str = "keys.redb";
/// File name of the master key that [`ServerConfig::create`] makes.
pub const MASTER_KEY_FILE: &str = "master.key";
const CONFIG_VERSION: u32 = 1;
const MAX_CONFIG_BYTES: u64 = 64 << 10;

/// A key server's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    version: u32,
    /// `HOST:PORT` to listen on.
    pub listen: String,
    /// Where the master key comes from; paths are relative to the directory.
    pub master: MasterSource,
}

impl ServerConfig {
    /// Makes a directory with configuration, store, TLS key and certificate, and, without a source of one's own, a fresh
    /// master key.
    ///
    /// # Errors
    /// If one of them is there already, or the system fails.
    pub fn create(
        dir: &Path,
        listen: &str,
        names: &[String],
        master: Option<MasterSource>,
    ) -> Result<(), KeysError> {
        let path = dir.join(SERVER_CONFIG_FILE);
        let mut files = vec![SERVER_CONFIG_FILE, STORE_FILE, TLS_KEY_FILE, TLS_CERTIFICATE_FILE];
        if master.is_none() {
            files.push(MASTER_KEY_FILE);
        }
        let files: Vec<PathBuf> = files.into_iter().map(|name| dir.join(name)).collect();
        if let Some(found) = files.iter().find(|file| file.symlink_metadata().is_ok()) {
            return Err(KeysError::file(found, "exists already; a key server is never overwritten"));
        }
        private_dir(dir)?;
        let made = Self::fill(dir, &path, listen, names, master);
        if made.is_err() {
            // None of them was there before: what is wrong can be mended, and the command repeated.
            files.iter().for_each(|file| drop(fs::remove_file(file)));
        }
        made
    }

    fn fill(
        dir: &Path,
        path: &Path,
        listen: &str,
        names: &[String],
        master: Option<MasterSource>,
    ) -> Result<(), KeysError> {
        let master = match master {
            Some(source) => source,
            None => {
                let key = MasterKey::draw(&SystemRandomness)?;
                create(&dir.join(MASTER_KEY_FILE), 0o600, key.expose())?;
                MasterSource::File(PathBuf::from(MASTER_KEY_FILE))
            }
        };
        make_certificate(dir, names)?;
        let config = Self { version: CONFIG_VERSION, listen: listen.to_owned(), master };
        let source = config.master.clone().below(dir);
        drop(Store::create(
            &dir.join(STORE_FILE),
            &source,
            Arc::new(SystemClock),
            Arc::new(SystemRandomness),
        )?);
        let text =
            toml::to_string(&config).map_err(|_| KeysError::Internal("a configuration does not encode"))?;
        create(path, 0o600, text.as_bytes())
    }

    /// Reads the configuration of a directory.
    ///
    /// # Errors
    /// If it is missing or malformed, or others can write into the directory.
    pub fn load(dir: &Path) -> Result<Self, KeysError> {
        check_dir(dir)?;
        let path = dir.join(SERVER_CONFIG_FILE);
        let text = read_config(&path, "privet keyserver init")?;
        let config: Self =
            toml::from_str(&text).map_err(|e| KeysError::file(&path, config_problem(&text, &e)))?;
        if config.version != CONFIG_VERSION {
            let problem = format!("version {}, this program reads version {CONFIG_VERSION}", config.version);
            return Err(KeysError::file(&path, problem));
        }
        Ok(config)
    }

    /// Opens the directory's store.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_store(&self, dir: &Path) -> Result<Store, KeysError> {
        let source = self.master.clone().below(dir);
        Store::open(&dir.join(STORE_FILE), &source, Arc::new(SystemClock), Arc::new(SystemRandomness))
    }
}

/// How a server shows itself, whom it believes, how much peers get, and who is told what fails.
pub struct ServerSetting {
    /// Its side of TLS.
    pub tls: ServerTls,
    /// Verifies workers and caches.
    pub verifier: Arc<dyn Verifier>,
    /// For them.
    pub limits: Limits,
    /// Told why a request failed, where peers are told only that it did.
    pub tell: Arc<Tell>,
}

/// What a server says when it begins.
pub struct Listening<'a> {
    /// Where.
    pub address: &'a Address,
    /// The newest entry of the log, which is worth noting elsewhere.
    pub noted: &'a str,
    /// The policies of its keys.
    pub policies: &'a [KeyPolicy],
}

/// Serves the store of a directory until `stop` is set. `listening` is told what it begins with.
///
/// # Errors
/// If the store cannot be opened or its log has been changed, the address cannot be had, or TLS does not work.
pub fn serve(
    dir: &Path,
    listen: Option<&str>,
    setting: ServerSetting,
    stop: &Arc<AtomicBool>,
    listening: impl FnOnce(&Listening<'_>),
) -> Result<(), KeysError> {
    let ServerSetting { tls, verifier, limits, tell } = setting;
    let config = ServerConfig::load(dir)?;
    let store = Arc::new(config.open_store(dir)?);
    let noted = store.verify_audit(None)?.to_string();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let keeper = Arc::new(StoreKeeper::new(store.clone(), clock.clone()).telling(tell));
    let seed = store.derive(b"attestation tokens")?;
    let broker =
        Broker::new(keeper.clone(), verifier, clock, Arc::new(SystemRandomness), &seed, "privet keyserver")?;
    let server = Server::tcp(listen.unwrap_or(&config.listen), tls, Arc::new(broker), limits)?;
    let admin =
        Server::unix(&dir.join(ADMIN_SOCKET), Arc::new(AdminHandler::new(store.clone())), admin_limits())?;
    store.note(Note::new(Event::Started, "", server.address().to_string()))?;
    listening(&Listening { address: server.address(), noted: &noted, policies: &policies(&store)? });
    let admin_stop = stop.clone();
    let admin = std::thread::spawn(move || admin.run(&admin_stop));
    let served = server.run(stop);
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    keeper.settle();
    let administered =
        admin.join().map_err(|_| KeysError::Internal("the administration ended by a panic"))?;
    served.and(administered)
}

/// Those that can be read; of others nothing is released, and who asks is told why.
fn policies(store: &Store) -> Result<Vec<KeyPolicy>, KeysError> {
    let mut found = Vec::new();
    for info in store.list()? {
        let text = store.policy(&info.id)?.unwrap_or_default();
        found.extend(KeyPolicy::parse(info.id.as_str(), &text));
    }
    Ok(found)
}

/// Whoever opens the socket is the operator, who may do a lot at a time.
fn admin_limits() -> Limits {
    Limits { connections: 16, workers: 2, per_minute: u32::MAX, ..Limits::default() }
}

/// Makes a directory that only its owner can enter.
pub(crate) fn private_dir(dir: &Path) -> Result<(), KeysError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(KeysError::io(dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(KeysError::io(dir))
}

/// Refuses a directory into which others can write: their socket would be told keys, their configuration names a command.
pub(crate) fn check_dir(dir: &Path) -> Result<(), KeysError> {
    // What is missing is named by who looks for it.
    let mode = fs::metadata(dir).map_or(0, |found| found.permissions().mode() & 0o777);
    if mode & 0o022 == 0 {
        return Ok(());
    }
    let problem = format!(
        "other users can write into it (mode {mode:o}, expected 700); run: chmod 700 {}",
        dir.display()
    );
    Err(KeysError::file(dir, problem))
}

/// A configuration, and where it is missing what makes one.
pub(crate) fn read_config(path: &Path, made_by: &str) -> Result<String, KeysError> {
    if !path.exists() {
        let problem = format!("not found; --dir names a directory that {made_by} has made");
        return Err(KeysError::file(path, problem));
    }
    read_text(path)
}

/// What is wrong with a configuration.
pub(crate) fn config_problem(text: &str, error: &toml::de::Error) -> String {
    format!("{}; docs/keys.md#files describes it", toml_problem(text, error))
}

/// A text of bounded length.
pub(crate) fn read_text(path: &Path) -> Result<String, KeysError> {
    let length = fs::metadata(path).map_err(KeysError::io(path))?.len();
    if length > MAX_CONFIG_BYTES {
        return Err(KeysError::file(
            path,
            format!("expected at most {MAX_CONFIG_BYTES} bytes, found {length}"),
        ));
    }
    fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => KeysError::file(path, "this is not a text"),
        _ => KeysError::io(path)(e),
    })
}

//! A key cache: leases keys from a server and hands them to workers on its host, also while the server cannot be reached.
//!
//! It holds keys only for the ids that its policies name, and only until their leases end. A worker gets a key if both
//! policies accept it: the cache's own, and the owner's, which came with the lease.
//!
//! ```toml
//! version = 1
//! listen = "unix:cache.sock"             # or 127.0.0.1:PORT, with tls.key and tls.crt next to this file
//! server = "keys.example:7300"
//! server_certificate = "server.crt"      # or server_policy = "server.toml", if the server is attested itself
//! policies = "policies"                  # a directory of policies, one file for each key
//! ```

mod book;
mod sealing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use privet_attest::{Attester, Policy, Verifier};
use serde::{Deserialize, Serialize};

use crate::clock::{SystemClock, Uptime};
use crate::error::KeysError;
use crate::fetch::Endpoint;
use crate::kbs::Broker;
use crate::net::tls::{ServerTls, ServerTrust, TLS_CERTIFICATE_FILE, TLS_KEY_FILE, create};
use crate::net::{Address, Limits, Server};
use crate::policy::KeyPolicy;
use crate::random::{Randomness as _, SystemRandomness};
use crate::server::{check_dir, config_problem, private_dir, read_config, read_text};
pub use book::{CacheEvent, LeaseBook, LeaseInfo, Renewal};
pub use sealing::SealingKey;

/// File name of a cache's configuration.
pub const CACHE_CONFIG_FILE: &str = "keycache.toml";
/// File name of its leases.
pub const LEASES_FILE: &str = "leases.sealed";
const CONFIG_VERSION: u32 = 1;
/// How often leases are looked after.
const ROUND: Duration = Duration::from_secs(5);
/// For a connection to the server, and each of its answers.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most policies of a cache.
const MAX_POLICIES: usize = 1000;

/// A cache's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    version: u32,
    /// `unix:PATH`, or a loopback address and port.
    pub listen: String,
    /// `HOST:PORT` of the key server.
    pub server: String,
    /// Its certificate ..
    pub server_certificate: Option<PathBuf>,
    /// .. or the attestation policy by which it is known: one of both.
    pub server_policy: Option<PathBuf>,
    /// Directory of policies.
    pub policies: PathBuf,
}

impl CacheConfig {
    /// Makes a directory with configuration, what the server is known by (its certificate, or an attestation policy in a
    /// `.toml` file), and an empty directory for policies.
    ///
    /// # Errors
    /// If one of them is there already, or the system fails.
    pub fn create(dir: &Path, listen: &str, server: &str, known_by: &Path) -> Result<(), KeysError> {
        let path = dir.join(CACHE_CONFIG_FILE);
        if path.exists() {
            return Err(KeysError::file(&path, "exists already; a key cache is never overwritten"));
        }
        let is_policy = known_by.extension().is_some_and(|extension| extension == "toml");
        let text = read_text(known_by)?;
        if is_policy {
            Policy::parse(&text).map_err(|e| KeysError::file(known_by, e.to_string()))?;
        } else {
            ServerTrust::pinned(known_by)?;
        }
        let name = PathBuf::from(if is_policy { "server.toml" } else { "server.crt" });
        let known_by_path = dir.join(&name);
        let (certificate, policy) = if is_policy { (None, Some(name)) } else { (Some(name), None) };
        let config = Self {
            version: CONFIG_VERSION,
            listen: listen.to_owned(),
            server: server.to_owned(),
            server_certificate: certificate,
            server_policy: policy,
            policies: PathBuf::from("policies"),
        };
        // Checked before anything is written: what is wrong can be mended, and the command repeated.
        config.listen_address(dir)?;
        let config =
            toml::to_string(&config).map_err(|_| KeysError::Internal("a configuration does not encode"))?;
        private_dir(dir)?;
        private_dir(&dir.join("policies"))?;
        create(&known_by_path, 0o644, text.as_bytes())?;
        create(&path, 0o600, config.as_bytes())
    }

    fn trust(&self, dir: &Path, verifier: &Arc<dyn Verifier>) -> Result<ServerTrust, KeysError> {
        match (&self.server_certificate, &self.server_policy) {
            (Some(certificate), None) => ServerTrust::pinned(&dir.join(certificate)),
            (None, Some(policy)) => {
                Ok(ServerTrust::attested(verifier.clone(), read_policy(&dir.join(policy))?))
            }
            _ => Err(one_of_both(dir)),
        }
    }

    /// Reads the configuration of a directory.
    ///
    /// # Errors
    /// If it is missing or malformed, or others can write into the directory.
    pub fn load(dir: &Path) -> Result<Self, KeysError> {
        check_dir(dir)?;
        let path = dir.join(CACHE_CONFIG_FILE);
        let text = read_config(&path, "privet keycache init")?;
        let config: Self =
            toml::from_str(&text).map_err(|e| KeysError::file(&path, config_problem(&text, &e)))?;
        if config.version != CONFIG_VERSION {
            let problem = format!("version {}, this program reads version {CONFIG_VERSION}", config.version);
            return Err(KeysError::file(&path, problem));
        }
        Ok(config)
    }

    /// Whether everything that a cache reads when it starts is there and can be read: what its server is known by, policies,
    /// and, on a loopback address, TLS key and certificate.
    ///
    /// # Errors
    /// What is missing or malformed, and what to do.
    pub fn check(&self, dir: &Path) -> Result<(), KeysError> {
        let wrong = |error| match error {
            KeysError::Usage(problem) => KeysError::file(&dir.join(CACHE_CONFIG_FILE), problem),
            other => other,
        };
        let address = self.listen_address(dir).map_err(wrong)?;
        self.server_address().map_err(wrong)?;
        self.load_policies(dir)?;
        match (&self.server_certificate, &self.server_policy) {
            (Some(certificate), None) => drop(ServerTrust::pinned(&dir.join(certificate))?),
            (None, Some(policy)) => drop(read_policy(&dir.join(policy))?),
            _ => return Err(one_of_both(dir)),
        }
        match address {
            Address::Tcp(_) => own_tls(dir).map(drop),
            Address::Unix(_) => Ok(()),
        }
    }

    fn server_address(&self) -> Result<Address, KeysError> {
        match self.server.parse() {
            Ok(Address::Unix(_)) | Err(_) => Err(KeysError::Usage(format!(
                "server = {:?}: expected HOST:PORT of a key server",
                self.server
            ))),
            Ok(address) => Ok(address),
        }
    }

    fn listen_address(&self, dir: &Path) -> Result<Address, KeysError> {
        let usage = |problem: String| KeysError::Usage(format!("listen = {:?}: {problem}", self.listen));
        match self.listen.parse().map_err(usage)? {
            Address::Unix(path) => Ok(Address::Unix(dir.join(path))),
            Address::Tcp(address) => {
                let host = address.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
                let loopback = host == "localhost"
                    || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
                if loopback {
                    return Ok(Address::Tcp(address));
                }
                let problem =
                    "a cache serves workers on its own host: expected unix:PATH or a loopback address";
                Err(usage(problem.to_owned()))
            }
        }
    }

    /// The policies of a directory, by their files' names.
    fn load_policies(&self, dir: &Path) -> Result<Vec<KeyPolicy>, KeysError> {
        let dir = dir.join(&self.policies);
        let entries = std::fs::read_dir(&dir).map_err(KeysError::io(&dir))?;
        let mut paths = Vec::new();
        for entry in entries.take(10 * MAX_POLICIES) {
            let path = entry.map_err(KeysError::io(&dir))?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                paths.push(path);
            }
        }
        paths.sort();
        if paths.is_empty() {
            return Err(KeysError::file(
                &dir,
                "expected a policy, NAME.toml, for each key to cache; found none",
            ));
        }
        if paths.len() > MAX_POLICIES {
            return Err(KeysError::file(
                &dir,
                format!("expected at most {MAX_POLICIES} policies, found more"),
            ));
        }
        let mut policies: Vec<KeyPolicy> = Vec::new();
        for path in paths {
            let policy = KeyPolicy::parse(&path.display().to_string(), &read_text(&path)?)?;
            if policies.iter().any(|other| other.key_id == policy.key_id) {
                return Err(KeysError::file(
                    &path,
                    format!("there is another policy of key {}", policy.key_id),
                ));
            }
            if policy.get.is_none() {
                let problem = "expected [get], which says which workers of this host get the key";
                return Err(KeysError::file(&path, problem));
            }
            policies.push(policy);
        }
        Ok(policies)
    }
}

fn read_policy(path: &Path) -> Result<Policy, KeysError> {
    Policy::parse(&read_text(path)?).map_err(|e| KeysError::file(path, e.to_string()))
}

fn one_of_both(dir: &Path) -> KeysError {
    let problem = "expected server_certificate or server_policy, and not both";
    KeysError::file(&dir.join(CACHE_CONFIG_FILE), problem)
}

/// A cache's own side of TLS, of files that whoever makes its directory has to put there.
fn own_tls(dir: &Path) -> Result<ServerTls, KeysError> {
    for name in [TLS_KEY_FILE, TLS_CERTIFICATE_FILE] {
        let path = dir.join(name);
        if !path.exists() {
            let problem = format!(
                "not found; a cache on a loopback address takes {TLS_KEY_FILE} and {TLS_CERTIFICATE_FILE} in its directory, \
                 and workers are given the second. One command makes them: openssl req -x509 -newkey ec -pkeyopt \
                 ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=cache -keyout {0}/{TLS_KEY_FILE} -out \
                 {0}/{TLS_CERTIFICATE_FILE}",
                dir.display()
            );
            return Err(KeysError::file(&path, problem));
        }
    }
    ServerTls::load(dir)
}

/// What a cache proves itself with, whom it believes, where its leases are safe, and how much peers get.
pub struct CacheSetting {
    /// Proves to the key server that this is a cache.
    pub attester: Arc<dyn Attester>,
    /// Verifies workers, and a server that is known by a policy.
    pub verifier: Arc<dyn Verifier>,
    /// What leases are sealed to.
    pub sealing: SealingKey,
    /// For workers.
    pub limits: Limits,
}

/// Serves a cache until `stop` is set. `listening` is told the address, `tell` everything that happens.
///
/// # Errors
/// If configuration or leases cannot be read, the address cannot be had, or TLS does not work. A server that cannot be
/// reached is not an error.
pub fn serve(
    dir: &Path,
    setting: CacheSetting,
    stop: &Arc<AtomicBool>,
    listening: impl FnOnce(&Address),
    tell: Arc<dyn Fn(&CacheEvent) + Send + Sync>,
) -> Result<(), KeysError> {
    let CacheSetting { attester, verifier, sealing, limits } = setting;
    let config = CacheConfig::load(dir)?;
    let address = config.listen_address(dir)?;
    config.check(dir)?;
    let policies = config.load_policies(dir)?;
    let trust = config.trust(dir, &verifier)?;
    let endpoint = Endpoint { address: config.server_address()?, trust: Some(trust), deadline: PATIENCE };
    let renewal = Renewal { endpoint, attester };
    let path = dir.join(LEASES_FILE);
    let clocks = (Arc::new(SystemClock), Arc::new(Uptime::default()));
    let book = LeaseBook::open(&path, sealing, policies, Some(renewal), clocks.0, clocks.1, tell)?;
    let book = Arc::new(book);
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    SystemRandomness.fill(&mut *seed)?;
    let clock = book.clock();
    let broker =
        Broker::new(book.clone(), verifier, clock, Arc::new(SystemRandomness), &seed, "privet keycache")?;
    let broker = Arc::new(broker);
    let server = match &address {
        Address::Unix(path) => Server::unix(path, broker, limits)?,
        Address::Tcp(address) => Server::tcp(address, own_tls(dir)?, broker, limits)?,
    };
    book.renew();
    listening(server.address());
    let (minder, minded) = (book.clone(), stop.clone());
    let minder = std::thread::spawn(move || {
        let glance = Duration::from_millis(50);
        let mut waited = Duration::ZERO;
        while !minded.load(Ordering::SeqCst) {
            std::thread::sleep(glance);
            waited += glance;
            if waited >= ROUND {
                minder.renew();
                waited = Duration::ZERO;
            }
        }
    });
    let served = server.run(stop);
    stop.store(true, Ordering::SeqCst);
    minder.join().map_err(|_| KeysError::Internal("the renewal of leases ended by a panic"))?;
    served
}

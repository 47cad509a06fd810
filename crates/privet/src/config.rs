//! A party's configuration: one TOML file next to its identity, its peers' certificates and its state.
//!
//! ```toml
//! version = 1
//! role = "client"              # dealer, server, client; or party, one of three, with index = 0, 1 or 2
//! name = "hospital"
//! identity = "."               # directory of identity.key and identity.crt
//! state = "state"              # one-time material and sessions
//! reveal_to = ["client"]       # who may learn outputs: client, server, both
//!
//! [deadlines]                  # seconds; each may be left out
//! connect_seconds = 30
//! handshake_seconds = 10
//! wait_seconds = 120
//!
//! [[peers]]
//! role = "server"
//! name = "vendor"
//! address = "server.example:7101"
//! certificate = "peers/vendor.crt"
//! ```
//!
//! Paths are relative to the file. Unknown keys are refused. Listening parties add `listen = "0.0.0.0:7101"`.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use privet_attest::policy::toml_problem;
use privet_net::{Deadlines, Emulated, Identity, NetError, PinnedPeer};
use privet_protocols::masked::RevealTo;
use privet_protocols::replicated::PARTIES;
use serde::{Deserialize, Serialize};

/// File name of the configuration in a party's directory.
pub const CONFIG_FILE: &str = "privet.toml";
/// Version of the format; others are refused.
pub const CONFIG_VERSION: u32 = 1;

/// A configuration is a page of text.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// What a party does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartyRole {
    /// Prepares one-time material; sees neither inputs nor weights.
    Dealer,
    /// Owns the model.
    Server,
    /// Owns the inputs.
    Client,
    /// One of three that compute on shares.
    Party,
}

impl PartyRole {
    /// `dealer`, `server`, `client` or `party`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dealer => "dealer",
            Self::Server => "server",
            Self::Client => "client",
            Self::Party => "party",
        }
    }
}

impl fmt::Display for PartyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {problem}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says, and what to do.
        problem: String,
    },
    /// Not TOML, an unknown key, a missing key, a wrong type.
    #[error("configuration {}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Another party's configuration.
    #[error("{} is the {found}'s configuration, expected the {expected}'s", path.display())]
    Role {
        /// The file.
        path: PathBuf,
        /// The role that was started.
        expected: PartyRole,
        /// The role in the file.
        found: PartyRole,
    },
    /// No peer, or several, where one is needed.
    #[error(
        "configuration {}: expected one peer with role = \"{role}\", found {found}; edit [[peers]]",
        path.display()
    )]
    Peer {
        /// The file.
        path: PathBuf,
        /// The peer's role.
        role: PartyRole,
        /// How many there are.
        found: usize,
    },
    /// A key or certificate cannot be used.
    #[error("configuration {}", path.display())]
    Identity {
        /// The configuration that names it.
        path: PathBuf,
        /// What is wrong with it.
        source: NetError,
    },
}

/// A loaded configuration, with keys and certificates.
#[derive(Debug, Clone)]
pub struct PartyConfig {
    /// What this party does.
    pub role: PartyRole,
    /// Its name, for people.
    pub name: String,
    /// Its number in a cluster of three; `None` for all but its parties.
    pub index: Option<usize>,
    /// The directory of the configuration.
    pub dir: PathBuf,
    /// Where one-time material is kept.
    pub state: PathBuf,
    /// `host:port` to accept connections on.
    pub listen: Option<String>,
    /// Who may learn outputs; see [`PartyConfig::allows`].
    pub reveal_to: Vec<RevealTo>,
    /// Key and certificate.
    pub identity: Identity,
    /// The parties it knows.
    pub peers: Vec<PeerConfig>,
    /// How long it waits.
    pub deadlines: Deadlines,
    /// A network that its connections are made as slow as, for measuring. In no file; set by the caller.
    pub link: Option<Emulated>,
    path: PathBuf,
}

/// A party that another one knows.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// What it does.
    pub role: PartyRole,
    /// Its name, for people.
    pub name: String,
    /// Its number in a cluster of three.
    pub index: Option<usize>,
    /// `host:port`, if it listens.
    pub address: Option<String>,
    /// Its certificate.
    pub pinned: PinnedPeer,
}

impl PartyConfig {
    /// Loads `path`, a `privet.toml` or the directory of one, with the keys and certificates it names.
    ///
    /// # Errors
    /// A file is missing or malformed, has unknown keys or another version, belongs to another role than `expected`,
    /// or the private key is readable by other users.
    pub fn load(path: &Path, expected: PartyRole) -> Result<Self, ConfigError> {
        let config = Self::load_any(path)?;
        if config.role != expected {
            return Err(ConfigError::Role { path: config.path, expected, found: config.role });
        }
        Ok(config)
    }

    /// [`PartyConfig::load`], whatever the role.
    ///
    /// # Errors
    /// As [`PartyConfig::load`], but for the role.
    pub fn load_any(path: &Path) -> Result<Self, ConfigError> {
        let path = if path.is_dir() { path.join(CONFIG_FILE) } else { path.to_owned() };
        let invalid = |problem: String| ConfigError::Invalid { path: path.clone(), problem };
        let unusable = |source| ConfigError::Identity { path: path.clone(), source };
        let file = ConfigFile::parse(&read(&path)?).map_err(invalid)?;
        let dir = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let identity = Identity::load(&dir.join(&file.identity)).map_err(unusable)?;
        let mut peers: Vec<PeerConfig> = Vec::new();
        for peer in &file.peers {
            let pinned = PinnedPeer::load(&dir.join(&peer.certificate)).map_err(unusable)?;
            let (name, fingerprint) = (&peer.name, pinned.fingerprint());
            if fingerprint == identity.fingerprint() {
                return Err(invalid(format!("the certificate of peer {name:?} is this party's own")));
            }
            if peers.iter().any(|p| p.name == *name || p.pinned.fingerprint() == fingerprint) {
                return Err(invalid(format!("peer {name:?}: two peers share a name or a certificate")));
            }
            let (role, name, index, address) = (peer.role, name.clone(), peer.index, peer.address.clone());
            peers.push(PeerConfig { role, name, index, address, pinned });
        }
        let deadlines = file.deadlines.resolve().map_err(&invalid)?;
        let state = dir.join(&file.state);
        let ConfigFile { role, name, index, listen, reveal_to, .. } = file;
        let link = None;
        Ok(Self { role, name, index, dir, state, listen, reveal_to, identity, peers, deadlines, link, path })
    }

    /// The only peer with `role`.
    ///
    /// # Errors
    /// [`ConfigError::Peer`] if there is none or several.
    pub fn peer(&self, role: PartyRole) -> Result<&PeerConfig, ConfigError> {
        let found: Vec<&PeerConfig> = self.peers(role).collect();
        match found[..] {
            [only] => Ok(only),
            _ => Err(ConfigError::Peer { path: self.path.clone(), role, found: found.len() }),
        }
    }

    /// The number of this party in its cluster, and the configurations of the next and the previous one.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] unless this is one of three parties that know each other.
    pub fn cluster(&self) -> Result<(usize, [&PeerConfig; 2]), ConfigError> {
        let invalid = |problem: String| ConfigError::Invalid { path: self.path.clone(), problem };
        let Some(index) = self.index.filter(|&i| i < PARTIES) else {
            return Err(invalid(
                "expected index = 0, 1 or 2; make it with privet setup --parties 3".to_owned(),
            ));
        };
        let find = |wanted: usize| {
            let found: Vec<_> = self.peers(PartyRole::Party).filter(|p| p.index == Some(wanted)).collect();
            match found[..] {
                [only] => Ok(only),
                _ => Err(invalid(format!(
                    "expected one peer with role = \"party\" and index = {wanted}, found {}",
                    found.len()
                ))),
            }
        };
        Ok((index, [find((index + 1) % PARTIES)?, find((index + 2) % PARTIES)?]))
    }

    /// All peers with `role`.
    pub fn peers(&self, role: PartyRole) -> impl Iterator<Item = &PeerConfig> {
        self.peers.iter().filter(move |p| p.role == role)
    }

    /// Whether everyone who learns the outputs under `reveal_to` may do so: `["client", "server"]` and `["both"]` mean
    /// the same.
    pub fn allows(&self, reveal_to: RevealTo) -> bool {
        use privet_protocols::masked::Role;
        let may = |role| self.reveal_to.iter().any(|allowed| allowed.includes(role));
        [Role::Server, Role::Client].into_iter().all(|role| !reveal_to.includes(role) || may(role))
    }
}

/// Whether a party may be called so: the name is also a directory's.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The file as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    pub(crate) version: u32,
    pub(crate) role: PartyRole,
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<usize>,
    #[serde(default = "default_identity")]
    pub(crate) identity: PathBuf,
    #[serde(default = "default_state")]
    pub(crate) state: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<String>,
    #[serde(default = "default_reveal_to")]
    pub(crate) reveal_to: Vec<RevealTo>,
    #[serde(default)]
    pub(crate) deadlines: DeadlinesFile,
    #[serde(default)]
    pub(crate) peers: Vec<PeerFile>,
}

impl ConfigFile {
    /// Parses the text of a file; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Version { version } = toml::from_str(text).map_err(|e| toml_problem(text, &e))?;
        if version != CONFIG_VERSION {
            return Err(format!("version {version}, this build reads version {CONFIG_VERSION}"));
        }
        let file: Self = toml::from_str(text).map_err(|e| toml_problem(text, &e))?;
        file.deadlines.resolve()?;
        Ok(file)
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PeerFile {
    pub(crate) role: PartyRole,
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    pub(crate) certificate: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeadlinesFile {
    pub(crate) connect_seconds: Option<f64>,
    pub(crate) handshake_seconds: Option<f64>,
    pub(crate) wait_seconds: Option<f64>,
}

impl DeadlinesFile {
    /// As written by setup: the defaults, spelled out.
    pub(crate) fn spelled_out() -> Self {
        let Deadlines { connect, handshake, wait } = Deadlines::default();
        let [connect_seconds, handshake_seconds, wait_seconds] =
            [connect, handshake, wait].map(|d| Some(d.as_secs_f64()));
        Self { connect_seconds, handshake_seconds, wait_seconds }
    }

    fn resolve(&self) -> Result<Deadlines, String> {
        let resolve = |key: &str, seconds: Option<f64>, default: Duration| match seconds {
            None => Ok(default),
            Some(s) if s > 0.0 && s <= 1e6 => Ok(Duration::from_secs_f64(s)),
            Some(s) => Err(format!("deadlines.{key}: expected more than 0 and at most 1000000 s, found {s}")),
        };
        let default = Deadlines::default();
        Ok(Deadlines {
            connect: resolve("connect_seconds", self.connect_seconds, default.connect)?,
            handshake: resolve("handshake_seconds", self.handshake_seconds, default.handshake)?,
            wait: resolve("wait_seconds", self.wait_seconds, default.wait)?,
        })
    }
}

fn default_identity() -> PathBuf {
    ".".into()
}

fn default_state() -> PathBuf {
    "state".into()
}

fn default_reveal_to() -> Vec<RevealTo> {
    vec![RevealTo::Client]
}

pub(crate) fn read(path: &Path) -> Result<String, ConfigError> {
    let fail = |problem: String| ConfigError::Read { path: path.to_owned(), problem };
    let length = std::fs::metadata(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => fail("no such file; make one with privet setup".to_owned()),
        _ => fail(e.to_string()),
    })?;
    if length.len() > MAX_CONFIG_BYTES {
        return Err(fail(format!("{} bytes, at most {MAX_CONFIG_BYTES} are read", length.len())));
    }
    std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))
}

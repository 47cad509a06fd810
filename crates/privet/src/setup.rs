//! Fresh identities and configurations for a dealer, a server and its clients.
//!
//! Everything is made in one place for convenience, then each directory is moved to the host of its party. Private
//! keys appear in their party's directory only; what the others get is the certificate.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use privet_net::identity::{CERTIFICATE_FILE, KEY_FILE};
use privet_net::{Fingerprint, Identity, NetError};
use privet_protocols::masked::RevealTo;
use privet_protocols::replicated::PARTIES;

use crate::config::{CONFIG_FILE, CONFIG_VERSION, ConfigFile, DeadlinesFile, PartyRole, PeerFile, is_name};
use crate::files;
use crate::sharing::{self, CLUSTER_FILE, Cluster};

/// Directory of the peers' certificates in a party's directory.
const PEERS_DIR: &str = "peers";

/// What [`setup`] makes.
#[derive(Debug, Clone)]
pub struct SetupOptions {
    /// Where the parties' directories go.
    pub out: PathBuf,
    /// `host:port` under which clients reach the server.
    pub server: String,
    /// `host:port` under which server and clients reach the dealer.
    pub dealer: String,
    /// Names of the clients, which are also names of directories.
    pub clients: Vec<String>,
}

/// A party that [`setup`] made.
#[derive(Debug, Clone)]
pub struct NewParty {
    /// What it does.
    pub role: PartyRole,
    /// Its name.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// SHA-256 of its certificate.
    pub fingerprint: Fingerprint,
}

/// Why parties could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// An address is not `host:port`.
    #[error("{what} address {found:?}: expected HOST:PORT, for instance {what}.example:7101")]
    Address {
        /// `server` or `dealer`.
        what: &'static str,
        /// What was given.
        found: String,
    },
    /// Two parties of a cluster would listen on one address.
    #[error("address {address} is given twice: every party has its own")]
    SameAddress {
        /// What was given.
        address: String,
    },
    /// A client's name cannot be a directory's.
    #[error(
        "client name {found:?}: expected 1 to 64 letters, digits, '-', '_' or '.', not starting with '.'; \
         \"dealer\" and \"server\" are taken, and every name is used once"
    )]
    Name {
        /// What was given.
        found: String,
    },
    /// No client.
    #[error("no client: name at least one with --client")]
    NoClient,
    /// A file of an earlier setup is there.
    #[error(
        "{} already exists: identities are never overwritten; choose another --out, or remove it if no party uses it",
        path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A key or certificate could not be made.
    #[error(transparent)]
    Identity(#[from] NetError),
}

/// Makes one directory per party, each ready to be copied to its host: configuration, identity, peers' certificates.
/// Nothing is written when any of them is there already.
///
/// A party that others reach under a loopback address listens on that address; any other is taken to be routed here,
/// and the party listens on its port on all interfaces.
///
/// # Errors
/// Malformed addresses or names, existing files, and failures of the system.
pub fn setup(options: &SetupOptions) -> Result<Vec<NewParty>, SetupError> {
    let dealer_listen = listen_address("dealer", &options.dealer)?;
    let server_listen = listen_address("server", &options.server)?;
    check_names(&options.clients)?;
    let mut members = vec![
        Member::new(options, PartyRole::Dealer, "dealer", Some((&options.dealer, dealer_listen))),
        Member::new(options, PartyRole::Server, "server", Some((&options.server, server_listen))),
    ];
    members.extend(options.clients.iter().map(|name| Member::new(options, PartyRole::Client, name, None)));
    make(members)
}

/// Makes the directories of three parties that compute on shares, `party0` to `party2`, and the public description of the
/// cluster, [`CLUSTER_FILE`], which data owners need. `hosts` are the `host:port` under which they reach each other; where
/// they listen follows as in [`setup`].
///
/// # Errors
/// As [`setup`].
pub fn setup_cluster(out: &Path, hosts: &[String; PARTIES]) -> Result<Vec<NewParty>, SetupError> {
    let member = |(index, address): (usize, &String)| {
        let name = format!("party{index}");
        Ok(Member {
            role: PartyRole::Party,
            dir: out.join(&name),
            name,
            index: Some(index),
            listen: Some(listen_address("party", address)?),
            address: Some(address.clone()),
        })
    };
    let members = hosts.iter().enumerate().map(member).collect::<Result<Vec<_>, SetupError>>()?;
    for (i, host) in hosts.iter().enumerate() {
        // Port 0 stands for any free one.
        if hosts[..i].contains(host) && !host.ends_with(":0") {
            return Err(SetupError::SameAddress { address: host.clone() });
        }
    }
    let path = out.join(CLUSTER_FILE);
    if path.symlink_metadata().is_ok() {
        return Err(SetupError::Exists { path });
    }
    let made = make(members)?;
    let describe = |i: usize| sharing::Member {
        name: made[i].name.clone(),
        address: hosts[i].clone(),
        fingerprint: made[i].fingerprint,
    };
    let fail = |source| SetupError::Write { path: path.clone(), source };
    let text =
        Cluster { parties: [0, 1, 2].map(describe) }.to_text().map_err(|e| fail(io::Error::other(e)))?;
    files::write(&path, text.as_bytes(), files::PUBLIC).map_err(fail)?;
    Ok(made)
}

/// Writes the directories of all members: those of other names and roles are each other's peers.
fn make(members: Vec<Member>) -> Result<Vec<NewParty>, SetupError> {
    for file in members.iter().flat_map(|m| [CONFIG_FILE, KEY_FILE, CERTIFICATE_FILE].map(|f| m.dir.join(f)))
    {
        if file.symlink_metadata().is_ok() {
            return Err(SetupError::Exists { path: file });
        }
    }
    let identities: Vec<Identity> =
        members.iter().map(|m| Identity::generate(&m.name)).collect::<Result<_, _>>()?;
    for (member, identity) in members.iter().zip(&identities) {
        private_dir(&member.dir)?;
        identity.write(&member.dir)?;
        let peers_dir = member.dir.join(PEERS_DIR);
        private_dir(&peers_dir)?;
        let mut peers = Vec::new();
        let is_peer = |p: &Member| match member.role {
            PartyRole::Party => p.name != member.name,
            role => p.role != role,
        };
        for (peer, identity) in members.iter().zip(&identities).filter(|(p, _)| is_peer(p)) {
            let file = format!("{}.crt", peer.name);
            identity.certificate().write(&peers_dir.join(&file))?;
            peers.push(PeerFile {
                role: peer.role,
                name: peer.name.clone(),
                index: peer.index,
                address: peer.address.clone(),
                certificate: Path::new(PEERS_DIR).join(file),
            });
        }
        write_config(member, peers)?;
    }
    let made = members.into_iter().zip(&identities).map(|(m, identity)| NewParty {
        role: m.role,
        name: m.name,
        dir: m.dir,
        fingerprint: identity.fingerprint(),
    });
    Ok(made.collect())
}

struct Member {
    role: PartyRole,
    name: String,
    index: Option<usize>,
    dir: PathBuf,
    address: Option<String>,
    listen: Option<String>,
}

impl Member {
    fn new(options: &SetupOptions, role: PartyRole, name: &str, address: Option<(&String, String)>) -> Self {
        let (address, listen) = address.map(|(address, listen)| (address.clone(), listen)).unzip();
        Self { role, name: name.to_owned(), index: None, dir: options.out.join(name), address, listen }
    }
}

/// Where a party listens that others reach under `address`.
fn listen_address(what: &'static str, address: &str) -> Result<String, SetupError> {
    let malformed = || SetupError::Address { what, found: address.to_owned() };
    let (host, port) = address.rsplit_once(':').ok_or_else(malformed)?;
    let port: u16 = port.parse().map_err(|_| malformed())?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let ip: Option<IpAddr> = bare.parse().ok();
    let is_named = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/:[]@".contains(c));
    match ip {
        Some(IpAddr::V6(_)) if bare == host => Err(malformed()),
        Some(ip) if ip.is_loopback() => Ok(address.to_owned()),
        Some(IpAddr::V6(_)) => Ok(format!("[::]:{port}")),
        Some(IpAddr::V4(_)) => Ok(format!("0.0.0.0:{port}")),
        None if host == "localhost" => Ok(format!("127.0.0.1:{port}")),
        None if is_named => Ok(format!("0.0.0.0:{port}")),
        None => Err(malformed()),
    }
}

fn check_names(clients: &[String]) -> Result<(), SetupError> {
    if clients.is_empty() {
        return Err(SetupError::NoClient);
    }
    for (i, name) in clients.iter().enumerate() {
        let is_taken = ["dealer", "server"].contains(&name.as_str()) || clients[..i].contains(name);
        if !is_name(name) || is_taken {
            return Err(SetupError::Name { found: name.clone() });
        }
    }
    Ok(())
}

fn private_dir(dir: &Path) -> Result<(), SetupError> {
    files::private_dir(dir).map_err(|source| SetupError::Write { path: dir.to_owned(), source })
}

fn write_config(member: &Member, peers: Vec<PeerFile>) -> Result<(), SetupError> {
    let config = ConfigFile {
        version: CONFIG_VERSION,
        role: member.role,
        name: member.name.clone(),
        index: member.index,
        identity: ".".into(),
        state: "state".into(),
        listen: member.listen.clone(),
        reveal_to: vec![RevealTo::Client],
        deadlines: DeadlinesFile::spelled_out(),
        peers,
    };
    let path = member.dir.join(CONFIG_FILE);
    let fail = |source| SetupError::Write { path: path.clone(), source };
    let text = toml::to_string(&config).map_err(|e| fail(io::Error::other(e)))?;
    let header = format!(
        "# The {}'s configuration, written by privet setup. Copy this directory to its host, and only there.\n\n",
        member.role
    );
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(header.as_bytes())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigError, PartyConfig};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn options(out: &Path) -> SetupOptions {
        SetupOptions {
            out: out.join("parties"),
            server: "vendor.example:7101".to_owned(),
            dealer: "127.0.0.1:7100".to_owned(),
            clients: vec!["clinic".to_owned(), "lab".to_owned()],
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn every_party_loads_and_holds_one_key_only() {
        let temp = tempfile::tempdir().unwrap();
        let options = options(temp.path());
        let made = setup(&options).unwrap();
        assert_eq!(made.len(), 4);
        for party in &made {
            let config = PartyConfig::load(&party.dir, party.role).unwrap();
            assert_eq!(config.identity.fingerprint(), party.fingerprint);
            assert_eq!(mode(&party.dir), 0o700);
            assert_eq!(mode(&party.dir.join(KEY_FILE)), 0o600);
            for peer in &config.peers {
                let other = made.iter().find(|m| m.name == peer.name).unwrap();
                assert_eq!(peer.pinned.fingerprint(), other.fingerprint);
            }
            let keys: Vec<_> =
                fs::read_dir(party.dir.join(PEERS_DIR)).unwrap().map(|e| e.unwrap().path()).collect();
            assert!(keys.iter().all(|path| path.extension().unwrap() == "crt"));
        }
        let server = PartyConfig::load(&options.out.join("server"), PartyRole::Server).unwrap();
        assert_eq!(server.listen.as_deref(), Some("0.0.0.0:7101"));
        assert_eq!(server.peers(PartyRole::Client).count(), 2);
        assert!(server.peers(PartyRole::Client).all(|p| p.address.is_none()));
        let dealer = PartyConfig::load(&options.out.join("dealer"), PartyRole::Dealer).unwrap();
        assert_eq!(dealer.listen.as_deref(), Some("127.0.0.1:7100"));
        let client =
            PartyConfig::load(&options.out.join("clinic").join(CONFIG_FILE), PartyRole::Client).unwrap();
        assert_eq!(client.peer(PartyRole::Server).unwrap().address.as_deref(), Some("vendor.example:7101"));
        assert_eq!(client.peers.len(), 2, "clients do not know each other");
    }

    #[test]
    fn an_existing_identity_is_never_overwritten() {
        let temp = tempfile::tempdir().unwrap();
        let options = options(temp.path());
        let key = options.out.join("lab").join(KEY_FILE);
        fs::create_dir_all(key.parent().unwrap()).unwrap();
        fs::write(&key, "precious").unwrap();
        let error = setup(&options).unwrap_err().to_string();
        assert!(error.contains("identity.key already exists"), "{error}");
        assert_eq!(fs::read_to_string(&key).unwrap(), "precious");
        assert!(!options.out.join("dealer").exists(), "nothing is written");
    }

    #[test]
    fn addresses_become_listening_addresses() {
        let cases = [
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("localhost:7100", "127.0.0.1:7100"),
            ("[::1]:7100", "[::1]:7100"),
            ("[2001:db8::1]:7100", "[::]:7100"),
            ("192.0.2.1:7100", "0.0.0.0:7100"),
            ("a-b.example:7100", "0.0.0.0:7100"),
        ];
        for (address, listen) in cases {
            assert_eq!(listen_address("server", address).unwrap(), listen);
        }
        for bad in ["", "host", ":7100", "host:", "host:70000", "::1:7100", "http://host:1", "a b:1"] {
            assert!(listen_address("server", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_directory_names() {
        for bad in ["", ".", "..", "a/b", "server", "dealer", "é", &"a".repeat(65)] {
            assert!(check_names(&[bad.to_owned()]).is_err(), "{bad}");
        }
        assert!(check_names(&["a".to_owned(), "a".to_owned()]).is_err());
        assert!(check_names(&[]).is_err());
        assert!(check_names(&["Clinic_1.a-b".to_owned()]).is_ok());
    }

    #[test]
    fn configurations_are_refused_with_reasons() {
        let temp = tempfile::tempdir().unwrap();
        let options = options(temp.path());
        setup(&options).unwrap();
        let dir = options.out.join("server");
        let path = dir.join(CONFIG_FILE);
        let written = fs::read_to_string(&path).unwrap();
        let refusal = |role| {
            let error = PartyConfig::load(&dir, role).unwrap_err();
            match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            }
        };
        assert!(refusal(PartyRole::Dealer).contains("is the server's configuration, expected the dealer's"));
        let cases = [
            ("version = 1", "version = 2", "version 2, this build reads version 1"),
            ("state =", "sate =", "unknown field `sate`"),
            ("role = \"server\"", "role = \"boss\"", "unknown variant `boss`"),
            ("peers/lab.crt", "peers/none.crt", "none.crt: missing"),
            ("peers/lab.crt", "peers/clinic.crt", "share a name or a certificate"),
            ("peers/lab.crt", "identity.crt", "is this party's own"),
            ("wait_seconds = 120.0", "wait_seconds = 0", "expected more than 0"),
            ("reveal_to = [\"client\"]", "reveal_to = [\"all\"]", "unknown variant `all`"),
        ];
        for (from, to, message) in cases {
            assert!(written.contains(from), "{from}");
            fs::write(&path, written.replace(from, to)).unwrap();
            let error = refusal(PartyRole::Server);
            assert!(error.contains(message) && error.contains("privet.toml"), "{to}: {error}");
        }
        fs::write(&path, &written).unwrap();
        fs::set_permissions(dir.join(KEY_FILE), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refusal(PartyRole::Server).contains("chmod 600"));
        fs::remove_file(&path).unwrap();
        assert!(refusal(PartyRole::Server).contains("no such file"));
    }

    #[test]
    fn one_peer_of_a_role_is_found_and_several_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let options = options(temp.path());
        setup(&options).unwrap();
        let server = PartyConfig::load(&options.out.join("server"), PartyRole::Server).unwrap();
        assert_eq!(server.peer(PartyRole::Dealer).unwrap().name, "dealer");
        let error = server.peer(PartyRole::Client).unwrap_err();
        assert!(matches!(error, ConfigError::Peer { found: 2, .. }));
        assert!(server.allows(RevealTo::Client));
        assert!(!server.allows(RevealTo::Server) && !server.allows(RevealTo::Both));
    }
}

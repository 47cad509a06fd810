//! The public description of a cluster of three parties, `cluster.toml`.
//!
//! ```toml
//! version = 1
//!
//! [[parties]]
//! name = "party0"
//! address = "a.example:7200"
//! fingerprint = "sha256:.."
//! ```

use std::path::{Path, PathBuf};

use privet_attest::policy::toml_problem;
use privet_net::Fingerprint;
use privet_protocols::replicated::PARTIES;
use serde::{Deserialize, Serialize};

use crate::config::{self, ConfigError, is_name};

/// File name of the description, next to the parties' directories.
pub const CLUSTER_FILE: &str = "cluster.toml";
/// Version of the format; others are refused.
const VERSION: u32 = 1;

/// The three parties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// In the order of their numbers.
    pub parties: [Member; PARTIES],
}

/// A party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name, also that of the directory its shares are written to.
    pub name: String,
    /// `host:port` under which the others reach it.
    pub address: String,
    /// SHA-256 of its certificate.
    pub fingerprint: Fingerprint,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterFile {
    version: u32,
    parties: Vec<Member>,
}

impl Cluster {
    /// Reads a description: the file, or the directory it is in.
    ///
    /// # Errors
    /// The file is missing, malformed, of another version, or does not name three parties.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let path = if path.is_dir() { path.join(CLUSTER_FILE) } else { path.to_owned() };
        let text = config::read(&path)?;
        Self::parse(&text).map_err(|problem| ConfigError::Invalid { path, problem })
    }

    /// Parses the text of a file; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let file: ClusterFile = toml::from_str(text).map_err(|e| toml_problem(text, &e))?;
        if file.version != VERSION {
            return Err(format!("version {}, this build reads version {VERSION}", file.version));
        }
        let found = file.parties.len();
        let parties: [Member; PARTIES] =
            file.parties.try_into().map_err(|_| format!("expected {PARTIES} parties, found {found}"))?;
        for (i, party) in parties.iter().enumerate() {
            if !is_name(&party.name) {
                return Err(format!(
                    "party name {:?}: expected letters, digits, '-', '_' or '.'",
                    party.name
                ));
            }
            let is_other = |p: &Member| p.name != party.name && p.fingerprint != party.fingerprint;
            if !parties[..i].iter().all(is_other) {
                return Err(format!("two parties share the name {:?} or a certificate", party.name));
            }
        }
        Ok(Self { parties })
    }

    /// The text of the file.
    pub(crate) fn to_text(&self) -> Result<String, toml::ser::Error> {
        let file = ClusterFile { version: VERSION, parties: self.parties.to_vec() };
        Ok(format!(
            "# The parties of a three-party cluster, written by privet setup. Public: who shares inputs or weights needs it.\n\n{}",
            toml::to_string(&file)?
        ))
    }

    /// Where the description lies that belongs to a setup in `out`.
    pub fn path(out: &Path) -> PathBuf {
        out.join(CLUSTER_FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        let party = |i: u8| Member {
            name: format!("party{i}"),
            address: format!("host{i}.example:7200"),
            fingerprint: Fingerprint::of(&[i]),
        };
        Cluster { parties: [0, 1, 2].map(party) }
    }

    #[test]
    fn descriptions_read_back() {
        let text = cluster().to_text().unwrap();
        assert_eq!(Cluster::parse(&text).unwrap(), cluster());
    }

    #[test]
    fn others_are_refused_with_reasons() {
        let text = cluster().to_text().unwrap();
        let cases = [
            ("version = 1", "version = 2", "version 2, this build reads version 1"),
            ("party2", "party1", "share the name"),
            ("party2", "../x", "party name"),
            ("party2", "", "party name"),
            ("sha256:", "md5:", "expected sha256:"),
            ("address", "adress", "unknown field"),
        ];
        for (from, to, expected) in cases {
            let error = Cluster::parse(&text.replace(from, to)).unwrap_err();
            assert!(error.contains(expected), "{to}: {error}");
        }
        let two = text[..text.rfind("[[parties]]").unwrap()].to_owned();
        assert!(Cluster::parse(&two).unwrap_err().contains("expected 3 parties, found 2"));
    }
}

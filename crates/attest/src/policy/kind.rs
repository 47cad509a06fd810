//! What a TOML file is that is not the one that was expected. Kinds of files are told apart by keys that only they have.

use std::fmt;

/// A kind of TOML file of Privet's, or one that is used next to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Which evidence is accepted.
    AttestationPolicy,
    /// Who may have a key.
    KeyPolicy,
    /// What is public of an owner's keys.
    Release,
    /// Of a key server.
    ServerConfig,
    /// Of a key cache.
    CacheConfig,
    /// Of Gramine.
    Manifest,
}

/// Keys of the top level, one of which tells the kind; the first that has one is it.
const SIGNS: [(FileKind, &[&str]); 6] = [
    (FileKind::Release, &["content_key_fingerprint"]),
    (FileKind::KeyPolicy, &["key_id", "get", "lease"]),
    (FileKind::ServerConfig, &["master"]),
    (FileKind::CacheConfig, &["server_certificate", "server_policy", "policies"]),
    (FileKind::Manifest, &["loader", "libos", "fs"]),
    (FileKind::AttestationPolicy, &["sgx", "tdx", "snp", "sample"]),
];

impl FileKind {
    /// The kind of a file of this text, if it is TOML and has such keys.
    pub fn of(text: &str) -> Option<Self> {
        let table: toml::Table = toml::from_str(text).ok()?;
        let has = |keys: &[&str]| keys.iter().any(|key| table.contains_key(*key));
        // Manifests have options of SGX, too, and no version.
        let fits = |kind| kind != Self::AttestationPolicy || table.contains_key("version");
        SIGNS.into_iter().find(|(kind, keys)| has(keys) && fits(*kind)).map(|(kind, _)| kind)
    }

    /// What is wrong with a file of this text where one of this kind was expected, if it is of another kind.
    pub fn mistaken(self, text: &str) -> Option<String> {
        let found = Self::of(text).filter(|&found| found != self)?;
        Some(format!("this is {found}; expected {self}"))
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AttestationPolicy => {
                "an attestation policy, which says which evidence is accepted (sections [sgx], [tdx], [snp]; \
                 docs/attestation.md#policies)"
            }
            Self::KeyPolicy => {
                "a key policy, which says who may have a key (key_id, model_id, sections [get], [lease]; \
                 docs/keys.md#policies)"
            }
            Self::Release => "the release file of an owner's keys (release.toml of privet key new)",
            Self::ServerConfig => "the configuration of a key server (keyserver.toml)",
            Self::CacheConfig => "the configuration of a key cache (keycache.toml)",
            Self::Manifest => "a manifest of Gramine's",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        for (text, kind) in [
            ("version = 1\n[sgx]\nmrenclave = []\n", Some(FileKind::AttestationPolicy)),
            ("version = 1\nkey_id = \"a\"\n[get.sgx]\nmrenclave = []\n", Some(FileKind::KeyPolicy)),
            ("version = 1\nkey_id = \"a\"\ncontent_key_fingerprint = \"00\"\n", Some(FileKind::Release)),
            ("listen = \"a:1\"\nmaster = { file = \"x\" }\n", Some(FileKind::ServerConfig)),
            ("listen = \"a:1\"\npolicies = \"policies\"\n", Some(FileKind::CacheConfig)),
            ("loader.entrypoint = \"file:x\"\nsgx.debug = false\n", Some(FileKind::Manifest)),
            ("sgx.debug = true\n", None),
            ("a = 1", None),
            ("no TOML", None),
        ] {
            assert_eq!(FileKind::of(text), kind, "{text}");
        }
        let policy = "version = 1\n[sgx]\n";
        assert_eq!(FileKind::AttestationPolicy.mistaken(policy), None);
        let said = FileKind::KeyPolicy.mistaken(policy).unwrap();
        assert!(
            said.starts_with("this is an attestation policy") && said.contains("expected a key policy"),
            "{said}"
        );
    }
}

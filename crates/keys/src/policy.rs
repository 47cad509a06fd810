//! Who may have a key: one TOML file for each.
//!
//! ```toml
//! version = 1
//! key_id = "resnet"
//! model_id = "67e55044-10b1-426f-9247-bb680e5fe0c8"
//! model_digest = "9f86d081884c7d65…"   # optional: the only sealed file that workers may open
//! minimum_model_version = 3            # optional: the oldest one
//!
//! [get]                                # workers: an attestation policy, see docs/attestation.md
//! version = 1
//! [get.sgx]
//! mrenclave = ["65f0…"]
//!
//! [lease]                              # optional: caches that may hold the key for some time
//! seconds = 86400
//! [lease.to]
//! version = 1
//! [lease.to.sgx]
//! mrenclave = ["a1b2…"]
//! ```
//!
//! A cache has files of the same form, in which `[get]` says which workers of its host it serves.

use privet_attest::Policy as AttestationPolicy;
use privet_attest::policy::{FileKind, Lint, Severity, toml_problem};
use privet_seal::{KeyId, ModelId, ModelVersion, SealDigest};
use serde::Deserialize;

use crate::error::KeysError;
use crate::store::{KeyInfo, MAX_POLICY_BYTES};

/// Version of the format; others are refused.
pub const KEY_POLICY_VERSION: u32 = 1;
/// Shortest and longest lease: a minute, a year.
const LEASE_SECONDS: std::ops::RangeInclusive<u64> = 10..=365 * 24 * 3600;
/// Leases that are longer deserve a thought.
const LONG_LEASE: u64 = 7 * 24 * 3600;

/// Who may have a key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPolicy {
    /// [`KEY_POLICY_VERSION`].
    pub version: u32,
    /// The key that this is about.
    pub key_id: KeyId,
    /// The model that it opens.
    pub model_id: ModelId,
    /// Digest of the only sealed model that may be opened with it. The worker that gets the key checks it.
    pub model_digest: Option<SealDigest>,
    /// Oldest version of the model that may be opened. The worker checks it.
    pub minimum_model_version: Option<ModelVersion>,
    /// Workers that get the key.
    pub get: Option<AttestationPolicy>,
    /// Caches that hold it for some time.
    pub lease: Option<LeasePolicy>,
}

/// Caches that hold a key for some time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeasePolicy {
    /// For how long.
    pub seconds: u64,
    /// Which.
    pub to: AttestationPolicy,
}

impl KeyPolicy {
    /// Reads a policy.
    ///
    /// # Errors
    /// If it is too large, not TOML, has unknown keys, or rules that make no sense together; `name` says where it is from.
    pub fn parse(name: &str, text: &str) -> Result<Self, KeysError> {
        let fail = |problem: String| KeysError::Policy { name: name.to_owned(), problem };
        if text.len() > MAX_POLICY_BYTES {
            return Err(fail(format!("expected at most {MAX_POLICY_BYTES} bytes, found {}", text.len())));
        }
        let described = |e| format!("{} (docs/keys.md#policies describes the form)", toml_problem(text, &e));
        let problem = |e| FileKind::KeyPolicy.mistaken(text).unwrap_or_else(|| described(e));
        let policy: Self = toml::from_str(text).map_err(|e| fail(problem(e)))?;
        policy.check().map_err(fail)?;
        Ok(policy)
    }

    fn check(&self) -> Result<(), String> {
        if self.version != KEY_POLICY_VERSION {
            return Err(format!("version {}, this program reads version {KEY_POLICY_VERSION}", self.version));
        }
        if let Some(lease) = &self.lease
            && !LEASE_SECONDS.contains(&lease.seconds)
        {
            let (least, most) = (LEASE_SECONDS.start(), LEASE_SECONDS.end());
            return Err(format!("lease.seconds: expected {least} to {most}, found {}", lease.seconds));
        }
        if self.get.is_none() && self.lease.is_none() {
            return Err("it releases the key to nobody: add [get] for workers, [lease] for caches".to_owned());
        }
        Ok(())
    }

    /// Whether it can be the policy of this key.
    ///
    /// # Errors
    /// If it is about another key or model.
    pub fn check_key(&self, info: &KeyInfo) -> Result<(), KeysError> {
        let fail = |problem: String| KeysError::Policy { name: self.key_id.to_string(), problem };
        if self.key_id != info.id {
            return Err(fail(format!("it is about this key, expected {}", info.id)));
        }
        if self.model_id != info.model {
            return Err(fail(format!(
                "model_id: the key is for model {}, found {}",
                info.model, self.model_id
            )));
        }
        Ok(())
    }

    /// The parts of it that only development evidence (**sample, INSECURE**) can satisfy: `get`, `lease`.
    pub fn sample_only(&self) -> Vec<&'static str> {
        let is_sample = |policy: &AttestationPolicy| {
            let rules = policy.rules();
            rules.sample.is_some() && rules.sgx.is_none() && rules.tdx.is_none() && rules.snp.is_none()
        };
        let parts = [("get", self.get.as_ref()), ("lease", self.lease.as_ref().map(|lease| &lease.to))];
        parts.into_iter().filter(|(_, policy)| policy.is_some_and(is_sample)).map(|(name, _)| name).collect()
    }

    /// What is weak or surprising about it, the worst first. None of it is an error.
    pub fn lint(&self) -> Vec<Lint> {
        let mut found = Vec::new();
        let mut nested = |section: &str, policy: &AttestationPolicy| {
            let lints = policy.lint().into_iter();
            found.extend(lints.map(|lint| Lint { rule: format!("{section}.{}", lint.rule), ..lint }));
        };
        if let Some(get) = &self.get {
            nested("get", get);
        }
        if let Some(lease) = &self.lease {
            nested("lease.to", &lease.to);
        }
        let mut add = |severity, rule: &str, message: &str| {
            found.push(Lint { severity, rule: rule.to_owned(), message: message.to_owned() });
        };
        if self.model_digest.is_none() && self.minimum_model_version.is_none() {
            let message = "workers may open every sealed file of this model, old ones with known faults included; give \
                           minimum_model_version or model_digest";
            add(Severity::Weak, "minimum_model_version", message);
        }
        if self.lease.as_ref().is_some_and(|lease| lease.seconds > LONG_LEASE) {
            let message = "longer than a week: a revoked key stays at caches until their leases end";
            add(Severity::Weak, "lease.seconds", message);
        }
        if self.get.is_none() {
            add(Severity::Note, "get", "no worker gets this key from here, only caches lease it");
        }
        found.sort_by(|a, b| a.severity.cmp(&b.severity).then_with(|| a.rule.cmp(&b.rule)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        version = 1
        key_id = "resnet"
        model_id = "67e55044-10b1-426f-9247-bb680e5fe0c8"
        minimum_model_version = 3
        [get]
        version = 1
        [get.sgx]
        mrenclave = ["0000000000000000000000000000000000000000000000000000000000000001"]
        [lease]
        seconds = 86400
        [lease.to]
        version = 1
        [lease.to.sgx]
        mrenclave = ["0000000000000000000000000000000000000000000000000000000000000002"]
    "#;

    #[test]
    fn a_policy_is_read_and_what_it_does_not_know_is_refused() {
        let policy = KeyPolicy::parse("p.toml", GOOD).unwrap();
        assert_eq!(policy.lease.as_ref().unwrap().seconds, 86400);
        assert!(policy.lint().iter().all(|f| f.severity == Severity::Note), "{:?}", policy.lint());
        for (from, to, expected) in [
            ("key_id = \"resnet\"", "key_id = \"../x\"", "expected 1 to 64 letters"),
            ("version = 1\n        key_id", "version = 2\n        key_id", "version 2"),
            ("minimum_model_version = 3", "minimum_model_version = 0", "nonzero"),
            ("minimum_model_version = 3", "minimum_version = 3", "unknown field"),
            ("minimum_model_version = 3", "model_digest = \"ab\"", "64 hexadecimal digits"),
            ("seconds = 86400", "seconds = 5", "expected 10 to"),
            ("[get.sgx]", "[get.sgy]", "unknown field"),
            (
                "mrenclave = [\"0000000000000000000000000000000000000000000000000000000000000001\"]",
                "",
                "any enclave",
            ),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = KeyPolicy::parse("p.toml", &GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("p.toml"), "{error}");
        }
        assert!(KeyPolicy::parse("p", &" ".repeat(MAX_POLICY_BYTES + 1)).is_err());
    }

    #[test]
    fn a_key_in_place_of_a_policy_is_not_quoted() {
        let key = "00112233445566778899aabbccddeeff".repeat(2);
        for text in [key.clone(), format!("version = 1\n{key}\n")] {
            let error = KeyPolicy::parse("p.toml", &text).unwrap_err().to_string();
            assert!(error.contains("column 65: ") && !error.contains("0011"), "{error}");
        }
        let error = KeyPolicy::parse("p.toml", &format!("version = 1\n{key}")).unwrap_err().to_string();
        assert!(error.contains("line 2, column 65: key with no value"), "{error}");
    }

    #[test]
    fn parts_that_only_development_evidence_satisfies() {
        assert!(KeyPolicy::parse("p", GOOD).unwrap().sample_only().is_empty());
        let sample = |section: &str, text: &str| {
            let to = format!("[{section}.sample]\nallow_sample_insecure = true\nmeasurement = [");
            text.replace(&format!("[{section}.sgx]\n        mrenclave = ["), &to)
        };
        let get = sample("get", GOOD);
        assert_eq!(KeyPolicy::parse("p", &get).unwrap().sample_only(), ["get"]);
        assert_eq!(KeyPolicy::parse("p", &sample("lease.to", &get)).unwrap().sample_only(), ["get", "lease"]);
    }

    #[test]
    fn what_is_weak_is_named() {
        let weak = GOOD.replace("minimum_model_version = 3", "").replace("86400", "2000000");
        let policy = KeyPolicy::parse("p", &weak).unwrap();
        let rules: Vec<_> =
            policy.lint().into_iter().filter(|f| f.severity == Severity::Weak).map(|f| f.rule).collect();
        assert_eq!(rules, ["lease.seconds", "minimum_model_version"]);
    }
}

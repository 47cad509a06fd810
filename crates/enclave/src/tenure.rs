//! How long a worker may use its key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use privet_attest::{Attester, seconds_text};
use privet_keys::{Clock, Endpoint, Grant, KeysError, fetch_key};
use privet_seal::{KeyFingerprint, KeyId, KeyVersion};

use crate::error::EnclaveError;
use crate::wire::ModelInfo;

/// Where a worker's key comes from.
pub trait KeySource: Send + Sync {
    /// The key, of this version or the newest.
    ///
    /// # Errors
    /// If it is refused, or cannot be asked for.
    fn fetch(&self, version: Option<KeyVersion>) -> Result<Grant, KeysError>;
}

/// A key server or cache.
pub struct RemoteKey {
    /// Where it is, and how it is known.
    pub endpoint: Endpoint,
    /// Proves what runs here.
    pub attester: Arc<dyn Attester>,
    /// Which key.
    pub key: KeyId,
    /// Which version, where the caller does not say; none is the newest.
    pub version: Option<KeyVersion>,
}

impl KeySource for RemoteKey {
    fn fetch(&self, version: Option<KeyVersion>) -> Result<Grant, KeysError> {
        fetch_key(&self.endpoint, &*self.attester, &self.key, version.or(self.version))
    }
}

/// Until when the key may be used. It ends with the lease, and in any case some time after it was asked for last.
pub(crate) struct Tenure {
    clock: Arc<dyn Clock>,
    lifetime: u64,
    ends: AtomicU64,
}

impl Tenure {
    /// One that has not begun.
    pub(crate) fn new(clock: Arc<dyn Clock>, lifetime: u64) -> Self {
        Self { clock, lifetime, ends: AtomicU64::new(0) }
    }

    /// Begins anew with a grant that was asked for at `asked`.
    pub(crate) fn extend(&self, grant: &Grant, asked: u64) {
        let own = asked.saturating_add(self.lifetime);
        self.ends.store(grant.not_after.map_or(own, |lease| lease.min(own)), Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// When it ends, in seconds since 1970.
    pub(crate) fn ends(&self) -> u64 {
        self.ends.load(Ordering::SeqCst)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.now() >= self.ends()
    }

    /// The error of an end.
    pub(crate) fn over(&self) -> EnclaveError {
        let ends = seconds_text(self.ends());
        EnclaveError::KeyEnded(format!("its lease, or the time for which it is kept, ended {ends}"))
    }
}

/// Whether a grant still lets this model be used: the owner's policy may have changed.
pub(crate) fn still_accepts(
    first: KeyFingerprint,
    again: &Grant,
    model: &ModelInfo,
) -> Result<(), EnclaveError> {
    let fail = |problem: String| Err(EnclaveError::KeyEnded(problem));
    if again.fingerprint != first {
        return fail(format!("another key came under its name, {}", again.fingerprint));
    }
    if again.model_digest.is_some_and(|digest| digest != model.digest) {
        return fail(format!("the owner's policy now names another sealed model than {}", model.digest));
    }
    match again.minimum_model_version {
        Some(oldest) if oldest > model.version => fail(format!(
            "the owner's policy now asks for version {oldest} of the model or later; this is {}",
            model.version
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use privet_keys::ManualClock;
    use privet_seal::{ContentKey, ModelId, ModelVersion, SealDigest, SigningKey};

    use super::*;

    pub(crate) fn grant(key: u8, not_after: Option<u64>, digest: Option<&str>, oldest: Option<u64>) -> Grant {
        let content = ContentKey::from_slice(&[key; 32]).unwrap();
        // 32 equal bytes in base64.
        let base64 = if key == 0 { "AAAA".repeat(10) + "AAA=" } else { "AQEB".repeat(10) + "AQE=" };
        let verifying_key = SigningKey::from_slice(&[1; 32]).unwrap().verifying_key().unwrap();
        let json = serde_json::json!({
            "version": 1, "key_id": "k", "key_version": 1, "model_id": ModelId::from_bytes([7; 16]).to_string(),
            "verifying_key": verifying_key.to_string(), "fingerprint": content.fingerprint().to_string(),
            "model_digest": digest, "minimum_model_version": oldest, "not_after": not_after, "key": base64,
        });
        serde_json::from_value(json).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn a_key_ends_with_its_lease_or_before() {
        let clock = Arc::new(ManualClock::new(1000));
        let tenure = Tenure::new(clock.clone(), 100);
        assert!(tenure.is_over(), "before it begins");
        for (not_after, ends) in [(Some(1050), 1050), (Some(5000), 1100), (None, 1100)] {
            clock.set(1000);
            tenure.extend(&grant(0, not_after, None, None), 1000);
            assert_eq!(tenure.ends(), ends);
            clock.set(ends - 1);
            assert!(!tenure.is_over());
            clock.set(ends);
            assert!(tenure.is_over());
        }
    }

    #[test]
    fn a_changed_policy_ends_it() {
        let digest = "ab".repeat(32);
        let model = ModelInfo {
            verifying_key: SigningKey::from_slice(&[1; 32]).unwrap().verifying_key().unwrap(),
            id: ModelId::from_bytes([7; 16]),
            version: ModelVersion::new(3).unwrap(),
            digest: digest.parse::<SealDigest>().unwrap(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            endings: Vec::new(),
        };
        let first = grant(0, None, None, None).fingerprint;
        let check = |again: Grant| still_accepts(first, &again, &model);
        assert!(check(grant(0, None, Some(&digest), Some(3))).is_ok());
        let other = "cd".repeat(32);
        for (again, word) in [
            (grant(1, None, None, None), "another key"),
            (grant(0, None, Some(&other), None), "another sealed model"),
            (grant(0, None, None, Some(4)), "version 4"),
        ] {
            let error = check(again).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}

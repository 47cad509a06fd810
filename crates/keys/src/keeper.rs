//! Who keeps keys and decides who gets them: a server by its store, a cache by its leases.

use privet_attest::{Claims, Policy as AttestationPolicy, appraise};
use privet_seal::{
    ContentKey, KeyFingerprint, KeyId, KeyVersion, ModelId, ModelVersion, SealDigest, VerifyingKey,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::audit::{Event, Note};
use crate::error::KeysError;
use crate::kbs::{Plain, Problem, Refusal, hex_digest};
use crate::policy::KeyPolicy;
use crate::quota::Quota;
use crate::resource::{Kind, Resource};
use crate::store::{KeyInfo, KeyState, Store, View, versioned};

/// Version of what is released.
const GRANT_VERSION: u32 = 1;

/// Someone whose evidence is authentic.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What it says.
    pub claims: Claims,
    /// SHA-256 of the claims in JSON, in hexadecimal: what the audit log names them by.
    pub digest: String,
}

impl Peer {
    /// Of these claims. `None` if they do not encode.
    pub fn new(claims: Claims) -> Option<Self> {
        let digest = hex_digest(&serde_json::to_vec(&claims).ok()?);
        Some(Self { claims, digest })
    }
}

/// Whoever keeps keys.
pub trait Keeper: Send + Sync {
    /// Evidence was authentic.
    ///
    /// # Errors
    /// If that cannot be noted: then nothing may come of it.
    fn attested(&self, peer: &Peer) -> Result<(), KeysError>;

    /// Evidence was refused.
    fn attestation_refused(&self, reason: &str);

    /// What a peer asked for, if it may have it. Noted, durably, before it is given.
    ///
    /// # Errors
    /// Why not.
    fn release(&self, resource: &Resource, peer: &Peer) -> Result<Plain, Refusal>;
}

/// A key, with what its owner says about it: what a worker gets.
#[derive(Serialize, Deserialize)]
pub struct Grant {
    version: u32,
    /// Name of the key.
    pub key_id: KeyId,
    /// Which of this name.
    pub key_version: KeyVersion,
    /// The model that it opens.
    pub model_id: ModelId,
    /// Who signs the model.
    pub verifying_key: VerifyingKey,
    /// Which key it is.
    pub fingerprint: KeyFingerprint,
    /// Digest of the only sealed file that may be opened.
    pub model_digest: Option<SealDigest>,
    /// Oldest version of the model that may be opened.
    pub minimum_model_version: Option<ModelVersion>,
    /// When it may no longer be used, in seconds since 1970; `None` where it came from the server itself.
    pub not_after: Option<u64>,
    key: Base64Secret,
}

impl Grant {
    pub(crate) fn new(info: &KeyInfo, version: KeyVersion, policy: &KeyPolicy, key: &ContentKey) -> Self {
        Self {
            version: GRANT_VERSION,
            key_id: info.id.clone(),
            key_version: version,
            model_id: info.model,
            verifying_key: info.verifying_key,
            fingerprint: key.fingerprint(),
            model_digest: policy.model_digest,
            minimum_model_version: policy.minimum_model_version,
            not_after: None,
            key: Base64Secret::new(key.expose()),
        }
    }

    /// The key, which is the one that the fingerprint is of.
    ///
    /// # Errors
    /// If it is not.
    pub fn key(&self) -> Result<ContentKey, KeysError> {
        let fail = || KeysError::Usage("the key in a grant is not that of its fingerprint".to_owned());
        let key = ContentKey::from_slice(&self.key.decode().ok_or_else(fail)?).map_err(|_| fail())?;
        if key.fingerprint() == self.fingerprint { Ok(key) } else { Err(fail()) }
    }

    pub(crate) fn check_version(&self) -> Result<(), String> {
        if self.version == GRANT_VERSION {
            return Ok(());
        }
        Err(format!("a grant of version {}, this program reads version {GRANT_VERSION}", self.version))
    }
}

/// A grant for some time, with the owner's policy: what a cache gets.
#[derive(Serialize, Deserialize)]
pub struct Lease {
    /// The key; its `not_after` is when the lease ends.
    pub grant: Grant,
    /// When it began, by the server's clock.
    pub issued: u64,
    /// The owner's policy, a TOML file.
    pub policy: String,
}

/// JSON in a vector of the right size from the start, which does not grow and leave copies.
pub(crate) fn encode(value: &impl Serialize) -> Result<Plain, KeysError> {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let fail = |_| KeysError::Internal("a message does not encode");
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).map_err(fail)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(count.0));
    serde_json::to_writer(&mut *bytes, value).map_err(fail)?;
    Ok(bytes)
}

/// A secret in base64: no `Debug`, wiped on drop.
pub(crate) struct Base64Secret(Zeroizing<String>);

impl Base64Secret {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(data_encoding::BASE64.encode(bytes)))
    }

    pub(crate) fn decode(&self) -> Option<Zeroizing<Vec<u8>>> {
        data_encoding::BASE64.decode(self.0.as_bytes()).ok().map(Zeroizing::new)
    }
}

impl Serialize for Base64Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Base64Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

/// A key server's store, which decides by the owner's policies.
pub struct StoreKeeper {
    store: std::sync::Arc<Store>,
    clock: std::sync::Arc<dyn crate::clock::Clock>,
    tell: std::sync::Arc<Tell>,
    quota: Quota,
}

/// Told what failed here, and why: for the operator, not for peers.
pub type Tell = dyn Fn(&KeysError) + Send + Sync;

impl StoreKeeper {
    /// Of a store.
    pub fn new(store: std::sync::Arc<Store>, clock: std::sync::Arc<dyn crate::clock::Clock>) -> Self {
        Self { store, clock, tell: std::sync::Arc::new(|_| {}), quota: Quota::default() }
    }

    /// Tells of failures.
    #[must_use]
    pub fn telling(self, tell: std::sync::Arc<Tell>) -> Self {
        Self { tell, ..self }
    }

    /// Notes what was only counted so far.
    pub(crate) fn settle(&self) {
        self.note_omitted(None);
    }

    fn note_omitted(&self, now: Option<u64>) {
        for note in self.quota.settle(now) {
            if let Err(error) = self.store.note(note) {
                (self.tell)(&error);
            }
        }
    }

    /// The note, if it is not one of too many.
    fn within_quota(&self, note: Note) -> Option<Note> {
        self.quota.take(note.event, self.clock.now()).then_some(note)
    }

    /// Tells of a failure, of which peers need not know more.
    fn failed(&self, error: &KeysError) -> Refusal {
        (self.tell)(error);
        Refusal::internal()
    }

    fn grant(&self, stored: &View<'_>, resource: &Resource, peer: &Peer) -> Result<(Note, Plain), Decision> {
        let Resource { key: id, kind, version } = resource;
        let info = stored.info(id)?.ok_or_else(|| Decision::missing(id))?;
        let text = stored.policy(id)?.ok_or_else(|| Decision::deny("there is no policy for this key"))?;
        let policy = KeyPolicy::parse(id.as_str(), &text)?;
        policy.check_key(&info)?;
        let whom = match kind {
            Kind::Key | Kind::Release => {
                policy.get.as_ref().ok_or_else(|| Decision::deny("this key is leased to caches only"))
            }
            Kind::Lease => policy.lease.as_ref().map(|lease| &lease.to).ok_or_else(|| {
                Decision::deny("this key is not leased; add [lease] to its policy if caches may hold it")
            }),
        }?;
        allowed(peer, whom).map_err(Decision::Deny)?;
        let found = info.version(*version).ok_or_else(|| match version {
            Some(_) => Decision::missing(id),
            None => Decision::deny("all versions of this key are revoked"),
        })?;
        if found.state == KeyState::Revoked {
            return Err(Decision::deny(format!("version {} of this key is revoked", found.version)));
        }
        let version = found.version;
        let key = stored.secret(id, version)?.ok_or(KeysError::Internal("an active key has no secret"))?;
        let mut grant = Grant::new(&info, version, &policy, &key);
        let (event, plain) = match (kind, &policy.lease) {
            (Kind::Key, _) => (Event::Released, Zeroizing::new(key.expose().to_vec())),
            (Kind::Release, _) => (Event::Released, encode(&grant)?),
            (Kind::Lease, Some(terms)) => {
                let issued = self.clock.now();
                grant.not_after = Some(issued.saturating_add(terms.seconds));
                (Event::Leased, encode(&Lease { grant, issued, policy: text })?)
            }
            (Kind::Lease, None) => return Err(KeysError::Internal("a lease without terms").into()),
        };
        let note = Note::new(event, versioned(id, version), peer.claims.tee.name()).claimed(&peer.digest);
        Ok((note, plain))
    }
}

/// Why a key is not released.
pub(crate) enum Decision {
    Deny(String),
    Missing(String),
    Failed(KeysError),
}

impl Decision {
    pub(crate) fn deny(detail: impl Into<String>) -> Self {
        Self::Deny(detail.into())
    }

    pub(crate) fn missing(id: &KeyId) -> Self {
        Self::Missing(format!("there is no such key or version of {id}"))
    }
}

impl From<KeysError> for Decision {
    fn from(error: KeysError) -> Self {
        Self::Failed(error)
    }
}

/// Whether an attestation policy accepts a peer; if not, what it does not accept.
pub(crate) fn allowed(peer: &Peer, policy: &AttestationPolicy) -> Result<(), String> {
    let verdict = appraise(&peer.claims, policy);
    if verdict.accepted() {
        Ok(())
    } else {
        Err(format!("the policy of this key refuses: {}", verdict.failures()))
    }
}

impl Keeper for StoreKeeper {
    fn attested(&self, peer: &Peer) -> Result<(), KeysError> {
        self.note_omitted(Some(self.clock.now()));
        let note = Note::new(Event::Attested, "", peer.claims.tee.name()).claimed(&peer.digest);
        let Some(note) = self.within_quota(note) else { return Ok(()) };
        self.store.note(note).inspect_err(|error| (self.tell)(error))
    }

    fn attestation_refused(&self, reason: &str) {
        self.note_omitted(Some(self.clock.now()));
        let note = Note::new(Event::AttestationRefused, "", crate::kbs::printable(reason));
        let Some(note) = self.within_quota(note) else { return };
        // It is refused either way.
        if let Err(error) = self.store.note(note) {
            (self.tell)(&error);
        }
    }

    fn release(&self, resource: &Resource, peer: &Peer) -> Result<Plain, Refusal> {
        self.note_omitted(Some(self.clock.now()));
        let decided = self.store.decide(|stored| {
            let (problem, detail) = match self.grant(stored, resource, peer) {
                Ok((note, plain)) => return Ok((Some(note), Ok(plain))),
                Err(Decision::Failed(error)) => return Err(error),
                Err(Decision::Missing(detail)) => (Problem::InvalidRequestPath, detail),
                Err(Decision::Deny(detail)) => (Problem::PolicyDeny, detail),
            };
            let note = Note::new(Event::Refused, resource.to_string(), &detail).claimed(&peer.digest);
            Ok((self.within_quota(note), Err(Refusal::new(problem, detail))))
        });
        decided.unwrap_or_else(|error| Err(self.failed(&error)))
    }
}

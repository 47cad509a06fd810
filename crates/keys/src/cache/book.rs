//! The leases of a cache: kept in memory and, sealed, in a file that appears whole or not at all.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use privet_attest::Attester;
use privet_seal::{KeyId, KeyVersion};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::sealing::SealingKey;
use crate::clock::{Clock, Elapsed, SteadyClock};
use crate::error::KeysError;
use crate::fetch::{Endpoint, fetch_lease};
use crate::kbs::{Plain, Problem, Refusal};
use crate::keeper::{Decision, Keeper, Lease, Peer, allowed, encode};
use crate::policy::KeyPolicy;
use crate::random::SystemRandomness;
use crate::resource::{Kind, Resource};

/// What the file is sealed for.
const PLACE: &[u8] = b"privet keycache leases v1";
const FILE_VERSION: u32 = 1;
/// Larger is not ours.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Most versions of one key that are held at a time.
const MAX_VERSIONS: usize = 16;

/// How much later it may be than the file says, in seconds: what a restart with a wrong clock can win.
const MARK_SECONDS: u64 = 10;

/// Where leases come from.
pub struct Renewal {
    /// The key server.
    pub endpoint: Endpoint,
    /// What proves to it that this is a cache.
    pub attester: Arc<dyn Attester>,
}

/// Something that happened at a cache, for its log. No secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheEvent {
    /// A key was leased.
    Leased(LeaseInfo),
    /// A lease is gone: it ended, or the server refuses the key now.
    Dropped(LeaseInfo, String),
    /// The server did not lease a key.
    NotLeased(KeyId, String),
    /// A worker got a key.
    Released(LeaseInfo, String),
    /// A worker did not.
    Refused(String),
    /// Leases could not be written.
    NotWritten(String),
}

/// A lease, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Of which key.
    pub key: KeyId,
    /// Which version.
    pub version: KeyVersion,
    /// When it ends, in seconds since 1970.
    pub ends: u64,
}

impl Lease {
    fn info(&self) -> LeaseInfo {
        let grant = &self.grant;
        LeaseInfo { key: grant.key_id.clone(), version: grant.key_version, ends: self.ends() }
    }

    fn ends(&self) -> u64 {
        self.grant.not_after.unwrap_or(0)
    }

    fn is_half_over(&self, now: u64) -> bool {
        now >= self.issued.saturating_add(self.ends().saturating_sub(self.issued) / 2)
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Leases {
    version: u32,
    /// The latest time that was ever seen: the clock does not go behind it.
    mark: u64,
    leases: Vec<Lease>,
}

/// The leases of a cache.
pub struct LeaseBook {
    path: PathBuf,
    sealing: SealingKey,
    policies: Vec<KeyPolicy>,
    renewal: Option<Renewal>,
    clock: Arc<SteadyClock>,
    leases: Mutex<Leases>,
    tell: Arc<dyn Fn(&CacheEvent) + Send + Sync>,
}

impl LeaseBook {
    /// Opens the leases in a file, which may not be there yet. Those that have ended, or that no policy names any more, are
    /// dropped. Without `renewal` none are added.
    ///
    /// # Errors
    /// If the file was sealed to another key, or has been changed.
    pub fn open(
        path: &Path,
        sealing: SealingKey,
        policies: Vec<KeyPolicy>,
        renewal: Option<Renewal>,
        wall: Arc<dyn Clock>,
        elapsed: Arc<dyn Elapsed>,
        tell: Arc<dyn Fn(&CacheEvent) + Send + Sync>,
    ) -> Result<Self, KeysError> {
        let leases = read(path, &sealing)?;
        let clock = Arc::new(SteadyClock::new(wall, elapsed, leases.mark));
        let book = Self {
            path: path.to_owned(),
            sealing,
            policies,
            renewal,
            clock,
            leases: Mutex::new(leases),
            tell,
        };
        book.sweep(&mut book.lock());
        Ok(book)
    }

    /// The clock that leases end by: it does not run backwards.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// What is held now.
    pub fn held(&self) -> Vec<LeaseInfo> {
        let mut leases = self.lock();
        self.sweep(&mut leases);
        leases.leases.iter().map(Lease::info).collect()
    }

    /// Drops what has ended, and asks the server for keys that are missing or whose leases are half over.
    pub fn renew(&self) {
        let wanted: Vec<(KeyId, Option<KeyVersion>)> = {
            let mut leases = self.lock();
            self.sweep(&mut leases);
            let now = self.clock.now();
            if !leases.leases.is_empty() && now >= leases.mark + MARK_SECONDS {
                self.keep(&mut leases);
            }
            let half_over = |lease: &&Lease| lease.is_half_over(now);
            let renewed = leases.leases.iter().filter(half_over);
            let renewed = renewed.map(|lease| (lease.grant.key_id.clone(), Some(lease.grant.key_version)));
            // The newest version too, which may be another one by now.
            let ids = self.policies.iter().map(|policy| &policy.key_id);
            let newest = ids.filter(|id| {
                let of_this_key = leases.leases.iter().filter(|lease| lease.grant.key_id == **id);
                of_this_key.max_by_key(|lease| lease.grant.key_version).as_ref().is_none_or(half_over)
            });
            newest.map(|id| (id.clone(), None)).chain(renewed).collect()
        };
        for (id, version) in wanted {
            // It may have come as the newest, or be gone.
            let now = self.clock.now();
            let is_due = |lease: &Lease| {
                lease.grant.key_id == id
                    && Some(lease.grant.key_version) == version
                    && lease.is_half_over(now)
            };
            if version.is_some() && !self.lock().leases.iter().any(is_due) {
                continue;
            }
            // Told already; others may fare better.
            let _ = self.lease(&id, version);
        }
    }

    /// Leases a key from the server and keeps it. The lock is not held while the server is waited for.
    fn lease(&self, id: &KeyId, version: Option<KeyVersion>) -> Result<(), String> {
        let Some(Renewal { endpoint, attester }) = &self.renewal else {
            return Err("there is no server to lease it from".to_owned());
        };
        let fetched = fetch_lease(endpoint, &**attester, id, version);
        let mut leases = self.lock();
        match fetched {
            Ok(lease) => {
                // The server's word on the time is better than the host's.
                self.clock.at_least(lease.issued);
                let info = lease.info();
                let place = |held: &Lease| held.info().key == info.key && held.info().version == info.version;
                leases.leases.retain(|held| !place(held));
                let of_this_key = |held: &&Lease| held.grant.key_id == info.key;
                if leases.leases.iter().filter(of_this_key).count() >= MAX_VERSIONS {
                    return Err(format!("more than {MAX_VERSIONS} versions of key {id} are in use"));
                }
                leases.leases.push(lease);
                (self.tell)(&CacheEvent::Leased(info));
                self.keep(&mut leases);
                Ok(())
            }
            Err(error) => {
                let reason = error.to_string();
                if error.is_final() {
                    // What the server refuses now is not kept until the lease ends.
                    let refused = |held: &Lease| {
                        held.grant.key_id == *id && version.is_none_or(|v| held.grant.key_version == v)
                    };
                    self.drop_where(&mut leases, &reason, refused);
                }
                (self.tell)(&CacheEvent::NotLeased(id.clone(), reason.clone()));
                Err(reason)
            }
        }
    }

    fn drop_where(&self, leases: &mut Leases, reason: &str, gone: impl Fn(&Lease) -> bool) {
        let before = leases.leases.len();
        leases.leases.retain(|lease| {
            let keep = !gone(lease);
            if !keep {
                (self.tell)(&CacheEvent::Dropped(lease.info(), reason.to_owned()));
            }
            keep
        });
        if leases.leases.len() != before {
            self.keep(leases);
        }
    }

    /// Drops what has ended, or is not named by a policy.
    fn sweep(&self, leases: &mut Leases) {
        let now = self.clock.now();
        self.drop_where(leases, "its lease has ended", |lease| now >= lease.ends());
        let named = |lease: &Lease| self.policies.iter().any(|policy| policy.key_id == lease.grant.key_id);
        self.drop_where(leases, "no policy of this cache names it", |lease| !named(lease));
    }

    /// Writes the leases and the time.
    fn keep(&self, leases: &mut Leases) {
        leases.version = FILE_VERSION;
        leases.mark = leases.mark.max(self.clock.now());
        if let Err(error) = write(&self.path, &self.sealing, leases) {
            // They are good as long as this process lives; a restart will lease again.
            (self.tell)(&CacheEvent::NotWritten(error.to_string()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The grant for a worker, if both policies accept it and the lease has not ended.
    fn grant(&self, resource: &Resource, peer: &Peer) -> Result<(LeaseInfo, Plain), Decision> {
        let Resource { key: id, kind, version } = resource;
        let policy = self.policies.iter().find(|policy| policy.key_id == *id);
        let own = policy.and_then(|policy| policy.get.as_ref());
        let own = own.ok_or_else(|| Decision::deny("this cache has no policy for this key"))?;
        if *kind == Kind::Lease {
            return Err(Decision::deny("a cache does not lease keys to other caches"));
        }
        allowed(peer, own).map_err(Decision::Deny)?;
        let found = |leases: &mut Leases| {
            self.sweep(leases);
            let mut held: Vec<&Lease> =
                leases.leases.iter().filter(|lease| lease.grant.key_id == *id).collect();
            held.sort_by_key(|lease| std::cmp::Reverse(lease.grant.key_version));
            let meant =
                held.into_iter().find(|lease| version.is_none_or(|v| v == lease.grant.key_version))?;
            Some(self.hand_over(meant, *kind, peer))
        };
        if let Some(handed) = found(&mut self.lock()) {
            return handed;
        }
        // Without a lease the server is asked once more, for a worker that may have the key here.
        self.lease(id, *version)
            .map_err(|reason| Decision::deny(format!("no lease of this key: {reason}")))?;
        found(&mut self.lock()).unwrap_or_else(|| Err(Decision::deny("the lease of this key has just ended")))
    }

    fn hand_over(&self, lease: &Lease, kind: Kind, peer: &Peer) -> Result<(LeaseInfo, Plain), Decision> {
        let owners = KeyPolicy::parse("of the lease", &lease.policy)?;
        let get =
            owners.get.ok_or_else(|| Decision::deny("the owner's policy releases this key to no worker"))?;
        allowed(peer, &get).map_err(Decision::Deny)?;
        let plain = match kind {
            Kind::Key => Zeroizing::new(lease.grant.key()?.expose().to_vec()),
            Kind::Release => encode(&lease.grant)?,
            Kind::Lease => return Err(Decision::deny("a cache does not lease keys to other caches")),
        };
        Ok((lease.info(), plain))
    }
}

impl Keeper for LeaseBook {
    fn attested(&self, _: &Peer) -> Result<(), KeysError> {
        Ok(())
    }

    fn attestation_refused(&self, reason: &str) {
        (self.tell)(&CacheEvent::Refused(crate::kbs::printable(reason)));
    }

    fn release(&self, resource: &Resource, peer: &Peer) -> Result<Plain, Refusal> {
        let (problem, detail) = match self.grant(resource, peer) {
            Ok((info, plain)) => {
                (self.tell)(&CacheEvent::Released(info, peer.digest.clone()));
                return Ok(plain);
            }
            Err(Decision::Failed(error)) => {
                (self.tell)(&CacheEvent::Refused(format!("{resource}: {error}")));
                return Err(Refusal::internal());
            }
            Err(Decision::Missing(detail)) => (Problem::InvalidRequestPath, detail),
            Err(Decision::Deny(detail)) => (Problem::PolicyDeny, detail),
        };
        (self.tell)(&CacheEvent::Refused(format!("{resource}: {detail}")));
        Err(Refusal::new(problem, detail))
    }
}

fn read(path: &Path, sealing: &SealingKey) -> Result<Leases, KeysError> {
    match fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Leases::default()),
        Ok(found) if found.len() > MAX_FILE_BYTES => {
            let problem = format!("expected at most {MAX_FILE_BYTES} bytes, found {}", found.len());
            return Err(KeysError::file(path, problem));
        }
        other => {
            other.map_err(KeysError::io(path))?;
        }
    }
    let record = fs::read(path).map_err(KeysError::io(path))?;
    let fail = |problem: &str| KeysError::file(path, problem);
    let plain = sealing.key().open(PLACE, &record).ok_or_else(|| {
        fail(
            "these leases were sealed to another key (another enclave or version of it, another machine), or have \
             been changed; remove the file, and the keys are leased again",
        )
    })?;
    let leases: Leases = serde_json::from_slice(&plain).map_err(|_| fail("these leases do not decode"))?;
    if leases.version != FILE_VERSION {
        let problem = format!("version {}, this program reads version {FILE_VERSION}", leases.version);
        return Err(fail(&problem));
    }
    Ok(leases)
}

fn write(path: &Path, sealing: &SealingKey, leases: &Leases) -> Result<(), KeysError> {
    let record = sealing.key().seal(PLACE, &encode(leases)?, &SystemRandomness)?;
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut file = tempfile::Builder::new().prefix(".privet-").tempfile_in(dir)?;
        file.write_all(&record)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        fs::File::open(dir)?.sync_all()
    };
    write().map_err(KeysError::io(path))
}

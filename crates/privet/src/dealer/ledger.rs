//! What the dealer has to remember: plans, masks of weights, and bundles not yet given to both owners.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use privet_net::Fingerprint;
use privet_plan::{Digest, Plan};
use privet_protocols::masked::Role;
use privet_ring::prg::Seed;
use serde::{Deserialize, Serialize};

use crate::error::{Error, StoreError};
use crate::store::{self, BundleId, Database, EpochId, fresh_seed};

const EPOCHS: &str = "epochs";
const BUNDLES: &str = "bundles";

/// Whose inferences of which plan.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pair {
    pub(super) server: Fingerprint,
    pub(super) client: Fingerprint,
    pub(super) plan: Digest,
}

/// One mask of one client's copy of the weights.
#[derive(Serialize, Deserialize)]
pub(super) struct Epoch {
    pub(super) pair: Pair,
    seed: Seed,
}

/// A bundle of which at least one half has not been given out.
#[derive(Serialize, Deserialize)]
struct Bundle {
    epoch: EpochId,
    server: Seed,
    client: Seed,
    given: Given,
}

/// To whom a bundle has been given.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Given {
    server: bool,
    client: bool,
}

impl Given {
    fn to(self, role: Role) -> bool {
        match role {
            Role::Server => self.server,
            Role::Client => self.client,
        }
    }
}

/// Bundles that are not with both owners yet.
type Open = HashMap<EpochId, BTreeMap<BundleId, Given>>;

/// One half of a bundle, with everything needed to deal it.
pub(super) struct Half {
    pub(super) id: BundleId,
    pub(super) role: Role,
    pub(super) server: Seed,
    pub(super) client: Seed,
    pub(super) weights: Seed,
}

/// The dealer's durable memory.
pub(super) struct Ledger {
    database: Database,
    plans: PathBuf,
    /// What of the bundles in the database has been given out: choosing one must not read them all.
    open: Mutex<Open>,
}

impl Ledger {
    pub(super) fn open(state: &Path) -> Result<Self, StoreError> {
        let database = Database::open(&store::database_path(state))?;
        let plans = state.join("plans");
        store::swept_dir(&plans)?;
        let mut open = Open::new();
        for (key, bundle) in database.all::<Bundle>(BUNDLES)? {
            if let Ok(id) = key.try_into() {
                open.entry(bundle.epoch).or_default().insert(BundleId(id), bundle.given);
            }
        }
        Ok(Self { database, plans, open: Mutex::new(open) })
    }

    fn plan_path(&self, digest: &Digest) -> PathBuf {
        self.plans.join(format!("{digest}.privet"))
    }

    pub(super) fn has_plan(&self, digest: &Digest) -> bool {
        self.plan_path(digest).exists()
    }

    pub(super) fn add_plan(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        store::write_private(&self.plan_path(digest), bytes)
    }

    pub(super) fn plan(&self, digest: &Digest) -> Result<Plan, Error> {
        Ok(Plan::from_bytes(&store::read(&self.plan_path(digest))?)?)
    }

    pub(super) fn epoch(&self, id: EpochId) -> Result<Option<Epoch>, StoreError> {
        self.database.get(EPOCHS, &id.0)
    }

    /// Draws a new mask of the weights.
    pub(super) fn new_epoch(&self, pair: Pair) -> Result<(EpochId, Seed), Error> {
        let (id, seed) = (EpochId(*fresh_seed()?.expose()), fresh_seed()?);
        self.database.put(EPOCHS, &id.0, &Epoch { pair, seed: seed.clone() })?;
        Ok((id, seed))
    }

    /// A bundle half that `role` has not been given: one whose other half may be out already, or a new one. Those in
    /// `skip` are passed over.
    pub(super) fn next(&self, epoch: EpochId, role: Role, skip: &HashSet<BundleId>) -> Result<Half, Error> {
        let mut open = self.lock();
        let known = open.get(&epoch).into_iter().flatten();
        let waiting =
            known.filter(|(id, given)| !given.to(role) && !skip.contains(id)).map(|(id, _)| *id).next();
        if let Some(id) = waiting
            && let Some(half) = self.half(epoch, role, id)?
        {
            return Ok(half);
        }
        let id = BundleId(*fresh_seed()?.expose());
        let bundle = Bundle { epoch, server: fresh_seed()?, client: fresh_seed()?, given: Given::default() };
        self.database.put(BUNDLES, &id.0, &bundle)?;
        open.entry(epoch).or_default().insert(id, bundle.given);
        self.assemble(id, role, &bundle)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The half of a bundle by name, if `role` has not been given it.
    pub(super) fn half(&self, epoch: EpochId, role: Role, id: BundleId) -> Result<Option<Half>, Error> {
        let bundle: Option<Bundle> = self.database.get(BUNDLES, &id.0)?;
        let open = bundle.filter(|b| b.epoch == epoch && !b.given.to(role));
        open.map(|b| self.assemble(id, role, &b)).transpose()
    }

    fn assemble(&self, id: BundleId, role: Role, bundle: &Bundle) -> Result<Half, Error> {
        let epoch = self.epoch(bundle.epoch)?;
        let epoch = epoch.ok_or_else(|| Error::NotReady(format!("bundle {id} belongs to no known mask")))?;
        Ok(Half {
            id,
            role,
            server: bundle.server.clone(),
            client: bundle.client.clone(),
            weights: epoch.seed.clone(),
        })
    }

    /// Forgets bundles of an epoch that one of its owners has given up.
    pub(super) fn forget(&self, epoch: EpochId, ids: &[BundleId]) -> Result<(), StoreError> {
        let mut open = self.lock();
        let Some(of_epoch) = open.get_mut(&epoch) else { return Ok(()) };
        for id in ids {
            if of_epoch.contains_key(id) {
                self.database.remove(BUNDLES, &id.0)?;
                of_epoch.remove(id);
            }
        }
        Ok(())
    }

    /// Notes that `role` has stored its half. Returns whether that was the second half; the bundle is forgotten then.
    pub(super) fn release(&self, id: BundleId, role: Role) -> Result<bool, StoreError> {
        let mut open = self.lock();
        let Some(mut bundle) = self.database.get::<Bundle>(BUNDLES, &id.0)? else { return Ok(false) };
        match role {
            Role::Server => bundle.given.server = true,
            Role::Client => bundle.given.client = true,
        }
        let of_epoch = open.entry(bundle.epoch).or_default();
        if bundle.given.server && bundle.given.client {
            self.database.remove(BUNDLES, &id.0)?;
            of_epoch.remove(&id);
            return Ok(true);
        }
        self.database.put(BUNDLES, &id.0, &bundle)?;
        of_epoch.insert(id, bundle.given);
        Ok(false)
    }
}

//! What the dealer has to remember: plans, masks of weights, and bundles not yet given to both owners.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use privet_net::Fingerprint;
use privet_plan::{Digest, Plan};
use privet_protocols::masked::Role;
use privet_ring::prg::Seed;
use serde::{Deserialize, Serialize};

use super::fresh_seed;
use crate::error::{Error, StoreError};
use crate::store::{self, BundleId, Database, EpochId};

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
#[derive(Clone, Serialize, Deserialize)]
struct Bundle {
    epoch: EpochId,
    server: Seed,
    client: Seed,
    server_done: bool,
    client_done: bool,
}

impl Bundle {
    fn is_done(&self, role: Role) -> bool {
        match role {
            Role::Server => self.server_done,
            Role::Client => self.client_done,
        }
    }
}

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
    /// Noting a delivery reads and writes a record.
    releasing: Mutex<()>,
}

impl Ledger {
    pub(super) fn open(state: &Path) -> Result<Self, StoreError> {
        let database = Database::open(&store::database_path(state))?;
        let plans = state.join("plans");
        store::private_dir(&plans)?;
        Ok(Self { database, plans, releasing: Mutex::new(()) })
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

    /// Bundles whose half for `role` has not been stored by it yet.
    pub(super) fn open_halves(&self, epoch: EpochId, role: Role) -> Result<Vec<BundleId>, StoreError> {
        let bundles = self.database.all::<Bundle>(BUNDLES)?;
        let open = bundles.into_iter().filter(|(_, b)| b.epoch == epoch && !b.is_done(role));
        Ok(open.map(|(key, _)| BundleId(key.try_into().unwrap_or_default())).collect())
    }

    /// Draws a new bundle and gives the half of `role`.
    pub(super) fn new_bundle(&self, epoch: EpochId, role: Role) -> Result<Half, Error> {
        let id = BundleId(*fresh_seed()?.expose());
        let (server, client) = (fresh_seed()?, fresh_seed()?);
        let bundle = Bundle { epoch, server, client, server_done: false, client_done: false };
        self.database.put(BUNDLES, &id.0, &bundle)?;
        self.assemble(id, role, &bundle)
    }

    /// The half of a bundle by name, if `role` has not been given it.
    pub(super) fn half(&self, epoch: EpochId, role: Role, id: BundleId) -> Result<Option<Half>, Error> {
        let bundle: Option<Bundle> = self.database.get(BUNDLES, &id.0)?;
        let open = bundle.filter(|b| b.epoch == epoch && !b.is_done(role));
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

    /// Notes that `role` has stored its half. Returns whether that was the second half; the bundle is forgotten then.
    pub(super) fn release(&self, id: BundleId, role: Role) -> Result<bool, StoreError> {
        let _releasing = self.releasing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut bundle) = self.database.get::<Bundle>(BUNDLES, &id.0)? else { return Ok(false) };
        match role {
            Role::Server => bundle.server_done = true,
            Role::Client => bundle.client_done = true,
        }
        if bundle.server_done && bundle.client_done {
            self.database.remove(BUNDLES, &id.0)?;
            return Ok(true);
        }
        self.database.put(BUNDLES, &id.0, &bundle)?;
        Ok(false)
    }
}

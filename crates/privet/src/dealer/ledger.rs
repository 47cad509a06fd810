//! What the dealer has to remember: plans, masks of weights, and bundles not yet given to both owners.

use std::collections::HashSet;
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
    seed: [u8; 16],
}

/// A bundle of which at least one half has not been given out.
#[derive(Clone, Serialize, Deserialize)]
struct Bundle {
    epoch: EpochId,
    server: [u8; 16],
    client: [u8; 16],
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
    /// Choosing and making bundles is one action.
    choosing: Mutex<()>,
}

impl Ledger {
    pub(super) fn open(state: &Path) -> Result<Self, StoreError> {
        let database = Database::open(&store::database_path(state))?;
        let plans = state.join("plans");
        store::private_dir(&plans)?;
        Ok(Self { database, plans, choosing: Mutex::new(()) })
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
        self.database.put(EPOCHS, &id.0, &Epoch { pair, seed: *seed.expose() })?;
        Ok((id, seed))
    }

    /// A bundle half that `role` has not been given: one whose other half is out, or a new one. Those in `skip` are passed
    /// over.
    pub(super) fn next(&self, epoch: EpochId, role: Role, skip: &HashSet<BundleId>) -> Result<Half, Error> {
        let _choosing = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, bundle) in self.database.all::<Bundle>(BUNDLES)? {
            let id = BundleId(key.try_into().unwrap_or_default());
            if bundle.epoch == epoch && !bundle.is_done(role) && !skip.contains(&id) {
                return self.assemble(id, role, &bundle);
            }
        }
        let id = BundleId(*fresh_seed()?.expose());
        let (server, client) = (*fresh_seed()?.expose(), *fresh_seed()?.expose());
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
            server: Seed::from_bytes(bundle.server),
            client: Seed::from_bytes(bundle.client),
            weights: Seed::from_bytes(epoch.seed),
        })
    }

    /// Notes that `role` has stored its half. Returns whether that was the second half; the bundle is forgotten then.
    pub(super) fn release(&self, id: BundleId, role: Role) -> Result<bool, StoreError> {
        let _choosing = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
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

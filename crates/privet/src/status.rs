//! What a server or client holds: unused one-time material, by peer and model.

use serde::Serialize;

use crate::config::PartyConfig;
use crate::error::{Error, StoreError};
use crate::store::{self, Database, Material};

/// Unused bundles for inferences with one peer and one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unused {
    /// The peer's name in the configuration; its certificate's fingerprint if it is not there any more.
    pub peer: String,
    /// Beginning of the plan's digest, as shown elsewhere.
    pub plan: String,
    /// Names of the bundles, oldest first; one is one inference.
    pub bundles: Vec<String>,
}

/// What this party holds. Whether the peer holds the other halves is settled when both meet.
///
/// # Errors
/// If the state cannot be read, or another process is using it.
pub fn unused(config: &PartyConfig) -> Result<Vec<Unused>, Error> {
    let path = store::database_path(&config.state);
    if !path.try_exists().map_err(StoreError::io(&path))? {
        return Ok(Vec::new());
    }
    let database = Database::open(&path)?;
    let material = Material::open(&database, &config.state)?;
    let mut all: Vec<Unused> = Vec::new();
    for (id, purpose) in material.all_ready()? {
        let known = config.peers.iter().find(|p| p.pinned.fingerprint() == purpose.peer);
        let peer = known.map_or_else(|| purpose.peer.short(), |p| p.name.clone());
        let plan = purpose.plan.short();
        match all.iter_mut().find(|u| u.peer == peer && u.plan == plan) {
            Some(unused) => unused.bundles.push(id.to_string()),
            None => all.push(Unused { peer, plan, bundles: vec![id.to_string()] }),
        }
    }
    Ok(all)
}

/// What the test's ledger of masks calls the seeds of the unused bundles.
///
/// # Errors
/// As [`unused`], and if a bundle's file cannot be read.
#[cfg(feature = "audit")]
pub fn ledger_names(config: &PartyConfig) -> Result<Vec<String>, Error> {
    let database = Database::open(&store::database_path(&config.state))?;
    let material = Material::open(&database, &config.state)?;
    let ids = material.all_ready()?.into_iter();
    ids.map(|(id, _)| Ok(privet_protocols::masked::audit::name(&material.header(id)?.seed))).collect()
}

//! The server's offline phase: it agrees with the dealer on masks, stocks material, and compares with clients what both hold.

use std::cell::LazyCell;
use std::collections::HashSet;
use std::sync::TryLockError;
use std::sync::atomic::Ordering;

use privet_net::{Fingerprint, NetError, TlsChannel};
use privet_protocols::masked::{self, Role};

use super::{MASKS, SESSIONS, Server, WAIT_FOR_FETCH, WeightMask};
use crate::config::{PartyRole, PeerConfig};
use crate::error::Error;
use crate::events::{Event, Phase};
use crate::session::message;
use crate::store::{BundleId, EpochId, Material, Purpose, Rollback, Sessions, Status};
use crate::supply::{Preparation, Supply};
use crate::wire::{self, ClientMessage, ServerHello, ServerMessage, refusal};

impl Server<'_> {
    /// Agrees with the dealer on a mask of the weights for every client, then tops up their material to `options.count` inferences.
    pub(super) fn stock_all(&self) -> Result<(), Error> {
        let clients = || self.config.peers(PartyRole::Client).map(|p| p.pinned.fingerprint());
        for client in clients() {
            self.fetch(client, || Ok(()), |_, _| Ok(()))?;
        }
        self.masks_agreed.store(true, Ordering::SeqCst);
        for client in clients() {
            let missing = || Ok::<u64, Error>(self.options.count.saturating_sub(self.held(client)?));
            if missing()? == 0 {
                continue;
            }
            // Nobody waits for an answer, but someone may want this server to stop, between two bundles.
            let alone = || {
                if self.interrupted() {
                    return Err(NetError::Stopped { what: "preparing material".to_owned() }.into());
                }
                Ok(())
            };
            let topped_up =
                self.fetch(client, alone, |supply, preparation| supply.some(missing()?, preparation, alone));
            // The client may have come first; a dealer that was asked for so many bundles is gone by now.
            if topped_up.is_err() && missing()? > 0 {
                topped_up?;
            }
        }
        let text = "material is prepared; waiting for the clients to fetch the plan and prepare their side";
        message(self.observer, text.to_owned());
        Ok(())
    }

    /// Unused bundles for a client.
    pub(super) fn held(&self, client: Fingerprint) -> Result<u64, Error> {
        let Some(mask) = self.mask(client)? else { return Ok(0) };
        let material = Material::attach(&self.database, &self.config.state);
        Ok(material.ready(&self.purpose(client, mask.epoch))?.len() as u64)
    }

    /// Connects to the dealer about a client and does `work`; makes sure that the client has a mask of the weights. Calls
    /// `alive` now and then while another fetch is under way.
    pub(super) fn fetch(
        &self,
        client: Fingerprint,
        alive: impl FnMut() -> Result<(), Error>,
        work: impl FnOnce(&mut Supply, &Preparation) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.fetch_masked(client, Mask::Known, alive, work)
    }

    fn fetch_masked(
        &self,
        client: Fingerprint,
        mask: Mask,
        mut alive: impl FnMut() -> Result<(), Error>,
        work: impl FnOnce(&mut Supply, &Preparation) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let _fetching = loop {
            match self.fetching.try_lock() {
                Ok(guard) => break guard,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    alive()?;
                    std::thread::sleep(WAIT_FOR_FETCH);
                }
            }
        };
        let known = match mask {
            Mask::Known => self.mask(client)?,
            Mask::Fresh => None,
        };
        let plan = &self.model.plan;
        let dealer = self.options.dealer.as_deref();
        let stopped = || self.interrupted();
        let connect =
            |epoch| Supply::connect(self.config, dealer, Role::Server, client, plan, epoch, &stopped);
        let (known, mut supply) = match connect(known.as_ref().map(|m| m.epoch)) {
            // A dealer that has lost its state: a new mask is always safe.
            Err(Error::Net(NetError::Refused { code: refusal::EPOCH, .. })) => (None, connect(None)?),
            other => (known, other?),
        };
        let seed = match (&known, &supply.new_mask) {
            (Some(mask), _) => mask.seed.clone(),
            (None, Some(seed)) => {
                let mask = WeightMask { epoch: supply.epoch, seed: seed.clone() };
                self.database.put(MASKS, &self.mask_key(client), &mask)?;
                seed.clone()
            }
            (None, None) => unreachable!("Supply::connect gives a mask to who has none"),
        };
        let material = Material::attach(&self.database, &self.config.state);
        let dropped = material.burn_others(&self.purpose(client, supply.epoch))?;
        if dropped > 0 {
            let text = format!("{dropped} unused bundles for another model or mask of it were burnt");
            self.observer.event(&Event::Warning { text });
        }
        let masked = LazyCell::new(|| masked::mask_weights(plan, &self.model.weights, &seed));
        let preparation = Preparation {
            plan,
            masked: &masked,
            weights: Some(&self.model.weights),
            material: &material,
            meter: self.meter,
            observer: self.observer,
        };
        work(&mut supply, &preparation)?;
        supply.finish(self.meter)
    }

    /// Offline: gives a client plan and masked weights, and agrees with it on bundles.
    pub(super) fn prepare(
        &self,
        channel: &mut TlsChannel,
        peer: &PeerConfig,
        shown: Option<u64>,
        agreed: Option<EpochId>,
    ) -> Result<(), Error> {
        let client = peer.pinned.fingerprint();
        while !self.masks_agreed.load(Ordering::SeqCst) {
            if self.options.stop.load(Ordering::SeqCst) {
                return Err(wire::refuse(channel, refusal::UNAVAILABLE, "the server is stopping"));
            }
            std::thread::sleep(WAIT_FOR_FETCH);
        }
        let known: Option<Sessions> = self.database.get(SESSIONS, client.as_bytes())?;
        if known.is_some() && shown.is_none() {
            // A client whose state is new may have used what it had: all of that is given up, and its mask with it.
            self.renew(channel, client)?;
        }
        let Some(mask) = self.mask(client)? else {
            let reason = "the server has prepared nothing for this client and model; its operator runs `privet server offline`";
            return Err(wire::refuse(channel, refusal::UNAVAILABLE, reason));
        };
        // A server that knows no session of a mask that the client agreed on has forgotten them.
        let forgot = known.is_none() && agreed == Some(mask.epoch);
        let sessions = self.database.transact(|t| {
            let resumed = match Sessions::resume(t.get(SESSIONS, client.as_bytes())?, shown) {
                Ok(_) if forgot => Err(Rollback::Server { shown: shown.unwrap_or(0), proposed: 0 }),
                other => other,
            };
            if let Ok(sessions) = &resumed {
                t.put(SESSIONS, client.as_bytes(), sessions)?;
            }
            Ok(resumed)
        })?;
        let sessions = sessions.map_err(|rollback| self.refuse_rollback(channel, rollback))?;
        let plan_bytes = self.model.plan.to_bytes();
        let hello = ServerHello::Offline {
            plan: self.plan,
            plan_bytes: plan_bytes.len() as u64,
            epoch: mask.epoch,
            session: sessions.proposed(),
        };
        wire::greet(channel, &hello)?;
        let purpose = self.purpose(client, mask.epoch);
        let mut given = false;
        loop {
            match wire::receive(channel)? {
                ClientMessage::Working => {}
                ClientMessage::Need { .. } if given => {
                    let reason = "plan and weights are sent once a session";
                    return Err(wire::refuse(channel, refusal::MALFORMED, reason));
                }
                ClientMessage::Need { plan, weights } => {
                    given = true;
                    if plan {
                        wire::send_blob(channel, &plan_bytes)?;
                    }
                    if weights {
                        let masked = masked::mask_weights(&self.model.plan, &self.model.weights, &mask.seed);
                        wire::send_blob(channel, &masked::pack_masked_weights(&self.model.plan, &masked))?;
                    }
                }
                ClientMessage::Ready(ids) => {
                    let (ready, gone) = self.compare(channel, &purpose, &ids)?;
                    let text = format!("{}: {} inferences are ready", peer.name, ready.len());
                    message(self.observer, text);
                    wire::send(channel, &ServerMessage::Prepared { ready, gone })?;
                }
                ClientMessage::Done => {
                    self.done();
                    return Ok(());
                }
            }
        }
    }

    /// Burns a client's material and gets a fresh mask of the weights for it.
    fn renew(&self, channel: &mut TlsChannel, client: Fingerprint) -> Result<(), Error> {
        if self.phase == Phase::Online {
            let reason =
                "this client's state is new: its weights have to be masked anew, in the offline phase";
            return Err(wire::refuse(channel, refusal::PHASE, reason));
        }
        self.fetch_masked(client, Mask::Fresh, || Ok(()), |_, _| Ok(()))
    }

    /// What became of a client's bundles: those held on both sides, and those that are used or lost here. Fetches the
    /// server's halves of bundles that so far only the client holds, up to `options.count` in all: how many inferences a
    /// client gets is the model owner's decision.
    pub(super) fn compare(
        &self,
        channel: &mut TlsChannel,
        purpose: &Purpose,
        ids: &[BundleId],
    ) -> Result<(Vec<BundleId>, Vec<BundleId>), Error> {
        let material = Material::attach(&self.database, &self.config.state);
        let mut lost = Vec::new();
        if self.phase == Phase::Offline && self.wanted(&material, purpose, ids)?.is_some() {
            let channel = std::cell::RefCell::new(channel);
            let alive = || wire::send(&mut **channel.borrow_mut(), &ServerMessage::Working);
            self.fetch(purpose.peer, alive, |supply, preparation| {
                // Looked at again: another fetch may have brought some of them meanwhile.
                if let Some(Wanted { fetch, burn }) = self.wanted(&material, purpose, ids)? {
                    material.discard(purpose, &burn)?;
                    supply.forget(burn)?;
                    lost = supply.these(fetch, preparation, alive)?;
                }
                Ok(())
            })?;
        }
        let ready: HashSet<BundleId> = material.ready(purpose)?.into_iter().collect();
        let (ready, others): (Vec<_>, Vec<_>) = ids.iter().copied().partition(|id| ready.contains(id));
        let mut gone = lost;
        for id in others {
            if material.status(id, purpose)? == Some(Status::Burnt) {
                gone.push(id);
            }
        }
        Ok((ready, gone))
    }

    /// Which of a client's bundles to fetch the server's halves of, and which of the server's to burn to make room for them:
    /// those that the client does not list, so they are of no use to it. `None` if there is nothing to fetch.
    pub(super) fn wanted(
        &self,
        material: &Material,
        purpose: &Purpose,
        ids: &[BundleId],
    ) -> Result<Option<Wanted>, Error> {
        let mut fetch = Vec::new();
        for &id in ids {
            if material.status(id, purpose)?.is_none() {
                fetch.push(id);
            }
        }
        let ready = material.ready(purpose)?;
        let listed: HashSet<&BundleId> = ids.iter().collect();
        let mut burn: Vec<BundleId> = ready.iter().copied().filter(|id| !listed.contains(id)).collect();
        let room = (self.options.count as usize).saturating_sub(ready.len());
        burn.truncate(fetch.len().saturating_sub(room));
        fetch.truncate(room + burn.len());
        Ok((!fetch.is_empty()).then_some(Wanted { fetch, burn }))
    }
}

/// Which mask of the weights to fetch material for.
enum Mask {
    /// The one in use, or a fresh one if there is none.
    Known,
    Fresh,
}

/// What one comparison asks for.
pub(super) struct Wanted {
    /// Bundles of the client whose server halves are to be fetched.
    fetch: Vec<BundleId>,
    /// Unused bundles that make room for them.
    burn: Vec<BundleId>,
}

//! The server: owns the model. Offline it prepares material for its clients, online it answers them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use privet_net::{Fingerprint, NetError, TlsChannel};
use privet_plan::Digest;
use privet_protocols::masked::{self, Online, RevealTo, Role, Schedule};
use privet_ring::prg::Seed;
use serde::{Deserialize, Serialize};

use crate::config::{PartyConfig, PartyRole, PeerConfig};
use crate::error::Error;
use crate::events::{Event, Observer, Phase, PlanSummary, Report};
use crate::model::LoadedModel;
use crate::session::{self, Meter, Steps, message};
use crate::store::{self, BundleId, BundleReader, Database, EpochId, Material, Purpose, Status};
use crate::supply::{Supply, Workshop};
use crate::wire::{self, ClientHello, ClientMessage, ServerHello, ServerMessage, refusal};

const MASKS: &str = "weight_masks";

/// How often a session that waits for another fetch looks again, and tells its client so.
const WAIT_FOR_FETCH: Duration = Duration::from_millis(20);

/// How a server runs.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// Address to listen on, instead of the configured one.
    pub listen: Option<String>,
    /// The dealer's address, instead of the configured one.
    pub dealer: Option<String>,
    /// Offline: inferences to hold material for, for every client.
    pub count: u64,
    /// Stop after this many clients (offline) or inferences (online).
    pub sessions: Option<u64>,
    /// Set from outside to stop accepting and finish.
    pub stop: Arc<AtomicBool>,
}

/// Prepares material for `options.count` inferences with every configured client, then hands plan and masked weights to
/// the clients until each has prepared its side (or `options.sessions` have).
///
/// # Errors
/// If the dealer, the state or the listening address cannot be used; failing sessions are only reported.
pub fn offline(
    config: PartyConfig,
    model: LoadedModel,
    options: &ServerOptions,
    observer: &dyn Observer,
) -> Result<Report, Error> {
    let meter = Meter::start();
    wire::check_count(options.count)?;
    let server = Server::new(&config, model, options, Phase::Offline, &meter, observer)?;
    let listener = session::listen(&config, options.listen.as_deref(), &[PartyRole::Client], observer)?;
    // Clients are served meanwhile: one that comes early waits for its answer, not for the connection.
    std::thread::scope(|scope| {
        let stocking = scope.spawn(|| {
            let outcome = server.stock_all();
            if outcome.is_err() {
                options.stop.store(true, Ordering::SeqCst);
            }
            outcome
        });
        let served =
            session::serve(&config, &listener, &options.stop, &meter, observer, |c, p| server.session(c, p));
        stocking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(served)
    })?;
    Ok(meter.report(PartyRole::Server, Phase::Offline, observer))
}

/// Answers clients until told to stop (or `options.sessions` inferences are done).
///
/// # Errors
/// If the state or the listening address cannot be used; failing sessions are only reported.
pub fn online(
    config: PartyConfig,
    model: LoadedModel,
    options: &ServerOptions,
    observer: &dyn Observer,
) -> Result<Report, Error> {
    let meter = Meter::start();
    let server = Server::new(&config, model, options, Phase::Online, &meter, observer)?;
    let listener = session::listen(&config, options.listen.as_deref(), &[PartyRole::Client], observer)?;
    session::serve(&config, &listener, &options.stop, &meter, observer, |c, p| server.session(c, p))?;
    Ok(meter.report(PartyRole::Server, Phase::Online, observer))
}

/// A mask of one client's copy of the weights. Bound to the digest of the weights: other weights get another mask, or the
/// difference of the masked copies would be the difference of the weights.
#[derive(Clone, Serialize, Deserialize)]
struct WeightMask {
    epoch: EpochId,
    seed: Seed,
}

struct Server<'a> {
    config: &'a PartyConfig,
    model: LoadedModel,
    plan: Digest,
    weights: Digest,
    database: Database,
    options: &'a ServerOptions,
    phase: Phase,
    /// One fetch from the dealer at a time, so that none is made twice.
    fetching: Mutex<()>,
    /// Offline: whether dealer and server agree on the masks of the weights, so that clients may be told.
    masks_agreed: AtomicBool,
    served: AtomicU64,
    meter: &'a Meter,
    observer: &'a dyn Observer,
}

impl<'a> Server<'a> {
    fn new(
        config: &'a PartyConfig,
        model: LoadedModel,
        options: &'a ServerOptions,
        phase: Phase,
        meter: &'a Meter,
        observer: &'a dyn Observer,
    ) -> Result<Self, Error> {
        observer.event(&Event::Plan(PlanSummary::of(&model.plan)));
        let plan = model.plan.digest();
        let weights = model.weights.digest(&plan);
        let database = Database::open(&store::database_path(&config.state))?;
        // Clears away what a crash has left.
        Material::open(&database, &config.state)?;
        Ok(Self {
            config,
            model,
            plan,
            weights,
            database,
            options,
            phase,
            fetching: Mutex::new(()),
            masks_agreed: AtomicBool::new(phase == Phase::Online),
            served: AtomicU64::new(0),
            meter,
            observer,
        })
    }

    fn mask_key(&self, client: Fingerprint) -> Vec<u8> {
        [self.weights.0.as_slice(), client.as_bytes()].concat()
    }

    fn mask(&self, client: Fingerprint) -> Result<Option<WeightMask>, Error> {
        Ok(self.database.get(MASKS, &self.mask_key(client))?)
    }

    /// Agrees with the dealer on a mask of the weights for every client, then tops up their material to `options.count` inferences.
    fn stock_all(&self) -> Result<(), Error> {
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
            let alone = || Ok(());
            let topped_up = self.fetch(client, alone, |supply, shop| supply.some(missing()?, shop, alone));
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
    fn held(&self, client: Fingerprint) -> Result<u64, Error> {
        let Some(mask) = self.mask(client)? else { return Ok(0) };
        let material = Material::attach(&self.database, &self.config.state);
        Ok(material.ready(&self.purpose(client, mask.epoch))?.len() as u64)
    }

    fn purpose(&self, client: Fingerprint, epoch: EpochId) -> Purpose {
        Purpose { peer: client, plan: self.plan, epoch }
    }

    /// Connects to the dealer about a client and does `work`; makes sure that the client has a mask of the weights. Calls
    /// `alive` now and then while another fetch is under way.
    fn fetch(
        &self,
        client: Fingerprint,
        mut alive: impl FnMut() -> Result<(), Error>,
        work: impl FnOnce(&mut Supply, &Workshop) -> Result<(), Error>,
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
        let known = self.mask(client)?;
        let plan = &self.model.plan;
        let dealer = self.options.dealer.as_deref();
        let connect = |epoch| Supply::connect(self.config, dealer, Role::Server, client, plan, epoch);
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
            let text = format!("{dropped} unused bundles for another model were burnt");
            self.observer.event(&Event::Warning { text });
        }
        let masked = masked::mask_weights(plan, &self.model.weights, &seed);
        let shop = Workshop {
            plan,
            masked: &masked,
            weights: Some(&self.model.weights),
            material: &material,
            meter: self.meter,
            observer: self.observer,
        };
        work(&mut supply, &shop)?;
        supply.finish(self.meter)
    }

    fn session(&self, channel: &mut TlsChannel, peer: &PeerConfig) -> Result<(), Error> {
        match wire::greeted(channel)? {
            ClientHello::Offline => self.prepare(channel, peer),
            ClientHello::Online { .. } if self.phase == Phase::Offline => {
                let reason = "the server is in its offline phase; start `privet server online`";
                Err(wire::refuse(channel, refusal::PHASE, reason))
            }
            ClientHello::Online { plan, epoch, bundles, reveal_to } => {
                self.answer(channel, peer, plan, epoch, &bundles, reveal_to)
            }
        }
    }

    /// Counts a finished client or inference.
    fn done(&self) {
        let served = self.served.fetch_add(1, Ordering::SeqCst) + 1;
        let clients = self.config.peers(PartyRole::Client).count() as u64;
        let enough = self.options.sessions.or((self.phase == Phase::Offline).then_some(clients));
        if enough.is_some_and(|n| served >= n) {
            self.options.stop.store(true, Ordering::SeqCst);
        }
    }

    /// Offline: gives a client plan and masked weights, and agrees with it on bundles.
    fn prepare(&self, channel: &mut TlsChannel, peer: &PeerConfig) -> Result<(), Error> {
        let client = peer.pinned.fingerprint();
        while !self.masks_agreed.load(Ordering::SeqCst) {
            if self.options.stop.load(Ordering::SeqCst) {
                return Err(wire::refuse(channel, refusal::UNAVAILABLE, "the server is stopping"));
            }
            std::thread::sleep(WAIT_FOR_FETCH);
        }
        if self.mask(client)?.is_none()
            && let Err(e) = self.fetch(client, || Ok(()), |_, _| Ok(()))
        {
            let reason = "the server could not reach the dealer; ask its operator";
            wire::refuse(channel, refusal::UNAVAILABLE, reason);
            return Err(e);
        }
        let mask = self.mask(client)?.ok_or_else(|| Error::NotReady("no mask of the weights".to_owned()))?;
        let plan_bytes = self.model.plan.to_bytes();
        let hello =
            ServerHello::Offline { plan: self.plan, plan_bytes: plan_bytes.len() as u64, epoch: mask.epoch };
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

    /// What became of a client's bundles: those held on both sides, and those that are used or lost here. Fetches the
    /// server's halves of bundles that so far only the client holds, up to `options.count` in all: how many inferences a
    /// client gets is the model owner's decision.
    fn compare(
        &self,
        channel: &mut TlsChannel,
        purpose: &Purpose,
        ids: &[BundleId],
    ) -> Result<(Vec<BundleId>, Vec<BundleId>), Error> {
        let material = Material::attach(&self.database, &self.config.state);
        let held = || -> Result<Vec<BundleId>, Error> {
            let ready: HashSet<BundleId> = material.ready(purpose)?.into_iter().collect();
            Ok(ids.iter().copied().filter(|id| ready.contains(id)).collect())
        };
        let (mut unknown, mut gone) = (Vec::new(), Vec::new());
        for &id in ids {
            match material.status(id)? {
                None => unknown.push(id),
                Some(Status::Burnt) => gone.push(id),
                Some(Status::Ready) => {}
            }
        }
        if self.phase == Phase::Offline && !unknown.is_empty() {
            let channel = std::cell::RefCell::new(channel);
            let alive = || wire::send(&mut **channel.borrow_mut(), &ServerMessage::Working);
            self.fetch(purpose.peer, alive, |supply, shop| {
                unknown.truncate(self.options.count.saturating_sub(held()?.len() as u64) as usize);
                gone.extend(supply.these(unknown, shop, alive)?);
                Ok(())
            })?;
        }
        Ok((held()?, gone))
    }

    /// Online: one inference.
    fn answer(
        &self,
        channel: &mut TlsChannel,
        peer: &PeerConfig,
        plan: Digest,
        epoch: EpochId,
        bundles: &[BundleId],
        reveal_to: RevealTo,
    ) -> Result<(), Error> {
        let client = peer.pinned.fingerprint();
        if plan != self.plan {
            let reason = format!(
                "the client has plan {}, the server serves {}; run `privet client offline` again",
                plan.short(),
                self.plan.short()
            );
            return Err(wire::refuse(channel, refusal::PLAN, &reason));
        }
        if self.mask(client)?.is_none_or(|m| m.epoch != epoch) {
            let reason = "the weights have changed or are masked anew; run `privet client offline` again";
            return Err(wire::refuse(channel, refusal::EPOCH, reason));
        }
        if !self.config.allows(reveal_to) {
            let reason =
                format!("the server's configuration does not allow to reveal outputs to {reveal_to:?}");
            return Err(wire::refuse(channel, refusal::REVEAL, &reason));
        }
        let material = Material::attach(&self.database, &self.config.state);
        let purpose = self.purpose(client, epoch);
        let schedule = Schedule::new(&self.model.plan, reveal_to);
        let Some((id, mut reader)) = self.take(&material, &purpose, &schedule, bundles)? else {
            let mut reason = "the server holds none of the client's bundles".to_owned();
            for id in bundles {
                if material.status(*id)? == Some(Status::Burnt) {
                    reason = format!("bundle {id} was used before: a replayed session, or restored state");
                }
            }
            reason.push_str("; run `privet client offline` again");
            return Err(wire::refuse(channel, refusal::MATERIAL, &reason));
        };
        wire::greet(channel, &ServerHello::Online { bundle: id })?;
        let inference = self.served.load(Ordering::SeqCst);
        let mut steps = Steps { observer: self.observer, phase: Phase::Online, inference };
        let seed = reader.header.seed.clone();
        let own = Online::Server(&self.model.weights);
        let outputs =
            masked::online(&self.model.plan, &schedule, own, &seed, &mut reader, channel, &mut steps)?;
        if let Some(outputs) = outputs {
            let summary = crate::postprocess::summary(&self.model.plan, &outputs);
            message(self.observer, format!("{}: {summary}", peer.name));
        }
        self.meter.inference();
        self.done();
        Ok(())
    }

    /// Burns the first usable one of the client's bundles, durably, before any message that depends on it. One that is
    /// damaged, or that another session takes first, is passed over.
    fn take(
        &self,
        material: &Material,
        purpose: &Purpose,
        schedule: &Schedule,
        bundles: &[BundleId],
    ) -> Result<Option<(BundleId, BundleReader)>, Error> {
        let ready: HashSet<BundleId> = material.ready(purpose)?.into_iter().collect();
        for &id in bundles.iter().filter(|id| ready.contains(id)) {
            match material.burn(id, purpose, &self.model.plan, schedule, Role::Server) {
                Ok(reader) => return Ok(Some((id, reader))),
                Err(e) => self.observer.event(&Event::Warning { text: e.to_string() }),
            }
        }
        Ok(None)
    }
}

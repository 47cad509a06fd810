//! Fetching one-time material from the dealer, for server and client alike.

use std::ops::Deref;
use std::time::{Duration, Instant};

use privet_net::{Channel, Fingerprint, TlsChannel, TlsConnector};
use privet_plan::{Digest, Plan, Weights};
use privet_protocols::masked::{self, MaskedWeights, RevealTo, Role, Schedule, Source};
use privet_protocols::{Progress, ProtocolError};
use privet_ring::prg::Seed;

use crate::config::{PartyConfig, PartyRole};
use crate::error::Error;
use crate::events::{Observer, Phase};
use crate::session::{Meter, Steps};
use crate::store::{BundleHeader, BundleId, EpochId, Material, crash_point};
use crate::wire::{
    self, BundleOffer, CHUNK, DealerHello, DealerRequest, DealerWelcome, EpochGrant, OfferReply,
};

/// How often the partner is told that a bundle is still being prepared.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A connection to the dealer about inferences of one plan with one partner.
pub(crate) struct Supply {
    channel: TlsChannel,
    role: Role,
    partner: Fingerprint,
    plan: Digest,
    pub(crate) epoch: EpochId,
    /// Seed of the weights' mask, if the dealer has just made one.
    pub(crate) new_mask: Option<Seed>,
}

/// What came of one offer.
#[derive(PartialEq, Eq)]
enum Taken {
    /// One bundle more is ready.
    Stored,
    /// It was held, or used, before.
    Known,
    /// The dealer has none of this name.
    Unknown,
}

/// What the bundles are prepared with.
pub(crate) struct Preparation<'a> {
    pub(crate) plan: &'a Plan,
    /// May be made when it is first looked at: only what takes a bundle needs it.
    pub(crate) masked: &'a dyn Deref<Target = MaskedWeights>,
    /// The server's own weights.
    pub(crate) weights: Option<&'a Weights>,
    pub(crate) material: &'a Material<'a>,
    pub(crate) meter: &'a Meter,
    pub(crate) observer: &'a dyn Observer,
}

impl Supply {
    /// Connects to the dealer, unless `stopped`, and agrees on plan, partner and mask. Without `epoch` a server gets a new mask.
    pub(crate) fn connect(
        config: &PartyConfig,
        address: Option<&str>,
        role: Role,
        partner: Fingerprint,
        plan: &Plan,
        epoch: Option<EpochId>,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Self, Error> {
        let mut channel = connect(config, PartyRole::Dealer, address, stopped)?;
        let digest = plan.digest();
        wire::greet(&mut channel, &DealerHello { role, plan: digest, partner, epoch })?;
        let welcome: DealerWelcome = wire::greeted(&mut channel)?;
        if welcome.need_plan {
            let bytes = plan.to_bytes();
            wire::send(&mut channel, &(bytes.len() as u64))?;
            wire::send_blob(&mut channel, &bytes)?;
        }
        let grant: EpochGrant = wire::receive(&mut channel)?;
        if epoch.is_some_and(|e| e != grant.epoch) || epoch.is_none() != grant.seed.is_some() {
            let peer = channel.peer().to_string();
            return Err(Error::Peer { peer, problem: "granted another mask than was asked for".to_owned() });
        }
        Ok(Self { channel, role, partner, plan: digest, epoch: grant.epoch, new_mask: grant.seed })
    }

    /// Fetches, prepares and stores `count` more bundles, calling `alive` every few seconds.
    pub(crate) fn some(
        &mut self,
        count: u64,
        preparation: &Preparation,
        mut alive: impl FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        if count == 0 {
            return Ok(());
        }
        let schedule = Schedule::new(preparation.plan, RevealTo::Client);
        let mut stored = 0;
        // The dealer may not know yet of some that are held; it offers none twice in a session.
        while stored < count {
            let missing = count - stored;
            wire::send(&mut self.channel, &DealerRequest::Some(missing))?;
            for _ in 0..missing {
                stored += u64::from(self.take(stored, preparation, &schedule, &mut alive)? == Taken::Stored);
                alive()?;
            }
        }
        Ok(())
    }

    /// Fetches, prepares and stores exactly these bundles, calling `alive` every few seconds. Returns those that the dealer no longer has.
    pub(crate) fn these(
        &mut self,
        ids: Vec<BundleId>,
        preparation: &Preparation,
        mut alive: impl FnMut() -> Result<(), Error>,
    ) -> Result<Vec<BundleId>, Error> {
        let mut gone = Vec::new();
        if ids.is_empty() {
            return Ok(gone);
        }
        wire::send(&mut self.channel, &DealerRequest::These(ids.clone()))?;
        let schedule = Schedule::new(preparation.plan, RevealTo::Client);
        for (inference, id) in (0..).zip(ids) {
            if self.take(inference, preparation, &schedule, &mut alive)? == Taken::Unknown {
                gone.push(id);
            }
            alive()?;
        }
        Ok(gone)
    }

    /// Tells the dealer that these will not be used.
    pub(crate) fn forget(&mut self, ids: Vec<BundleId>) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        wire::send(&mut self.channel, &DealerRequest::Forget(ids))
    }

    /// Takes one offer.
    fn take(
        &mut self,
        inference: u64,
        preparation: &Preparation,
        schedule: &Schedule,
        alive: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<Taken, Error> {
        let offer: Option<BundleOffer> = wire::receive(&mut self.channel)?;
        let Some(offer) = offer else { return Ok(Taken::Unknown) };
        if preparation.material.is_known(offer.id)? {
            wire::send(&mut self.channel, &OfferReply::Have)?;
            return Ok(Taken::Known);
        }
        wire::send(&mut self.channel, &OfferReply::Take)?;
        self.prepare(offer, inference, preparation, schedule, alive)?;
        crash_point("before the dealer knows");
        wire::send(&mut self.channel, &OfferReply::Stored)?;
        Ok(Taken::Stored)
    }

    fn prepare(
        &mut self,
        offer: BundleOffer,
        inference: u64,
        preparation: &Preparation,
        schedule: &Schedule,
        alive: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let header = BundleHeader {
            id: offer.id,
            role: self.role,
            peer: self.partner,
            plan: self.plan,
            epoch: self.epoch,
            ring_bits: preparation.plan.ring.bits() as u8,
            seed: offer.seed,
        };
        let mut writer = preparation.material.writer(&header)?;
        let steps = Steps { observer: preparation.observer, phase: Phase::Offline, inference };
        let mut steps = Alive { steps, alive, last: Instant::now() };
        let mut dealt = Dealt { channel: &mut self.channel };
        let (plan, masked, weights) = (preparation.plan, &**preparation.masked, preparation.weights);
        masked::prepare(
            plan,
            schedule,
            self.role,
            &header.seed,
            masked,
            weights,
            &mut dealt,
            &mut writer,
            &mut steps,
        )?;
        preparation.meter.stored(preparation.material.store(&header, writer)?);
        preparation.meter.inference();
        Ok(())
    }

    /// Says goodbye.
    pub(crate) fn finish(mut self, meter: &Meter) -> Result<(), Error> {
        wire::send(&mut self.channel, &DealerRequest::Done)?;
        self.channel.shutdown()?;
        meter.connection(&self.channel);
        Ok(())
    }
}

/// Passes progress on, and now and then tells the partner who waits that work goes on: a bundle of a large model takes
/// longer than a wait may.
struct Alive<'a> {
    steps: Steps<'a>,
    alive: &'a mut dyn FnMut() -> Result<(), Error>,
    last: Instant,
}

impl Progress for Alive<'_> {
    fn step(&mut self, done: usize, total: usize, name: &str) {
        self.steps.step(done, total, name);
        if self.last.elapsed() > KEEP_ALIVE {
            self.last = Instant::now();
            // A partner that has gone shows at the next message.
            let _ = (self.alive)();
        }
    }
}

/// Dealt chunks as they arrive.
struct Dealt<'a> {
    channel: &'a mut TlsChannel,
}

impl Source for Dealt<'_> {
    fn chunk(&mut self, instruction: usize, len: usize) -> Result<Vec<u8>, ProtocolError> {
        let bytes = self.channel.recv_kind(CHUNK, len)?;
        if bytes.len() == len {
            return Ok(bytes);
        }
        let what = format!("material dealt for instruction {instruction}");
        Err(ProtocolError::Size { what, expected: len, found: bytes.len() })
    }
}

/// Connects to the configured peer of a role, at its configured address or another. Gives up trying once `stopped`.
pub(crate) fn connect(
    config: &PartyConfig,
    role: PartyRole,
    address: Option<&str>,
    stopped: &dyn Fn() -> bool,
) -> Result<TlsChannel, Error> {
    let peer = config.peer(role)?;
    let address = address.or(peer.address.as_deref()).ok_or_else(|| {
        let dir = config.dir.display();
        Error::NotReady(format!(
            "{dir}: the {role} has no address; add `address = \"HOST:PORT\"` or pass --{role}"
        ))
    })?;
    let (identity, link) = (&config.identity, config.link);
    Ok(TlsConnector::connect_unless(address, identity, &peer.pinned, config.deadlines, link, stopped)?)
}

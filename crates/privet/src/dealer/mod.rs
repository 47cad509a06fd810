//! The dealer: makes one-time material for pairs of server and client, offers each half to its owner until that has stored
//! it, and forgets it.
//!
//! It learns plans and who prepares how many inferences with whom, never weights or inputs. With either party it could
//! undo the other's protection, so it belongs to neither.

mod ledger;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use privet_net::{Channel, Frame, TlsChannel};
use privet_plan::Plan;
use privet_plan::file::MAX_PLAN_BYTES;
use privet_protocols::masked::{self, RevealTo, Role, Schedule};

use crate::config::{PartyConfig, PartyRole, PeerConfig};
use crate::error::Error;
use crate::events::{Observer, Phase, Report};
use crate::session::{self, Meter, Steps, Stopwatch};
use crate::store::BundleId;
use crate::wire::{
    self, BundleOffer, CHUNK, DealerHello, DealerRequest, DealerWelcome, EpochGrant, MAX_BUNDLES, OfferReply,
    refusal,
};
use ledger::{Half, Ledger, Pair};

/// How a dealer runs.
#[derive(Debug, Clone, Default)]
pub struct DealerOptions {
    /// Address to listen on, instead of the configured one.
    pub listen: Option<String>,
    /// Stop after this many bundles have been delivered to both their owners.
    pub bundles: Option<u64>,
    /// Set from outside to stop accepting and finish.
    pub stop: Arc<AtomicBool>,
}

/// Deals until told to stop.
///
/// # Errors
/// If the state or the listening address cannot be used; failing sessions are only reported to `observer`.
pub fn serve(config: PartyConfig, options: &DealerOptions, observer: &dyn Observer) -> Result<Report, Error> {
    let meter = Meter::start();
    let roles = [PartyRole::Server, PartyRole::Client];
    let listener = session::listen(&config, options.listen.as_deref(), &roles, observer)?;
    let dealer = Dealer {
        config: &config,
        ledger: Ledger::open(&config.state)?,
        options,
        delivered: AtomicU64::new(0),
        meter: &meter,
        observer,
    };
    let stopwatch = Stopwatch::start();
    session::serve(&config, &listener, &options.stop, &meter, observer, |channel, peer| {
        dealer.session(channel, peer)
    })?;
    meter.worked(&stopwatch);
    Ok(meter.report(PartyRole::Dealer.name(), Phase::Offline, observer))
}

struct Dealer<'a> {
    config: &'a PartyConfig,
    ledger: Ledger,
    options: &'a DealerOptions,
    delivered: AtomicU64,
    meter: &'a Meter,
    observer: &'a dyn Observer,
}

impl Dealer<'_> {
    fn session(&self, channel: &mut TlsChannel, peer: &PeerConfig) -> Result<(), Error> {
        let hello: DealerHello = wire::greeted(channel)?;
        let (role, partner_role) = match peer.role {
            PartyRole::Server => (Role::Server, PartyRole::Client),
            _ => (Role::Client, PartyRole::Server),
        };
        let partner = self.config.peers(partner_role).find(|p| p.pinned.fingerprint() == hello.partner);
        let Some(partner) = partner.filter(|_| role == hello.role) else {
            let reason = format!("the dealer's configuration lists no such {partner_role} for {}", peer.name);
            return Err(wire::refuse(channel, refusal::ROLE, &reason));
        };
        let (own, other) = (peer.pinned.fingerprint(), partner.pinned.fingerprint());
        let (server, client) = if role == Role::Server { (own, other) } else { (other, own) };
        let pair = Pair { server, client, plan: hello.plan };
        if let Some(id) = hello.epoch
            && self.ledger.epoch(id)?.is_none_or(|e| e.pair != pair)
        {
            let reason = "this mask of the weights is not known for this server, client and plan";
            return Err(wire::refuse(channel, refusal::EPOCH, reason));
        }
        if hello.epoch.is_none() && role == Role::Client {
            let reason = "a client gets the mask of the weights from its server first";
            return Err(wire::refuse(channel, refusal::EPOCH, reason));
        }
        let need_plan = !self.ledger.has_plan(&hello.plan);
        wire::greet(channel, &DealerWelcome { need_plan })?;
        if need_plan {
            self.take_plan(channel, &hello)?;
        }
        let plan = self.ledger.plan(&hello.plan)?;
        let schedule = Schedule::new(&plan, RevealTo::Client);
        let (epoch, fresh) = match hello.epoch {
            Some(id) => (id, None),
            None => {
                let (id, seed) = self.ledger.new_epoch(pair)?;
                (id, Some(seed))
            }
        };
        wire::send(channel, &EpochGrant { epoch, seed: fresh })?;
        let mut offered = HashSet::new();
        loop {
            match wire::receive(channel)? {
                DealerRequest::Done => return Ok(()),
                DealerRequest::These(ids) | DealerRequest::Forget(ids) if ids.len() as u64 > MAX_BUNDLES => {
                    let reason = format!("{} bundles named, at most {MAX_BUNDLES} are accepted", ids.len());
                    return Err(wire::refuse(channel, refusal::MATERIAL, &reason));
                }
                DealerRequest::Forget(ids) => self.ledger.forget(epoch, &ids)?,
                DealerRequest::Some(count) if count > MAX_BUNDLES => {
                    let reason =
                        format!("{count} bundles asked for, at most {MAX_BUNDLES} are made at a time");
                    return Err(wire::refuse(channel, refusal::MATERIAL, &reason));
                }
                DealerRequest::Some(count) => {
                    for _ in 0..count {
                        let half = self.ledger.next(epoch, role, &offered)?;
                        offered.insert(half.id);
                        self.deliver(channel, &plan, &schedule, half)?;
                    }
                }
                DealerRequest::These(ids) => {
                    for id in ids {
                        match self.ledger.half(epoch, role, id)? {
                            Some(half) => self.deliver(channel, &plan, &schedule, half)?,
                            None => wire::send(channel, &None::<BundleOffer>)?,
                        }
                    }
                }
            }
        }
    }

    fn take_plan(&self, channel: &mut TlsChannel, hello: &DealerHello) -> Result<(), Error> {
        let len: u64 = wire::receive(channel)?;
        if len > MAX_PLAN_BYTES as u64 {
            let reason = format!("a plan of {len} bytes, at most {MAX_PLAN_BYTES} are accepted");
            return Err(wire::refuse(channel, refusal::PLAN, &reason));
        }
        let bytes = wire::receive_blob(channel, len as usize)?;
        match Plan::from_bytes(&bytes) {
            Ok(plan) if plan.digest() == hello.plan => Ok(self.ledger.add_plan(&hello.plan, &bytes)?),
            Ok(plan) => {
                let reason = format!("plan {} announced, {} sent", hello.plan.short(), plan.digest().short());
                Err(wire::refuse(channel, refusal::PLAN, &reason))
            }
            Err(e) => Err(wire::refuse(channel, refusal::PLAN, &e.to_string())),
        }
    }

    /// Gives one half to its owner and, once that has stored it, forgets it.
    fn deliver(
        &self,
        channel: &mut TlsChannel,
        plan: &Plan,
        schedule: &Schedule,
        half: Half,
    ) -> Result<(), Error> {
        let own = if half.role == Role::Server { &half.server } else { &half.client };
        wire::send(channel, &Some(BundleOffer { id: half.id, seed: own.clone() }))?;
        let mut reply: OfferReply = wire::receive(channel)?;
        if reply == OfferReply::Take {
            if half.role == Role::Server {
                self.deal(channel, plan, schedule, &half)?;
            }
            reply = wire::receive(channel)?;
        }
        match reply {
            OfferReply::Stored | OfferReply::Have => self.release(half.id, half.role),
            OfferReply::Take => {
                let peer = channel.peer().to_string();
                Err(Error::Peer { peer, problem: "took a bundle twice".to_owned() })
            }
        }
    }

    fn deal(
        &self,
        channel: &mut TlsChannel,
        plan: &Plan,
        schedule: &Schedule,
        half: &Half,
    ) -> Result<(), Error> {
        let mut sink = |_: usize, bytes: Vec<u8>| Ok(channel.send(Frame::new(CHUNK, bytes))?);
        let inference = self.delivered.load(Ordering::SeqCst);
        let mut steps = Steps { observer: self.observer, phase: Phase::Offline, inference };
        let Half { server, client, weights, .. } = half;
        Ok(masked::deal(plan, schedule, server, client, weights, &mut sink, &mut steps)?)
    }

    fn release(&self, id: BundleId, role: Role) -> Result<(), Error> {
        if self.ledger.release(id, role)? {
            self.meter.inference();
            let delivered = self.delivered.fetch_add(1, Ordering::SeqCst) + 1;
            if self.options.bundles.is_some_and(|n| delivered >= n) {
                self.options.stop.store(true, Ordering::SeqCst);
            }
        }
        Ok(())
    }
}

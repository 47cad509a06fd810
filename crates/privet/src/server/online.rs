//! The server's online phase: inferences over one connection, each agreed on before the client has an input.

use std::sync::atomic::Ordering;

use privet_net::{Channel, Fingerprint, NetError, TlsChannel, Traffic};
use privet_plan::Digest;
use privet_protocols::masked::{self, Bundle, Online, RevealTo, Role, Schedule};

use super::{SESSIONS, Server};
use crate::config::PeerConfig;
use crate::error::{Error, StoreError};
use crate::events::{Event, Phase};
use crate::session::{Steps, Stopwatch, message};
use crate::store::{
    BundleId, EpochId, Material, Prefetch, Purpose, Rollback, Sessions, Status, Transaction, crash_point,
};
use crate::wire::{self, Choice, MAX_BUNDLES, OFFERED, Offer, ServerHello, Take, refusal};

/// What a client asks for.
pub(super) struct Request {
    pub(super) plan: Digest,
    pub(super) epoch: EpochId,
    /// The number of its last inference.
    pub(super) session: u64,
    pub(super) inferences: u64,
    pub(super) offer: Offer,
    pub(super) reveal_to: RevealTo,
}

/// A client's session.
struct Asked<'a> {
    client: &'a PeerConfig,
    schedule: &'a Schedule,
    /// The number of its last inference.
    number: u64,
    /// Names on offer, also those of none of its bundles.
    offered: Vec<BundleId>,
}

impl Asked<'_> {
    fn client(&self) -> Fingerprint {
        self.client.pinned.fingerprint()
    }
}

impl Server<'_> {
    /// Online: as many inferences as the client asks for, or fewer if it leaves. `stopwatch` runs since it is connected.
    pub(super) fn answer(
        &self,
        channel: &mut TlsChannel,
        peer: &PeerConfig,
        request: Request,
        mut stopwatch: Stopwatch,
    ) -> Result<(), Error> {
        channel.count_round();
        self.check_online(channel, peer, &request)?;
        let Request { session, inferences, offer, reveal_to, .. } = request;
        wire::greet(channel, &ServerHello::Online)?;
        let schedule = self.schedule(reveal_to);
        let mut asked = Asked { client: peer, schedule, number: session, offered: offer.0.into() };
        let mut before = Traffic::default();
        for made in 0..inferences {
            if made > 0 {
                self.check_more(channel)?;
            }
            let bundle = self.choose(channel, &mut asked, made == 0)?;
            let traffic = channel.traffic().since(before);
            let mut agreement = stopwatch.span();
            let arrived = channel.wait_for_frame();
            agreement.cpu_seconds = stopwatch.span().cpu_seconds;
            self.meter.agreed(agreement, traffic);
            match arrived {
                // It has said goodbye: that is no failure.
                Err(NetError::Closed { detail, .. }) if detail.is_empty() => {
                    let name = &peer.name;
                    let text = format!(
                        "{name} has left after {made} of {inferences} inferences; the material of one is lost"
                    );
                    message(self.observer, text);
                    return Ok(());
                }
                Err(NetError::Timeout { waited, .. }) => {
                    let reason = format!(
                        "no input within {waited:.1?}: the inference that was agreed on is given up, and its one-time material lost"
                    );
                    return Err(wire::refuse(channel, refusal::IDLE, &reason));
                }
                other => other?,
            }
            stopwatch = self.infer(channel, &asked, bundle)?;
            before = channel.traffic();
            self.meter.inference();
            self.done();
        }
        Ok(())
    }

    /// What has to be agreed on before any inference.
    fn check_online(
        &self,
        channel: &mut TlsChannel,
        peer: &PeerConfig,
        request: &Request,
    ) -> Result<(), Error> {
        let &Request { plan, epoch, session: shown, inferences, reveal_to, .. } = request;
        if plan != self.plan {
            let reason = format!(
                "the client has plan {}, the server serves {}; run `privet client offline` again",
                plan.short(),
                self.plan.short()
            );
            return Err(wire::refuse(channel, refusal::PLAN, &reason));
        }
        let client = peer.pinned.fingerprint();
        if self.mask(client)?.is_none_or(|m| m.epoch != epoch) {
            let reason = "the weights have changed or are masked anew; run the offline phase again: `privet dealer`, `privet server offline` and `privet client offline`";
            return Err(wire::refuse(channel, refusal::EPOCH, reason));
        }
        if !self.config.allows(reveal_to) {
            let reason =
                format!("the server's configuration does not allow to reveal outputs to {reveal_to}");
            return Err(wire::refuse(channel, refusal::REVEAL, &reason));
        }
        if !(1..=MAX_BUNDLES).contains(&inferences) {
            let reason = format!("{inferences} inferences over one connection: expected 1 to {MAX_BUNDLES}");
            return Err(wire::refuse(channel, refusal::MALFORMED, &reason));
        }
        let left = self.options.sessions.map(|n| n.saturating_sub(self.served.load(Ordering::SeqCst)));
        if let Some(left) = left.filter(|left| *left < inferences) {
            let reason = format!(
                "{inferences} inferences over one connection: the server makes only {left} more (its --sessions)"
            );
            return Err(wire::refuse(channel, refusal::UNAVAILABLE, &reason));
        }
        let known: Option<Sessions> = self.database.get(SESSIONS, client.as_bytes())?;
        // The client has agreed on this mask in a session; a server that knows of none has forgotten it.
        let resumed = known.map_or(Err(Rollback::Server { shown, proposed: 0 }), |s| s.confirm(shown));
        resumed.map(drop).map_err(|rollback| self.refuse_rollback(channel, rollback))
    }

    /// Between two inferences a server that is to stop does.
    fn check_more(&self, channel: &mut TlsChannel) -> Result<(), Error> {
        if self.options.stop.load(Ordering::SeqCst) {
            let reason = "the server is stopping: it makes no further inference";
            return Err(wire::refuse(channel, refusal::UNAVAILABLE, reason));
        }
        Ok(())
    }

    /// The inference that was agreed on. Returns what measures from its end on.
    fn infer(
        &self,
        channel: &mut TlsChannel,
        asked: &Asked<'_>,
        bundle: Bundle<Prefetch>,
    ) -> Result<Stopwatch, Error> {
        let stopwatch = Stopwatch::start();
        let inference = self.served.load(Ordering::SeqCst);
        let mut steps = Steps { observer: self.observer, phase: Phase::Online, inference };
        let own = Online::Server(&self.factors);
        let outcome = masked::online(&self.model.plan, asked.schedule, own, bundle, channel, &mut steps);
        if outcome.is_ok() {
            self.meter.worked(&stopwatch);
            steps.done(asked.schedule.instructions.len());
        }
        let after = Stopwatch::start();
        crash_point("outputs sent");
        // The client notes the number before its first message, which is here.
        crash_point("before the session is confirmed");
        self.confirm(asked.client(), asked.number)?;
        if let Some(outputs) = outcome? {
            let summary = crate::postprocess::summary(&self.model.plan, &outputs);
            message(self.observer, format!("{}: {summary}", asked.client.name));
        }
        Ok(after)
    }

    /// Agrees with the client on a bundle, which is burnt then, durably, and numbers the inference. The choice answers the client, or
    /// is on its way behind the outputs of the inference before.
    fn choose(
        &self,
        channel: &mut TlsChannel,
        asked: &mut Asked<'_>,
        mut is_answer: bool,
    ) -> Result<Bundle<Prefetch>, Error> {
        let client = asked.client();
        let Some(mask) = self.mask(client)? else {
            return Err(wire::refuse(channel, refusal::EPOCH, "the weights are masked anew"));
        };
        let purpose = self.purpose(client, mask.epoch);
        let material = Material::attach(&self.database, &self.config.state);
        // Each offer is of bundles that were not offered before.
        for _ in 0..MAX_BUNDLES.div_ceil(OFFERED as u64) {
            let mut gone = Vec::new();
            for &id in &asked.offered {
                if material.status(id, &purpose)? == Some(Status::Burnt) {
                    gone.push(id);
                }
            }
            asked.offered.retain(|id| !gone.contains(id));
            let taken = self.take(&material, &purpose, asked)?;
            let take = taken.as_ref().map(|&(take, _)| take);
            wire::send(channel, &Choice { gone, take })?;
            if is_answer {
                channel.count_round();
            }
            if let Some((_, bundle)) = taken {
                crash_point("bundle named");
                return Ok(bundle);
            }
            let Offer(offered) = wire::receive(channel)?;
            channel.count_round();
            self.check_more(channel)?;
            asked.offered = offered.into();
            is_answer = true;
        }
        Err(wire::refuse(channel, refusal::MATERIAL, "too many offers"))
    }

    /// Burns the first usable one of the client's bundles, durably, before any message that depends on it, and numbers the
    /// inference in the same transaction. One that is damaged, or that another session takes first, is passed over.
    fn take(
        &self,
        material: &Material,
        purpose: &Purpose,
        asked: &mut Asked<'_>,
    ) -> Result<Option<(Take, Bundle<Prefetch>)>, Error> {
        for (place, &bundle) in asked.offered.iter().enumerate() {
            if material.status(bundle, purpose)? != Some(Status::Ready) {
                continue;
            }
            let mut session = 0;
            let number = |t: &Transaction| {
                let key = purpose.peer.as_bytes();
                let sessions = t.get::<Sessions>(SESSIONS, key)?.and_then(|s| s.confirm(asked.number).ok());
                // Another session of this client has gone on meanwhile.
                let sessions =
                    sessions.ok_or_else(|| material.damaged("the sessions' number has changed"))?;
                session = sessions.propose().proposed();
                t.put(SESSIONS, key, &sessions.propose())
            };
            let opened =
                material.open_bundle(bundle, purpose, &self.model.plan, asked.schedule, Role::Server);
            match material.burn(bundle, purpose, opened, number) {
                Ok(burnt) => {
                    asked.offered.remove(place);
                    asked.number = session;
                    return Ok(Some((Take { bundle, session }, burnt)));
                }
                Err(e @ StoreError::Bundle { .. }) => {
                    self.observer.event(&Event::Warning { text: e.to_string() });
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(None)
    }

    /// Notes that a client has taken over the number of its session.
    fn confirm(&self, client: Fingerprint, session: u64) -> Result<(), Error> {
        Ok(self.database.note(|t| {
            match t.get::<Sessions>(SESSIONS, client.as_bytes())?.map(|s| s.confirm(session)) {
                Some(Ok(sessions)) => t.put(SESSIONS, client.as_bytes(), &sessions),
                // A later session has said so already.
                _ => Ok(()),
            }
        })?)
    }
}

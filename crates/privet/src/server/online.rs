//! The server's online phase: one inference a session.

use std::sync::atomic::Ordering;

use privet_net::{Channel, Fingerprint, TlsChannel};
use privet_plan::Digest;
use privet_protocols::masked::{self, Online, RevealTo, Role, Schedule};

use super::{SESSIONS, Server};
use crate::config::PeerConfig;
use crate::error::{Error, StoreError};
use crate::events::{Event, Phase};
use crate::session::{Steps, message};
use crate::store::{
    BundleId, BundleReader, EpochId, Material, Purpose, Rollback, Sessions, Status, Transaction, Unlinked,
    crash_point,
};
use crate::wire::{self, Choice, MAX_BUNDLES, Offer, ServerHello, Take, refusal};

/// A burnt bundle, open, and its file, which goes.
type Burnt = (BundleReader, Unlinked);

impl Server<'_> {
    /// What has to be agreed on before an inference.
    pub(super) fn check_online(
        &self,
        channel: &mut TlsChannel,
        peer: &PeerConfig,
        plan: Digest,
        epoch: EpochId,
        reveal_to: RevealTo,
    ) -> Result<(), Error> {
        if plan != self.plan {
            let reason = format!(
                "the client has plan {}, the server serves {}; run `privet client offline` again",
                plan.short(),
                self.plan.short()
            );
            return Err(wire::refuse(channel, refusal::PLAN, &reason));
        }
        if self.mask(peer.pinned.fingerprint())?.is_none_or(|m| m.epoch != epoch) {
            let reason = "the weights have changed or are masked anew; run the offline phase again: `privet dealer`, `privet server offline` and `privet client offline`";
            return Err(wire::refuse(channel, refusal::EPOCH, reason));
        }
        if !self.config.allows(reveal_to) {
            let reason =
                format!("the server's configuration does not allow to reveal outputs to {reveal_to}");
            return Err(wire::refuse(channel, refusal::REVEAL, &reason));
        }
        Ok(())
    }

    /// Online: one inference.
    pub(super) fn answer(
        &self,
        channel: &mut TlsChannel,
        peer: &PeerConfig,
        shown: u64,
        offer: Offer,
        reveal_to: RevealTo,
    ) -> Result<(), Error> {
        let client = peer.pinned.fingerprint();
        let known: Option<Sessions> = self.database.get(SESSIONS, client.as_bytes())?;
        // The client has agreed on this mask in a session; a server that knows of none has forgotten it.
        let resumed = known.map_or(Err(Rollback::Server { shown, proposed: 0 }), |s| s.confirm(shown));
        if let Err(rollback) = resumed {
            return Err(self.refuse_rollback(channel, rollback));
        }
        wire::greet(channel, &ServerHello::Online)?;
        let schedule = self.schedule(reveal_to);
        let (session, (reader, _unlinked)) = self.choose(channel, client, shown, offer, schedule)?;
        channel.count_round();
        let inference = self.served.load(Ordering::SeqCst);
        let mut steps = Steps { observer: self.observer, phase: Phase::Online, inference };
        let own = Online::Server(&self.factors);
        let before = channel.traffic().frames_received;
        let bundle = reader.into_bundle()?;
        let outcome = masked::online(&self.model.plan, schedule, own, bundle, channel, &mut steps);
        if let Ok(Some(outputs)) = &outcome {
            let summary = crate::postprocess::summary(&self.model.plan, outputs);
            message(self.observer, format!("{}: {summary}", peer.name));
        }
        // The client notes the session before its first message.
        if channel.traffic().frames_received > before {
            crash_point("before the session is confirmed");
            self.confirm(client, session)?;
        }
        outcome?;
        Ok(())
    }

    /// Agrees with the client on a bundle, which is burnt then, durably. Returns the number of this session, too.
    fn choose(
        &self,
        channel: &mut TlsChannel,
        client: Fingerprint,
        shown: u64,
        offer: Offer,
        schedule: &Schedule,
    ) -> Result<(u64, Burnt), Error> {
        let Some(mask) = self.mask(client)? else {
            return Err(wire::refuse(channel, refusal::EPOCH, "the weights are masked anew"));
        };
        let purpose = self.purpose(client, mask.epoch);
        let material = Material::attach(&self.database, &self.config.state);
        let mut offered = offer.0;
        // Each offer is of bundles that were not offered before.
        for _ in 0..MAX_BUNDLES {
            let mut gone = Vec::new();
            for id in offered {
                if material.status(id, &purpose)? == Some(Status::Burnt) {
                    gone.push(id);
                }
            }
            let taken = self.take(&material, &purpose, schedule, shown, &offered)?;
            let take = taken.as_ref().map(|&(bundle, session, _)| Take { bundle, session });
            wire::send(channel, &Choice { gone, take })?;
            if let Some((_, session, reader)) = taken {
                crash_point("bundle named");
                return Ok((session, reader));
            }
            Offer(offered) = wire::receive(channel)?;
        }
        Err(wire::refuse(channel, refusal::MATERIAL, "too many offers"))
    }

    /// Burns the first usable one of the client's bundles, durably, before any message that depends on it, and numbers the
    /// session in the same transaction. One that is damaged, or that another session takes first, is passed over.
    fn take(
        &self,
        material: &Material,
        purpose: &Purpose,
        schedule: &Schedule,
        shown: u64,
        offered: &[BundleId],
    ) -> Result<Option<(BundleId, u64, Burnt)>, Error> {
        for &id in offered {
            if material.status(id, purpose)? != Some(Status::Ready) {
                continue;
            }
            let mut session = 0;
            let number = |t: &Transaction| {
                let key = purpose.peer.as_bytes();
                let sessions = t.get::<Sessions>(SESSIONS, key)?.and_then(|s| s.confirm(shown).ok());
                // Another session of this client has gone on meanwhile.
                let sessions =
                    sessions.ok_or_else(|| material.damaged("the sessions' number has changed"))?;
                session = sessions.propose().proposed();
                t.put(SESSIONS, key, &sessions.propose())
            };
            let opened = material.open_bundle(id, purpose, &self.model.plan, schedule, Role::Server);
            match material.burn(id, purpose, opened, number) {
                Ok(burnt) => return Ok(Some((id, session, burnt))),
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

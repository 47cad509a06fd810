//! The server's online phase: one inference a session.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use privet_net::{Channel, TlsChannel};
use privet_plan::Digest;
use privet_protocols::masked::{self, Online, RevealTo, Role, Schedule};

use super::Server;
use crate::config::PeerConfig;
use crate::error::Error;
use crate::events::{Event, Phase};
use crate::session::{Steps, message};
use crate::store::{BundleId, BundleReader, EpochId, Material, Purpose, Status};
use crate::wire::{self, ServerHello, refusal};

impl Server<'_> {
    /// Online: one inference.
    pub(super) fn answer(
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
                format!("the server's configuration does not allow to reveal outputs to {reveal_to}");
            return Err(wire::refuse(channel, refusal::REVEAL, &reason));
        }
        let material = Material::attach(&self.database, &self.config.state);
        let purpose = self.purpose(client, epoch);
        let schedule = Schedule::new(&self.model.plan, reveal_to);
        let Some((id, mut reader)) = self.take(&material, &purpose, &schedule, bundles)? else {
            let mut reason = "no inference is prepared on both sides".to_owned();
            for id in bundles {
                if material.status(*id)? == Some(Status::Burnt) {
                    reason = format!("bundle {id} was used before: a replayed session, or restored state");
                }
            }
            reason.push_str("; run the offline phase again: `privet dealer`, `privet server offline` and `privet client offline`");
            return Err(wire::refuse(channel, refusal::MATERIAL, &reason));
        };
        wire::greet(channel, &ServerHello::Online { bundle: id })?;
        channel.count_round();
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
        Ok(())
    }

    /// Burns the first usable one of the client's bundles, durably, before any message that depends on it. One that is
    /// damaged, or that another session takes first, is passed over.
    pub(super) fn take(
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

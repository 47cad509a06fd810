//! The worker behind: its part of a model follows on this one's.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use privet_attest::{Attester, Policy, Verifier};
use privet_graph::Tensor;
use privet_split::Tensors;
use tokio::sync::oneshot;

use crate::client::{Answer, Asked, Connection, EVIDENCE_AGE};
use crate::engine::{Done, Took};
use crate::error::EnclaveError;
use crate::stages::{Crossing, Sealer};

/// For the connection to the next worker, and for each of its answers.
const PATIENCE: Duration = Duration::from_secs(600);

/// The worker behind, and which one it may be.
pub struct NextSetting {
    /// `HOST:PORT`.
    pub address: String,
    /// Verifies its evidence.
    pub verifier: Arc<dyn Verifier>,
    /// Which workers may have the tensors.
    pub policy: Policy,
}

/// What this worker has computed of a job, and where the outputs go.
pub(crate) struct Forward {
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) took: Took,
    pub(crate) reply: oneshot::Sender<Result<Done, EnclaveError>>,
}

/// Sends what comes to the next worker, one after the other, while this one computes. Ends when nothing can come any more.
pub(crate) fn forward(
    next: &NextSetting,
    attester: &dyn Attester,
    crossing: &Crossing,
    jobs: &mpsc::Receiver<Forward>,
) {
    let mut link: Option<Link<'_>> = None;
    for Forward { tensors, took, reply } in jobs {
        // Its client has gone, or this worker's key.
        if reply.is_closed() {
            continue;
        }
        let answer = ask(next, attester, crossing, &mut link, tensors);
        let done = answer.map(|Answer { outputs, queued, computed }| {
            let took = Took { queued: took.queued + queued, computed: took.computed + computed, ..took };
            Done { outputs, took }
        });
        // Nobody waits where the client has gone.
        drop(reply.send(done));
    }
}

/// A connection, and its sequence of messages.
struct Link<'a> {
    connection: Connection,
    sealer: Sealer<'a>,
    has_answered: bool,
}

impl<'a> Link<'a> {
    fn open(
        next: &NextSetting,
        attester: &dyn Attester,
        crossing: &'a Crossing,
    ) -> Result<Self, EnclaveError> {
        let connection = Connection::open(&Asked {
            address: &next.address,
            verifier: next.verifier.clone(),
            policy: next.policy.clone(),
            model: crossing.pin()?,
            attester: Some(attester),
            deadline: PATIENCE,
            evidence_age: EVIDENCE_AGE,
        })?;
        crossing
            .check(connection.model())
            .map_err(|problem| EnclaveError::Peer { peer: next.address.clone(), problem })?;
        let sealer = crossing.sealer(&connection.hop_secrets()?)?;
        Ok(Self { connection, sealer, has_answered: false })
    }

    fn ask(&mut self, tensors: &Tensors) -> Result<Answer, EnclaveError> {
        let message = self.sealer.seal(tensors)?;
        let answer = self.connection.forward(&message)?;
        self.has_answered = true;
        Ok(answer)
    }
}

/// Asks over the connection that there is; a new one is made where evidence was verified too long ago, and tried where the
/// connection broke, for instance because the next worker was started anew. A new connection has new secrets, so that nothing is sent twice under the same.
fn ask<'a>(
    next: &NextSetting,
    attester: &dyn Attester,
    crossing: &'a Crossing,
    link: &mut Option<Link<'a>>,
    tensors: Vec<Tensor>,
) -> Result<Answer, EnclaveError> {
    let mut open = match link.take() {
        Some(link) if !link.connection.is_stale() => link,
        _ => Link::open(next, attester, crossing)?,
    };
    let tensors = open.sealer.named(tensors);
    let mut answer = open.ask(&tensors);
    let again = match &answer {
        Err(EnclaveError::Peer { .. } | EnclaveError::Refused { .. }) => open.has_answered,
        // It was fresh a moment ago; nothing has been sent.
        Err(EnclaveError::Stale { .. }) => true,
        _ => false,
    };
    if again {
        open = Link::open(next, attester, crossing)?;
        answer = open.ask(&tensors);
    }
    if answer.is_ok() {
        *link = Some(open);
    }
    answer
}

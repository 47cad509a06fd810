//! The client: owns the inputs. Offline it fetches plan, masked weights and material, online it gets answers ([`Session`]).

mod session;

use std::path::Path;

use privet_net::{Channel, TlsChannel};
use privet_plan::file::MAX_PLAN_BYTES;
use privet_plan::{Digest, Plan};
use privet_protocols::masked::{self, MaskedWeights, RevealTo, Role};
use serde::{Deserialize, Serialize};

use crate::config::{PartyConfig, PartyRole};
use crate::error::Error;
use crate::events::{Event, Observer, Phase, PlanSummary, Report};
use crate::session::{Meter, Stopwatch, message};
use crate::store::{self, Database, EpochId, Material, Purpose};
use crate::supply::{self, Preparation, Supply};
use crate::wire::{self, ClientHello, ClientMessage, ServerHello, ServerMessage};

pub use session::{Agreed, Session, online};

const MODELS: &str = "models";

/// How often the two sides compare what they hold. Twice is enough unless something was lost: every further time, at
/// least one bundle that only one side can still use is burnt, and with it the reason for another.
const MAX_ROUNDS: usize = 100;

/// Revealed integers, one vector per plan output.
pub type Outputs = Vec<Vec<i64>>;

/// How a client runs.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The server's address, instead of the configured one.
    pub server: Option<String>,
    /// The dealer's address, instead of the configured one.
    pub dealer: Option<String>,
    /// Offline: inferences to hold material for.
    pub count: u64,
    /// Online: who learns the outputs.
    pub reveal_to: RevealTo,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { server: None, dealer: None, count: 1, reveal_to: RevealTo::Client }
    }
}

const SESSIONS: &str = "sessions";

/// What the client agreed with a server.
#[derive(Clone, Serialize, Deserialize)]
struct Agreement {
    plan: Digest,
    epoch: EpochId,
}

/// Fetches plan and masked weights from the server and material for `options.count` inferences from the dealer. Material
/// held already counts, so that a broken run continues where it stopped.
///
/// # Errors
/// If server, dealer or state fail, or the server allows fewer; what was stored until then stays usable.
pub fn offline(
    config: PartyConfig,
    options: &ClientOptions,
    observer: &dyn Observer,
) -> Result<Report, Error> {
    let meter = Meter::start();
    wire::check_count(options.count)?;
    let database = Database::open(&store::database_path(&config.state))?;
    let material = Material::open(&database, &config.state)?;
    let mut channel = connect(&config, options)?;
    let stopwatch = Stopwatch::start();
    let partner = channel.peer().fingerprint;
    let shown: Option<u64> = database.get(SESSIONS, partner.as_bytes())?;
    let agreed: Option<Agreement> = database.get(MODELS, partner.as_bytes())?;
    let agreed = agreed.map(|agreement| agreement.epoch);
    wire::greet(&mut channel, &ClientHello::Offline { session: shown, epoch: agreed })?;
    let ServerHello::Offline { plan: digest, plan_bytes, epoch, session } = wire::greeted(&mut channel)?
    else {
        return Err(unexpected(&channel, "answered another question"));
    };
    if shown.is_some_and(|shown| session < shown) {
        return Err(unexpected(
            &channel,
            "is at an earlier session than this client: its state is an old copy",
        ));
    }
    let (plan, masked) = take_model(&config, &mut channel, digest, plan_bytes, epoch)?;
    let masked = Box::new(masked);
    observer.event(&Event::Plan(PlanSummary::of(&plan)));
    database.transact(|t| {
        t.put(SESSIONS, partner.as_bytes(), &session)?;
        t.put(MODELS, partner.as_bytes(), &Agreement { plan: digest, epoch })
    })?;
    let purpose = Purpose { peer: partner, plan: digest, epoch };
    let dropped = material.burn_others(&purpose)?;
    if dropped > 0 {
        let text = format!("{dropped} unused bundles for another model were burnt");
        observer.event(&Event::Warning { text });
    }
    let preparation = Preparation {
        plan: &plan,
        masked: &masked,
        weights: None,
        material: &material,
        meter: &meter,
        observer,
    };
    let mut rounds = 0;
    let both = loop {
        let missing = options.count.saturating_sub(material.ready(&purpose)?.len() as u64);
        if missing > 0 {
            let dealer = options.dealer.as_deref();
            let never = || false;
            let mut supply =
                Supply::connect(&config, dealer, Role::Client, partner, &plan, Some(epoch), &never)?;
            supply.some(missing, &preparation, || wire::send(&mut channel, &ClientMessage::Working))?;
            supply.finish(&meter)?;
        }
        wire::send(&mut channel, &ClientMessage::Ready(material.ready(&purpose)?))?;
        let (ready, gone) = loop {
            match wire::receive(&mut channel)? {
                ServerMessage::Working => {}
                ServerMessage::Prepared { ready, gone } => break (ready, gone),
            }
        };
        // What only one side holds is of no use; burning it is always safe, and makes room for more.
        let burnt = material.discard(&purpose, &gone)?;
        rounds += 1;
        if burnt == 0 || rounds == MAX_ROUNDS {
            break ready;
        }
    };
    wire::send(&mut channel, &ClientMessage::Done)?;
    channel.shutdown()?;
    meter.connection(&channel);
    meter.worked(&stopwatch);
    message(observer, format!("{} inferences are ready", both.len()));
    let report = meter.report(PartyRole::Client.name(), Phase::Offline, observer);
    if (both.len() as u64) < options.count {
        return Err(Error::NotReady(format!(
            "only {} of {} inferences are ready: the server does not hold or allow more; its operator runs `privet server \
             offline` with a larger --count",
            both.len(),
            options.count
        )));
    }
    Ok(report)
}

/// The plan agreed with the configured server, to prepare an input with.
///
/// # Errors
/// If the offline phase has not been run, or its files are damaged.
pub fn plan(config: &PartyConfig) -> Result<Plan, Error> {
    let database = Database::open(&store::database_path(&config.state))?;
    Ok(agreed(config, &database)?.0)
}

fn connect(config: &PartyConfig, options: &ClientOptions) -> Result<TlsChannel, Error> {
    supply::connect(config, PartyRole::Server, options.server.as_deref(), &|| false)
}

fn unexpected(channel: &TlsChannel, problem: &str) -> Error {
    Error::Peer { peer: channel.peer().to_string(), problem: problem.to_owned() }
}

fn plan_path(config: &PartyConfig, digest: &Digest) -> std::path::PathBuf {
    config.state.join("models").join(format!("{digest}.privet"))
}

fn agreed(config: &PartyConfig, database: &Database) -> Result<(Plan, Agreement), Error> {
    let server = config.peer(PartyRole::Server)?;
    let agreement: Option<Agreement> = database.get(MODELS, server.pinned.fingerprint().as_bytes())?;
    let agreement = agreement.ok_or_else(|| {
        Error::NotReady(format!(
            "nothing is agreed with {} yet; run `privet client offline` first",
            server.name
        ))
    })?;
    let plan = Plan::from_bytes(&store::read(&plan_path(config, &agreement.plan))?)?;
    if plan.digest() == agreement.plan {
        return Ok((plan, agreement));
    }
    Err(Error::NotReady(
        "the stored plan is not the agreed one; run `privet client offline` again".to_owned(),
    ))
}

/// Plan and masked weights: from the state if they are there, otherwise from the server.
fn take_model(
    config: &PartyConfig,
    channel: &mut TlsChannel,
    digest: Digest,
    plan_bytes: u64,
    epoch: EpochId,
) -> Result<(Plan, MaskedWeights), Error> {
    store::swept_dir(&config.state.join("models"))?;
    let plan_path = plan_path(config, &digest);
    let weights_path = config.state.join("models").join(format!("{epoch}.masked"));
    let stored_plan = store::read(&plan_path).ok().and_then(|bytes| Plan::from_bytes(&bytes).ok());
    let stored_plan = stored_plan.filter(|plan| plan.digest() == digest);
    let stored_weights = stored_plan.as_ref().and_then(|plan| read_masked(&weights_path, plan));
    let need = ClientMessage::Need { plan: stored_plan.is_none(), weights: stored_weights.is_none() };
    wire::send(channel, &need)?;
    let plan = match stored_plan {
        Some(plan) => plan,
        None => {
            if plan_bytes > MAX_PLAN_BYTES as u64 {
                return Err(unexpected(channel, "announced a plan that is too large"));
            }
            let bytes = wire::receive_blob(channel, plan_bytes as usize)?;
            let plan = Plan::from_bytes(&bytes)?;
            if plan.digest() != digest {
                return Err(unexpected(channel, "sent another plan than it announced"));
            }
            store::write_private(&plan_path, &bytes)?;
            plan
        }
    };
    let masked = match stored_weights {
        Some(masked) => masked,
        None => {
            let bytes = wire::receive_blob(channel, masked::masked_weights_len(&plan))?;
            store::write_private(&weights_path, &[&masked_digest(&bytes).0, bytes.as_slice()].concat())?;
            masked::unpack_masked_weights(&plan, &bytes)?
        }
    };
    Ok((plan, masked))
}

/// Stored masked weights: a digest, then the packed tensors. `None` if they are absent or damaged.
fn read_masked(path: &Path, plan: &Plan) -> Option<MaskedWeights> {
    let file = store::read(path).ok()?;
    let (digest, bytes) = file.split_first_chunk::<32>()?;
    (masked_digest(bytes).0 == *digest).then(|| masked::unpack_masked_weights(plan, bytes).ok()).flatten()
}

fn masked_digest(bytes: &[u8]) -> Digest {
    Digest::of("privet masked weights", bytes)
}

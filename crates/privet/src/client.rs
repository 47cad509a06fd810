//! The client: owns the inputs. Offline it fetches plan, masked weights and material, online it gets one answer.

use std::path::Path;

use privet_net::{Channel, TlsChannel};
use privet_plan::file::MAX_PLAN_BYTES;
use privet_plan::{Digest, Plan};
use privet_protocols::masked::{self, MaskedWeights, Online, RevealTo, Role, Schedule};
use serde::{Deserialize, Serialize};

use crate::config::{PartyConfig, PartyRole};
use crate::error::Error;
use crate::events::{Event, Observer, Phase, PlanSummary, Report};
use crate::session::{Meter, Steps, Stopwatch, message};
use crate::store::{self, BundleId, Database, EpochId, Material, Purpose, Transaction};
use crate::supply::{self, Preparation, Supply};
use crate::wire::{
    self, Choice, ClientHello, ClientMessage, OFFERED, Offer, ServerHello, ServerMessage, Take,
};

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

/// One private inference on `inputs` (fixed-point integers, one vector per plan input). Returns the outputs if the client
/// learns them.
///
/// # Errors
/// If there is no unused material, or server or connection fail. Material used in a failed attempt is burnt.
pub fn online(
    config: PartyConfig,
    inputs: &[Vec<i64>],
    options: &ClientOptions,
    observer: &dyn Observer,
) -> Result<(Option<Outputs>, Report), Error> {
    let meter = Meter::start();
    let database = Database::open(&store::database_path(&config.state))?;
    let material = Material::open(&database, &config.state)?;
    let (plan, agreement) = agreed(&config, &database)?;
    if !config.allows(options.reveal_to) {
        let (to, file) = (options.reveal_to, config.dir.join(crate::config::CONFIG_FILE));
        let text = format!("this configuration does not allow to reveal outputs to {to}");
        return Err(Error::NotReady(format!("{text}; add \"{to}\" to reveal_to in {}", file.display())));
    }
    masked::check_inputs(&plan, inputs)?;
    let partner = config.peer(PartyRole::Server)?.pinned.fingerprint();
    let purpose = Purpose { peer: partner, plan: agreement.plan, epoch: agreement.epoch };
    let shown: u64 = database.get(SESSIONS, partner.as_bytes())?.unwrap_or(0);
    let bundles = material.ready(&purpose)?;
    if bundles.is_empty() {
        let hint = "no one-time material is left; run `privet client offline --count N` with dealer and server running";
        return Err(Error::NotReady(hint.to_owned()));
    }
    let mut channel = connect(&config, options)?;
    let mut offers = bundles.chunks(OFFERED);
    let mut offered = offers.next().unwrap_or_default();
    let hello = ClientHello::Online {
        plan: agreement.plan,
        epoch: agreement.epoch,
        session: shown,
        offer: offer(offered)?,
        reveal_to: options.reveal_to,
    };
    let stopwatch = Stopwatch::start();
    wire::greet(&mut channel, &hello)?;
    // While the server makes its record: what the first bundle takes. Nothing of it leaves before it is chosen, and burnt.
    let schedule = Schedule::new(&plan, options.reveal_to);
    let open = |id| {
        let reader = material.open_bundle(id, &purpose, &plan, &schedule, Role::Client)?;
        reader.into_bundle()
    };
    let mut opened = offered.first().map(|&id| (id, open(id)));
    let ServerHello::Online = wire::greeted(&mut channel)? else {
        return Err(unexpected(&channel, "answered another question"));
    };
    let Take { bundle, session } = loop {
        let Choice { gone, take } = wire::receive(&mut channel)?;
        let used = material.discard(&purpose, &gone)?;
        if used > 0 {
            let text = format!("the server has used or lost {used} bundles of this client: they were burnt");
            observer.event(&Event::Warning { text });
        }
        if let Some(take) = take {
            break take;
        }
        let Some(next) = offers.next() else {
            let hint = "no inference is prepared on both sides; run the offline phase again: `privet dealer`, `privet server \
                        offline` and `privet client offline`";
            return Err(Error::NotReady(hint.to_owned()));
        };
        offered = next;
        wire::send(&mut channel, &offer(offered)?)?;
    };
    channel.count_round();
    if !offered.contains(&bundle) {
        return Err(unexpected(&channel, "chose a bundle that was not offered"));
    }
    if session <= shown {
        return Err(unexpected(
            &channel,
            "numbers this session like an earlier one: its state is an old copy",
        ));
    }
    // Burnt durably before the first message that depends on it.
    let number = |t: &Transaction| t.put(SESSIONS, partner.as_bytes(), &session);
    let opened = opened.take_if(|(id, _)| *id == bundle).map_or_else(|| open(bundle), |(_, opened)| opened);
    let (bundle, _unlinked) = material.burn(bundle, &purpose, opened, number)?;
    let mut steps = Steps { observer, phase: Phase::Online, inference: 0 };
    let own = Online::Client(inputs);
    let outputs = masked::online(&plan, &schedule, own, bundle, &mut channel, &mut steps)?;
    meter.worked(&stopwatch);
    channel.shutdown()?;
    meter.connection(&channel);
    meter.inference();
    Ok((outputs, meter.report(PartyRole::Client.name(), Phase::Online, observer)))
}

/// Offers these bundles, filled up with random names.
fn offer(bundles: &[BundleId]) -> Result<Offer, Error> {
    let mut names = [BundleId([0; 16]); OFFERED];
    for (i, name) in names.iter_mut().enumerate() {
        *name = match bundles.get(i) {
            Some(id) => *id,
            None => BundleId(*store::fresh_seed()?.expose()),
        };
    }
    Ok(Offer(names))
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

//! The server: owns the model. Offline it prepares material for its clients, online it answers them.

mod offline;
mod online;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use privet_net::{Fingerprint, NetError, TlsChannel};
use privet_plan::Digest;
use privet_protocols::masked::{RevealTo, Schedule, ServerWeights};
use privet_ring::prg::Seed;
use serde::{Deserialize, Serialize};

use crate::config::{PartyConfig, PartyRole, PeerConfig};
use crate::error::Error;
use crate::events::{Event, Observer, Phase, PlanSummary, Report};
use crate::model::LoadedModel;
use crate::session::{self, Meter, Stopwatch};
use crate::store::{self, Database, EpochId, Material, Purpose, Rollback};
use crate::wire::{self, ClientHello, refusal};
use online::Request;

const MASKS: &str = "weight_masks";
const SESSIONS: &str = "sessions";

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
    let server = Server::new(&config, &model, options, Phase::Offline, &meter, observer)?;
    let listener = session::listen(&config, options.listen.as_deref(), &[PartyRole::Client], observer)?;
    let stopwatch = Stopwatch::start();
    // Clients are served meanwhile: one that comes early waits for its answer, not for the connection.
    std::thread::scope(|scope| {
        let stocking = scope.spawn(|| {
            let outcome = server.stock_all();
            match outcome {
                Err(Error::Net(NetError::Stopped { .. })) if server.interrupted() => Ok(()),
                Err(_) => {
                    options.stop.store(true, Ordering::SeqCst);
                    outcome
                }
                Ok(()) => outcome,
            }
        });
        let served =
            session::serve(&config, &listener, &options.stop, &meter, observer, |c, p| server.session(c, p));
        stocking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(served)
    })?;
    meter.worked(&stopwatch);
    Ok(meter.report(PartyRole::Server.name(), Phase::Offline, observer))
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
    let server = Server::new(&config, &model, options, Phase::Online, &meter, observer)?;
    server.factors.pack(&model.plan);
    let listener = session::listen(&config, options.listen.as_deref(), &[PartyRole::Client], observer)?;
    for client in config.peers(PartyRole::Client) {
        let held = server.held(client.pinned.fingerprint())?;
        session::message(observer, format!("material for {held} inferences with {}", client.name));
    }
    session::serve(&config, &listener, &options.stop, &meter, observer, |c, p| server.session(c, p))?;
    Ok(meter.report(PartyRole::Server.name(), Phase::Online, observer))
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
    model: &'a LoadedModel,
    /// The model's, in the form in which online sessions multiply by them.
    factors: ServerWeights<'a>,
    plan: Digest,
    /// Of the plan, by who learns the outputs.
    schedules: [OnceLock<Schedule>; 3],
    weights: Digest,
    database: Database,
    options: &'a ServerOptions,
    phase: Phase,
    /// One fetch from the dealer at a time, so that none is made twice.
    fetching: Mutex<()>,
    /// Offline: whether dealer and server agree on the masks of the weights, so that clients may be told.
    masks_agreed: AtomicBool,
    served: AtomicU64,
    /// As many as were asked for.
    enough: AtomicBool,
    meter: &'a Meter,
    observer: &'a dyn Observer,
}

impl<'a> Server<'a> {
    fn new(
        config: &'a PartyConfig,
        model: &'a LoadedModel,
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
            factors: match options.sessions {
                Some(1) => ServerWeights::once(&model.weights),
                _ => ServerWeights::new(&model.weights),
            },
            plan,
            schedules: Default::default(),
            weights,
            database,
            options,
            phase,
            fetching: Mutex::new(()),
            masks_agreed: AtomicBool::new(phase == Phase::Online),
            served: AtomicU64::new(0),
            enough: AtomicBool::new(false),
            meter,
            observer,
        })
    }

    fn schedule(&self, reveal_to: RevealTo) -> &Schedule {
        self.schedules[reveal_to as usize].get_or_init(|| Schedule::new(&self.model.plan, reveal_to))
    }

    fn mask_key(&self, client: Fingerprint) -> Vec<u8> {
        [self.weights.0.as_slice(), client.as_bytes()].concat()
    }

    fn mask(&self, client: Fingerprint) -> Result<Option<WeightMask>, Error> {
        Ok(self.database.get(MASKS, &self.mask_key(client))?)
    }

    fn purpose(&self, client: Fingerprint, epoch: EpochId) -> Purpose {
        Purpose { peer: client, plan: self.plan, epoch }
    }

    fn session(&self, channel: &mut TlsChannel, peer: &PeerConfig) -> Result<(), Error> {
        let stopwatch = Stopwatch::start();
        match wire::greeted(channel)? {
            ClientHello::Offline { session, epoch } => self.prepare(channel, peer, session, epoch),
            ClientHello::Online { .. } if self.phase == Phase::Offline => {
                let reason = "the server is in its offline phase; start `privet server online`";
                Err(wire::refuse(channel, refusal::PHASE, reason))
            }
            ClientHello::Online { plan, epoch, session, inferences, offer, reveal_to } => {
                let request = Request { plan, epoch, session, inferences, offer, reveal_to };
                self.answer(channel, peer, request, stopwatch)
            }
        }
    }

    fn refuse_rollback(&self, channel: &mut TlsChannel, rollback: Rollback) -> Error {
        let mut reason = rollback.to_string();
        if matches!(rollback, Rollback::Server { .. }) {
            self.observer
                .event(&Event::Warning { text: format!("{}: {reason}", self.config.state.display()) });
            reason.push_str(" (this is for the server's operator)");
        }
        wire::refuse(channel, refusal::ROLLBACK, &reason)
    }

    /// Whether someone outside wants this server to stop before its work is done.
    fn interrupted(&self) -> bool {
        self.options.stop.load(Ordering::SeqCst) && !self.enough.load(Ordering::SeqCst)
    }

    /// Counts a finished client or inference.
    fn done(&self) {
        let served = self.served.fetch_add(1, Ordering::SeqCst) + 1;
        let clients = self.config.peers(PartyRole::Client).count() as u64;
        let enough = self.options.sessions.or((self.phase == Phase::Offline).then_some(clients));
        if enough.is_some_and(|n| served >= n) {
            self.enough.store(true, Ordering::SeqCst);
            self.options.stop.store(true, Ordering::SeqCst);
        }
    }
}

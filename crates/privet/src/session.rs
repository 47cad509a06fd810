//! What all parties do alike: accepting connections, counting traffic, reporting.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use privet_net::{Channel, Fingerprint, NetError, PinnedPeer, TlsChannel, TlsListener, Traffic};
use privet_protocols::Progress;

use crate::config::{PartyConfig, PartyRole, PeerConfig};
use crate::error::Error;
use crate::events::{Agreement, Event, Observer, Phase, Report, Span};
use crate::resources;
use crate::wire;

/// Handshakes at a time; whoever connects takes one, so they are many and short.
const MAX_PENDING: usize = 256;
/// Sessions at a time of one party, so that none takes the others' turn.
const MAX_SESSIONS: usize = 8;
/// Failures to accept a connection in a row before the service gives up, and the pause after each.
const MAX_FAILURES: usize = 100;
const RETRY_ACCEPT: Duration = Duration::from_millis(100);

/// Adds up what a party does in one phase.
pub(crate) struct Meter {
    started: Instant,
    totals: Mutex<Totals>,
}

#[derive(Default)]
struct Totals {
    traffic: Traffic,
    stored: u64,
    inferences: u64,
    work: Vec<Span>,
    agreement: Agreement,
}

/// Measures work from its start on.
pub(crate) struct Stopwatch {
    started: Instant,
    cpu: f64,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), cpu: resources::cpu_seconds() }
    }

    /// What was waited for until now was others' work; CPU time counts from the start.
    pub(crate) fn wait_is_over(&mut self) {
        self.started = Instant::now();
    }

    pub(crate) fn span(&self) -> Span {
        let cpu_seconds = resources::cpu_seconds() - self.cpu;
        Span { seconds: self.started.elapsed().as_secs_f64(), cpu_seconds }
    }
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), totals: Mutex::default() }
    }

    fn with(&self, change: impl FnOnce(&mut Totals)) {
        change(&mut self.totals.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts a finished connection.
    pub(crate) fn connection(&self, channel: &dyn Channel) {
        let t = channel.traffic();
        self.with(|totals| {
            totals.traffic.bytes_sent += t.bytes_sent;
            totals.traffic.bytes_received += t.bytes_received;
            totals.traffic.wire_sent += t.wire_sent;
            totals.traffic.rounds += t.rounds;
        });
    }

    /// Counts stored one-time bytes.
    pub(crate) fn stored(&self, bytes: u64) {
        self.with(|totals| totals.stored += bytes);
    }

    /// Counts a bundle prepared, or an inference done.
    pub(crate) fn inference(&self) {
        self.with(|totals| totals.inferences += 1);
    }

    /// Records what an inference was agreed on with, before there is an input, and what this sent and received.
    pub(crate) fn agreed(&self, span: Span, traffic: Traffic) {
        self.with(|totals| {
            let Agreement { bytes_sent, bytes_received, rounds, work } = &mut totals.agreement;
            *bytes_sent += traffic.bytes_sent;
            *bytes_received += traffic.bytes_received;
            *rounds += traffic.rounds;
            work.push(span);
        });
    }

    /// Records work that is done.
    pub(crate) fn worked(&self, stopwatch: &Stopwatch) {
        let span = stopwatch.span();
        self.with(|totals| totals.work.push(span));
    }

    /// `party` is its role, or among three its name.
    pub(crate) fn report(&self, party: &str, phase: Phase, observer: &dyn Observer) -> Report {
        let totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let Totals { traffic, agreement, .. } = &*totals;
        let report = Report {
            role: party.to_owned(),
            phase,
            inferences: totals.inferences,
            seconds: self.started.elapsed().as_secs_f64(),
            cpu_seconds: resources::cpu_seconds(),
            bytes_sent: traffic.bytes_sent.saturating_sub(agreement.bytes_sent),
            bytes_received: traffic.bytes_received.saturating_sub(agreement.bytes_received),
            wire_bytes_sent: traffic.wire_sent,
            rounds: traffic.rounds.saturating_sub(agreement.rounds),
            bytes_stored: totals.stored,
            peak_memory_bytes: resources::peak_memory_bytes(),
            work: totals.work.clone(),
            agreement: agreement.clone(),
        };
        observer.event(&Event::Report(report.clone()));
        report
    }
}

/// Passes an engine's progress on as events.
pub(crate) struct Steps<'a> {
    pub(crate) observer: &'a dyn Observer,
    pub(crate) phase: Phase,
    pub(crate) inference: u64,
}

impl Steps<'_> {
    /// All `total` of them.
    pub(crate) fn done(&self, total: usize) {
        let (phase, inference) = (self.phase, self.inference);
        self.observer.event(&Event::Progress { phase, inference, done: total, total, name: String::new() });
    }
}

impl Progress for Steps<'_> {
    fn step(&mut self, done: usize, total: usize, name: &str) {
        let (phase, inference) = (self.phase, self.inference);
        self.observer.event(&Event::Progress { phase, inference, done, total, name: name.to_owned() });
    }
}

pub(crate) fn message(observer: &dyn Observer, text: String) {
    observer.event(&Event::Message { text });
}

/// Binds the party's address for its peers of the given roles and says where it listens.
pub(crate) fn listen(
    config: &PartyConfig,
    address: Option<&str>,
    roles: &[PartyRole],
    observer: &dyn Observer,
) -> Result<TlsListener, Error> {
    let peers = roles.iter().flat_map(|&role| config.peers(role)).map(|p| p.pinned.clone()).collect();
    listen_for(config, address, peers, observer)
}

/// [`listen`], for these peers.
pub(crate) fn listen_for(
    config: &PartyConfig,
    address: Option<&str>,
    peers: Vec<PinnedPeer>,
    observer: &dyn Observer,
) -> Result<TlsListener, Error> {
    let address = address.or(config.listen.as_deref()).ok_or_else(|| {
        let dir = config.dir.display();
        Error::NotReady(format!(
            "{dir}: no address to listen on; add `listen = \"HOST:PORT\"` or pass --listen"
        ))
    })?;
    let listener = TlsListener::bind(address, &config.identity, peers)?;
    let listener = listener.with_deadlines(config.deadlines).with_link(config.link);
    observer.event(&Event::Listening { address: listener.local_addr().to_string() });
    Ok(listener)
}

/// Serves connections, a thread each, until `stop`; then waits for the sessions under way. A session that fails is
/// reported as a warning and ends alone.
pub(crate) fn serve(
    config: &PartyConfig,
    listener: &TlsListener,
    stop: &AtomicBool,
    meter: &Meter,
    observer: &dyn Observer,
    session: impl Fn(&mut TlsChannel, &PeerConfig) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let warn = |text: String| observer.event(&Event::Warning { text });
    let (pending, places) = (Places::default(), Mutex::new(HashMap::<Fingerprint, Arc<Places>>::new()));
    std::thread::scope(|scope| {
        let mut failures = 0;
        loop {
            let stream = match listener.accept_tcp(None, stop) {
                Ok(stream) => stream,
                Err(NetError::Stopped { .. }) => {
                    // Newcomers would wait in vain; what is under way goes on.
                    listener.close();
                    return Ok(());
                }
                // Too many open files, or a connection that was gone before we got to it: that may pass.
                Err(e) if failures < MAX_FAILURES => {
                    warn(e.to_string());
                    failures += 1;
                    std::thread::sleep(RETRY_ACCEPT);
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            failures = 0;
            let Some(place) = pending.take(MAX_PENDING) else {
                warn(format!("more than {MAX_PENDING} handshakes at a time: a connection was closed"));
                continue;
            };
            let (session, warn, places) = (&session, &warn, &places);
            scope.spawn(move || {
                let outcome = listener.handshake(stream).map_err(Error::from).and_then(|mut channel| {
                    drop(place);
                    let peer = identify(config, &channel)?;
                    let own = {
                        let mut places = places.lock().unwrap_or_else(PoisonError::into_inner);
                        places.entry(peer.pinned.fingerprint()).or_insert_with(Arc::default).clone()
                    };
                    let Some(_place) = own.take(MAX_SESSIONS) else {
                        let reason = format!("more than {MAX_SESSIONS} sessions of one party at a time");
                        return Err(wire::refuse(&mut channel, wire::refusal::UNAVAILABLE, &reason));
                    };
                    // A bug in one session must not take the others down.
                    let outcome = catch_unwind(AssertUnwindSafe(|| session(&mut channel, peer)));
                    let outcome = outcome.unwrap_or_else(|_| Err(internal(&channel)));
                    // What was sent still has to arrive; a session that failed has nothing more to say.
                    let closed = if outcome.is_ok() { channel.shutdown() } else { Ok(()) };
                    meter.connection(&channel);
                    outcome.and(closed.map_err(Error::from))
                });
                if let Err(e) = outcome {
                    warn(e.to_string());
                }
            });
        }
    })
}

fn internal(channel: &dyn Channel) -> Error {
    Error::Peer {
        peer: channel.peer().to_string(),
        problem: "the session ended with an internal error".to_owned(),
    }
}

/// Counts what goes on at a time.
#[derive(Default)]
struct Places(AtomicUsize);

impl Places {
    /// A place, if fewer than `most` are taken.
    fn take(&self, most: usize) -> Option<Place<'_>> {
        let place = Place(self);
        (self.0.fetch_add(1, Ordering::SeqCst) < most).then_some(place)
    }
}

/// Given back however it ends.
struct Place<'a>(&'a Places);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The configured peer at the other end; TLS has already checked its certificate.
fn identify<'a>(config: &'a PartyConfig, channel: &TlsChannel) -> Result<&'a PeerConfig, Error> {
    let fingerprint = channel.peer().fingerprint;
    config.peers.iter().find(|p| p.pinned.fingerprint() == fingerprint).ok_or_else(|| Error::Peer {
        peer: channel.peer().to_string(),
        problem: "its certificate is not in this party's configuration".to_owned(),
    })
}

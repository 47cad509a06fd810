//! A worker: listens, gets its key, loads its model, answers, and ends when its key does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self as std_mpsc, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use privet_attest::{Attester, Policy, Verifier};
use privet_keys::{Clock, Grant, KeysError, Limits, Server, ServerTls};
use privet_seal::{KeyFingerprint, KeyVersion};
use tokio::sync::{mpsc, watch};

use crate::engine::{Engine, Halt, Load, Loaded, Program, Task};
use crate::error::EnclaveError;
use crate::next::{Forward, NextSetting, forward};
use crate::session::{FAREWELL, Office, State};
use crate::tenure::{KeySource, Tenure, still_accepts};
use crate::wire::{ModelInfo, PROTOCOL, RefusalKind};

/// How often the worker looks at clock and signals.
const GLANCE: Duration = Duration::from_millis(20);
/// Between two attempts to have a key renewed, at least and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Something that happened at a worker. Sizes and times, never data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerEvent {
    /// Clients can connect; they wait for the model.
    Listening(String),
    /// The key is there.
    Key {
        /// From the request for it.
        took: Duration,
        /// Until when it may be used, in seconds since 1970.
        ends: u64,
    },
    /// The model is in memory.
    Ready {
        /// Which.
        model: Arc<ModelInfo>,
        /// From the key's arrival.
        took: Duration,
        /// Of it verifying and decrypting, on all threads together.
        decrypted: Duration,
    },
    /// The first answer has left.
    First {
        /// From the key's arrival.
        after: Duration,
    },
    /// An answer has left.
    Answered {
        /// In the queue.
        queued: Duration,
        /// Computing.
        computed: Duration,
        /// Verifying and decrypting weights meanwhile, on all threads together.
        decrypted: Duration,
    },
    /// A client was refused.
    Refused {
        /// Why.
        kind: RefusalKind,
        /// In words, as the client reads them.
        detail: String,
    },
    /// Something failed here, of which clients need not know more.
    Failed(String),
    /// The key may be used longer.
    Renewed {
        /// Until when, in seconds since 1970.
        ends: u64,
    },
    /// The key could not be renewed; that is tried again.
    NotRenewed(String),
}

/// Told what happens.
pub type Tell = dyn Fn(&WorkerEvent) + Send + Sync;

/// What a worker is and offers.
pub struct WorkerSetting {
    /// Where clients connect.
    pub listen: String,
    /// Proves what runs here.
    pub attester: Arc<dyn Attester>,
    /// Which clients may connect: those that prove the same of themselves; none here lets everyone.
    pub clients: Option<(Arc<dyn Verifier>, Policy)>,
    /// The worker behind, where this one has an earlier part of a model.
    pub next: Option<NextSetting>,
    /// Connections at a time.
    pub sessions: usize,
    /// Inputs that may wait; a quarter of them, rounded up, from one address.
    pub queue: usize,
    /// Threads that multiply.
    pub threads: usize,
    /// Most seconds for which the key is used without asking for it again.
    pub key_lifetime: u64,
    /// What the key's end is compared with.
    pub clock: Arc<dyn Clock>,
}

/// Serves until `stop` is set or the key ends. `load` makes the model that the grant opens; it gives up when it is told to. When
/// this returns, however it does, the model has been dropped.
///
/// # Errors
/// If the worker cannot listen or attest, does not get its key or model, or its key ended.
pub fn serve(
    setting: WorkerSetting,
    source: &Arc<dyn KeySource>,
    load: impl FnOnce(&Grant, &Halt) -> Result<Box<dyn Program>, EnclaveError> + Send + 'static,
    stop: &AtomicBool,
    tell: Arc<Tell>,
) -> Result<(), EnclaveError> {
    let WorkerSetting { listen, attester, clients, next, sessions, queue, threads, key_lifetime, clock } =
        setting;
    let tenure = Arc::new(Tenure::new(clock, key_lifetime));
    let (state, watched) = watch::channel(State::Loading);
    let (tasks, queued) = mpsc::channel(queue.max(1));
    let began = Arc::new(Mutex::new(None));
    let tell = telling_first(tell, began.clone());
    let office = Office {
        attester: attester.clone(),
        state: watched,
        tasks: tasks.clone(),
        crowd: Arc::default(),
        places_of_one: queue.div_ceil(4).max(1),
        tenure: tenure.clone(),
        tell: tell.clone(),
    };
    let proves_clients = clients.is_some();
    let tls = ServerTls::attested_for(PROTOCOL, attester.clone(), clients)?;
    // Blocking work of connections is to make evidence.
    let limits = Limits { connections: sessions, request: FAREWELL, workers: 2, ..Limits::default() };
    let server = Server::speaking(&listen, tls, Arc::new(office), limits)?;
    tell(&WorkerEvent::Listening(server.address().to_string()));
    let closing = Arc::new(AtomicBool::new(false));
    let closed = closing.clone();
    let serving = thread::spawn(move || server.run(&closed));
    let worker = Worker { source, tenure, stop, serving: &serving, tell: &tell, state: &state };
    // Of what is computed, one more than is being sent on may wait for the worker behind.
    let (forwards, forwarded) = std_mpsc::sync_channel(1);
    let onwards = next.is_some().then_some(forwards);
    let outcome = worker.work(Box::new(load), (tasks, queued), threads, onwards, &began, |loaded| {
        if loaded.entrance.is_some() && !proves_clients {
            let text =
                "stages that begin in the middle take tensors from attested workers only: say which clients";
            return Err(EnclaveError::Model(text.to_owned()));
        }
        follow(loaded, next, attester, forwarded)
    });
    worker.end(&outcome);
    // The model is gone; who is still connected gets a moment to hear why.
    closing.store(true, Ordering::SeqCst);
    let served =
        serving.join().unwrap_or(Err(KeysError::Internal("the worker's connections ended by a panic")));
    outcome.and(served.map_err(EnclaveError::from))
}

/// Tells the time from the key to the first answer too.
fn telling_first(tell: Arc<Tell>, began: Arc<Mutex<Option<Instant>>>) -> Arc<Tell> {
    Arc::new(move |event: &WorkerEvent| {
        tell(event);
        if matches!(event, WorkerEvent::Answered { .. })
            && let Some(key) = began.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            tell(&WorkerEvent::First { after: key.elapsed() });
        }
    })
}

/// Starts what asks the worker behind, where there has to be one.
fn follow(
    loaded: &Loaded,
    next: Option<NextSetting>,
    attester: Arc<dyn Attester>,
    jobs: std_mpsc::Receiver<Forward>,
) -> Result<(), EnclaveError> {
    let fail = |text: &str| Err(EnclaveError::Model(text.to_owned()));
    match (&loaded.exit, next) {
        (Some(exit), Some(next)) => {
            let exit = exit.clone();
            thread::spawn(move || forward(&next, &*attester, &exit, &jobs));
            Ok(())
        }
        (None, None) => Ok(()),
        (Some(_), None) => fail("there are stages behind these, and no worker that has them is named"),
        (None, Some(_)) => fail("a worker behind this one is named, and there are no stages behind these"),
    }
}

type Serving = thread::JoinHandle<Result<(), KeysError>>;

struct Worker<'a> {
    source: &'a Arc<dyn KeySource>,
    tenure: Arc<Tenure>,
    stop: &'a AtomicBool,
    serving: &'a Serving,
    tell: &'a Arc<Tell>,
    state: &'a watch::Sender<State>,
}

/// What a worker has: the model, and the key that opened it.
struct Started {
    loaded: Arc<Loaded>,
    key: (KeyFingerprint, KeyVersion),
}

impl Worker<'_> {
    /// Gets the key and with it the model, checks what was loaded, and keeps the key as long as it may. The model is gone at the
    /// end, whatever that is.
    fn work(
        &self,
        load: Box<Load>,
        queue: (mpsc::Sender<Task>, mpsc::Receiver<Task>),
        threads: usize,
        next: Option<std_mpsc::SyncSender<Forward>>,
        began: &Mutex<Option<Instant>>,
        check: impl FnOnce(&Loaded) -> Result<(), EnclaveError>,
    ) -> Result<(), EnclaveError> {
        let (asked, start) = (self.tenure.now(), Instant::now());
        let Some(grant) = self.key()? else { return Ok(()) };
        let arrived = Instant::now();
        self.tenure.extend(&grant, asked);
        let key = (grant.fingerprint, grant.key_version);
        (self.tell)(&WorkerEvent::Key { took: start.elapsed(), ends: self.tenure.ends() });
        let over = self.tenure.clone();
        let (engine, loading) = Engine::start(load, grant, queue, threads, next, move || over.is_over())?;
        let outcome = self.run(&engine, &loading, key, arrived, began, check);
        // Connections hear of it before what they wait for is given up.
        self.end(&outcome);
        drop(engine);
        outcome
    }

    /// The key; none if the worker is stopped before it comes.
    fn key(&self) -> Result<Option<Grant>, EnclaveError> {
        let (sender, granted) = std_mpsc::sync_channel(1);
        // On a thread of its own: the server may let it wait, and this worker may be stopped meanwhile.
        let source = self.source.clone();
        thread::spawn(move || drop(sender.send(source.fetch(None))));
        let granted = self.wait(&granted, "asking for the key ended by a panic", || Ok(()))?;
        Ok(granted.transpose()?)
    }

    fn run(
        &self,
        engine: &Engine,
        loading: &std_mpsc::Receiver<Result<Loaded, EnclaveError>>,
        key: (KeyFingerprint, KeyVersion),
        arrived: Instant,
        began: &Mutex<Option<Instant>>,
        check: impl FnOnce(&Loaded) -> Result<(), EnclaveError>,
    ) -> Result<(), EnclaveError> {
        let key_holds = || if self.tenure.is_over() { Err(self.tenure.over()) } else { Ok(()) };
        let made = self.wait(loading, "the model's loading ended by a panic", key_holds)?;
        let Some(loaded) = made.transpose()? else { return Ok(()) };
        loaded.info.check().map_err(|problem| EnclaveError::Model(format!("the model has {problem}")))?;
        check(&loaded)?;
        *began.lock().unwrap_or_else(PoisonError::into_inner) = Some(arrived);
        let model = Arc::new(loaded.info.clone());
        let decrypted = loaded.decrypted;
        (self.tell)(&WorkerEvent::Ready { model, took: arrived.elapsed(), decrypted });
        let started = Started { loaded: Arc::new(loaded), key };
        self.state.send_replace(State::Ready(started.loaded.clone()));
        self.keep(&started, engine)
    }

    /// Tells connections that the worker ends, and why.
    fn end(&self, outcome: &Result<(), EnclaveError>) {
        self.state.send_replace(State::Ended(match outcome {
            Ok(()) => RefusalKind::Stopping,
            Err(EnclaveError::KeyEnded(_)) => RefusalKind::KeyEnded,
            Err(_) => RefusalKind::Failed,
        }));
    }

    /// What another thread sends; none if the worker is stopped before it comes.
    fn wait<T>(
        &self,
        coming: &std_mpsc::Receiver<T>,
        panicked: &'static str,
        still: impl Fn() -> Result<(), EnclaveError>,
    ) -> Result<Option<T>, EnclaveError> {
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return Ok(None);
            }
            still()?;
            match coming.recv_timeout(GLANCE) {
                Ok(came) => return Ok(Some(came)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(EnclaveError::Internal(panicked)),
            }
        }
    }

    /// Has the key renewed in time, until the worker is stopped or may not use it any more.
    fn keep(&self, started: &Started, engine: &Engine) -> Result<(), EnclaveError> {
        let Started { loaded, key: (_, version) } = started;
        let (answers, answered) = std_mpsc::channel();
        let mut asks_at = Instant::now() + self.pause(2);
        let mut asked: Option<u64> = None;
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return Ok(());
            }
            if self.tenure.is_over() {
                return Err(self.tenure.over());
            }
            if engine.has_ended() || self.serving.is_finished() {
                return Err(EnclaveError::Internal("a part of the worker has ended"));
            }
            match (asked, answered.try_recv()) {
                (Some(at), Ok(again)) => {
                    asked = None;
                    asks_at = Instant::now() + self.renewed(started.key.0, &loaded.info, again, at)?;
                }
                (None, Err(TryRecvError::Empty)) if Instant::now() >= asks_at => {
                    asked = Some(self.tenure.now());
                    // On a thread of its own: the server may let it wait, and the key may end meanwhile.
                    let (source, answers, version) = (self.source.clone(), answers.clone(), *version);
                    thread::spawn(move || drop(answers.send(source.fetch(Some(version)))));
                }
                _ => {}
            }
            thread::sleep(GLANCE);
        }
    }

    /// Takes what came of asking again; how long to wait until the next time.
    fn renewed(
        &self,
        first: KeyFingerprint,
        model: &ModelInfo,
        again: Result<Grant, KeysError>,
        asked: u64,
    ) -> Result<Duration, EnclaveError> {
        match again {
            Ok(again) => {
                still_accepts(first, &again, model)?;
                self.tenure.extend(&again, asked);
                (self.tell)(&WorkerEvent::Renewed { ends: self.tenure.ends() });
                Ok(self.pause(2))
            }
            Err(error) if error.is_final() => Err(EnclaveError::KeyEnded(error.to_string())),
            Err(error) => {
                (self.tell)(&WorkerEvent::NotRenewed(error.to_string()));
                Ok(self.pause(8))
            }
        }
    }

    /// A part of the time that is left, within the bounds for retries where it is short.
    fn pause(&self, part: u32) -> Duration {
        let left = Duration::from_secs(self.tenure.ends().saturating_sub(self.tenure.now()));
        match part {
            2 => (left / 2).max(RETRY.0),
            part => (left / part).clamp(RETRY.0, RETRY.1),
        }
    }
}

//! One client's connection, on the worker's side.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use privet_attest::Attester;
use privet_keys::{Accepted, Crowd, Speaker};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use crate::EnclaveError;
use crate::engine::{Done, Job, Loaded, Task, Took};
use crate::freshness::{EXPORTER_BYTES, EXPORTER_LABEL, Freshness};
use crate::stages::{HOP_LABEL, HOP_SECRET_BYTES, HopSecrets, Opener};
use crate::tensor::{self, total};
use crate::tenure::Tenure;
use crate::wire::{
    self, ANSWER_FRONT, HELLO_BYTES, INFER_FRONT, Kind, Refusal, RefusalKind, WIRE_VERSION, Welcome,
};
use crate::worker::{Tell, WorkerEvent};

/// For a hello, and for what is written to a client.
const GREETING: Duration = Duration::from_secs(10);
/// For a client between two requests.
const IDLE: Duration = Duration::from_secs(300);
/// For the inputs of a request, once it has begun, and for its answer to be taken.
const TRANSFER: Duration = Duration::from_secs(60);
/// For the model to be there, for clients that come before it.
const LOADING: Duration = Duration::from_secs(120);
/// For an answer to be computed, the queue before it included.
const COMPUTING: Duration = Duration::from_secs(1800);
/// For everything that is still said once the worker ends.
pub(crate) const FAREWELL: Duration = Duration::from_millis(500);

/// What all connections see of the worker.
#[derive(Clone)]
pub(crate) enum State {
    Loading,
    Ready(Arc<Loaded>),
    Ended(RefusalKind),
}

type Stream = TlsStream<TcpStream>;

/// What a worker has for its clients.
pub(crate) struct Office {
    pub(crate) attester: Arc<dyn Attester>,
    pub(crate) state: watch::Receiver<State>,
    pub(crate) tasks: mpsc::Sender<Task>,
    /// Who has inputs in the queue, and how many one address may have.
    pub(crate) crowd: Arc<Crowd>,
    pub(crate) places_of_one: usize,
    pub(crate) tenure: Arc<Tenure>,
    pub(crate) tell: Arc<Tell>,
}

/// Why a connection ends.
enum End {
    /// The client has gone, or is too slow.
    Gone,
    Refused(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Speaker for Office {
    fn speak(self: Arc<Self>, connection: Accepted) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let Accepted { mut stream, public_key, from } = connection;
            let mut wait = GREETING;
            if let Err(End::Refused(refusal)) = self.serve(&mut stream, public_key, from).await {
                (self.tell)(&WorkerEvent::Refused { kind: refusal.kind, detail: refusal.detail.clone() });
                if matches!(refusal.kind, RefusalKind::KeyEnded | RefusalKind::Stopping) {
                    wait = FAREWELL;
                }
                if let Ok(bytes) = wire::encode(&refusal) {
                    let written = wire::write_frame(&mut stream, Kind::Refusal, &bytes);
                    // Whoever does not read it is not told.
                    let _ = timeout(wait, written).await;
                }
            }
            let _ = timeout(wait, stream.shutdown()).await;
        })
    }
}

impl Office {
    async fn serve(
        &self,
        stream: &mut Stream,
        public_key: Option<Arc<[u8]>>,
        from: IpAddr,
    ) -> Result<(), End> {
        let mut state = self.state.clone();
        let loaded = self.greet(stream, public_key, &mut state).await?;
        let mut opener = opener(stream, &loaded)?;
        loop {
            let request = tokio::select! {
                request = self.request(stream, &loaded, opener.as_mut()) => request?,
                kind = ended(&mut state) => return Err(farewell(kind).into()),
            };
            let Some((number, inputs)) = request else { return Ok(()) };
            let done = tokio::select! {
                kind = ended(&mut state) => return Err(farewell(kind).into()),
                done = self.compute(inputs, from) => done?,
            };
            self.answer(stream, number, &done).await?;
            let Took { queued, computed, decrypted } = done.took;
            (self.tell)(&WorkerEvent::Answered { queued, computed, decrypted });
        }
    }

    /// Takes the hello, and proves to this client, on this connection, what runs here.
    async fn greet(
        &self,
        stream: &mut Stream,
        public_key: Option<Arc<[u8]>>,
        state: &mut watch::Receiver<State>,
    ) -> Result<Arc<Loaded>, End> {
        let public_key = public_key.ok_or_else(failed)?;
        let exporter = [0; EXPORTER_BYTES];
        let exporter = stream.get_ref().1.export_keying_material(exporter, EXPORTER_LABEL, None);
        let exporter = exporter.map_err(|_| failed())?;
        let limit = |kind| if kind == Kind::Hello { HELLO_BYTES as u64 } else { 0 };
        let hello = timeout(GREETING, frame(stream, limit, GREETING)).await.map_err(|_| End::Gone)??;
        let (_, hello) = hello.ok_or(End::Gone)?;
        let nonce = wire::read_hello(&hello)?;
        let model = match timeout(LOADING, loaded(state)).await {
            Ok(Ok(model)) => model,
            Ok(Err(kind)) => return Err(farewell(kind).into()),
            Err(_) => {
                return Err(
                    Refusal::new(RefusalKind::NotReady, "the model is not loaded yet; come back").into()
                );
            }
        };
        let described = wire::encode(&model.info).map_err(|_| failed())?;
        let model_hash = wire::model_hash(&described);
        let attester = self.attester.clone();
        let made = tokio::task::spawn_blocking(move || {
            Freshness { public_key: &public_key, nonce, exporter, model: model_hash }.attest(&*attester)
        });
        let evidence = made.await.map_err(|_| failed())?.map_err(|error| {
            (self.tell)(&WorkerEvent::Failed(error.to_string()));
            failed()
        })?;
        let welcome = Welcome { version: WIRE_VERSION, evidence: evidence.encode(), model: described };
        let bytes = wire::encode(&welcome).map_err(|_| failed())?;
        write(stream, Kind::Welcome, &bytes, GREETING).await?;
        Ok(model)
    }

    /// The next inputs; none where the client has ended.
    async fn request(
        &self,
        stream: &mut Stream,
        loaded: &Loaded,
        opener: Option<&mut Opener>,
    ) -> Result<Option<(u64, Vec<privet_graph::Tensor>)>, End> {
        let inputs = &loaded.info.inputs;
        let expected = loaded.entrance.as_ref().map_or_else(|| total(inputs), |entrance| entrance.bytes());
        let expected = INFER_FRONT as u64 + expected;
        let limit = |kind| if kind == Kind::Infer { expected } else { 0 };
        let Some((_, mut body)) = frame(stream, limit, IDLE).await? else { return Ok(None) };
        let protocol = |problem: String| Refusal::new(RefusalKind::Protocol, problem);
        let number =
            wire::number_at(&body, 0).ok_or_else(|| protocol("no number of the request".to_owned()))?;
        let inputs = match opener {
            Some(opener) => {
                opener.open(&mut body[INFER_FRONT..]).map_err(|error| protocol(error.to_string()))?
            }
            None => tensor::read(inputs, &body[INFER_FRONT..]).map_err(protocol)?,
        };
        Ok(Some((number, inputs)))
    }

    async fn compute(&self, inputs: Vec<privet_graph::Tensor>, from: IpAddr) -> Result<Done, End> {
        self.check_key()?;
        let most = self.places_of_one;
        let place = self.crowd.enter(from, most).map_err(|_| {
            let text = format!("your address has {most} inputs waiting, no more are taken; come back later");
            Refusal::new(RefusalKind::Busy, text)
        })?;
        let (reply, done) = oneshot::channel();
        let job = Job { inputs, entered: Instant::now(), place, reply };
        self.tasks.try_send(Task::Infer(job)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Refusal::new(RefusalKind::Busy, "too many inputs wait already; come back later")
            }
            mpsc::error::TrySendError::Closed(_) => failed(),
        })?;
        let done = timeout(COMPUTING, done).await.map_err(|_| {
            Refusal::new(RefusalKind::Failed, format!("not computed within {} s", COMPUTING.as_secs()))
        })?;
        // What was given up because the worker ends has not failed.
        if let State::Ended(kind) = &*self.state.borrow() {
            return Err(farewell(*kind).into());
        }
        let Ok(done) = done else {
            // Its turn came after the key's end.
            self.check_key()?;
            return Err(failed().into());
        };
        let done = done.map_err(|error| {
            // The words may name layers and shapes of the model, which the client need not know.
            (self.tell)(&WorkerEvent::Failed(error.to_string()));
            let text = match error {
                EnclaveError::Untrusted { .. }
                | EnclaveError::Refused { .. }
                | EnclaveError::Peer { .. }
                | EnclaveError::Deadline { .. }
                | EnclaveError::Stale { .. }
                | EnclaveError::OtherModel { .. } => {
                    "the worker with the next stages does not answer; ask again later"
                }
                _ => "the model does not run on this input",
            };
            Refusal::new(RefusalKind::Failed, text)
        })?;
        // An answer is not given either once the key has ended.
        self.check_key()?;
        Ok(done)
    }

    fn check_key(&self) -> Result<(), Refusal> {
        if self.tenure.is_over() { Err(farewell(RefusalKind::KeyEnded)) } else { Ok(()) }
    }

    async fn answer(&self, stream: &mut Stream, number: u64, done: &Done) -> Result<(), End> {
        let mut body = tensor::room(ANSWER_FRONT, &done.outputs);
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        for value in [number, micros(done.took.queued), micros(done.took.computed)] {
            body.extend_from_slice(&value.to_le_bytes());
        }
        done.outputs.iter().for_each(|output| tensor::append(&mut body, output));
        write(stream, Kind::Answer, &body, TRANSFER).await
    }
}

/// Opens what another worker gives, if that is what this one takes.
fn opener(stream: &Stream, loaded: &Loaded) -> Result<Option<Opener>, End> {
    let Some(entrance) = &loaded.entrance else { return Ok(None) };
    let secrets = stream.get_ref().1.export_keying_material([0; HOP_SECRET_BYTES], HOP_LABEL, None);
    let secrets = HopSecrets(Zeroizing::new(secrets.map_err(|_| failed())?));
    Ok(Some(entrance.opener(&secrets).map_err(|_| failed())?))
}

fn failed() -> Refusal {
    Refusal::new(RefusalKind::Failed, "something failed in the worker")
}

fn farewell(kind: RefusalKind) -> Refusal {
    let detail = match kind {
        RefusalKind::KeyEnded => {
            "this worker's lease of the model's key has ended, or its owner has taken it back"
        }
        RefusalKind::Stopping => "this worker is being stopped",
        _ => "this worker has no model",
    };
    Refusal::new(kind, detail)
}

/// The model, as soon as it is there.
async fn loaded(state: &mut watch::Receiver<State>) -> Result<Arc<Loaded>, RefusalKind> {
    loop {
        match &*state.borrow_and_update() {
            State::Ready(model) => return Ok(model.clone()),
            State::Ended(kind) => return Err(*kind),
            State::Loading => {}
        }
        if state.changed().await.is_err() {
            return Err(RefusalKind::Stopping);
        }
    }
}

/// Why the worker has ended, as soon as it has.
async fn ended(state: &mut watch::Receiver<State>) -> RefusalKind {
    loop {
        if let State::Ended(kind) = &*state.borrow_and_update() {
            return *kind;
        }
        if state.changed().await.is_err() {
            return RefusalKind::Stopping;
        }
    }
}

/// The next frame, which may be waited for so long before it begins; none where the client has ended.
async fn frame(
    stream: &mut Stream,
    limit: impl Fn(Kind) -> u64,
    wait: Duration,
) -> Result<Option<(Kind, Zeroizing<Vec<u8>>)>, End> {
    let gone = |_| End::Gone;
    let head = timeout(wait, wire::read_head(stream, limit)).await.map_err(|_| End::Gone)?.map_err(gone)?;
    let Some(head) = head else { return Ok(None) };
    let head = head.map_err(|problem| Refusal::new(RefusalKind::Protocol, problem))?;
    let body = timeout(TRANSFER, wire::read_body(stream, head)).await.map_err(|_| End::Gone)?;
    Ok(Some((head.kind, body.map_err(gone)?)))
}

async fn write(stream: &mut Stream, kind: Kind, bytes: &[u8], wait: Duration) -> Result<(), End> {
    let written = timeout(wait, wire::write_frame(stream, kind, bytes)).await;
    written.map_err(|_| End::Gone)?.map_err(|_| End::Gone)
}

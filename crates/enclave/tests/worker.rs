//! Workers and clients in one process, with programs and clocks of the tests: queues, ends of keys, what neither side accepts.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ndarray::{ArrayD, IxDyn};
use privet_attest::ratls::{Authenticator, Freshness, client_config};
use privet_attest::sample::{AllowSampleInsecure, SampleAttester};
use privet_attest::{Attester, Binding, Policy, Verifier, Verifiers};
use privet_enclave::{
    Asked, Connection, EVIDENCE_AGE, EnclaveError, Ending, Halt, KeySource, ModelInfo, ModelPin, PROTOCOL,
    Program, RefusalKind, TensorSpec, WIRE_VERSION, WorkerEvent, WorkerSetting, serve,
};
use privet_graph::{DType, Tensor};
use privet_keys::{Accepted, Grant, KeysError, Limits, ManualClock, Server, ServerTls, Speaker};
use privet_seal::{ContentKey, KeyVersion, ModelId, ModelVersion, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MEASUREMENT: [u8; 32] = [5; 32];
/// Of the exporter that a worker's evidence is bound to, as docs/formats.md has it.
const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL-privet-enclave-v1";

fn attester(measurement: [u8; 32]) -> Arc<dyn Attester> {
    Arc::new(SampleAttester::new(AllowSampleInsecure::from_flag(true).unwrap(), measurement))
}

fn verifier() -> Arc<dyn Verifier> {
    Arc::new(Verifiers::default().allow_sample_insecure(true).unwrap())
}

fn policy(measurement: [u8; 32]) -> Policy {
    let hex: String = measurement.iter().map(|b| format!("{b:02x}")).collect();
    let text = "version = 1\n[sample]\nallow_sample_insecure = true\n";
    Policy::parse(&format!("{text}measurement = [\"{hex}\"]\n")).unwrap()
}

/// Grants without a server.
struct Grants {
    not_after: Option<u64>,
    refused: AtomicBool,
    /// It takes as long to get one as somebody holds this.
    gate: Mutex<()>,
}

impl KeySource for Grants {
    fn fetch(&self, _: Option<KeyVersion>) -> Result<Grant, KeysError> {
        drop(self.gate.lock());
        if self.refused.load(Ordering::SeqCst) {
            let kind = "PolicyDeny".to_owned();
            return Err(KeysError::Refused { peer: "server".to_owned(), kind, detail: "revoked".to_owned() });
        }
        let key = ContentKey::from_slice(&[0; 32]).unwrap();
        let signer = SigningKey::from_slice(&[1; 32]).unwrap().verifying_key().unwrap();
        let json = serde_json::json!({
            "version": 1, "key_id": "k", "key_version": 1, "model_id": ModelId::from_bytes([7; 16]).to_string(),
            "verifying_key": signer.to_string(), "fingerprint": key.fingerprint().to_string(),
            "model_digest": null, "minimum_model_version": null, "not_after": self.not_after,
            "key": "AAAA".repeat(10) + "AAA=",
        });
        Ok(serde_json::from_value(json).unwrap())
    }
}

/// Doubles its input, as soon as the test lets it.
struct Doubler {
    info: ModelInfo,
    gate: Arc<Mutex<()>>,
    started: mpsc::Sender<()>,
    halt: Halt,
    ends: mpsc::Sender<&'static str>,
}

/// As its weights would be wiped.
impl Drop for Doubler {
    fn drop(&mut self) {
        let _ = self.ends.send("wiped");
    }
}

impl Program for Doubler {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn run(&mut self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, EnclaveError> {
        let _ = self.started.send(());
        // As programs do between operators.
        let _open = loop {
            match self.gate.try_lock() {
                Ok(open) => break open,
                Err(_) if self.halt.load(Ordering::SeqCst) => return Err(EnclaveError::Internal("given up")),
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        };
        let Tensor::F32(x) = &inputs[0] else { panic!("a tensor of floats") };
        if x.iter().any(|v| *v < 0.0) {
            return Err(EnclaveError::Model("layer secret-name does not take negative numbers".to_owned()));
        }
        Ok(vec![x.mapv(|v| 2.0 * v).into()])
    }
}

fn owner() -> VerifyingKey {
    SigningKey::from_slice(&[1; 32]).unwrap().verifying_key().unwrap()
}

fn info() -> ModelInfo {
    let spec = |name: &str| TensorSpec::new(name, DType::F32, &[2, 3]);
    ModelInfo {
        verifying_key: owner(),
        id: ModelId::from_bytes([7; 16]),
        version: ModelVersion::FIRST,
        digest: "ab".repeat(32).parse().unwrap(),
        inputs: vec![spec("x")],
        outputs: vec![spec("y")],
        endings: vec![Ending::Values],
    }
}

struct Worker {
    address: String,
    gate: Arc<Mutex<()>>,
    started: mpsc::Receiver<()>,
    stop: Arc<AtomicBool>,
    clock: Arc<ManualClock>,
    grants: Arc<Grants>,
    events: mpsc::Receiver<WorkerEvent>,
    ends: mpsc::Receiver<&'static str>,
    serving: JoinHandle<Result<(), EnclaveError>>,
}

fn start(queue: usize, not_after: Option<u64>) -> Worker {
    let gate = Arc::new(Mutex::new(()));
    let grants = Arc::new(Grants { not_after, refused: AtomicBool::new(false), gate: Mutex::new(()) });
    start_with(queue, gate, grants, info())
}

fn start_with(queue: usize, gate: Arc<Mutex<()>>, grants: Arc<Grants>, info: ModelInfo) -> Worker {
    let (starts, started) = mpsc::channel();
    let (wiped, ends) = mpsc::channel();
    let clock = Arc::new(ManualClock::new(1000));
    let (stop, (sender, events)) = (Arc::new(AtomicBool::new(false)), mpsc::channel());
    let setting = WorkerSetting {
        listen: "127.0.0.1:0".to_owned(),
        attester: attester(MEASUREMENT),
        clients: None,
        next: None,
        sessions: 32,
        queue,
        threads: 1,
        key_lifetime: 2,
        clock: clock.clone(),
    };
    let program = {
        let gate = gate.clone();
        move |_: &Grant, halt: &Halt| {
            let halt = halt.clone();
            Ok(Box::new(Doubler { info, gate, started: starts, halt, ends: wiped }) as _)
        }
    };
    let (source, stopped) = (grants.clone() as Arc<dyn KeySource>, stop.clone());
    let tell = move |event: &WorkerEvent| drop(sender.send(event.clone()));
    let serving = thread::spawn(move || serve(setting, &source, program, &stopped, Arc::new(tell)));
    let address = match events.recv().unwrap() {
        WorkerEvent::Listening(address) => address,
        other => panic!("{other:?}"),
    };
    Worker { address, gate, started, stop, clock, grants, events, ends, serving }
}

fn open(address: &str, measurement: [u8; 32]) -> Result<Connection, EnclaveError> {
    open_for(address, measurement, ModelPin::default(), EVIDENCE_AGE)
}

fn open_for(
    address: &str,
    measurement: [u8; 32],
    model: ModelPin,
    evidence_age: Duration,
) -> Result<Connection, EnclaveError> {
    Connection::open(&Asked {
        address,
        verifier: verifier(),
        policy: policy(measurement),
        model,
        attester: None,
        deadline: Duration::from_secs(30),
        evidence_age,
    })
}

fn input(value: f32) -> Tensor {
    ArrayD::from_elem(IxDyn(&[2, 3]), value).into()
}

fn refusal<T>(result: Result<T, EnclaveError>) -> RefusalKind {
    match result.err().unwrap() {
        EnclaveError::Refused { kind, .. } => kind,
        other => panic!("{other}"),
    }
}

#[test]
fn answers_come_in_turn_and_the_queue_is_bounded() {
    let worker = start(1, None);
    let mut first = open(&worker.address, MEASUREMENT).unwrap();
    let answer = first.ask(&[input(1.5)]).unwrap();
    assert!(matches!(&answer.outputs[0], Tensor::F32(y) if y.iter().all(|v| *v == 3.0)));
    worker.started.recv().unwrap();
    // One is computed, one waits, the third is told to come back.
    let closed = worker.gate.lock().unwrap();
    let ask =
        |mut connection: Connection, value| thread::spawn(move || connection.ask(&[input(value)]).map(drop));
    let computed = ask(first, 1.0);
    worker.started.recv().unwrap();
    let connections: Vec<Connection> = (0..2).map(|_| open(&worker.address, MEASUREMENT).unwrap()).collect();
    let waiting: Vec<_> = connections.into_iter().map(|c| ask(c, 2.0)).collect();
    let is_busy = |event: &WorkerEvent| matches!(event, WorkerEvent::Refused { kind: RefusalKind::Busy, .. });
    assert!(worker.events.iter().any(|event| is_busy(&event)));
    drop(closed);
    computed.join().unwrap().unwrap();
    let ends: Vec<_> = waiting.into_iter().map(|end| end.join().unwrap()).collect();
    assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1);
    let busy = ends.into_iter().find(Result::is_err).unwrap();
    assert_eq!(refusal(busy), RefusalKind::Busy);
    worker.stop.store(true, Ordering::SeqCst);
    worker.serving.join().unwrap().unwrap();
}

#[test]
fn an_answer_is_not_given_once_the_lease_has_ended() {
    let worker = start(4, Some(1001));
    let mut connection = open(&worker.address, MEASUREMENT).unwrap();
    connection.ask(&[input(1.0)]).unwrap();
    worker.started.recv().unwrap();
    let closed = worker.gate.lock().unwrap();
    let late = thread::spawn(move || connection.ask(&[input(1.0)]).map(drop));
    worker.started.recv().unwrap();
    // The lease ends while it is computed; each renewal brings the same end.
    worker.clock.set(1001);
    let ended = late.join().unwrap();
    drop(closed);
    assert_eq!(refusal(ended), RefusalKind::KeyEnded);
    assert!(matches!(worker.serving.join().unwrap(), Err(EnclaveError::KeyEnded(_))));
    assert!(matches!(open(&worker.address, MEASUREMENT), Err(EnclaveError::Peer { .. })));
}

#[test]
fn a_key_is_renewed_until_it_is_refused() {
    let worker = start(4, None);
    for now in 1001..1006 {
        worker.clock.set(now);
        let renewed = |event: WorkerEvent| matches!(event, WorkerEvent::Renewed { ends } if ends > now);
        assert!(worker.events.iter().any(renewed));
    }
    worker.grants.refused.store(true, Ordering::SeqCst);
    let error = worker.serving.join().unwrap().unwrap_err();
    assert!(matches!(&error, EnclaveError::KeyEnded(text) if text.contains("revoked")), "{error}");
}

#[test]
fn inputs_that_do_not_fit_are_refused_and_layers_are_not_named() {
    let worker = start(4, None);
    let mut connection = open(&worker.address, MEASUREMENT).unwrap();
    let small: Tensor = ArrayD::from_elem(IxDyn(&[2, 2]), 1.0f32).into();
    for inputs in [vec![], vec![small], vec![input(1.0), input(1.0)]] {
        assert!(matches!(connection.ask(&inputs), Err(EnclaveError::Input { .. })));
    }
    let error = connection.ask(&[input(-1.0)]).err().unwrap().to_string();
    assert!(error.contains("does not run") && !error.contains("secret-name"), "{error}");
    let other = open(&worker.address, [6; 32]).err().unwrap();
    assert!(matches!(&other, EnclaveError::Untrusted { .. }), "{other}");
    worker.stop.store(true, Ordering::SeqCst);
    worker.serving.join().unwrap().unwrap();
}

/// A TLS connection without the protocol; what comes back to these bytes, to its end.
fn raw(address: &str, bytes: &[u8]) -> Vec<u8> {
    let freshness = Freshness::Lifetime(Duration::from_secs(86_400));
    let peers = Arc::new(Authenticator::new(verifier(), policy(MEASUREMENT), freshness));
    let mut config = client_config(peers, None).unwrap();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("worker").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, stream).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    })
}

#[test]
fn what_is_not_the_protocol_is_refused() {
    let worker = start(4, None);
    let hello = [b"\x01\x2a\0\0\0PRIVENCL\x02\0".as_slice(), &[9; 32]].concat();
    let mut later = hello.clone();
    later[13] = 3;
    // Kind 5, a refusal, and its reason: 0 not the protocol, 1 another version.
    for (bytes, reason) in [
        (b"\x03\x08\0\0\0\0\0\0\0\0\0\0\0".to_vec(), 0),
        (b"\x01\x2b\0\0\0".to_vec(), 0),
        (b"\xff\x01\0\0\0".to_vec(), 0),
        (b"\x01\xff\xff\xff\xff".to_vec(), 0),
        (later, 1),
    ] {
        let answer = raw(&worker.address, &bytes);
        assert_eq!((answer[0], answer[5]), (5, reason), "{bytes:?}");
    }
    // After a proper hello: too many bytes for this model, and a hello again.
    for bytes in [b"\x03\x21\0\0\0".to_vec(), hello.clone()] {
        let answer = raw(&worker.address, &[hello.clone(), bytes].concat());
        assert_eq!(answer[0], 2);
        let length = u32::from_le_bytes(answer[1..5].try_into().unwrap()) as usize;
        assert_eq!((answer[5 + length], answer[10 + length]), (5, 0));
    }
    open(&worker.address, MEASUREMENT).unwrap().ask(&[input(1.0)]).unwrap();
    worker.stop.store(true, Ordering::SeqCst);
    worker.serving.join().unwrap().unwrap();
}

/// Says to every client what it said to another one.
struct Replayer(Vec<u8>);

impl Speaker for Replayer {
    fn speak(self: Arc<Self>, connection: Accepted) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let mut stream = connection.stream;
            let mut hello = [0; 47];
            let _ = stream.read_exact(&mut hello).await;
            let _ = stream.write_all(&self.0).await;
            let _ = stream.read_u8().await;
        })
    }
}

#[test]
fn evidence_of_another_connection_is_refused_before_an_input_leaves() {
    // An honest worker's words, on a host that has a key of its own attested (an older version of the worker, say) ..
    let worker = start(4, None);
    let hello = [b"\x01\x2a\0\0\0PRIVENCL\x02\0".as_slice(), &[9; 32]].concat();
    let said = raw(&worker.address, &[hello, b"\xff\0\0\0\0".to_vec()].concat());
    let length = u32::from_le_bytes(said[1..5].try_into().unwrap()) as usize;
    worker.stop.store(true, Ordering::SeqCst);
    worker.serving.join().unwrap().unwrap();
    // .. are not for this client's nonce and channel.
    let (address, end) = start_speaker(Arc::new(Replayer(said[..5 + length].to_vec())));
    match open(&address, MEASUREMENT).err().unwrap() {
        EnclaveError::Untrusted { source, .. } => {
            assert!(source.to_string().contains("another connection"), "{source}");
        }
        other => panic!("{other}"),
    }
    end();
}

/// Proves what it is, as a worker does, and answers every request with these bytes. What it says of its model may be another thing
/// than its evidence is for.
struct Liar(Vec<u8>, Option<ModelInfo>);

impl Liar {
    fn said(&self, model: &[u8]) -> Vec<u8> {
        self.1.as_ref().map_or_else(|| model.to_vec(), |other| postcard::to_stdvec(other).unwrap())
    }
}

impl Speaker for Liar {
    fn speak(self: Arc<Self>, connection: Accepted) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let Accepted { mut stream, public_key, .. } = connection;
            let channel = stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap();
            let mut hello = [0; 47];
            let _ = stream.read_exact(&mut hello).await;
            let model = postcard::to_stdvec(&info()).unwrap();
            let fresh = [&hello[15..], &channel, &Sha256::digest(&model)[..]].concat();
            let report_data = Binding::new(&public_key.unwrap(), Some(&fresh)).unwrap().report_data();
            let evidence = attester(MEASUREMENT).evidence(&report_data).unwrap().encode();
            let welcome = postcard::to_stdvec(&(WIRE_VERSION, evidence, self.said(&model))).unwrap();
            let frame = |kind: u8, body: &[u8]| {
                [&[kind], &u32::try_from(body.len()).unwrap().to_le_bytes()[..], body].concat()
            };
            let _ = stream.write_all(&frame(2, &welcome)).await;
            let mut request = [0; 5 + 8 + 24];
            let _ = stream.read_exact(&mut request).await;
            let _ = stream.write_all(&frame(4, &self.0)).await;
            let _ = stream.read_u8().await;
        })
    }
}

/// A server with this speaker; its address, and what ends it.
fn start_speaker(speaker: Arc<dyn Speaker>) -> (String, impl FnOnce()) {
    let tls = ServerTls::attested_for(PROTOCOL, attester(MEASUREMENT), None).unwrap();
    let server = Server::speaking("127.0.0.1:0", tls, speaker, Limits::default()).unwrap();
    let (address, stop) = (server.address().to_string(), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let serving = thread::spawn(move || server.run(&stopped));
    let end = move || {
        stop.store(true, Ordering::SeqCst);
        serving.join().unwrap().unwrap();
    };
    (address, end)
}

#[test]
fn answers_that_are_too_short_or_of_other_requests_are_refused() {
    let number = |n: u64| n.to_le_bytes().to_vec();
    let long = [number(1), vec![0; 16 + 23]].concat();
    let other = [number(2), vec![0; 16 + 24]].concat();
    for (answer, word) in [
        (Vec::new(), "found 0 bytes"),
        (number(1), "found 8 bytes"),
        ([number(1), vec![0; 15]].concat(), "found 23 bytes"),
        (long, "24 bytes, found 23"),
        (other, "request 2, expected 1"),
    ] {
        let (address, end) = start_speaker(Arc::new(Liar(answer, None)));
        let mut connection = open(&address, MEASUREMENT).unwrap();
        match connection.ask(&[input(1.0)]).err().unwrap() {
            EnclaveError::Peer { problem, .. } => assert!(problem.contains(word), "{problem}"),
            other => panic!("{other}"),
        }
        drop(connection);
        end();
    }
}

#[test]
fn what_a_worker_says_of_its_model_is_bound_to_its_evidence() {
    let other = ModelInfo { verifying_key: VerifyingKey::from_bytes([3; 32]), ..info() };
    let (address, end) = start_speaker(Arc::new(Liar(Vec::new(), Some(other))));
    match open(&address, MEASUREMENT).err().unwrap() {
        EnclaveError::Untrusted { source, .. } => {
            assert!(source.to_string().contains("another connection or model"), "{source}");
        }
        other => panic!("{other}"),
    }
    end();
}

#[test]
fn another_owners_model_gets_no_input() {
    let worker = start(4, None);
    let mut pin = ModelPin { verifying_key: Some(owner()), id: Some(info().id), ..ModelPin::default() };
    let connection = open_for(&worker.address, MEASUREMENT, pin.clone(), EVIDENCE_AGE).unwrap();
    assert_eq!(connection.model().verifying_key, owner());
    pin.verifying_key = Some(VerifyingKey::from_bytes([3; 32]));
    let error = open_for(&worker.address, MEASUREMENT, pin, EVIDENCE_AGE).err().unwrap();
    assert!(matches!(&error, EnclaveError::OtherModel { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&owner().to_string()) && text.contains("no input was sent to it"), "{text}");
    drop(connection);
    worker.stop.store(true, Ordering::SeqCst);
    worker.serving.join().unwrap().unwrap();
    assert!(worker.started.try_recv().is_err(), "nothing was computed");
}

#[test]
fn evidence_is_not_relied_on_for_longer_than_the_client_wants() {
    let worker = start(4, None);
    let mut fresh = open(&worker.address, MEASUREMENT).unwrap();
    assert!(!fresh.is_stale());
    fresh.ask(&[input(1.0)]).unwrap();
    worker.started.recv().unwrap();
    let mut old = open_for(&worker.address, MEASUREMENT, ModelPin::default(), Duration::ZERO).unwrap();
    assert!(old.is_stale());
    let error = old.ask(&[input(1.0)]).err().unwrap();
    assert!(matches!(&error, EnclaveError::Stale { .. }), "{error}");
    drop((fresh, old));
    worker.stop.store(true, Ordering::SeqCst);
    worker.serving.join().unwrap().unwrap();
    assert!(worker.started.try_recv().is_err(), "nothing was sent");
}

#[test]
fn one_address_has_a_quarter_of_the_queue() {
    let worker = start(8, None);
    let closed = worker.gate.lock().unwrap();
    let ask = |address: &str| {
        let mut connection = open(address, MEASUREMENT).unwrap();
        thread::spawn(move || connection.ask(&[input(1.0)]).map(drop))
    };
    let computed = ask(&worker.address);
    worker.started.recv().unwrap();
    // Two wait. Whichever comes third is refused, and told why.
    let own: Vec<_> = (0..3).map(|_| ask(&worker.address)).collect();
    let busy = |event: WorkerEvent| match event {
        WorkerEvent::Refused { kind: RefusalKind::Busy, detail } => Some(detail),
        _ => None,
    };
    let detail = worker.events.iter().find_map(busy).unwrap();
    assert!(detail.contains("your address has 2 inputs waiting"), "{detail}");
    // There is room for others.
    let other = ask(&from_another_address(&worker.address));
    drop(closed);
    computed.join().unwrap().unwrap();
    other.join().unwrap().unwrap();
    assert_eq!(own.into_iter().map(|end| end.join().unwrap()).filter(Result::is_ok).count(), 2);
    worker.stop.store(true, Ordering::SeqCst);
    worker.serving.join().unwrap().unwrap();
}

/// Forwards one connection to a worker, which sees it come from 127.0.0.2.
fn from_another_address(worker: &str) -> String {
    let worker: std::net::SocketAddr = worker.parse().unwrap();
    let (says, address) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            says.send(listener.local_addr().unwrap().to_string()).unwrap();
            let mut client = listener.accept().await.unwrap().0;
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
            let mut onwards = socket.connect(worker).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut onwards).await;
        });
    });
    address.recv().unwrap()
}

#[test]
fn the_model_is_wiped_at_the_leases_end_whoever_is_connected() {
    let worker = start(4, Some(1001));
    // One that shook hands and says nothing, one that does not even shake hands, and one whose answer is being computed.
    let idle = open(&worker.address, MEASUREMENT).unwrap();
    let mut silent = std::net::TcpStream::connect(&worker.address).unwrap();
    let closed = worker.gate.lock().unwrap();
    let mut connection = open(&worker.address, MEASUREMENT).unwrap();
    let late = thread::spawn(move || connection.ask(&[input(1.0)]).map(drop));
    worker.started.recv().unwrap();
    let (log, events) = mpsc::channel();
    let hung_up = log.clone();
    let ends = worker.ends;
    let watching = [
        thread::spawn(move || {
            let _ = log.send(ends.recv().unwrap());
        }),
        thread::spawn(move || {
            let _ = std::io::Read::read(&mut silent, &mut [0]);
            let _ = hung_up.send("closed");
        }),
    ];
    worker.clock.set(1001);
    // Nobody opens the gate: the computation is given up.
    assert_eq!(refusal(late.join().unwrap()), RefusalKind::KeyEnded);
    assert_eq!(events.recv().unwrap(), "wiped", "before connections are closed");
    assert!(matches!(worker.serving.join().unwrap(), Err(EnclaveError::KeyEnded(_))));
    assert_eq!(events.recv().unwrap(), "closed");
    watching.into_iter().for_each(|thread| thread.join().unwrap());
    drop((idle, closed));
}

#[test]
fn the_model_is_wiped_when_it_is_refused_after_loading() {
    let outputs = (0..300).map(|_| TensorSpec::new("y", DType::F32, &[1])).collect();
    let endings = vec![Ending::Values; 300];
    let (gate, stop) = (Arc::new(Mutex::new(())), Mutex::new(()));
    let grants = Arc::new(Grants { not_after: None, refused: AtomicBool::new(false), gate: stop });
    let worker = start_with(4, gate, grants, ModelInfo { outputs, endings, ..info() });
    let error = worker.serving.join().unwrap().unwrap_err();
    assert!(matches!(&error, EnclaveError::Model(text) if text.contains("found 300")), "{error}");
    // It was, before the worker returned.
    assert_eq!(worker.ends.try_recv(), Ok("wiped"));
}

#[test]
fn a_worker_stops_while_it_waits_for_its_key() {
    let grants = Arc::new(Grants { not_after: None, refused: AtomicBool::new(false), gate: Mutex::new(()) });
    let slow = grants.gate.lock().unwrap();
    let worker = start_with(4, Arc::new(Mutex::new(())), grants.clone(), info());
    worker.stop.store(true, Ordering::SeqCst);
    worker.serving.join().unwrap().unwrap();
    drop(slow);
    let events: Vec<WorkerEvent> = worker.events.try_iter().collect();
    assert!(events.is_empty(), "{events:?}");
}

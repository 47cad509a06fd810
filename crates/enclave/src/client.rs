//! Asking a worker, after it has proved what it is.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use privet_attest::ratls::{
    Attested, AttestedIdentity, Authenticator, Freshness as CertificateFreshness, RaTlsCertificate,
    client_config,
};
use privet_attest::{AttestError, Attester, Evidence, Policy, Verifier};
use privet_graph::Tensor;
use privet_keys::{
    LONGEST_SERVER, Randomness, SystemRandomness, Wanted, answer_problem, connect_problem, handshake_problem,
};
use rustls::pki_types::ServerName;
use rustls::{CertificateError, Error as TlsError};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use crate::error::EnclaveError;
use crate::freshness::{EXPORTER_BYTES, EXPORTER_LABEL, Freshness};
use crate::pin::ModelPin;
use crate::stages::{HOP_LABEL, HOP_SECRET_BYTES, HopSecrets};
use crate::tensor::{self, TensorSpec, total};
use crate::wire::{
    self, ANSWER_FRONT, INFER_FRONT, Kind, MAX_REFUSAL_BYTES, MAX_WELCOME_BYTES, MODEL_HASH_BYTES, ModelInfo,
    NONCE_BYTES, PROTOCOL, Refusal,
};

/// How long a client's own certificate is valid.
const IDENTITY_LIFETIME: Duration = Duration::from_secs(600);
/// How long a verification of evidence holds, where nobody says otherwise.
pub const EVIDENCE_AGE: Duration = Duration::from_secs(600);

/// Whom to ask, and who may be believed.
pub struct Asked<'a> {
    /// `HOST:PORT`.
    pub address: &'a str,
    /// Verifies evidence.
    pub verifier: Arc<dyn Verifier>,
    /// Which workers may see an input.
    pub policy: Policy,
    /// Whose model, and which, may be given one.
    pub model: ModelPin,
    /// Proves what runs here, to workers that ask for it.
    pub attester: Option<&'a dyn Attester>,
    /// For the connection, and for each answer.
    pub deadline: Duration,
    /// How long after its verification a worker is asked; [`EVIDENCE_AGE`] is a good choice. Later, its platform may have been
    /// found out, or its key taken: it has to be verified again, over a new connection.
    pub evidence_age: Duration,
}

/// A connection to a worker that has proved what it is.
pub struct Connection {
    runtime: Runtime,
    stream: TlsStream<TcpStream>,
    peer: String,
    deadline: Duration,
    model: ModelInfo,
    attested: Attested,
    verified: (Instant, SystemTime),
    evidence_age: Duration,
    number: u64,
}

/// What came back.
pub struct Answer {
    /// In the order of the model's outputs.
    pub outputs: Vec<Tensor>,
    /// In the worker's queue.
    pub queued: Duration,
    /// The worker's computing.
    pub computed: Duration,
}

impl Connection {
    /// Connects, and verifies the worker: in the handshake by its certificate, then by evidence that is made for this
    /// connection. Nothing is sent before but a nonce. Then it compares the model with the one that is asked for.
    ///
    /// # Errors
    /// If the worker cannot be reached, is not one that the policy accepts, serves another model, or refuses.
    pub fn open(asked: &Asked<'_>) -> Result<Self, EnclaveError> {
        let Asked { address, verifier, policy, model: pin, attester, deadline, evidence_age } = asked;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|_| EnclaveError::Internal("the operating system gave no sockets"))?;
        let config = {
            let freshness = CertificateFreshness::Lifetime(LONGEST_SERVER);
            let authenticator = Authenticator::new(verifier.clone(), policy.clone(), freshness);
            let make = |attester: &&dyn Attester| {
                AttestedIdentity::generate(*attester, None, SystemTime::now(), IDENTITY_LIFETIME)
            };
            let identity = attester.as_ref().map(make).transpose()?;
            let mut config = client_config(Arc::new(authenticator), identity.as_ref())?;
            config.alpn_protocols = vec![PROTOCOL.to_vec()];
            config
        };
        let mut nonce = [0; NONCE_BYTES];
        SystemRandomness.fill(&mut nonce)?;
        let peer = (*address).to_owned();
        let verified = (Instant::now(), SystemTime::now());
        let connecting = connect(address, config);
        let mut stream = runtime.block_on(within(&peer, *deadline, connecting))?;
        let greeting = greet(&peer, &mut stream, nonce);
        let Greeted { certificate, evidence, model, model_hash } =
            runtime.block_on(within(&peer, *deadline, greeting))?;
        let exporter = [0; EXPORTER_BYTES];
        let exporter = stream.get_ref().1.export_keying_material(exporter, EXPORTER_LABEL, None);
        let exporter = exporter.map_err(|_| EnclaveError::Internal("this connection exports no key"))?;
        let untrusted = |source| EnclaveError::Untrusted { peer: peer.clone(), source };
        let public_key = certificate.public_key().map_err(untrusted)?;
        let freshness = Freshness { public_key: &public_key, nonce, exporter, model: model_hash };
        let attested =
            freshness.verify(&evidence, &**verifier, policy, SystemTime::now()).map_err(untrusted)?;
        pin.accept(&peer, &model)?;
        let (deadline, evidence_age) = (*deadline, *evidence_age);
        Ok(Self { runtime, stream, peer, deadline, model, attested, verified, evidence_age, number: 0 })
    }

    /// Whether the worker was verified so long ago that it is not asked any more over this connection.
    pub fn is_stale(&self) -> bool {
        let (then, wall) = self.verified;
        // The monotonic clock does not count while a machine sleeps.
        then.elapsed() >= self.evidence_age
            || SystemTime::now().duration_since(wall).is_ok_and(|passed| passed >= self.evidence_age)
    }

    /// What the worker serves. It says so itself, bound to its evidence: what that is worth follows from [`Connection::attested`].
    pub fn model(&self) -> &ModelInfo {
        &self.model
    }

    /// Who the worker is.
    pub fn attested(&self) -> &Attested {
        &self.attested
    }

    /// Sends inputs in the model's order, and waits for the outputs.
    ///
    /// # Errors
    /// Inputs that the model does not take; a worker that refuses, fails, or is too slow; a connection that
    /// [is stale](Connection::is_stale).
    pub fn ask(&mut self, inputs: &[Tensor]) -> Result<Answer, EnclaveError> {
        check_inputs(&self.model.inputs, inputs)?;
        let mut body = tensor::room(INFER_FRONT, inputs);
        self.number += 1;
        body.extend_from_slice(&self.number.to_le_bytes());
        inputs.iter().for_each(|input| tensor::append(&mut body, input));
        self.exchange(&body)
    }

    /// Sends what crosses to a later part of a model, sealed.
    pub(crate) fn forward(&mut self, message: &[u8]) -> Result<Answer, EnclaveError> {
        self.number += 1;
        self.exchange(&[&self.number.to_le_bytes(), message].concat())
    }

    /// Secrets of this connection, for what crosses.
    pub(crate) fn hop_secrets(&self) -> Result<HopSecrets, EnclaveError> {
        let secrets = self.stream.get_ref().1.export_keying_material([0; HOP_SECRET_BYTES], HOP_LABEL, None);
        let secrets = secrets.map_err(|_| EnclaveError::Internal("this connection exports no key"))?;
        Ok(HopSecrets(Zeroizing::new(secrets)))
    }

    fn exchange(&mut self, body: &[u8]) -> Result<Answer, EnclaveError> {
        if self.is_stale() {
            let seconds = self.evidence_age.as_secs();
            return Err(EnclaveError::Stale { peer: self.peer.clone(), seconds });
        }
        let Self { runtime, stream, peer, deadline, model, number, .. } = self;
        let exchange = async {
            let sent = wire::write_frame(stream, Kind::Infer, body).await;
            // A worker that refuses may not have read it all: its words say more than the failed write.
            let expected = ANSWER_FRONT as u64 + total(&model.outputs);
            let answer = next(peer, stream, Kind::Answer, expected).await;
            match (answer, sent) {
                (Err(EnclaveError::Peer { .. }), Err(error)) => Err(broke_off(peer, &error)),
                (answer, _) => answer,
            }
        };
        let body = runtime.block_on(within(peer, *deadline, exchange))?;
        let wrong = |problem: String| EnclaveError::Peer { peer: peer.clone(), problem };
        let ([found, queued, computed], tensors) =
            wire::read_answer(&body).map_err(|problem| wrong(format!("its answer: {problem}")))?;
        if found != *number {
            return Err(wrong(format!("answered request {found}, expected {number}")));
        }
        let outputs = tensor::read(&model.outputs, tensors);
        Ok(Answer {
            outputs: outputs.map_err(|problem| wrong(format!("its answer: {problem}")))?,
            queued: Duration::from_micros(queued),
            computed: Duration::from_micros(computed),
        })
    }
}

fn check_inputs(specs: &[TensorSpec], inputs: &[Tensor]) -> Result<(), EnclaveError> {
    for (i, spec) in specs.iter().enumerate() {
        let found = inputs.get(i);
        if found.is_none_or(|tensor| !spec.fits(tensor)) {
            let found =
                found.map_or("nothing".to_owned(), |t| TensorSpec::new("", t.dtype(), t.shape()).to_string());
            let (name, expected) = (spec.name.clone(), spec.to_string());
            return Err(EnclaveError::Input { name, expected, found });
        }
    }
    if inputs.len() > specs.len() {
        let (expected, found) = (format!("{} inputs", specs.len()), inputs.len().to_string());
        return Err(EnclaveError::Input { name: String::new(), expected, found });
    }
    Ok(())
}

async fn connect(address: &str, config: rustls::ClientConfig) -> Result<TlsStream<TcpStream>, EnclaveError> {
    let fail = |problem: String| EnclaveError::Peer { peer: address.to_owned(), problem };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host)
        .map_err(|_| fail("this is not the name or address of a host".to_owned()))?;
    let stream = TcpStream::connect(address).await.map_err(|e| fail(connect_problem(&e, Wanted::Worker)))?;
    let _ = stream.set_nodelay(true);
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| match refusal(&error) {
        Some(source) => EnclaveError::Untrusted { peer: address.to_owned(), source },
        None => fail(handshake_problem(&error, Wanted::Worker)),
    })
}

/// Why our own verifier refused the certificate, if it did.
fn refusal(error: &std::io::Error) -> Option<AttestError> {
    match error.get_ref()?.downcast_ref::<TlsError>()? {
        TlsError::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref().cloned(),
        _ => None,
    }
}

/// What a worker has said, not verified yet.
struct Greeted {
    certificate: RaTlsCertificate,
    evidence: Evidence,
    model: ModelInfo,
    model_hash: [u8; MODEL_HASH_BYTES],
}

/// Says hello, and takes what the worker says to it.
async fn greet(
    peer: &str,
    stream: &mut TlsStream<TcpStream>,
    nonce: [u8; NONCE_BYTES],
) -> Result<Greeted, EnclaveError> {
    let fail = |problem: String| EnclaveError::Peer { peer: peer.to_owned(), problem };
    let hello = wire::hello(&nonce);
    let sent = wire::write_frame(stream, Kind::Hello, &hello).await;
    // Who takes attested peers only says so in TLS, and reads no hello: its words say more than the failed write.
    let welcome = next(peer, stream, Kind::Welcome, MAX_WELCOME_BYTES as u64).await?;
    sent.map_err(|error| broke_off(peer, &error))?;
    let (welcome, model) = wire::read_welcome(&welcome).map_err(fail)?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| fail("it showed no certificate".to_owned()))?;
    let untrusted = |source| EnclaveError::Untrusted { peer: peer.to_owned(), source };
    let certificate = RaTlsCertificate::parse(certificate).map_err(untrusted)?;
    let evidence = Evidence::decode(&welcome.evidence).map_err(untrusted)?;
    Ok(Greeted { certificate, evidence, model, model_hash: wire::model_hash(&welcome.model) })
}

/// The body of the next frame, which has to be of this kind; a refusal is an error.
async fn next(
    peer: &str,
    stream: &mut TlsStream<TcpStream>,
    kind: Kind,
    most: u64,
) -> Result<Zeroizing<Vec<u8>>, EnclaveError> {
    let fail = |problem: String| EnclaveError::Peer { peer: peer.to_owned(), problem };
    let limit = |found| match found {
        Kind::Refusal => MAX_REFUSAL_BYTES as u64,
        found if found == kind => most,
        _ => 0,
    };
    let broken = |error: std::io::Error| broke_off(peer, &error);
    let head = wire::read_head(stream, limit).await.map_err(broken)?;
    let head = head.ok_or_else(|| fail("ended the connection without a word".to_owned()))?.map_err(fail)?;
    let body = wire::read_body(stream, head).await.map_err(broken)?;
    match head.kind {
        found if found == kind => Ok(body),
        Kind::Refusal => {
            let Refusal { kind, detail } = wire::decode(&body).map_err(fail)?;
            Err(EnclaveError::Refused { peer: peer.to_owned(), kind, detail })
        }
        _ => Err(fail("sent a message that was not its turn".to_owned())),
    }
}

fn broke_off(peer: &str, error: &std::io::Error) -> EnclaveError {
    EnclaveError::Peer { peer: peer.to_owned(), problem: answer_problem(error, Wanted::Worker) }
}

async fn within<T>(
    peer: &str,
    deadline: Duration,
    work: impl Future<Output = Result<T, EnclaveError>>,
) -> Result<T, EnclaveError> {
    let late = |_| EnclaveError::Deadline { peer: peer.to_owned(), seconds: deadline.as_secs() };
    timeout(deadline, work).await.map_err(late)?
}

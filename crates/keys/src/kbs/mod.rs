//! A key broker: the four steps of the KBS protocol (request, challenge, attestation, response) on bytes, without network.

mod jwe;
mod problem;
mod session;
mod token;
pub mod wire;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use data_encoding::{BASE64, HEXLOWER};
use kbs_types::{Attestation, Challenge, HashAlgorithm, Request, Tee};
use privet_attest::Verifier;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::error::KeysError;
use crate::keeper::{Keeper, Peer};
use crate::random::Randomness;
use crate::resource::Resource;
pub(crate) use jwe::{TeeKey, TeeSecret};
pub use problem::{Problem, Refusal};
use session::{Attested, Challenged, SessionId, Sessions};
use token::{Signer, Statement};

/// Largest depth of nesting in `extra-params` and other free JSON is serde_json's, 128; nothing of it is kept.
const SUPPORTED_HASHES: &str = "supported-hash-algorithms";

/// An answer: what goes into an HTTP response.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// JSON.
    pub body: Vec<u8>,
    /// Value of the session's cookie, where it is set.
    pub cookie: Option<String>,
}

/// How who asks for a resource says who that is.
pub enum Credential<'a> {
    /// By the session's cookie.
    Cookie(&'a str),
    /// By a token.
    Bearer(&'a str),
    /// Not at all.
    None,
}

/// A key broker in front of those who keep keys.
pub struct Broker {
    keeper: Arc<dyn Keeper>,
    verifier: Arc<dyn Verifier>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Randomness>,
    sessions: Sessions,
    signer: Signer,
}

impl Broker {
    /// A broker whose tokens are signed by a key made of `seed`, in the name of `issuer`.
    ///
    /// # Errors
    /// If the cryptographic library fails.
    pub fn new(
        keeper: Arc<dyn Keeper>,
        verifier: Arc<dyn Verifier>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Randomness>,
        seed: &[u8; 32],
        issuer: &str,
    ) -> Result<Self, KeysError> {
        let signer = Signer::new(seed, issuer)?;
        Ok(Self { keeper, verifier, clock, random, sessions: Sessions::default(), signer })
    }

    /// `POST /kbs/v0/auth`: gives a challenge.
    pub fn auth(&self, body: &[u8]) -> Reply {
        self.auth_from(None, body)
    }

    /// The same, asked from this address or network: where sessions are short, those that have most lose some.
    pub fn auth_from(&self, from: Option<IpAddr>, body: &[u8]) -> Reply {
        self.challenge(from, body).unwrap_or_else(|refusal| refused(&refusal))
    }

    /// `POST /kbs/v0/attest`: takes evidence, gives a token.
    pub fn attest(&self, cookie: Option<&str>, body: &[u8]) -> Reply {
        self.admit(cookie, body).unwrap_or_else(|refusal| refused(&refusal))
    }

    /// `GET /kbs/v0/resource/..`: gives a key, encrypted to the attested key. `path` is what comes after `resource/`.
    pub fn resource(&self, credential: &Credential<'_>, path: &str) -> Reply {
        self.release(credential, path).unwrap_or_else(|refusal| refused(&refusal))
    }

    fn challenge(&self, from: Option<IpAddr>, body: &[u8]) -> Result<Reply, Refusal> {
        let request: Request = parse(body, wire::MAX_REQUEST_BYTES)?;
        if !wire::VERSIONS.contains(&request.version.as_str()) {
            let version = printable(&request.version);
            let detail =
                format!("protocol version: expected {}, found {version}", wire::VERSIONS.join(" or "));
            return Err(Refusal::new(Problem::AttestationError, detail));
        }
        if !matches!(request.tee, Tee::Sgx | Tee::Tdx | Tee::Snp | Tee::Sample) {
            let detail = format!("evidence of {} is not supported; expected sgx, tdx or snp", request.tee);
            return Err(Refusal::new(Problem::AttestationError, detail));
        }
        let hash = wire::HASH.to_string();
        let offered = request.extra_params.get(SUPPORTED_HASHES).and_then(Value::as_array);
        if offered.is_some_and(|names| !names.iter().any(|name| is_hash(name, wire::HASH))) {
            let detail = format!("{SUPPORTED_HASHES}: expected {hash} among them");
            return Err(Refusal::new(Problem::AttestationError, detail));
        }
        let mut bytes = [0; 32];
        self.random.fill(&mut bytes).map_err(|_| Refusal::internal())?;
        let nonce = BASE64.encode(&bytes);
        self.random.fill(&mut bytes).map_err(|_| Refusal::internal())?;
        let cookie = session::cookie(&bytes);
        let challenged = Challenged { tee: request.tee, nonce: nonce.clone(), from };
        if !self.sessions.challenge(SessionId::of_cookie(&cookie), challenged, self.clock.now()) {
            let detail = "too many sessions are open; try again in a minute";
            return Err(Refusal::new(Problem::TooManyRequests, detail));
        }
        let challenge = Challenge { nonce, extra_params: json!({ wire::SELECTED_HASH: hash }) };
        reply(&challenge, Some(cookie))
    }

    fn admit(&self, cookie: Option<&str>, body: &[u8]) -> Result<Reply, Refusal> {
        let cookie = cookie.ok_or_else(no_session)?;
        let id = SessionId::of_cookie(cookie);
        // Taken before anything else is looked at: whatever comes of it, this nonce is used.
        let Challenged { tee, nonce, from } = self.sessions.answer(id, self.clock.now()).ok_or_else(|| {
            let detail = "this session has no open challenge: it expired, was answered, or never was; begin again \
                          with /kbs/v0/auth";
            Refusal::new(Problem::AttestationError, detail)
        })?;
        let refuse = |detail: String| {
            self.keeper.attestation_refused(&detail);
            Refusal::new(Problem::AttestationError, detail)
        };
        let attestation: Attestation = parse(body, wire::MAX_ATTESTATION_BYTES)?;
        let runtime = &attestation.runtime_data;
        if !bool::from(runtime.nonce.as_bytes().ct_eq(nonce.as_bytes())) {
            return Err(refuse("the nonce is not that of this session's challenge".to_owned()));
        }
        let key = TeeKey::parse(&runtime.tee_pubkey).map_err(refuse)?;
        let evidence = wire::evidence(tee, &attestation).map_err(refuse)?;
        let at = UNIX_EPOCH + Duration::from_secs(self.clock.now());
        let claims = self.verifier.verify(&evidence, at).map_err(|e| refuse(e.to_string()))?;
        let expected = wire::report_data(runtime, &attestation.tee_evidence.additional_evidence);
        let expected = expected.ok_or_else(Refusal::internal)?;
        if !bool::from(claims.report_data.ct_eq(&expected)) {
            let detail =
                "the evidence is not bound to this nonce and key: expected their SHA-384 in its report data";
            return Err(refuse(detail.to_owned()));
        }
        let peer = Peer::new(claims).ok_or_else(Refusal::internal)?;
        self.keeper.attested(&peer).map_err(|_| Refusal::internal())?;
        let now = self.clock.now();
        let tee = tee.to_string();
        let (digest, tee_pubkey) = (peer.digest.clone(), runtime.tee_pubkey.clone());
        let expires = self.sessions.attest(id, Attested { peer, key, nonce }, from, now);
        let statement = Statement {
            session: &id.name(),
            issued: now,
            expires,
            key: &tee_pubkey,
            tee: &tee,
            claims_digest: &digest,
        };
        let token = self.signer.sign(&statement).map_err(|_| Refusal::internal())?;
        reply(&wire::Token { token }, Some(cookie.to_owned()))
    }

    fn release(&self, credential: &Credential<'_>, path: &str) -> Result<Reply, Refusal> {
        let now = self.clock.now();
        let (id, problem) = match credential {
            Credential::None => return Err(no_session()),
            Credential::Cookie(cookie) => (Some(SessionId::of_cookie(cookie)), Problem::AttestationError),
            Credential::Bearer(token) => {
                let name = self.signer.session(token, now);
                (name.and_then(|name| SessionId::from_name(&name)), Problem::TokenVerifierError)
            }
        };
        let attested = id.and_then(|id| self.sessions.attested(id, now)).ok_or_else(|| {
            Refusal::new(problem, "not attested, or too long ago; begin again with /kbs/v0/auth")
        })?;
        let resource: Resource =
            path.parse().map_err(|detail: String| Refusal::new(Problem::InvalidRequestPath, detail))?;
        let plain = self.keeper.release(&resource, &attested.peer)?;
        let body = attested.key.encrypt(&plain, &context(path, &attested.nonce), &*self.random);
        Ok(Reply { status: 200, body: body.map_err(|_| Refusal::internal())?, cookie: None })
    }
}

/// What an HPKE reply is bound to.
pub(crate) fn context(path: &str, nonce: &str) -> Vec<u8> {
    [path.as_bytes(), &[0], nonce.as_bytes()].concat()
}

/// The answer to a refused request.
pub fn refused(refusal: &Refusal) -> Reply {
    Reply { status: refusal.problem.status(), body: refusal.body(), cookie: None }
}

fn reply(message: &impl serde::Serialize, cookie: Option<String>) -> Result<Reply, Refusal> {
    let body = serde_json::to_vec(message).map_err(|_| Refusal::internal())?;
    Ok(Reply { status: 200, body, cookie })
}

fn parse<T: DeserializeOwned>(body: &[u8], most: usize) -> Result<T, Refusal> {
    if body.len() > most {
        let detail = format!("expected at most {most} bytes, found {}", body.len());
        return Err(Refusal::new(Problem::PayloadTooLarge, detail));
    }
    serde_json::from_slice(body).map_err(|e| Refusal::new(Problem::SerdeError, printable(&e.to_string())))
}

fn no_session() -> Refusal {
    Refusal::new(
        Problem::TokenNotFound,
        format!("no cookie {} and no bearer token; begin with /kbs/v0/auth", wire::COOKIE),
    )
}

fn is_hash(name: &Value, hash: HashAlgorithm) -> bool {
    name.as_str().is_some_and(|name| name.eq_ignore_ascii_case(hash.as_ref()))
}

/// The start of a text from a peer, in characters that do no harm in a log.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(400).map(|c| if c.is_control() || !c.is_ascii() { '?' } else { c }).collect()
}

/// SHA-256 in hexadecimal.
pub(crate) fn hex_digest(bytes: &[u8]) -> String {
    HEXLOWER.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

/// Bytes of a message with a key in it: wiped.
pub(crate) type Plain = Zeroizing<Vec<u8>>;

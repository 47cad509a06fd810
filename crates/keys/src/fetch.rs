//! The worker's side: prove what runs here, get a key.

use std::time::Duration;

use hyper::Method;
use kbs_types::{Attestation, Challenge, CompositeEvidence, Request, RuntimeData};
use privet_attest::Attester;
use privet_seal::{KeyId, KeyVersion};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::error::KeysError;
use crate::kbs::{TeeSecret, context, wire};
use crate::keeper::{Grant, Lease};
use crate::net::Address;
use crate::net::client::Connection;
use crate::net::tls::ServerTrust;
use crate::random::SystemRandomness;
use crate::resource::{Kind, Resource};

/// A server or cache to get keys from.
#[derive(Clone)]
pub struct Endpoint {
    /// Where.
    pub address: Address,
    /// How it is known; a Unix socket needs none.
    pub trust: Option<ServerTrust>,
    /// For the connection, and for each answer.
    pub deadline: Duration,
}

/// Gets a key from a server or a cache, for who proves by `attester` what runs here.
///
/// The key comes encrypted to a key that was made for this exchange and to which the evidence is bound: by JWE over TCP, by
/// HPKE over a Unix socket. What the owner says about the key comes with it, and binds the caller: which sealed file it may
/// open, how old, and until when.
///
/// # Errors
/// If the other side cannot be reached, or refuses; if no evidence can be made here; if what comes is not what was asked for.
pub fn fetch_key(
    endpoint: &Endpoint,
    attester: &dyn Attester,
    key: &KeyId,
    version: Option<KeyVersion>,
) -> Result<Grant, KeysError> {
    let resource = Resource { key: key.clone(), kind: Kind::Release, version };
    let plain = fetch(endpoint, attester, &resource)?;
    let grant: Grant = parse(&endpoint.address.to_string(), &plain)?;
    check(&endpoint.address, &grant, &resource)?;
    Ok(grant)
}

/// Leases a key from a server, for a cache.
pub(crate) fn fetch_lease(
    endpoint: &Endpoint,
    attester: &dyn Attester,
    key: &KeyId,
    version: Option<KeyVersion>,
) -> Result<Lease, KeysError> {
    let resource = Resource { key: key.clone(), kind: Kind::Lease, version };
    let plain = fetch(endpoint, attester, &resource)?;
    let lease: Lease = parse(&endpoint.address.to_string(), &plain)?;
    check(&endpoint.address, &lease.grant, &resource)?;
    Ok(lease)
}

fn check(address: &Address, grant: &Grant, asked: &Resource) -> Result<(), KeysError> {
    let fail = |problem: String| Err(KeysError::Peer { peer: address.to_string(), problem });
    grant.check_version().or_else(fail)?;
    let other =
        grant.key_id != asked.key || asked.version.is_some_and(|version| version != grant.key_version);
    if other {
        return fail(format!("sent key {}@{}, which was not asked for", grant.key_id, grant.key_version));
    }
    grant.key().map(drop)
}

/// A resource, decrypted.
pub(crate) fn fetch(
    endpoint: &Endpoint,
    attester: &dyn Attester,
    resource: &Resource,
) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let failed = |e: privet_attest::AttestError| KeysError::Attest(e.to_string());
    // Which kind of evidence this machine makes has to be said before there is a nonce to put into it.
    let (tee, _) = wire::primary_evidence(&attester.evidence(&[0; 64]).map_err(failed)?);
    let secret = match endpoint.address {
        Address::Tcp(_) => TeeSecret::ecdh(&SystemRandomness)?,
        Address::Unix(_) => TeeSecret::hpke(&SystemRandomness)?,
    };
    let Endpoint { address, trust, deadline } = endpoint;
    let mut connection = Connection::open(address, trust.as_ref(), Some(attester), *deadline)?;
    let extra_params = json!({ "supported-hash-algorithms": [wire::HASH] });
    let request = Request { version: wire::VERSIONS[0].to_owned(), tee, extra_params };
    let challenge: Challenge = post(&mut connection, "/kbs/v0/auth", &request)?;
    let selected = challenge.extra_params.get(wire::SELECTED_HASH).and_then(Value::as_str);
    if selected.is_some_and(|hash| !hash.eq_ignore_ascii_case(wire::HASH.as_ref())) {
        let problem = format!("asks for a hash other than {}", wire::HASH);
        return Err(KeysError::Peer { peer: connection.peer().to_owned(), problem });
    }
    let runtime_data = RuntimeData { nonce: challenge.nonce, tee_pubkey: secret.public()? };
    let report_data =
        wire::report_data(&runtime_data, "").ok_or(KeysError::Internal("a key does not encode"))?;
    let evidence = attester.evidence(&report_data).map_err(failed)?;
    let (_, primary_evidence) = wire::primary_evidence(&evidence);
    let tee_evidence = CompositeEvidence { primary_evidence, additional_evidence: String::new() };
    let attestation = Attestation { init_data: None, runtime_data, tee_evidence };
    let _: wire::Token = post(&mut connection, "/kbs/v0/attest", &attestation)?;
    let path = resource.to_string();
    let body = connection.request(Method::GET, &format!("/kbs/v0/resource/{path}"), Zeroizing::default())?;
    secret.decrypt(&body, &context(&path, &attestation.runtime_data.nonce)).ok_or_else(|| KeysError::Peer {
        peer: connection.peer().to_owned(),
        problem: "sent something that was not encrypted for this exchange".to_owned(),
    })
}

fn post<T: DeserializeOwned>(
    connection: &mut Connection,
    path: &str,
    message: &impl Serialize,
) -> Result<T, KeysError> {
    let body = serde_json::to_vec(message).map_err(|_| KeysError::Internal("a message does not encode"))?;
    let answer = connection.request(Method::POST, path, Zeroizing::new(body))?;
    parse(connection.peer(), &answer)
}

fn parse<T: DeserializeOwned>(peer: &str, bytes: &[u8]) -> Result<T, KeysError> {
    serde_json::from_slice(bytes).map_err(|e| {
        // Not the error's text, which may quote what it read.
        let problem =
            format!("its answer is not what it should be, at line {} column {}", e.line(), e.column());
        KeysError::Peer { peer: peer.to_owned(), problem }
    })
}

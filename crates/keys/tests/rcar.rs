//! The four steps of the KBS protocol with the messages of `kbs-types`, what is refused, and a trace of all bytes.

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use common::*;
use kbs_types::{Attestation, Tee, TeePubKey};
use privet_attest::Attester as _;
use privet_keys::audit::Event;
use privet_keys::kbs::{Credential, Reply, wire};
use privet_keys::{Keeper as _, Peer, StoreKeeper};
use privet_seal::KeyVersion;
use serde_json::{Value, json};

#[test]
fn an_attested_worker_gets_its_key() {
    let owner = Owner::new();
    let client = Client::admitted(WORKER, 7, &owner.broker);
    let reply = client.get(&owner.broker, "resnet/key/latest");
    assert_eq!(reply.status, 200, "{}", text(&reply));
    assert_eq!(client.open(&reply.body).unwrap(), owner_keys().content.expose());
    assert_eq!(Client::new(WORKER, 8).open(&reply.body), None, "another key opens nothing");

    let release = client.open(&client.get(&owner.broker, "resnet/release/1").body).unwrap();
    let grant: privet_keys::Grant = serde_json::from_slice(&release).unwrap();
    assert!(grant.key().unwrap() == owner_keys().content);
    assert_eq!(grant.minimum_model_version.unwrap().get(), 2);

    let events: Vec<_> = owner.store.entries().unwrap().iter().map(|e| e.note.event.name()).collect();
    assert_eq!(events, ["created", "key-added", "policy-set", "attested", "released", "released"]);
    owner.store.verify_audit(None).unwrap();
    let claims: Vec<_> = owner.store.entries().unwrap().into_iter().map(|e| e.note.claims).collect();
    assert!(claims[3].len() == 64 && claims[3] == claims[4] && claims[2].is_empty());
}

#[test]
fn a_token_stands_for_its_session() {
    let owner = Owner::new();
    let mut client = Client::new(WORKER, 7);
    let challenge = client.challenge(&owner.broker);
    let reply = client.attest(&owner.broker, &client.attestation(&challenge.nonce));
    let token: wire::Token = serde_json::from_slice(&reply.body).unwrap();
    let get = |token: &str| owner.broker.resource(&Credential::Bearer(token), "resnet/key/1");
    assert_eq!(client.open(&get(&token.token).body).unwrap(), owner_keys().content.expose());
    assert_refused(&get(&token.token[..token.token.len() - 4]), 401, "TokenVerifierError", "begin again");
    owner.clock.set(NOON + 301);
    assert_refused(&get(&token.token), 401, "TokenVerifierError", "begin again");
}

#[test]
fn who_may_not_have_a_key_does_not_get_it() {
    let owner = Owner::new();
    let broker = &owner.broker;
    let refused = |client: &Client, path: &str, status, kind, detail| {
        assert_refused(&client.get(broker, path), status, kind, detail);
    };
    let stranger = Client::admitted(STRANGER, 3, broker);
    refused(&stranger, "resnet/key/latest", 403, "PolicyDeny", "measurement");
    refused(&stranger, "resnet/lease/latest", 403, "PolicyDeny", "measurement");
    let cache = Client::admitted(CACHE, 4, broker);
    refused(&cache, "resnet/key/latest", 403, "PolicyDeny", "measurement");
    assert_eq!(cache.get(broker, "resnet/lease/latest").status, 200);
    let worker = Client::admitted(WORKER, 5, broker);
    refused(&worker, "resnet/lease/latest", 403, "PolicyDeny", "measurement");
    refused(&worker, "vgg/key/latest", 404, "InvalidRequestPath", "no such key");
    refused(&worker, "resnet/key/2", 404, "InvalidRequestPath", "no such key or version");
    for garbage in ["", "resnet", "resnet/key", "../../etc/passwd", "resnet/key/latest/x", "\u{0}/key/1"] {
        refused(&worker, garbage, 404, "InvalidRequestPath", "expected");
    }
    let nobody = broker.resource(&Credential::None, "resnet/key/1");
    assert_refused(&nobody, 401, "TokenNotFound", "begin with");
    let invented = broker.resource(&Credential::Cookie("x"), "resnet/key/1");
    assert_refused(&invented, 401, "AttestationError", "not attested");

    // Without a policy nobody gets anything; a policy for another model is none.
    let other =
        privet_seal::OwnerKeys::generate("other".parse().unwrap(), owner_keys().release.model_id).unwrap();
    owner.store.add(&other.content, &other.release).unwrap();
    refused(&worker, "other/key/latest", 403, "PolicyDeny", "no policy");
    // The owner changes his mind, while the session goes on.
    let id = owner_keys().release.key_id;
    owner.store.set_policy(&id, &policy().replace(&"a1".repeat(32), &"b2".repeat(32))).unwrap();
    refused(&worker, "resnet/key/latest", 403, "PolicyDeny", "measurement");
    let notes = owner.store.entries().unwrap();
    let last = &notes.last().unwrap().note;
    assert_eq!((last.event.name(), last.key.as_str()), ("refused", "resnet/key/latest"));
}

#[test]
fn the_operator_is_told_what_failed() {
    let owner = Owner::new();
    owner.store.set_policy(&owner_keys().release.key_id, "damaged").unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let keeper = StoreKeeper::new(owner.store.clone(), owner.clock.clone())
        .telling(Arc::new(move |error| heard.lock().unwrap().push(error.to_string())));
    let claims = verifier().verify(&attester(WORKER).evidence(&[0; 64]).unwrap(), SystemTime::now()).unwrap();
    let refusal = keeper.release(&"resnet/key/1".parse().unwrap(), &Peer::new(claims).unwrap()).unwrap_err();
    assert!(refusal.problem.status() == 500 && !refusal.detail.contains("policy"), "{}", refusal.detail);
    let told = told.lock().unwrap();
    assert!(told.len() == 1 && told[0].contains("policy resnet: TOML parse error"), "{told:?}");
}

/// Through the broker, with workers that ask all the time: nothing is released once a key is revoked.
#[test]
fn releases_and_revocations_are_in_one_order() {
    let owner = Owner::new();
    let id = owner_keys().release.key_id;
    let clients: Vec<Client> = (0..4).map(|i| Client::admitted(WORKER, 11 + i, &owner.broker)).collect();
    std::thread::scope(|scope| {
        for client in &clients {
            let broker = &owner.broker;
            scope.spawn(|| while client.get(broker, "resnet/release/1").status == 200 {});
        }
        owner.store.revoke(&id, None).unwrap();
    });
    let entries = owner.store.entries().unwrap();
    let names: Vec<_> = entries.iter().map(|entry| entry.note.event.name()).collect();
    let revoked = names.iter().position(|&name| name == "key-revoked").unwrap();
    assert!(names[revoked..].iter().all(|&name| name != "released"), "{names:?}");
}

#[test]
fn revoked_versions_are_gone_and_old_ones_stay_until_then() {
    let owner = Owner::new();
    let (key, release) = rotated(&owner_keys());
    owner.store.rotate(&key, &release).unwrap();
    let client = Client::admitted(WORKER, 7, &owner.broker);
    let open = |path: &str| client.open(&client.get(&owner.broker, path).body).unwrap();
    assert_eq!(open("resnet/key/latest"), key.expose());
    assert_eq!(open("resnet/key/1"), owner_keys().content.expose());
    let id = release.key_id;
    owner.store.revoke(&id, Some(KeyVersion::FIRST)).unwrap();
    assert_refused(
        &client.get(&owner.broker, "resnet/key/1"),
        403,
        "PolicyDeny",
        "version 1 of this key is revoked",
    );
    assert_eq!(open("resnet/key/latest"), key.expose());
    owner.store.revoke(&id, None).unwrap();
    assert_refused(&client.get(&owner.broker, "resnet/key/latest"), 403, "PolicyDeny", "all versions");
}

#[test]
fn nonces_serve_once_and_end() {
    let owner = Owner::new();
    let broker = &owner.broker;
    let mut client = Client::new(WORKER, 7);
    let old = client.challenge(broker);
    let evidence = client.attestation(&old.nonce);

    // Replayed in its own session, then in another one.
    assert_eq!(client.attest(broker, &evidence).status, 200);
    assert_refused(&client.attest(broker, &evidence), 401, "AttestationError", "no open challenge");
    assert_eq!(client.get(broker, "resnet/key/1").status, 200, "the session is still whose it was");
    client.challenge(broker);
    assert_refused(&client.attest(broker, &evidence), 401, "AttestationError", "nonce");
    // The first answer to a challenge was wrong: there is no second one.
    assert_refused(&client.attest(broker, &evidence), 401, "AttestationError", "no open challenge");

    // Old evidence with the new nonce next to it.
    let new = client.challenge(broker);
    let mut patched = evidence.clone();
    patched.runtime_data.nonce = new.nonce;
    assert_refused(&client.attest(broker, &patched), 401, "AttestationError", "not bound");

    // Too late.
    let slow = client.challenge(broker);
    owner.clock.set(NOON + 120);
    assert_refused(
        &client.attest(broker, &client.attestation(&slow.nonce)),
        401,
        "AttestationError",
        "no open challenge",
    );
    // And a session ends, too.
    let client = Client::admitted(WORKER, 7, broker);
    owner.clock.set(NOON + 120 + 299);
    assert_eq!(client.get(broker, "resnet/key/1").status, 200);
    owner.clock.set(NOON + 120 + 300);
    assert_refused(&client.get(broker, "resnet/key/1"), 401, "AttestationError", "too long ago");
}

#[test]
fn sessions_and_keys_cannot_be_exchanged() {
    let owner = Owner::new();
    let broker = &owner.broker;
    let (mut one, mut two) = (Client::new(WORKER, 1), Client::new(STRANGER, 2));
    let (for_one, for_two) = (one.challenge(broker), two.challenge(broker));
    // Evidence of one, in the session of two.
    let attestation = one.attestation(&for_one.nonce);
    let swapped = broker.attest(two.cookie.as_deref(), &serde_json::to_vec(&attestation).unwrap());
    assert_refused(&swapped, 401, "AttestationError", "nonce");
    // Evidence of one with the key of two, in the session of one.
    let mut attestation = one.attestation(&for_one.nonce);
    attestation.runtime_data.tee_pubkey = two.public();
    assert_refused(&one.attest(broker, &attestation), 401, "AttestationError", "not bound");
    // A cookie that is known does not help: what comes is encrypted to the attested key.
    let victim = Client::admitted(WORKER, 9, broker);
    let stolen = broker.resource(&Credential::Cookie(victim.cookie.as_deref().unwrap()), "resnet/key/1");
    assert_eq!(two.open(&stolen.body), None);
    assert_refused(&broker.attest(None, b"{}"), 401, "TokenNotFound", "cookie");
    let _ = for_two;
}

#[test]
fn messages_that_are_none_are_refused() {
    let owner = Owner::new();
    let broker = &owner.broker;
    let request = |change: &dyn Fn(&mut Value)| {
        let mut request = serde_json::to_value(Client::request()).unwrap();
        change(&mut request);
        broker.auth(request.to_string().as_bytes())
    };
    for version in ["0.1.1", "0.5.0", "", "0.4.0 "] {
        let reply = request(&|r| r["version"] = version.into());
        assert_refused(&reply, 401, "AttestationError", "expected 0.4.0");
    }
    assert_refused(&request(&|r| r["tee"] = "se".into()), 401, "AttestationError", "not supported");
    assert_refused(&request(&|r| r["tee"] = "abacus".into()), 401, "SerdeError", "unknown variant");
    let sm3 = |r: &mut Value| r["extra-params"] = json!({ "supported-hash-algorithms": ["sm3"] });
    assert_refused(&request(&sm3), 401, "AttestationError", "sha384");
    assert_eq!(request(&|r| r["extra-params"] = "".into()).status, 200, "as the document has it");
    for garbage in [&b""[..], b"{", b"null", b"[]", &[0xff; 100], "\u{202e}".as_bytes()] {
        assert_refused(&broker.auth(garbage), 401, "SerdeError", "");
    }
    assert_refused(&broker.auth(&[b'['; 200_000]), 413, "PayloadTooLarge", "65536");
    let deep = [b"{\"version\":".as_slice(), &[b'['; 60_000]].concat();
    assert_refused(&broker.auth(&deep), 401, "SerdeError", "");

    let attest = |change: &dyn Fn(&mut Attestation)| {
        let mut client = Client::new(WORKER, 7);
        let challenge = client.challenge(broker);
        let mut attestation = client.attestation(&challenge.nonce);
        change(&mut attestation);
        client.attest(broker, &attestation)
    };
    let evidence = |value: Value| move |a: &mut Attestation| a.tee_evidence.primary_evidence = value.clone();
    for (value, detail) in [
        (json!(null), "expected an object"),
        (json!({ "privet": "" }), "malformed evidence"),
        (json!({ "privet": "=" }), "primary_evidence.privet"),
        (json!({ "quote": "AAAA" }), "expected an object"),
        (json!({ "svn": "1", "report_data": "" }), "expected an object"),
    ] {
        assert_refused(&attest(&evidence(value)), 401, "AttestationError", detail);
    }
    let devices = |a: &mut Attestation| a.tee_evidence.additional_evidence = "{\"nvidia\":{}}".to_owned();
    assert_refused(&attest(&devices), 401, "AttestationError", "devices");
    let weak = |a: &mut Attestation| {
        let text = || "AQAB".to_owned();
        a.runtime_data.tee_pubkey =
            TeePubKey::RSA { alg: "RSA-OAEP-256".to_owned(), k_mod: text(), k_exp: text() };
    };
    assert_refused(&attest(&weak), 401, "AttestationError", "RSA");
    // Any bit of the evidence's signed part.
    let flip = |a: &mut Attestation| {
        let mut client = Client::new(WORKER, 7);
        client.cookie = None;
        let text = a.tee_evidence.primary_evidence["privet"].as_str().unwrap().to_owned();
        let mut bytes = text.into_bytes();
        let last = bytes.len() - 20;
        bytes[last] = if bytes[last] == b'A' { b'B' } else { b'A' };
        a.tee_evidence.primary_evidence = json!({ "privet": String::from_utf8(bytes).unwrap() });
    };
    assert_eq!(attest(&flip).status, 401);
    // Sample evidence under the name of something else.
    let mut client = Client::new(WORKER, 7);
    let as_sgx = kbs_types::Request { tee: Tee::Sgx, ..Client::request() };
    let reply = broker.auth(&serde_json::to_vec(&as_sgx).unwrap());
    client.cookie = reply.cookie;
    let challenge: kbs_types::Challenge = serde_json::from_slice(&reply.body).unwrap();
    let reply = client.attest(broker, &client.attestation(&challenge.nonce));
    assert_refused(&reply, 401, "AttestationError", "the request said sgx");
}

#[test]
fn sessions_are_bounded() {
    let owner = Owner::without_key();
    let body = serde_json::to_vec(&Client::request()).unwrap();
    for _ in 0..4096 {
        assert_eq!(owner.broker.auth(&body).status, 200);
    }
    assert_refused(&owner.broker.auth(&body), 429, "TooManyRequests", "try again");
    owner.clock.set(NOON + 121);
    assert_eq!(owner.broker.auth(&body).status, 200, "the old ones have ended");
}

/// Four addresses that ask for all there are, and others all the same.
#[test]
fn few_addresses_do_not_take_all_sessions() {
    let owner = Owner::new();
    let body = serde_json::to_vec(&Client::request()).unwrap();
    let auth = |last: u8| owner.broker.auth_from(Some([192, 0, 2, last].into()), &body);
    for i in 0..4096 {
        assert_eq!(auth(i as u8 % 4).status, 200);
    }
    assert_refused(&auth(1), 429, "TooManyRequests", "try again");
    owner.clock.set(NOON + 1);
    // Another one comes in, and ends what it has begun, whatever the four do meanwhile.
    let mut client = Client::new(WORKER, 9);
    let reply = auth(77);
    assert_eq!(reply.status, 200);
    client.cookie = reply.cookie;
    let challenge: kbs_types::Challenge = serde_json::from_slice(&reply.body).unwrap();
    for i in 0..4096 {
        auth(i as u8 % 4);
    }
    let reply = client.attest(&owner.broker, &client.attestation(&challenge.nonce));
    assert_eq!(reply.status, 200, "{}", text(&reply));
    for i in 0..4096 {
        auth(i as u8 % 4);
    }
    assert_eq!(client.get(&owner.broker, "resnet/key/latest").status, 200);
}

/// Strangers' evidence and requests, far more than are noted one by one.
#[test]
fn strangers_do_not_fill_the_log() {
    let owner = Owner::new();
    let before = owner.store.entries().unwrap().len();
    for _ in 0..200 {
        let mut client = Client::new(WORKER, 5);
        client.challenge(&owner.broker);
        let reply = client.attest(&owner.broker, &client.attestation("another nonce"));
        assert_refused(&reply, 401, "AttestationError", "nonce");
    }
    let stranger = Client::admitted(STRANGER, 6, &owner.broker);
    for _ in 0..200 {
        assert_refused(&stranger.get(&owner.broker, "resnet/key/latest"), 403, "PolicyDeny", "measurement");
    }
    let entries = owner.store.entries().unwrap();
    assert!(entries.len() - before <= 50, "{} entries", entries.len() - before);
    // Who gets a key is noted each time, and in the next minute it is said what was left out.
    let worker = Client::admitted(WORKER, 7, &owner.broker);
    for _ in 0..30 {
        assert_eq!(worker.get(&owner.broker, "resnet/key/latest").status, 200);
    }
    owner.clock.set(NOON + 60);
    assert_eq!(worker.get(&owner.broker, "resnet/key/latest").status, 200);
    let entries = owner.store.entries().unwrap();
    let count = |event: Event| entries.iter().filter(|entry| entry.note.event == event).count();
    assert_eq!(count(Event::Released), 31);
    assert_eq!((count(Event::AttestationRefused), count(Event::Refused)), (21, 21));
    for event in [Event::AttestationRefused, Event::Refused] {
        let last = entries.iter().rfind(|entry| entry.note.event == event).unwrap();
        assert!(
            last.note.detail.starts_with("and 180 more from second 1800000000 on"),
            "{}",
            last.note.detail
        );
    }
    owner.store.verify_audit(None).unwrap();
}

/// All bytes of an exchange, with nonce, keys and clock given: what a KBS client can replay. Written anew with
/// `PRIVET_WRITE_GOLDEN=1`.
#[test]
fn the_trace_is_as_committed() {
    let owner = Owner::new();
    let mut client = Client::new(WORKER, 7);
    let mut trace = Vec::new();
    let mut step = |method: &str, path: &str, cookie: Option<&str>, body: Value, reply: &Reply| {
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        trace.push(json!({
            "request": { "method": method, "path": path, "cookie": cookie, "body": body },
            "response": { "status": reply.status, "cookie": reply.cookie, "body": answer },
        }));
    };
    let request = Client::request();
    let reply = owner.broker.auth(&serde_json::to_vec(&request).unwrap());
    step("POST", "/kbs/v0/auth", None, serde_json::to_value(&request).unwrap(), &reply);
    client.cookie.clone_from(&reply.cookie);
    let cookie = client.cookie.clone();
    let challenge: kbs_types::Challenge = serde_json::from_slice(&reply.body).unwrap();
    let attestation = client.attestation(&challenge.nonce);
    let reply = client.attest(&owner.broker, &attestation);
    step("POST", "/kbs/v0/attest", cookie.as_deref(), serde_json::to_value(&attestation).unwrap(), &reply);
    for path in ["resnet/key/latest", "resnet/release/1", "vgg/key/latest", "resnet/lease/1"] {
        let reply = client.get(&owner.broker, path);
        step("GET", &format!("/kbs/v0/resource/{path}"), cookie.as_deref(), Value::Null, &reply);
    }
    let repeated = client.attest(&owner.broker, &attestation);
    step("POST", "/kbs/v0/attest", cookie.as_deref(), serde_json::to_value(&attestation).unwrap(), &repeated);
    let golden = json!({
        "about": "sample, INSECURE: the exchange of a KBS client, protocol 0.4.0, with a fixed clock, nonces and keys; \
                  see crates/keys/tests/rcar.rs. The client's private key is for this trace only.",
        "time": NOON,
        "client-key": { "crv": "P-256", "d": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc", "jwk": client.public() },
        "resource": { "resnet/key/latest": data_encoding::HEXLOWER.encode(owner_keys().content.expose()) },
        "steps": trace,
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rcar.json");
    let text = serde_json::to_string_pretty(&golden).unwrap() + "\n";
    if std::env::var_os("PRIVET_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    // Members of an object have no order.
    let committed: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert!(committed == golden, "the exchange differs from {}", path.display());
}

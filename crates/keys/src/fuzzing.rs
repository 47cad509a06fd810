//! Entry points for hostile bytes: messages of the KBS protocol, and policies. For tests and fuzzing only.

use std::sync::Arc;

use kbs_types::{Request, Tee};
use privet_attest::verifier::Verifiers;
use privet_seal::{ContentKey, KeyVersion, ModelId, SigningKey};

use crate::clock::ManualClock;
use crate::error::KeysError;
use crate::kbs::{Broker, Credential, Plain, Problem, Refusal, TeeSecret, wire};
use crate::keeper::{Grant, Keeper, Peer, encode};
use crate::policy::KeyPolicy;
use crate::random::SeededRandomness;
use crate::resource::Resource;
use crate::store::{KeyInfo, KeyState, VersionInfo};

/// Has nothing to give.
struct Nobody;

impl Keeper for Nobody {
    fn attested(&self, _: &Peer) -> Result<(), KeysError> {
        Ok(())
    }

    fn attestation_refused(&self, _: &str) {}

    fn release(&self, _: &Resource, _: &Peer) -> Result<Plain, Refusal> {
        Err(Refusal::new(Problem::PolicyDeny, "nothing here"))
    }
}

/// A message of the kind that the first byte says; whether it was taken.
pub fn message(bytes: &[u8]) -> bool {
    let Some((&kind, body)) = bytes.split_first() else { return false };
    let random = Arc::new(SeededRandomness::new(1));
    let clock = Arc::new(ManualClock::new(1_800_000_000));
    let broker =
        Broker::new(Arc::new(Nobody), Arc::new(Verifiers::default()), clock, random, &[1; 32], "fuzzing");
    let Ok(broker) = broker else { return false };
    let text = String::from_utf8_lossy(body);
    match kind {
        0 => broker.auth(body).status == 200,
        1 => {
            let reply = broker.auth(&request());
            broker.attest(reply.cookie.as_deref(), body).status == 200
        }
        2 => broker.resource(&Credential::Bearer(&text), "resnet/key/1").status == 200,
        3 => text.parse::<Resource>().is_ok_and(|resource| resource.to_string() == text),
        4 => serde_json::from_slice::<Grant>(body).is_ok_and(|grant| grant.key().is_ok()),
        // What a server answers to a worker.
        5 => TeeSecret::ecdh(&SeededRandomness::new(2)).is_ok_and(|s| s.decrypt(body, b"").is_some()),
        6 => {
            TeeSecret::hpke(&SeededRandomness::new(2)).is_ok_and(|secret| secret.decrypt(body, b"").is_some())
        }
        _ => false,
    }
}

/// A policy file; whether it can be used.
pub fn policy(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    KeyPolicy::parse("fuzzed", text).is_ok_and(|policy| {
        let _ = policy.lint();
        true
    })
}

fn request() -> Vec<u8> {
    let request = Request {
        version: wire::VERSIONS[0].to_owned(),
        tee: Tee::Sgx,
        extra_params: serde_json::json!({ "supported-hash-algorithms": ["sha384"] }),
    };
    serde_json::to_vec(&request).unwrap_or_default()
}

/// Messages that are taken.
pub fn message_seeds() -> Vec<Vec<u8>> {
    let with = |kind: u8, body: &[u8]| [&[kind], body].concat();
    let mut seeds = vec![with(0, &request()), with(3, b"resnet/release/latest")];
    let grant = grant().and_then(|grant| encode(&grant).ok());
    seeds.extend(grant.map(|grant| with(4, &grant)));
    let sealed = |secret: TeeSecret| {
        let key = crate::kbs::TeeKey::parse(&secret.public().ok()?).ok()?;
        key.encrypt(b"key", b"", &SeededRandomness::new(3)).ok()
    };
    let jwe = TeeSecret::ecdh(&SeededRandomness::new(2)).ok().and_then(sealed);
    seeds.extend(jwe.map(|body| with(5, &body)));
    let hpke = TeeSecret::hpke(&SeededRandomness::new(2)).ok().and_then(sealed);
    seeds.extend(hpke.map(|body| with(6, &body)));
    seeds
}

fn grant() -> Option<Grant> {
    let key = ContentKey::from_slice(&[3; 32]).ok()?;
    let version = VersionInfo {
        version: KeyVersion::FIRST,
        fingerprint: key.fingerprint(),
        added: 1,
        state: KeyState::Active,
    };
    let info = KeyInfo {
        id: "resnet".parse().ok()?,
        model: ModelId::from_bytes([2; 16]),
        verifying_key: SigningKey::from_slice(&[1; 32]).ok()?.verifying_key().ok()?,
        versions: vec![version],
    };
    let policy = KeyPolicy::parse("seed", std::str::from_utf8(&policy_seed()).ok()?).ok()?;
    Some(Grant::new(&info, KeyVersion::FIRST, &policy, &key))
}

/// A policy with every section.
pub fn policy_seed() -> Vec<u8> {
    let (a, b) = ("01".repeat(32), "02".repeat(32));
    format!(
        "version = 1\nkey_id = \"resnet\"\nmodel_id = \"02020202-0202-0202-0202-020202020202\"\n\
         model_digest = \"{a}\"\nminimum_model_version = 3\n[get]\nversion = 1\n[get.sgx]\nmrenclave = [\"{a}\"]\n\
         [get.sgx.tcb]\nstatuses = [\"UpToDate\"]\n[lease]\nseconds = 3600\n[lease.to]\nversion = 1\n[lease.to.sgx]\n\
         mrsigner = [\"{b}\"]\nproduct_id = 1\nminimum_svn = 2\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_taken() {
        for (name, seeds, target) in [
            ("kbs", message_seeds(), message as fn(&[u8]) -> bool),
            ("keypolicy", vec![policy_seed()], policy),
        ] {
            assert!(!seeds.is_empty());
            for (i, seed) in seeds.iter().enumerate() {
                assert!(target(seed), "{name} {i}: {}", String::from_utf8_lossy(seed));
            }
        }
    }
}

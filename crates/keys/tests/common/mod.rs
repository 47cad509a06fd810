//! A store with a key and a policy, workers that make sample evidence, and the client's side of the KBS protocol by hand.

#![allow(dead_code, reason = "every test binary uses a part")]

use std::collections::BTreeMap;
use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap};
use data_encoding::BASE64URL_NOPAD as BASE64URL;
use kbs_types::{
    Attestation, Challenge, CompositeEvidence, ErrorInformation, HashAlgorithm, Request, Response,
    RuntimeData, Tee, TeePubKey,
};
use privet_attest::sample::{AllowSampleInsecure, SampleAttester};
use privet_attest::verifier::Verifiers;
use privet_attest::{Attester, Verifier};
use privet_keys::kbs::{Broker, Credential, Reply};
use privet_keys::{ManualClock, MasterSource, SeededRandomness, Store, StoreKeeper};
use privet_seal::{ContentKey, KeyVersion, ModelId, OwnerKeys, Release, SigningKey};

pub const MODEL: [u8; 16] = [0x67; 16];
pub const WORKER: [u8; 32] = [0xa1; 32];
pub const CACHE: [u8; 32] = [0xc4; 32];
pub const STRANGER: [u8; 32] = [0x5f; 32];
/// When all begins.
pub const NOON: u64 = 1_800_000_000;

fn allow() -> AllowSampleInsecure {
    AllowSampleInsecure::from_flag(true).unwrap()
}

pub fn attester(measurement: [u8; 32]) -> Arc<SampleAttester> {
    Arc::new(SampleAttester::new(allow(), measurement))
}

pub fn verifier() -> Arc<dyn Verifier> {
    Arc::new(Verifiers::default().allow_sample_insecure(true).unwrap())
}

/// The owner's keys, the same in every run.
pub fn owner() -> OwnerKeys {
    let content = ContentKey::from_slice(&std::array::from_fn::<u8, 32, _>(|i| 0x30 + 3 * i as u8)).unwrap();
    let signing = SigningKey::from_slice(&[9; 32]).unwrap();
    OwnerKeys::new(content, signing, ModelId::from_bytes(MODEL), "resnet".parse().unwrap(), KeyVersion::FIRST)
        .unwrap()
}

/// The next version of a key.
pub fn rotated(old: &OwnerKeys) -> (ContentKey, Release) {
    let key = ContentKey::from_slice(&[0x77; 32]).unwrap();
    let (fingerprint, key_version) = (key.fingerprint(), old.release.key_version.next().unwrap());
    (key, Release { fingerprint, key_version, ..old.release.clone() })
}

fn accepts(measurement: [u8; 32]) -> String {
    let hex: String = measurement.iter().map(|b| format!("{b:02x}")).collect();
    format!("allow_sample_insecure = true\nmeasurement = [\"{hex}\"]\n")
}

/// Workers get the key, caches lease it for an hour.
pub fn policy() -> String {
    let model = ModelId::from_bytes(MODEL);
    format!(
        "version = 1\nkey_id = \"resnet\"\nmodel_id = \"{model}\"\nminimum_model_version = 2\n\
         [get]\nversion = 1\n[get.sample]\n{}\
         [lease]\nseconds = 3600\n[lease.to]\nversion = 1\n[lease.to.sample]\n{}",
        accepts(WORKER),
        accepts(CACHE)
    )
}

/// A policy of attestation alone.
pub fn attestation_policy(measurement: [u8; 32]) -> String {
    format!("version = 1\n[sample]\n{}", accepts(measurement))
}

pub struct Owner {
    pub dir: tempfile::TempDir,
    pub clock: Arc<ManualClock>,
    pub store: Arc<Store>,
    pub broker: Arc<Broker>,
}

impl Owner {
    /// With the key and the policy.
    pub fn new() -> Self {
        let owner = Self::without_key();
        let keys = self::owner();
        owner.store.add(&keys.content, &keys.release).unwrap();
        owner.store.set_policy(&keys.release.key_id, &policy()).unwrap();
        owner
    }

    pub fn without_key() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let master = dir.path().join("master.key");
        write(&master, [0x4d; 32]).unwrap();
        set_permissions(&master, Permissions::from_mode(0o600)).unwrap();
        let clock = Arc::new(ManualClock::new(NOON));
        let store_random = Arc::new(SeededRandomness::new(1));
        let store = Store::create(
            &dir.path().join("keys.redb"),
            &MasterSource::File(master),
            clock.clone(),
            store_random,
        );
        let store = Arc::new(store.unwrap());
        let keeper = Arc::new(StoreKeeper::new(store.clone(), clock.clone()));
        let random = Arc::new(SeededRandomness::new(2));
        let broker = Broker::new(keeper, verifier(), clock.clone(), random, &[0x51; 32], "privet keyserver");
        Self { dir, clock, store, broker: Arc::new(broker.unwrap()) }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A client of the protocol with a key of its own, as the documents say it works; nothing of it is the library's.
pub struct Client {
    secret: PrivateKey,
    pub attester: Arc<SampleAttester>,
    pub cookie: Option<String>,
}

impl Client {
    pub fn new(measurement: [u8; 32], scalar: u8) -> Self {
        let secret = PrivateKey::from_private_key(&ECDH_P256, &[scalar; 32]).unwrap();
        Self { secret, attester: attester(measurement), cookie: None }
    }

    pub fn request() -> Request {
        let hashes: Vec<_> = HashAlgorithm::list_all();
        Request {
            version: "0.4.0".to_owned(),
            tee: Tee::Sample,
            extra_params: serde_json::json!({ "supported-hash-algorithms": hashes }),
        }
    }

    pub fn public(&self) -> TeePubKey {
        let point = self.secret.compute_public_key().unwrap();
        let (x, y) = point.as_ref()[1..].split_at(32);
        TeePubKey::EC {
            crv: "P-256".to_owned(),
            alg: "ECDH-ES+A256KW".to_owned(),
            x: BASE64URL.encode(x),
            y: BASE64URL.encode(y),
        }
    }

    pub fn challenge(&mut self, broker: &Broker) -> Challenge {
        let reply = broker.auth(&serde_json::to_vec(&Self::request()).unwrap());
        assert_eq!(reply.status, 200, "{}", text(&reply));
        self.cookie = reply.cookie;
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// The message for a nonce, with the evidence bound to it and to the key.
    pub fn attestation(&self, nonce: &str) -> Attestation {
        let runtime_data = RuntimeData { nonce: nonce.to_owned(), tee_pubkey: self.public() };
        // Ordered by their keys.
        let key = serde_json::to_value(&runtime_data.tee_pubkey).unwrap();
        let key: BTreeMap<String, String> = serde_json::from_value(key).unwrap();
        let (key, nonce) = (serde_json::to_string(&key).unwrap(), serde_json::to_string(nonce).unwrap());
        let bound = format!(r#"{{"additional-evidence":"","nonce":{nonce},"tee-pubkey":{key}}}"#);
        let mut report_data = HashAlgorithm::Sha384.digest(bound.as_bytes());
        report_data.resize(64, 0);
        let evidence = self.attester.evidence(report_data.as_slice().try_into().unwrap()).unwrap();
        let primary_evidence = serde_json::json!({ "privet": BASE64URL.encode(&evidence.encode()) });
        let tee_evidence = CompositeEvidence { primary_evidence, additional_evidence: String::new() };
        Attestation { init_data: None, runtime_data, tee_evidence }
    }

    pub fn attest(&self, broker: &Broker, attestation: &Attestation) -> Reply {
        broker.attest(self.cookie.as_deref(), &serde_json::to_vec(attestation).unwrap())
    }

    /// Request, challenge and attestation.
    pub fn admitted(measurement: [u8; 32], scalar: u8, broker: &Broker) -> Self {
        let mut client = Self::new(measurement, scalar);
        let challenge = client.challenge(broker);
        let reply = client.attest(broker, &client.attestation(&challenge.nonce));
        assert_eq!(reply.status, 200, "{}", text(&reply));
        client
    }

    pub fn get(&self, broker: &Broker, path: &str) -> Reply {
        broker.resource(&self.cookie.as_deref().map_or(Credential::None, Credential::Cookie), path)
    }

    /// RFC 7516 and 7518, for ECDH-ES+A256KW and A256GCM.
    pub fn open(&self, body: &[u8]) -> Option<Vec<u8>> {
        let response: Response = serde_json::from_slice(body).unwrap();
        let epk = &response.protected.other_fields["epk"];
        let coordinate = |name: &str| BASE64URL.decode(epk[name].as_str().unwrap().as_bytes()).unwrap();
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let kek = agree(&self.secret, UnparsedPublicKey::new(&ECDH_P256, point), (), |z| {
            let mut hash = Context::new(&SHA256);
            let alg = b"ECDH-ES+A256KW";
            for part in [&[0, 0, 0, 1][..], z, &[0, 0, 0, alg.len() as u8], alg, &[0; 8], &[0, 0, 1, 0]] {
                hash.update(part);
            }
            Ok(hash.finish())
        })
        .unwrap();
        let mut key = [0; 32];
        AesKek::new(&AES_256, kek.as_ref()).unwrap().unwrap(&response.encrypted_key, &mut key).ok()?;
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
        let nonce = Nonce::try_assume_unique_for_key(&response.iv).unwrap();
        let mut plain = [response.ciphertext.clone(), response.tag.clone()].concat();
        let aad = Aad::from(response.protected.generate_aad().unwrap());
        Some(cipher.open_in_place(nonce, aad, &mut plain).ok()?.to_vec())
    }
}

pub fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

/// Asserts that a reply is a refusal of this kind, with words that contain `detail`.
#[track_caller]
pub fn assert_refused(reply: &Reply, status: u16, kind: &str, detail: &str) {
    let information: ErrorInformation = serde_json::from_slice(&reply.body).unwrap();
    let expected = format!("https://github.com/confidential-containers/kbs/errors/{kind}");
    assert_eq!((reply.status, &information.error_type), (status, &expected), "{}", information.detail);
    assert!(information.detail.contains(detail), "{}", information.detail);
    assert!(reply.cookie.is_none());
}

//! TLS with attested certificates over real sockets: who is accepted, and why others are not. Evidence is development evidence
//! (sample, INSECURE), as there is no hardware here.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use privet_attest::ratls::{
    AttestedIdentity, Authenticator, Freshness, RaTlsCertificate, client_config, server_config,
};
use privet_attest::sample::{AllowSampleInsecure, SampleAttester};
use privet_attest::{AttestError, Attester, Binding, Collateral, Evidence, Policy, Tee, Verifiers};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, Stream};

const HOUR: Duration = Duration::from_secs(3600);
const SERVER: [u8; 32] = [1; 32];
const CLIENT: [u8; 32] = [2; 32];

fn attester(measurement: [u8; 32]) -> SampleAttester {
    SampleAttester::new(AllowSampleInsecure::from_flag(true).expect("the flag is given"), measurement)
}

fn identity(measurement: [u8; 32], nonce: Option<&[u8]>) -> AttestedIdentity {
    AttestedIdentity::generate(&attester(measurement), nonce, SystemTime::now(), HOUR).expect("an identity")
}

fn policy(measurement: [u8; 32]) -> Policy {
    let hash = hex::encode(measurement);
    Policy::parse(&format!("version = 1\n[sample]\nmeasurement = [\"{hash}\"]\nallow_sample_insecure = true"))
        .expect("a policy")
}

fn authenticator_with(flag: bool, measurement: [u8; 32], freshness: Freshness) -> Arc<Authenticator> {
    let verifiers = Verifiers::default().allow_sample_insecure(flag).expect("tests have the feature");
    Arc::new(Authenticator::new(Arc::new(verifiers), policy(measurement), freshness))
}

fn authenticator(measurement: [u8; 32]) -> Arc<Authenticator> {
    authenticator_with(true, measurement, Freshness::Lifetime(2 * HOUR))
}

/// What server and client have to say about a connection over which "ping" and "pong" are exchanged.
fn connect(server: ServerConfig, client: ClientConfig) -> (Result<(), String>, Result<Vec<u8>, String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = thread::spawn(move || {
        let (mut socket, _) = listener.accept().map_err(|e| e.to_string())?;
        let mut tls = ServerConnection::new(Arc::new(server)).map_err(|e| e.to_string())?;
        let mut stream = Stream::new(&mut tls, &mut socket);
        let mut ping = [0; 4];
        stream.read_exact(&mut ping).map_err(|e| e.to_string())?;
        assert_eq!(&ping, b"ping");
        stream.write_all(b"pong").and_then(|()| stream.flush()).map_err(|e| e.to_string())
    });
    let ask = || {
        let mut socket = TcpStream::connect(address).map_err(|e| e.to_string())?;
        let name = ServerName::try_from("anything.example").expect("a name");
        let mut tls = ClientConnection::new(Arc::new(client), name).map_err(|e| e.to_string())?;
        let mut stream = Stream::new(&mut tls, &mut socket);
        let mut pong = [0; 4];
        stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut pong)).map_err(|e| e.to_string())?;
        assert_eq!(&pong, b"pong");
        let version = tls.protocol_version();
        assert_eq!(version, Some(rustls::ProtocolVersion::TLSv1_3));
        Ok(tls.peer_certificates().expect("a certificate")[0].to_vec())
    };
    let asked = ask();
    (serving.join().expect("no panic"), asked)
}

#[test]
fn two_attested_peers_accept_each_other() {
    let server =
        server_config(&identity(SERVER, None), Some(authenticator(CLIENT))).expect("a configuration");
    let client =
        client_config(authenticator(SERVER), Some(&identity(CLIENT, None))).expect("a configuration");
    let (served, asked) = connect(server, client);
    served.expect("served");
    let attested =
        authenticator(SERVER).authenticate(&asked.expect("asked"), SystemTime::now()).expect("accepted");
    assert_eq!(attested.claims.tee, Tee::Sample);
    assert!(attested.verdict.accepted());
}

#[test]
fn a_client_need_not_attest_where_the_server_does_not_ask() {
    let server = server_config(&identity(SERVER, None), None).expect("a configuration");
    let (served, asked) =
        connect(server, client_config(authenticator(SERVER), None).expect("a configuration"));
    served.expect("served");
    asked.expect("asked");
}

#[test]
fn wrong_servers_are_refused_and_the_client_says_why() {
    let cases = [
        (identity([9; 32], None), authenticator(SERVER), "measurement"),
        (
            identity(SERVER, None),
            authenticator_with(false, SERVER, Freshness::Lifetime(2 * HOUR)),
            "--allow-sample-insecure",
        ),
        (
            identity(SERVER, None),
            authenticator_with(true, SERVER, Freshness::Lifetime(HOUR / 2)),
            "freshness",
        ),
        (
            identity(SERVER, None),
            authenticator_with(true, SERVER, Freshness::Nonce(b"now".to_vec())),
            "nonce",
        ),
        (
            identity(SERVER, Some(b"old")),
            authenticator_with(true, SERVER, Freshness::Nonce(b"now".to_vec())),
            "nonce",
        ),
    ];
    for (server, client, why) in cases {
        let server = server_config(&server, None).expect("a configuration");
        let (served, asked) = connect(server, client_config(client, None).expect("a configuration"));
        assert!(served.is_err());
        let error = asked.expect_err("refused");
        assert!(error.contains(why), "expected {why:?} in {error}");
    }
}

#[test]
fn a_nonce_makes_a_certificate_fresh() {
    let nonce = b"chosen by the client".to_vec();
    let server = server_config(&identity(SERVER, Some(&nonce)), None).expect("a configuration");
    let client = authenticator_with(true, SERVER, Freshness::Nonce(nonce));
    let (served, asked) = connect(server, client_config(client, None).expect("a configuration"));
    served.expect("served");
    asked.expect("asked");
}

#[test]
fn wrong_clients_are_refused_and_so_are_those_without_a_certificate() {
    let server =
        || server_config(&identity(SERVER, None), Some(authenticator(CLIENT))).expect("a configuration");
    let other =
        client_config(authenticator(SERVER), Some(&identity([9; 32], None))).expect("a configuration");
    let (served, asked) = connect(server(), other);
    assert!(served.expect_err("refused").contains("measurement"));
    assert!(asked.is_err());
    let nameless = client_config(authenticator(SERVER), None).expect("a configuration");
    let (served, asked) = connect(server(), nameless);
    assert!(served.is_err() && asked.is_err());
}

#[test]
fn a_certificate_has_its_time() {
    let now = SystemTime::now();
    let certificate = identity(SERVER, None).certificate().to_vec();
    let refused = |at| {
        let error = authenticator(SERVER).authenticate(&certificate, at).expect_err("refused");
        assert!(matches!(&error, AttestError::Refused { check: "attested certificate", .. }), "{error}");
    };
    authenticator(SERVER).authenticate(&certificate, now).expect("accepted");
    refused(now - HOUR);
    refused(now + 2 * HOUR);
}

/// Evidence of another key: what a thief of evidence would present.
#[test]
fn evidence_is_bound_to_the_key() {
    struct Replay(Evidence);
    impl Attester for Replay {
        fn evidence(&self, _: &[u8; 64]) -> Result<Evidence, AttestError> {
            Ok(self.0.clone())
        }
    }
    let stolen = RaTlsCertificate::parse(identity(SERVER, None).certificate())
        .expect("a certificate")
        .evidence()
        .clone();
    let thief =
        AttestedIdentity::generate(&Replay(stolen), None, SystemTime::now(), HOUR).expect("an identity");
    let error =
        authenticator(SERVER).authenticate(thief.certificate(), SystemTime::now()).expect_err("refused");
    assert!(matches!(&error, AttestError::Refused { check: "report data", .. }), "{error}");
}

#[test]
fn no_bit_of_a_certificate_can_be_flipped() {
    let certificate = identity(SERVER, None).certificate().to_vec();
    let authenticator = authenticator(SERVER);
    let now = SystemTime::now();
    authenticator.authenticate(&certificate, now).expect("accepted as it is");
    for i in 0..certificate.len() {
        for bit in 0..8 {
            let mut changed = certificate.clone();
            changed[i] ^= 1 << bit;
            assert!(authenticator.authenticate(&changed, now).is_err(), "bit {bit} of byte {i}");
        }
    }
}

#[test]
fn certificates_of_snp_carry_what_verifies_them() {
    struct Snp;
    impl Attester for Snp {
        fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttestError> {
            let mut report = vec![0; 1184];
            report[0] = 2;
            report[0x50..0x90].copy_from_slice(report_data);
            let collateral =
                Collateral { certificates: vec![vec![1; 9], vec![2; 9]], crls: vec![vec![3]], dcap: None };
            Evidence::new(Tee::Snp, report)?.with_collateral(collateral)
        }
    }
    let made = AttestedIdentity::generate(&Snp, Some(b"n"), SystemTime::now(), HOUR).expect("an identity");
    let parsed = RaTlsCertificate::parse(made.certificate()).expect("a certificate");
    assert_eq!(parsed.evidence().tee(), Tee::Snp);
    assert_eq!(parsed.evidence().collateral().certificates, [vec![1; 9], vec![2; 9]]);
    assert_eq!(parsed.evidence().collateral().crls, [vec![3]]);
    assert_eq!(parsed.binding().nonce(), Some(b"n".as_slice()));
    parsed.check(SystemTime::now()).expect("valid");
}

#[test]
fn claims_buffers_are_those_of_the_specification() {
    let binding = Binding::new(b"spki", None).expect("a binding");
    let hash = <sha2::Sha256 as sha2::Digest>::digest(b"spki");
    // { "pubkey-hash": << [1, h'..'] >> }
    let expected =
        [&[0xA1, 0x6B][..], b"pubkey-hash", &[0x58, 0x24, 0x82, 0x01, 0x58, 0x20], hash.as_slice()].concat();
    assert_eq!(binding.encode(), expected);
    assert_eq!(Binding::decode(&expected).expect("a round trip"), binding);
    assert_eq!(binding.report_data()[..32], *<sha2::Sha256 as sha2::Digest>::digest(&expected));
    assert_eq!(binding.report_data()[32..], [0; 32]);
    binding.check_key(b"spki").expect("its key");
    assert!(binding.check_key(b"another").is_err());
    let with_nonce = Binding::new(b"spki", Some(b"nonce")).expect("a binding");
    assert_eq!(with_nonce.encode()[0], 0xA2);
    assert_eq!(Binding::decode(&with_nonce.encode()).expect("a round trip"), with_nonce);

    let twice = [&[0xA2, 0x6B][..], b"pubkey-hash", &[0x41, 1, 0x6B], b"pubkey-hash", &[0x41, 1]].concat();
    let deep = vec![0x81; 4000];
    for (bytes, why) in [
        (twice.as_slice(), "twice"),
        (&[0xA0], "no pubkey-hash"),
        (&[0x80], "expected a map"),
        (&[expected.as_slice(), &[0]].concat(), "1 bytes after"),
        (&deep, "no CBOR"),
        (&vec![0; 5000], "at most 4096"),
        (&[0xBB, 255, 255, 255, 255, 255, 255, 255, 255], "no CBOR"),
    ] {
        let error = Binding::decode(bytes).expect_err(why).to_string();
        assert!(error.contains(why), "expected {why:?} in {error}");
    }
    assert!(Binding::new(b"spki", Some(&[0; 1025])).is_err());
}

//! What every connection has in common, in handshakes in memory: with each other, and with peers that want something else.

use std::sync::Arc;

use privet_tls::{Rule, certified, client, self_signed, server};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{Acceptor, ServerSessionMemoryCache};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS12;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error, HandshakeKind, ProtocolVersion, RootCertStore,
    ServerConfig, ServerConnection,
};

/// A certificate and its key.
struct Party {
    certificate: CertificateDer<'static>,
    certified: Arc<SingleCertAndKey>,
}

fn party(name: &str) -> Party {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = self_signed(name, &[]).unwrap().self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Party { certified: certified(vec![certificate.clone()], key).unwrap(), certificate }
}

/// Accepts one certificate.
#[derive(Debug)]
struct Only(CertificateDer<'static>);

impl Rule for Only {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<(), CertificateError> {
        assert!(others.is_empty());
        if *certificate == self.0 { Ok(()) } else { Err(CertificateError::UnknownIssuer) }
    }
}

fn only(party: &Party) -> Arc<dyn Rule> {
    Arc::new(Only(party.certificate.clone()))
}

/// A handshake of two configurations, to its end and until both have nothing more to say.
fn shake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<ClientConnection, Error> {
    let name = ServerName::try_from("host.example").unwrap();
    let mut client = ClientConnection::new(client.clone(), name)?;
    let mut server = ServerConnection::new(server.clone())?;
    while client.is_handshaking() || server.is_handshaking() || server.wants_write() || client.wants_write() {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).unwrap();
        }
        let mut rest = &flight[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        flight.clear();
        while server.wants_write() {
            server.write_tls(&mut flight).unwrap();
        }
        let mut rest = &flight[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(client)
}

#[test]
fn peers_accept_each_other_by_rule_at_every_connection() {
    let (ours, theirs) = (party("ours"), party("theirs"));
    let client = Arc::new(client(only(&theirs), Some(ours.certified.clone())).unwrap());
    let server = Arc::new(server(theirs.certified.clone(), Some(only(&ours))).unwrap());
    assert!(!server.session_storage.can_cache());
    assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
    assert!(!client.enable_early_data);
    for _ in 0..2 {
        let connection = shake(&client, &server).unwrap();
        assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert!(matches!(
            connection.handshake_kind(),
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
        ));
        assert_eq!(connection.tls13_tickets_received(), 0);
    }
    // Nor does either side resume for a peer that would; two that would do.
    let mut eager = (*client).clone();
    eager.resumption = Resumption::in_memory_sessions(8);
    let mut willing = (*server).clone();
    willing.session_storage = ServerSessionMemoryCache::new(8);
    willing.send_tls13_tickets = 2;
    let (eager, willing) = (Arc::new(eager), Arc::new(willing));
    let second = |client, server| {
        shake(client, server).unwrap();
        shake(client, server).unwrap().handshake_kind()
    };
    assert_ne!(second(&eager, &server), Some(HandshakeKind::Resumed));
    assert_ne!(second(&client, &willing), Some(HandshakeKind::Resumed));
    assert_eq!(second(&eager, &willing), Some(HandshakeKind::Resumed));
}

#[test]
fn others_are_refused_on_both_sides() {
    let (ours, theirs, other) = (party("ours"), party("theirs"), party("other"));
    let as_client =
        |rule: &Party, own: Option<Arc<dyn ResolvesClientCert>>| Arc::new(client(only(rule), own).unwrap());
    let as_server = |own: &Party, clients: Option<&Party>| {
        Arc::new(server(own.certified.clone(), clients.map(only)).unwrap())
    };
    let refused = |result: Result<ClientConnection, Error>| match result {
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {}
        other => panic!("expected a refusal by rule, found {other:?}"),
    };
    let own = || Some(ours.certified.clone() as Arc<dyn ResolvesClientCert>);
    refused(shake(&as_client(&theirs, own()), &as_server(&other, Some(&ours))));
    refused(shake(&as_client(&theirs, own()), &as_server(&theirs, Some(&other))));
    // Who asks for certificates accepts nobody without one.
    let nameless = shake(&as_client(&theirs, None), &as_server(&theirs, Some(&ours)));
    assert!(matches!(nameless, Err(Error::NoCertificatesPresented)), "{nameless:?}");
    shake(&as_client(&theirs, None), &as_server(&theirs, None)).unwrap();
}

/// Whoever copies an accepted certificate has to sign with its key as well.
#[test]
fn a_certificate_without_its_key_is_of_no_use() {
    let (theirs, thief) = (party("theirs"), party("thief"));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    assert!(certified(vec![theirs.certificate.clone()], key).is_err());

    #[derive(Debug)]
    struct Anyone;
    impl Rule for Anyone {
        fn check(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: UnixTime,
        ) -> Result<(), CertificateError> {
            Ok(())
        }
    }
    let stolen = stolen(&theirs, &thief);
    let client = Arc::new(client(Arc::new(Anyone), Some(stolen.clone())).unwrap());
    let honest = Arc::new(server(thief.certified.clone(), Some(Arc::new(Anyone))).unwrap());
    let result = shake(&client, &honest);
    assert!(matches!(result, Err(Error::InvalidCertificate(CertificateError::BadSignature))), "{result:?}");
    let dishonest = Arc::new(server(stolen, None).unwrap());
    let client = Arc::new(privet_tls::client(only(&theirs), None).unwrap());
    let result = shake(&client, &dishonest);
    assert!(matches!(result, Err(Error::InvalidCertificate(CertificateError::BadSignature))), "{result:?}");
}

/// The one's certificate, the other's key.
fn stolen(of: &Party, by: &Party) -> Arc<SingleCertAndKey> {
    let shown = ResolvesClientCert::resolve(&*by.certified, &[], &[]).unwrap();
    let mixed = rustls::sign::CertifiedKey::new(vec![of.certificate.clone()], shown.key.clone());
    Arc::new(SingleCertAndKey::from(mixed))
}

#[test]
fn tls_1_2_is_refused_on_both_sides() {
    let theirs = party("theirs");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let old_client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let ours = Arc::new(server(theirs.certified.clone(), None).unwrap());
    assert!(matches!(shake(&Arc::new(old_client), &ours), Err(Error::PeerIncompatible(_))));
    let old_server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(theirs.certified.clone());
    let ours = Arc::new(client(only(&theirs), None).unwrap());
    assert!(shake(&ours, &Arc::new(old_server)).is_err());
}

/// What an eavesdropper reads of a client.
#[test]
fn a_client_names_nobody() {
    let theirs = party("theirs");
    let config = Arc::new(client(only(&theirs), None).unwrap());
    let name = ServerName::try_from("host.example").unwrap();
    let mut connection = ClientConnection::new(config, name).unwrap();
    let mut flight = Vec::new();
    connection.write_tls(&mut flight).unwrap();
    assert!(!flight.windows(12).any(|window| window == b"host.example"));
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut &flight[..]).unwrap();
    let accepted = acceptor.accept().map_err(|(error, _)| error).unwrap().expect("a whole hello");
    assert_eq!(accepted.client_hello().server_name(), None);
}

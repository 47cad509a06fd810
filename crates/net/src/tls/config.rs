//! What TLS may do here: version 1.3, one protocol, pinned certificates, no resumption.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, ServerConfig, SignatureScheme,
};

use crate::fingerprint::Fingerprint;
use crate::identity::{Identity, PinnedPeer};
use crate::text::printable;

/// Name of the protocol inside TLS, with [`crate::WIRE_VERSION`].
pub const ALPN: &str = "privet/1";

/// Configuration of a connecting party that accepts `peer` only.
pub(super) fn client(identity: &Identity, peer: &PinnedPeer) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { peers: vec![peer.clone()], provider }))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())));
    config.alpn_protocols = vec![ALPN.as_bytes().to_vec()];
    config.resumption = Resumption::disabled();
    // Certificates are pinned: the name would only tell eavesdroppers whom we talk to.
    config.enable_sni = false;
    Ok(config)
}

/// Configuration of a listening party for one handshake, and what that handshake's client offered as protocol.
pub(super) fn server(identity: &Identity, peers: &[PinnedPeer]) -> Result<(ServerConfig, Arc<Offer>), Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let offer = Arc::new(Offer { certified: identity.certified(), protocols: Mutex::new(None) });
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(Pinned { peers: peers.to_vec(), provider }))
        .with_cert_resolver(offer.clone());
    config.alpn_protocols = vec![ALPN.as_bytes().to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok((config, offer))
}

/// Names and short fingerprints, for messages.
pub(super) fn list(peers: &[PinnedPeer]) -> String {
    match peers {
        [] => "none".to_owned(),
        peers => peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Serves our certificate and remembers the protocols the client asked for, which rustls does not report.
#[derive(Debug)]
pub(super) struct Offer {
    certified: Arc<CertifiedKey>,
    protocols: Mutex<Option<String>>,
}

impl Offer {
    /// What the client asked for, in words.
    pub(super) fn describe(&self) -> String {
        match &*self.protocols.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(protocols) => format!("asked for {protocols}"),
            None => "named no protocol".to_owned(),
        }
    }
}

impl ResolvesServerCert for Offer {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let protocols = hello.alpn().map(|offered| {
            let names: Vec<_> =
                offered.take(8).map(|name| printable(&String::from_utf8_lossy(name), 40)).collect();
            names.join(", ")
        });
        *self.protocols.lock().unwrap_or_else(PoisonError::into_inner) = protocols;
        Some(self.certified.clone())
    }
}

/// A certificate that is none of the pinned ones.
#[derive(Debug)]
pub(super) struct Unpinned(pub(super) Fingerprint);

impl fmt::Display for Unpinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {} is not pinned", self.0)
    }
}

impl std::error::Error for Unpinned {}

/// Accepts exactly the pinned end-entity certificates; that the peer holds the key is the handshake signature's part.
#[derive(Debug)]
struct Pinned {
    peers: Vec<PinnedPeer>,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if self.peers.iter().any(|peer| peer.certificate == *certificate) {
            return Ok(());
        }
        let unpinned = Unpinned(Fingerprint::of(certificate));
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(unpinned)))))
    }
}

/// The part of a verifier of [`Pinned`] that is the same for servers and clients, each of which has a trait of its own.
macro_rules! handshake_signatures {
    () => {
        /// TLS 1.2 is never negotiated; if it were, no signature of it is valid.
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    handshake_signatures!();
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    handshake_signatures!();
}

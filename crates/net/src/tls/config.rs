//! What TLS may do here: one protocol, between parties that have pinned each other's certificates.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use privet_tls::Rule;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, Error, OtherError, ServerConfig};

use crate::fingerprint::Fingerprint;
use crate::identity::{Identity, PinnedPeer};
use crate::text::printable;

/// Name of the protocol inside TLS, with [`crate::WIRE_VERSION`].
pub const ALPN: &str = "privet/1";

/// Configuration of a connecting party that accepts `peer` only.
pub(super) fn client(identity: &Identity, peer: &PinnedPeer) -> Result<ClientConfig, Error> {
    let own = Arc::new(SingleCertAndKey::from(identity.certified()));
    let mut config = privet_tls::client(Arc::new(Pinned(vec![peer.clone()])), Some(own))?;
    config.alpn_protocols = vec![ALPN.as_bytes().to_vec()];
    Ok(config)
}

/// Configuration of a listening party for one handshake, and what that handshake's client offered as protocol.
pub(super) fn server(identity: &Identity, peers: &[PinnedPeer]) -> Result<(ServerConfig, Arc<Offer>), Error> {
    let offer = Arc::new(Offer { certified: identity.certified(), protocols: Mutex::new(None) });
    let mut config = privet_tls::server(offer.clone(), Some(Arc::new(Pinned(peers.to_vec()))))?;
    config.alpn_protocols = vec![ALPN.as_bytes().to_vec()];
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

/// Accepts exactly the pinned end-entity certificates.
#[derive(Debug)]
struct Pinned(Vec<PinnedPeer>);

impl Rule for Pinned {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<(), CertificateError> {
        if self.0.iter().any(|peer| peer.certificate == *certificate) {
            return Ok(());
        }
        Err(CertificateError::Other(OtherError(Arc::new(Unpinned(Fingerprint::of(certificate))))))
    }
}

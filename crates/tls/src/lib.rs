//! TLS as all connections of Privet use it: version 1.3 only, nothing is resumed, and who is accepted is a [`Rule`] about
//! certificates. Names in them, their issuers and an authority's word mean nothing.
//!
//! A rule sees a certificate; that the peer holds its key is checked here, for all of them, by the handshake's signature. What is
//! spoken inside (ALPN) is the caller's to set.

#![forbid(unsafe_code)]

mod certificate;
mod rule;

use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, Error, ServerConfig};

pub use certificate::self_signed;
pub use rule::Rule;

/// Configuration of a client that accepts servers by a rule, and shows a certificate where it has one.
///
/// # Errors
/// If the cryptographic library lacks TLS 1.3.
pub fn client(
    servers: Arc<dyn Rule>,
    own: Option<Arc<dyn ResolvesClientCert>>,
) -> Result<ClientConfig, Error> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(rule::verifier(servers, &provider));
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(own),
        None => builder.with_no_client_auth(),
    };
    // Every connection asks the rule: a resumed one would show no certificate.
    config.resumption = Resumption::disabled();
    // No rule goes by names: they would only tell eavesdroppers whom we talk to.
    config.enable_sni = false;
    Ok(config)
}

/// Configuration of a server that shows `own`. With a rule for clients it asks for their certificates, and accepts nobody without.
///
/// # Errors
/// If the cryptographic library lacks TLS 1.3.
pub fn server(
    own: Arc<dyn ResolvesServerCert>,
    clients: Option<Arc<dyn Rule>>,
) -> Result<ServerConfig, Error> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13])?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(rule::verifier(clients, &provider)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(own);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A certificate, with those behind it, and its key, to be shown to every peer.
///
/// # Errors
/// If the key is of no kind that is known, or is not the certificate's.
pub fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<SingleCertAndKey>, Error> {
    let certified = CertifiedKey::from_der(chain, key, &provider())?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

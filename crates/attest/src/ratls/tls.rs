//! rustls with attested certificates: TLS 1.3 only, no resumption, names mean nothing.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, ServerConfig, SignatureScheme,
};

use super::certificate::{AttestedIdentity, RaTlsCertificate};
use crate::appraise::appraise;
use crate::claims::Claims;
use crate::error::AttestError;
use crate::policy::Policy;
use crate::verdict::Verdict;
use crate::verifier::Verifier;

/// What shows that evidence is not an old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// The claims buffer has this nonce, which the peer was told before the handshake.
    Nonce(Vec<u8>),
    /// The certificate is valid now, and for at most this long in all.
    Lifetime(Duration),
}

/// Who a peer is: claims, and why they are accepted.
#[derive(Debug, Clone)]
pub struct Attested {
    /// What the verified evidence says.
    pub claims: Claims,
    /// The policy's lines.
    pub verdict: Verdict,
}

/// Accepts peers by their evidence. As rustls' verifier it does so in the handshake; afterwards,
/// [`Authenticator::authenticate`] on the peer's certificate gives the claims.
pub struct Authenticator {
    verifier: Arc<dyn Verifier>,
    policy: Policy,
    freshness: Freshness,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("policy", &self.policy)
            .field("freshness", &self.freshness)
            .finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Accepts those whose evidence the verifier finds authentic, the policy accepts, and that is fresh.
    pub fn new(verifier: Arc<dyn Verifier>, policy: Policy, freshness: Freshness) -> Self {
        Self { verifier, policy, freshness, provider: Arc::new(aws_lc_rs::default_provider()) }
    }

    /// Who the owner of a certificate's key is.
    ///
    /// # Errors
    /// If the certificate or its evidence is malformed, not authentic, not fresh, not accepted by the policy, or not bound to
    /// the certificate's key.
    pub fn authenticate(&self, certificate: &[u8], at: SystemTime) -> Result<Attested, AttestError> {
        let certificate = RaTlsCertificate::parse(certificate)?;
        certificate.check(at)?;
        match &self.freshness {
            Freshness::Nonce(nonce) => certificate.binding().check_nonce(nonce)?,
            Freshness::Lifetime(longest) if certificate.lifetime() > *longest => {
                let expected = format!("a certificate for at most {} s", longest.as_secs());
                let found = format!("one for {} s", certificate.lifetime().as_secs());
                return Err(AttestError::refused("freshness", expected, found));
            }
            Freshness::Lifetime(_) => {}
        }
        let claims = self.verifier.verify(certificate.evidence(), at)?;
        certificate.check_report_data(&claims.report_data)?;
        let verdict = appraise(&claims, &self.policy);
        verdict.clone().into_result()?;
        Ok(Attested { claims, verdict })
    }

    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if !intermediates.is_empty() {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        }
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(now.as_secs())).unwrap_or(UNIX_EPOCH);
        let outcome = self.authenticate(certificate, at);
        outcome
            .map(|_| ())
            .map_err(|e| Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(e)))))
    }

    fn signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS 1.2 is never negotiated; if it were, no signature of it is valid.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled))
}

impl ServerCertVerifier for Authenticator {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Authenticator {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// Configuration of a client that accepts servers by their evidence, and attests itself if it has an identity.
///
/// # Errors
/// If the identity's key does not work.
pub fn client_config(
    peers: Arc<Authenticator>,
    identity: Option<&AttestedIdentity>,
) -> Result<ClientConfig, AttestError> {
    let builder = ClientConfig::builder_with_provider(peers.provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(peers);
    let mut config = match identity {
        Some(identity) => builder
            .with_client_auth_cert(vec![identity.certificate.clone()], identity.private_key())
            .map_err(tls)?,
        None => builder.with_no_client_auth(),
    };
    // A resumed session would not be appraised again.
    config.resumption = Resumption::disabled();
    // Names mean nothing here.
    config.enable_sni = false;
    Ok(config)
}

/// Configuration of a server that attests itself, and accepts clients by their evidence if it is told how.
///
/// # Errors
/// If the identity's key does not work.
pub fn server_config(
    identity: &AttestedIdentity,
    peers: Option<Arc<Authenticator>>,
) -> Result<ServerConfig, AttestError> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?;
    let builder = match peers {
        Some(peers) => builder.with_client_cert_verifier(peers),
        None => builder.with_no_client_auth(),
    };
    let certificates = vec![identity.certificate.clone()];
    let mut config = builder.with_single_cert(certificates, identity.private_key()).map_err(tls)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn tls(error: Error) -> AttestError {
    AttestError::Tls(error.to_string())
}

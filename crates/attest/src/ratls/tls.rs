//! TLS between peers that accept each other by their evidence.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use privet_tls::Rule;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, Error, OtherError, ServerConfig};

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

/// Accepts peers by their evidence. As a rule of TLS it does so in the handshake; afterwards,
/// [`Authenticator::authenticate`] on the peer's certificate gives the claims.
pub struct Authenticator {
    verifier: Arc<dyn Verifier>,
    policy: Policy,
    freshness: Freshness,
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
        Self { verifier, policy, freshness }
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
}

impl Rule for Authenticator {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        if !others.is_empty() {
            return Err(CertificateError::UnknownIssuer);
        }
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(now.as_secs())).unwrap_or(UNIX_EPOCH);
        let outcome = self.authenticate(certificate, at);
        outcome.map(|_| ()).map_err(|e| CertificateError::Other(OtherError(Arc::new(e))))
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
    let own = identity.map(certified).transpose()?.map(|own| own as Arc<dyn ResolvesClientCert>);
    privet_tls::client(peers, own).map_err(tls)
}

/// Configuration of a server that attests itself, and accepts clients by their evidence if it is told how.
///
/// # Errors
/// If the identity's key does not work.
pub fn server_config(
    identity: &AttestedIdentity,
    peers: Option<Arc<Authenticator>>,
) -> Result<ServerConfig, AttestError> {
    privet_tls::server(certified(identity)?, peers.map(|peers| peers as Arc<dyn Rule>)).map_err(tls)
}

fn certified(identity: &AttestedIdentity) -> Result<Arc<SingleCertAndKey>, AttestError> {
    privet_tls::certified(vec![identity.certificate.clone()], identity.private_key()).map_err(tls)
}

fn tls(error: Error) -> AttestError {
    AttestError::Tls(error.to_string())
}

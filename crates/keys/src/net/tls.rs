//! TLS 1.3 with certificates that are pinned, or that prove by attestation whose key they hold.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use privet_attest::ratls::{AttestedIdentity, Authenticator, Freshness, client_config, server_config};
use privet_attest::{AttestError, Attester, Policy, Verifier};
use privet_tls::Rule;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, Error, ServerConfig};
use zeroize::Zeroizing;

use crate::error::KeysError;

/// File name of the server's private key.
pub const TLS_KEY_FILE: &str = "tls.key";
/// File name of the server's certificate, which clients pin.
pub const TLS_CERTIFICATE_FILE: &str = "tls.crt";
const HTTP: &[u8] = b"http/1.1";
/// More is neither key nor certificate.
const MAX_PEM_BYTES: u64 = 64 << 10;

/// How long a server's attested certificate is valid; it is renewed after half of it.
const SERVER_LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// How long a client's is, which makes one for every connection.
const CLIENT_LIFETIME: Duration = Duration::from_secs(600);
/// How long those of others may be: twice ours.
pub const LONGEST_SERVER: Duration = Duration::from_secs(24 * 3600);
const LONGEST_CLIENT: Duration = Duration::from_secs(1200);

/// A server's side of TLS.
pub struct ServerTls(Kind);

enum Kind {
    Fixed(Arc<ServerConfig>),
    Attested(Box<Renewed>),
}

/// A certificate with evidence, made anew from time to time.
struct Renewed {
    attester: Arc<dyn Attester>,
    clients: Option<Arc<Authenticator>>,
    protocol: &'static [u8],
    current: Mutex<(Offer, Instant)>,
}

/// What a server shows in a handshake.
#[derive(Clone)]
pub(super) struct Offer {
    pub(super) config: Arc<ServerConfig>,
    /// The public key of an attested certificate, as evidence is bound to it.
    pub(super) public_key: Option<Arc<[u8]>>,
}

impl ServerTls {
    /// With the key and certificate of a directory.
    ///
    /// # Errors
    /// If a file is missing or malformed, or the key can be read by others.
    pub fn load(dir: &Path) -> Result<Self, KeysError> {
        let key_path = dir.join(TLS_KEY_FILE);
        let found = fs::metadata(&key_path);
        let found =
            found.map_err(KeysError::missing(&key_path, "privet keyserver init makes it for a server"))?;
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let problem = format!(
                "this private key is accessible to other users (mode {mode:o}, expected 600); run: chmod 600 {}",
                key_path.display()
            );
            return Err(KeysError::file(&key_path, problem));
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&key_path)?)
            .map_err(|e| KeysError::file(&key_path, format!("not a private key in PEM: {e}")))?;
        let path = dir.join(TLS_CERTIFICATE_FILE);
        let chain = certificates(&path)?;
        let fail = |e: Error| {
            let problem = format!("not usable with {TLS_KEY_FILE}, to which it has to belong ({e})");
            KeysError::file(&path, problem)
        };
        let own = privet_tls::certified(chain, key).map_err(fail)?;
        let mut config = privet_tls::server(own, None).map_err(fail)?;
        config.alpn_protocols = vec![HTTP.to_vec()];
        Ok(Self(Kind::Fixed(Arc::new(config))))
    }

    /// With a certificate by which the server proves what it runs (RA-TLS). With a policy for clients, only those that prove
    /// the same of themselves get as far as HTTP.
    ///
    /// # Errors
    /// If no evidence can be made here.
    pub fn attested(
        attester: Arc<dyn Attester>,
        clients: Option<(Arc<dyn Verifier>, Policy)>,
    ) -> Result<Self, KeysError> {
        Self::attested_for(HTTP, attester, clients)
    }

    /// The same for another protocol, which peers have to ask for (ALPN).
    ///
    /// # Errors
    /// As [`ServerTls::attested`].
    pub fn attested_for(
        protocol: &'static [u8],
        attester: Arc<dyn Attester>,
        clients: Option<(Arc<dyn Verifier>, Policy)>,
    ) -> Result<Self, KeysError> {
        let clients = clients.map(|(verifier, policy)| {
            Arc::new(Authenticator::new(verifier, policy, Freshness::Lifetime(LONGEST_CLIENT)))
        });
        let current = Mutex::new((attested_offer(protocol, &*attester, clients.clone())?, Instant::now()));
        Ok(Self(Kind::Attested(Box::new(Renewed { attester, clients, protocol, current }))))
    }

    /// What to show in the next handshake. It may have to make evidence first.
    pub(super) fn offer(&self) -> Offer {
        match &self.0 {
            Kind::Fixed(config) => Offer { config: config.clone(), public_key: None },
            Kind::Attested(renewed) => {
                let mut current = renewed.current.lock().unwrap_or_else(PoisonError::into_inner);
                if current.1.elapsed() > SERVER_LIFETIME / 2
                    // Otherwise it is tried again at the next handshake, and this certificate serves as long as it is valid.
                    && let Ok(offer) =
                        attested_offer(renewed.protocol, &*renewed.attester, renewed.clients.clone())
                {
                    *current = (offer, Instant::now());
                }
                current.0.clone()
            }
        }
    }
}

fn attested_offer(
    protocol: &[u8],
    attester: &dyn Attester,
    clients: Option<Arc<Authenticator>>,
) -> Result<Offer, KeysError> {
    let fail = |e: AttestError| KeysError::Attest(e.to_string());
    let identity =
        AttestedIdentity::generate(attester, None, SystemTime::now(), SERVER_LIFETIME).map_err(fail)?;
    let mut config = server_config(&identity, clients).map_err(fail)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Offer { config: Arc::new(config), public_key: Some(identity.public_key().into()) })
}

/// Makes a server's key and self-signed certificate for these host names and addresses, in a directory that is there.
///
/// # Errors
/// If one of them is there already, a name is none, or the system fails.
pub fn make_certificate(dir: &Path, names: &[String]) -> Result<(), KeysError> {
    let usage = |e: rcgen::Error| KeysError::Usage(format!("a certificate for {}: {e}", names.join(", ")));
    if let Some(wrong) = names.iter().find(|name| ServerName::try_from(name.as_str()).is_err()) {
        let problem = format!("{wrong:?} is not the name or address of a host");
        return Err(KeysError::Usage(problem));
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(usage)?;
    let params = privet_tls::self_signed("privet keyserver", names).map_err(usage)?;
    let certificate = params.self_signed(&key).map_err(usage)?;
    create(&dir.join(TLS_KEY_FILE), 0o600, Zeroizing::new(key.serialize_pem()).as_bytes())?;
    create(&dir.join(TLS_CERTIFICATE_FILE), 0o644, certificate.pem().as_bytes())
}

/// Writes a file that must not exist yet, durably.
pub(crate) fn create(path: &Path, mode: u32, content: &[u8]) -> Result<(), KeysError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(KeysError::io(path))
}

/// How a client knows that a server is the right one.
#[derive(Clone)]
pub struct ServerTrust(Trust);

#[derive(Clone)]
enum Trust {
    Pinned(Arc<ClientConfig>),
    Attested(Arc<Authenticator>),
}

impl ServerTrust {
    /// By the first certificate of a file, byte for byte.
    ///
    /// # Errors
    /// If the file is missing or holds no certificate.
    pub fn pinned(path: &Path) -> Result<Self, KeysError> {
        let pinned = Arc::new(Pinned(certificates(path)?.swap_remove(0)));
        let mut config =
            privet_tls::client(pinned, None).map_err(|_| KeysError::Internal("TLS 1.3 is not there"))?;
        config.alpn_protocols = vec![HTTP.to_vec()];
        // The name is the one in the certificate, and what stands in front of a server may choose by it.
        config.enable_sni = true;
        Ok(Self(Trust::Pinned(Arc::new(config))))
    }

    /// By its evidence, and what a policy says about it (RA-TLS). The client shows its own in the handshake.
    pub fn attested(verifier: Arc<dyn Verifier>, policy: Policy) -> Self {
        let authenticator = Authenticator::new(verifier, policy, Freshness::Lifetime(LONGEST_SERVER));
        Self(Trust::Attested(Arc::new(authenticator)))
    }

    /// The configuration of a connection by who has this attester.
    pub(super) fn config(&self, attester: Option<&dyn Attester>) -> Result<Arc<ClientConfig>, KeysError> {
        match &self.0 {
            Trust::Pinned(config) => Ok(config.clone()),
            Trust::Attested(authenticator) => {
                let fail = |e: AttestError| KeysError::Attest(e.to_string());
                let make =
                    |attester| AttestedIdentity::generate(attester, None, SystemTime::now(), CLIENT_LIFETIME);
                let identity = attester.map(make).transpose().map_err(fail)?;
                let mut config = client_config(authenticator.clone(), identity.as_ref()).map_err(fail)?;
                config.alpn_protocols = vec![HTTP.to_vec()];
                Ok(Arc::new(config))
            }
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let length = fs::metadata(path).map_err(KeysError::io(path))?.len();
    if length > MAX_PEM_BYTES {
        return Err(KeysError::file(path, format!("expected at most {MAX_PEM_BYTES} bytes, found {length}")));
    }
    fs::read(path).map(Zeroizing::new).map_err(KeysError::io(path))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, KeysError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(KeysError::file(path, "expected a certificate in PEM, found none")),
        Err(e) => Err(KeysError::file(path, format!("not a certificate in PEM: {e}"))),
    }
}

/// Accepts exactly one certificate.
#[derive(Debug)]
struct Pinned(CertificateDer<'static>);

impl Rule for Pinned {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<(), CertificateError> {
        if *certificate == self.0 { Ok(()) } else { Err(CertificateError::ApplicationVerificationFailure) }
    }
}

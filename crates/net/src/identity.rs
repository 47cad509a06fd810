//! A party's key and certificate, and the certificates of the parties it knows.
//!
//! Trust is pinning: a party accepts exactly the certificates it has been given as files. Names, dates and issuers in
//! them mean nothing to the protocol, so a wrong clock cannot break a session.

use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{KeyPair, PKCS_ED25519};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::{Zeroize, Zeroizing};

use crate::error::NetError;
use crate::text::printable;

pub use crate::fingerprint::Fingerprint;

/// File name of the private key in an identity's directory.
pub const KEY_FILE: &str = "identity.key";
/// File name of the certificate in an identity's directory; this one may be given away.
pub const CERTIFICATE_FILE: &str = "identity.crt";

/// Keys and certificates are under a kilobyte; more is not one of ours.
const MAX_PEM_BYTES: u64 = 64 << 10;

/// A party's private key and self-signed certificate.
#[derive(Clone)]
pub struct Identity {
    certificate: PinnedPeer,
    key_pem: Zeroizing<String>,
    certified: Arc<CertifiedKey>,
}

/// Without the private key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.certificate).finish_non_exhaustive()
    }
}

impl Identity {
    /// A fresh Ed25519 key and its certificate, with `name` as common name.
    ///
    /// # Errors
    /// If `name` is empty, too long or has control characters, or key generation fails.
    pub fn generate(name: &str) -> Result<Identity, NetError> {
        let fail = |problem: String| NetError::Identity { path: PathBuf::from(name), problem };
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return Err(fail("a party's name has 1 to 64 bytes and no control characters".to_owned()));
        }
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(|e| fail(e.to_string()))?;
        let params = privet_tls::self_signed(name, &[]);
        let certificate =
            params.and_then(|params| params.self_signed(&key)).map_err(|e| fail(e.to_string()))?;
        Identity::from_pem(Path::new(name), certificate.pem(), Zeroizing::new(key.serialize_pem()))
    }

    /// Writes the key (mode 0600 from the moment it exists) and the certificate into `dir`, which is made if needed.
    ///
    /// # Errors
    /// If a file cannot be written, or one of them is there already: an identity is never overwritten.
    pub fn write(&self, dir: &Path) -> Result<(), NetError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| io_problem(dir, &e))?;
        create(&dir.join(KEY_FILE), 0o600, self.key_pem.as_bytes())?;
        create(&dir.join(CERTIFICATE_FILE), 0o644, self.certificate.pem.as_bytes())
    }

    /// Reads what [`Identity::write`] wrote.
    ///
    /// # Errors
    /// If a file is missing or malformed, key and certificate do not belong together, or the key file can be read by
    /// others than its owner.
    pub fn load(dir: &Path) -> Result<Identity, NetError> {
        let key_path = dir.join(KEY_FILE);
        let mode =
            fs::metadata(&key_path).map_err(|e| io_problem(&key_path, &e))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(NetError::Identity {
                problem: format!(
                    "this private key is accessible to other users (mode {mode:o}, expected 600); run: chmod 600 {}",
                    key_path.display()
                ),
                path: key_path,
            });
        }
        let key_pem = Zeroizing::new(read_text(&key_path)?);
        Identity::from_pem(dir, read_text(&dir.join(CERTIFICATE_FILE))?, key_pem)
    }

    /// The public half, as others pin it.
    pub fn certificate(&self) -> &PinnedPeer {
        &self.certificate
    }

    /// Name in the certificate.
    pub fn name(&self) -> &str {
        &self.certificate.name
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        self.certificate.fingerprint()
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }

    fn from_pem(
        path: &Path,
        certificate_pem: String,
        key_pem: Zeroizing<String>,
    ) -> Result<Identity, NetError> {
        let fail = |problem: String| NetError::Identity { path: path.to_owned(), problem };
        let certificate = PinnedPeer::from_pem(path, certificate_pem)?;
        let mut key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|e| fail(format!("{KEY_FILE} holds no PEM private key: {e}")))?;
        let signer = any_supported_type(&key).map_err(|e| fail(format!("{KEY_FILE} is not usable: {e}")));
        key.zeroize();
        let certified = CertifiedKey::new(vec![certificate.certificate.clone()], signer?);
        certified.keys_match().map_err(|e| {
            fail(format!(
                "{KEY_FILE} and {CERTIFICATE_FILE} do not belong together ({e}); restore both from one backup"
            ))
        })?;
        Ok(Identity { certificate, key_pem, certified: Arc::new(certified) })
    }
}

/// A party's certificate as its peers know it: exactly these bytes are accepted.
#[derive(Clone)]
pub struct PinnedPeer {
    /// Common name in the certificate; a label, not a credential.
    pub name: String,
    pub(crate) certificate: CertificateDer<'static>,
    pem: String,
}

impl PinnedPeer {
    /// Reads a party's `.crt` file.
    ///
    /// # Errors
    /// If the file is missing, too big, or holds anything but one PEM certificate with a common name.
    pub fn load(path: &Path) -> Result<PinnedPeer, NetError> {
        PinnedPeer::from_pem(path, read_text(path)?)
    }

    /// Writes the certificate as a new PEM file.
    ///
    /// # Errors
    /// If the file exists or cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), NetError> {
        create(path, 0o644, self.pem.as_bytes())
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    pub(crate) fn from_pem(path: &Path, pem: String) -> Result<PinnedPeer, NetError> {
        let fail = |problem: String| NetError::Identity { path: path.to_owned(), problem };
        let mut found = CertificateDer::pem_slice_iter(pem.as_bytes());
        let certificate = match (found.next(), found.next()) {
            (Some(Ok(certificate)), None) => certificate,
            (Some(Err(e)), _) => return Err(fail(format!("not a PEM certificate: {e}"))),
            (None, _) => return Err(fail("expected one PEM certificate, found none".to_owned())),
            (Some(_), Some(_)) => return Err(fail("expected one PEM certificate, found more".to_owned())),
        };
        let name = common_name(&certificate).ok_or_else(|| {
            fail("the certificate has no common name; make one with privet setup".to_owned())
        })?;
        Ok(PinnedPeer { name, certificate, pem })
    }
}

impl fmt::Display for PinnedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.fingerprint().short())
    }
}

impl fmt::Debug for PinnedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedPeer({self})")
    }
}

/// The first common name in a certificate. Ours are self-signed, so issuer and subject are the same; the name is only a
/// label, so a pattern search (object identifier 2.5.4.3, then a short UTF-8 or printable string) is enough.
fn common_name(der: &[u8]) -> Option<String> {
    const OID: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
    let at = der.windows(OID.len()).position(|window| window == OID)? + OID.len();
    let (&[tag, length], rest) = der.get(at..)?.split_first_chunk::<2>()?;
    let name = std::str::from_utf8(rest.get(..length as usize)?).ok()?;
    (matches!(tag, 0x0c | 0x13) && (1..=64).contains(&length)).then(|| printable(name, 64))
}

/// Writes a file that must not exist yet, with this mode from the start, and syncs it.
fn create(path: &Path, mode: u32, content: &[u8]) -> Result<(), NetError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        // The mode given to open is cut by the umask: set it exactly.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|e| io_problem(path, &e))
}

fn read_text(path: &Path) -> Result<String, NetError> {
    let length = fs::metadata(path).map_err(|e| io_problem(path, &e))?.len();
    if length > MAX_PEM_BYTES {
        let problem =
            format!("expected a key or certificate of at most {MAX_PEM_BYTES} bytes, found {length}");
        return Err(NetError::Identity { path: path.to_owned(), problem });
    }
    fs::read_to_string(path).map_err(|e| io_problem(path, &e))
}

fn io_problem(path: &Path, error: &std::io::Error) -> NetError {
    let problem = match error.kind() {
        ErrorKind::NotFound => {
            if path.extension().is_some_and(|e| e == "key") {
                "missing; a private key exists once: restore it, or make new identities with privet setup"
                    .to_owned()
            } else {
                "missing; make it with privet setup, or copy it from the party it belongs to".to_owned()
            }
        }
        ErrorKind::AlreadyExists => "already exists; remove it first if it is no longer needed".to_owned(),
        _ => error.to_string(),
    };
    NetError::Identity { path: path.to_owned(), problem }
}

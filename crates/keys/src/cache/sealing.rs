//! The key under which leases lie on the disk of the host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use crate::error::KeysError;
use crate::net::tls::create;
use crate::random::{SystemRandomness, expand};
use crate::secret::MasterKey;

/// Gramine's directory of keys, below `/dev/attestation`, and the key that only this very enclave on this CPU gets.
const ENCLAVE_KEY: &str = "keys/_sgx_mrenclave";
/// Bytes of such a key.
const ENCLAVE_KEY_BYTES: usize = 16;

/// The key that leases are sealed to.
pub struct SealingKey(MasterKey);

impl SealingKey {
    /// The enclave's own, from Gramine's interface at `attestation`, which is `/dev/attestation` but for tests. Another
    /// enclave, another version of this one, or another CPU gets another one.
    ///
    /// # Errors
    /// If there is none: no SGX enclave under Gramine.
    pub fn of_enclave(attestation: &Path) -> Result<Self, KeysError> {
        let path = attestation.join(ENCLAVE_KEY);
        let raw = Zeroizing::new(fs::read(&path).map_err(KeysError::io(&path))?);
        if raw.len() != ENCLAVE_KEY_BYTES {
            let problem = format!("expected a sealing key of {ENCLAVE_KEY_BYTES} bytes, found {}", raw.len());
            return Err(KeysError::file(&path, problem));
        }
        let mut key = Zeroizing::new([0; MasterKey::LEN]);
        let extracted = Salt::new(HKDF_SHA256, b"privet keycache sealing").extract(&raw);
        expand(&extracted, &[b"mrenclave"], &mut *key)?;
        MasterKey::from_slice(&*key).map(Self).ok_or(KeysError::Internal("a key has 32 bytes"))
    }

    /// **Insecure**: a file of 32 bytes, mode 0600, made if it is not there. The host reads it, and with it the leased keys.
    ///
    /// # Errors
    /// If it is something else, or others can read it.
    pub fn of_file_insecure(path: &Path) -> Result<Self, KeysError> {
        if !path.exists() {
            create(path, 0o600, MasterKey::draw(&SystemRandomness)?.expose())?;
        }
        let mode = fs::metadata(path).map_err(KeysError::io(path))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let problem = format!(
                "this secret is accessible to other users (mode {mode:o}, expected 600); run: chmod 600 {}",
                path.display()
            );
            return Err(KeysError::file(path, problem));
        }
        let raw = Zeroizing::new(fs::read(path).map_err(KeysError::io(path))?);
        let key = MasterKey::from_slice(&raw);
        key.map(Self).ok_or_else(|| KeysError::file(path, format!("expected 32 bytes, found {}", raw.len())))
    }

    pub(super) fn key(&self) -> &MasterKey {
        &self.0
    }
}

//! Node cases of the ONNX backend suite, from the pinned wheel of PyPI.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use sha2::{Digest, Sha256};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// The wheel: every platform's holds the same cases.
const URL: &str = "https://files.pythonhosted.org/packages/fb/71/d3fec0dcf9a7a99e7368112d9c765154e81da70fcba1e3121131a45c245b/onnx-1.20.1-cp312-abi3-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl";
const SHA256: &str = "9336b6b8e6efcf5c490a845f6afd7e041c89a56199aeda384ed7d58fb953b080";
/// More than the wheel has.
const MAX_BYTES: u64 = 64 << 20;
/// Where the wheel keeps the cases.
const PREFIX: &str = "onnx/backend/test/data/node";
/// Connecting, and the whole download.
const TIMEOUT: Duration = Duration::from_secs(600);

/// What was fetched.
#[derive(Debug, Serialize)]
pub struct Fetched {
    /// Directory for `cargo xtask conformance --data`.
    pub directory: PathBuf,
    /// Number of cases.
    pub cases: usize,
    /// Where they come from.
    pub url: &'static str,
    /// Digest of that file.
    pub sha256: &'static str,
}

/// Where cases are put, and looked for, unless told otherwise.
pub fn directory() -> PathBuf {
    crate::root().join("target/conformance")
}

/// Downloads, checks and unpacks the cases into `out/onnx_node`. An earlier copy is replaced.
///
/// # Errors
/// The network, the file's digest or the disk.
pub fn fetch(out: Option<PathBuf>) -> Result<Fetched> {
    let directory = out.unwrap_or_else(directory);
    let wheel = download().with_context(|| format!("downloading {URL}"))?;
    let digest: String = Sha256::digest(&wheel).iter().map(|b| format!("{b:02x}")).collect();
    ensure!(digest == SHA256, "{URL}: expected SHA-256 {SHA256}, found {digest}");
    let own = directory.join("onnx_node");
    if own.exists() {
        fs::remove_dir_all(&own)?;
    }
    let cases = unpack(&wheel, &own).with_context(|| own.display().to_string())?;
    Ok(Fetched { directory, cases, url: URL, sha256: SHA256 })
}

fn download() -> Result<Vec<u8>> {
    // The certificates that this machine trusts, so that it works behind a company's proxy.
    let found = rustls_native_certs::load_native_certs();
    ensure!(!found.certs.is_empty(), "this machine trusts no certificates: {:?}", found.errors);
    let trusted: Vec<_> = found.certs.iter().map(|c| Certificate::from_der(c).to_owned()).collect();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(trusted)))
        .unversioned_rustls_crypto_provider(provider)
        .build();
    let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).tls_config(tls).build();
    let mut response = ureq::Agent::new_with_config(config).get(URL).call()?;
    let length = response.body().content_length().unwrap_or(0);
    let bar = crate::progress(length);
    let mut wheel = Vec::new();
    let mut body = bar.wrap_read(response.body_mut().with_config().limit(MAX_BYTES).reader());
    body.read_to_end(&mut wheel)?;
    bar.finish_and_clear();
    Ok(wheel)
}

/// Writes the cases of a wheel; returns how many there are.
fn unpack(wheel: &[u8], to: &Path) -> Result<usize> {
    let mut archive = zip::ZipArchive::new(io::Cursor::new(wheel))?;
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i)?;
        let name = PathBuf::from(entry.name()?.as_ref());
        let Ok(inner) = name.strip_prefix(PREFIX) else { continue };
        if !entry.is_file() {
            continue;
        }
        // The digest is pinned; a path that leaves the directory is refused all the same.
        if inner.components().any(|c| !matches!(c, Component::Normal(_))) {
            bail!("the wheel holds {}", name.display());
        }
        let path = to.join(inner);
        fs::create_dir_all(path.parent().unwrap_or(to))?;
        io::copy(&mut entry, &mut File::create(&path)?)?;
    }
    Ok(fs::read_dir(to).context("the wheel holds no cases")?.count())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn wheel(name: &str) -> Vec<u8> {
        let mut archive = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for name in [name, "onnx/__init__.py"] {
            archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(b"bytes").unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    #[test]
    fn only_cases_are_unpacked_and_only_inside() {
        let home = tempfile::tempdir().unwrap();
        let good = format!("{PREFIX}/test_abs/model.onnx");
        assert_eq!(unpack(&wheel(&good), home.path()).unwrap(), 1);
        assert_eq!(fs::read(home.path().join("test_abs/model.onnx")).unwrap(), b"bytes");
        assert!(unpack(&wheel(&format!("{PREFIX}/../../evil")), &home.path().join("x")).is_err());
        assert!(unpack(&wheel("other/file"), &home.path().join("y")).is_err());
    }
}

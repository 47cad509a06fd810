//! Producing evidence.

mod gramine;
mod tsm;

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::error::AttestError;
use crate::evidence::{Evidence, MAX_BODY_BYTES, Tee};

pub use gramine::{GRAMINE_DIR, GramineAttester};
pub use tsm::{TSM_REPORT_DIR, TsmAttester};

/// Something that can prove where it runs.
pub trait Attester: Send + Sync {
    /// Evidence with these 64 bytes in its signed part; [`crate::binding`] makes them of a key and a nonce.
    ///
    /// # Errors
    /// If the hardware's interface is missing, fails or gives something else.
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttestError>;
}

/// The attester of this machine: Gramine's interface if it is there, else the kernel's.
///
/// # Errors
/// If there is neither.
pub fn attester_at(gramine: &Path, tsm: &Path) -> Result<Box<dyn Attester>, AttestError> {
    if gramine.join(gramine::TYPE_FILE).exists() {
        return Ok(Box::new(GramineAttester::new(gramine)));
    }
    if tsm.is_dir() {
        return Ok(Box::new(TsmAttester::new(tsm)));
    }
    let problem = format!(
        "neither it nor {} is there: this is no enclave under Gramine, no TDX domain and no SEV-SNP guest, or configfs is not mounted",
        tsm.display()
    );
    Err(AttestError::Attester { path: gramine.to_owned(), problem })
}

/// A file of an attestation interface, at most as large as a quote may be.
fn read(path: &Path) -> Result<Vec<u8>, AttestError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|e| failed(path, "read", &e))?;
    file.take(MAX_BODY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|e| failed(path, "read", &e))?;
    if bytes.len() > MAX_BODY_BYTES {
        return Err(problem(path, format!("it has more than {MAX_BODY_BYTES} bytes")));
    }
    Ok(bytes)
}

fn read_text(path: &Path) -> Result<String, AttestError> {
    let bytes = read(path)?;
    let text = String::from_utf8(bytes).map_err(|_| problem(path, "it holds no text"))?;
    Ok(text.trim_end_matches(['\n', '\0', ' ']).to_owned())
}

/// Writes at once, as these interfaces want it.
fn write(path: &Path, bytes: &[u8]) -> Result<(), AttestError> {
    let open = fs::OpenOptions::new().write(true).open(path);
    open.and_then(|mut file| std::io::Write::write_all(&mut file, bytes))
        .map_err(|e| failed(path, "write", &e))
}

/// A quote or report, if it has the report data that was asked for.
fn checked(
    path: &Path,
    tee: Tee,
    body: Vec<u8>,
    report_data: &[u8; 64],
) -> Result<Option<Evidence>, AttestError> {
    let (kind, size) = (tee.name(), body.len());
    let evidence = Evidence::detect_bare(&body).filter(|evidence| evidence.tee() == tee);
    let evidence = evidence.ok_or_else(|| {
        problem(path, format!("expected a quote or report of {kind}, found {size} bytes that are none"))
    })?;
    let found = evidence.unverified_report_data().ok_or_else(|| {
        problem(path, format!("expected a quote or report of {kind}, found {size} bytes, which are too few"))
    })?;
    Ok((found == *report_data).then_some(evidence))
}

fn failed(path: &Path, what: &str, error: &std::io::Error) -> AttestError {
    let advice = match error.kind() {
        ErrorKind::NotFound => ": is this really such an environment, and is the interface mounted?",
        ErrorKind::PermissionDenied => ": it takes more rights; root usually has them",
        _ => "",
    };
    problem(path, format!("cannot {what} it: {error}{advice}"))
}

fn problem(path: &Path, problem: impl Into<String>) -> AttestError {
    AttestError::Attester { path: path.to_owned(), problem: problem.into() }
}

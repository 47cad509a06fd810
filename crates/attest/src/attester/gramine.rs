//! Evidence of an SGX enclave under Gramine: <https://gramine.readthedocs.io/en/stable/attestation.html>.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Attester, checked, problem, read, read_text, write};
use crate::error::AttestError;
use crate::evidence::{Evidence, Tee};

/// Where Gramine has its interface.
pub const GRAMINE_DIR: &str = "/dev/attestation";

pub(super) const TYPE_FILE: &str = "attestation_type";
const DATA_FILE: &str = "user_report_data";
const QUOTE_FILE: &str = "quote";
const DCAP: &str = "dcap";

/// Attests by Gramine's pseudo-files.
#[derive(Debug)]
pub struct GramineAttester {
    dir: PathBuf,
    // The files belong to the whole process: what one thread writes, another's quote would have.
    turn: Mutex<()>,
}

impl GramineAttester {
    /// With the interface in this directory, [`GRAMINE_DIR`] but in tests. A process should have one.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), turn: Mutex::new(()) }
    }
}

impl Attester for GramineAttester {
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttestError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.dir.join(TYPE_FILE);
        let found = read_text(&path)?;
        if found != DCAP {
            let advice = "set sgx.remote_attestation = \"dcap\" in the manifest, and run with gramine-sgx";
            return Err(problem(&path, format!("expected the type {DCAP:?}, found {found:?}: {advice}")));
        }
        write(&self.dir.join(DATA_FILE), report_data)?;
        let path = self.dir.join(QUOTE_FILE);
        let evidence = checked(&path, Tee::Sgx, read(&path)?, report_data)?;
        evidence.ok_or_else(|| {
            problem(
                &path,
                "the quote has other report data than was written: does something else use the interface?",
            )
        })
    }
}

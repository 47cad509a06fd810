//! Evidence of a TDX domain or SEV-SNP guest, by the kernel's configfs-tsm: `Documentation/ABI/testing/configfs-tsm-report`.
//!
//! An entry is a directory. What is written to `inblob` becomes the report data of what is read from `outblob`; `auxblob` has
//! certificates (SEV-SNP). `generation` counts writes: if it moved while we read, someone else wrote, and we try again. We
//! also look for our own report data in the result.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Attester, checked, failed, problem, read, read_text, write};
use crate::error::AttestError;
use crate::evidence::{Collateral, Evidence, MAX_CERTIFICATES, Tee};

/// Where configfs has the interface.
pub const TSM_REPORT_DIR: &str = "/sys/kernel/config/tsm/report";

const ATTEMPTS: usize = 5;

/// Attests by configfs-tsm.
#[derive(Debug)]
pub struct TsmAttester {
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Where we make an entry each time.
    Base(PathBuf),
    /// An entry that someone made for us.
    Entry(PathBuf),
}

impl TsmAttester {
    /// With entries of its own below this directory, [`TSM_REPORT_DIR`] but in tests.
    pub fn new(base: &Path) -> Self {
        Self { place: Place::Base(base.to_owned()) }
    }

    /// With an entry that is there already, as for a process without the right to make one.
    pub fn with_entry(entry: &Path) -> Self {
        Self { place: Place::Entry(entry.to_owned()) }
    }
}

impl Attester for TsmAttester {
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttestError> {
        match &self.place {
            Place::Entry(entry) => evidence(entry, report_data),
            Place::Base(base) => evidence(&OwnEntry::make(base)?.0, report_data),
        }
    }
}

/// An entry that is removed in the end.
struct OwnEntry(PathBuf);

impl OwnEntry {
    fn make(base: &Path) -> Result<Self, AttestError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let entry = base.join(format!("privet-{}-{number}", std::process::id()));
            match fs::create_dir(&entry) {
                Ok(()) => return Ok(Self(entry)),
                // Of a process that had our id and was killed.
                Err(e) if e.kind() == ErrorKind::AlreadyExists && number < 1 << 16 => {}
                Err(e) => return Err(failed(&entry, "make", &e)),
            }
        }
    }
}

impl Drop for OwnEntry {
    fn drop(&mut self) {
        // Nothing depends on it; the kernel removes its files with it.
        let _ = fs::remove_dir(&self.0);
    }
}

fn evidence(entry: &Path, report_data: &[u8; 64]) -> Result<Evidence, AttestError> {
    let (provider, generation, out) =
        (entry.join("provider"), entry.join("generation"), entry.join("outblob"));
    for _ in 0..ATTEMPTS {
        write(&entry.join("inblob"), report_data)?;
        let before = read_text(&generation)?;
        let name = read_text(&provider)?;
        let tee = match name.as_str() {
            "tdx_guest" => Tee::Tdx,
            "sev_guest" => Tee::Snp,
            _ => {
                let found = format!("expected the provider \"tdx_guest\" or \"sev_guest\", found {name:?}");
                return Err(problem(&provider, found));
            }
        };
        let body = read(&out)?;
        let certificates =
            if tee == Tee::Snp { certificates(&entry.join("auxblob"))? } else { Collateral::default() };
        if read_text(&generation)? != before {
            continue;
        }
        if let Some(evidence) = checked(&out, tee, body, report_data)? {
            return evidence.with_collateral(certificates);
        }
    }
    Err(problem(entry, format!("something else writes to it: gave up after {ATTEMPTS} attempts")))
}

/// What the host keeps for the guest: a table of certificates and revocation lists (GHCB specification, "SNP Extended Guest
/// Request"), which may be absent or empty.
fn certificates(path: &Path) -> Result<Collateral, AttestError> {
    match fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Collateral::default()),
        Err(e) => Err(failed(path, "read", &e)),
        Ok(_) => parse_table(&read(path)?).ok_or_else(|| problem(path, "it is no table of certificates")),
    }
}

const ENTRY_BYTES: usize = 24;
const VCEK: &str = "63da758de6644564adc5f4b93be8accd";
const VLEK: &str = "a8074bc2a25a483eaae639c045a0b8a1";
const ASK: &str = "4ab7b379bbac4fe4a02f05aef327c782";
const CRL: &str = "92f81bc358114d3d97ffd19f88dc67ea";

fn parse_table(table: &[u8]) -> Option<Collateral> {
    let mut found = Collateral::default();
    if table.is_empty() {
        return Some(found);
    }
    for entry in table.chunks(ENTRY_BYTES) {
        let (id, place) = entry.split_at_checked(16)?;
        if id == [0; 16] {
            return Some(found);
        }
        let number = |at: usize| Some(u32::from_le_bytes(place.get(at..at + 4)?.try_into().ok()?) as usize);
        let (offset, length) = (number(0)?, number(4)?);
        let bytes = table.get(offset..offset.checked_add(length)?)?;
        let list = match hex::encode(id).as_str() {
            VCEK | VLEK | ASK => &mut found.certificates,
            CRL => &mut found.crls,
            // The root is pinned, and others are not for us.
            _ => continue,
        };
        if list.len() == MAX_CERTIFICATES {
            return None;
        }
        list.push(bytes.to_vec());
    }
    // No end.
    None
}

//! Evidence that nobody here made: `../shared/data/evidence` next to the checkout, optional.

#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use privet_attest::{AttestError, Claims, Collateral, Evidence, Verifier, Verifiers, certificates};

/// 2025-07-01: inside the window of the SGX and the first TDX collateral.
pub(crate) const JULY_2025: u64 = 1_751_328_000;
/// 2026-03-01: inside the window of the second TDX collateral.
pub(crate) const MARCH_2026: u64 = 1_772_323_200;

/// The directory, or `None`, said loudly.
pub(crate) fn evidence_dir() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/evidence");
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!("SKIPPED: no attestation evidence in {}", dir.display());
    None
}

pub(crate) fn read(dir: &Path, name: &str) -> Vec<u8> {
    let path = dir.join(name);
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A quote or report with what belongs to it.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) file: &'static str,
    pub(crate) collateral: Option<&'static str>,
    pub(crate) certificates: &'static [&'static str],
    pub(crate) at: u64,
    /// Where signed bytes end. After it are signatures, certificates and padding.
    pub(crate) signed: usize,
}

pub(crate) const SGX: Case = Case {
    file: "sgx/sgx_quote",
    collateral: Some("sgx/sgx_quote_collateral.json"),
    certificates: &[],
    at: JULY_2025,
    signed: 48 + 384,
};
pub(crate) const TDX: Case = Case {
    file: "tdx/tdx_quote",
    collateral: Some("tdx/tdx_quote_collateral.json"),
    certificates: &[],
    at: JULY_2025,
    signed: 48 + 584,
};
pub(crate) const TDX_OUTDATED: Case = Case {
    file: "tdx/tdx_quote_outdated",
    collateral: Some("tdx/tdx_quote_outdated_collateral.json"),
    certificates: &[],
    at: MARCH_2026,
    signed: 48 + 6 + 648,
};
pub(crate) const SNP_MILAN: Case = Case {
    file: "snp/report_milan.hex",
    collateral: None,
    certificates: &["snp/vcek_milan.der"],
    at: JULY_2025,
    signed: 0x2A0,
};
pub(crate) const SNP_TEST: Case =
    Case { file: "snp/test-report.bin", certificates: &["snp/test-vcek.der"], ..SNP_MILAN };
pub(crate) const SNP_VLEK: Case = Case {
    file: "snp/test-vlek-report.bin",
    certificates: &["snp/test-vlek.der", "snp/milan_ask_ark_asvk.pem"],
    ..SNP_MILAN
};
/// All that verify at their time.
pub(crate) const AUTHENTIC: [Case; 5] = [SGX, TDX, SNP_MILAN, SNP_TEST, SNP_VLEK];

impl Case {
    pub(crate) fn evidence(&self, dir: &Path) -> Evidence {
        Evidence::detect(&read(dir, self.file)).expect(self.file)
    }

    pub(crate) fn collateral(&self, dir: &Path) -> Collateral {
        Collateral {
            dcap: self.collateral.map(|name| read(dir, name)),
            certificates: self
                .certificates
                .iter()
                .flat_map(|name| certificates(&read(dir, name)).expect(name))
                .collect(),
            crls: Vec::new(),
        }
    }

    pub(crate) fn verify(&self, dir: &Path) -> Result<Claims, AttestError> {
        self.verify_at(dir, self.at)
    }

    pub(crate) fn verify_at(&self, dir: &Path, seconds: u64) -> Result<Claims, AttestError> {
        Verifiers::new(self.collateral(dir)).verify(&self.evidence(dir), at(seconds))
    }
}

//! What a trusted execution environment says about itself, as it travels: quote or report, and what helps to verify it.
//!
//! Evidence is not trusted for anything: a verifier decides. Nothing may be keyed on its bytes or their hash, because
//! quotes are malleable: unsigned bytes and encodings of signatures can be changed without making them invalid. Use the
//! verified [`crate::Claims`] and a nonce in the report data.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::AttestError;
pub use crate::tee::Tee;

/// Largest quote or report.
pub const MAX_BODY_BYTES: usize = 64 << 10;
/// Most bytes of collateral: TCB information, certificates and revocation lists together.
pub const MAX_COLLATERAL_BYTES: usize = 1 << 20;
/// Most bytes of encoded evidence.
pub const MAX_EVIDENCE_BYTES: usize = MAX_BODY_BYTES + MAX_COLLATERAL_BYTES + (4 << 10);
/// Most certificates, and most revocation lists.
pub const MAX_CERTIFICATES: usize = 16;
/// Version of the encoding; others are refused.
pub const EVIDENCE_VERSION: u16 = 1;

const MAGIC: &[u8; 8] = b"PRIVEVID";
const HEADER_BYTES: usize = MAGIC.len() + 2;

/// What helps to verify evidence. All of it is signed by the vendor, so it does not matter who supplies it, but for its age.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collateral {
    /// SGX and TDX: the JSON object of TCB information, QE identity, revocation lists and their certificates.
    pub dcap: Option<Vec<u8>>,
    /// SEV-SNP: certificates in DER, in any order: VCEK or VLEK, ASK or ASVK.
    pub certificates: Vec<Vec<u8>>,
    /// SEV-SNP: certificate revocation lists in DER.
    pub crls: Vec<Vec<u8>>,
}

impl Collateral {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.dcap.is_none() && self.certificates.is_empty() && self.crls.is_empty()
    }

    fn check(&self) -> Result<(), AttestError> {
        let lists = [&self.certificates, &self.crls];
        let bytes: usize =
            lists.into_iter().flatten().chain(&self.dcap).map(Vec::len).fold(0, usize::saturating_add);
        if bytes > MAX_COLLATERAL_BYTES {
            return Err(too_large("collateral", bytes, MAX_COLLATERAL_BYTES));
        }
        match lists.into_iter().map(Vec::len).find(|&count| count > MAX_CERTIFICATES) {
            Some(count) => {
                let problem = format!(
                    "{count} certificates or revocation lists, at most {MAX_CERTIFICATES} are allowed"
                );
                Err(AttestError::malformed("collateral", problem))
            }
            None => Ok(()),
        }
    }
}

/// Sizes only.
impl fmt::Debug for Collateral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = |list: &[Vec<u8>]| list.iter().map(Vec::len).collect::<Vec<_>>();
        f.debug_struct("Collateral")
            .field("dcap", &self.dcap.as_ref().map(Vec::len))
            .field("certificates", &sizes(&self.certificates))
            .field("crls", &sizes(&self.crls))
            .finish()
    }
}

/// A quote or report with optional collateral. Its sizes are within the limits of this module.
#[derive(Clone, PartialEq, Eq)]
pub struct Evidence {
    tee: Tee,
    body: Vec<u8>,
    collateral: Collateral,
}

/// Kind and sizes only.
impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evidence")
            .field("tee", &self.tee.name())
            .field("body", &self.body.len())
            .field("collateral", &self.collateral)
            .finish()
    }
}

impl Evidence {
    /// Evidence of a kind, from the bytes that the hardware's interface gave.
    ///
    /// # Errors
    /// If it is empty or too large.
    pub fn new(tee: Tee, body: Vec<u8>) -> Result<Self, AttestError> {
        if body.is_empty() {
            return Err(AttestError::malformed("evidence", "the quote or report is empty"));
        }
        if body.len() > MAX_BODY_BYTES {
            return Err(too_large("quote or report", body.len(), MAX_BODY_BYTES));
        }
        Ok(Self { tee, body, collateral: Collateral::default() })
    }

    /// The same with collateral, in place of what it had.
    ///
    /// # Errors
    /// If that is too large.
    pub fn with_collateral(mut self, collateral: Collateral) -> Result<Self, AttestError> {
        collateral.check()?;
        self.collateral = collateral;
        Ok(self)
    }

    /// What it claims to be of; the verifier of this kind finds out.
    pub fn tee(&self) -> Tee {
        self.tee
    }

    /// Quote or report, as the hardware's interface gave it.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// What came with it.
    pub fn collateral(&self) -> &Collateral {
        &self.collateral
    }

    /// Magic, version and fields: what [`Evidence::decode`] reads.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = [MAGIC.as_slice(), &EVIDENCE_VERSION.to_le_bytes()].concat();
        let fields = (self.tee as u8, &self.body, &self.collateral);
        bytes.extend(postcard::to_stdvec(&fields).expect("encoding into memory does not fail"));
        bytes
    }

    /// Reads what [`Evidence::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are too many, of another version, malformed, or followed by others.
    pub fn decode(bytes: &[u8]) -> Result<Self, AttestError> {
        if bytes.len() > MAX_EVIDENCE_BYTES {
            return Err(too_large("evidence", bytes.len(), MAX_EVIDENCE_BYTES));
        }
        let Some((header, fields)) = bytes.split_at_checked(HEADER_BYTES) else {
            let problem = format!("{} bytes, at least {HEADER_BYTES} are expected", bytes.len());
            return Err(AttestError::malformed("evidence", problem));
        };
        if !is_encoded(bytes) {
            return Err(AttestError::malformed("evidence", "it does not start with PRIVEVID"));
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version != EVIDENCE_VERSION {
            let problem = format!("version {version}, this program reads version {EVIDENCE_VERSION}");
            return Err(AttestError::malformed("evidence", problem));
        }
        let ((tee, body, collateral), rest): ((u8, Vec<u8>, Collateral), _) =
            postcard::take_from_bytes(fields).map_err(|e| AttestError::malformed("evidence", e))?;
        if !rest.is_empty() {
            return Err(AttestError::malformed(
                "evidence",
                format!("{} bytes too many at its end", rest.len()),
            ));
        }
        let tee = [Tee::Sgx, Tee::Tdx, Tee::Snp, Tee::Sample].into_iter().find(|&known| known as u8 == tee);
        let tee = tee.ok_or_else(|| AttestError::malformed("evidence", "an unknown kind of environment"))?;
        Self::new(tee, body)?.with_collateral(collateral)
    }

    /// Evidence in any of the forms that are found in files: encoded by [`Evidence::encode`], or a bare quote of SGX or
    /// TDX or report of SEV-SNP, which are recognised by their headers; the report may be in hexadecimal.
    ///
    /// # Errors
    /// If the bytes are none of these.
    pub fn detect(bytes: &[u8]) -> Result<Self, AttestError> {
        if is_encoded(bytes) {
            return Self::decode(bytes);
        }
        if let Some(tee) = kind_of(bytes) {
            return Self::new(tee, bytes.to_vec());
        }
        let from_hex = || {
            let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= 2 * MAX_BODY_BYTES + 2)?;
            let bytes = hex::decode(text.trim()).ok()?;
            Some((kind_of(&bytes)?, bytes))
        };
        let (tee, body) = from_hex().ok_or_else(|| {
            let problem = "expected a quote of SGX (version 3) or TDX (version 4 or 5), a SEV-SNP report (1184 bytes), \
                           or evidence that starts with PRIVEVID";
            AttestError::malformed("evidence", problem)
        })?;
        Self::new(tee, body)
    }
}

impl Evidence {
    /// A bare quote or report.
    pub(crate) fn detect_bare(bytes: &[u8]) -> Option<Self> {
        Self::new(kind_of(bytes)?, bytes.to_vec()).ok()
    }

    /// The report data, as the bytes say before anything is verified: for attesters that check what they were given.
    pub(crate) fn unverified_report_data(&self) -> Option<[u8; 64]> {
        let at = match (self.tee, self.body.first()) {
            (Tee::Sgx, _) => 368,
            // Version 5 has type and length of the body after the header.
            (Tee::Tdx, Some(5)) => 574,
            (Tee::Tdx, _) => 568,
            (Tee::Snp, _) => 0x50,
            (Tee::Sample, _) => return None,
        };
        self.body.get(at..at + 64)?.try_into().ok()
    }
}

/// Bytes of a SEV-SNP report.
pub(crate) const SNP_REPORT_BYTES: usize = 1184;

fn is_encoded(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// What the header of a bare quote or report says.
fn kind_of(bytes: &[u8]) -> Option<Tee> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    // A report of SEV-SNP has its version in 4 bytes, a quote in 2, with the type of its key after it; then the TEE's.
    if bytes.len() == SNP_REPORT_BYTES && matches!(u32_at(0), Some(2..=15)) {
        return Some(Tee::Snp);
    }
    match (u16_at(0)?, u32_at(4)?) {
        (3..=5, 0) if bytes.len() > 48 => Some(Tee::Sgx),
        (4 | 5, 0x81) => Some(Tee::Tdx),
        _ => None,
    }
}

fn too_large(what: &'static str, found: usize, limit: usize) -> AttestError {
    AttestError::malformed(what, format!("{found} bytes, at most {limit} are allowed"))
}

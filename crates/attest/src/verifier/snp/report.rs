//! The bytes of an attestation report: table "ATTESTATION_REPORT Structure" of the firmware ABI.

use crate::claims::SnpTcb;
use crate::error::AttestError;
use crate::evidence::SNP_REPORT_BYTES;

const WHAT: &str = "SEV-SNP report";
/// Where the signature starts, and what it is over ends.
const SIGNATURE_AT: usize = 0x2A0;
/// Bytes of each of the two numbers of a signature, little-endian.
const NUMBER_BYTES: usize = 72;
/// Bytes that P-384 needs of them.
const P384_BYTES: usize = 48;
const ECDSA_P384_SHA384: u32 = 1;
/// Guest policy: the host may debug the guest.
const POLICY_DEBUG: u64 = 1 << 19;
/// Platform information: simultaneous multithreading is on.
const PLATFORM_SMT: u64 = 1;

/// What signed a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SigningKey {
    Vcek,
    Vlek,
}

impl SigningKey {
    /// Common name in its certificate.
    pub(super) fn subject(self) -> &'static str {
        match self {
            Self::Vcek => "SEV-VCEK",
            Self::Vlek => "SEV-VLEK",
        }
    }
}

/// Where the versions of components are in the 8 bytes of a TCB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Milan and Genoa.
    Milan,
    /// Turin and later.
    Turin,
}

/// A report of a known version; not verified.
pub(super) struct Report<'a> {
    bytes: &'a [u8; SNP_REPORT_BYTES],
    pub(super) signing_key: SigningKey,
}

impl<'a> Report<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, AttestError> {
        let bytes: &[u8; SNP_REPORT_BYTES] = bytes.try_into().map_err(|_| {
            AttestError::malformed(WHAT, format!("expected {SNP_REPORT_BYTES} bytes, found {}", bytes.len()))
        })?;
        let mut report = Self { bytes, signing_key: SigningKey::Vcek };
        let version = report.version();
        if !(2..=5).contains(&version) {
            return Err(AttestError::malformed(WHAT, format!("expected version 2 to 5, found {version}")));
        }
        let algorithm = report.u32(0x34);
        if algorithm != ECDSA_P384_SHA384 {
            let problem =
                format!("expected signature algorithm {ECDSA_P384_SHA384} (ECDSA P-384), found {algorithm}");
            return Err(AttestError::malformed(WHAT, problem));
        }
        report.signing_key = match (report.u32(0x48) >> 2) & 7 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            7 => {
                return Err(AttestError::refused(
                    "report signature",
                    "one of a VCEK or VLEK",
                    "none: the firmware did not sign",
                ));
            }
            other => return Err(AttestError::malformed(WHAT, format!("unknown signing key {other}"))),
        };
        Ok(report)
    }

    pub(super) fn version(&self) -> u32 {
        self.u32(0)
    }

    pub(super) fn guest_svn(&self) -> u32 {
        self.u32(0x04)
    }

    pub(super) fn policy(&self) -> u64 {
        u64::from_le_bytes(self.field(0x08))
    }

    pub(super) fn debug(&self) -> bool {
        self.policy() & POLICY_DEBUG != 0
    }

    pub(super) fn vmpl(&self) -> u32 {
        self.u32(0x30)
    }

    pub(super) fn smt(&self) -> bool {
        u64::from_le_bytes(self.field(0x40)) & PLATFORM_SMT != 0
    }

    /// The versions at an offset.
    pub(super) fn tcb(&self, at: usize, layout: Layout) -> SnpTcb {
        let b: [u8; 8] = self.field(at);
        match layout {
            Layout::Milan => SnpTcb { fmc: 0, bootloader: b[0], tee: b[1], snp: b[6], microcode: b[7] },
            Layout::Turin => SnpTcb { fmc: b[0], bootloader: b[1], tee: b[2], snp: b[3], microcode: b[7] },
        }
    }

    /// From version 3 on the report says which processor it is of.
    pub(super) fn check_processor(&self, product: &str) -> Result<(), AttestError> {
        if self.version() < 3 {
            return Ok(());
        }
        let (family, model) = (self.bytes[0x188], self.bytes[0x189]);
        let found = match (family, model) {
            (0x19, 0x00..=0x0F) => "Milan",
            (0x19, 0x10..=0x1F | 0xA0..=0xAF) => "Genoa",
            (0x1A, 0x00..=0x1F) => "Turin",
            _ => "unknown",
        };
        if found != product {
            let found = format!("{found} (family {family:#x}, model {model:#x})");
            return Err(AttestError::refused(
                "processor",
                format!("{product}, as the certificates say"),
                found,
            ));
        }
        Ok(())
    }

    pub(super) fn signed(&self) -> &'a [u8] {
        &self.bytes[..SIGNATURE_AT]
    }

    /// The signature as two big-endian numbers. What is not part of them has to be zero.
    pub(super) fn signature(&self) -> Result<[u8; 2 * P384_BYTES], AttestError> {
        let (numbers, rest) = self.bytes[SIGNATURE_AT..].split_at(2 * NUMBER_BYTES);
        let mut signature = [0; 2 * P384_BYTES];
        let mut padding = rest.iter().copied().fold(0, |all, byte| all | byte);
        for (number, out) in numbers.chunks(NUMBER_BYTES).zip(signature.chunks_mut(P384_BYTES)) {
            let (value, zeros) = number.split_at(P384_BYTES);
            padding |= zeros.iter().copied().fold(0, |all, byte| all | byte);
            out.iter_mut().zip(value.iter().rev()).for_each(|(out, byte)| *out = *byte);
        }
        if padding != 0 {
            return Err(AttestError::malformed(
                WHAT,
                "bytes around its signature that should be zero are not",
            ));
        }
        Ok(signature)
    }

    pub(super) fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes[at..at + N].try_into().expect("N bytes")
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.field(at))
    }
}

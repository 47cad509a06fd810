//! **sample, INSECURE**: evidence for development, made by anyone, which proves nothing.
//!
//! The key that signs it, the *development root*, is derived from a public constant: whoever has this source can make
//! evidence of any measurement and report data. It exists so that everything around evidence can run where no hardware is.
//! It needs the cargo feature `sample-attestation-insecure` and, at run time, an [`AllowSampleInsecure`].

use std::fmt;
use std::time::SystemTime;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::attester::Attester;
use crate::claims::{Claims, Identity, Platform};
use crate::error::AttestError;
use crate::evidence::{Evidence, Tee};
use crate::verdict::Line;
use crate::verifier::Verifier;

/// Version of the report; others are refused.
pub const SAMPLE_VERSION: u16 = 1;

const ROOT: &[u8] = b"privet development root: sample, INSECURE";
const CONTEXT: &[u8] = b"privet sample report, INSECURE\0";

/// That someone asked for evidence that proves nothing: made from a command's flag, never from a default.
#[derive(Debug, Clone, Copy)]
pub struct AllowSampleInsecure(());

impl AllowSampleInsecure {
    /// From the flag `--allow-sample-insecure`; none where it was not given.
    pub fn from_flag(flag: bool) -> Option<Self> {
        flag.then_some(Self(()))
    }
}

/// What is signed, and the signature.
#[derive(Serialize, Deserialize)]
struct Report {
    version: u16,
    measurement: [u8; 32],
    report_data: (Half, Half),
    signature: (Half, Half),
}

type Half = [u8; 32];

impl Report {
    fn signed(&self) -> Vec<u8> {
        let (low, high) = &self.report_data;
        [CONTEXT, &self.version.to_le_bytes(), &self.measurement, low, high].concat()
    }
}

fn halves(bytes: &[u8; 64]) -> (Half, Half) {
    let (mut low, mut high) = ([0; 32], [0; 32]);
    low.copy_from_slice(&bytes[..32]);
    high.copy_from_slice(&bytes[32..]);
    (low, high)
}

fn whole((low, high): &(Half, Half)) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(low);
    bytes[32..].copy_from_slice(high);
    bytes
}

fn root() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&Sha256::digest(ROOT)).expect("a seed has 32 bytes")
}

/// The measurement of a program and its manifest: SHA-256 over both, each after its length.
pub fn sample_measurement(binary: &[u8], manifest: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [binary, manifest] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// **sample, INSECURE**: attests whatever it is told.
pub struct SampleAttester {
    measurement: [u8; 32],
}

impl SampleAttester {
    /// Of a process with this measurement.
    pub fn new(_: AllowSampleInsecure, measurement: [u8; 32]) -> Self {
        Self { measurement }
    }

    /// Of the running program, without a manifest.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn of_this_program(allow: AllowSampleInsecure) -> Result<Self, AttestError> {
        let path = std::env::current_exe();
        let read = path.and_then(|path| {
            std::fs::read(&path).map_err(|e| std::io::Error::other(format!("{}: {e}", path.display())))
        });
        let binary = read.map_err(|e| AttestError::Missing {
            what: "the program's own file",
            advice: format!("it is measured (sample, INSECURE): {e}"),
        })?;
        Ok(Self::new(allow, sample_measurement(&binary, &[])))
    }
}

impl fmt::Debug for SampleAttester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SampleAttester(sample, INSECURE, {})", hex::encode(self.measurement))
    }
}

impl Attester for SampleAttester {
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttestError> {
        let empty = ([0; 32], [0; 32]);
        let mut report = Report {
            version: SAMPLE_VERSION,
            measurement: self.measurement,
            report_data: halves(report_data),
            signature: empty,
        };
        let mut signature = [0; 64];
        signature.copy_from_slice(root().sign(&report.signed()).as_ref());
        report.signature = halves(&signature);
        Evidence::new(Tee::Sample, postcard::to_stdvec(&report).expect("encoding into memory does not fail"))
    }
}

/// **sample, INSECURE**: accepts what anyone can make.
#[derive(Debug, Clone, Copy)]
pub struct SampleVerifier(());

impl SampleVerifier {
    /// A verifier, for those who asked for it.
    pub fn new(_: AllowSampleInsecure) -> Self {
        Self(())
    }
}

impl Verifier for SampleVerifier {
    fn verify(&self, evidence: &Evidence, _: SystemTime) -> Result<Claims, AttestError> {
        if evidence.tee() != Tee::Sample {
            return Err(AttestError::no_verifier(evidence.tee()));
        }
        let (report, rest): (Report, _) = postcard::take_from_bytes(evidence.body())
            .map_err(|e| AttestError::malformed("sample report (INSECURE)", e))?;
        if !rest.is_empty() {
            return Err(AttestError::malformed("sample report (INSECURE)", "bytes too many at its end"));
        }
        if report.version != SAMPLE_VERSION {
            let problem = format!("version {}, this program reads {SAMPLE_VERSION}", report.version);
            return Err(AttestError::malformed("sample report (INSECURE)", problem));
        }
        let root = root();
        let key = UnparsedPublicKey::new(&ED25519, root.public_key().as_ref());
        if key.verify(&report.signed(), &whole(&report.signature)).is_err() {
            let expected = "that of the development root (sample, INSECURE)";
            return Err(AttestError::refused("signature", expected, "another one"));
        }
        Ok(Claims {
            tee: Tee::Sample,
            identity: Identity::Sample { measurement: report.measurement },
            report_data: whole(&report.report_data),
            // The host can read and change the process.
            debug: true,
            tcb_status: None,
            advisories: Vec::new(),
            platform: Platform::default(),
            checks: vec![Line::new(
                "signature (sample, INSECURE)",
                "by the development root, whose key is public",
                "valid, which proves nothing",
                true,
            )],
        })
    }
}

//! Quotes of SGX (version 3) and TDX (versions 4 and 5), verified by `dcap-qvl` with Intel's root.
//!
//! A quote is malleable: bytes after its end, the root in its certificate chain, white space in that chain and the encoding of
//! ECDSA signatures can change without making it invalid. Claims come from signed bytes only.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use dcap_qvl::config::{Config, CryptoProvider};
use dcap_qvl::quote::{Quote, Report, TDReport10};
use dcap_qvl::signature::DerSigEncoder;
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::x509::X509CertBackend;
use dcap_qvl::{PckCertFlag, QuoteClaims, QuoteCollateralV3, QuotePolicy};
use rustls_pki_types::SignatureVerificationAlgorithm;
use sha2::{Digest, Sha256, Sha384};

use super::Verifier;
use crate::claims::{Claims, Identity, Platform, SgxIdentity, TcbStatus, TdxIdentity};
use crate::clock::time_text;
use crate::error::AttestError;
use crate::evidence::{Evidence, Tee};
use crate::verdict::Line;

const INTEL_ROOT: &[u8] = include_bytes!("../../roots/intel-sgx-root.der");
/// SGX attributes, bit 1 of the flags.
const SGX_DEBUG: u8 = 1 << 1;

/// Verifies quotes of SGX and TDX.
pub struct DcapVerifier {
    root: Vec<u8>,
    collateral: Option<Vec<u8>>,
}

impl fmt::Debug for DcapVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DcapVerifier")
            .field("collateral", &self.collateral.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

impl DcapVerifier {
    /// With Intel's root, and collateral that goes before what comes with evidence.
    pub fn new(collateral: Option<Vec<u8>>) -> Self {
        Self::with_root(INTEL_ROOT.to_vec(), collateral)
    }

    /// With another root, a certificate in DER: for tests.
    pub fn with_root(root: Vec<u8>, collateral: Option<Vec<u8>>) -> Self {
        Self { root, collateral }
    }
}

impl Verifier for DcapVerifier {
    fn verify(&self, evidence: &Evidence, at: SystemTime) -> Result<Claims, AttestError> {
        let tee = evidence.tee();
        let what = match tee {
            Tee::Sgx => "SGX quote",
            Tee::Tdx => "TDX quote",
            Tee::Snp | Tee::Sample => return Err(AttestError::no_verifier(tee)),
        };
        let quote = Quote::parse(evidence.body()).map_err(|e| AttestError::malformed(what, chain(&e)))?;
        if quote.header.is_sgx() != (tee == Tee::Sgx) {
            return Err(AttestError::malformed(what, "it is of another environment than the evidence says"));
        }
        let collateral = self.collateral.as_ref().or(evidence.collateral().dcap.as_ref());
        let collateral = parse_collateral(collateral.ok_or_else(|| {
            AttestError::Missing {
                what: "collateral",
                advice: "a quote is verified with TCB information and revocation lists of Intel, \
                     in a JSON file: --collateral FILE (docs/attestation.md#collateral says where to get it)"
                    .to_owned(),
            }
        })?)?;
        let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // Debug mode is for the policy, and so is everything else that dcap-qvl calls a policy.
        let verifier = QuoteVerifier::<OnAwsLc>::new_with_config(self.root.clone()).allow_debug(true);
        let claims = verifier
            .verify_with_policy(evidence.body(), collateral, seconds, &QuotePolicy::claims_only(seconds))
            .map_err(|e| {
                let expected = format!("a quote and collateral that are valid at {}", time_text(at));
                AttestError::refused(what, expected, chain(&e))
            })?;
        Ok(to_claims(tee, what, &claims, at))
    }
}

/// Checks that collateral of SGX and TDX has its form; whether it is authentic and current is seen with a quote.
///
/// # Errors
/// What is wrong with it.
pub fn check_dcap_collateral(json: &[u8]) -> Result<(), AttestError> {
    parse_collateral(json).map(drop)
}

fn parse_collateral(json: &[u8]) -> Result<QuoteCollateralV3, AttestError> {
    serde_json::from_slice(json).map_err(|e| {
        let text = format!("expected Intel's collateral in JSON (docs/attestation.md#collateral); {e}");
        AttestError::malformed("collateral", text)
    })
}

fn chain(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    // The one message of webpki that is a matter of course: collateral is used for a month.
    if text.contains("CrlExpired") { "CRL expired".to_owned() } else { text }
}

fn to_claims(tee: Tee, what: &str, found: &QuoteClaims, at: SystemTime) -> Claims {
    let (identity, report_data, debug) = match &found.report {
        Report::SgxEnclave(report) => {
            let identity = Identity::Sgx(SgxIdentity {
                mrenclave: report.mr_enclave,
                mrsigner: report.mr_signer,
                product_id: report.isv_prod_id,
                svn: report.isv_svn,
                attributes: report.attributes,
            });
            (identity, report.report_data, report.attributes[0] & SGX_DEBUG != 0)
        }
        Report::TD10(report) => tdx(report),
        Report::TD15(report) => tdx(&report.base),
        Report::TD15Ex(report) => tdx(&report.base.base),
    };
    let flag = |flag| match flag {
        PckCertFlag::True => Some(true),
        PckCertFlag::False => Some(false),
        PckCertFlag::Undefined => None,
    };
    let pck = &found.platform.pck;
    let root = "signed by Intel's root";
    let version = found.header.version;
    Claims {
        tee,
        identity,
        report_data,
        debug,
        tcb_status: Some(status(found.tcb.status)),
        advisories: found.tcb.advisory_ids.clone(),
        platform: Platform {
            dynamic: flag(pck.dynamic_platform),
            cached_keys: flag(pck.cached_keys),
            smt: flag(pck.smt_enabled),
        },
        checks: vec![
            Line::new(
                what,
                "an authentic one of version 3, 4 or 5",
                format!("version {version}, {root}"),
                true,
            ),
            Line::new("collateral", format!("valid at {}", time_text(at)), format!("valid, {root}"), true),
            Line::new(
                "platform and quoting enclave",
                "not revoked, of a known TCB level",
                status(found.tcb.status).to_string(),
                true,
            ),
        ],
    }
}

fn tdx(report: &TDReport10) -> (Identity, [u8; 64], bool) {
    let identity = TdxIdentity {
        mrtd: report.mr_td,
        rtmr: [report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3],
        mrseam: report.mr_seam,
        mrconfigid: report.mr_config_id,
        mrowner: report.mr_owner,
        attributes: report.td_attributes,
    };
    // Any of the bits of "TD under debug".
    (Identity::Tdx(Box::new(identity)), report.report_data, report.td_attributes[0] != 0)
}

fn status(status: dcap_qvl::TcbStatus) -> TcbStatus {
    use dcap_qvl::TcbStatus as From;
    match status {
        From::UpToDate => TcbStatus::UpToDate,
        From::SWHardeningNeeded => TcbStatus::SWHardeningNeeded,
        From::ConfigurationNeeded => TcbStatus::ConfigurationNeeded,
        From::ConfigurationAndSWHardeningNeeded => TcbStatus::ConfigurationAndSWHardeningNeeded,
        From::OutOfDate => TcbStatus::OutOfDate,
        From::OutOfDateConfigurationNeeded => TcbStatus::OutOfDateConfigurationNeeded,
        From::TDRelaunchAdvised => TcbStatus::TDRelaunchAdvised,
        From::TDRelaunchAdvisedConfigurationNeeded => TcbStatus::TDRelaunchAdvisedConfigurationNeeded,
        From::Revoked => TcbStatus::Revoked,
    }
}

/// dcap-qvl on the cryptography that TLS uses as well.
struct OnAwsLc;

impl Config for OnAwsLc {
    type X509 = X509CertBackend;
    type SigEncoder = DerSigEncoder;
    type Crypto = Self;
}

impl CryptoProvider for OnAwsLc {
    fn sig_algo() -> &'static dyn SignatureVerificationAlgorithm {
        webpki::aws_lc_rs::ECDSA_P256_SHA256
    }

    fn sha256(data: &[u8]) -> [u8; 32] {
        Sha256::digest(data).into()
    }

    fn sha384(data: &[u8]) -> [u8; 48] {
        Sha384::digest(data).into()
    }
}

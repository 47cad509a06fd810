//! Entry points for hostile bytes, for tests and fuzzing only. Each says whether it accepts them.

use std::time::{Duration, UNIX_EPOCH};

use crate::claims::{Claims, Identity, Platform};
use crate::evidence::{Collateral, Evidence, Tee};
use crate::policy::Policy;
use crate::ratls::RaTlsCertificate;
use crate::verifier::{Verifier, Verifiers};
use crate::x509::{certificates, revocation_lists};

/// Evidence in any form, verified with what comes with it; or certificates or revocation lists in a file.
pub fn evidence(bytes: &[u8]) -> bool {
    let listed = certificates(bytes).is_ok() | revocation_lists(bytes).is_ok();
    let Ok(evidence) = Evidence::detect(bytes) else { return listed };
    let again = Evidence::decode(&evidence.encode());
    assert!(again.is_ok_and(|again| again == evidence), "a round trip");
    let at = UNIX_EPOCH + Duration::from_secs(1_751_328_000);
    let _ = Verifiers::default().verify(&evidence, at);
    // The same bytes as collateral.
    let collateral = Collateral {
        dcap: Some(bytes.to_vec()),
        certificates: vec![bytes.to_vec()],
        crls: vec![bytes.to_vec()],
    };
    let _ = Verifiers::new(collateral).verify(&evidence, at);
    true
}

/// A policy, linted and applied.
pub fn policy(bytes: &[u8]) -> bool {
    let Some(policy) = std::str::from_utf8(bytes).ok().and_then(|text| Policy::parse(text).ok()) else {
        return false;
    };
    let claims = Claims {
        tee: Tee::Sample,
        identity: Identity::Sample { measurement: [1; 32] },
        report_data: [0; 64],
        debug: true,
        tcb_status: None,
        advisories: Vec::new(),
        platform: Platform::default(),
        checks: Vec::new(),
    };
    let verdict = crate::appraise(&claims, &policy);
    assert!(
        !verdict.accepted() || policy.lint().iter().any(|lint| lint.to_string().contains("INSECURE")),
        "no silent holes"
    );
    true
}

/// A certificate with evidence, from a peer that nobody knows yet.
pub fn ratls(bytes: &[u8]) -> bool {
    let Ok(certificate) = RaTlsCertificate::parse(bytes) else { return false };
    let at = UNIX_EPOCH + Duration::from_secs(1_751_328_000);
    let _ = certificate.check(at);
    let _ = certificate.check_report_data(&[0; 64]);
    let _ = Verifiers::default().verify(certificate.evidence(), at);
    true
}

/// Evidence as this version writes it, and bare forms of it.
pub fn evidence_seeds() -> Vec<Vec<u8>> {
    let mut report = vec![0; crate::evidence::SNP_REPORT_BYTES];
    report[0] = 2;
    report[0x34] = 1;
    let mut quote = vec![0; 700];
    quote[0] = 4;
    quote[4] = 0x81;
    let collateral = Collateral {
        dcap: Some(b"{}".to_vec()),
        certificates: vec![include_bytes!("../roots/ask-milan.der").to_vec()],
        crls: vec![vec![0x30, 0]],
    };
    let whole = |tee, body: &[u8]| {
        let evidence = Evidence::new(tee, body.to_vec())
            .and_then(|evidence| evidence.with_collateral(collateral.clone()));
        evidence.map(|evidence| evidence.encode()).ok()
    };
    [whole(Tee::Snp, &report), whole(Tee::Tdx, &quote), Some(report.clone()), Some(quote.clone())]
        .into_iter()
        .flatten()
        .collect()
}

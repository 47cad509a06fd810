//! Every file of the foreign evidence gives the verdict that its README states.

mod common;

use common::{
    AUTHENTIC, Case, SGX, SNP_MILAN, SNP_TEST, SNP_VLEK, TDX, TDX_OUTDATED, at, evidence_dir, read,
};
use privet_attest::claims::{Identity, TcbStatus};
use privet_attest::ratls::RaTlsCertificate;
use privet_attest::{AttestError, Claims, Collateral, Tee, Verifier, Verifiers, certificates};

/// Files that are looked at; fewer is a failure where the directory is there.
const MINIMUM_FILES: usize = 17;

const DAY: u64 = 86_400;

#[test]
fn no_file_is_forgotten() {
    let Some(dir) = evidence_dir() else { return };
    let mut files = Vec::new();
    for sub in ["sgx", "tdx", "snp", "ra-tls"] {
        for entry in std::fs::read_dir(dir.join(sub)).expect("a directory") {
            files.push(format!("{sub}/{}", entry.expect("an entry").file_name().to_string_lossy()));
        }
    }
    let cases = AUTHENTIC.into_iter().chain([TDX_OUTDATED]);
    let mut known: Vec<&str> = cases
        .flat_map(|case| {
            [case.file].into_iter().chain(case.collateral).chain(case.certificates.iter().copied())
        })
        .collect();
    known.extend(INVALID_VCEKS.iter().chain(FOREIGN_CERTIFICATES.map(|(name, ..)| name).iter()));
    for file in &files {
        assert!(known.contains(&file.as_str()), "no test looks at {file}");
    }
    assert!(files.len() >= MINIMUM_FILES, "{} files, at least {MINIMUM_FILES} are expected", files.len());
}

#[test]
fn the_sgx_quote_verifies() {
    let Some(dir) = evidence_dir() else { return };
    let claims = SGX.verify(&dir).expect("authentic");
    assert_eq!(claims.tee, Tee::Sgx);
    assert!(claims.report_data.starts_with(b"Hello, world!"));
    assert_eq!(claims.tcb_status, Some(TcbStatus::ConfigurationAndSWHardeningNeeded));
    assert_eq!(claims.advisories, ["INTEL-SA-00289", "INTEL-SA-00615"]);
    assert!(matches!(claims.identity, Identity::Sgx(_)));
}

#[test]
fn the_tdx_quote_verifies() {
    let Some(dir) = evidence_dir() else { return };
    let claims = TDX.verify(&dir).expect("authentic");
    assert_eq!((claims.tee, claims.tcb_status, claims.debug), (Tee::Tdx, Some(TcbStatus::UpToDate), false));
    assert!(claims.advisories.is_empty());
}

#[test]
fn the_outdated_tdx_quote_is_refused() {
    let Some(dir) = evidence_dir() else { return };
    let quote = read(&dir, TDX_OUTDATED.file);
    assert_eq!(quote[0], 5, "a quote of version 5");
    assert_refused(TDX_OUTDATED.verify(&dir), "No matching TCB level");
}

#[test]
fn snp_reports_verify() {
    let Some(dir) = evidence_dir() else { return };
    for (case, key) in [(SNP_MILAN, "VCEK"), (SNP_TEST, "VCEK"), (SNP_VLEK, "VLEK")] {
        let claims = case.verify(&dir).unwrap_or_else(|e| panic!("{}: {e}", case.file));
        let Identity::Snp(found) = &claims.identity else { panic!("{}: not of SEV-SNP", case.file) };
        assert_eq!((found.product.as_str(), found.signing_key.as_str()), ("Milan", key), "{}", case.file);
        assert!(!found.revocation_checked, "{}: there is no list", case.file);
    }
}

const INVALID_VCEKS: [&str; 2] = ["snp/test-vcek-invalid-legacy.der", "snp/test-vcek-invalid-new.der"];

#[test]
fn invalid_vceks_are_refused() {
    let Some(dir) = evidence_dir() else { return };
    for name in INVALID_VCEKS {
        for report in [SNP_MILAN, SNP_TEST] {
            let certificates = certificates(&read(&dir, name)).expect("a certificate");
            let verifier = Verifiers::new(Collateral { certificates, ..Collateral::default() });
            assert_refused(verifier.verify(&report.evidence(&dir), at(report.at)), "certificate chain");
        }
    }
}

#[test]
fn a_report_needs_its_own_vcek() {
    let Some(dir) = evidence_dir() else { return };
    let swapped = Case { certificates: SNP_TEST.certificates, ..SNP_MILAN };
    assert_refused(swapped.verify(&dir), "report signature");
}

#[test]
fn the_vlek_has_expired_by_now() {
    let Some(dir) = evidence_dir() else { return };
    assert_refused(SNP_VLEK.verify_at(&dir, common::MARCH_2026), "expired 2025-12-10");
}

#[test]
fn a_wrong_clock_is_noticed() {
    let Some(dir) = evidence_dir() else { return };
    for case in [SGX, TDX] {
        // The window is from 2025-06-19 to 2025-07-19.
        assert_refused(case.verify_at(&dir, case.at - 60 * DAY), "in the future");
        assert_refused(case.verify_at(&dir, case.at + 60 * DAY), "xpired");
        assert_refused(case.verify_at(&dir, 0), "");
        assert_refused(case.verify_at(&dir, 1 << 40), "");
    }
    for case in [SNP_MILAN, SNP_TEST, SNP_VLEK] {
        assert_refused(case.verify_at(&dir, 1_609_459_200), "not valid before");
        assert_refused(case.verify_at(&dir, 1_950_000_000), "expired");
    }
    assert_refused(TDX_OUTDATED.verify_at(&dir, common::JULY_2025), "future");
    assert_refused(TDX_OUTDATED.verify_at(&dir, common::MARCH_2026 + 60 * DAY), "xpired");
}

#[test]
fn what_is_missing_is_named() {
    let Some(dir) = evidence_dir() else { return };
    for (case, missing) in
        [(SGX, "collateral"), (TDX, "collateral"), (SNP_MILAN, "SEV-VCEK"), (SNP_VLEK, "SEV-VLEK")]
    {
        let case = Case { collateral: None, certificates: &[], ..case };
        let error = case.verify(&dir).expect_err("nothing to verify with");
        assert!(
            matches!(error, AttestError::Missing { .. }) && error.to_string().contains(missing),
            "{error}"
        );
    }
    let no_asvk = Case { certificates: &["snp/test-vlek.der"], ..SNP_VLEK };
    let error = no_asvk.verify(&dir).expect_err("no intermediate").to_string();
    assert!(error.contains("SEV-VLEK-Milan"), "{error}");
}

#[test]
fn collateral_of_another_platform_is_refused() {
    let Some(dir) = evidence_dir() else { return };
    assert_refused(Case { collateral: TDX.collateral, ..SGX }.verify(&dir), "");
    assert_refused(Case { collateral: SGX.collateral, ..TDX }.verify(&dir), "");
}

#[test]
fn evidence_brings_its_collateral_and_the_verifiers_own_goes_first() {
    let Some(dir) = evidence_dir() else { return };
    for case in AUTHENTIC {
        let evidence = case.evidence(&dir).with_collateral(case.collateral(&dir)).expect("small enough");
        let decoded = privet_attest::Evidence::decode(&evidence.encode()).expect("a round trip");
        assert_eq!(decoded, evidence);
        let claims = Verifiers::default().verify(&decoded, at(case.at)).expect("authentic");
        assert_eq!(claims, case.verify(&dir).expect("authentic"));
    }
    let evidence = SGX.evidence(&dir).with_collateral(SGX.collateral(&dir)).expect("small enough");
    let own = Verifiers::new(TDX.collateral(&dir));
    assert_refused(own.verify(&evidence, at(SGX.at)), "");
}

/// Name, and size of the quote. None has a nonce; that of rats-tls has two claims of its own, which are ignored.
const FOREIGN_CERTIFICATES: [(&str, usize); 3] = [
    ("ra-tls/gramine-cert.pem", 4734),
    ("ra-tls/intel-sgxsdk-cert.pem", 4600),
    ("ra-tls/rats-tls-cert.pem", 4734),
];

#[test]
fn foreign_ra_tls_certificates_are_understood() {
    let Some(dir) = evidence_dir() else { return };
    for (name, size) in FOREIGN_CERTIFICATES {
        let der = certificates(&read(&dir, name)).expect("a certificate").remove(0);
        let certificate = RaTlsCertificate::parse(&der).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(certificate.evidence().tee(), Tee::Sgx, "{name}");
        assert_eq!(certificate.evidence().body().len(), size, "{name}");
        assert!(certificate.binding().nonce().is_none(), "{name}");
        // 2023-02-22 17:00: all three are valid.
        certificate.check(at(1_677_085_200)).unwrap_or_else(|e| panic!("{name}: {e}"));
        // Report data of a quote of version 3; there is no collateral to verify it with.
        let quote = certificate.evidence().body();
        certificate.check_report_data(quote[368..432].try_into().expect("64 bytes")).expect(name);
    }
}

fn assert_refused(outcome: Result<Claims, AttestError>, why: &str) {
    let error = outcome.expect_err("it has to be refused");
    assert!(matches!(error, AttestError::Refused { .. }), "{error}");
    assert!(error.to_string().contains(why), "expected {why:?} in: {error}");
}

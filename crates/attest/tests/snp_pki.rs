//! SEV-SNP on a synthetic PKI: what real evidence does not have: revocation, expiry of each certificate, and certificates that
//! do not fit their report.

mod pki;

use std::time::{Duration, UNIX_EPOCH};

use pki::{CHIP, CRL_CURRENT, CRL_EXPIRED, CRL_FUTURE, Flaws, NOW, Pki};
use privet_attest::claims::{Identity, SnpIdentity};
use privet_attest::verifier::SnpVerifier;
use privet_attest::{AttestError, Claims, Collateral, Evidence, Tee, Verifier, Verifiers};

fn verify(pki: &Pki, report: Vec<u8>, crls: Vec<Vec<u8>>) -> Result<Claims, AttestError> {
    let collateral = Collateral { certificates: vec![pki.leaf.clone()], crls, ..Collateral::default() };
    let evidence = Evidence::new(Tee::Snp, report).expect("as large as a report");
    SnpVerifier::with_roots(pki.roots(), collateral).verify(&evidence, UNIX_EPOCH + Duration::from_secs(NOW))
}

fn plain(pki: &Pki) -> Result<Claims, AttestError> {
    verify(pki, pki.report(|_| {}), vec![])
}

fn snp(claims: Claims) -> SnpIdentity {
    let Identity::Snp(found) = claims.identity else { panic!("of SEV-SNP") };
    *found
}

#[track_caller]
fn refused(outcome: Result<Claims, AttestError>, check: &str, why: &str) {
    let error = outcome.expect_err("it has to be refused");
    let AttestError::Refused { check: found, .. } = &error else { panic!("{error}") };
    assert_eq!(*found, check, "{error}");
    assert!(error.to_string().contains(why), "expected {why:?} in {error}");
}

#[test]
fn all_kinds_of_keys_verify() {
    let found = snp(plain(&Pki::vcek(&Flaws::default())).expect("authentic"));
    assert_eq!((found.signing_key.as_str(), found.product.as_str()), ("VCEK", "Milan"));
    assert_eq!(
        (found.reported_tcb.snp, found.reported_tcb.microcode, found.measurement),
        (22, 213, [0x22; 48])
    );

    let found = snp(plain(&Pki::vlek(&Flaws::default())).expect("authentic"));
    assert_eq!(
        (found.signing_key.as_str(), found.provider.as_deref()),
        ("VLEK", Some("CN=synthetic.example"))
    );

    let found = snp(plain(&Pki::turin(&Flaws::default())).expect("authentic"));
    assert_eq!((found.product.as_str(), found.reported_tcb.fmc, found.reported_tcb.snp), ("Turin", 1, 22));
}

#[test]
fn nobody_else_trusts_this_pki() {
    let pki = Pki::vcek(&Flaws::default());
    let certificates =
        vec![pki.leaf.clone(), pki.roots()[0].ark.clone(), pki.roots()[0].intermediates[0].clone()];
    let verifier = Verifiers::new(Collateral { certificates, ..Collateral::default() });
    let evidence = Evidence::new(Tee::Snp, pki.report(|_| {})).expect("a report");
    let outcome = verifier.verify(&evidence, UNIX_EPOCH + Duration::from_secs(NOW));
    refused(outcome, "certificate chain", "a root of Milan, Genoa, Turin");

    // A root of the same name with another key.
    let other = Pki::stranger();
    let mut roots = other.roots();
    roots[0].intermediates = pki.roots()[0].intermediates.clone();
    let collateral = Collateral { certificates: vec![pki.leaf.clone()], ..Collateral::default() };
    let outcome =
        SnpVerifier::with_roots(roots, collateral).verify(&evidence, UNIX_EPOCH + Duration::from_secs(NOW));
    refused(outcome, "certificate chain", "not the issuer's");
}

#[test]
fn expiry_of_each_certificate() {
    for (flaws, name) in [
        (Flaws { leaf_expired: true, ..Flaws::default() }, "SEV-VCEK"),
        (Flaws { intermediate_expired: true, ..Flaws::default() }, "SEV-Milan"),
        (Flaws { root_expired: true, ..Flaws::default() }, "ARK-Milan"),
    ] {
        refused(plain(&Pki::vcek(&flaws)), "certificate validity", name);
    }
    refused(
        plain(&Pki::vlek(&Flaws { leaf_expired: true, ..Flaws::default() })),
        "certificate validity",
        "SEV-VLEK",
    );
}

#[test]
fn chains_that_are_none() {
    let flaws = Flaws { leaf_signed_by_another: true, ..Flaws::default() };
    refused(plain(&Pki::vcek(&flaws)), "certificate chain", "SEV-VCEK signed by SEV-Milan");
    let flaws = Flaws { not_an_authority: true, ..Flaws::default() };
    refused(plain(&Pki::vcek(&flaws)), "certificate chain", "authority");
}

#[test]
fn certificates_that_do_not_fit_the_report() {
    let tcb = "TCB of the certificate";
    for pki in [Pki::vcek, Pki::vlek, Pki::turin] {
        let wrong = pki(&Flaws { microcode_certified: Some(212), ..Flaws::default() });
        refused(plain(&wrong), tcb, "microcode 212");
        refused(
            plain(&pki(&Flaws { without_tcb: true, ..Flaws::default() })),
            "certificate of the signing key",
            "3704.1.3.1",
        );
        let product = Flaws { product_certified: Some("Genoa-B0"), ..Flaws::default() };
        refused(plain(&pki(&product)), "product of the certificate", "Genoa");
    }
    // And the other way round: each version that the report states.
    let milan = Pki::vcek(&Flaws::default());
    for (at, name) in [(0x180, "bootloader"), (0x181, "tee"), (0x186, "snp"), (0x187, "microcode")] {
        refused(verify(&milan, milan.report(|r| r[at] ^= 1), vec![]), tcb, name);
    }
    let turin = Pki::turin(&Flaws::default());
    for (at, name) in
        [(0x180, "fmc"), (0x181, "bootloader"), (0x182, "tee"), (0x183, "snp"), (0x187, "microcode")]
    {
        refused(verify(&turin, turin.report(|r| r[at] ^= 1), vec![]), tcb, name);
    }

    let chip = "chip of the certificate";
    for pki in [Pki::vcek, Pki::turin] {
        refused(plain(&pki(&Flaws { chip_certified: Some(CHIP + 1), ..Flaws::default() })), chip, "3434");
        let without = Flaws { without_chip: true, ..Flaws::default() };
        refused(plain(&pki(&without)), "certificate of the signing key", "3704.1.4");
    }
    refused(verify(&milan, milan.report(|r| r[0x1A0..0x1E0].fill(0)), vec![]), chip, "the host hides it");
    refused(verify(&turin, turin.report(|r| r[0x1A8] = 1), vec![]), chip, "");
    refused(verify(&turin, turin.report(|r| r[0x188] = 0x19), vec![]), "processor", "Milan");
    refused(verify(&turin, turin.report(|r| r[0x189] = 0x77), vec![]), "processor", "unknown");
}

#[test]
fn revocation() {
    let pki = Pki::vcek(&Flaws::default());
    let with = |crls: Vec<Vec<u8>>| verify(&pki, pki.report(|_| {}), crls);
    let list = "revocation list";
    // Serial numbers: 1 root, 2 intermediate, 3 leaf.
    assert!(snp(with(vec![pki.crl(true, &[], CRL_CURRENT)]).expect("not revoked")).revocation_checked);
    assert!(snp(with(vec![pki.crl(true, &[7, 9], CRL_CURRENT)]).expect("not revoked")).revocation_checked);
    // The root's list does not say anything about serial numbers that the intermediate gave.
    assert!(with(vec![pki.crl(true, &[3], CRL_CURRENT)]).is_ok());
    refused(with(vec![pki.crl(true, &[9, 2], CRL_CURRENT)]), list, "SEV-Milan synthetic is revoked");
    refused(
        with(vec![pki.crl(true, &[], CRL_CURRENT), pki.crl(false, &[3], CRL_CURRENT)]),
        list,
        "SEV-VCEK is revoked",
    );
    // The intermediate's list alone is none of the root's.
    assert!(!snp(with(vec![pki.crl(false, &[], CRL_CURRENT)]).expect("not revoked")).revocation_checked);
    refused(with(vec![pki.crl(true, &[], CRL_EXPIRED)]), list, "expired 2024-03-01");
    refused(with(vec![pki.crl(true, &[], CRL_FUTURE)]), list, "not valid before 2025-02-01");
    let other = Pki::stranger();
    refused(with(vec![other.crl(true, &[], CRL_CURRENT)]), list, "not the issuer's");
    let turin = Pki::turin(&Flaws::default());
    refused(with(vec![turin.crl(true, &[], CRL_CURRENT)]), list, "one of ARK-Turin");
    let mut flipped = pki.crl(true, &[], CRL_CURRENT);
    let at = flipped.len() / 4;
    flipped[at] ^= 1;
    assert!(with(vec![flipped]).is_err());

    let vlek = Pki::vlek(&Flaws::default());
    let crl = vlek.crl(true, &[2], CRL_CURRENT);
    refused(verify(&vlek, vlek.report(|_| {}), vec![crl]), list, "is revoked");
}

#[test]
fn reports_of_other_forms() {
    let pki = Pki::vcek(&Flaws::default());
    let with = |change: fn(&mut [u8])| verify(&pki, pki.report(change), vec![]);
    assert!(with(|r| r[0] = 1).is_err_and(|e| e.to_string().contains("version 2 to 5, found 1")));
    assert!(with(|r| r[0] = 6).is_err_and(|e| e.to_string().contains("found 6")));
    assert!(with(|r| r[0x34] = 2).is_err_and(|e| e.to_string().contains("signature algorithm")));
    refused(with(|r| r[0x48] = 7 << 2), "report signature", "did not sign");
    assert!(with(|r| r[0x48] = 3 << 2).is_err());
    // A report that says VLEK is not verified with a VCEK.
    assert!(matches!(with(|r| r[0x48] = 1 << 2), Err(AttestError::Missing { .. })));

    let mut longer = pki.report(|_| {});
    longer.push(0);
    assert!(verify(&pki, longer, vec![]).is_err());
    for at in [0x2A0 + 48, 0x2A0 + 71, 0x2A0 + 72 + 48, 0x2A0 + 144, 1183] {
        let mut padded = pki.report(|_| {});
        padded[at] = 1;
        assert!(
            verify(&pki, padded, vec![]).is_err_and(|e| e.to_string().contains("should be zero")),
            "byte {at:#x}"
        );
    }
}

#[test]
fn debug_privilege_and_threads_are_claims() {
    let pki = Pki::vcek(&Flaws::default());
    let with = |change: fn(&mut [u8])| verify(&pki, pki.report(change), vec![]).expect("authentic");
    assert!(!with(|_| {}).debug);
    assert!(with(|r| r[0x0A] |= 1 << 3).debug, "bit 19 of the policy");
    assert_eq!(snp(with(|r| r[0x30] = 2)).vmpl, 2);
    assert_eq!(with(|_| {}).platform.smt, Some(false));
    assert_eq!(with(|r| r[0x40] = 1).platform.smt, Some(true));
}

//! No bit of evidence can be changed so that other claims come out of it.
//!
//! Signed bytes: any flip is refused. Elsewhere a flip is refused or makes no difference. What may be flipped without being
//! noticed, in quotes: the root in the certificate chain, which is not used, white space in that chain, and bytes after the
//! quote's end. Reports of SEV-SNP have nothing of the kind.

mod common;

use common::{AUTHENTIC, Case, SGX, SNP_MILAN, SNP_TEST, SNP_VLEK, TDX, at, evidence_dir, read};
use privet_attest::{Evidence, Verifier, Verifiers};

#[test]
fn no_signed_bit_of_the_sgx_quote_can_be_flipped() {
    flip_signed(&SGX);
}

#[test]
fn no_signed_bit_of_the_tdx_quote_can_be_flipped() {
    flip_signed(&TDX);
}

#[test]
fn no_signed_bit_of_snp_reports_can_be_flipped() {
    for case in [SNP_MILAN, SNP_TEST, SNP_VLEK] {
        flip_signed(&case);
    }
}

#[test]
fn other_bits_are_refused_or_change_nothing() {
    let Some(dir) = evidence_dir() else { return };
    for case in AUTHENTIC {
        let bytes = body(&case, &dir);
        let claims = case.verify(&dir).expect("authentic");
        let verifier = Verifiers::new(case.collateral(&dir));
        let mut unnoticed = 0;
        // A bit of every byte: which one goes round.
        for i in case.signed..bytes.len() {
            if let Some(outcome) = flipped(&verifier, &case, &bytes, i, i % 8) {
                assert_eq!(outcome, claims, "{}: byte {i}", case.file);
                unnoticed += 1;
            }
        }
        println!(
            "{}: {unnoticed} of {} flips outside signed bytes are unnoticed",
            case.file,
            bytes.len() - case.signed
        );
        if case.file.starts_with("snp") {
            assert_eq!(unnoticed, 0, "{}: everything around the signature is zero", case.file);
        }
    }
}

fn flip_signed(case: &Case) {
    let Some(dir) = evidence_dir() else { return };
    let bytes = body(case, &dir);
    let verifier = Verifiers::new(case.collateral(&dir));
    let evidence = Evidence::detect(&bytes).expect("evidence");
    verifier.verify(&evidence, at(case.at)).expect("authentic as it is");
    for i in 0..case.signed {
        for bit in 0..8 {
            assert!(
                flipped(&verifier, case, &bytes, i, bit).is_none(),
                "{}: bit {bit} of byte {i}",
                case.file
            );
        }
    }
}

fn body(case: &Case, dir: &std::path::Path) -> Vec<u8> {
    let evidence = Evidence::detect(&read(dir, case.file)).expect(case.file);
    evidence.body().to_vec()
}

/// The claims of evidence with a flipped bit, if it is accepted. Its kind stays as it was: what detects kinds is not what protects.
fn flipped(
    verifier: &Verifiers,
    case: &Case,
    bytes: &[u8],
    byte: usize,
    bit: usize,
) -> Option<privet_attest::Claims> {
    let tee = Evidence::detect(bytes).expect("evidence").tee();
    let mut changed = bytes.to_vec();
    changed[byte] ^= 1 << bit;
    let evidence = Evidence::new(tee, changed).expect("as large as before");
    verifier.verify(&evidence, at(case.at)).ok()
}
